//! How long a worker that ended by itself waits to be started again.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);

/// Pauses that double, up to a limit, as long as the workers die young.
#[derive(Debug)]
pub(super) struct Backoff {
    longest: Duration,
    healthy: Duration,
    /// Early deaths in a row.
    failures: u32,
}

impl Backoff {
    pub(super) fn new(longest: Duration, healthy: Duration) -> Self {
        Self {
            longest,
            healthy,
            failures: 0,
        }
    }

    /// A worker has ended that had lived so long: how long to wait now. `chance`, from 0 to 1, takes up to half of it away, so that workers
    /// that die of the same cause do not come back all at the same time.
    pub(super) fn after(&mut self, lived: Duration, chance: f64) -> Duration {
        if lived >= self.healthy {
            self.failures = 0;
            return Duration::ZERO;
        }
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let pause = FIRST.saturating_mul(doubled).min(self.longest);
        pause - pause.mul_f64(chance.clamp(0.0, 1.0) / 2.0)
    }

    /// Early deaths in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_a_limit_and_begins_anew() {
        let (second, young) = (Duration::from_secs(1), Duration::from_millis(10));
        let mut backoff = Backoff::new(second, Duration::from_secs(5));
        let pauses: Vec<_> = (0..300).map(|_| backoff.after(young, 0.0)).collect();
        let first = [100, 200, 400, 800, 1000].map(Duration::from_millis);
        assert_eq!(pauses[..5], first);
        assert!(pauses[5..].iter().all(|pause| *pause == second));
        assert_eq!(backoff.failures(), 300);
        assert_eq!(backoff.after(young, 1.0), second / 2);
        assert_eq!(backoff.after(Duration::from_secs(5), 0.0), Duration::ZERO);
        assert_eq!(backoff.failures(), 0);
        assert_eq!(backoff.after(young, 0.0), FIRST);
    }
}
