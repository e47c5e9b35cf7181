//! What comes of asking an application: a response, a tunnel behind it, or an error.

use std::time::Duration;

use afcgi::client::{Culprit, Error, ResponseBody, Upgraded};
use http::header::RETRY_AFTER;
use http::{HeaderValue, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};

use super::upgrade::Offer;
use crate::respond::{Body, Refused, text};
use crate::route::Upstream;
use crate::say::Entry;

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

/// Lets a request end by itself whose response is not wanted.
pub(super) fn drain(body: ResponseBody) {
    if !body.is_end_stream() {
        let (most, wait) = DRAIN;
        tokio::spawn(tokio::time::timeout(
            wait,
            Limited::new(body, most).collect(),
        ));
    }
}

pub(super) fn boxed(body: ResponseBody) -> Body {
    body.map_err(Into::into).boxed_unsync()
}

/// The response to a request that failed, whose reason is in the log.
pub(super) fn failed(
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
