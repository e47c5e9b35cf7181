//! Bodies of responses, and the response that says its status alone.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::ext::ReasonPhrase;

use crate::front::BoxError;

/// The body of a response.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The response to a request that goes no further.
pub(crate) type Refused = Box<Response<Body>>;

pub(crate) fn refuse(status: StatusCode) -> Refused {
    Box::new(text(status))
}

/// A response that says its status, and nothing of why.
pub(crate) fn text(status: StatusCode) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or("Error");
    let text = Full::from(format!("{} {reason}\n", status.as_u16()));
    let mut response = Response::new(text.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    if status.canonical_reason().is_none() {
        // hyper would write `<none>`.
        let reason = ReasonPhrase::from_static(b"Error");
        response.extensions_mut().insert(reason);
    }
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Whether all of a body has been taken, as long as it was announced: nobody asks for more of it then, also if its end has not come yet.
pub(crate) fn is_whole(body: &Body) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}
