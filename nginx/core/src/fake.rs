//! A request as this module sees it: what nginx takes for a connection, and where it stands.

use std::rc::Rc;
use std::time::Instant;

use afcgi_proto::pool::{self, Ticket};
use afcgi_proto::relay::Relay;
use slotmap::SlotMap;

use crate::host::Nginx;
use crate::keys::{FakeKey, PoolKey, RealKey};
use crate::route::Route;
use crate::trace::Trace;

/// The requests of a worker.
pub type Fakes<N> = SlotMap<FakeKey, Fake<N>>;

/// One request of nginx's FastCGI module.
#[derive(Debug)]
pub struct Fake<N: Nginx> {
    /// What nginx takes for its connection.
    pub connection: N::Fake,
    /// The pool of its address.
    pub pool: PoolKey,
    /// Where it is to go, whatever became of the pool.
    pub route: Rc<Route>,
    pub wants: Wants,
    pub place: Place,
    /// When it came, or got its place.
    pub began: Instant,
    /// Whether nginx holds bytes that found no room: it is to be told of room.
    pub blocked: bool,
    /// Whether anything of the response was given to nginx.
    pub answered: bool,
    /// Whether the application refused it unprocessed.
    pub refused: bool,
    pub trace: Trace,
}

/// What there is to know of a request before it has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// It has a body, which the application may leave unread.
    pub body: bool,
    /// Its client asks for an upgrade, and may have one.
    pub upgrade: bool,
}

impl Wants {
    /// What matters for the choice of a connection.
    pub const fn of_a_connection(self) -> pool::Wants {
        pool::Wants {
            body: self.body,
            single: false,
        }
    }
}

/// Where a request is.
///
/// ```text
///  Waiting ──────> On a connection ──────> (freed by nginx)
///     └──────────> Failed: no connection can be had ──────^
/// ```
#[derive(Debug)]
pub enum Place {
    /// About to be in the queue of its pool.
    New,
    /// In the queue.
    Waiting(Ticket),
    On {
        real: RealKey,
        relay: Box<Relay>,
    },
    /// The system's error of connecting, 0 if there is none.
    Failed(i32),
}

/// What nginx gets for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// So many bytes; whether another read is worth the while now.
    Bytes { count: usize, more: bool },
    /// Nothing now: a wake-up follows.
    Again,
    /// The response was complete.
    End,
    /// The response will not be complete.
    Failed,
}

/// What nginx is told of a request that it is done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// The application refused it before any output: it was not processed (R-51).
    pub refused: bool,
    /// What the variables tell of it.
    pub trace: Option<Trace>,
}
