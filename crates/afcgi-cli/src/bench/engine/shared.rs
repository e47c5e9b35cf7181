//! What all connections of an engine share.

use std::collections::VecDeque;
use std::time::Instant;

use super::config::Config;
use super::socket::Endpoint;
use super::stats::Stats;
use super::supply::Supply;

/// Bytes that are read at a time.
const READ: usize = 256 * 1024;
/// Answers that may become the one with which others are compared.
const LESSONS: u32 = 1000;
/// Connections in a row that were closed after one answer, after which none is kept.
const UNKEPT: u32 = 3;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) stats: Stats,
    pub(super) supply: Supply,
    /// When requests were to be sent that are to be sent again.
    pub(super) resend: VecDeque<u64>,
    /// Connections that are closed.
    pub(super) closed: Vec<usize>,
    epoch: Instant,
    /// Nanoseconds since then.
    pub(super) now: u64,
    /// When a request was last answered.
    pub(super) progress: u64,
    /// Requests begun and not ended.
    pub(super) in_flight: u64,
    /// Bytes of incomplete lines and texts.
    pub(super) held: usize,
    /// STDOUT of the last right answer that came in one record, with its status and the length of its body.
    pub(super) learned: Vec<u8>,
    pub(super) learned_status: u16,
    pub(super) learned_length: u64,
    pub(super) lessons: u32,
    /// Whether connections are kept, as far as is known.
    pub(super) keep: bool,
    unkept: u32,
    random: fastrand::Rng,
    pub(super) buffer: Vec<u8>,
}

impl Shared {
    pub(super) fn new(config: Config) -> Self {
        Self {
            stats: Stats::default(),
            supply: Supply::Nothing,
            resend: VecDeque::new(),
            closed: (0..config.connections).rev().collect(),
            epoch: Instant::now(),
            now: 0,
            progress: 0,
            in_flight: 0,
            held: 0,
            learned: Vec::new(),
            learned_status: 0,
            learned_length: 0,
            lessons: LESSONS,
            keep: config.keep_conn,
            unkept: 0,
            random: fastrand::Rng::with_seed(config.seed),
            buffer: vec![0; READ],
            config,
        }
    }

    /// Looks at the clock.
    #[inline]
    pub(super) fn tick(&mut self) {
        self.now = self.at(Instant::now());
    }

    /// A time as it is counted here.
    pub(super) fn at(&self, time: Instant) -> u64 {
        let nanos = time.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// Where a connection goes.
    pub(super) fn endpoint(&self, index: usize) -> &Endpoint {
        let endpoints = &self.config.endpoints;
        &endpoints[index % endpoints.len()]
    }

    /// A request that may begin: when it was to be sent, and whether it was sent before. One that was sent before goes to a connection on
    /// which nothing was answered yet, so that it is not lost in the same way once more.
    #[inline]
    pub(super) fn take(&mut self, fresh: bool) -> Option<(u64, bool)> {
        if fresh && let Some(due) = self.resend.pop_front() {
            return Some((due, true));
        }
        self.supply.take(self.now).map(|due| (due, false))
    }

    /// Whether connections are of use.
    pub(super) fn has_work(&self) -> bool {
        !self.supply.is_empty() || !self.resend.is_empty()
    }

    /// Whether the next request is one that is aborted.
    #[inline]
    pub(super) fn aborts(&mut self) -> bool {
        let share = self.config.aborts;
        share > 0.0 && (share >= 1.0 || self.random.f64() < share)
    }

    /// The application has closed a connection. One that always does after its first answer is not sent a second request: that would be
    /// lost, and sent again.
    pub(super) fn was_closed(&mut self, answered: u64, resent: u64) {
        if !self.keep {
            return;
        }
        self.unkept = match answered {
            1 if resent > 0 || self.config.concurrent == 1 => self.unkept + 1,
            _ => 0,
        };
        self.keep = self.unkept < UNKEPT;
    }
}
