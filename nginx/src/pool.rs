//! The connections of a worker to one address, and what is known of the application there.
//!
//! Whether it multiplexes is asked on each shared connection before a request is put on it: the
//! application may be another one since the last. That it does not is remembered for a
//! while, since that kind gets many connections.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use afcgi_proto::Values;

use crate::conf::Settings;
use crate::ffi::sock::Target;

/// For how long an application counts as one that does not multiplex, after it said so.
const SAID_NO: Duration = Duration::from_secs(300);
/// The same, after it did not answer or refused: it may just have been busy.
const SAID_NOTHING: Duration = Duration::from_secs(30);
/// Most connections to a worker of an application without multiplexing that are kept idle.
const MOST_IDLE: usize = 8;

/// What is known of the application at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has not been asked: requests wait for its answer.
    Unknown,
    /// The last answer was that it multiplexes.
    Shared,
    /// One request at a time and connection; asked again after `until`, while requests go on.
    Single { until: Instant, idle: usize },
}

impl Verdict {
    /// The verdict that an answer to GET_VALUES gives.
    pub(crate) fn of(values: &Values, now: Instant, workers: usize) -> Self {
        if values.mpxs_conns == Some(true) && values.max_reqs != Some(1) {
            return Self::Shared;
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
}

impl Pool {
    pub(crate) fn new(target: Target, settings: Settings) -> Self {
        Self {
            target,
            settings,
            verdict: Verdict::Unknown,
            shared: Vec::new(),
            idle: Vec::new(),
            opening: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Whether nothing would be missed without it.
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.is_empty()
            && self.idle.is_empty()
            && self.opening == 0
            && self.waiting.is_empty()
    }

    /// Whether as many requests wait as would fill the connections a second time.
    pub(crate) fn is_full(&self) -> bool {
        let places = usize::from(self.settings.connections) * usize::from(self.settings.requests);
        self.waiting.len() >= places
    }
}
