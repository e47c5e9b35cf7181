//! Warnings that a peer can cause: a few each second, so that nobody can flood the log.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Warnings in a second.
const MOST: u32 = 10;

/// Counts the warnings of a server. Cloning gives another view of the same count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Noise(Arc<Mutex<Second>>);

#[derive(Debug, Default)]
struct Second {
    began: Option<Instant>,
    said: u32,
    left_out: u64,
}

impl Noise {
    /// Whether to say it. At the first of a new second, tells how many were left out before.
    pub(crate) fn may_warn(&self) -> bool {
        let (say, left_out) = self.count(crate::clock::now());
        if left_out > 0 {
            tracing::warn!(left_out, "further warnings were left out");
        }
        say
    }

    fn count(&self, now: Instant) -> (bool, u64) {
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left_out = 0;
        let fresh = second
            .began
            .is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(1));
        if fresh {
            left_out = std::mem::take(&mut second.left_out);
            second.began = Some(now);
            second.said = 0;
        }
        if second.said < MOST {
            second.said += 1;
            (true, left_out)
        } else {
            second.left_out += 1;
            (false, left_out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_each_second_and_then_how_many_there_were() {
        let noise = Noise::default();
        let now = crate::clock::now();
        let said = (0..1000).filter(|_| noise.count(now).0).count();
        assert_eq!(said, MOST as usize);
        let later = now + Duration::from_secs(1);
        assert_eq!(noise.count(later), (true, 1000 - u64::from(MOST)));
        assert_eq!(noise.count(later), (true, 0));
    }
}
