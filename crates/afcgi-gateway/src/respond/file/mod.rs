//! A file as a response: all of it, parts of it, or that the client has it already (RFC 9110 sections 13 to 15).
//!
//! Static files and those that are sent in place of a response of the application are the same here. What decides is in
//! [`conditions`] and [`ranges`]; how the bytes are read is in [`content`].

mod conditions;
mod content;
mod ranges;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Empty};

use crate::respond::body::{Body, text};
use conditions::{Validators, Verdict};
use content::{Content, Part};
use ranges::Ranges;

/// Sends a file that a path stands for.
pub(crate) async fn send(path: &Path, request: &Parts) -> Response<Body> {
    if !is_read(&request.method) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED);
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let asked = Asked {
        method: &request.method,
        headers: &request.headers,
        kind: None,
        is_encoded: false,
    };
    asked.send(path).await
}

/// Sends a file that an application wants sent in place of its response, whose other fields stay.
///
/// To another method than HEAD it is sent as to a GET. The conditions and ranges of a request that is neither are about what
/// that was for, and the application has done that: they are not about the file.
pub(crate) async fn in_place(path: &Path, request: &Parts, fields: HeaderMap) -> Response<Body> {
    let none = HeaderMap::new();
    let (method, headers) = match is_read(&request.method) {
        true => (&request.method, &request.headers),
        false => (&Method::GET, &none),
    };
    let asked = Asked {
        method,
        headers,
        kind: fields.get(CONTENT_TYPE).cloned(),
        is_encoded: fields.contains_key(CONTENT_ENCODING),
    };
    let mut response = asked.send(path).await;
    adopt(&mut response, fields);
    response
}

fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

/// Adds the fields of a response to that of the file in its place.
fn adopt(response: &mut Response<Body>, fields: HeaderMap) {
    let sends = response.status().is_success();
    let mut last = None;
    for (name, value) in fields {
        // Of repeated fields only the first has its name.
        let Some(name) = name.or_else(|| last.clone()) else {
            continue;
        };
        let first = last.as_ref() != Some(&name);
        last = Some(name.clone());
        if is_of_the_file(&name) || (!sends && is_of_content(&name)) {
            continue;
        }
        match first {
            true => drop(response.headers_mut().insert(name, value)),
            false => drop(response.headers_mut().append(name, value)),
        }
    }
}

/// Whether a field of the application's speaks of the body that it did not send, or is for the gateway. An ETag that a
/// framework has made of an empty body would be the same for ever, whatever becomes of the file.
fn is_of_the_file(name: &HeaderName) -> bool {
    [
        ACCEPT_RANGES,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        ETAG,
        LAST_MODIFIED,
    ]
    .contains(name)
        || *name == "x-sendfile"
        || *name == "x-accel-redirect"
}

/// Whether a field says what the file is, which is not what a short text says that is sent instead.
fn is_of_content(name: &HeaderName) -> bool {
    [CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE].contains(name)
}

/// What a client asks of a file.
struct Asked<'a> {
    /// GET or HEAD.
    method: &'a Method,
    headers: &'a HeaderMap,
    /// The type of the file, if it is not to be known by its name.
    kind: Option<HeaderValue>,
    /// Whether it has a Content-Encoding, which would be taken for that of several parts together.
    is_encoded: bool,
}

