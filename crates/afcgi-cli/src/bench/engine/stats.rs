//! What is counted, and the kinds of failures.

use hdrhistogram::Histogram;

/// The longest time that is told from a longer one.
const LONGEST: u64 = 3_600_000_000_000;
/// Bytes of a text of the application's that are kept to be shown.
const SHOWN: usize = 200;

/// Why a request has no answer, or not the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody takes connections.
    Refused,
    /// The connection was closed, or broke, with the request on it.
    Closed,
    /// No end within the time.
    TimedOut,
    /// What came is not FastCGI, or not for a request that is there.
    Protocol,
    /// END_REQUEST with CANT_MPX_CONN.
    CannotMultiplex,
    /// END_REQUEST with OVERLOADED.
    Overloaded,
    /// END_REQUEST with UNKNOWN_ROLE, or another status that refuses.
    Rejected,
    /// END_REQUEST with an appStatus.
    AppStatus,
    /// The answer has no valid head.
    Head,
    /// Another status than expected.
    Status,
    /// Another length than expected.
    Length,
    /// Without the expected text, or another body.
    Content,
    /// Another hash than expected.
    Hash,
    /// Something on STDERR, where nothing may be.
    Stderr,
    /// ABORT_REQUEST without an END_REQUEST within the time.
    Unheeded,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 15] = [
        Self::Refused,
        Self::Closed,
        Self::TimedOut,
        Self::Protocol,
        Self::CannotMultiplex,
        Self::Overloaded,
        Self::Rejected,
        Self::AppStatus,
        Self::Head,
        Self::Status,
        Self::Length,
        Self::Content,
        Self::Hash,
        Self::Stderr,
        Self::Unheeded,
    ];

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Closed => "closed",
            Self::TimedOut => "timed_out",
            Self::Protocol => "protocol",
            Self::CannotMultiplex => "cannot_multiplex",
            Self::Overloaded => "overloaded",
            Self::Rejected => "rejected",
            Self::AppStatus => "app_status",
            Self::Head => "head",
            Self::Status => "status",
            Self::Length => "length",
            Self::Content => "content",
            Self::Hash => "hash",
            Self::Stderr => "stderr",
            Self::Unheeded => "abort_unheeded",
        }
    }

    /// What it is, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Refused => "not connected",
            Self::Closed => "closed by the application",
            Self::TimedOut => "timed out",
            Self::Protocol => "protocol violated",
            Self::CannotMultiplex => "refused: CANT_MPX_CONN",
            Self::Overloaded => "refused: OVERLOADED",
            Self::Rejected => "refused: UNKNOWN_ROLE or other",
            Self::AppStatus => "appStatus is not 0",
            Self::Head => "no valid head",
            Self::Status => "wrong status",
            Self::Length => "wrong length",
            Self::Content => "wrong content",
            Self::Hash => "wrong hash",
            Self::Stderr => "something on STDERR",
            Self::Unheeded => "abort not heeded",
        }
    }
}

/// Failures of one kind.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// What was wrong with the first.
    pub first: Option<String>,
}

/// What was counted since the engine was made, or since [`Stats::take`].
#[derive(Clone, Debug)]
pub struct Stats {
    /// Requests that were begun.
    pub begun: u64,
    /// Requests that were answered as expected.
    pub completed: u64,
    /// Requests that were aborted on purpose, and whose end came.
    pub aborted: u64,
    /// Those of them whose connection the application closed.
    pub aborted_by_close: u64,
    /// From the time at which a request was to be sent to its END_REQUEST, in nanoseconds, of those that are `completed`.
    pub latency: Histogram<u64>,
    /// From ABORT_REQUEST to the end, in nanoseconds.
    pub abort_latency: Option<Histogram<u64>>,
    /// Time to connect, in nanoseconds.
    pub connect: Option<Histogram<u64>>,
    /// Those of `completed`, by status.
    pub statuses: Vec<u64>,
    failures: [Failures; Kind::ALL.len()],
    /// Requests that went to a kept connection which was closed without a word, and were sent again.
    pub resent: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Those that took the place of one that was closed.
    pub reconnects: u64,
    /// Connections that were opened later because of failures.
    pub put_off: u64,
    /// Times that the queue of a unix socket was full.
    pub queue_full: u64,
    /// Calls of read that gave bytes.
    pub reads: u64,
    /// Calls of write that took bytes.
    pub writes: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// Bytes of the bodies of answers that were as expected.
    pub body_in: u64,
    /// Bytes of STDERR.
    pub stderr: u64,
    /// The beginning of the first of them.
    pub stderr_first: Option<String>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            begun: 0,
            completed: 0,
            aborted: 0,
            aborted_by_close: 0,
            latency: histogram(),
            abort_latency: None,
            connect: None,
            statuses: vec![0; 1000],
            failures: Default::default(),
            resent: 0,
            connections: 0,
            reconnects: 0,
            put_off: 0,
            queue_full: 0,
            reads: 0,
            writes: 0,
            bytes_in: 0,
            bytes_out: 0,
            body_in: 0,
            stderr: 0,
            stderr_first: None,
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("constant bounds are valid")
}

