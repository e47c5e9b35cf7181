//! What the event loop tells of real connections, and what follows from it.

use std::time::Instant;

use afcgi_proto::Values;
use afcgi_proto::pool::Why;
use afcgi_proto::web::{Event, OVERFLOW_BURST, OVERFLOW_PAUSE};

use super::Worker;
use crate::faults;
use crate::host::{FakeConnection, Io, Level, Nginx, Socket};
use crate::keys::RealKey;
use crate::real::{IDLE_WAIT, Real, State};
use crate::status::Count;

/// Why a connection is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// This module closes it.
    Ours,
    /// The application has, or it failed.
    Theirs,
    /// It could not be established, by an error of the system.
    Unreachable(i32),
}

impl<N: Nginx> Worker<N> {
    /// There is something to read, or nginx wants idle connections closed.
    pub fn readable(&mut self, id: RealKey) {
        let now = N::now();
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        let Some(sock) = &real.sock else {
            return;
        };
        if sock.is_closing() && real.live == 0 && !self.is_awaited(id) {
            self.close(id, now);
            return;
        }
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        if real.pauses(now) {
            return;
        }
        if matches!(real.state, State::Connecting { .. }) && !self.check_connected(id, now) {
            return;
        }
        let Self { reals, buffer, .. } = self;
        let outcome = reals
            .get_mut(id)
            .map_or(Ok(()), |real| read(real, buffer, now));
        faults::point();
        self.tell(id, now);
        if let Err(why) = outcome {
            if let (Some(why), Some(pool)) = (&why, self.pool_of(id)) {
                let text = format!("{}: {why}", pool.name());
                N::line(Level::Error, &text);
            }
            self.lose(id, now, Cause::Theirs);
        } else {
            self.settle(id, now);
        }
    }

    /// There is room for writing, or the connection is established.
    pub fn writable(&mut self, id: RealKey) {
        let now = N::now();
        let Some(real) = self.reals.get(id) else {
            return;
        };
        if matches!(real.state, State::Connecting { .. }) && !self.check_connected(id, now) {
            return;
        }
        self.flush(id);
    }

    /// Finds out how connecting went. `false`: it failed.
    fn check_connected(&mut self, id: RealKey, now: Instant) -> bool {
        let Some(real) = self.reals.get(id) else {
            return false;
        };
        let pool = real.pool;
        let error = real.sock.as_ref().map_or(0, |sock| sock.take_error());
        if error != 0 {
            self.lose(id, now, Cause::Unreachable(error));
            return false;
        }
        self.connected(id, now);
        self.perform(pool, now, N::worker_log());
        self.keep(id, now);
        self.reals.contains_key(id)
    }

    /// Sends what is to be transmitted.
    pub fn flush(&mut self, id: RealKey) {
        let now = N::now();
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        let Some(sock) = &real.sock else {
            return;
        };
        if matches!(real.state, State::Connecting { .. }) || real.closing_until.is_some() {
            return;
        }
        loop {
            let bytes = real.connection.transmit();
            if bytes.is_empty() {
                break;
            }
            let length = bytes.len();
            match sock.send(bytes) {
                Io::Bytes(count) => {
                    real.connection.transmitted(count);
                    real.share.add(Count::BytesSent, count);
                    if count < length {
                        break;
                    }
                }
                Io::Again => break,
                Io::Failed | Io::Closed if real.state == State::Ready => {
                    // An application may close after its last answers, and writing may find out first:
                    // those are read to the end.
                    real.close_by(now);
                    self.settle(id, now);
                    return;
                }
                Io::Failed | Io::Closed => {
                    self.lose(id, now, Cause::Theirs);
                    return;
                }
            }
        }
        faults::point();
        if real.connection.next_round() {
            // After those whose turn it is now.
            sock.post_flush();
        }
        self.tell(id, now);
        self.settle(id, now);
    }

