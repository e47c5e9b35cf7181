//! What the module counts, for all worker processes together: the numbers of `fastcgi_multiplex_status`.
//!
//! [`table`] is where they are, in memory that the worker processes share, and [`render`] is how they
//! are shown. Each worker writes to entries of its own, so nobody waits for anybody; whoever renders
//! adds them up by address. Nothing in this folder knows of nginx.

mod render;
mod table;

pub use render::{Format, json, prometheus};
pub use table::{Counts, Entry, Summary, summaries};

/// What there is of something now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// Connections that are established.
    Connections,
    /// Requests on a connection that nginx is not done with.
    Active,
    /// Requests that nginx is done with and whose END_REQUEST has not come.
    Draining,
    /// Requests without a connection.
    Waiting,
}

/// What has happened so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Requests that got a place on a connection.
    Requests,
    /// Requests that nginx sent by connections of its own, since the application does not multiplex.
    Aside,
    /// Bytes written to connections.
    BytesSent,
    /// Bytes read from connections.
    BytesReceived,
    /// Requests that were aborted, those that stalled included.
    Aborts,
    /// How often a connection was not read because of one request.
    Stalls,
    /// Requests that were given up for that.
    StallAborts,
    /// Requests that the application refused unprocessed.
    Refusals,
    /// Connections that were established.
    Connects,
    /// Connections that could not be established.
    ConnectFailures,
    /// Shared connections that took no more requests while they were open.
    Retired,
    /// Requests that were kept from a connection to another application: always 0 but for a defect.
    Astray,
}

/// What an application said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Whether it takes several requests on a connection.
    Multiplexes,
    /// Whether it knows flow control.
    FlowControl,
    /// Whether it may turn a request into a tunnel.
    Upgrade,
}

impl Gauge {
    pub const ALL: [Self; 4] = [
        Self::Connections,
        Self::Active,
        Self::Draining,
        Self::Waiting,
    ];
}

impl Count {
    pub const ALL: [Self; 12] = [
        Self::Requests,
        Self::Aside,
        Self::BytesSent,
        Self::BytesReceived,
        Self::Aborts,
        Self::Stalls,
        Self::StallAborts,
        Self::Refusals,
        Self::Connects,
        Self::ConnectFailures,
        Self::Retired,
        Self::Astray,
    ];
}

impl Fact {
    pub const ALL: [Self; 3] = [Self::Multiplexes, Self::FlowControl, Self::Upgrade];
}

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
