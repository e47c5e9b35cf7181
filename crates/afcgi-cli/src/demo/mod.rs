//! `afcgi demo`: an application with a page that shows requests in flight against the sockets that
//! carry them, live.
//!
//! With [`Gateway`] it is a web server and an application in one process, with a FastCGI socket
//! between them. With `--behind` it is the application alone, for a web server that runs already.

mod app;
mod chat;
mod download;
mod echo;
mod live;
mod load;
mod pages;
mod public;
mod room;
mod site;

use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::time::Duration;

use afcgi::{Address, Listener, Server, Stopping, UnixOptions};
use futures_util::{Stream, StreamExt, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use app::too_few;
pub use app::{Config, app};
pub use public::{Public, PublicError};

use crate::terminal::{Ending, Terminal};

/// The web server of the demonstration, in this process: serves HTTP at the listener, which does not
/// block, passes every request on to the FastCGI application at the address, and returns soon after it
/// was told to stop.
///
/// It has to pass on every event as it comes, and WebSockets.
pub type Gateway =
    fn(TcpListener, Address, Stopping) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// How long requests may go on when the demonstration is to end: those that wait hear of it, so this
/// is for clients that do not read.
const DRAIN: Duration = Duration::from_secs(2);
/// FastCGI connections at a time: a web server that does not multiplex has one for each request.
const CONNECTIONS: usize = 8192;
/// Descriptors that are wanted for other things than clients and their requests.
const SPARE: usize = 256;
/// Descriptors that are enough for everything.
const DESCRIPTORS: u64 = 65_536;

/// Shows thousands of requests on one FastCGI connection: a page to look at, live
///
/// The page opens long-lived requests, up to 5,000, by real HTTP clients in this process, and draws
/// how many are in flight on how many FastCGI connections. Ctrl-C ends everything.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where to serve the page by HTTP
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8888", value_parser = parse_listen, conflicts_with = "behind")]
    listen: Address,
    /// Only the application, for a web server that runs already: where to listen for FastCGI.
    /// HOST:PORT, *:PORT, :PORT, unix:PATH or a path with a `/`; several with commas between them
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        requires = "public"
    )]
    behind: Vec<Address>,
    /// Where clients reach the page through that web server, such as http://127.0.0.1:8888/demo/
    #[arg(long, value_name = "URL", requires = "behind")]
    public: Option<Public>,
}

fn parse_listen(text: &str) -> Result<Address, String> {
    match text.parse() {
        Ok(address @ Address::Tcp { .. }) => Ok(address),
        _ => Err("expected HOST:PORT".to_owned()),
    }
}

impl Arguments {
    /// Runs the demonstration until SIGINT, SIGTERM or SIGHUP, or until its terminal is closed, with
    /// the gateway if there is no web server in front.
    ///
    /// Fails when an address cannot be used, and when the gateway does.
    pub fn run(self, gateway: Option<Gateway>) -> io::Result<()> {
        let terminal = Terminal::of_this_process();
        let config = Config::default().with_descriptors(raise_limit());
        if let Some(descriptors) = config.descriptors {
            say(format_args!(
                "The page can open {} requests at a time, since {} Raise it for up to {}.",
                config.most_clients,
                too_few(descriptors),
                Config::default().most_clients
            ));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        match (self.public, gateway) {
            (Some(public), _) => runtime.block_on(behind(config, &self.behind, &public, terminal)),
            (None, Some(gateway)) => runtime.block_on(async {
                let mut ending = Ending::new(terminal)?;
                let asked = stream::unfold(&mut ending, async |ending| {
                    ending.wait().await;
                    Some(((), ending))
                });
                together(config, &self.listen, gateway, asked).await
            }),
            (None, None) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this build has no web server of its own: put one in front with --behind ADDRESS --public URL",
            )),
        }
    }
}

/// The application alone.
async fn behind(
    config: Config,
    addresses: &[Address],
    public: &Public,
    terminal: Terminal,
) -> io::Result<()> {
    let mut ending = Ending::new(terminal)?;
    let mut server = self::server().stop_when(async move { ending.wait().await });
    for address in addresses {
        let listener = Listener::bind_with(address, UnixOptions::default())?;
        server = server.listen(listener);
    }
    let app = app(config, public.clone(), server.stats(), server.stopping());
    say(format_args!(
        "The demonstration is for a web server that serves it at {public}. Ctrl-C ends it."
    ));
    server.serve(afcgi::http(app)).await
}

