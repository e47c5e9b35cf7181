//! The limits of a pool, and what requests ask of it.

use std::time::Duration;

use super::verdict::Patience;

/// The limits of a pool, all of them enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether requests share connections where the application says that it multiplexes. `false`: it
    /// is never asked. Default: yes.
    pub multiplex: bool,
    /// Shared connections that take new requests; 1 at least. Default: 1.
    pub connections: usize,
    /// Connections that carry one request at a time; 1 at least. Default: no limit.
    pub singles: usize,
    /// How many connections for one request at a time are kept without one; half as many as the
    /// application says that it takes, at most. Default: 8.
    pub idle: usize,
    /// Whether connections to an application that does not multiplex are kept for further requests
    /// . Default: no.
    pub keep_conn: bool,
    /// Requests that may wait for a connection; 1 at least. Default: 1024.
    pub queue: usize,
    /// How long to wait for answers to GET_VALUES, and when to ask again.
    pub patience: Patience,
    /// How long requests fail at once after connecting failed. `None`: each tries to connect. Default:
    /// `None`.
    pub backoff: Option<Backoff>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            multiplex: true,
            connections: 1,
            singles: usize::MAX,
            idle: 8,
            keep_conn: false,
            queue: 1024,
            patience: Patience::default(),
            backoff: None,
        }
    }
}

/// How long requests fail at once after connecting failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure; twice as long after each further one.
    pub first: Duration,
    /// The longest time.
    pub most: Duration,
}

impl Backoff {
    /// The pause after so many failures before this one, less up to half of it by chance; `chance` is
    /// from 0 to 1.
    pub fn pause(&self, failures: u32, chance: f64) -> Duration {
        let wait = self.first.saturating_mul(1 << failures.min(16));
        let share = 1.0 - chance.clamp(0.0, 1.0) / 2.0;
        wait.min(self.most).mul_f64(share)
    }
}

/// What a request asks of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// It has a body, which the application may leave unread.
    pub body: bool,
    /// It needs a connection to itself, whatever the application says.
    pub single: bool,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Any number of requests at a time.
    Shared,
    /// One request after the other.
    Kept,
    /// One request, as a web server without multiplexing has it.
    Once,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_differ() {
        let backoff = Backoff {
            first: Duration::from_millis(100),
            most: Duration::from_secs(10),
        };
        assert_eq!(backoff.pause(0, 0.0), Duration::from_millis(100));
        assert_eq!(backoff.pause(1, 0.0), Duration::from_millis(200));
        assert_eq!(backoff.pause(1, 1.0), Duration::from_millis(100));
        assert_eq!(backoff.pause(1000, 0.0), Duration::from_secs(10));
    }
}
