//! What a server counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Live counters of a server. Cloning gives another view of the same counters.
#[derive(Clone, Debug, Default)]
pub struct Stats(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicUsize,
    accepted: AtomicU64,
    turned_away: AtomicU64,
    made_room: AtomicU64,
    active: AtomicUsize,
    served: AtomicU64,
    aborted: AtomicU64,
    refused: AtomicU64,
}

/// What the counters of [`Stats`] were at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Connections that are open.
    pub connections: usize,
    /// Connections that were accepted since the start.
    pub accepted: u64,
    /// Connections that were closed at once: over the limit, or not allowed.
    pub turned_away: u64,
    /// Connections that were closed to make room for others, since they had been idle longest.
    pub made_room: u64,
    /// Requests that a handler works on.
    pub active: usize,
    /// Requests whose handler returned.
    pub served: u64,
    /// Requests that were given up by the web server or lost with their connection while a handler
    /// worked on them.
    pub aborted: u64,
    /// Requests that no handler saw: over a limit, of an unknown role, with bad parameters, or given
    /// up before their parameters were complete.
    pub refused: u64,
}

impl Stats {
    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let counters = &self.0;
        Snapshot {
            connections: counters.connections.load(Ordering::Relaxed),
            accepted: counters.accepted.load(Ordering::Relaxed),
            turned_away: counters.turned_away.load(Ordering::Relaxed),
            made_room: counters.made_room.load(Ordering::Relaxed),
            active: counters.active.load(Ordering::Relaxed),
            served: counters.served.load(Ordering::Relaxed),
            aborted: counters.aborted.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
        }
    }

    /// Counts a connection in, unless there are `most`.
    pub(crate) fn connect(&self, most: usize) -> bool {
        let counters = &self.0;
        let more = |count: usize| (count < most).then_some(count + 1);
        let counted = counters
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok();
        if counted {
            counters.accepted.fetch_add(1, Ordering::Relaxed);
        }
        counted
    }

    pub(crate) fn turn_away(&self) {
        self.0.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn make_room(&self) {
        self.0.made_room.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn disconnect(&self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a request in, unless there are `most`.
    pub(crate) fn begin(&self, most: usize) -> bool {
        if self.0.active.fetch_add(1, Ordering::Relaxed) >= most {
            self.0.active.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    pub(crate) fn served(&self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
        self.0.served.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn aborted(&self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
        self.0.aborted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold() {
        let stats = Stats::default();
        assert!(stats.connect(1) && !stats.connect(1));
        stats.disconnect();
        assert!(stats.connect(1));
        assert!(stats.begin(1) && !stats.begin(1));
        stats.served();
        assert!(stats.begin(1));
        stats.aborted();
        let snapshot = stats.snapshot();
        assert_eq!((snapshot.connections, snapshot.accepted), (1, 2));
        assert_eq!(
            (snapshot.active, snapshot.served, snapshot.aborted),
            (0, 1, 1)
        );
    }
}