/// Web server and application, on a unix socket that nobody else can reach. They end when they are asked to, and at once when
/// they are asked again.
async fn together(
    config: Config,
    listen: &Address,
    gateway: Gateway,
    asked: impl Stream<Item = ()>,
) -> io::Result<()> {
    let http = listen_http(listen)?;
    let public = Public::of(http.local_addr()?);
    let folder = tempfile::Builder::new().prefix("afcgi-demo").tempdir()?;
    let address = Address::Unix(folder.path().join("fastcgi.sock"));
    let mut options = UnixOptions::default();
    options.mode = Some(0o600);
    let server = self::server()
        .signals(false)
        .listen(Listener::bind_with(&address, options)?);
    // Not those of that server, which refuses what the gateway still has for it when it stops: the streams and the gateway end first,
    // and then nobody asks it any more.
    let first = Server::new();
    let stopping = first.stopping();
    let app = app(config, public.clone(), server.stats(), stopping.clone());
    say(format_args!(
        "Open {public} in a browser. Ctrl-C ends the demonstration."
    ));
    let mut asked = pin!(asked);
    let stop = async {
        asked.next().await;
        drop(first);
        asked.next().await;
    };
    tokio::select! {
        result = gateway(http, address, stopping) => result,
        result = server.serve(afcgi::http(app)) => result,
        () = stop => Ok(()),
    }
}

/// Tells the user, if there is anybody to hear it.
fn say(text: fmt::Arguments<'_>) {
    _ = writeln!(io::stdout(), "{text}");
}

fn server() -> Server {
    let mut config = afcgi::Config::default();
    config.max_connections = CONNECTIONS;
    config.drain_timeout = DRAIN;
    Server::new().config(config)
}

fn listen_http(address: &Address) -> io::Result<TcpListener> {
    let listener = match address {
        Address::Tcp { host, port } if host.is_empty() => {
            // The second where there is no IPv6.
            let all: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
            TcpListener::bind(&all.map(|ip| SocketAddr::new(ip, *port))[..])
        }
        Address::Tcp { host, port } => TcpListener::bind((host.as_str(), *port)),
        Address::Unix(_) => Err(io::ErrorKind::InvalidInput.into()),
    };
    let listener = listener.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there. Stop that, or choose another address with --listen"
                    .to_owned()
            }
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("cannot listen at {address}: {why}"))
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Lets this process have as many descriptors as it may: how many those are.
fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    let raised = Rlimit {
        current: Some(wanted),
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, "the limit of descriptors cannot be raised");
            current
        }
    }
}

impl Config {
    /// With no more clients than so many descriptors allow: each takes one, and its request may take another.
    fn with_descriptors(mut self, descriptors: u64) -> Self {
        let most = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let most = most.saturating_sub(SPARE) / 2;
        if most < self.most_clients {
            self.most_clients = most;
            self.descriptors = Some(descriptors);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gateway that sees whether the application is there.
    fn looks(
        http: TcpListener,
        address: Address,
        stopping: Stopping,
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
        Box::pin(async move {
            let Address::Unix(path) = address else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            tokio::net::UnixStream::connect(&path).await?;
            tokio::net::TcpListener::from_std(http)?;
            assert!(!stopping.is_stopping());
            Err(io::Error::other(path.display().to_string()))
        })
    }

    /// A gateway that ends as soon as it is told to.
    fn waits(
        _: TcpListener,
        _: Address,
        stopping: Stopping,
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
        Box::pin(async move {
            stopping.wait().await;
            Ok(())
        })
    }

    fn anywhere() -> Address {
        "127.0.0.1:0".parse().expect("an address")
    }

    #[tokio::test]
    async fn a_gateway_that_fails_ends_the_demonstration() {
        let result = together(Config::default(), &anywhere(), looks, stream::pending()).await;
        let path = result.expect_err("its error").to_string();
        assert!(path.ends_with("fastcgi.sock"), "{path}");
        assert!(!std::path::Path::new(&path).exists());
    }

    #[tokio::test]
    async fn an_http_address_in_use() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("its address").to_string();
        let address = address.parse().expect("an address");
        let result = together(Config::default(), &address, waits, stream::pending()).await;
        let text = result.expect_err("it is taken").to_string();
        assert!(text.contains("another program listens there"), "{text}");
    }

    #[test]
    fn descriptors_bound_the_clients() {
        for (descriptors, clients) in [(0, 0), (256, 0), (1024, 384), (u64::MAX, 5000)] {
            let config = Config::default().with_descriptors(descriptors);
            assert_eq!(config.most_clients, clients, "{descriptors}");
            assert_eq!(config.descriptors.is_some(), clients < 5000);
        }
    }
}
