//! HTTP/1.1, by hyper.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode, Version};
use hyper::server::conn::http1::{Builder, UpgradeableConnection};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::activity::Activity;
use super::drive::drive;
use super::incoming::{BoxError, Incoming};
use super::io::{ClientIo, Heads, Hints};
use super::terms::Terms;

/// Serves a connection, and ends it when it has been idle for too long.
pub(crate) async fn serve<S, F, B>(
    io: ClientIo,
    activity: &Activity,
    service: S,
    terms: Terms<'_>,
) -> Result<(), BoxError>
where
    S: Fn(Request<Incoming>) -> F + Unpin,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let limits = terms.limits;
    let hints = Hints::new(terms.tidy);
    let on_interim = hints.on_interim();
    let heads = Arc::new(Heads::default());
    let io = io.speaks_http1(Arc::clone(&hints), Arc::clone(&heads));
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let mut request = request.map(Incoming::Left);
        if request.version() == Version::HTTP_11 {
            request.extensions_mut().insert(on_interim.clone());
        }
        if let Some(unclear) = heads.take() {
            request.extensions_mut().insert(unclear);
        }
        let (hints, heads) = (Arc::clone(&hints), Arc::clone(&heads));
        service(request).then(|response| async move {
            hints.taken().await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                heads.stop();
            }
            Ok::<_, Infallible>(response)
        })
    });
    let served = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout.max(limits.header_timeout))
        .max_buf_size(limits.header)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let finish = UpgradeableConnection::graceful_shutdown;
    let ended = drive(Box::pin(served), finish, activity, limits, terms.stop).await;
    if let Err(error) = &ended
        && let Some(error) = error.downcast_ref()
        && let Some((status, line)) = heads.refused(error)
    {
        (terms.refused)(status, &line);
    }
    ended
}
