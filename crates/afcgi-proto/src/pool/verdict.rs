//! What is known of the application at an address: whether it multiplexes, how long a request waits
//! to find out, and when the application is asked again.
//!
//! Asking (R-40) must cost nobody anything. An application that does not multiplex often has few
//! processes, and libfcgi and Perl's FCGI hold one of them for as long as they are asked, since they
//! do not answer. So a request waits for an answer only as long as what is known justifies, one that
//! need not wait never does, and an application that gave no answer is asked ever less often.
//!
//! Here is no clock and no IO: the caller asks, and tells what came of it.

use std::time::{Duration, Instant};

use crate::values::Values;

/// How the application at an address is to be talked to.
///
/// ```text
///             answered: it multiplexes
///  Unknown ────────────────────────────> Shared
///     │  ^                                │  ^
///     │  └── unreachable ─────────────────┤  │ answered: it multiplexes
///     │                                   v  │
///     └── answered otherwise, silent ──> Single ──┐ answered otherwise, silent:
///                                          ^──────┘ asked later next time
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is known. Requests wait for an answer, for a short time.
    #[default]
    Unknown,
    /// Its last answer was that it multiplexes. Without flow control a request with a body needs a
    /// connection of its own: where nobody reads the body, nothing else on its connection is read.
    Shared {
        /// Whether it knows flow control (`docs/flow-control.md`).
        controlled: bool,
    },
    /// One request on each connection, as a web server without multiplexing does it. Requests do not
    /// wait for an answer.
    Single {
        /// Whether it gave no answer, or refused what it had agreed to: it may have been busy.
        silent: bool,
        /// How often in a row that came of asking; 1 at least.
        times: u8,
        /// When it is to be asked again, beside the requests.
        ask_at: Instant,
    },
}

/// How long to wait for an answer, and when to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long a request waits, beyond a round trip, for the answer of an application of which nothing
    /// is known, and how long a connection stays open on which the answer does not come.
    pub unknown: Duration,
    /// The same for an application that has multiplexed: it is worth waiting for.
    pub shared: Duration,
    /// How long an answer may take beyond a round trip when the application is asked beside requests for
    /// the first time: one of them may be waiting for the process that is being asked.
    pub beside: Duration,
    /// When to ask an application again that has said that it does not multiplex; twice as late each
    /// further time.
    pub said_no: Duration,
    /// When to ask one again that gave no answer; twice as late each further time.
    pub silent: Duration,
    /// The latest time to ask again.
    pub most: Duration,
}

impl Default for Patience {
    /// 100 ms, 3 s, 2 ms; 5 min and 1 s, up to 1 h.
    fn default() -> Self {
        Self {
            unknown: Duration::from_millis(100),
            shared: Duration::from_secs(3),
            beside: Duration::from_millis(2),
            said_no: Duration::from_secs(300),
            silent: Duration::from_secs(1),
            most: Duration::from_secs(3600),
        }
    }
}

impl Patience {
    /// How long after `times` outcomes in a row to ask again.
    fn pause(&self, silent: bool, times: u8) -> Duration {
        let first = if silent { self.silent } else { self.said_no };
        let doublings = u32::from(times.saturating_sub(1)).min(31);
        first.saturating_mul(1 << doublings).min(self.most)
    }

    /// How long a connection stays open on which the application was asked and does not answer;
    /// `round_trip` is what connecting took, of which half a second counts at most.
    pub fn of(&self, verdict: Verdict, round_trip: Duration) -> Duration {
        match verdict {
            Verdict::Shared { .. } => self.shared,
            Verdict::Unknown | Verdict::Single { .. } => {
                self.unknown.saturating_add(round_trip.min(MOST_ROUND_TRIP))
            }
        }
    }

