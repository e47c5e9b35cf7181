//! `afcgi gateway`: a web server in front of FastCGI applications.
//!
//! HTTP/1.1 and HTTP/2 by hyper in, FastCGI by [`afcgi::client`] out. `docs/gateway.md` tells how to use it. Here are the command
//! line, the start, and the signals: SIGHUP has the configuration read again, unless it says that the terminal was closed; that,
//! SIGTERM and SIGINT stop in order, a second one at once.

mod access;
mod admin;
mod ask;
mod body;
mod config;
mod connection;
mod ending;
mod files;
mod filter;
mod heads;
mod http2;
mod interim;
mod listen;
mod log;
mod metrics;
mod outgoing;
mod path;
mod script;
mod send;
mod serve;
mod site;
mod stream;
mod tls;
mod upgrade;

use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use afcgi::{Address, Stopping};
use rustix::process::{Resource, Rlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use access::Network;
pub(crate) use config::Mode;
use config::{ConfigError, Settings};
use serve::Gateway;
use site::Site;
use stream::Listener;

use crate::logging::{self, LogFormat};
use crate::terminal::Terminal;

/// A web server in front of FastCGI applications: HTTP/1.1 and HTTP/2, with TLS or without.
///
///   afcgi gateway 127.0.0.1:5000
///
///   afcgi gateway unix:/run/php/php-fpm.sock --root /srv/app
///
/// The first passes every request to the application at that address. The second serves the files in a folder, runs its
/// scripts of PHP, and gives everything else to its index.php. The file that --config names can do more.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Where the application listens: HOST:PORT, unix:PATH or a path with a `/`; requests are balanced between several
    #[arg(value_name = "APPLICATION")]
    addresses: Vec<Address>,
    /// A folder of files, and of scripts in PHP if there is an application
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where to listen: HOST:PORT, *:PORT, [IPv6]:PORT or unix:PATH; several if you like [default: 127.0.0.1:8888]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Address>,
    /// Mode of unix sockets that are listened on, in octal, such as 660 [default: what the umask leaves]
    #[arg(long, value_name = "MODE")]
    socket_mode: Option<Mode>,
    /// The certificate to show, and those of its issuers, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A configuration in TOML: routes, limits and more; read again at SIGHUP
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and leave
    #[arg(long)]
    check: bool,
    /// Where /metrics and /health are: an address that clients should not reach
    #[arg(long, value_name = "ADDR")]
    admin: Option<Address>,
    /// The access log; `-` for standard output
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// How the access log and what is said on STDERR are written: lines for people, or a JSON object on each line
    /// [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// A proxy whose X-Forwarded-For and -Proto are believed: an address, a network such as 10.0.0.0/8, or `unix` for whoever
    /// connects to a unix socket; several if you like
    #[arg(long = "trusted-proxy", value_name = "NETWORK")]
    trusted_proxies: Vec<Network>,
    /// Threads [default: one per CPU]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// The gateway in front of one application, in a process that has other things to do, such as that application: serves
/// HTTP at the listener, which does not block, until it is told to stop and requests are over, or have had their time.
///
/// It waits for event streams however long they are silent.
pub fn embedded(
    http: std::net::TcpListener,
    application: Address,
    stopping: Stopping,
) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
    Box::pin(async move {
        let listener = Listener::Tcp(TcpListener::from_std(http)?);
        let settings = Settings::embedded(application);
        let places = settings.limits.connections.min(Semaphore::MAX_PERMITS);
        let site = Site::new(settings, None).map_err(io::Error::other)?;
        let gateway = Arc::new(Gateway::new(site, None));
        let stop = CancellationToken::new();
        let places = Arc::new(Semaphore::new(places));
        tokio::spawn(listen::accept(
            Arc::clone(&gateway),
            listener,
            places,
            stop.clone(),
        ));
        // What was begun ends with this, also if it is dropped.
        let _stop = stop.clone().drop_guard();
        stopping.wait().await;
        stop.cancel();
        gateway.tasks.close();
        let wait = gateway.site.load().settings.limits.drain_timeout;
        // Whether they are over or not, it is time.
        let _ = tokio::time::timeout(wait, gateway.tasks.wait()).await;
        Ok(())
    })
}

