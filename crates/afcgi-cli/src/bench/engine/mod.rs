//! The engine: connections × requests at once on each, on one thread, in a closed or an open loop.
//!
//! Every answer is checked: an id that is active, END_REQUEST with both statuses 0, STDOUT ended at most once and complete,
//! and what is [expected](Expect) of head and body. An answer in one record that equals the last right one byte for byte needs no
//! parsing, so that checking costs little. Nothing is allocated for a request, and what is held of an application is bounded.

mod config;
mod connection;
mod expect;
mod reply;
mod shared;
mod slot;
mod socket;
mod stats;
mod supply;
mod template;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

pub use config::Config;
use connection::Connection;
pub use expect::{Expect, ExpectStatus};
use shared::Shared;
pub use socket::Endpoint;
pub use stats::{Failures, Kind, Stats};
pub use supply::Supply;
pub use template::Template;

const TIMER: Token = Token(usize::MAX);
/// How long a stop that is asked for may go unnoticed.
const NOTICE: Duration = Duration::from_millis(50);
/// Nanoseconds between two looks at what may be late.
const SCAN: (u64, u64) = (1_000_000, 100_000_000);

/// How others stop a running engine.
#[derive(Debug, Default)]
pub struct Live {
    /// Set to end it.
    pub stop: AtomicBool,
}

/// Why [`Engine::run`] has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The time is up, or as many were answered as was asked for.
    Enough,
    /// Nothing is left to be begun, and nothing is in flight.
    Done,
    /// Nothing was answered for too long.
    Stalled,
    /// [`Live::stop`].
    Asked,
}

/// A running load. Dropping it closes its connections.
#[derive(Debug)]
pub struct Engine {
    poll: Poll,
    events: Events,
    timer: File,
    connections: Vec<Connection>,
    shared: Shared,
    /// Connections with more to read.
    again: Vec<usize>,
    /// Where a place for the next request is looked for.
    cursor: usize,
    /// Connections on which something was begun that was not sent yet.
    begun: Vec<usize>,
    next_scan: u64,
    live: Arc<Live>,
}

