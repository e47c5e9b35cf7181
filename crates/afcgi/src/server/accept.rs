//! Accepting connections, and putting them on a thread.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use afcgi_proto::app::OverflowTotal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Server;
use super::app::App;
use super::config::Config;
use super::connection::{Common, Driver, Ending};
use super::linger::Linger;
use super::listen::{ListenSocket, Listener, SocketFile};
use super::noise::Noise;
use super::stop::{Asked, Open, Stop};

/// How long to wait before accepting again when the system is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection has to be idle before it makes room for another: the first request of one that was
/// just accepted may be on its way.
const YOUNG: Duration = Duration::from_millis(100);

/// How long a connection waits for room that another makes: its thread may be busy.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that wait for their thread to take them.
const HANDOVER: usize = 1024;

/// A connection that was accepted.
#[derive(Debug)]
enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection on its way to another runtime.
#[derive(Debug)]
enum Moved {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// Where connections live.
pub(super) enum Place<A> {
    /// On the runtime that accepts them.
    Here(A),
    /// On threads of their own.
    Threads(Vec<Thread>),
}

/// A thread with a runtime of its own.
#[derive(Debug)]
pub(super) struct Thread {
    sender: mpsc::Sender<(Moved, Context)>,
    connections: Arc<AtomicUsize>,
}

/// What a connection needs to know of its server.
#[derive(Clone, Debug)]
struct Context {
    config: Arc<Config>,
    common: Common,
    open: Open,
}

impl Context {
    /// Whether a connection may come in; it is counted then.
    async fn lets_in(&self, accepted: &Accepted) -> bool {
        let stats = &self.common.stats;
        if let Some(why) = accepted.objection(&self.config) {
            stats.turn_away();
            if self.common.noise.may_warn() {
                tracing::warn!(%why, "connection closed");
            }
            return false;
        }
        if let Accepted::Tcp(stream) = accepted
            && let Err(error) = stream.set_nodelay(true)
        {
            tracing::debug!(%error, "connection lost");
            return false;
        }
        if !self.has_room().await {
            stats.turn_away();
            if self.common.noise.may_warn() {
                tracing::warn!(
                    max_connections = self.config.max_connections,
                    "connection closed: there are as many as may be, and none is idle"
                );
            }
            return false;
        }
        true
    }

    /// Counts a connection in, if need be in place of one that is idle.
    async fn has_room(&self) -> bool {
        let start = crate::clock::now();
        while !self.common.stats.connect(self.config.max_connections) {
            let now = crate::clock::now();
            let late = now.saturating_duration_since(start) > ROOM_TIMEOUT;
            let latest = now.checked_sub(YOUNG).filter(|_| !late);
            let Some(key) = latest.and_then(|latest| self.open.make_room(latest)) else {
                return false;
            };
            // One that has got a request meanwhile stays, and another is asked.
            let _ = tokio::time::timeout(ROOM_TIMEOUT / 10, self.open.gone(key)).await;
        }
        true
    }
}

impl<A: App> Place<A> {
    pub(super) fn here(app: A) -> Self {
        Self::Here(app)
    }

    pub(super) fn threads(count: NonZeroUsize, app: &A) -> io::Result<Self> {
        let threads = (0..count.get()).map(|number| Thread::start(number, app.clone()));
        Ok(Self::Threads(threads.collect::<io::Result<_>>()?))
    }

