//! The driver of a connection: one task that reads and writes in large batches.
//!
//! The requests write into the connection's output; the driver is woken once, runs after the tasks
//! that are ready, and sends what has gathered.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use afcgi_proto::pool::{Kind, MemberId, Why};
use afcgi_proto::web::{OVERFLOW_BURST, OVERFLOW_PAUSE};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::RuntimeFlavor;
use tokio::time::{Sleep, timeout};

use super::error::Lost;
use super::pool::Pool;
use super::resolve::Target;
use super::shared::{Shared, Told};

/// Bytes that are read at a time.
const READ: usize = 128 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// How far a connection is that was established.
///
/// ```text
///           GET_VALUES is answered
///  Probing ───────────────────────> Ready     (shared)
///                                     ^       (one request at a time: from the start)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Since when, and how long connecting took.
    Probing {
        since: Instant,
        round_trip: Duration,
    },
    Ready,
}

/// Opens a connection for a pool, and drives it until it is closed.
pub(super) async fn run(pool: Arc<Pool>, id: MemberId, kind: Kind) {
    let mut opening = Opening {
        pool,
        id,
        done: false,
    };
    let pool = Arc::clone(&opening.pool);
    let began = crate::clock::now();
    let wait = pool.config.connect_timeout;
    match &pool.target {
        Target::Tcp(addr) => {
            let connected = timeout(wait, TcpStream::connect(addr)).await;
            match opening.check(connected) {
                Some(io) => {
                    // Without it small records wait for the answer to those before them.
                    if let Err(error) = io.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY is not to be had");
                    }
                    Driver::new(io, pool, id, kind, began).run().await;
                }
                None => drop(pool),
            }
        }
        Target::Unix(path) => {
            let connected = timeout(wait, UnixStream::connect(path)).await;
            if let Some(io) = opening.check(connected) {
                Driver::new(io, pool, id, kind, began).run().await;
            }
        }
    }
}

/// A connection that is being opened: whatever happens, its pool hears of it.
struct Opening {
    pool: Arc<Pool>,
    id: MemberId,
    done: bool,
}

impl Opening {
    fn check<T>(&mut self, connected: Result<io::Result<T>, impl Sized>) -> Option<T> {
        let error = match connected {
            Ok(Ok(io)) => {
                self.done = true;
                return Some(io);
            }
            Ok(Err(error)) => error,
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, "connecting takes too long"),
        };
        self.done = true;
        self.pool.connect_failed(self.id, error);
        None
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.done {
            let error = io::Error::other("the runtime was stopped");
            self.pool.connect_failed(self.id, error);
        }
    }
}

/// Drives a connection until it is closed.
struct Driver<IO> {
    io: IO,
    pool: Arc<Pool>,
    shared: Arc<Shared>,
    phase: Phase,
    /// Bytes that were read and that the connection would not take yet.
    held_back: Vec<u8>,
    /// Since when the socket has taken nothing.
    full_since: Option<Instant>,
    /// Bytes that were read since the last pause, and until when that lasts which there is now and then
    /// while a response overflows its buffer.
    burst: usize,
    read_at: Option<Instant>,
    /// Why the socket takes no more. What the application has said before is still there to be read.
    write_failed: Option<Lost>,
    expires: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// On a runtime of several threads: whether the tasks that are ready had their turn before what
    /// they write is sent.
    gathered: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    /// `began`: when connecting did.
    fn new(io: IO, pool: Arc<Pool>, id: MemberId, kind: Kind, began: Instant) -> Self {
        let now = crate::clock::now();
        let shared = pool.connected(id, kind);
        let phase = if kind == Kind::Shared {
            shared.lock().connection.probe();
            Phase::Probing {
                since: now,
                round_trip: now.saturating_duration_since(began),
            }
        } else {
            Phase::Ready
        };
        Self {
            io,
            expires: now.checked_add(pool.config.lifetime),
            pool,
            shared,
            phase,
            held_back: Vec::new(),
            full_since: None,
            burst: 0,
            read_at: None,
            write_failed: None,
            timer: None,
            gathered: false,
        }
    }

