//! A connection to the application: bytes both ways, seen as records on their way.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use afcgi::Address;
use afcgi_proto::EndRequest;
use afcgi_proto::web::{Config, Connection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{sleep_until, timeout};

use super::failure::Failure;
use super::observer::Observer;
use crate::wire::{Side, Watcher};

/// Bytes that are read of the socket at a time.
const PIECE: usize = 64 * 1024;

/// When a request began, and when it must be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    pub(super) max_time: Option<Duration>,
}

impl Clock {
    pub(super) fn start(max_time: Option<Duration>) -> Self {
        Self {
            started: Instant::now(),
            max_time,
        }
    }

    /// The time since then.
    pub(super) fn at(&self) -> Duration {
        self.started.elapsed()
    }

    /// When it must be over.
    pub(super) fn end(&self) -> Option<Instant> {
        self.max_time.map(|max_time| self.started + max_time)
    }

    /// What it means that this is over.
    pub(super) fn over(&self) -> Failure {
        let max_time = self.max_time.unwrap_or_default();
        Failure::Timeout("gave up the request, as --max-time says,", max_time)
    }
}

/// A byte stream both ways.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// An open connection.
pub(super) struct Link {
    pub(super) connection: Connection,
    reader: ReadHalf<Box<dyn Socket>>,
    writer: WriteHalf<Box<dyn Socket>>,
    buffer: Vec<u8>,
    /// What was read and not taken yet.
    unread: Range<usize>,
    sent: Watcher,
    received: Watcher,
    /// Bytes that came.
    pub(super) came: u64,
    /// The END_REQUEST that came last.
    pub(super) last_end: Option<EndRequest>,
    /// Whether the application has closed its half.
    pub(super) at_end: bool,
    /// Whether it takes nothing any more. It may still have something to say.
    deaf: bool,
}

/// What became of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Bytes came or went.
    Moved,
    /// The time is up.
    Due,
}

impl Link {
    pub(super) async fn connect(
        address: &Address,
        wait: Duration,
        clock: &Clock,
        keep_conn: bool,
    ) -> Result<Self, Failure> {
        let left = clock.end().map(|end| end - Instant::now().min(end));
        let socket = match timeout(wait.min(left.unwrap_or(wait)), connect(address)).await {
            Ok(socket) => socket?,
            Err(_) if left.is_some_and(|left| left < wait) => return Err(clock.over()),
            Err(_) => {
                return Err(Failure::Timeout("gave up waiting for the connection", wait));
            }
        };
        let (reader, writer) = tokio::io::split(socket);
        let config = Config {
            // Of one that carries a single request an abort would be its end.
            requests: 2,
            keep_conn,
            flow_control: false,
            ..Config::default()
        };
        Ok(Self {
            connection: Connection::new(config),
            reader,
            writer,
            buffer: vec![0; PIECE],
            unread: 0..0,
            sent: Watcher::new(Side::Web),
            received: Watcher::new(Side::App),
            came: 0,
            last_end: None,
            at_end: false,
            deaf: false,
        })
    }

    /// Whether something waits to be sent.
    pub(super) fn is_sending(&self) -> bool {
        !self.deaf && !self.connection.transmit().is_empty()
    }

    /// Moves bytes once, either way, or waits for that until a time. To be called when what came before was read.
    pub(super) async fn turn(
        &mut self,
        until: Instant,
        clock: &Clock,
        observer: &mut Observer,
    ) -> Result<Turn, Failure> {
        if !self.unread.is_empty() {
            self.offer()?;
            return Ok(Turn::Moved);
        }
        let sending = self.is_sending();
        tokio::select! {
            read = self.reader.read(&mut self.buffer), if !self.at_end => match read {
                Ok(0) => {
                    self.at_end = true;
                    _ = self.connection.end_of_input();
                    observer.note(clock.at(), "the application closed the connection");
                }
                Ok(count) => {
                    self.came += count as u64;
                    self.unread = 0..count;
                    let last_end = &mut self.last_end;
                    self.received.feed(clock.at(), &self.buffer[..count], |seen| {
                        *last_end = seen.end().or(*last_end);
                        observer.record(seen);
                    });
                    self.offer()?;
                }
                Err(error) => return Err(Failure::Lost(error)),
            },
            written = self.writer.write(self.connection.transmit()), if sending => match written {
                Ok(count) => {
                    let bytes = &self.connection.transmit()[..count];
                    self.sent.feed(clock.at(), bytes, |seen| observer.record(seen));
                    self.connection.transmitted(count);
                    while self.connection.next_round() {}
                }
                Err(error) => {
                    observer.note(clock.at(), &format!("the application takes no more: {error}"));
                    self.deaf = true;
                }
            },
            () = sleep_until(until.into()) => return Ok(Turn::Due),
        }
        Ok(Turn::Moved)
    }

    /// Gives the connection what was read.
    fn offer(&mut self) -> Result<(), Failure> {
        let bytes = &self.buffer[self.unread.clone()];
        match self.connection.receive(Instant::now(), bytes) {
            Ok(count) => {
                self.unread.start += count;
                Ok(())
            }
            Err(error) => {
                let first = self.received.garbage().unwrap_or_default().to_vec();
                self.connection.lost();
                Err(Failure::NotFastCgi(error.to_string(), first))
            }
        }
    }
}

/// Opens a connection.
pub(crate) async fn connect(address: &Address) -> Result<Box<dyn Socket>, Failure> {
    let failed = |error| Failure::Connect(address.to_string(), error);
    let (host, port) = match address {
        Address::Unix(path) => {
            let socket = UnixStream::connect(path).await.map_err(failed)?;
            return Ok(Box::new(socket));
        }
        Address::Tcp { host, port } if host.is_empty() => ("127.0.0.1", *port),
        Address::Tcp { host, port } => (host.as_str(), *port),
    };
    let addresses = lookup_host((host, port)).await;
    let addresses = addresses.map_err(|error| Failure::Resolve(host.to_owned(), error))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(socket) => {
                _ = socket.set_nodelay(true);
                return Ok(Box::new(socket));
            }
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}
