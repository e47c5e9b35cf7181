//! What the driver of a connection and the requests on it share: the protocol state and who waits
//! for what, under one lock.
//!
//! Invariants: the lock is never held across an await; wakers are woken and dropped after it, and what
//! is logged is logged after it; the lock of the pool is never taken under it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use afcgi_proto::inbox::Read;
use afcgi_proto::pool::{Kind, Look, MemberId};
use afcgi_proto::web::{self, Event, Input, Output};
use afcgi_proto::{EndRequest, Gone, Handle, Role, Values};

use super::error::{Error, Lost};
use super::stats::Counters;

/// One connection to the application.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// By which its pool knows it.
    pub(super) id: MemberId,
    kind: Kind,
    counters: Arc<Counters>,
}

/// See [`Shared`].
#[derive(Debug)]
pub(super) struct State {
    pub(super) connection: web::Connection,
    /// By [`Handle::slot`].
    waits: Vec<Waits>,
    driver: Option<Waker>,
    /// Whether `driver` is to be woken when there is something to do.
    parked: bool,
    /// Whether the socket takes no more for now.
    pub(super) socket_full: bool,
    /// Whether the driver holds bytes that the connection would not take.
    pub(super) held_back: bool,
    /// Bytes that the socket has taken.
    pub(super) sent: u64,
    /// When something was last received.
    pub(super) received_at: Instant,
    /// Whether a request has ended on it.
    pub(super) served: bool,
    /// Since when it holds no request.
    pub(super) quiet_since: Option<Instant>,
    /// Requests that may still begin.
    left: u32,
    /// An answer to GET_VALUES that the driver is to look at.
    pub(super) values: Option<Values>,
    /// Until when the application is to show that it still reads the connection.
    pub(super) check_until: Option<Instant>,
    pub(super) lost: Option<Lost>,
    aborts: u64,
}

/// Who waits for what, of one request.
#[derive(Debug, Default)]
struct Waits {
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Bytes sent or pending when the request began.
    began_at: u64,
}

/// What is to be done after the lock was given back.
#[derive(Debug, Default)]
pub(super) struct Told {
    wakers: Vec<Waker>,
    /// There is room for another request.
    pub(super) released: bool,
}

impl Told {
    /// Wakes those who wait.
    pub(super) fn wake(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}

/// How a request begins.
#[derive(Debug)]
pub(super) struct Begin<'a> {
    pub(super) role: Role,
    pub(super) params: &'a [u8],
    /// The parameters if the application is offered an upgrade. `None`: it is not.
    pub(super) with_upgrade: Option<&'a [u8]>,
    /// Whether STDIN is empty.
    pub(super) bodiless: bool,
}

/// How far a request is after it began.
#[derive(Debug)]
pub(super) struct Begun<'a> {
    /// What is left of the parameters.
    pub(super) params: &'a [u8],
    /// Whether the application was offered an upgrade.
    pub(super) offered: bool,
}

