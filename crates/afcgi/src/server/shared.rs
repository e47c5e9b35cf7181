//! What the driver of a connection and the tasks of its requests share: the protocol state and who
//! waits for what, under one lock.
//!
//! Invariants: the lock is never held across an await; nothing of the application's is run or
//! dropped under it (a waker that is replaced is dropped after it).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use afcgi_proto::app::{self, Input, Output};
use afcgi_proto::inbox::{Broken, Read};
use afcgi_proto::{Gone, Handle};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::upgrade::Upgrades;

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) upgrades: Upgrades,
}

/// See [`Shared`].
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) connection: app::Connection,
    /// By [`Handle::slot`].
    tasks: Vec<Task>,
    /// The driver, where it waits to be told of something to do.
    driver: Option<Waker>,
    /// Whether `driver` is to be woken when there is something to do.
    pub(crate) parked: bool,
    /// Whether the socket takes no more for now: output alone is no reason to wake the driver.
    pub(crate) socket_full: bool,
    /// Whether the driver holds bytes that the connection would not take.
    pub(crate) held_back: bool,
    /// The connection is to make room for another, if it has been idle since then.
    room_wanted: Option<Instant>,
}

/// Who waits for what, of one request.
#[derive(Debug, Default)]
pub(crate) struct Task {
    abort: Option<AbortHandle>,
    stdin: Option<Waker>,
    data: Option<Waker>,
    stdout: Option<Waker>,
    stderr: Option<Waker>,
    over: Option<Arc<Notify>>,
}

impl Task {
    /// Cancels the request's task, and tells those that asked.
    pub(crate) fn cancel(self) {
        if let Some(abort) = &self.abort {
            abort.abort();
        }
        self.tell();
    }

    /// Tells those that asked that the request is over, and those that wait for its streams: they
    /// may be others than the request's task.
    fn tell(self) {
        if let Some(over) = &self.over {
            over.notify_waiters();
        }
        let wakers = [self.stdin, self.data, self.stdout, self.stderr];
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Shared {
    pub(crate) fn new(connection: app::Connection, upgrades: Upgrades) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                connection,
                tasks: Vec::new(),
                driver: None,
                parked: false,
                socket_full: false,
                held_back: false,
                room_wanted: None,
            }),
            upgrades,
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when the connection has been idle, if it is.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.lock().connection.idle_since()
    }

    /// Asks a connection to make room for another. `false`: it has not been idle since then.
    pub(crate) fn want_room(&self, idle_since: Instant) -> bool {
        let mut state = self.lock();
        let idle = state.connection.idle_since() == Some(idle_since);
        if idle {
            state.room_wanted = Some(idle_since);
            state.wake_driver_now();
        }
        idle
    }

    /// Whether the connection, which has ended, did so to make room.
    pub(crate) fn has_made_room(&self) -> bool {
        self.lock().room_wanted.is_some()
    }

    /// Ends the connection at once.
    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        state.connection.lost();
        state.wake_driver_now();
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        handle: Handle,
        input: Input,
        most: usize,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        let mut state = self.lock();
        match state.connection.read(handle, input, most) {
            Err(Gone) => Poll::Ready(Err(ReadError::Gone)),
            Ok(Read::Content(content)) => {
                state.wake_driver();
                Poll::Ready(Ok(Some(content)))
            }
            Ok(Read::End) => Poll::Ready(Ok(None)),
            Ok(Read::Broken(why)) => Poll::Ready(Err(ReadError::Broken(why))),
            Ok(Read::Pending) => {
                let task = state.task(handle);
                let waker = match input {
                    Input::Stdin => &mut task.stdin,
                    Input::Data => &mut task.data,
                };
                let old = register(waker, cx);
                drop(state);
                drop(old);
                Poll::Pending
            }
        }
    }

    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        handle: Handle,
        output: Output,
        content: &[u8],
    ) -> Poll<Result<usize, Gone>> {
        let mut state = self.lock();
        let count = state.connection.write(handle, output, content)?;
        if count > 0 || content.is_empty() {
            state.wake_driver();
            return Poll::Ready(Ok(count));
        }
        let task = state.task(handle);
        let waker = match output {
            Output::Stdout => &mut task.stdout,
            Output::Stderr => &mut task.stderr,
        };
        let old = register(waker, cx);
        drop(state);
        drop(old);
        Poll::Pending
    }

    /// Ends an output stream before its request.
    pub(crate) fn end_output(&self, handle: Handle, output: Output) -> Result<(), Gone> {
        let mut state = self.lock();
        state.connection.end_output(handle, output)?;
        state.wake_driver();
        Ok(())
    }

    pub(crate) fn finish(&self, handle: Handle, app_status: u32) -> Result<(), Gone> {
        let mut state = self.lock();
        state.connection.finish(handle, app_status)?;
        let task = state.take_task(handle);
        state.wake_driver();
        drop(state);
        task.tell();
        Ok(())
    }

    pub(crate) fn is_over(&self, handle: Handle) -> bool {
        !self.lock().connection.is_active(handle)
    }

    /// Tells when the request is over; `None` if it is.
    pub(crate) fn over(&self, handle: Handle) -> Option<Arc<Notify>> {
        let mut state = self.lock();
        state
            .connection
            .is_active(handle)
            .then(|| Arc::clone(state.task(handle).over.get_or_insert_default()))
    }
}