/// Records a time in a histogram that is made when it is needed.
pub(super) fn record(histogram_: &mut Option<Histogram<u64>>, nanos: u64) {
    histogram_
        .get_or_insert_with(histogram)
        .saturating_record(nanos.max(1));
}

impl Stats {
    /// All of it, and back to zero.
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Failures of a kind.
    pub fn failures(&self, kind: Kind) -> &Failures {
        &self.failures[kind as usize]
    }

    /// Failures of all kinds.
    pub fn failed(&self) -> u64 {
        self.failures.iter().map(|failures| failures.count).sum()
    }

    /// What was wrong first, of the first kind of which there is something.
    pub fn failure(&self) -> Option<String> {
        Kind::ALL.into_iter().find_map(|kind| {
            let failures = self.failures(kind);
            let first = failures.first.as_deref().unwrap_or_default();
            (failures.count > 0).then(|| format!("{}: {first}", kind.text()))
        })
    }

    pub(super) fn fail(&mut self, kind: Kind, count: u64, text: impl FnOnce() -> String) {
        let failures = &mut self.failures[kind as usize];
        failures.count += count;
        failures.first.get_or_insert_with(text);
    }

    pub(super) fn stderr(&mut self, bytes: &[u8]) {
        self.stderr += bytes.len() as u64;
        self.stderr_first.get_or_insert_with(|| shown(bytes));
    }

    /// Adds what another thread, or an earlier time, has counted.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.begun, other.begun),
            (&mut self.completed, other.completed),
            (&mut self.aborted, other.aborted),
            (&mut self.aborted_by_close, other.aborted_by_close),
            (&mut self.resent, other.resent),
            (&mut self.reads, other.reads),
            (&mut self.writes, other.writes),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.body_in, other.body_in),
            (&mut self.stderr, other.stderr),
        ] {
            *sum += more;
        }
        if !other.latency.is_empty() {
            join(&mut self.latency, &other.latency);
        }
        if let Some(more) = &other.abort_latency {
            join(self.abort_latency.get_or_insert_with(histogram), more);
        }
        for (sum, more) in self.statuses.iter_mut().zip(&other.statuses) {
            *sum += more;
        }
        self.add_around(other);
        self.stderr_first = self
            .stderr_first
            .take()
            .or_else(|| other.stderr_first.clone());
    }

    /// Adds what another thread, or an earlier time, has counted of connections, and its failures.
    pub(in super::super) fn add_around(&mut self, other: &Self) {
        self.connections += other.connections;
        self.reconnects += other.reconnects;
        self.put_off += other.put_off;
        self.queue_full += other.queue_full;
        if let Some(more) = &other.connect {
            join(self.connect.get_or_insert_with(histogram), more);
        }
        for (sum, more) in self.failures.iter_mut().zip(&other.failures) {
            sum.count += more.count;
            sum.first = sum.first.take().or_else(|| more.first.clone());
        }
    }
}

fn join(sum: &mut Histogram<u64>, more: &Histogram<u64>) {
    sum.add(more).expect("both have the same bounds");
}

/// The beginning of what an application says, on one line and without control characters.
pub(super) fn shown(bytes: &[u8]) -> String {
    let bytes = bytes.trim_ascii_end();
    let start = bytes.get(..SHOWN).unwrap_or(bytes);
    let mut text = crate::wire::escaped(start);
    if start.len() < bytes.len() {
        text.push('…');
    }
    text
}
