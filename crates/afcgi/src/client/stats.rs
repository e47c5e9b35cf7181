//! What a client counts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Live counters of a client.
#[derive(Debug, Default)]
pub(super) struct Counters {
    connections: AtomicUsize,
    opened: AtomicU64,
    connect_failures: AtomicU64,
    active: AtomicUsize,
    waiting: AtomicUsize,
    requests: AtomicU64,
    retries: AtomicU64,
    refusals: AtomicU64,
    timeouts: AtomicU64,
    failures: AtomicU64,
    aborts: AtomicU64,
    stalls: AtomicU64,
    upgrades: AtomicU64,
}

/// What a client had counted at one time, over all its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Connections that are open.
    pub connections: usize,
    /// Connections that were opened since the start.
    pub opened: u64,
    /// Connections that could not be opened.
    pub connect_failures: u64,
    /// Requests that have a place on a connection.
    pub active: usize,
    /// Requests that wait for one.
    pub waiting: usize,
    /// Requests that were made since the start.
    pub requests: u64,
    /// How often a request was sent again.
    pub retries: u64,
    /// How often an application refused a request.
    pub refusals: u64,
    /// How often an application did not do something in time.
    pub timeouts: u64,
    /// Requests that ended with an error before their response began, those above included.
    pub failures: u64,
    /// Requests that were given up while the application worked on them.
    pub aborts: u64,
    /// Requests that kept a connection from being read.
    pub stalls: u64,
    /// Requests that became tunnels.
    pub upgrades: u64,
}

macro_rules! counts {
    ($($name:ident),*) => {$(
        pub(super) fn $name(&self) {
            self.$name.fetch_add(1, Ordering::Relaxed);
        }
    )*};
}

impl Counters {
    counts!(
        connect_failures,
        requests,
        retries,
        refusals,
        timeouts,
        failures,
        stalls,
        upgrades
    );

    pub(super) fn aborts(&self, more: u64) {
        if more > 0 {
            self.aborts.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub(super) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn queued(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unqueued(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let gauge = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        Snapshot {
            connections: gauge(&self.connections),
            opened: number(&self.opened),
            connect_failures: number(&self.connect_failures),
            active: gauge(&self.active),
            waiting: gauge(&self.waiting),
            requests: number(&self.requests),
            retries: number(&self.retries),
            refusals: number(&self.refusals),
            timeouts: number(&self.timeouts),
            failures: number(&self.failures),
            aborts: number(&self.aborts),
            stalls: number(&self.stalls),
            upgrades: number(&self.upgrades),
        }
    }
}
