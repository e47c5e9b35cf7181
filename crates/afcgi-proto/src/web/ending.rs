//! How requests leave the web server's side, and how the connection ends.
//!
//! Each request leaves by [`Connection::close`], END_REQUEST, a time-out or the loss of the
//! connection, in any order; the id is given back in one place.

use std::time::Instant;

use super::request::{Phase, Request, Sent};
use super::{Connection, Event};
use crate::credit::Flow;
use crate::inbox::Broken;
use crate::record::{EndRequest, RecordType};
use crate::table::Handle;
use crate::writer::Writer;

impl Connection {
    /// The consumer is done with a request. If that has not ended it is given up: ABORT_REQUEST is
    /// sent, and the id is held until END_REQUEST comes. The handle must not be used
    /// again.
    ///
    /// Where requests do not share the connection there is no ABORT_REQUEST: the connection
    /// [is finished](Self::is_finished), and closing it is the abort that everybody understands.
    pub fn close(&mut self, handle: Handle, now: Instant) {
        let Ok(request) = self.table.get_mut(handle) else {
            return;
        };
        request.closed = true;
        match request.phase {
            Phase::Reserved => self.remove(handle, false),
            Phase::Active => {
                self.abort(handle, now);
            }
            Phase::Draining(_) => request.discard(),
            Phase::Ended(_) => {
                let had_room = self.has_room();
                self.ended = self.ended.saturating_sub(1);
                if let Ok(request) = self.table.remove(handle) {
                    self.return_window(&request);
                }
                if !had_room && self.has_room() {
                    self.events.push_back(Event::Released);
                }
            }
        }
    }

    /// Like [`Connection::close`], for a consumer that has all it wants of a request that will soon
    /// end by itself, and for a tunnel, whose application is to read to its end what the client sent:
    /// STDIN is ended, what comes is discarded, and ABORT_REQUEST is sent only if the request does
    /// not end within `linger_time` or sends more than `linger_bytes`.
    pub fn close_gently(&mut self, handle: Handle, now: Instant) {
        let Ok(request) = self.table.get_mut(handle) else {
            return;
        };
        let abort_at = now.checked_add(self.config.linger_time);
        let (Phase::Active, Sent::Ended, Some(abort_at)) =
            (request.phase, request.params, abort_at)
        else {
            self.close(handle, now);
            return;
        };
        request.closed = true;
        request.linger = Some(self.config.linger_bytes.max(1));
        if std::mem::replace(&mut request.stdin, Sent::Ended) == Sent::Open {
            self.writer
                .record(RecordType::Stdin, Some(handle.id()), b"");
        }
        self.lingering.push_back((abort_at, handle));
        self.drain(handle, now);
    }

    /// No new requests from now on; the active ones go on.
    pub fn retire(&mut self) {
        self.retired = true;
    }

    /// Whether it takes no new requests: it was retired or lost.
    pub const fn is_retired(&self) -> bool {
        self.retired
    }

    /// Whether the connection is to be closed now: it was retired or lost, and holds no request.
    pub fn is_finished(&self) -> bool {
        self.lost || (self.retired && self.active() == 0)
    }

    /// Whether the connection is better closed: all that is left are requests that were aborted, and one
    /// of them had kept it from being read. There is no end of what comes of such a response, and nobody
    /// wants it: closing stops the application.
    pub fn is_abandoned(&self) -> bool {
        self.stalled > 0
            && self.draining == self.active()
            && (self.lingering.iter()).all(|&(_, handle)| !self.lingers(handle))
    }

    /// Whether a request that was closed gently has its time to end by itself.
    pub(super) fn lingers(&self, handle: Handle) -> bool {
        (self.table.get(handle)).is_ok_and(|request| request.linger.is_some())
    }

    /// The connection was closed by the application, is lost, or is given up: every active request
    /// ends as truncated.
    pub fn lost(&mut self) {
        self.lost = true;
        self.retired = true;
        self.blocked = None;
        self.stalled = 0;
        self.overflowing = None;
        self.lingering.clear();
        self.writer.clear();
        for handle in self.table.handles() {
            let Ok(request) = self.table.get_mut(handle) else {
                continue;
            };
            if matches!(request.phase, Phase::Ended(_)) {
                continue;
            }
            request.stalled = false;
            if request.closed {
                let _ = self.table.remove(handle);
            } else {
                self.table.release_id(handle);
                self.set_ended(handle, None);
            }
        }
        self.draining = 0;
    }

