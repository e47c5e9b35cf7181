//! Connections of clients: accepted, bounded in number and time, with TLS or without, HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use afcgi::Address;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::body::BoxError;
use super::config::Limits;
use super::ending::Ending;
use super::serve::{Ends, Gateway, serve};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// After an error of accepting, such as having no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a connection of HTTP/2 is asked whether it is still there.
const PING: Duration = Duration::from_secs(30);

/// Listens on an address; on all that a name has.
pub(crate) fn bind(address: &Address) -> io::Result<Vec<TcpListener>> {
    let failed = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                " (another program listens there: stop it, or choose another address with --listen)"
            }
            io::ErrorKind::PermissionDenied => " (ports below 1024 need a permission)",
            _ => "",
        };
        io::Error::new(
            error.kind(),
            format!("cannot listen on {address}: {error}{hint}"),
        )
    };
    let addresses: Vec<SocketAddr> = match address {
        Address::Unix(_) => {
            let error = io::Error::new(
                io::ErrorKind::InvalidInput,
                "expected HOST:PORT, *:PORT or [IPv6]:PORT",
            );
            return Err(failed(error));
        }
        Address::Tcp { host, port } if host.is_empty() => {
            // Both families by one socket, where there is IPv6.
            let both = bind_one((Ipv6Addr::UNSPECIFIED, *port).into());
            let listener = both.or_else(|error| match error.kind() {
                io::ErrorKind::AddrInUse => Err(error),
                _ => bind_one((Ipv4Addr::UNSPECIFIED, *port).into()),
            });
            return Ok(vec![listener.map_err(failed)?]);
        }
        Address::Tcp { host, port } => (host.as_str(), *port)
            .to_socket_addrs()
            .map_err(failed)?
            .collect(),
    };
    addresses
        .into_iter()
        .map(|address| bind_one(address).map_err(failed))
        .collect()
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until it is told to stop.
pub(crate) async fn accept(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    places: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let stopped = stop.cancelled();
    let mut stopped = pin!(stopped);
    loop {
        let next = async {
            let place = match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => place,
                Err(_) => {
                    tracing::warn!("as many connections as may be are open: further ones wait");
                    // It is never closed.
                    Arc::clone(&places)
                        .acquire_owned()
                        .await
                        .map_err(io::Error::other)?
                }
            };
            let (stream, peer) = listener.accept().await?;
            io::Result::Ok((stream, peer, place))
        };
        let accepted = tokio::select! {
            () = &mut stopped => return,
            accepted = next => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let connection =
                    connection(Arc::clone(&gateway), stream, peer, place, stop.clone());
                gateway.tasks.spawn(async {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection of a client broke off");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for a moment");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    _place: OwnedSemaphorePermit,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let _open = gateway.metrics.open();
    let tls = gateway.tls.load_full();
    let limits = gateway.site.load().settings.limits;
    stream.set_nodelay(true)?;
    let ends = Ends {
        peer,
        local: stream.local_addr()?,
        secure: tls.is_some(),
    };
    let activity = Arc::new(Activity::default());
    let mut stream = TimeoutStream::new(Ending {
        io: stream,
        activity: Arc::clone(&activity),
    });
    stream.set_write_timeout(Some(limits.send_timeout));
    let stream = Box::pin(stream);
    let service = {
        let activity = Arc::clone(&activity);
        move |request| {
            let busy = Busy::new(&activity);
            serve(Arc::clone(&gateway), ends, busy, request)
        }
    };
    match tls {
        None => serve_http(stream, service, &activity, limits, stop).await,
        Some(config) => {
            let accepting = TlsAcceptor::from(config).accept(stream);
            let stream = timeout(limits.header_timeout, accepting).await??;
            serve_http(stream, service, &activity, limits, stop).await
        }
    }
}

/// Serves a connection, and ends it when it has been idle for too long.
pub(crate) async fn serve_http<S, F, B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
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
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout.max(limits.header_timeout))
        .max_buf_size(limits.header);
    builder
        .http2()
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_header_list_size(u32::try_from(limits.header).unwrap_or(u32::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let service = service_fn(|request| {
        let answer = service(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let mut stopping = false;
    let first = Instant::now() + limits.header_timeout;
    let mut check = Instant::now() + limits.header_timeout.min(limits.idle_timeout);
    loop {
        tokio::select! {
            result = served.as_mut() => return result,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
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
                        served.as_mut().graceful_shutdown();
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
