//! What the servers have in common: their `main`, where they listen, and what they log.

use std::fmt;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use afcgi::{Address, Listener, Server, UnixOptions};
use clap::Parser;
use clap::error::ErrorKind;
use tracing_subscriber::EnvFilter;

/// The whole `main` of a server: reads the command line, and serves until the server is asked to stop.
///
/// The exit status is 0 when it was, 2 when the command line is of no use, and 1 when something else
/// failed.
pub fn main<A: Parser>(serve: impl FnOnce(A) -> io::Result<()>) -> ExitCode {
    let arguments = A::parse();
    init_log();
    let Err(error) = serve(arguments) else {
        return ExitCode::SUCCESS;
    };
    let mut command = A::command();
    if error.get_ref().is_some_and(|inner| inner.is::<NoAddress>()) {
        command
            .error(ErrorKind::MissingRequiredArgument, error)
            .exit();
    }
    eprintln!("{}: {error}", command.get_name());
    ExitCode::FAILURE
}

/// No address was named, and no socket was passed.
#[derive(Debug)]
struct NoAddress(io::Error);

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for NoAddress {}

/// Where a server listens; flags of its command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Listen {
    /// Where to listen: HOST:PORT, *:PORT, :PORT, unix:PATH or a path with a `/`; several if you
    /// like. None: sockets passed by systemd, or descriptor 0
    #[arg(value_name = "ADDR")]
    pub addresses: Vec<Address>,
    /// Mode of unix sockets, in octal
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub mode: Option<u32>,
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "expected permission bits in octal, such as 660".to_owned())
}

impl Listen {
    /// A server that listens there.
    ///
    /// Fails when an address cannot be used; without addresses, when nothing was passed or
    /// inherited.
    pub fn server(&self) -> io::Result<Server> {
        let mut listeners = Vec::new();
        let mut options = UnixOptions::default();
        options.mode = self.mode;
        for address in &self.addresses {
            listeners.push(Listener::bind_with(address, options)?);
        }
        if listeners.is_empty() {
            listeners = Listener::from_systemd()?;
        }
        if listeners.is_empty() {
            let inherited = Listener::inherited();
            let none = |error: io::Error| io::Error::new(error.kind(), NoAddress(error));
            listeners.push(inherited.map_err(none)?);
        }
        Ok(listeners.into_iter().fold(Server::new(), Server::listen))
    }
}

/// Logs to STDERR what `RUST_LOG` asks for: `info` if it does not.
fn init_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}
