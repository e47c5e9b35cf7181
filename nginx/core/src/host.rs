//! What nginx offers a worker: connections, events, a log, and memory that the workers share.
//!
//! The module implements these over nginx, and the tests over a simulation. There is one nginx in a
//! process, so what does not belong to a connection is a function of the type.

use std::ffi::c_ulong;
use std::fmt::Debug;
use std::time::Instant;

use afcgi_proto::Verdict;

use crate::keys::{FakeKey, RealKey};
use crate::status::Counts;

/// The process that a worker lives in.
pub trait Nginx: Debug + Sized + 'static {
    /// A socket to an application.
    type Sock: Socket;
    /// What nginx's FastCGI module takes for its connection.
    type Fake: FakeConnection;
    /// The log that errors of connecting go to: a request's, or the worker's own.
    type Log: Copy + Debug;

    /// The time.
    fn now() -> Instant;

    /// Begins to connect, and says whether it is connected already. `None`: it failed, which is in
    /// `log`. The worker is told of events under `id`.
    fn connect(target: &Target, id: RealKey, log: Self::Log) -> Option<(Self::Sock, bool)>;

    /// A fake connection, whose calls reach the worker under `id`. `None`: no memory or descriptor is
    /// to be had.
    fn fake(id: FakeKey) -> Option<Self::Fake>;

    /// The worker's own log.
    fn worker_log() -> Self::Log;

    /// Writes a line to it.
    fn line(level: Level, text: &str);

    /// Where requests to the address of that name are counted.
    fn counts(address: &str) -> Counts;

    /// What the workers know of the application at an address.
    fn verdict(address: u64, now: Instant) -> Option<Verdict>;

    /// Lets all workers know.
    fn tell(address: u64, verdict: Verdict, now: Instant);

    /// Whether this worker is to end as soon as its requests have.
    fn is_exiting() -> bool;
}

/// An open socket in an event loop. It calls [`Worker`](crate::worker::Worker) when it can be read
/// (`readable`), written (`writable`), when a flush was posted (`flush`) and when it is time (`due`).
pub trait Socket: Debug {
    /// The number of the connection, for logs.
    fn number(&self) -> c_ulong;

    /// The error of the system by which connecting failed; 0: it did not.
    fn take_error(&self) -> i32;

    /// Has small records sent at once.
    fn set_nodelay(&self, target: &Target);

    /// Whether the application has closed it, or has sent something that nobody asked for.
    fn is_stale(&self) -> bool;

    /// Reads into a buffer.
    fn recv(&self, buffer: &mut [u8]) -> Io;

    /// Writes bytes, of which it may take a part.
    fn send(&self, bytes: &[u8]) -> Io;

    /// Whether a read may give something.
    fn may_read(&self) -> bool;

    /// Whether a write may take something.
    fn may_write(&self) -> bool;

    /// Whether nginx asks for idle connections to be closed.
    fn is_closing(&self) -> bool;

    /// Says whether there is a request on it.
    fn set_idle(&self, idle: bool);

    /// Says whether nginx may have it closed when it needs room for another one.
    fn set_reusable(&self, reusable: bool);

    /// Has `flush` called in this turn of the event loop.
    fn post_flush(&self);

    /// Has `readable` called in the next turn of the event loop.
    fn read_next_turn(&self);

    /// Has `due` called at a time, or earlier.
    fn wake_at(&self, now: Instant, due: Instant);

    /// The time has come: no further call is set.
    fn disarmed(&self);
}

/// What nginx's FastCGI module takes for its connection. It calls
/// [`Worker`](crate::worker::Worker) to read (`recv`) and to write (`send`).
pub trait FakeConnection: Debug {
    /// Makes it as good as new, for another request.
    fn renew(&mut self, id: FakeKey);

    /// Has nginx read in this turn of the event loop.
    fn wake_read(&self);

    /// Has nginx write in this turn of the event loop.
    fn wake_write(&self);

    /// nginx is done with it: it gets no further calls.
    fn silence(&self);

    /// Whether nginx gave up waiting for the application.
    fn timed_out(&self) -> bool;

    /// Writes a line about the request to the error log, with the text of a system's error if `errno`
    /// is not 0.
    fn log(&self, level: Level, errno: i32, text: &str);
}

/// How much a line of a log matters, as nginx numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Emergency = 1,
    Alert = 2,
    Error = 4,
    Warning = 5,
    Notice = 6,
}

/// What reading or writing gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    Bytes(usize),
    /// The event loop calls when there is more.
    Again,
    /// The other side has closed.
    Closed,
    /// The system gave an error, which is in the log.
    Failed,
}

/// Where to connect to, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The socket address, as the system has it.
    pub address: Vec<u8>,
    /// The local socket address of `fastcgi_bind`, empty without.
    pub local: Vec<u8>,
    /// Whether the local address may be one that is not this machine's.
    pub transparent: bool,
    pub keepalive: bool,
    /// The address for logs.
    pub name: String,
}

/// The same, as nginx has it for a request.
#[derive(Clone, Copy, Debug)]
pub struct TargetRef<'a> {
    pub address: &'a [u8],
    pub local: &'a [u8],
    pub transparent: bool,
    pub keepalive: bool,
    pub name: &'a [u8],
}

impl TargetRef<'_> {
    /// Whether it is the same place, whatever it is called.
    pub fn is(&self, target: &Target) -> bool {
        target.address == self.address
            && target.local == self.local
            && target.transparent == self.transparent
            && target.keepalive == self.keepalive
    }

    pub fn to_target(self) -> Target {
        Target {
            address: self.address.to_vec(),
            local: self.local.to_vec(),
            transparent: self.transparent,
            keepalive: self.keepalive,
            name: String::from_utf8_lossy(self.name).into_owned(),
        }
    }
}
