//! The connections of a worker to one address, and what is known of the application there.
//!
//! Whether it multiplexes is asked on each shared connection before a request is put on it: the
//! application may be another one since the last. That it does not is remembered for a
//! while, since that kind gets many connections.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use afcgi_proto::Values;

use crate::conf::Settings;
use crate::fake::Wants;
use crate::ffi::sock::Target;
use crate::ffi::zone;
use crate::status::Counts;

/// For how long an application counts as one that does not multiplex, after it said so.
const SAID_NO: Duration = Duration::from_secs(300);
/// The same, after it did not answer or refused: it may just have been busy.
const SAID_NOTHING: Duration = Duration::from_secs(30);
/// Most connections to a worker of an application without multiplexing that are kept idle.
pub(crate) const MOST_IDLE: usize = 8;

/// What is known of the application at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has not been asked: requests wait for its answer.
    Unknown,
    /// The last answer was that it multiplexes, with flow control or without. Without, a request with
    /// a body gets a connection of its own: where nobody reads it, nothing else on its connection
    /// would be read either.
    Shared { controlled: bool },
    /// One request at a time and connection; asked again after `until`, while requests go on.
    Single { until: Instant, idle: usize },
}

impl Verdict {
    /// The verdict that an answer to GET_VALUES gives.
    pub(crate) fn of(values: &Values, now: Instant, workers: usize) -> Self {
        if values.mpxs_conns == Some(true) && values.max_reqs != Some(1) {
            return Self::Shared {
                controlled: values.flow_control.is_some(),
            };
        }
        // An idle connection takes a process of the application: leave half of them to others.
        let idle = match values.max_conns {
            Some(most) => usize::try_from(most).unwrap_or(MOST_IDLE) / 2 / workers.max(1),
            None => 1,
        };
        Self::Single {
            until: now + SAID_NO,
            idle: idle.min(MOST_IDLE),
        }
    }

    /// The verdict on an application that did not answer.
    pub(crate) fn silent(now: Instant) -> Self {
        Self::Single {
            until: now + SAID_NOTHING,
            idle: 0,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) target: Target,
    pub(crate) settings: Settings,
    pub(crate) verdict: Verdict,
    /// Shared connections, those being opened included. Retired ones leave the list.
    pub(crate) shared: Vec<usize>,
    /// Connections for one request at a time that have none; the one used last is at the end.
    pub(crate) idle: Vec<usize>,
    /// Connections for one request at a time that are being opened.
    pub(crate) opening: usize,
    /// Requests without a connection, in the order of their arrival.
    pub(crate) waiting: VecDeque<usize>,
    /// Those that wait for a connection of their own, though others share one.
    pub(crate) alone: VecDeque<usize>,
    pub(crate) counts: Counts,
}

impl Pool {
    pub(crate) fn new(target: Target, settings: Settings) -> Self {
        Self {
            counts: zone::counts(&target.name),
            target,
            settings,
            verdict: Verdict::Unknown,
            shared: Vec::new(),
            idle: Vec::new(),
            opening: 0,
            waiting: VecDeque::new(),
            alone: VecDeque::new(),
        }
    }

    /// Whether nothing would be missed without it.
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.is_empty()
            && self.idle.is_empty()
            && self.opening == 0
            && self.waiting.is_empty()
            && self.alone.is_empty()
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
        !matches!(self.verdict, Verdict::Single { .. }) && !self.waiting.is_empty()
    }

    /// Connections for one request at a time that have none, those being opened included.
    pub(crate) fn singles(&self) -> usize {
        self.opening + self.idle.len()
    }

    /// Takes a request out of the queues.
    pub(crate) fn forget(&mut self, fake: usize) {
        self.waiting.retain(|&waiting| waiting != fake);
        self.alone.retain(|&waiting| waiting != fake);
        self.show();
    }

    /// Whether as many requests wait as would fill the connections a second time.
    pub(crate) fn is_full(&self) -> bool {
        let places = usize::from(self.settings.connections) * usize::from(self.settings.requests);
        self.waiting.len() + self.alone.len() >= places
    }
}