    /// The same while requests to the application are under way that do not wait for the answer. One
    /// that has been asked in vain gets more time the next time, up to five times as much: it may
    /// multiplex and be busy, and it is asked less often.
    pub fn beside(&self, verdict: Verdict, round_trip: Duration) -> Duration {
        let times = match verdict {
            Verdict::Single { times, .. } => u32::from(times).clamp(1, 5),
            Verdict::Unknown | Verdict::Shared { .. } => 1,
        };
        let wait = self.beside.saturating_mul(times);
        wait.saturating_add(round_trip.min(MOST_ROUND_TRIP))
    }
}

/// The longest way there and back. Connecting that takes longer has waited for a full queue.
const MOST_ROUND_TRIP: Duration = Duration::from_millis(500);

impl Verdict {
    /// The verdict after an answer to GET_VALUES.
    ///
    /// An application that takes one request at a time, or none, gains nothing from sharing a
    /// connection, whatever else it says.
    #[must_use]
    pub fn answered(self, values: &Values, now: Instant, patience: &Patience) -> Self {
        if values.mpxs_conns == Some(true) && values.max_reqs.is_none_or(|most| most > 1) {
            return Self::Shared {
                controlled: values.flow_control.is_some(),
            };
        }
        self.single(false, now, patience)
    }

    /// The verdict after no answer came in time, the connection was closed instead, or a request was
    /// refused by CANT_MPX_CONN (R-51).
    #[must_use]
    pub fn silent(self, now: Instant, patience: &Patience) -> Self {
        self.single(true, now, patience)
    }

    /// The verdict after a connection was refused. Whatever comes up there next may be another
    /// application. One that does not multiplex is not waited for, but asked soon.
    #[must_use]
    pub fn unreachable(self, now: Instant, patience: &Patience) -> Self {
        match self {
            Self::Unknown | Self::Shared { .. } => Self::Unknown,
            Self::Single {
                silent,
                times,
                ask_at,
            } => Self::Single {
                silent,
                times,
                ask_at: later(now, patience.silent).min(ask_at),
            },
        }
    }

    /// The verdict when somebody begins to ask again: nobody else has to for now.
    #[must_use]
    pub fn asking(self, now: Instant, patience: &Patience) -> Self {
        match self {
            Self::Unknown | Self::Shared { .. } => self,
            Self::Single { silent, times, .. } => Self::Single {
                silent,
                times,
                ask_at: later(now, patience.pause(silent, times)),
            },
        }
    }

    /// Whether the application is to be asked beside the requests now.
    pub fn is_due(self, now: Instant) -> bool {
        matches!(self, Self::Single { ask_at, .. } if ask_at <= now)
    }

    /// Whether the application is known not to multiplex.
    pub const fn is_single(self) -> bool {
        matches!(self, Self::Single { .. })
    }

    /// Whether the two say the same of the application.
    pub fn agrees(self, other: Self) -> bool {
        match (self, other) {
            (Self::Single { .. }, Self::Single { .. }) => true,
            _ => self == other,
        }
    }

    fn single(self, silent: bool, now: Instant, patience: &Patience) -> Self {
        let before = match self {
            Self::Single {
                silent: same,
                times,
                ..
            } if same == silent => times,
            _ => 0,
        };
        let times = before.saturating_add(1);
        Self::Single {
            silent,
            times,
            ask_at: later(now, patience.pause(silent, times)),
        }
    }
}