impl State {
    /// The place of a request that is active.
    fn task(&mut self, handle: Handle) -> &mut Task {
        let slot = handle.slot();
        if self.tasks.len() <= slot {
            self.tasks.resize_with(slot + 1, Task::default);
        }
        &mut self.tasks[slot]
    }

    /// Whether the connection is to be closed to make room. One that got a request meanwhile stays.
    pub(crate) fn makes_room(&mut self) -> bool {
        if self.room_wanted != self.connection.idle_since() {
            self.room_wanted = None;
        }
        self.room_wanted.is_some()
    }

    /// Whether nobody may wait for the web server any more.
    pub(crate) fn is_cut(&self) -> bool {
        self.room_wanted.is_some() || self.connection.is_lost()
    }

    /// Takes note of the task of a request. If the request is over already, the task is to be
    /// cancelled.
    pub(crate) fn set_abort(
        &mut self,
        handle: Handle,
        abort: AbortHandle,
    ) -> Result<(), AbortHandle> {
        if self.connection.is_active(handle) {
            self.task(handle).abort = Some(abort);
            Ok(())
        } else {
            Err(abort)
        }
    }

    /// Empties the place of a request that is over.
    pub(crate) fn take_task(&mut self, handle: Handle) -> Task {
        self.tasks
            .get_mut(handle.slot())
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Those that wait to read.
    pub(crate) fn take_readers(&mut self, handle: Handle) -> [Option<Waker>; 2] {
        let task = self.task(handle);
        [task.stdin.take(), task.data.take()]
    }

    /// Those that wait to write.
    pub(crate) fn take_writers(&mut self, handle: Handle) -> [Option<Waker>; 2] {
        let task = self.task(handle);
        [task.stdout.take(), task.stderr.take()]
    }

    /// The driver waits from now on.
    pub(crate) fn park(&mut self, cx: &mut Context<'_>) {
        self.parked = true;
        // A task's waker does nothing of the application's when it is dropped.
        drop(register(&mut self.driver, cx));
    }

    /// Wakes the driver if there is something for it to do.
    pub(crate) fn wake_driver(&mut self) {
        if !self.parked {
            return;
        }
        let output = !self.socket_full && !self.connection.transmit().is_empty();
        if output
            || (self.held_back && !self.connection.is_blocked())
            || self.connection.is_finished()
        {
            self.wake_driver_now();
        }
    }

    /// Wakes the driver.
    pub(crate) fn wake_driver_now(&mut self) {
        self.parked = false;
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }
}

/// Puts the waker of the current task into a place, and returns the one that was there.
fn register(place: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => None,
        _ => place.replace(cx.waker().clone()),
    }
}

/// Why a stream of a request cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The request is over: the web server gave it up, or it was finished.
    Gone,
    /// The stream was not completed.
    Broken(Broken),
    /// The stream ended before as many bytes as CONTENT_LENGTH announced had come: the client broke
    /// off.
    Short {
        /// Bytes that have not come.
        missing: u64,
    },
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone => Gone.fmt(f),
            Self::Broken(why) => why.fmt(f),
            Self::Short { missing } => {
                write!(
                    f,
                    "the client broke off, {missing} bytes before the end of the body"
                )
            }
        }
    }
}

impl std::error::Error for ReadError {}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match error {
            ReadError::Gone => io::ErrorKind::ConnectionAborted,
            ReadError::Broken(_) | ReadError::Short { .. } => io::ErrorKind::UnexpectedEof,
        };
        Self::new(kind, error)
    }
}
