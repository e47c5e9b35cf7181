//! What the loads share: the target's address, the bounds of a run, what was counted, and what went wrong.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hdrhistogram::Histogram;
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `HOST:PORT`, numeric.
    Tcp(SocketAddr),
    /// `unix:PATH` or a path with a slash.
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|error| format!("{text}: {error}; expected ADDRESS:PORT or unix:PATH"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The bounds of one call of `run`: whichever is reached first ends it.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Wall time.
    pub time: Duration,
    /// Requests answered since the start of the call.
    pub requests: u64,
}

impl Limit {
    /// Bounded by time alone.
    pub fn time(time: Duration) -> Self {
        Self {
            time,
            requests: u64::MAX,
        }
    }
}

/// What was counted since the generator was made, or since [`Stats::reset`].
#[derive(Clone, Debug)]
pub struct Stats {
    /// Requests answered, each of them checked.
    pub completed: u64,
    /// From the request's place in the output buffer to its last byte read, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Calls of read that gave bytes.
    pub reads: u64,
    /// Calls of write that took bytes.
    pub writes: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
}

impl Default for Stats {
    fn default() -> Self {
        // Two digits keep the histogram small enough to stay in the cache while it is written to.
        let latency =
            Histogram::new_with_bounds(1, 600_000_000_000, 2).expect("constant bounds are valid");
        Self {
            completed: 0,
            latency,
            reads: 0,
            writes: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }
}

impl Stats {
    /// Back to zero, for a window that begins now.
    pub fn reset(&mut self) {
        self.completed = 0;
        self.latency.reset();
        (self.reads, self.writes, self.bytes_in, self.bytes_out) = (0, 0, 0, 0);
    }
}

/// Why a run ended early. None of these is retried: a measurement with a wrong answer in it is no measurement.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// The socket failed.
    Io(io::Error),
    /// The server closed a connection.
    Closed {
        /// Requests that were on their way on it.
        unanswered: usize,
    },
    /// The server broke the protocol.
    Protocol(String),
    /// The server answered, but not what was expected.
    Answer(String),
    /// No answer for too long.
    Stalled {
        /// Requests on their way.
        unanswered: usize,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Closed { unanswered } => write!(
                f,
                "closed by the server with {unanswered} requests unanswered"
            ),
            Self::Protocol(what) => write!(f, "protocol error: {what}"),
            Self::Answer(what) => write!(f, "wrong answer: {what}"),
            Self::Stalled { unanswered } => {
                write!(f, "stalled with {unanswered} requests unanswered")
            }
        }
    }
}

impl std::error::Error for LoadError {}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How much of an answer is checked beside its framing.
#[derive(Clone, Debug)]
pub enum Expect {
    /// Status 200 and exactly this body.
    Body(Vec<u8>),
    /// Status 200 and any body.
    Ok,
}

impl Expect {
    pub(crate) fn check(&self, status: u16, body: &[u8]) -> Result<(), LoadError> {
        if status != 200 {
            return Err(LoadError::Answer(format!("status {status}")));
        }
        match self {
            Self::Body(expected) if expected != body => Err(LoadError::Answer(format!(
                "a body of {} bytes, which begins {:?}",
                body.len(),
                String::from_utf8_lossy(body.get(..64).unwrap_or(body))
            ))),
            _ => Ok(()),
        }
    }
}

/// A connected socket of either family.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects (waiting for it) and registers for both directions, edge-triggered.
    pub(crate) fn connect(target: &Target, registry: &Registry, token: Token) -> io::Result<Self> {
        let mut stream = match target {
            Target::Tcp(address) => {
                let stream = std::net::TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Self::Tcp(TcpStream::from_std(stream))
            }
            Target::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Self::Unix(UnixStream::from_std(stream))
            }
        };
        let source: &mut dyn Source = match &mut stream {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        };
        registry.register(source, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    pub(crate) fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Unix(stream) => stream.write(buffer),
        }
    }
}

/// Bytes on their way out, written as far as the socket takes them.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    written: usize,
}

impl Output {
    pub(crate) fn flush(&mut self, stream: &mut Stream, stats: &mut Stats) -> io::Result<()> {
        while let Some(rest) = self
            .bytes
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            match stream.write(rest) {
                Ok(sent) => {
                    self.written += sent;
                    stats.writes += 1;
                    stats.bytes_out += sent as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.written = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        assert_eq!(
            "127.0.0.1:5000".parse(),
            Ok(Target::Tcp("127.0.0.1:5000".parse().unwrap()))
        );
        assert_eq!("unix:sock".parse(), Ok(Target::Unix("sock".into())));
        assert_eq!("/run/app".parse(), Ok(Target::Unix("/run/app".into())));
        assert!("localhost".parse::<Target>().is_err());
    }

    #[test]
    fn expectations_are_kept() {
        let hello = Expect::Body(b"Hello world\n".to_vec());
        assert!(hello.check(200, b"Hello world\n").is_ok());
        assert!(hello.check(200, b"Hello world").is_err());
        assert!(hello.check(404, b"Hello world\n").is_err());
        assert!(Expect::Ok.check(200, b"anything").is_ok());
        assert!(Expect::Ok.check(500, b"").is_err());
    }
}
