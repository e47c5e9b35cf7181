//! What the event loop tells of real connections, and what follows from it.

use std::time::Instant;

use afcgi_proto::web::{Event, OVERFLOW_BURST, OVERFLOW_PAUSE};
use afcgi_proto::{Values, Verdict};

use super::Worker;
use crate::faults;
use crate::ffi::exiting;
use crate::ffi::log::{self, Level};
use crate::ffi::sock::Io;
use crate::keys::RealKey;
use crate::pool::MOST_IDLE;
use crate::real::{IDLE_WAIT, Real, State};
use crate::status::Count;

impl Worker {
    /// There is something to read, or nginx wants idle connections closed.
    pub(crate) fn readable(&mut self, id: RealKey) {
        let now = Instant::now();
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        let Some(sock) = &real.sock else {
            return;
        };
        if sock.is_closing() && real.live == 0 && !self.is_awaited(id) {
            self.lose(id, now, 0);
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
                log::line(Level::Error, &text);
            }
            self.lose(id, now, 0);
        } else {
            self.settle(id, now);
        }
    }

    /// There is room for writing, or the connection is established.
    pub(crate) fn writable(&mut self, id: RealKey) {
        let now = Instant::now();
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
            self.lose(id, now, error);
            return false;
        }
        self.connected(id, now);
        self.serve(pool, now);
        self.trim(id, now);
        self.reals.contains_key(id)
    }

    /// Sends what is to be transmitted.
    pub(crate) fn flush(&mut self, id: RealKey) {
        let now = Instant::now();
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
                    self.lose(id, now, 0);
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
    pub(crate) fn due(&mut self, id: RealKey) {
        let now = Instant::now();
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        if let Some(sock) = &real.sock {
            sock.disarmed();
        }
        match real.state {
            State::Connecting { until } if until <= now => {
                self.lose(id, now, libc::ETIMEDOUT);
                return;
            }
            State::Probing { until } if until <= now => {
                let pool = real.pool;
                real.state = State::Ready;
                self.fell_silent(pool, "it does not answer GET_VALUES", now);
                self.lose(id, now, 0);
                return;
            }
            State::Ready if real.idle_until.is_some_and(|until| until <= now) => {
                self.lose(id, now, 0);
                return;
            }
            State::Connecting { .. } | State::Probing { .. } | State::Ready => {}
        }
        if real.closing_until.is_some_and(|until| until <= now) {
            self.lose(id, now, 0);
            return;
        }
        if real.check_until.is_some_and(|until| until <= now) {
            real.check_until = None;
            real.connection.retire();
            log::line(
                Level::Warning,
                "a connection is given up on which a request timed out and GET_VALUES is not answered",
            );
        }
        if real.is_shared() && real.state == State::Ready && real.is_expired(now) {
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
    pub(crate) fn give_up(&mut self, id: RealKey) {
        self.lose(id, Instant::now(), 0);
    }

    /// Passes on what the protocol has to tell.
    fn tell(&mut self, id: RealKey, now: Instant) {
        let mut released = false;
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
                    released = true;
                    real.served = true;
                }
                Event::Values(values) => self.answered(id, &values, now),
                _ => {}
            }
        }
        if released && let Some(real) = self.reals.get(id) {
            let pool = real.pool;
            self.serve(pool, now);
        }
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
        let pool = real.pool;
        real.state = State::Ready;
        self.has_said(pool, values, now);
        let shares = (self.pools.get(pool)).is_some_and(|pool| !pool.verdict.is_single());
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        if shares {
            let most = values
                .max_reqs
                .map_or(u16::MAX, |most| u16::try_from(most).unwrap_or(u16::MAX));
            real.connection.limit_requests(most.max(1));
        } else {
            // It is closed, and nothing is lost with it.
            real.connection.retire();
        }
        self.serve(pool, now);
    }

    /// After something has happened to a connection: sends, sets the timer, and closes it if that is
    /// due.
    pub(super) fn settle(&mut self, id: RealKey, now: Instant) {
        self.count(id, now);
        self.drop_retired(id);
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
        let leaves = unused && exiting() && !self.is_awaited(id);
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
            self.lose(id, now, 0);
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
        self.trim(id, now);
    }

    /// Whether it is being opened or asked, and requests wait for that. A worker that is to end still has
    /// them: to close what they wait for would be to open it again at once, over and over.
    fn is_awaited(&self, id: RealKey) -> bool {
        let opening = (self.reals.get(id)).is_some_and(|real| real.state != State::Ready);
        let pool = self.pool_of(id);
        opening && pool.is_some_and(|pool| !pool.waiting.is_empty() || !pool.alone.is_empty())
    }

    /// A connection that takes no new requests is not to be found for one.
    pub(super) fn drop_retired(&mut self, id: RealKey) {
        if let Some(real) = self.reals.get(id)
            && let Some(pool) = self.pools.get_mut(real.pool)
            && real.is_shared()
            && real.connection.is_retired()
        {
            pool.shared.retain(|&shared| shared != id);
        }
    }

    /// A connection for one request at a time that has none serves the next, or is kept for a while,
    /// or is closed.
    fn trim(&mut self, id: RealKey, now: Instant) {
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        if real.is_shared()
            || real.live > 0
            || real.connection.active() > 0
            || real.state != State::Ready
            || real.idle_until.is_some()
        {
            return;
        }
        if real.is_expired(now) {
            self.lose(id, now, 0);
            return;
        }
        let pool_id = real.pool;
        let Some(pool) = self.pools.get_mut(pool_id) else {
            return;
        };
        if !pool.idle.contains(&id) {
            pool.idle.push(id);
        }
        self.serve(pool_id, now);
        let (Some(real), Some(pool)) = (self.reals.get_mut(id), self.pools.get_mut(pool_id)) else {
            return;
        };
        if real.live > 0 {
            return;
        }
        let most = match pool.verdict {
            Verdict::Shared { .. } => MOST_IDLE,
            Verdict::Unknown | Verdict::Single { .. } => 0,
        };
        if pool.idle.len() > most {
            self.lose(id, now, 0);
        } else {
            real.keep_until(now + IDLE_WAIT);
            real.arm(now);
        }
    }

    /// The connection has ended, or is to: it is closed, its requests find what was received and then
    /// the end, and those that waited for it get another one, or hear why there is none.
    pub(super) fn lose(&mut self, id: RealKey, now: Instant, errno: i32) {
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        let (pool_id, state, shared) = (real.pool, real.state, real.is_shared());
        real.connection.lost();
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
        let Some(pool) = self.pools.get_mut(pool_id) else {
            return;
        };
        if !was_open {
            return;
        }
        pool.shared.retain(|&other| other != id);
        pool.idle.retain(|&other| other != id);
        match state {
            State::Connecting { .. } => {
                pool.note_failure(errno);
                if !shared {
                    pool.opening = pool.opening.saturating_sub(1);
                }
                if errno != 0 {
                    self.is_unreachable(pool_id, now);
                }
                let Some(pool) = self.pools.get(pool_id) else {
                    return;
                };
                let alone = pool.singles() == 0;
                let waiting = match pool.verdict {
                    Verdict::Single { .. } => alone && pool.shared.is_empty(),
                    Verdict::Unknown | Verdict::Shared { .. } => pool.shared.is_empty(),
                };
                if waiting {
                    self.fail_queue(pool_id, |pool| &mut pool.waiting, errno);
                }
                if alone {
                    self.fail_queue(pool_id, |pool| &mut pool.alone, errno);
                }
            }
            // It speaks, and closes at a GET_VALUES.
            State::Probing { .. } if !exiting() => {
                self.fell_silent(pool_id, "it closes the connection at GET_VALUES", now);
                self.serve(pool_id, now);
            }
            State::Probing { .. } | State::Ready => self.serve(pool_id, now),
        }
    }

    fn pool_of(&self, id: RealKey) -> Option<&crate::pool::Pool> {
        self.pools.get(self.reals.get(id)?.pool)
    }
}

/// Reads once, after what was left from the last time. The error, with the reason if it is one for
/// the log: the connection has ended.
fn read(real: &mut Real, buffer: &mut [u8], now: Instant) -> Result<(), Option<String>> {
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
