//! What goes on on a connection of a client, for whoever closes it: whether it is idle, and whether its end may look like that of a
//! response.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What goes on on a connection.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    active: AtomicUsize,
    seen: AtomicBool,
    broken: AtomicBool,
    ended: Mutex<Option<Instant>>,
}

impl Activity {
    /// For how long there has been no request; `None`: there never was one.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        if !self.seen.load(Ordering::Acquire) {
            return None;
        }
        if self.active.load(Ordering::Acquire) > 0 {
            return Some(Duration::ZERO);
        }
        let ended = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        Some(ended.map_or(Duration::ZERO, |ended| now.saturating_duration_since(ended)))
    }

    /// Whether its end must not look like that of a response.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

/// A request on a connection, until its response or its tunnel has ended.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

impl Busy {
    pub(crate) fn new(activity: &Arc<Activity>) -> Self {
        activity.active.fetch_add(1, Ordering::AcqRel);
        activity.seen.store(true, Ordering::Release);
        Self(Arc::clone(activity))
    }

    /// The response is not complete, and nothing but the end of the connection would end it.
    pub(crate) fn broke_off(&self) {
        self.0.broken.store(true, Ordering::Release);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}
