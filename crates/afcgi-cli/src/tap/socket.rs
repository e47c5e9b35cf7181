//! A connection over TCP or a unix socket, read and written without waiting.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::time::Duration;

use afcgi::Address;
use rustix::fd::AsFd;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, lookup_host};
use tokio::time::{Instant, sleep};

/// How long a unix socket may be full before that is an error, and how often it is tried.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// A socket that listens.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// The same socket for this runtime.
    pub(super) fn of(listener: &afcgi::Listener) -> io::Result<Self> {
        let socket = listener.as_fd().try_clone_to_owned()?;
        if listener.local_addr().is_some() {
            let socket = std::net::TcpListener::from(socket);
            socket.set_nonblocking(true)?;
            Ok(Self::Tcp(TcpListener::from_std(socket)?))
        } else {
            let socket = StdUnixListener::from(socket);
            socket.set_nonblocking(true)?;
            Ok(Self::Unix(UnixListener::from_std(socket)?))
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(listener) => Socket::tcp(listener.accept().await?.0),
            Self::Unix(listener) => Socket::Unix(listener.accept().await?.0),
        })
    }
}

/// A connection.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Calls a method of whichever it is.
macro_rules! either {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($inner) => $call,
            Socket::Unix($inner) => $call,
        }
    };
}

impl Socket {
    fn tcp(stream: TcpStream) -> Self {
        // What comes is complete for those who sent it.
        _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }

    pub(super) async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Unix(path) => {
                let until = Instant::now() + PATIENCE;
                loop {
                    match UnixStream::connect(path).await {
                        // Its queue is full: others wait for that.
                        Err(error)
                            if error.kind() == io::ErrorKind::WouldBlock
                                && Instant::now() < until =>
                        {
                            sleep(PAUSE).await;
                        }
                        result => return result.map(Self::Unix),
                    }
                }
            }
            Address::Tcp { host, port } => {
                let host = match host.as_str() {
                    "" => "127.0.0.1",
                    host => host,
                };
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                for address in lookup_host((host, *port)).await? {
                    match TcpStream::connect(address).await {
                        Ok(stream) => return Ok(Self::tcp(stream)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        either!(self, stream => stream.readable().await)
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        either!(self, stream => stream.writable().await)
    }

    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_read(buffer))
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.try_write(bytes))
    }

    /// Says that nothing more is sent.
    pub(super) fn finish(&self) {
        // A peer that has gone knows it.
        _ = either!(self, stream => SockRef::from(stream).shutdown(Shutdown::Write));
    }

    /// When it is dropped, its peer gets a reset in place of an end. A unix socket has none.
    pub(super) fn reset_at_close(&self) {
        if let Self::Tcp(stream) = self {
            _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// The address of the peer; `None`: a unix socket.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// Addresses for the file: a unix socket gets those of a connection on this machine, the number of which tells it from others.
pub(super) fn addresses(web: &Socket, app: &Socket, number: u64) -> [SocketAddr; 2] {
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    // As many as there are above the ports of services.
    let port = 1024 + u16::try_from(number % 64_000).unwrap_or_default();
    [
        web.peer().unwrap_or_else(|| local(port)),
        app.peer().unwrap_or_else(|| local(9000)),
    ]
}