    /// Fails, and closes the connection, when its thread cannot take it.
    fn put(&self, accepted: Accepted, context: Context) -> io::Result<()> {
        match self {
            Self::Here(app) => {
                let app = app.clone();
                tokio::spawn(async move { accepted.drive(app, context).await });
            }
            Self::Threads(threads) => {
                let load = |thread: &&Thread| thread.connections.load(Ordering::Relaxed);
                let Some(thread) = threads.iter().min_by_key(load) else {
                    return Err(io::Error::other("the server has no thread"));
                };
                let moved = match accepted {
                    Accepted::Tcp(stream) => Moved::Tcp(stream.into_std()?),
                    Accepted::Unix(stream) => Moved::Unix(stream.into_std()?),
                };
                (thread.sender.try_send((moved, context)))
                    .map_err(|_| io::Error::other("the thread is too busy"))?;
                thread.connections.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

impl Thread {
    fn start<A: App>(number: usize, app: A) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (sender, mut receiver) = mpsc::channel::<(Moved, Context)>(HANDOVER);
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        std::thread::Builder::new()
            .name(format!("afcgi-{number}"))
            .spawn(move || {
                runtime.block_on(async move {
                    let mut tasks = JoinSet::new();
                    while let Some((moved, context)) = receiver.recv().await {
                        let app = app.clone();
                        let counter = Arc::clone(&counter);
                        tasks.spawn(async move {
                            match Accepted::try_from(moved) {
                                Ok(accepted) => accepted.drive(app, context).await,
                                Err(error) => tracing::error!(%error, "cannot use a connection"),
                            }
                            counter.fetch_sub(1, Ordering::Relaxed);
                        });
                        while tasks.try_join_next().is_some() {}
                    }
                    // The server has stopped: what it did not wait for ends here.
                });
            })?;
        Ok(Self {
            sender,
            connections,
        })
    }
}

impl TryFrom<Moved> for Accepted {
    type Error = io::Error;

    fn try_from(moved: Moved) -> io::Result<Self> {
        Ok(match moved {
            Moved::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream)?),
            Moved::Unix(stream) => Self::Unix(UnixStream::from_std(stream)?),
        })
    }
}

impl Accepted {
    /// Drives the connection to its end.
    async fn drive<A: App>(self, app: A, context: Context) {
        match self {
            Self::Tcp(stream) => drive(stream, app, context).await,
            Self::Unix(stream) => drive(stream, app, context).await,
        }
    }

    /// Why this peer may not connect, if so.
    fn objection(&self, config: &Config) -> Option<String> {
        if let Some(allowed) = &config.web_server_addrs {
            let peer = match self {
                Self::Tcp(stream) => stream.peer_addr().ok().map(|addr| addr.ip()),
                Self::Unix(_) => None,
            };
            let listed = |peer: IpAddr| allowed.iter().any(|ip| ip.to_canonical() == peer);
            if !peer.is_some_and(|peer| listed(peer.to_canonical())) {
                let peer = peer.map_or("a unix socket".to_owned(), |peer| peer.to_string());
                return Some(format!("{peer} is not among FCGI_WEB_SERVER_ADDRS"));
            }
        }
        if let (Some(allowed), Self::Unix(stream)) = (&config.unix_peer_uids, self) {
            let own = rustix::process::geteuid().as_raw();
            let uid = stream.peer_cred().ok().map(|cred| cred.uid());
            if !uid.is_some_and(|uid| uid == 0 || uid == own || allowed.contains(&uid)) {
                return Some(format!("user {uid:?} is not allowed"));
            }
        }
        None
    }
}

/// Counts a connection out.
struct Counted(Common);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.stats.disconnect();
    }
}

async fn drive<IO, A>(io: IO, app: A, context: Context)
where
    IO: AsyncRead + AsyncWrite + Unpin,
    A: App,
{
    let config = context.config.for_connections();
    let driver = Driver::new(io, app, config, context.common.clone());
    // Whoever waits until it is gone finds it counted out.
    let _entry = context.open.add(driver.shared());
    let _counted = Counted(context.common.clone());
    let shared = Arc::clone(driver.shared());
    let ending = driver.run().await;
    if shared.has_made_room() {
        context.common.stats.make_room();
        if context.common.noise.may_warn() {
            tracing::warn!(
                max_connections = context.config.max_connections,
                "idle connection closed to make room for another"
            );
        }
    }
    match ending {
        Ending::Finished | Ending::MadeRoom => tracing::debug!("connection closed"),
        Ending::Protocol(error) if context.common.noise.may_warn() => {
            tracing::warn!(%error, "connection closed");
        }
        Ending::Protocol(_) => {}
        Ending::Io(error) => tracing::debug!(%error, "connection lost"),
    }
}

