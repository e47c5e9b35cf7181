//! What is told of a request by the variables, for the access log.

use std::ffi::{CStr, c_ulong};
use std::fmt;
use std::time::{Duration, Instant};

/// What became of one request for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    came: Instant,
    /// The number of the connection, and the request's id on it.
    place: Option<(c_ulong, u16)>,
    waited: Option<Duration>,
    /// Whether it was aborted.
    pub aborted: bool,
    /// How long the connection was not read because of it.
    pub stalled: Duration,
}

/// A variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    Connection,
    Id,
    Waited,
    Aborted,
    Stalled,
}

impl Variable {
    pub const ALL: [(Self, &'static CStr); 5] = [
        (Self::Connection, c"fastcgi_multiplex_connection"),
        (Self::Id, c"fastcgi_multiplex_id"),
        (Self::Waited, c"fastcgi_multiplex_waited"),
        (Self::Aborted, c"fastcgi_multiplex_aborted"),
        (Self::Stalled, c"fastcgi_multiplex_stalled"),
    ];
}

impl Trace {
    pub fn new(now: Instant) -> Self {
        Self {
            came: now,
            place: None,
            waited: None,
            aborted: false,
            stalled: Duration::ZERO,
        }
    }

    /// It got a place.
    pub fn placed(&mut self, connection: c_ulong, id: u16, now: Instant) {
        self.place = Some((connection, id));
        self.stop_waiting(now);
    }

    /// It got none any more.
    pub fn stop_waiting(&mut self, now: Instant) {
        let waited = now.saturating_duration_since(self.came);
        self.waited.get_or_insert(waited);
    }

    /// The value of a variable. `None`: there is none.
    pub fn value(&self, variable: Variable, now: Instant) -> Option<String> {
        Some(match variable {
            Variable::Connection => self.place?.0.to_string(),
            Variable::Id => self.place?.1.to_string(),
            Variable::Waited => {
                let until_now = now.saturating_duration_since(self.came);
                Seconds(self.waited.unwrap_or(until_now)).to_string()
            }
            Variable::Aborted => u8::from(self.aborted).to_string(),
            Variable::Stalled => Seconds(self.stalled).to_string(),
        })
    }
}

/// A time as nginx writes it.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0.as_secs(), self.0.subsec_millis())
    }
}
