//! What the module counts, for all worker processes together: the numbers of `fastcgi_multiplex_status`.
//!
//! `table` is where they are, in memory that the worker processes share, and `render` is how they
//! are shown. Each worker writes to entries of its own, so nobody waits for anybody; whoever renders
//! adds them up by address. Nothing in this folder knows of nginx.

mod numbers;
mod render;
mod table;

pub use numbers::{Count, Fact, Gauge};
pub use render::{Format, json, prometheus};
pub use table::{Counts, Entry, Summary, summaries};

/// What one connection adds to the gauges of its address: taken back when this is dropped, so that
/// no gauge can be left too high by a connection that is gone.
#[derive(Debug, Default)]
pub struct Share {
    counts: Counts,
    shown: [u64; Gauge::ALL.len()],
    retired: bool,
    aborts: u64,
}

impl Share {
    pub fn new(counts: Counts) -> Self {
        Self {
            counts,
            ..Self::default()
        }
    }

    /// Another one of the same address.
    pub fn beside(&self) -> Self {
        Self::new(self.counts.clone())
    }

    pub fn add(&self, count: Count, more: usize) {
        self.counts.add(count, more);
    }

    /// What the application said.
    pub fn tell(&self, fact: Fact, said: Option<bool>) {
        self.counts.tell(fact, said);
    }

    /// Makes it so many of this connection's.
    pub fn show(&mut self, gauge: Gauge, value: usize) {
        let value = value as u64;
        if let Some(shown) = self.shown.get_mut(gauge as usize)
            && *shown != value
        {
            let before = std::mem::replace(shown, value);
            self.counts.shift(gauge, before, value);
        }
    }

    /// So many requests were aborted on the connection so far.
    pub fn aborted(&mut self, aborts: u64) {
        let before = std::mem::replace(&mut self.aborts, aborts);
        let more = aborts.saturating_sub(before);
        self.counts.add(Count::Aborts, more as usize);
    }

    /// The connection takes no more requests: counted once.
    pub fn retire(&mut self) {
        if !std::mem::replace(&mut self.retired, true) {
            self.counts.add(Count::Retired, 1);
        }
    }

    /// Counts elsewhere from now on.
    pub fn transfer(&mut self, counts: Counts) {
        let (retired, aborts) = (self.retired, self.aborts);
        *self = Self::new(counts);
        (self.retired, self.aborts) = (retired, aborts);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        for gauge in Gauge::ALL {
            self.show(gauge, 0);
        }
    }
}