    async fn run(mut self) {
        let ending = poll_fn(|cx| self.poll_drive(cx)).await;
        match &ending {
            Err(Lost::Protocol(error)) => {
                tracing::warn!(address = %self.pool.name, %error, "the application broke the protocol");
            }
            Err(Lost::Io(error)) => {
                tracing::debug!(address = %self.pool.name, %error, "a connection failed");
            }
            Ok(()) | Err(Lost::Closed) => {}
        }
        self.shared.lock().lost = ending.err();
    }

    /// Takes in what the socket has, and says how many bytes that was.
    fn poll_input(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<usize, Lost>> {
        let mut told = Told::default();
        if !self.held_back.is_empty() {
            let taken = {
                let mut state = self.shared.lock();
                let taken = state.connection.receive(now, &self.held_back);
                self.shared.take_events(&mut state, &mut told);
                taken
            };
            self.tell(told);
            self.held_back.drain(..taken.map_err(Lost::Protocol)?);
            if !self.held_back.is_empty() {
                return Poll::Pending;
            }
            self.held_back = Vec::new();
            told = Told::default();
        }
        let count = BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)).map_err(io_lost)?;
            let received = buffer.filled();
            let mut state = self.shared.lock();
            if received.is_empty() {
                let lost = match state.connection.end_of_input() {
                    Ok(()) => Lost::Closed,
                    Err(error) => Lost::Protocol(error),
                };
                state.lost = Some(lost.clone());
                return Poll::Ready(Err(lost));
            }
            state.received_at = now;
            let taken = state.connection.receive(now, received);
            self.shared.take_events(&mut state, &mut told);
            self.burst = self.burst.saturating_add(received.len());
            if self.burst >= OVERFLOW_BURST && state.connection.is_overflowing() {
                self.burst = 0;
                self.read_at = now.checked_add(OVERFLOW_PAUSE);
            }
            drop(state);
            let taken = taken.map_err(Lost::Protocol)?;
            self.held_back.extend_from_slice(&received[taken..]);
            Poll::Ready(Ok(received.len()))
        });
        self.tell(told);
        count
    }

    /// Passes on what the protocol has told.
    fn tell(&self, mut told: Told) {
        told.wake();
        if told.released {
            self.pool.settle(&self.shared);
        }
    }

    /// Gives the socket what it takes of the output.
    ///
    /// When that fails the application has closed the connection, maybe after its last answers: nothing more is
    /// written, and what it has said is read to its end, or for `send_timeout`.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant) {
        if self.write_failed.is_some() {
            return;
        }
        let mut again = true;
        while again {
            let mut told = Told::default();
            let mut state = self.shared.lock();
            while !state.connection.transmit().is_empty() {
                let written = Pin::new(&mut self.io).poll_write(cx, state.connection.transmit());
                let failure = match written {
                    Poll::Ready(Ok(0)) => Some(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(count)) => {
                        self.full_since = None;
                        state.sent += count as u64;
                        state.connection.transmitted(count);
                        continue;
                    }
                    Poll::Ready(Err(error)) => Some(error),
                    Poll::Pending => None,
                };
                if let Some(error) = failure {
                    self.write_failed = Some(io_lost(error));
                    state.connection.retire();
                }
                self.full_since.get_or_insert(now);
                state.socket_full = true;
                self.shared.take_events(&mut state, &mut told);
                drop(state);
                self.tell(told);
                if self.write_failed.is_some() {
                    self.pool.settle(&self.shared);
                }
                return;
            }
            state.socket_full = false;
            again = state.connection.next_round();
            self.shared.take_events(&mut state, &mut told);
            drop(state);
            self.tell(told);
        }
    }

    /// Looks at an answer to GET_VALUES.
    fn judge(&mut self) {
        let values = self.shared.lock().values.take();
        if let Some(values) = values
            && matches!(self.phase, Phase::Probing { .. })
        {
            self.phase = Phase::Ready;
            self.pool.answered(&self.shared, &values);
        }
    }

    /// Does what is due; `true` if something was.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Lost> {
        let after =
            |since: Option<Instant>, wait: Duration| since.and_then(|at| at.checked_add(wait));
        let config = &self.pool.config;
        let full = after(self.full_since, config.send_timeout);
        if full.is_some_and(|at| at <= now) {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the application reads nothing");
            return Err(self.write_failed.take().unwrap_or_else(|| io_lost(error)));
        }
        let probing = match self.phase {
            Phase::Probing { since, round_trip } => {
                after(Some(since), self.pool.patience(round_trip))
            }
            Phase::Ready => None,
        };
        if probing.is_some_and(|at| at <= now) {
            self.phase = Phase::Ready;
            self.pool.silent(&self.shared, Why::Silent);
            return Ok(true);
        }
        let kept = match self.shared.is_multiplexed() {
            true => config.idle_timeout,
            false => config.single_idle_timeout,
        };
        let mut state = self.shared.lock();
        let quiet = self.phase == Phase::Ready && state.is_quiet();
        match (quiet, state.quiet_since) {
            (true, None) => state.quiet_since = Some(now),
            (false, _) => state.quiet_since = None,
            (true, Some(_)) => {}
        }
        let idle = after(state.quiet_since, kept);
        let retired = state.connection.is_retired();
        let expires = self.expires.filter(|_| !retired);
        if idle.is_some_and(|at| at <= now) || expires.is_some_and(|at| at <= now) {
            state.connection.retire();
            drop(state);
            self.pool.settle(&self.shared);
            return Ok(true);
        }
        if state.check_until.is_some_and(|at| at <= now) {
            state.check_until = None;
            state.connection.retire();
            drop(state);
            tracing::warn!(
                address = %self.pool.name,
                "a connection is given up on which a request timed out and GET_VALUES is not answered"
            );
            self.pool.settle(&self.shared);
            return Ok(true);
        }
        let deadline = state.connection.deadline(now);
        if deadline.is_some_and(|at| at <= now) {
            let mut told = Told::default();
            state.connection.handle_timeout(now);
            self.shared.take_events(&mut state, &mut told);
            drop(state);
            self.tell(told);
            return Ok(true);
        }
        let check = state.check_until;
        let due = [full, probing, idle, expires, check, deadline, self.read_at];
        drop(state);
        let Some(due) = due.into_iter().flatten().min() else {
            return Ok(false);
        };
        let due = tokio::time::Instant::from_std(due);
        match &mut self.timer {
            // A timer that fires too early costs less than one that is set for every batch.
            Some(timer) if timer.deadline() <= due && !timer.is_elapsed() => return Ok(false),
            Some(timer) => timer.as_mut().reset(due),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(due))),
        }
        let timer = self.timer.as_mut();
        Ok(timer.is_some_and(|timer| timer.as_mut().poll(cx).is_ready()))
    }

    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let runtime = tokio::runtime::Handle::current().runtime_flavor();
        let multi_thread = runtime != RuntimeFlavor::CurrentThread;
        loop {
            let now = crate::clock::now();
            self.shared.lock().unpark();
            self.read_at = self.read_at.filter(|&at| at > now);
            let mut received = 0;
            while received < READ
                && self.read_at.is_none()
                && let Poll::Ready(count) = self.poll_input(cx, now)
            {
                received += count?;
            }
            self.judge();
            if multi_thread
                && !self.gathered
                && !self.shared.lock().connection.transmit().is_empty()
            {
                // A task that is woken by another would run before the rest of them.
                self.gathered = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.gathered = false;
            self.write(cx, now);
            let due = self.poll_timer(cx, now)?;
            let mut state = self.shared.lock();
            if state.is_done() {
                return Poll::Ready(Ok(()));
            }
            if received >= READ {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let unblocked = !self.held_back.is_empty() && !state.connection.is_blocked();
            let output = !state.socket_full && !state.connection.transmit().is_empty();
            if due || unblocked || output || state.values.is_some() {
                continue;
            }
            state.held_back = !self.held_back.is_empty();
            state.park(cx);
            return Poll::Pending;
        }
    }
}

fn io_lost(error: io::Error) -> Lost {
    Lost::Io(Arc::new(error))
}

/// However the connection ends, its requests hear of it, and its pool.
impl<IO> Drop for Driver<IO> {
    fn drop(&mut self) {
        let mut told = Told::default();
        let mut state = self.shared.lock();
        state.lost.get_or_insert(Lost::Closed);
        state.connection.lost();
        self.shared.take_events(&mut state, &mut told);
        drop(state);
        told.wake();
        self.pool.gone(&self.shared);
    }
}