    /// A time has come.
    pub fn due(&mut self, id: RealKey) {
        let now = N::now();
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        if let Some(sock) = &real.sock {
            sock.disarmed();
        }
        match real.state {
            State::Connecting { until } if until <= now => {
                self.lose(id, now, Cause::Unreachable(libc::ETIMEDOUT));
                return;
            }
            State::Probing { until } if until <= now => {
                real.state = State::Ready;
                self.fell_silent(id, Why::Silent, now);
                self.close(id, now);
                return;
            }
            State::Ready if real.idle_until.is_some_and(|until| until <= now) => {
                self.close(id, now);
                return;
            }
            State::Connecting { .. } | State::Probing { .. } | State::Ready => {}
        }
        if real.closing_until.is_some_and(|until| until <= now) {
            self.close(id, now);
            return;
        }
        if real.check_until.is_some_and(|until| until <= now) {
            real.check_until = None;
            real.connection.retire();
            N::line(
                Level::Warning,
                "a connection is given up on which a request timed out and GET_VALUES is not answered",
            );
        }
        if real.state == State::Ready && real.is_expired(now) {
            real.connection.retire();
        }
        if real.read_at.is_some() && !real.pauses(now) {
            self.readable(id);
        }
        self.handle_timeout(id, now);
        self.tell(id, now);
        self.settle(id, now);
        if let Some(real) = self.reals.get_mut(id) {
            real.arm(now);
        }
    }

    /// A callback has failed on the connection: nothing about it can be trusted.
    pub fn give_up(&mut self, id: RealKey) {
        self.lose(id, N::now(), Cause::Theirs);
    }

    /// Passes on what the protocol has to tell.
    fn tell(&mut self, id: RealKey, now: Instant) {
        while let Some(event) = self
            .reals
            .get_mut(id)
            .and_then(|real| real.connection.poll_event())
        {
            let Some(real) = self.reals.get_mut(id) else {
                return;
            };
            match event {
                Event::Readable(handle) => {
                    if let Some(fake) = real.fake(handle).and_then(|fake| self.fakes.get(fake)) {
                        fake.connection.wake_read();
                    }
                }
                Event::Writable(handle) => {
                    if let Some(fake) = real.fake(handle).and_then(|fake| self.fakes.get(fake)) {
                        fake.connection.wake_write();
                    }
                }
                Event::Released => {
                    real.served = true;
                    real.has_changed = true;
                }
                Event::Values(values) => self.answered(id, &values, now),
                _ => {}
            }
        }
        self.changed(id, now);
    }

    /// Tells the pool of a connection on which there may be room, or that gets no more requests.
    fn changed(&mut self, id: RealKey, now: Instant) {
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        let retired = real.connection.is_retired() && !real.is_leaving;
        if !std::mem::take(&mut real.has_changed) && !retired {
            return;
        }
        real.is_leaving |= retired;
        let (pool, member) = (real.pool, real.member);
        self.decide(pool, |policy, lines| policy.changed(member, now, lines));
        self.perform(pool, now, N::worker_log());
    }

    /// The application has answered GET_VALUES.
    fn answered(&mut self, id: RealKey, values: &Values, now: Instant) {
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        real.check_until = None;
        if !matches!(real.state, State::Probing { .. }) {
            return;
        }
        real.state = State::Ready;
        let most = (values.max_reqs).map(|most| u16::try_from(most).unwrap_or(u16::MAX));
        real.connection
            .limit_requests(most.unwrap_or(u16::MAX).max(1));
        self.has_said(id, values, now);
    }

    /// After something has happened to a connection: sends, sets the timer, and closes it if that is
    /// due.
    pub(super) fn settle(&mut self, id: RealKey, now: Instant) {
        self.count(id, now);
        self.changed(id, now);
        faults::point();
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        if real.sock.is_none() {
            if real.live == 0 {
                self.reals.remove(id);
            }
            return;
        }
        // What is left of a response that had stalled is discarded at no use: closing stops it.
        let useless = real.is_shared() && real.live == 0 && real.connection.is_abandoned();
        let unused = real.live == 0;
        let leaves = unused && N::is_exiting() && !self.is_awaited(id);
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        if useless || leaves || (unused && real.connection.is_finished()) {
            if !real.connection.transmit().is_empty()
                && let Some(sock) = &real.sock
            {
                // What it still has to say is at most that requests are aborted.
                sock.send(real.connection.transmit());
            }
            self.close(id, now);
            return;
        }
        real.flush_soon();
        real.resume_reading();
        if real.is_shared()
            && real.live == 0
            && real.state == State::Ready
            && real.connection.active() == 0
            && real.idle_until.is_none()
            && let Some(pool) = self.pools.get(real.pool)
        {
            real.keep_until(now + pool.settings().idle_timeout);
        }
        real.arm(now);
        self.keep(id, now);
    }