    pub(super) fn abort(&mut self, handle: Handle, now: Instant) {
        self.drain(handle, now);
        self.send_abort(handle);
    }

    /// From now on what comes for an active request is discarded.
    fn drain(&mut self, handle: Handle, now: Instant) {
        self.overflowing = self.overflowing.filter(|&other| other != handle);
        let Ok(request) = self.table.get_mut(handle) else {
            return;
        };
        request.phase = Phase::Draining(now);
        self.draining = self.draining.saturating_add(1);
        if self.drain_check_at.is_none() {
            self.drain_check_at = now.checked_add(self.config.drain_timeout);
        }
        let released = request.flow.as_mut().is_some_and(Flow::release);
        if request.closed {
            request.discard();
        } else if Writer::granted(&mut request.turn) || released {
            // What it writes from now on is taken and dropped.
            self.events.push_back(Event::Writable(handle));
        }
    }

    /// Tells the application that a request that drains is given up.
    pub(super) fn send_abort(&mut self, handle: Handle) {
        if let Ok(request) = self.table.get_mut(handle) {
            request.linger = None;
        }
        self.aborts = self.aborts.saturating_add(1);
        if self.config.requests == 1 {
            self.retired = true;
            self.leave(handle, None);
        } else {
            self.writer
                .record(RecordType::AbortRequest, Some(handle.id()), b"");
        }
    }

    /// The request has left the connection, and with it the reason for others to stay away, if it was
    /// one. Not before: what comes of a response that was given up is discarded, but it comes.
    fn unstall(&mut self, handle: Handle) {
        if let Ok(request) = self.table.get_mut(handle)
            && std::mem::take(&mut request.stalled)
        {
            self.stalled = self.stalled.saturating_sub(1);
        }
    }

    /// An active or draining request gives its id back. Its slot stays for its consumer, if that is
    /// still there.
    pub(super) fn leave(&mut self, handle: Handle, end: Option<EndRequest>) {
        self.unstall(handle);
        self.overflowing = self.overflowing.filter(|&other| other != handle);
        let Ok(request) = self.table.get_mut(handle) else {
            return;
        };
        let draining = matches!(request.phase, Phase::Draining(_));
        // No id is used again whose application may not have read the abort yet.
        let aborted = draining && request.linger.is_none();
        if request.closed {
            self.remove(handle, aborted);
        } else {
            self.draining = self.draining.saturating_sub(usize::from(draining));
            self.table.release_id(handle);
            self.release_id(handle, aborted);
            self.set_ended(handle, end);
            self.events.push_back(Event::Released);
        }
    }

    /// Takes a request out that holds its id.
    fn remove(&mut self, handle: Handle, aborted: bool) {
        if let Ok(request) = self.table.remove(handle) {
            self.return_window(&request);
            let draining = matches!(request.phase, Phase::Draining(_));
            self.draining = self.draining.saturating_sub(usize::from(draining));
            self.release_id(handle, aborted);
            self.events.push_back(Event::Released);
        }
    }

    fn release_id(&mut self, handle: Handle, aborted: bool) {
        self.ids.release(handle.id(), aborted);
        self.retired |= self.ids.are_spent();
    }

    /// The request has ended, and its consumer is to find that out.
    fn set_ended(&mut self, handle: Handle, end: Option<EndRequest>) {
        let Ok(request) = self.table.get_mut(handle) else {
            return;
        };
        request.phase = Phase::Ended(end);
        if end.is_some() {
            request.stdout.end();
        } else {
            request.stdout.break_off(Broken::Truncated);
        }
        request.stderr.end();
        self.ended = self.ended.saturating_add(1);
        if std::mem::take(&mut request.waited_for) {
            self.events.push_back(Event::Readable(handle));
        }
        let released = request.flow.as_mut().is_some_and(Flow::release);
        if Writer::granted(&mut request.turn) || released {
            self.events.push_back(Event::Writable(handle));
        }
    }

    /// Other windows may have what this one had: nothing is held for it any more.
    fn return_window(&mut self, request: &Request) {
        if let Some(flow) = &request.flow {
            flow.close(0, &mut self.windows);
        }
    }
}