impl Asked<'_> {
    async fn send(mut self, path: &Path) -> Response<Body> {
        let owned = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&owned)).await;
        let (file, validators, length) = match opened.unwrap_or_else(|error| Err(error.into())) {
            Ok(opened) => opened,
            Err(error) => return text(refusal(path, &error)),
        };
        match conditions::check(self.headers, &validators) {
            Verdict::Send => {}
            Verdict::Failed => return text(StatusCode::PRECONDITION_FAILED),
            Verdict::NotModified => {
                let mut response = Response::new(empty());
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                validators.put(response.headers_mut());
                return response;
            }
        }
        let kind = self.kind.take().unwrap_or_else(|| kind_of(path));
        let mut response = match self.ranges(&validators, length) {
            Ranges::Whole => self.whole(file, length, kind),
            Ranges::Unsatisfiable => {
                let mut response = text(StatusCode::RANGE_NOT_SATISFIABLE);
                let range = field(&format!("bytes */{length}"));
                response.headers_mut().insert(CONTENT_RANGE, range);
                return response;
            }
            Ranges::One(range) => one(file, range, length, kind),
            Ranges::Several(_) if self.is_encoded => self.whole(file, length, kind),
            Ranges::Several(ranges) => several(file, &ranges, length, &kind),
        };
        validators.put(response.headers_mut());
        let accepts = HeaderValue::from_static("bytes");
        response.headers_mut().insert(ACCEPT_RANGES, accepts);
        response
    }

    /// Ranges are for GET alone (RFC 9110 section 14.2).
    fn ranges(&self, validators: &Validators, length: u64) -> Ranges {
        match *self.method == Method::GET && conditions::range_holds(self.headers, validators) {
            true => ranges::of(self.headers, length),
            false => Ranges::Whole,
        }
    }

    fn whole(&self, file: File, length: u64, kind: HeaderValue) -> Response<Body> {
        let mut response = match *self.method == Method::HEAD {
            true => Response::new(empty()),
            false => Response::new(Content::new(file, vec![Part::File(0..length)]).boxed_unsync()),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        response
    }
}

fn one(file: File, range: Range<u64>, length: u64, kind: HeaderValue) -> Response<Body> {
    let told = content_range(&range, length);
    let mut response = partial(Content::new(file, vec![Part::File(range)]), kind);
    response.headers_mut().insert(CONTENT_RANGE, field(&told));
    response
}

/// RFC 9110 section 14.6.
fn several(file: File, ranges: &[Range<u64>], length: u64, kind: &HeaderValue) -> Response<Body> {
    // What is in the file has no say in it, and cannot know it.
    let boundary = format!("{:032x}", fastrand::u128(..));
    let mut parts = Vec::with_capacity(2 * ranges.len() + 1);
    for range in ranges {
        let mut head = format!("\r\n--{boundary}\r\nContent-Type: ").into_bytes();
        head.extend_from_slice(kind.as_bytes());
        let told = content_range(range, length);
        head.extend_from_slice(format!("\r\nContent-Range: {told}\r\n\r\n").as_bytes());
        parts.push(Part::Text(head.into()));
        parts.push(Part::File(range.clone()));
    }
    parts.push(Part::Text(format!("\r\n--{boundary}--\r\n").into()));
    let kind = field(&format!("multipart/byteranges; boundary={boundary}"));
    partial(Content::new(file, parts), kind)
}

fn partial(content: Content, kind: HeaderValue) -> Response<Body> {
    let length = content.length();
    let mut response = Response::new(content.boxed_unsync());
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn content_range(range: &Range<u64>, length: u64) -> String {
    let last = range.end.saturating_sub(1);
    format!("bytes {}-{last}/{length}", range.start)
}

/// A field's value of what is made here.
fn field(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn empty() -> Body {
    Empty::<Bytes>::new()
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The type of a file by the ending of its name.
fn kind_of(path: &Path) -> HeaderValue {
    let known = mime_guess::from_path(path).first_raw();
    HeaderValue::from_static(known.unwrap_or("application/octet-stream"))
}

/// An open file, what tells whether it is still the same, and how long it is.
fn open(path: &Path) -> io::Result<(File, Validators, u64)> {
    let file = File::open(path)?;
    // Of the file that was opened: at its path there may be another one by now.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok((file, Validators::of(&metadata), metadata.len()))
}

fn refusal(path: &Path, error: &io::Error) -> StatusCode {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => StatusCode::NOT_FOUND,
        _ => {
            let file = path.as_os_str().as_encoded_bytes().escape_ascii();
            tracing::error!(%file, %error, "cannot open a file");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}