impl Arguments {
    /// Runs the gateway until it is told to stop.
    ///
    /// Fails when the configuration cannot be used, or an address not listened on.
    pub fn run(&self) -> io::Result<()> {
        let loaded = Settings::load(self);
        let format = loaded.as_ref().map(|settings| settings.log_format);
        logging::init(format.unwrap_or(self.log_format.unwrap_or_default()));
        let settings = loaded.map_err(io::Error::other)?;
        let tls = settings
            .tls
            .as_ref()
            .map(tls::load)
            .transpose()
            .map_err(io::Error::other)?;
        if self.check {
            println!("the configuration is fine");
            return Ok(());
        }
        raise_descriptors();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if let Some(threads) = self.threads {
            builder.worker_threads(threads.get());
        }
        let runtime = builder.enable_all().build()?;
        let result = runtime.block_on(self.serve(settings, tls));
        // What was not done in time is not waited for.
        runtime.shutdown_background();
        result
    }

    async fn serve(
        &self,
        settings: Settings,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> io::Result<()> {
        let terminal = Terminal::of_this_process();
        let mut hangups = signal(SignalKind::hangup())?;
        let mut stops = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ];
        let (mut listeners, mut admins) = (Vec::new(), Vec::new());
        // They are here, not in the tasks, which may not be run again before the program ends.
        let (mut files, mut admin_files) = (Vec::new(), Vec::new());
        let mode = settings.socket_mode;
        for address in &settings.listen {
            listeners.extend(listen::bind(address, mode, &mut files)?);
        }
        if let Some(address) = &settings.admin {
            admins.extend(listen::bind(address, mode, &mut admin_files)?);
        }
        let places = Arc::new(Semaphore::new(
            settings.limits.connections.min(Semaphore::MAX_PERMITS),
        ));
        let site = Site::new(settings, None).map_err(io::Error::other)?;
        site.begin();
        let gateway = Arc::new(Gateway::new(site, tls));
        let stop = CancellationToken::new();
        for listener in admins {
            tracing::info!("metrics and health on {}", listener.url("http"));
            tokio::spawn(admin::run(Arc::clone(&gateway), listener, stop.clone()));
        }
        let scheme = if gateway.tls.load().is_some() {
            "https"
        } else {
            "http"
        };
        for listener in listeners {
            tracing::info!("listening on {}", listener.url(scheme));
            tokio::spawn(listen::accept(
                Arc::clone(&gateway),
                listener,
                Arc::clone(&places),
                stop.clone(),
            ));
        }
        loop {
            tokio::select! {
                _ = hangups.recv() => match terminal.is_gone() {
                    true => break,
                    false => self.reload(&gateway),
                },
                () = any(&mut stops) => break,
            }
        }
        drop(files);
        drain(&gateway, &stop, &mut stops).await;
        drop(admin_files);
        Ok(())
    }

    /// Reads the configuration again. One that cannot be used changes nothing.
    fn reload(&self, gateway: &Gateway) {
        match self.renew(gateway) {
            Ok(()) => {
                gateway.metrics.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!("the configuration was read again");
            }
            Err(error) => {
                gateway
                    .metrics
                    .failed_reloads
                    .fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "the configuration stays as it was");
            }
        }
    }

    fn renew(&self, gateway: &Gateway) -> Result<(), ConfigError> {
        let mut settings = Settings::load(self)?;
        let tls = settings.tls.as_ref().map(tls::load).transpose()?;
        let before = gateway.site.load();
        let old = &before.settings;
        if old.listen != settings.listen
            || old.admin != settings.admin
            || old.socket_mode != settings.socket_mode
            || old.log_format != settings.log_format
            || old.limits.connections != settings.limits.connections
        {
            tracing::warn!(
                "`listen`, `admin`, `socket_mode`, `log_format` and `limits.connections` stay as they were until the next start"
            );
        }
        settings.log_format = old.log_format;
        let site = Site::new(settings, Some(&before))?;
        site.begin();
        gateway.tls.store(tls);
        gateway.site.store(Arc::new(site));
        Ok(())
    }
}

/// Takes no more connections, and lets what goes on go on for a while.
async fn drain(gateway: &Gateway, stop: &CancellationToken, stops: &mut [Signal; 2]) {
    let wait = gateway.site.load().settings.limits.drain_timeout;
    tracing::info!(
        requests = gateway.metrics.active(),
        "stopping: a second signal does not wait for requests"
    );
    stop.cancel();
    gateway.tasks.close();
    tokio::select! {
        () = gateway.tasks.wait() => tracing::info!("stopped"),
        () = any(stops) => tracing::warn!(requests = gateway.metrics.active(), "stopped at once"),
        () = tokio::time::sleep(wait) => {
            tracing::warn!(requests = gateway.metrics.active(), "stopped: requests were not over in time");
        }
    }
}

async fn any([one, other]: &mut [Signal; 2]) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Each connection is a descriptor: as many as this user may have.
fn raise_descriptors() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the number of open files");
    }
}
