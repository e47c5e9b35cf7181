//! What a pool asks of whoever has its connections, and what it wants done.

use std::fmt;

use super::config::Kind;
use super::members::MemberId;
use super::verdict::Verdict;

/// What a pool has to know of a connection to decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Requests on it, those included that nobody waits for any more.
    pub active: usize,
    /// Whether it takes a request now.
    pub takes: bool,
    /// Whether it will take no more requests.
    pub retired: bool,
    /// Whether flow control is in use on it.
    pub controlled: bool,
    /// Whether a request holds up the others on it.
    pub stalled: bool,
}

/// Whoever has the connections of a pool.
pub trait Connections {
    /// A connection, from when it is established.
    type Member: Clone;
    /// A request's place on a connection.
    type Place;

    /// How a connection is.
    fn look(&self, member: &Self::Member) -> Look;

    /// Opens a request on a connection that takes one. `None`: it takes none after all, and gets no
    /// more.
    fn open(&mut self, member: &Self::Member) -> Option<Self::Place>;
}

/// What is to be done, in the order in which it was decided.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<M, P, R> {
    /// Connect, and tell [`Pool::connected`](super::Pool::connected) or [`Pool::connect_failed`](super::Pool::connect_failed).
    Open {
        /// The name of the connection from now on.
        id: MemberId,
        /// What it is for.
        kind: Kind,
    },
    /// The connection gets no more requests: it is to be closed when its last one has ended.
    Retire(M),
    /// A request that waited has its place.
    Give(R, P),
    /// A request that waited has nothing to wait for: no connection can be had.
    Fail(R),
    /// Something was found out about the application.
    Judged {
        /// What is known of it now.
        verdict: Verdict,
        /// Whether it is another thing than before.
        changed: bool,
        /// How it was found out.
        why: Why,
    },
}

/// How something was found out about an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// It has answered GET_VALUES.
    Answered,
    /// It has not answered in time.
    Silent,
    /// It has closed the connection on which it was asked.
    Closed,
    /// It has refused a request by CANT_MPX_CONN.
    Refused,
    /// It cannot be connected to.
    Unreachable,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "that is its answer to GET_VALUES",
            Self::Silent => "it does not answer GET_VALUES",
            Self::Closed => "it closes the connection at GET_VALUES",
            Self::Refused => "it refused a request with CANT_MPX_CONN",
            Self::Unreachable => "it cannot be connected to",
        })
    }
}

/// What became of a request that asked for a place.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked<P> {
    /// It has one.
    Placed(P),
    /// It may wait for one: see [`Pool::wait`](super::Pool::wait).
    Wait,
    /// As many requests wait as may.
    Full,
    /// The pool gives no more places.
    Closed,
}
