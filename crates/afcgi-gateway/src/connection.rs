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

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode, Version};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::access;
use super::body::{BoxError, Incoming};
use super::config::Limits;
use super::ending::Ending;
use super::heads::Heads;
use super::http2::{self, Budget, Refused};
use super::interim::{Hinted, Hints};
use super::log;
use super::serve::{Ends, Shared, serve};
use super::stream::Stream;

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
    shared: Arc<Shared>,
    stream: Stream,
    peer: Option<SocketAddr>,
    _place: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    let _open = shared.metrics.open();
    if let Err(error) = serve_client(shared, stream, peer, stop).await {
        tracing::debug!(%error, "a connection of a client broke off");
    }
}

async fn serve_client(
    shared: Arc<Shared>,
    stream: Stream,
    peer: Option<SocketAddr>,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let tls = shared.tls.load_full();
    let limits = shared.site.load().settings.limits;
    stream.set_nodelay(true)?;
    let ends = Ends {
        peer,
        local: stream.local_addr()?,
        secure: tls.is_some(),
    };
    let activity = Arc::new(Activity::default());
    let refused = {
        let shared = Arc::clone(&shared);
        move |status, line: &[u8]| {
            let log = shared.site.load().log.clone();
            log::refused(log, &shared.metrics, access::name(peer), (status, line));
        }
    };
    let about = About {
        activity: &activity,
        limits,
        budget: Arc::clone(&shared.metrics.responses),
        refused: &refused,
        stop: stop.clone(),
    };
    let service = {
        let activity = Arc::clone(&activity);
        move |request| {
            let busy = Busy::new(&activity);
            serve(Arc::clone(&shared), ends, busy, request)
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
            let stream = within(stream, &activity, limits);
            Box::pin(serve_http(stream, http, service, about)).await
        }
        Some(config) => {
            let accepting = TlsAcceptor::from(config).accept(within(stream, &activity, limits));
            let stream = Box::pin(timeout(limits.header_timeout, accepting)).await??;
            let http = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Http::Two,
                _ => Http::One,
            };
            Box::pin(serve_http(stream, http, service, about)).await
        }
    }
}

/// A stream that a client has to read from.
fn within(
    io: Stream,
    activity: &Arc<Activity>,
    limits: Limits,
) -> Pin<Box<TimeoutStream<Ending<Stream>>>> {
    let activity = Arc::clone(activity);
    let mut stream = TimeoutStream::new(Ending { io, activity });
    stream.set_write_timeout(Some(limits.send_timeout));
    Box::pin(stream)
}

/// What a connection is served with.
pub(crate) struct About<'a> {
    pub(crate) activity: &'a Activity,
    pub(crate) limits: Limits,
    pub(crate) budget: Arc<Budget>,
    pub(crate) refused: Refused<'a>,
    pub(crate) stop: CancellationToken,
}

/// Serves a connection, and ends it when it has been idle for too long.
pub(crate) async fn serve_http<S, F, B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http: Http,
    service: S,
    about: About<'_>,
) -> Result<(), BoxError>
where
    S: Fn(Request<Incoming>) -> F + Unpin,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let About {
        activity,
        limits,
        budget,
        refused,
        stop,
    } = about;
    match http {
        Http::One => {
            let hints = Hints::new();
            let on_interim = hints.on_interim();
            let heads = Arc::new(Heads::default());
            let hinted = Hinted::new(stream, Arc::clone(&hints), Arc::clone(&heads));
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
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.idle_timeout.max(limits.header_timeout))
                .max_buf_size(limits.header)
                .serve_connection(TokioIo::new(hinted), service)
                .with_upgrades();
            let finish = http1::UpgradeableConnection::graceful_shutdown;
            let ended = drive(Box::pin(served), finish, activity, limits, stop).await;
            if let Err(error) = &ended
                && let Some(error) = error.downcast_ref()
                && let Some((status, line)) = heads.refused(error)
            {
                refused(status, &line);
            }
            ended
        }
        Http::Two => {
            let handshake = Box::pin(http2::handshake(stream, service, limits, budget, refused));
            let served = tokio::select! {
                made = timeout(limits.header_timeout, handshake) => made??,
                () = stop.cancelled() => return Ok(()),
            };
            let finish = http2::Connection::graceful_shutdown;
            drive(Box::pin(served), finish, activity, limits, stop).await
        }
    }
}

/// Drives a connection to its end, and has it `finish` when it has been idle for too long or is to stop.
async fn drive<C, E>(
    mut served: Pin<Box<C>>,
    finish: fn(Pin<&mut C>),
    activity: &Activity,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), BoxError>
where
    C: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let mut stopping = false;
    let first = Instant::now() + limits.header_timeout;
    let mut check = Instant::now() + limits.header_timeout.min(limits.idle_timeout);
    loop {
        tokio::select! {
            result = served.as_mut() => return result.map_err(Into::into),
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
    broken: AtomicBool,
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

    /// Whether its end must not look like that of a response.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
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

    /// The response is not complete, and nothing but the end of the connection would end it.
    pub(crate) fn broke_off(&self) {
        self.0.broken.store(true, Ordering::Release);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}