impl Shared {
    pub(super) fn new(
        config: web::Config,
        id: MemberId,
        kind: Kind,
        max_requests: u32,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                connection: web::Connection::new(config),
                waits: Vec::new(),
                driver: None,
                parked: false,
                socket_full: false,
                held_back: false,
                sent: 0,
                received_at: crate::clock::now(),
                served: false,
                quiet_since: None,
                left: max_requests.max(1),
                values: None,
                check_until: None,
                lost: None,
                aborts: 0,
            }),
            id,
            kind,
            counters,
        })
    }

    /// Whether requests share it.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.kind == Kind::Shared
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what the protocol has to tell.
    pub(super) fn take_events(&self, state: &mut State, told: &mut Told) {
        while let Some(event) = state.connection.poll_event() {
            match event {
                Event::Readable(handle) => {
                    told.wakers.extend(state.waits(handle).reader.take());
                }
                Event::Writable(handle) => {
                    told.wakers.extend(state.waits(handle).writer.take());
                }
                Event::Released => {
                    told.released = true;
                    state.served = true;
                }
                Event::Values(values) => {
                    state.check_until = None;
                    state.values = Some(values);
                    state.wake_driver_now();
                }
                Event::Stalled(_) => self.counters.stalls(),
                _ => {}
            }
        }
        let aborts = state.connection.aborts();
        self.counters.aborts(aborts - state.aborts);
        state.aborts = aborts;
    }

    /// Sends the beginning of a request whose handle was opened, as far as there is room.
    pub(super) fn begin<'a>(&self, handle: Handle, begin: &Begin<'a>) -> Result<Begun<'a>, Gone> {
        let mut state = self.lock();
        let position = state.sent + state.connection.transmit().len() as u64;
        state.waits(handle).began_at = position;
        let connection = &mut state.connection;
        connection.begin(handle, begin.role)?;
        let with_upgrade = begin.with_upgrade.filter(|_| connection.offers_upgrade());
        let offered = with_upgrade.is_some();
        if offered {
            connection.offer_upgrade(handle)?;
        }
        let params = with_upgrade.unwrap_or(begin.params);
        let taken = connection.write(handle, Output::Params, params)?;
        let params = params.get(taken..).unwrap_or_default();
        if params.is_empty() {
            connection.end(handle, Output::Params)?;
            if begin.bodiless && !offered {
                connection.end(handle, Output::Stdin)?;
            }
        }
        state.wake_driver();
        Ok(Begun { params, offered })
    }

    /// Writes content, as much as there is room for; not 0.
    pub(super) fn poll_write(
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
        let old = register(&mut state.waits(handle).writer, cx);
        drop(state);
        drop(old);
        Poll::Pending
    }

    pub(super) fn end(&self, handle: Handle, output: Output) {
        let mut state = self.lock();
        // A request that is gone has no streams.
        let _ = state.connection.end(handle, output);
        state.wake_driver();
    }

    /// Takes what has come of a stream, up to `most` bytes.
    pub(super) fn read(&self, handle: Handle, input: Input, most: usize) -> Read {
        let mut state = self.lock();
        let read = state.connection.read(handle, input, most);
        if let Ok(Read::Content(_)) = read {
            state.wake_driver();
        }
        read.unwrap_or(Read::End)
    }

    /// Waits for more to read, or for the end of the request. To be called after nothing was found.
    /// `false`: something has come since.
    pub(super) fn wait_to_read(&self, cx: &mut Context<'_>, handle: Handle) -> bool {
        let mut state = self.lock();
        // Readable follows, also for the end.
        let _ = state.connection.notify_readable(handle);
        let connection = &state.connection;
        let readable = |input| connection.readable(handle, input).is_ok_and(|n| n > 0);
        if readable(Input::Stdout)
            || readable(Input::Stderr)
            || connection.ended(handle) != Ok(None)
        {
            return false;
        }
        let old = register(&mut state.waits(handle).reader, cx);
        drop(state);
        drop(old);
        true
    }

    /// How the request ended; `None` while it has not.
    pub(super) fn ended(&self, handle: Handle) -> Result<Option<EndRequest>, Error> {
        let state = self.lock();
        state
            .connection
            .ended(handle)
            .map_err(|why| match (why, &state.lost) {
                (afcgi_proto::inbox::Broken::Truncated, Some(lost)) => Error::Lost(lost.clone()),
                (afcgi_proto::inbox::Broken::Truncated, None) => Error::Lost(Lost::Closed),
                (why, _) => Error::Broken(why),
            })
    }

    /// Whether STDOUT has ended and was read to its end.
    pub(super) fn is_at_end(&self, handle: Handle) -> bool {
        self.lock().connection.is_at_end(handle)
    }

    /// Whether the socket has taken anything of a request.
    pub(super) fn was_written(&self, handle: Handle) -> bool {
        let mut state = self.lock();
        let began_at = state.waits(handle).began_at;
        state.sent > began_at
    }

    /// The consumer is done with a request; `gently`: it has all it wants of one that will end by
    /// itself.
    pub(super) fn close(&self, handle: Handle, gently: bool) -> Told {
        let mut told = Told::default();
        let mut state = self.lock();
        let now = crate::clock::now();
        if gently {
            state.connection.close_gently(handle, now);
        } else {
            state.connection.close(handle, now);
        }
        let waits = state.waits(handle);
        told.wakers.extend(waits.reader.take());
        told.wakers.extend(waits.writer.take());
        self.take_events(&mut state, &mut told);
        if state.is_quiet() {
            // It is idle from now on, or done with.
            state.wake_driver_now();
        }
        state.wake_driver();
        told
    }

    /// A request timed out: finds out whether the application still reads the connection.
    pub(super) fn doubt(&self, began: Instant, wait: Duration) {
        if !self.is_multiplexed() {
            return;
        }
        let mut state = self.lock();
        // Nobody has heard of the application since: it may hang, or be gone without a word.
        let given_up = state.received_at <= began;
        if given_up {
            state.connection.retire();
        } else if state.check_until.is_none() {
            state.check_until = crate::clock::now().checked_add(wait);
            state.connection.probe();
        }
        state.wake_driver_now();
        drop(state);
        if given_up {
            tracing::warn!(
                "a connection is given up on which a request timed out and nothing came"
            );
        }
    }

    /// No new requests; it is closed when the last one has ended.
    pub(super) fn retire(&self) {
        let mut state = self.lock();
        state.connection.retire();
        state.wake_driver_now();
    }
}

impl State {
    /// Opens a request if there is room.
    pub(super) fn open(&mut self) -> Option<Handle> {
        if self.connection.is_blocked() || !self.connection.has_room() {
            return None;
        }
        let handle = self.connection.open().ok()?;
        *self.waits(handle) = Waits::default();
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.connection.retire();
        }
        self.quiet_since = None;
        Some(handle)
    }

    /// What the pool has to know of it.
    pub(super) fn look(&self) -> Look {
        let connection = &self.connection;
        Look {
            active: connection.active(),
            takes: connection.has_room() && !connection.is_blocked(),
            retired: connection.is_retired(),
            controlled: connection.is_controlled(),
            stalled: connection.is_stalled(),
        }
    }

    /// Whether the connection is to be closed now.
    pub(super) fn is_done(&self) -> bool {
        self.connection.is_finished() || self.connection.is_abandoned()
    }

    /// Whether it holds no request that the application knows of.
    pub(super) fn is_quiet(&self) -> bool {
        self.connection.active() == 0
    }

    fn waits(&mut self, handle: Handle) -> &mut Waits {
        let slot = handle.slot();
        if self.waits.len() <= slot {
            self.waits.resize_with(slot + 1, Waits::default);
        }
        &mut self.waits[slot]
    }

    /// The driver waits from now on.
    pub(super) fn park(&mut self, cx: &mut Context<'_>) {
        self.parked = true;
        drop(register(&mut self.driver, cx));
    }

    pub(super) fn unpark(&mut self) {
        self.parked = false;
    }

    /// Wakes the driver if there is something for it to do.
    fn wake_driver(&mut self) {
        let output = !self.socket_full && !self.connection.transmit().is_empty();
        if output || (self.held_back && !self.connection.is_blocked()) || self.is_done() {
            self.wake_driver_now();
        }
    }

    pub(super) fn wake_driver_now(&mut self) {
        if self.parked
            && let Some(driver) = &self.driver
        {
            self.parked = false;
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
