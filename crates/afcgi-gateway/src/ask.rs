//! A request to an application: what it is asked, and what its answer becomes.

use std::time::{Duration, Instant};

use afcgi::Role;
use afcgi::client::{Culprit, Error, ExtraParams, OnInterim, ResponseBody, Upgraded, upgraded};
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty, Limited};

use super::body::{Body, RequestBody, text};
use super::files;
use super::log::{Entry, escape};
use super::script;
use super::send;
use super::site::{Route, Upstream};
use super::upgrade::Offer;

/// What an application may add to a response in whose place a file is sent, and for how long.
const DRAIN: (usize, Duration) = (64 << 10, Duration::from_secs(1));

/// A response, and the tunnel that opens behind it.
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    pub(crate) tunnel: Option<(Offer, Box<Upgraded>)>,
}

impl From<Response<Body>> for Answer {
    fn from(response: Response<Body>) -> Self {
        Self {
            response,
            tunnel: None,
        }
    }
}

/// The response to a request that goes no further.
pub(crate) type Refused = Box<Response<Body>>;

pub(crate) fn refuse(status: StatusCode) -> Refused {
    Box::new(text(status))
}

/// Asks an authorizer, whose variables become parameters; what it answers when it refuses is the response.
pub(crate) async fn authorize(
    authorizer: &Upstream,
    parts: &Parts,
    params: &mut Vec<(Bytes, Bytes)>,
    entry: &mut Entry,
) -> Result<(), Refused> {
    let mut request = Request::new(Empty::<Bytes>::new());
    request.method_mut().clone_from(&parts.method);
    request.uri_mut().clone_from(&parts.uri);
    *request.version_mut() = parts.version;
    request.headers_mut().clone_from(&parts.headers);
    request.extensions_mut().clone_from(&parts.extensions);
    request.extensions_mut().remove::<OnInterim>();
    request.extensions_mut().insert(Role::Authorizer);
    request.extensions_mut().insert(ExtraParams(params.clone()));
    entry.goes_to(authorizer, request.extensions_mut());
    let answered = authorizer.client.request(request).await;
    let response = answered
        .map_err(|error| failed(&error, error.status(), authorizer, parts.uri.path(), entry))?;
    if response.status() != StatusCode::OK {
        return Err(Box::new(response.map(boxed)));
    }
    // It is not what serves the request.
    (entry.upstream, entry.trace) = (None, None);
    for (name, value) in response.headers() {
        if let Some(name) = name.as_str().strip_prefix("variable-") {
            let name = name.to_ascii_uppercase();
            params.retain(|(other, _)| *other != name.as_bytes());
            params.push((name.into(), Bytes::copy_from_slice(value.as_bytes())));
        }
    }
    drain(response.into_body());
    Ok(())
}

pub(crate) async fn application(
    upstream: &Upstream,
    route: &Route,
    mut parts: Box<Parts>,
    body: RequestBody,
    offer: Option<Offer>,
    entry: &mut Entry,
) -> Result<Answer, Refused> {
    entry.goes_to(upstream, &mut parts.extensions);
    let verdict = body.verdict();
    // What a file in place of the response needs to know.
    let asked = (!route.rules.sendfile.is_empty()).then(|| {
        let mut request = Request::new(());
        request.method_mut().clone_from(&parts.method);
        request.headers_mut().clone_from(&parts.headers);
        Box::new(request.into_parts().0)
    });
    let path = parts.uri.path().to_owned();
    let sent = Instant::now();
    let request = Request::from_parts(*parts, body);
    let answered = upstream.client.request(request).await;
    entry.wait = Some(sent.elapsed());
    let mut response = answered.map_err(|error| {
        let status = verdict
            .get()
            .map_or(error.status(), |refusal| refusal.status());
        failed(&error, status, upstream, &path, entry)
    })?;
    let tunnel = upgraded(&mut response).map(Box::new);
    let headers = response.headers();
    let wants_file = headers.contains_key("x-accel-redirect") || headers.contains_key("x-sendfile");
    if let (true, Some(asked)) = (wants_file, &asked) {
        let file = Box::pin(in_place(response, route, asked, &path));
        return Ok(file.await?.into());
    }
    match (tunnel, offer) {
        (Some(tunnel), Some(offer)) => {
            offer.accept(&mut response);
            Ok(Answer {
                response: response.map(boxed),
                tunnel: Some((offer, tunnel)),
            })
        }
        (_, Some(offer)) if offer.is_misled_by(response.status()) => {
            tracing::error!(upstream = %upstream.name, path = %path.escape_debug(), status = response.status().as_u16(),
                "the application neither opened the tunnel that it was asked for nor refused");
            Err(refuse(StatusCode::BAD_GATEWAY))
        }
        _ => Ok(response.map(boxed).into()),
    }
}

/// The file that an application wants sent in place of its response.
async fn in_place(
    response: Response<ResponseBody>,
    route: &Route,
    asked: &Parts,
    path: &str,
) -> Result<Response<Body>, Refused> {
    let (answered, body) = response.into_parts();
    drain(body);
    let (folders, headers) = (route.rules.sendfile.clone(), answered.headers.clone());
    let found = tokio::task::spawn_blocking(move || files::sendfile(&folders, &headers)).await;
    let Ok(Some(file)) = found else {
        let field = answered
            .headers
            .get("x-accel-redirect")
            .or(answered.headers.get("x-sendfile"));
        let wanted = field.map_or_else(String::new, |value| escape(value.as_bytes()));
        tracing::error!(path = %path.escape_debug(), wanted, "the application has a file sent that is not in a folder of `sendfile`");
        return Err(refuse(StatusCode::NOT_FOUND));
    };
    if !route.rules.send_scripts && route.rules.scripts.hold_in_a_root(&file) {
        script::refused(&file);
        return Err(refuse(StatusCode::NOT_FOUND));
    }
    Ok(send::in_place(&file, asked, answered.headers).await)
}

/// Lets a request end by itself whose response is not wanted.
fn drain(body: ResponseBody) {
    if !body.is_end_stream() {
        let (most, wait) = DRAIN;
        tokio::spawn(tokio::time::timeout(
            wait,
            Limited::new(body, most).collect(),
        ));
    }
}

fn boxed(body: ResponseBody) -> Body {
    body.map_err(Into::into).boxed_unsync()
}

/// The response to a request that failed, whose reason is in the log.
fn failed(
    error: &Error,
    status: StatusCode,
    upstream: &Upstream,
    path: &str,
    entry: &Entry,
) -> Refused {
    let (path, host, upstream, code) = (
        path.escape_debug(),
        &entry.host,
        &upstream.name,
        status.as_u16(),
    );
    match error.culprit() {
        Culprit::User if status != StatusCode::INTERNAL_SERVER_ERROR => {
            tracing::info!(status = code, %upstream, %host, %path, %error, "no response")
        }
        _ => tracing::error!(status = code, %upstream, %host, %path, %error, "no response"),
    }
    let mut response = text(status);
    if let Some(after) = error.retry_after() {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    Box::new(response)
}