    /// Whether it is being opened or asked, and requests wait for that. A worker that is to end still has
    /// them: to close what they wait for would be to open it again at once, over and over.
    fn is_awaited(&self, id: RealKey) -> bool {
        let opening = (self.reals.get(id)).is_some_and(|real| real.state != State::Ready);
        let pool = self.pool_of(id);
        opening && pool.is_some_and(|pool| pool.policy.waiting() > 0)
    }

    /// A connection for one request at a time that has none, and that its pool keeps, is kept for a while.
    fn keep(&mut self, id: RealKey, now: Instant) {
        if let Some(real) = self.reals.get_mut(id)
            && !real.is_shared()
            && real.live == 0
            && real.connection.active() == 0
            && real.state == State::Ready
            && real.idle_until.is_none()
            && !real.connection.is_retired()
        {
            real.keep_until(now + IDLE_WAIT);
            real.arm(now);
        }
    }

    /// The connection is closed by this module.
    pub(super) fn close(&mut self, id: RealKey, now: Instant) {
        self.lose(id, now, Cause::Ours);
    }

    /// The connection has ended, or is to: it is closed, its requests find what was received and then
    /// the end, and those that waited for it get another one, or hear why there is none.
    fn lose(&mut self, id: RealKey, now: Instant, cause: Cause) {
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        let (pool, member, state) = (real.pool, real.member, real.state);
        real.connection.lost();
        // The pool hears of it below.
        real.is_leaving = true;
        real.has_changed = false;
        let was_open = real.sock.take().is_some();
        for fake in real.fakes() {
            if let Some(fake) = self.fakes.get(fake)
                && fake.blocked
            {
                fake.connection.wake_write();
            }
        }
        self.count(id, now);
        self.tell(id, now);
        if self.reals.get(id).is_some_and(|real| real.live == 0) {
            self.reals.remove(id);
        }
        if !was_open {
            return;
        }
        if let Cause::Unreachable(errno) = cause
            && let Some(pool) = self.pools.get_mut(pool)
        {
            pool.note_failure(errno);
        }
        let connecting = matches!(state, State::Connecting { .. });
        let ours = cause == Cause::Ours || N::is_exiting();
        self.decide(pool, |policy, lines| match connecting {
            true if !ours => {
                policy.connect_failed(member, now, 0.0);
            }
            false if !ours => policy.gone(member, now, lines),
            _ => policy.closed_by_us(member, now, lines),
        });
        self.perform(pool, now, N::worker_log());
    }

    fn pool_of(&self, id: RealKey) -> Option<&crate::pool::Pool> {
        self.pools.get(self.reals.get(id)?.pool)
    }
}

/// Reads once, after what was left from the last time. The error, with the reason if it is one for
/// the log: the connection has ended.
fn read<N: Nginx>(
    real: &mut Real<N>,
    buffer: &mut [u8],
    now: Instant,
) -> Result<(), Option<String>> {
    let Some(sock) = &real.sock else {
        return Ok(());
    };
    if !real.rest.is_empty() {
        let taken = real
            .connection
            .receive(now, &real.rest)
            .map_err(|error| Some(error.to_string()))?;
        real.rest.drain(..taken);
        if !real.rest.is_empty() {
            return Ok(());
        }
        real.rest = Vec::new();
    }
    match sock.recv(buffer) {
        Io::Again => Ok(()),
        Io::Failed => Err(None),
        Io::Closed => match real.connection.end_of_input() {
            Ok(()) => Err(None),
            Err(error) => Err(Some(error.to_string())),
        },
        Io::Bytes(count) => {
            real.received_at = now;
            real.burst = real.burst.saturating_add(count);
            real.share.add(Count::BytesReceived, count);
            let bytes = buffer.get(..count).unwrap_or_default();
            let taken = real
                .connection
                .receive(now, bytes)
                .map_err(|error| Some(error.to_string()))?;
            let rest = bytes.get(taken..).unwrap_or_default();
            if !rest.is_empty() {
                real.rest = rest.to_vec();
            } else if real.connection.is_overflowing() && real.burst >= OVERFLOW_BURST {
                real.burst = 0;
                real.read_at = Some(now + OVERFLOW_PAUSE);
            } else if sock.may_read() {
                // Those who wait for what was read come first.
                sock.read_next_turn();
            }
            Ok(())
        }
    }
}
