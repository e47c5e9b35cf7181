//! What the application's side does when time passes: idle connections, requests that stall, PARAMS
//! that does not become complete, and web servers that closed their half.

use std::time::{Duration, Instant};

use super::request::Phase;
use super::{Connection, Input};
use crate::error::RequestError;
use crate::inbox::Broken;
use crate::record::RecordType;
use crate::table::Handle;

/// How long after it was accepted a connection that is to end waits for its first request.
pub(super) const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// After the web server closed its half: when to look whether it is still there. It is gone if
/// what is written then cannot be delivered.
const HALF_CLOSED_PROBES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

impl Connection {
    /// When [`Connection::handle_timeout`] is to be called, as things are now.
    pub fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if !self.table.is_empty() {
            self.idle_since = None;
        }
        let idle = self
            .table
            .is_empty()
            .then(|| *self.idle_since.get_or_insert(now))
            .and_then(|since| since.checked_add(self.config.idle_timeout));
        let params = self
            .incomplete
            .check_at
            .filter(|_| self.incomplete.count > 0);
        let stall = self
            .full_request()
            .filter(|_| self.multiplexed)
            .and_then(|blocked| blocked.since.checked_add(self.config.stall_timeout));
        let half_closed = self
            .closing
            .half_closed
            .map(|(at, _)| at)
            .filter(|_| !self.table.is_empty());
        let first = self.closing.first_until.filter(|_| self.closing.draining);
        let release = self.writer.release_at(now);
        [idle, params, stall, half_closed, first, release]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.table.is_empty() {
            let since = *self.idle_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= self.config.idle_timeout {
                self.closing.timed_out = true;
            }
        }
        if self.closing.first_until.is_some_and(|until| until <= now) {
            self.closing.first_until = None;
        }
        self.writer.release(now);
        self.give_up_stalled(now);
        self.give_up_incomplete(now);
        if let Some((at, count)) = self.closing.half_closed
            && at <= now
            && !self.table.is_empty()
        {
            // An empty GET_VALUES_RESULT says nothing; that it cannot be delivered does.
            self.writer.record(RecordType::GetValuesResult, None, b"");
            let last = HALF_CLOSED_PROBES.len().saturating_sub(1);
            let wait = HALF_CLOSED_PROBES.get(count.min(last)).copied();
            let next = now.checked_add(wait.unwrap_or_default()).unwrap_or(now);
            self.closing.half_closed = Some((next, count.saturating_add(1)));
        }
    }

    fn give_up_stalled(&mut self, now: Instant) {
        let Some(blocked) = self.full_request().filter(|_| self.multiplexed) else {
            return;
        };
        if now.saturating_duration_since(blocked.since) < self.config.stall_timeout {
            return;
        }
        self.blocked = None;
        if let Ok(request) = self.table.get_mut(blocked.handle) {
            match (blocked.stream, &mut request.data) {
                (Input::Stdin, _) => request.stdin.inbox.break_off(Broken::Stalled),
                (Input::Data, Some(data)) => data.inbox.break_off(Broken::Stalled),
                (Input::Data, None) => {}
            }
        }
    }

    fn give_up_incomplete(&mut self, now: Instant) {
        if self.incomplete.check_at.is_none_or(|at| at > now) {
            return;
        }
        let timeout = self.config.params_timeout;
        let late: Vec<Handle> = self
            .table
            .iter()
            .filter(|(_, request)| match &request.phase {
                Phase::Params { since, .. } => now.saturating_duration_since(*since) >= timeout,
                Phase::Delivered => false,
            })
            .map(|(handle, _)| handle)
            .collect();
        for handle in late {
            self.fail(handle, RequestError::ParamsTimeout);
        }
        self.incomplete.check_at = now.checked_add(timeout.checked_div(4).unwrap_or(timeout));
    }
}
