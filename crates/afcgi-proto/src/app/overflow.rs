//! What bodies without flow control may exceed their buffers by, while the requests behind them on the
//! connection are looked for: bounded for a connection, and for several of them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Connection;
use super::request::Request;

/// What the overflows of several connections have in common: a bound in bytes for their sum, see
/// [`Connection::share_overflow`]. Cloning gives another view of the same sum.
#[derive(Clone, Debug)]
pub struct OverflowTotal {
    most: usize,
    used: Arc<AtomicUsize>,
}

impl OverflowTotal {
    /// With a bound in bytes. Connections of several threads may exceed it by a record each.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            used: Arc::default(),
        }
    }

    /// Bytes that are held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn left(&self) -> usize {
        self.most.saturating_sub(self.used())
    }
}

/// The overflow of one connection. Invariant: `used` is the sum of [`Request::excess`] over its requests,
/// and is a part of the total until this is dropped.
#[derive(Debug)]
pub(super) struct Overflow {
    most: usize,
    pub(super) used: usize,
    total: Option<OverflowTotal>,
}

impl Overflow {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            used: 0,
            total: None,
        }
    }

    pub(super) fn left(&self) -> usize {
        let left = self.most.saturating_sub(self.used);
        match &self.total {
            Some(total) => left.min(total.left()),
            None => left,
        }
    }

    /// The excess of a request is another one now.
    pub(super) fn change(&mut self, before: usize, after: usize) {
        self.used = self.used.saturating_sub(before).saturating_add(after);
        if let Some(total) = &self.total {
            if after > before {
                (total.used).fetch_add(after.saturating_sub(before), Ordering::Relaxed);
            } else if after < before {
                (total.used).fetch_sub(before.saturating_sub(after), Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Overflow {
    fn drop(&mut self) {
        self.change(self.used, 0);
    }
}

/// What a request may take of an overflow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    left: usize,
    several: bool,
}

impl Share {
    /// Another request may be behind this one only where there are others, or where the web server may begin
    /// one: a connection that ends with its only request holds nobody up.
    pub(super) fn of(self, request: &Request) -> usize {
        if self.several || request.begin.keep_conn() {
            self.left
        } else {
            0
        }
    }
}

impl Connection {
    /// Counts what bodies exceed their buffers by into a total. To be called before anything is received.
    pub fn share_overflow(&mut self, total: OverflowTotal) {
        self.overflow.total = Some(total);
    }

    pub(super) fn overflow_share(&self) -> Share {
        Share {
            left: self.overflow.left(),
            several: self.table.len() > 1,
        }
    }
}