/// Accepts connections until the server is stopped.
pub(super) struct Acceptor<A> {
    sockets: Vec<Socket>,
    /// Removed when accepting ends.
    files: Vec<Option<SocketFile>>,
    stop: Stop,
    asked: Asked,
    place: Place<A>,
    context: Context,
}

/// A listener of the current runtime.
#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    fn new(socket: ListenSocket) -> io::Result<Self> {
        Ok(match socket {
            ListenSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Self::Tcp(TcpListener::from_std(listener)?)
            }
            ListenSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Self::Unix(UnixListener::from_std(listener)?)
            }
        })
    }

    fn poll_accept(&self, cx: &mut TaskContext<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, _)| Accepted::Tcp(stream)),
            Self::Unix(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

impl<A: App> Acceptor<A> {
    /// Within a runtime.
    pub(super) fn new(server: Server, place: Place<A>) -> io::Result<Self> {
        if server.listeners.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the server has no address to listen at",
            ));
        }
        let config = Arc::new(server.config);
        let mut sockets = Vec::new();
        let mut files = Vec::new();
        for listener in server.listeners {
            if listener.is_public() && config.web_server_addrs.is_none() {
                tracing::warn!(
                    address = %listener,
                    "whoever can reach this address can run the application with parameters of their choice: \
                     listen on a unix socket or on 127.0.0.1, or set FCGI_WEB_SERVER_ADDRS"
                );
            }
            tracing::info!(address = %listener, "listening");
            let Listener { socket, file } = listener;
            sockets.push(Socket::new(socket)?);
            files.push(file);
        }
        Ok(Self {
            sockets,
            files,
            stop: Stop::new(server.signals, server.stop)?,
            asked: server.asked,
            place,
            context: Context {
                common: Common {
                    stats: server.stats,
                    noise: Noise::default(),
                    max_requests: config.max_requests,
                    overflow: OverflowTotal::new(config.overflow_total),
                    send_timeout: config.send_timeout,
                    linger: Linger {
                        time: config.linger_time,
                        bytes: config.linger_bytes,
                    },
                    upgrades: config.upgrades,
                },
                open: Open::default(),
                config,
            },
        })
    }

    pub(super) async fn run(mut self) -> io::Result<()> {
        let mut turn = 0_usize;
        loop {
            let sockets = &self.sockets;
            let accept = poll_fn(|cx| {
                // The one after the last that had something, so that none is starved.
                for offset in 1..=sockets.len() {
                    let index = (turn + offset) % sockets.len();
                    if let Poll::Ready(accepted) = sockets[index].poll_accept(cx) {
                        turn = index;
                        return Poll::Ready(accepted);
                    }
                }
                Poll::Pending
            });
            let accepted = tokio::select! {
                biased;
                () = self.stop.wait() => break,
                accepted = accept => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    if self.context.lets_in(&accepted).await {
                        self.put(accepted);
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(std::mem::take(&mut self.sockets));
        drop(std::mem::take(&mut self.files));
        self.drain().await;
        Ok(())
    }

    fn put(&self, accepted: Accepted) {
        if let Err(error) = self.place.put(accepted, self.context.clone()) {
            let stats = &self.context.common.stats;
            stats.disconnect();
            stats.turn_away();
            tracing::error!(%error, "connection closed");
        }
    }

    async fn drain(mut self) {
        let open = &self.context.open;
        let timeout = self.context.config.drain_timeout;
        tracing::info!(connections = open.len(), "stopping");
        self.asked.tell();
        open.drain();
        tokio::select! {
            () = open.all_closed() => return,
            () = tokio::time::sleep(timeout) => {
                tracing::warn!(connections = open.len(), ?timeout, "requests did not end in time: aborted");
            }
            () = self.stop.again() => {
                tracing::warn!(connections = open.len(), "stopped at once: requests aborted");
            }
        }
        open.abort();
        open.all_closed().await;
    }
}

/// Whether accepting failed for a reason that lies with the connection.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
