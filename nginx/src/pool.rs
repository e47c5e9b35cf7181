//! The connections of a worker to one address, and what is known of the application there.
//!
//! Whether it multiplexes is asked on each shared connection before a request is put on it: the
//! application may be another one since the last. Requests to one that does not go by
//! nginx's own connections, as they would without this module; only those that came before that was
//! known get connections here, one each.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use afcgi_proto::{Patience, Verdict};

use crate::conf::Settings;
use crate::fake::Wants;
use crate::ffi::sock::Target;
use crate::keys::{FakeKey, RealKey};
use crate::status::{Counts, Gauge, Share};

/// Most connections to a worker that carry one request after the other and are kept idle.
pub(crate) const MOST_IDLE: usize = 8;

/// Where requests go, and with which parameters. Only what agrees in all of it shares connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) target: Target,
    pub(crate) settings: Settings,
}

impl Route {
    /// Whether the two are the same.
    pub(crate) fn is(self: &Rc<Self>, other: &Rc<Self>) -> bool {
        Rc::ptr_eq(self, other) || **self == **other
    }
}

#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) route: Rc<Route>,
    /// By which the workers know the address.
    pub(crate) address: u64,
    /// By which the worker finds the pool.
    pub(crate) hash: u64,
    pub(crate) verdict: Verdict,
    /// Shared connections, those being opened included. Retired ones leave the list.
    pub(crate) shared: Vec<RealKey>,
    /// Connections for one request at a time that have none; the one used last is at the end.
    pub(crate) idle: Vec<RealKey>,
    /// Connections for one request at a time that are being opened.
    pub(crate) opening: usize,
    /// Requests without a connection, in the order of their arrival.
    pub(crate) waiting: VecDeque<FakeKey>,
    /// Those that wait for a connection of their own, though others share one.
    pub(crate) alone: VecDeque<FakeKey>,
    pub(crate) share: Share,
}

impl Pool {
    pub(crate) fn new(route: Rc<Route>, hash: u64, counts: Counts) -> Self {
        let mut hasher = DefaultHasher::new();
        route.target.address.hash(&mut hasher);
        Self {
            route,
            address: hasher.finish(),
            hash,
            verdict: Verdict::Unknown,
            shared: Vec::new(),
            idle: Vec::new(),
            opening: 0,
            waiting: VecDeque::new(),
            alone: VecDeque::new(),
            share: Share::new(counts),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.route.settings
    }

    /// The address for logs.
    pub(crate) fn name(&self) -> &str {
        &self.route.target.name
    }

    /// How long to wait for answers.
    pub(crate) fn patience() -> Patience {
        Patience::default()
    }

    /// Whether a request needs a connection of its own.
    pub(crate) fn isolates(&self, wants: Wants) -> bool {
        match self.verdict {
            Verdict::Unknown => false,
            Verdict::Shared { controlled } => wants.body && !controlled,
            Verdict::Single { .. } => true,
        }
    }

    /// Requests that wait for connections of their own.
    pub(crate) fn singles_wanted(&self) -> usize {
        match self.verdict {
            Verdict::Single { .. } => self.waiting.len() + self.alone.len(),
            Verdict::Unknown | Verdict::Shared { .. } => self.alone.len(),
        }
    }

    /// Whether requests wait for a place on a shared connection.
    pub(crate) fn shared_wanted(&self) -> bool {
        !self.verdict.is_single() && !self.waiting.is_empty()
    }

    /// Connections for one request at a time that have none, those being opened included.
    pub(crate) fn singles(&self) -> usize {
        self.opening + self.idle.len()
    }

    /// Takes a request out of the queues.
    pub(crate) fn forget(&mut self, fake: FakeKey) {
        self.waiting.retain(|&waiting| waiting != fake);
        self.alone.retain(|&waiting| waiting != fake);
        self.show();
    }

    /// Whether as many requests wait as would fill the connections a second time.
    pub(crate) fn is_full(&self) -> bool {
        let Settings {
            connections,
            requests,
            ..
        } = self.route.settings;
        self.waiting.len() + self.alone.len() >= usize::from(connections) * usize::from(requests)
    }

    /// Shows how many requests wait.
    pub(crate) fn show(&mut self) {
        let waiting = self.waiting.len() + self.alone.len();
        self.share.show(Gauge::Waiting, waiting);
    }
}
