//! Which request may begin, and when it should have: as soon as there is a place, or by the clock.

/// Requests that are to be begun. Times are in nanoseconds since the engine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Supply {
    /// None.
    #[default]
    Nothing,
    /// So many, each as soon as there is a place for it: a closed loop.
    Closed {
        /// How many are left.
        left: u64,
    },
    /// By the clock, whatever becomes of the others: an open loop. One that finds no place waits, and its latency counts from the time at
    /// which it was to be sent: a stall shows with its whole length.
    Open {
        /// When the first is due.
        start: u64,
        /// From one to the next.
        interval: f64,
        /// How many were taken.
        next: u64,
        /// How many are left.
        left: u64,
    },
}

impl Supply {
    /// Takes a request, if one may begin, and says when it was to be sent.
    #[inline]
    pub(super) fn take(&mut self, now: u64) -> Option<u64> {
        match self {
            Self::Closed { left } if *left > 0 => {
                *left -= 1;
                Some(now)
            }
            Self::Open {
                start,
                interval,
                next,
                left,
            } if *left > 0 => {
                let due = due(*start, *interval, *next);
                if due > now {
                    return None;
                }
                *next += 1;
                *left -= 1;
                Some(due)
            }
            _ => None,
        }
    }

    /// When the next is due, in an open loop.
    pub(super) fn next_due(&self) -> Option<u64> {
        match *self {
            Self::Open {
                start,
                interval,
                next,
                left,
            } if left > 0 => Some(due(start, interval, next)),
            _ => None,
        }
    }

    /// Whether there is none left.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Closed { left } | Self::Open { left, .. } => *left == 0,
        }
    }

    /// How many were due before a time and were not taken.
    pub(super) fn overdue(&self, now: u64) -> u64 {
        match *self {
            Self::Open {
                start,
                interval,
                next,
                left,
            } if now > start => {
                let due = ((now - start) as f64 / interval).ceil() as u64;
                due.saturating_sub(next).min(left)
            }
            _ => 0,
        }
    }
}

fn due(start: u64, interval: f64, number: u64) -> u64 {
    start.saturating_add((number as f64 * interval) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_the_clock() {
        let mut supply = Supply::Open {
            start: 100,
            interval: 10.0,
            next: 0,
            left: 4,
        };
        assert_eq!((supply.take(99), supply.overdue(99)), (None, 0));
        assert_eq!(supply.take(100), Some(100));
        // One that was late is due when it was due.
        assert_eq!(supply.overdue(125), 2);
        assert_eq!(supply.take(125), Some(110));
        assert_eq!(supply.take(125), Some(120));
        assert_eq!((supply.take(125), supply.next_due()), (None, Some(130)));
        assert_eq!(supply.overdue(1000), 1);
        assert_eq!(supply.take(1000), Some(130));
        assert!(supply.is_empty());
        assert_eq!((supply.take(1000), supply.next_due()), (None, None));
    }
}
