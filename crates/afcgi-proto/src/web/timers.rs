//! What the web server's side does when time passes: requests that stall, and aborted ones whose
//! END_REQUEST does not come.

use std::time::Instant;

use super::request::Phase;
use super::{Connection, Event};
use crate::inbox::Broken;
use crate::table::Handle;

impl Connection {
    /// When [`Connection::handle_timeout`] is to be called, as things are now.
    pub fn deadline(&mut self, now: Instant) -> Option<Instant> {
        self.note_shared(now);
        let stall = self
            .blocked
            .filter(|blocked| blocked.shared && self.is_blocked())
            .and_then(|blocked| blocked.since.checked_add(self.config.stall_timeout));
        let drain = self.drain_check_at.filter(|_| self.draining > 0);
        let linger = self.lingering.front().map(|&(at, _)| at);
        let release = self.writer.release_at(now);
        [stall, drain, linger, release].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.writer.release(now);
        self.note_shared(now);
        if let Some(blocked) = self.blocked
            && blocked.shared
            && now.saturating_duration_since(blocked.since) >= self.config.stall_timeout
            && self.is_blocked()
        {
            self.blocked = None;
            self.give_up(blocked.handle, Broken::Stalled, now);
        }
        while let Some(&(at, handle)) = self.lingering.front()
            && at <= now
        {
            self.lingering.pop_front();
            if self.lingers(handle) {
                self.send_abort(handle);
            }
        }
        if self.drain_check_at.is_some_and(|at| at <= now) {
            self.give_up_draining(now);
        }
    }

    fn give_up_draining(&mut self, now: Instant) {
        let mut late = Vec::new();
        let mut next: Option<Instant> = None;
        for (handle, request) in self.table.iter() {
            let Phase::Draining(since) = request.phase else {
                continue;
            };
            let Some(due) = since.checked_add(self.config.drain_timeout) else {
                continue;
            };
            if due <= now {
                late.push(handle);
            } else {
                next = Some(next.map_or(due, |at| at.min(due)));
            }
        }
        // Thousands that are due one after the other do not each cost a look at all.
        let pause = self.config.drain_timeout.checked_div(8).unwrap_or_default();
        self.drain_check_at = next.map(|at| now.checked_add(pause).map_or(at, |soon| at.max(soon)));
        for handle in late {
            // The id cannot be used again, so the connection is not to be either.
            self.retired = true;
            self.leave(handle, None);
        }
    }

    /// Aborts one request, so that the others can go on. Its consumer finds what was received, and
    /// then why the rest is missing.
    pub(super) fn give_up(&mut self, handle: Handle, why: Broken, now: Instant) {
        if let Ok(request) = self.table.get_mut(handle) {
            request.stdout.break_off(why);
            request.stderr.end();
            if std::mem::take(&mut request.waited_for) {
                self.events.push_back(Event::Readable(handle));
            }
            self.abort(handle, now);
        }
    }

    /// Others are held up only from the moment on when there are others.
    pub(super) fn note_shared(&mut self, now: Instant) {
        let others = self.active() > 1;
        if let Some(blocked) = &mut self.blocked {
            if others && !blocked.shared {
                blocked.since = now;
            }
            blocked.shared = others;
        }
    }
}
