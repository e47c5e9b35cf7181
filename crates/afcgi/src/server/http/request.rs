//! CGI parameters to an [`http::Request`] (RFC 3875 section 4.1).

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use afcgi_proto::Params;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use super::body::Body;
use crate::server::{InputStream, OutputStream, Request};
use crate::types::RemoteAddr;

/// The longest header name that is passed on, in bytes.
const MAX_NAME: usize = 128;

/// What has to be encoded in a path that was decoded.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// What has to be encoded in a URI as the client sent it, beside what is not ASCII. It may hold more than
/// a URI may: web servers pass that on, and browsers leave some of it as it is.
const SENT: &AsciiSet = &AsciiSet::EMPTY
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`');

/// The longest URI in bytes, with what is encoded in it: that of [`Uri`].
const MAX_URI: usize = u16::MAX as usize - 1;

/// Why there is no HTTP request: a status and the text of the answer.
pub(super) type Refusal = (u16, &'static str);

const NO_URI: Refusal = (400, "REQUEST_URI is no URI");
/// There are 24,576 at least before a [`HeaderMap`] is full.
const TOO_MANY_FIELDS: Refusal = (431, "there are too many header fields");

/// The parameters that make up the HTTP request, found in one pass.
#[derive(Default)]
struct Found<'a> {
    method: Option<&'a [u8]>,
    request_uri: Option<&'a [u8]>,
    script_name: &'a [u8],
    path_info: &'a [u8],
    query: &'a [u8],
    protocol: &'a [u8],
    content_length: Option<u64>,
    remote_addr: Option<IpAddr>,
    remote_port: u16,
    /// Whether there is a reason to look whether the request may be upgraded.
    upgrade: bool,
    headers: HeaderMap,
}

/// An HTTP request, and what it would become.
pub(super) struct Converted {
    pub(super) http_request: http::Request<Body>,
    /// STDIN and STDOUT, if the request may be upgraded; on the heap, for those that may not.
    pub(super) tunnel: Option<Box<(InputStream, OutputStream)>>,
}

/// Makes an HTTP request; the error says what is wrong with the parameters.
pub(super) fn from_fastcgi(request: Request) -> Result<Converted, Refusal> {
    let params = request.params().clone();
    let found = Found::new(&params)?;
    let method = match found.method {
        None => Method::GET,
        Some(method) => {
            Method::from_bytes(method).map_err(|_| (400, "REQUEST_METHOD is no method"))?
        }
    };
    let uri = found.uri()?;
    let tunnel = (found.upgrade && request.upgrade_offered())
        .then(|| Box::new((request.stdin(), request.stdout())));
    // Without a length there may be a body all the same, of a length that nobody knows yet. What
    // comes for a tunnel is no body.
    let length = match tunnel {
        Some(_) => Some(0),
        None => found.content_length,
    };
    let body = Body::new(request.stdin(), length);
    let mut http_request = http::Request::new(body);
    *http_request.method_mut() = method;
    *http_request.uri_mut() = uri;
    *http_request.version_mut() = match tunnel {
        // Whatever the client speaks: this is how it was asked here.
        Some(_) => Version::HTTP_11,
        None => version(found.protocol),
    };
    let remote = found
        .remote_addr
        .map(|addr| RemoteAddr(SocketAddr::new(addr, found.remote_port)));
    *http_request.headers_mut() = found.headers;
    let extensions = http_request.extensions_mut();
    extensions.insert(request.over());
    if let Some(remote) = remote {
        extensions.insert(remote);
    }
    extensions.insert(params);
    Ok(Converted {
        http_request,
        tunnel,
    })
}

impl<'a> Found<'a> {
    fn new(params: &'a Params) -> Result<Self, Refusal> {
        let is_header = |name: &[u8]| name.starts_with(b"HTTP_") || name.starts_with(b"CONTENT_");
        let headers = params.iter().filter(|pair| is_header(pair.0)).count();
        let mut found = Self {
            headers: HeaderMap::try_with_capacity(headers).map_err(|_| TOO_MANY_FIELDS)?,
            ..Self::default()
        };
        for (name, value) in params {
            match name {
                b"REQUEST_METHOD" => found.method = Some(value),
                b"REQUEST_URI" => found.request_uri = Some(value),
                b"SCRIPT_NAME" => found.script_name = value,
                b"PATH_INFO" => found.path_info = value,
                b"QUERY_STRING" => found.query = value,
                b"SERVER_PROTOCOL" => found.protocol = value,
                b"REMOTE_ADDR" => found.remote_addr = parse(value),
                b"REMOTE_PORT" => found.remote_port = parse(value).unwrap_or(0),
                b"CONTENT_LENGTH" if !value.is_empty() => {
                    let length = parse(value).ok_or((400, "CONTENT_LENGTH is no number"))?;
                    found.content_length = Some(length);
                    found.header(params, CONTENT_LENGTH, value)?;
                }
                b"CONTENT_TYPE" if !value.is_empty() => {
                    found.header(params, CONTENT_TYPE, value)?
                }
                b"FCGI_UPGRADE" => found.upgrade = true,
                _ => {
                    found.upgrade |= name == b"HTTP_UPGRADE";
                    if let Some(name) = name.strip_prefix(b"HTTP_").and_then(header_name) {
                        found.header(params, name, value)?;
                    }
                }
            }
        }
        Ok(found)
    }

    /// A value that may not stand in a header is left out.
    fn header(&mut self, params: &Params, name: HeaderName, value: &[u8]) -> Result<(), Refusal> {
        let value = params.as_encoded().slice_ref(value);
        if let Ok(value) = HeaderValue::from_maybe_shared(value) {
            (self.headers.try_append(name, value)).map_err(|_| TOO_MANY_FIELDS)?;
        }
        Ok(())
    }

    fn uri(&self) -> Result<Uri, Refusal> {
        let text = match self.request_uri.filter(|uri| !uri.is_empty()) {
            // No client means those, and what splits lines somewhere is not passed on.
            Some(uri) if uri.iter().any(u8::is_ascii_control) => return Err(NO_URI),
            Some(uri) => Cow::from(percent_encode(uri, SENT)),
            None => Cow::Owned(self.made_uri()?),
        };
        if text.len() > MAX_URI {
            return Err((414, "REQUEST_URI is too long"));
        }
        Uri::try_from(&*text).map_err(|_| NO_URI)
    }

    /// A URI of its decoded parts.
    fn made_uri(&self) -> Result<String, Refusal> {
        let mut text = String::new();
        for part in [self.script_name, self.path_info] {
            text.extend(percent_encode(part, PATH));
        }
        if !text.starts_with('/') {
            text.insert(0, '/');
        }
        if self.query.iter().any(u8::is_ascii_control) {
            return Err(NO_URI);
        }
        if !self.query.is_empty() {
            text.push('?');
            text.extend(percent_encode(self.query, SENT));
        }
        Ok(text)
    }
}

fn parse<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// `X_FORWARDED_FOR` to `x-forwarded-for`. `None` for what is no header name, and for headers that
/// say nothing here: the body's framing is FastCGI's, its length and type have parameters of their
/// own, and `Proxy` is only ever an attack.
fn header_name(name: &[u8]) -> Option<HeaderName> {
    if matches!(
        name,
        b"CONTENT_LENGTH" | b"CONTENT_TYPE" | b"TRANSFER_ENCODING" | b"PROXY"
    ) {
        return None;
    }
    let mut buffer = [0; MAX_NAME];
    let buffer = buffer.get_mut(..name.len())?;
    for (to, &from) in buffer.iter_mut().zip(name) {
        *to = if from == b'_' {
            b'-'
        } else {
            from.to_ascii_lowercase()
        };
    }
    HeaderName::from_bytes(buffer).ok()
}

fn version(protocol: &[u8]) -> Version {
    match protocol {
        b"HTTP/1.0" => Version::HTTP_10,
        b"HTTP/2.0" | b"HTTP/2" => Version::HTTP_2,
        b"HTTP/3.0" | b"HTTP/3" => Version::HTTP_3,
        _ => Version::HTTP_11,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(bytes: &[u8]) -> Result<Uri, Refusal> {
        let found = Found {
            request_uri: Some(bytes),
            ..Found::default()
        };
        found.uri()
    }

    #[test]
    fn every_byte_but_controls_may_stand_in_a_path_and_a_query() {
        for byte in 0..=u8::MAX {
            for (before, after) in [(&b"/a"[..], &b"b?c"[..]), (b"/a?b", b"c")] {
                let bytes = [before, &[byte], after].concat();
                let made = uri(&bytes);
                if byte.is_ascii_control() {
                    assert_eq!(made, Err(NO_URI), "{byte:#04x}");
                    continue;
                }
                let made = made.unwrap_or_else(|why| panic!("{byte:#04x}: {why:?}"));
                let text = made.to_string();
                assert!(text.is_ascii());
                // What is behind a `#` is nobody's affair but the client's.
                if byte != b'#' {
                    let decoded: Vec<u8> = percent_encoding::percent_decode_str(&text).collect();
                    assert_eq!(decoded, bytes, "{text}");
                }
            }
        }
    }

    #[test]
    fn a_uri_is_as_long_as_may_be() {
        for (path, fits) in [
            ("x".repeat(MAX_URI - 1), true),
            ("x".repeat(MAX_URI), false),
            ("\"".repeat(MAX_URI / 3), true),
            ("\"".repeat(MAX_URI / 3 + 1), false),
        ] {
            let made = uri(format!("/{path}").as_bytes());
            assert_eq!(made.is_ok(), fits, "{}", path.len());
            if let Err((status, _)) = made {
                assert_eq!(status, 414);
            }
        }
    }
}
