//! `afcgi gateway`: a web server in front of FastCGI applications.
//!
//! The crate `afcgi-gateway` does the work, and `docs/gateway.md` tells how to use it. Here are the command line, the start, and
//! the signals: SIGHUP has the configuration read again, unless it says that the terminal was closed; that, SIGTERM and SIGINT stop
//! in order, a second one at once.

use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use afcgi::Address;
use afcgi_gateway::{Gateway, Network, Options, Settings};
pub use afcgi_gateway::{Mode, embedded};
use rustix::process::{Resource, Rlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::logging::{self, LogFormat};
use crate::terminal::Terminal;

/// A web server in front of FastCGI applications: HTTP/1.1 and HTTP/2, with TLS or without.
///
///   afcgi gateway 127.0.0.1:5000
///
///   afcgi gateway unix:/run/php/php-fpm.sock --root /srv/app
///
/// The first passes every request to the application at that address. The second serves the files in a folder, runs its
/// PHP scripts, and passes everything else to its index.php. The file that --config names can do more.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Where the application listens: HOST:PORT, unix:PATH or a path with a `/`; requests are balanced between several
    #[arg(value_name = "APPLICATION")]
    addresses: Vec<Address>,
    /// A folder of files, and of scripts in PHP if there is an application
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where to listen: HOST:PORT, *:PORT, [IPv6]:PORT or unix:PATH; may be repeated [default: 127.0.0.1:8888]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Address>,
    /// Mode of the unix sockets it listens on, in octal, such as 660 [default: what the umask leaves]
    #[arg(long, value_name = "MODE")]
    socket_mode: Option<Mode>,
    /// The certificate, followed by its issuers' certificates, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A configuration in TOML: routes, limits and more; read again at SIGHUP
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(long)]
    check: bool,
    /// Where to serve /metrics and /health: an address that clients should not reach
    #[arg(long, value_name = "ADDR")]
    admin: Option<Address>,
    /// The access log; `-` for standard output
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// The format of the access log and of STDERR: lines for people, or a JSON object on each line
    /// [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// A proxy whose X-Forwarded-For and -Proto to trust: an address, a network such as 10.0.0.0/8, or `unix` for all clients on
    /// unix sockets; may be repeated
    #[arg(long = "trusted-proxy", value_name = "NETWORK")]
    trusted_proxies: Vec<Network>,
    /// Threads [default: one per CPU]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Arguments {
    /// Runs the gateway until it is told to stop.
    ///
    /// Fails when the configuration cannot be used, or an address not listened on.
    pub fn run(&self) -> io::Result<()> {
        let options = self.options();
        let loaded = Settings::load(&options);
        let format = loaded.as_ref().map(|settings| settings.log_format().into());
        logging::init(format.unwrap_or(self.log_format.unwrap_or_default()));
        let settings = loaded.map_err(io::Error::other)?;
        settings.check().map_err(io::Error::other)?;
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
        let result = runtime.block_on(serve(settings, &options));
        // What was not done in time is not waited for.
        runtime.shutdown_background();
        result
    }

    fn options(&self) -> Options {
        let mut options = Options::default();
        options.addresses.clone_from(&self.addresses);
        options.root.clone_from(&self.root);
        options.listen.clone_from(&self.listen);
        options.socket_mode = self.socket_mode;
        options.tls = self.tls_cert.clone().zip(self.tls_key.clone());
        options.config.clone_from(&self.config);
        options.admin.clone_from(&self.admin);
        options.access_log.clone_from(&self.access_log);
        options.log_format = self.log_format.map(Into::into);
        options.trusted_proxies.clone_from(&self.trusted_proxies);
        options
    }
}

async fn serve(settings: Settings, options: &Options) -> io::Result<()> {
    let terminal = Terminal::of_this_process();
    let mut hangups = signal(SignalKind::hangup())?;
    let mut stops = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ];
    let mut gateway = Gateway::start(settings)?;
    loop {
        tokio::select! {
            _ = hangups.recv() => match terminal.is_gone() {
                true => break,
                false => reload(&gateway, options),
            },
            () = any(&mut stops) => break,
        }
    }
    tracing::info!(
        requests = gateway.active(),
        "stopping: a second signal does not wait for requests"
    );
    tokio::select! {
        stopped = gateway.stop() => match stopped {
            true => tracing::info!("stopped"),
            false => tracing::warn!(requests = gateway.active(), "stopped: requests were not over in time"),
        },
        () = any(&mut stops) => tracing::warn!(requests = gateway.active(), "stopped at once"),
    }
    Ok(())
}

fn reload(gateway: &Gateway, options: &Options) {
    match gateway.reload(Settings::load(options)) {
        Ok(()) => tracing::info!("the configuration was read again"),
        Err(error) => tracing::error!(%error, "the configuration stays as it was"),
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