/// A time that never lies too far in the future for the clock.
fn later(now: Instant, pause: Duration) -> Instant {
    now.checked_add(pause).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: fn() -> Patience = Patience::default;

    fn asked_in(verdict: Verdict, now: Instant) -> Duration {
        match verdict {
            Verdict::Single { ask_at, .. } => ask_at.duration_since(now),
            other => panic!("not single: {other:?}"),
        }
    }

    fn says(mpxs: Option<bool>, reqs: Option<u32>) -> Values {
        Values {
            mpxs_conns: mpxs,
            max_reqs: reqs,
            ..Values::default()
        }
    }

    #[test]
    fn silence_is_asked_ever_less_often_up_to_an_hour() {
        let now = Instant::now();
        let mut verdict = Verdict::Unknown;
        let mut pauses = Vec::new();
        for _ in 0..300 {
            verdict = verdict.silent(now, &PATIENCE());
            pauses.push(asked_in(verdict, now).as_secs());
        }
        assert_eq!(pauses[..5], [1, 2, 4, 8, 16]);
        assert!(pauses.is_sorted());
        assert_eq!(pauses.last(), Some(&3600));
    }

    #[test]
    fn a_no_counts_for_minutes_and_is_no_silence() {
        let now = Instant::now();
        let no = says(Some(false), None);
        let first = Verdict::Unknown.answered(&no, now, &PATIENCE());
        assert_eq!(asked_in(first, now), Duration::from_secs(300));
        let second = first.answered(&no, now, &PATIENCE());
        assert_eq!(asked_in(second, now), Duration::from_secs(600));
        let silent = second.silent(now, &PATIENCE());
        assert_eq!(asked_in(silent, now), Duration::from_secs(1));
    }

    #[test]
    fn whoever_takes_one_request_or_none_is_single() {
        let now = Instant::now();
        for values in [
            says(None, None),
            says(Some(false), Some(100)),
            says(Some(true), Some(1)),
            says(Some(true), Some(0)),
        ] {
            let verdict = Verdict::Unknown.answered(&values, now, &PATIENCE());
            assert!(verdict.is_single(), "{values:?}");
        }
        for reqs in [None, Some(2)] {
            let verdict = Verdict::Unknown.answered(&says(Some(true), reqs), now, &PATIENCE());
            assert_eq!(verdict, Verdict::Shared { controlled: false });
        }
    }

    #[test]
    fn a_refused_connection_makes_the_address_unknown_but_nobody_wait() {
        let now = Instant::now();
        let shared = Verdict::Shared { controlled: true };
        assert_eq!(shared.unreachable(now, &PATIENCE()), Verdict::Unknown);
        let no = Verdict::Unknown.answered(&says(None, None), now, &PATIENCE());
        let after = no.unreachable(now, &PATIENCE());
        assert_eq!(asked_in(after, now), Duration::from_secs(1));
        // One that is asked sooner anyway stays so.
        let later = now + Duration::from_secs(299);
        assert_eq!(
            asked_in(no.unreachable(later, &PATIENCE()), now).as_secs(),
            300
        );
    }

    #[test]
    fn one_asks_and_the_others_need_not() {
        let now = Instant::now();
        let silent = Verdict::Unknown.silent(now, &PATIENCE());
        let due = now + Duration::from_secs(1);
        assert!(!silent.is_due(now));
        assert!(silent.is_due(due));
        assert!(!silent.asking(due, &PATIENCE()).is_due(due));
        assert!(!Verdict::Unknown.is_due(due));
    }

    #[test]
    fn only_an_application_that_has_multiplexed_is_waited_for_long() {
        let patience = PATIENCE();
        let now = Instant::now();
        let near = Duration::ZERO;
        let far = Duration::from_millis(200);
        let shared = Verdict::Shared { controlled: false };
        let silent = Verdict::Unknown.silent(now, &patience);
        assert_eq!(patience.of(Verdict::Unknown, near), patience.unknown);
        assert_eq!(patience.of(Verdict::Unknown, far), patience.unknown + far);
        assert_eq!(patience.of(shared, near), patience.shared);
        assert_eq!(patience.of(silent, near), patience.unknown);
        assert_eq!(patience.beside(silent, far), patience.beside + far);
        let again = silent.silent(now, &patience);
        assert_eq!(patience.beside(again, near), 2 * patience.beside);
        let often = (0..100).fold(silent, |verdict, _| verdict.silent(now, &patience));
        let most = 5 * patience.beside + MOST_ROUND_TRIP;
        assert_eq!(patience.beside(often, Duration::from_secs(20)), most);
    }

    #[test]
    fn no_pause_is_too_long_for_the_clock() {
        let now = Instant::now();
        let patience = Patience {
            silent: Duration::MAX,
            most: Duration::MAX,
            ..PATIENCE()
        };
        let _ = Verdict::Unknown
            .silent(now, &patience)
            .silent(now, &patience);
    }
}
