//! A client as a tower service that never fails: for axum, hyper and the like.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use hyper::upgrade::OnUpgrade;

use super::body::ResponseBody;
use super::error::{Culprit, Error};
use super::upgrade::upgraded;
use super::{BoxError, Client};

/// A [`Client`] whose errors are responses: 502, 503 with Retry-After, 504, or 4xx where the request
/// is to blame; the reason is logged. What the other end of the connection is told of it is the status
/// alone.
///
/// Which fields a client's `Connection` names is not looked at here, since others may have been added since: call
/// [`remove_hop_by_hop`](super::remove_hop_by_hop) where its requests come in.
///
/// Requests that become tunnels (WebSocket) are joined with the connection they came on by the
/// `hyper::upgrade::OnUpgrade` among their extensions, which hyper and axum put there.
#[derive(Clone, Debug)]
pub struct Mount(pub(super) Client);

impl<B> tower::Service<Request<B>> for Mount
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let client = self.0.clone();
        let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
        if on_upgrade.is_none() {
            // There would be nothing to tunnel to.
            request.headers_mut().remove(http::header::UPGRADE);
        }
        let path = request.uri().path().to_owned();
        Box::pin(async move {
            let mut response = match client.request(request).await {
                Ok(response) => response,
                Err(error) => return Ok(answer(&error, &path)),
            };
            if let Some(tunnel) = upgraded(&mut response)
                && let Some(on_upgrade) = on_upgrade
            {
                let connection = HeaderValue::from_static("upgrade");
                (response.headers_mut()).insert(http::header::CONNECTION, connection);
                tokio::spawn(async move {
                    if let Err(error) = tunnel.join(on_upgrade).await {
                        tracing::debug!(%error, path, "a tunnel has ended");
                    }
                });
            }
            Ok(response)
        })
    }
}

/// The response to a request that failed.
fn answer(error: &Error, path: &str) -> Response<ResponseBody> {
    let status = error.status();
    let path = path.escape_debug();
    match error.culprit() {
        Culprit::User => tracing::info!(%path, %error, status = status.as_u16(), "no response"),
        _ => tracing::error!(%path, %error, status = status.as_u16(), "no response"),
    }
    let mut response = Response::new(text(status));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if let Some(after) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    response
}

fn text(status: StatusCode) -> ResponseBody {
    let reason = status.canonical_reason().unwrap_or("Error");
    ResponseBody::text(Bytes::from(format!("{} {reason}\n", status.as_u16())))
}