impl Engine {
    /// Nothing is connected before [`Engine::connect`] or [`Engine::run`].
    pub fn new(config: Config, live: Arc<Live>) -> io::Result<Self> {
        assert!(!config.endpoints.is_empty(), "an engine needs an endpoint");
        let poll = Poll::new()?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = File::from(timerfd_create(TimerfdClockId::Monotonic, flags)?);
        let source = timer.as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&source), TIMER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            timer,
            connections: (0..config.connections).map(Connection::new).collect(),
            shared: Shared::new(config),
            again: Vec::new(),
            cursor: 0,
            begun: Vec::new(),
            next_scan: 0,
            live,
        })
    }

    /// Counters since the start or the last time that they were taken.
    pub fn stats(&mut self) -> &mut Stats {
        &mut self.shared.stats
    }

    /// Requests begun and not ended.
    pub fn in_flight(&self) -> u64 {
        self.shared.in_flight
    }

    /// Whether every byte has been handed to the kernel.
    pub fn is_sent(&self) -> bool {
        self.shared.resend.is_empty() && self.connections.iter().all(Connection::is_sent)
    }

    /// How many requests were due and were not begun.
    pub fn overdue(&self) -> u64 {
        self.shared.supply.overdue(self.shared.at(Instant::now()))
    }

    /// Opens all connections, each of which is tried once.
    pub fn connect(&mut self, within: Duration) -> io::Result<()> {
        self.shared.tick();
        for index in std::mem::take(&mut self.shared.closed) {
            if let Some(connection) = self.connections.get_mut(index) {
                connection.connect(&mut self.shared, self.poll.registry());
            }
        }
        let end = Instant::now() + within;
        while self.connections.iter().any(Connection::is_connecting) {
            let now = Instant::now();
            if now >= end || self.live.stop.load(Ordering::Relaxed) {
                break;
            }
            self.wait((end - now).min(NOTICE))?;
        }
        Ok(())
    }

    /// Says which requests may begin from now on. In an open loop the first is due at `start`.
    pub fn supply(&mut self, supply: Supply) {
        self.shared.tick();
        self.shared.supply = supply;
        self.shared.progress = self.shared.now;
        if let Supply::Closed { .. } = supply {
            for connection in &mut self.connections {
                connection.fill(&mut self.shared);
            }
        }
    }

    /// A time as [`Supply::Open`] counts it.
    pub fn at(&self, time: Instant) -> u64 {
        self.shared.at(time)
    }

    /// Begins what is due and has a place, and then nothing more. Says how many requests were due, or to be sent again, and are not begun.
    pub fn stop_supply(&mut self) -> u64 {
        self.shared.tick();
        self.begin_due();
        let supply = std::mem::take(&mut self.shared.supply);
        let resend = std::mem::take(&mut self.shared.resend);
        supply.overdue(self.shared.now) + resend.len() as u64
    }

    /// Aborts every request.
    pub fn abort_all(&mut self) {
        self.shared.tick();
        for connection in &mut self.connections {
            connection.abort_all(&mut self.shared);
        }
    }

    /// Answers each ending with a new beginning until a time, or until so many were answered since the counters were taken.
    pub fn run(&mut self, until: Instant, completed: u64) -> io::Result<Stop> {
        let end = self.shared.at(until);
        loop {
            self.shared.tick();
            let shared = &self.shared;
            if self.live.stop.load(Ordering::Relaxed) {
                return Ok(Stop::Asked);
            }
            if !shared.has_work() && shared.in_flight == 0 {
                return Ok(Stop::Done);
            }
            if shared.now >= end || shared.stats.completed >= completed {
                return Ok(Stop::Enough);
            }
            let stall = shared.config.stall;
            let quiet = Duration::from_nanos(shared.now.saturating_sub(shared.progress));
            if stall.is_some_and(|stall| quiet > stall) {
                return Ok(Stop::Stalled);
            }
            let wait = self.tend(end)?;
            self.wait(wait)?;
        }
    }

    /// Does what is due by the clock; says how long there is nothing more.
    fn tend(&mut self, end: u64) -> io::Result<Duration> {
        let shared = &mut self.shared;
        let now = shared.now;
        let mut wake = end;
        if shared.has_work() && !shared.closed.is_empty() {
            for index in std::mem::take(&mut shared.closed) {
                let Some(connection) = self.connections.get_mut(index) else {
                    continue;
                };
                match connection.retry() {
                    Some(retry) if retry > now => {
                        wake = wake.min(retry);
                        shared.closed.push(index);
                    }
                    Some(_) => {
                        connection.connect(shared, self.poll.registry());
                        if let Some(retry) = connection.retry() {
                            wake = wake.min(retry);
                        }
                    }
                    None => {}
                }
            }
        }
        self.begin_due();
        let shared = &mut self.shared;
        if now >= self.next_scan {
            for connection in &mut self.connections {
                connection.scan(shared);
            }
            let config = &shared.config;
            let step = match config.aborts > 0.0 {
                true => config.abort_after.min(config.patience) / 20,
                false => config.patience.min(config.timeout) / 20,
            };
            self.next_scan = now + step.clamp(SCAN.0, SCAN.1);
        }
        wake = wake.min(self.next_scan);
        if !self.again.is_empty() {
            return Ok(Duration::ZERO);
        }
        if let Some(due) = shared.supply.next_due()
            && due > now
        {
            // The poll waits for whole milliseconds.
            set(&self.timer, due - now)?;
        }
        Ok(Duration::from_nanos(wake.saturating_sub(now)).min(NOTICE))
    }

    /// Begins what is due in an open loop, and what is to be sent again, on connections that have a place for it, in turn.
    fn begin_due(&mut self) {
        let shared = &mut self.shared;
        let mut full = 0;
        let count = self.connections.len();
        while full < count
            && (shared
                .supply
                .next_due()
                .is_some_and(|due| due <= shared.now)
                || !shared.resend.is_empty())
        {
            self.cursor = (self.cursor + 1) % count;
            let Some(connection) = self.connections.get_mut(self.cursor) else {
                return;
            };
            if connection.begin_one(shared) {
                full = 0;
                if self.begun.last() != Some(&self.cursor) {
                    self.begun.push(self.cursor);
                }
            } else {
                full += 1;
            }
        }
        for index in self.begun.drain(..) {
            if let Some(connection) = self.connections.get_mut(index) {
                connection.flush(shared);
            }
        }
    }

    /// Waits for events, and handles them.
    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        self.shared.tick();
        let mut again = std::mem::take(&mut self.again);
        let more = std::mem::take(&mut again);
        for event in &self.events {
            if event.token() == TIMER {
                // How often it has expired is of no interest.
                _ = (&self.timer).read(&mut [0; 8]);
                continue;
            }
            let index = event.token().0;
            let Some(connection) = self.connections.get_mut(index) else {
                continue;
            };
            let ended = event.is_read_closed() || event.is_error();
            if connection.ready(&mut self.shared, event.is_writable(), ended)
                && !again.contains(&index)
            {
                again.push(index);
            }
        }
        for index in more {
            if let Some(connection) = self.connections.get_mut(index)
                && connection.ready(&mut self.shared, false, true)
                && !again.contains(&index)
            {
                again.push(index);
            }
        }
        self.again = again;
        Ok(())
    }
}

/// Has the timer expire once, so many nanoseconds from now.
fn set(timer: &File, nanos: u64) -> io::Result<()> {
    let time = |nanos: u64| Timespec {
        tv_sec: (nanos / 1_000_000_000) as i64,
        tv_nsec: (nanos % 1_000_000_000) as _,
    };
    let spec = Itimerspec {
        it_interval: time(0),
        it_value: time(nanos.max(1)),
    };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &spec)?;
    Ok(())
}

impl Engine {
    /// Whether the application closes connections that it was asked to keep.
    pub fn closes(&self) -> bool {
        self.shared.config.keep_conn && !self.shared.keep
    }
}
