//! The application's side: a server that answers requests from web servers.

mod accept;
mod app;
mod config;
mod connection;
#[cfg(feature = "http")]
pub(crate) mod http;
mod linger;
mod listen;
mod noise;
mod request;
mod shared;
mod stats;
mod stop;
mod upgrade;

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;

pub use crate::address::{Address, AddressError};
pub use app::{App, Native, native};
pub use config::Config;
pub use listen::{Listener, UnixOptions};
pub use request::{AppStatus, InputStream, OutputStream, Over, Request};
pub use shared::ReadError;
pub use stats::{Snapshot, Stats};
pub use stop::Stopping;
pub use upgrade::Upgrades;

use accept::{Acceptor, Place};
use stop::Asked;

/// A FastCGI server, with its listeners, limits and shutdown.
///
/// SIGTERM, SIGINT (R-60) or [`Server::stop_when`] starts a graceful shutdown. The server then accepts no new
/// connections, refuses new requests with OVERLOADED, and finishes the active ones within
/// [`Config::drain_timeout`]. A second signal ends them at once. A connection that arrived within the last half
/// second and has had no request may still send its first.
///
/// # Threads and processes
///
/// A connection lives on one thread. nginx with the multiplexing module opens one connection per
/// worker process (or as many as configured). You can run a server in three ways:
///
/// - [`Server::serve`] runs on the current runtime. On one thread it does the least work per
///   request. One thread is enough for most applications that wait more than they compute.
/// - [`Server::run`] runs a thread per CPU, each with a runtime of its own, and puts a new
///   connection on the thread that has the fewest. Use at least as many connections as threads:
///   nginx workers × `connections=` of `fastcgi_multiplex`.
/// - A process per CPU, each at its own address in the web server's upstream, isolates
///   crashes and memory, and lets the web server balance by load (`least_conn`). All processes can
///   also share one address (an inherited socket), but then the kernel chooses.
///
/// ```no_run
/// use afcgi::{Listener, Server};
/// use axum::{Router, routing::get};
///
/// # async fn run() -> std::io::Result<()> {
/// let app = Router::new().route("/", get(|| async { "Hello" }));
/// Server::new()
///     .listen(Listener::bind("unix:/run/app.sock")?)
///     .serve(afcgi::http(app))
///     .await
/// # }
/// ```
pub struct Server {
    listeners: Vec<Listener>,
    config: Config,
    stats: Stats,
    signals: bool,
    stop: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    asked: Asked,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// Creates a server with the default limits and without listeners.
    pub fn new() -> Self {
        Self {
            listeners: Vec::new(),
            config: Config::default(),
            stats: Stats::default(),
            signals: true,
            stop: None,
            asked: Asked::new(),
        }
    }

    /// Adds a listener.
    #[must_use]
    pub fn listen(mut self, listener: impl Into<Listener>) -> Self {
        self.listeners.push(listener.into());
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets whether SIGTERM and SIGINT stop the server. Default: yes.
    #[must_use]
    pub fn signals(mut self, signals: bool) -> Self {
        self.signals = signals;
        self
    }

    /// Stops the server, as a signal does, when this future completes.
    #[must_use]
    pub fn stop_when(mut self, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        self.stop = Some(Box::pin(stop));
        self
    }

    /// Returns the server's counters.
    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// Returns a handle that tells handlers when the server is asked to stop, so that event streams can end in time.
    pub fn stopping(&self) -> Stopping {
        self.asked.stopping()
    }

    /// Serves on the current runtime until the server is stopped.
    ///
    /// Fails if the server has no listeners, or if a listener cannot be used. If this future is dropped, the
    /// listeners are closed. Open connections continue until their runtime ends.
    pub async fn serve<A: App>(self, app: A) -> io::Result<()> {
        Acceptor::new(self, Place::here(app))?.run().await
    }

    /// Serves on this number of threads, each with a runtime of its own. `None`: one per CPU. Returns
    /// when the server is stopped. Do not call it from within a runtime.
    ///
    /// Fails as [`Server::serve`] does, and if a thread cannot be started.
    pub fn run<A: App>(self, threads: Option<NonZeroUsize>, app: A) -> io::Result<()> {
        let threads = match threads {
            Some(threads) => threads,
            None => std::thread::available_parallelism()?,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let place = if threads.get() == 1 {
            Place::here(app)
        } else {
            Place::threads(threads, &app)?
        };
        runtime.block_on(async { Acceptor::new(self, place)?.run().await })
    }
}
