//! Connections of clients: bounded in time, with TLS or without, HTTP/1.1 or HTTP/2.
//!
//! Thousands of them wait at a time, so what they need rarely is in boxes of its own.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::body::BoxError;
use super::config::Limits;
use super::serve::{Ends, Gateway, serve};
use super::stream::Stream;

/// How often a connection of HTTP/2 is asked whether it is still there.
const PING: Duration = Duration::from_secs(30);
/// What HTTP/2 begins with (RFC 9113 section 3.4), and no request of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI ";
/// How long to wait for the rest of a preface that came in pieces.
const PIECES: Duration = Duration::from_millis(10);

/// The protocol on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Http {
    One,
    Two,
}

impl Http {
    /// Which one a client begins with, on a connection without TLS. Nothing is taken from the stream.
    pub(crate) async fn of(stream: &Stream) -> io::Result<Self> {
        let mut buffer = [0; PREFACE.len()];
        loop {
            let count = stream.peek(&mut buffer).await?;
            let seen = buffer.get(..count).unwrap_or_default();
            if seen.is_empty() || !PREFACE.starts_with(seen) {
                return Ok(Self::One);
            }
            if seen == PREFACE {
                return Ok(Self::Two);
            }
            sleep(PIECES).await;
        }
    }
}

/// Serves a client until it leaves, or is to.
pub(crate) async fn connection(
    gateway: Arc<Gateway>,
    stream: Stream,
    peer: Option<SocketAddr>,
    _place: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    let _open = gateway.metrics.open();
    if let Err(error) = serve_client(gateway, stream, peer, stop).await {
        tracing::debug!(%error, "a connection of a client broke off");
    }
}

async fn serve_client(
    gateway: Arc<Gateway>,
    stream: Stream,
    peer: Option<SocketAddr>,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let tls = gateway.tls.load_full();
    let limits = gateway.site.load().settings.limits;
    stream.set_nodelay(true)?;
    let ends = Ends {
        peer,
        local: stream.local_addr()?,
        secure: tls.is_some(),
    };
    let activity = Arc::new(Activity::default());
    let service = {
        let activity = Arc::clone(&activity);
        move |request| {
            let busy = Busy::new(&activity);
            serve(Arc::clone(&gateway), ends, busy, request)
        }
    };
    match tls {
        None => {
            let http = tokio::select! {
                found = timeout(limits.header_timeout, Http::of(&stream)) => match found {
                    Ok(http) => http?,
                    // No request has come.
                    Err(_) => return Ok(()),
                },
                () = stop.cancelled() => return Ok(()),
            };
            let stream = within(stream, limits);
            Box::pin(serve_http(stream, http, service, &activity, limits, stop)).await
        }
        Some(config) => {
            let accepting = TlsAcceptor::from(config).accept(within(stream, limits));
            let stream = Box::pin(timeout(limits.header_timeout, accepting)).await??;
            let http = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Http::Two,
                _ => Http::One,
            };
            Box::pin(serve_http(stream, http, service, &activity, limits, stop)).await
        }
    }
}

/// A stream that a client has to read from.
fn within(stream: Stream, limits: Limits) -> Pin<Box<TimeoutStream<Stream>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.send_timeout));
    Box::pin(stream)
}

/// Serves a connection, and ends it when it has been idle for too long.
pub(crate) async fn serve_http<S, F, B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http: Http,
    service: S,
    activity: &Activity,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), BoxError>
where
    S: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let service = service_fn(|request| service(request).map(Ok::<_, Infallible>));
    let stream = TokioIo::new(stream);
    match http {
        Http::One => {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.idle_timeout.max(limits.header_timeout))
                .max_buf_size(limits.header)
                .serve_connection(stream, service)
                .with_upgrades();
            let finish = http1::UpgradeableConnection::graceful_shutdown;
            drive(Box::pin(served), finish, activity, limits, stop).await
        }
        Http::Two => {
            let served = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .enable_connect_protocol()
                .max_header_list_size(u32::try_from(limits.header).unwrap_or(u32::MAX))
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .serve_connection(stream, service);
            let finish = http2::Connection::graceful_shutdown;
            drive(Box::pin(served), finish, activity, limits, stop).await
        }
    }
}

/// Drives a connection to its end, and has it `finish` when it has been idle for too long or is to stop.
async fn drive<C>(
    mut served: Pin<Box<C>>,
    finish: fn(Pin<&mut C>),
    activity: &Activity,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), BoxError>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut stopping = false;
    let first = Instant::now() + limits.header_timeout;
    let mut check = Instant::now() + limits.header_timeout.min(limits.idle_timeout);
    loop {
        tokio::select! {
            result = served.as_mut() => return Ok(result?),
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                finish(served.as_mut());
            }
            () = sleep_until(check) => {
                let idle = activity.idle(check);
                match idle {
                    // No request has come yet.
                    None if check >= first => return Ok(()),
                    None => check = first,
                    Some(idle) if idle < limits.idle_timeout => check = Instant::now() + (limits.idle_timeout - idle),
                    // It was asked to close before.
                    Some(_) if stopping => return Ok(()),
                    Some(_) => {
                        stopping = true;
                        finish(served.as_mut());
                        check = Instant::now() + limits.header_timeout;
                    }
                }
            }
        }
    }
}

/// What goes on on a connection.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    active: AtomicUsize,
    seen: AtomicBool,
    ended: Mutex<Option<Instant>>,
}

impl Activity {
    /// For how long there has been no request; `None`: there never was one.
    fn idle(&self, now: Instant) -> Option<Duration> {
        if !self.seen.load(Ordering::Acquire) {
            return None;
        }
        if self.active.load(Ordering::Acquire) > 0 {
            return Some(Duration::ZERO);
        }
        let ended = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        Some(ended.map_or(Duration::ZERO, |ended| now.saturating_duration_since(ended)))
    }
}

/// A request on a connection, until its response or its tunnel has ended.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

impl Busy {
    pub(crate) fn new(activity: &Arc<Activity>) -> Self {
        activity.active.fetch_add(1, Ordering::AcqRel);
        activity.seen.store(true, Ordering::Release);
        Self(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}
