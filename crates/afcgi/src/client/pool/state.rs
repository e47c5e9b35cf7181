//! What a pool has, and whom its requests wait for. Nothing is done here, only counted.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afcgi_proto::verdict::Verdict;
use tokio::sync::oneshot;

use super::super::config::Config;
use super::super::error::Error;
use super::super::place::{Place, Wants};
use super::super::shared::Shared;

/// Places that nobody wants any more: to be dropped after the lock.
pub(super) type Unwanted = Vec<Place>;

/// What a verdict says of the application.
pub(super) fn kind(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unknown => "has not been asked",
        Verdict::Shared { controlled: true } => "multiplexes, with flow control",
        Verdict::Shared { controlled: false } => "multiplexes, without flow control",
        Verdict::Single { .. } => "gets one request per connection",
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) verdict: Verdict,
    /// Shared connections that take requests.
    pub(super) shared: Vec<Arc<Shared>>,
    /// Whether a shared connection is being opened or asked.
    pub(super) opening_shared: bool,
    /// The connection on which the application is being asked.
    pub(super) asking: Option<Arc<Shared>>,
    /// Connections for one request at a time that have none; the one used last is at the end.
    pub(super) idle: Vec<Arc<Shared>>,
    /// All of that kind, those that are being opened included.
    pub(super) singles: usize,
    pub(super) opening_singles: usize,
    /// How many connections for one request at a time are kept of an application that does not
    /// multiplex.
    pub(super) most_idle: usize,
    /// What the application says it takes.
    pub(super) most_connections: usize,
    pub(super) most_requests: usize,
    /// Requests without a place, in the order of their arrival.
    pub(super) waiting: VecDeque<Waiter>,
    /// Those that wait for a connection of their own, though others share one.
    pub(super) alone: VecDeque<Waiter>,
    pub(super) queued: usize,
    pub(super) backoff: Backoff,
    pub(super) closed: bool,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) tell: oneshot::Sender<Result<Place, Error>>,
    pub(super) wants: Wants,
}

/// What came of connecting lately.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Failures in a row.
    pub(super) failures: u32,
    pub(super) retry_at: Option<Instant>,
    pub(super) error: Option<Arc<io::Error>>,
}

impl State {
    pub(super) fn new(verdict: Verdict, most_idle: usize) -> Self {
        Self {
            verdict,
            shared: Vec::new(),
            opening_shared: false,
            asking: None,
            idle: Vec::new(),
            singles: 0,
            opening_singles: 0,
            most_idle,
            most_connections: usize::MAX,
            most_requests: usize::MAX,
            waiting: VecDeque::new(),
            alone: VecDeque::new(),
            queued: 0,
            backoff: Backoff::default(),
            closed: false,
        }
    }

    /// Takes a verdict, and returns it if it says something else than the one before: that is to be logged, without
    /// the lock.
    #[must_use]
    pub(super) fn judge(&mut self, verdict: Verdict) -> Option<Verdict> {
        let before = std::mem::replace(&mut self.verdict, verdict);
        (!before.agrees(verdict)).then_some(verdict)
    }

    /// Takes the connections out that get no further requests where nothing is known any more that
    /// allows it: they are to be retired.
    #[must_use]
    pub(super) fn obsolete(&mut self, keep_conn: bool) -> Vec<Arc<Shared>> {
        let mut obsolete = Vec::new();
        if self.verdict.is_single() {
            obsolete.append(&mut self.shared);
            if !keep_conn {
                obsolete.append(&mut self.idle);
            }
        }
        obsolete
    }

    /// Whether a request needs a connection of its own.
    pub(super) fn isolates(&self, wants: Wants) -> bool {
        match self.verdict {
            Verdict::Unknown => wants.single,
            Verdict::Shared { controlled } => wants.single || (wants.body && !controlled),
            Verdict::Single { .. } => true,
        }
    }

    /// Whether others wait for the same.
    pub(super) fn is_overtaking(&mut self, wants: Wants) -> bool {
        let alone = self.isolates(wants);
        next(&mut self.waiting).is_some() || (alone && next(&mut self.alone).is_some())
    }

    pub(super) fn is_opening(&self) -> bool {
        self.opening_shared || self.opening_singles > 0
    }

    /// Requests that wait for connections of their own; `most`: more need not be counted.
    pub(super) fn singles_wanted(&self, most: usize) -> usize {
        let waiting = self.verdict.is_single().then(|| self.waiting.iter());
        let all = self.alone.iter().chain(waiting.into_iter().flatten());
        let waits = |waiter: &&Waiter| !waiter.tell.is_closed();
        all.filter(waits).take(most).count()
    }

    /// Takes those out of the queues that do not wait any more, when they are many.
    pub(super) fn prune(&mut self) {
        for queue in [&mut self.waiting, &mut self.alone] {
            if queue.len() > 2 * self.queued + 16 {
                queue.retain(|waiter| !waiter.tell.is_closed());
            }
        }
    }

    /// Whether there is a connection to wait for.
    pub(super) fn has_hope(&self, alone: bool) -> bool {
        let single = alone || self.verdict.is_single();
        match single {
            true => self.singles > 0,
            false => self.opening_shared || !self.shared.is_empty(),
        }
    }

    /// Shared connections that are not held up.
    pub(super) fn usable(&self) -> usize {
        let held_up = |shared: &&Arc<Shared>| !shared.lock().connection.is_stalled();
        self.shared.iter().filter(held_up).count()
    }

    /// Requests that the application works on, where that may be over its limit.
    pub(super) fn active(&self) -> usize {
        if self.most_requests == usize::MAX {
            return 0;
        }
        let shared = self.shared.iter();
        let shared: usize = shared.map(|shared| shared.lock().connection.active()).sum();
        shared + (self.singles - self.opening_singles).saturating_sub(self.idle.len())
    }
}

impl Backoff {
    /// Whether it is too early to try again.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at > now)
    }

    pub(super) fn fail(&mut self, config: &Config, error: Arc<io::Error>) {
        let now = crate::clock::now();
        // Those that were tried at the same time count as one.
        if !self.holds(now) {
            let wait = backoff(config, self.failures, fastrand::f64());
            self.failures = self.failures.saturating_add(1);
            self.retry_at = now.checked_add(wait);
        }
        self.error = Some(error);
    }
}

/// The pause after so many failures before this one; `chance` is from 0 to 1.
pub(super) fn backoff(config: &Config, failures: u32, chance: f64) -> Duration {
    let wait = config.backoff.saturating_mul(1 << failures.min(16));
    wait.min(config.backoff_most).mul_f64(1.0 - chance / 2.0)
}

/// What the request at the head of a queue wants, of those that still wait.
pub(super) fn next(queue: &mut VecDeque<Waiter>) -> Option<Wants> {
    while let Some(waiter) = queue.front() {
        if !waiter.tell.is_closed() {
            return Some(waiter.wants);
        }
        queue.pop_front();
    }
    None
}

pub(super) fn give(queue: &mut VecDeque<Waiter>, place: Place, unwanted: &mut Unwanted) {
    match queue.pop_front() {
        Some(waiter) => unwanted.extend(waiter.tell.send(Ok(place)).err().and_then(Result::ok)),
        None => unwanted.push(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_differ() {
        let config = Config::default();
        assert_eq!(backoff(&config, 0, 0.0), Duration::from_millis(100));
        assert_eq!(backoff(&config, 1, 0.0), Duration::from_millis(200));
        assert_eq!(backoff(&config, 1, 1.0), Duration::from_millis(100));
        assert_eq!(backoff(&config, 1000, 0.0), Duration::from_secs(10));
    }
}
