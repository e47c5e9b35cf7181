//! The connections to one address, and what is known of the application there.
//!
//! Whether it multiplexes is asked on each shared connection before a request is put on it: the
//! application may be another one since the last. One that does not is served as a web
//! server without multiplexing serves it: a connection for each request, closed after it. It is asked
//! again beside the requests, which do not wait for that ([`afcgi_proto::verdict`]).

mod asking;
mod state;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use afcgi_proto::verdict::Verdict;
use tokio::sync::oneshot;

use super::config::Config;
use super::error::Error;
use super::place::{Place, Wants};
use super::resolve::Target;
use super::shared::Shared;
use super::stats::Counters;
use state::{Backoff, State, Unwanted, Waiter, give, next};

/// Shared connections that may be held up by requests that stalled, beside those that take new ones.
const MOST_STALLED: usize = 1024;

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) target: Target,
    pub(super) name: Arc<str>,
    pub(super) config: Arc<Config>,
    pub(super) counters: Arc<Counters>,
    state: Mutex<State>,
    /// Requests that wait or have a place.
    load: AtomicUsize,
}

impl Pool {
    pub(super) fn new(target: Target, config: Arc<Config>, counters: Arc<Counters>) -> Arc<Self> {
        let verdict = match config.multiplex {
            true => Verdict::Unknown,
            // It is never asked.
            false => Verdict::Unknown.silent(crate::clock::now(), &config.patience),
        };
        let most_idle = config.single_idle;
        Arc::new(Self {
            name: target.to_string().into(),
            target,
            config,
            counters,
            state: Mutex::new(State::new(verdict, most_idle)),
            load: AtomicUsize::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that wait or have a place.
    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Whether connecting failed lately; `None`: it did not, otherwise whether it may be tried again.
    pub(super) fn failing(&self) -> Option<bool> {
        let state = self.lock();
        (state.backoff.failures > 0).then(|| !state.backoff.holds(crate::clock::now()))
    }

    /// Opens a connection to see whether that works again.
    pub(super) fn try_again(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.backoff.failures > 0
            && !state.backoff.holds(crate::clock::now())
            && !state.is_opening()
            && !state.closed
        {
            let shared = !state.verdict.is_single();
            self.open(&mut state, shared);
        }
    }

    /// A place on a connection for a request, as soon as there is one.
    pub(super) async fn acquire(self: &Arc<Self>, wants: Wants) -> Result<Place, Error> {
        let load = Load::new(self);
        let receiver = {
            let mut state = self.lock();
            if state.closed {
                return Err(Error::Closed);
            }
            if state.verdict.is_single()
                && let Some(asking) = &state.asking
            {
                // It may hold the process that the request needs: the driver sees to that.
                asking.lock().wake_driver_now();
            }
            if !state.is_overtaking(wants)
                && let Some(place) = self.try_place(&mut state, wants)
            {
                self.spread(&mut state);
                drop(load);
                return Ok(place);
            }
            if state.queued >= self.config.queue.max(1) {
                return Err(Error::QueueFull);
            }
            let (tell, receiver) = oneshot::channel();
            let waiter = Waiter { tell, wants };
            let alone = state.isolates(wants);
            match alone {
                true => state.alone.push_back(waiter),
                false => state.waiting.push_back(waiter),
            }
            self.grow(&mut state);
            if !state.has_hope(alone) {
                let error = self.unreachable(&state);
                match alone {
                    true => drop(state.alone.pop_back()),
                    false => drop(state.waiting.pop_back()),
                }
                return Err(error);
            }
            state.queued += 1;
            receiver
        };
        let queued = Queued::new(self);
        let waited = tokio::time::timeout(self.config.queue_timeout, receiver).await;
        drop(queued);
        match waited {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::QueueTimeout),
        }
    }

    /// Returns when it is known whether the application can be connected to.
    pub(super) async fn ready(self: &Arc<Self>) -> Result<(), Error> {
        let wants = Wants {
            body: false,
            single: false,
        };
        self.acquire(wants).await.map(drop)
    }

    /// Puts a request on a connection that has room for it.
    fn try_place(self: &Arc<Self>, state: &mut State, wants: Wants) -> Option<Place> {
        if state.active() >= state.most_requests {
            return None;
        }
        if !state.isolates(wants) {
            let least = state
                .shared
                .iter()
                .map(|shared| (shared, shared.lock().usage(wants.body)))
                .filter_map(|(shared, usage)| Some((shared, usage?)))
                .min_by_key(|&(_, usage)| usage)
                .map(|(shared, _)| Arc::clone(shared))?;
            let (handle, served) = {
                let mut connection = least.lock();
                (connection.open()?, connection.served)
            };
            return Some(Place::new(self, least, handle, served));
        }
        while let Some(single) = state.idle.pop() {
            let (handle, served) = {
                let mut connection = single.lock();
                (connection.open(), connection.served)
            };
            if let Some(handle) = handle {
                return Some(Place::new(self, single, handle, served));
            }
            // It is lost or retired, and its driver about to say so.
        }
        None
    }

    /// Gives waiting requests their places, as far as there are any.
    fn serve(self: &Arc<Self>, state: &mut State) -> Unwanted {
        let mut unwanted = Vec::new();
        while let Some(wants) = next(&mut state.waiting) {
            if matches!(state.verdict, Verdict::Shared { .. }) && state.isolates(wants) {
                state.alone.extend(state.waiting.pop_front());
                continue;
            }
            let Some(place) = self.try_place(state, wants) else {
                break;
            };
            give(&mut state.waiting, place, &mut unwanted);
        }
        while let Some(wants) = next(&mut state.alone) {
            let single = Wants {
                single: true,
                ..wants
            };
            let Some(place) = self.try_place(state, single) else {
                break;
            };
            give(&mut state.alone, place, &mut unwanted);
        }
        self.grow(state);
        self.fail_hopeless(state, None);
        unwanted
    }

    /// Those that wait hear that there is nothing to wait for.
    fn fail_hopeless(&self, state: &mut State, error: Option<Error>) {
        if state.waiting.is_empty() && state.alone.is_empty() {
            return;
        }
        let error = error.unwrap_or_else(|| self.unreachable(state));
        let mut failed = Vec::new();
        if !state.has_hope(false) {
            failed.extend(state.waiting.drain(..));
        }
        if !state.has_hope(true) {
            failed.extend(state.alone.drain(..));
        }
        for waiter in failed {
            // Whoever does not wait any more need not know.
            let _ = waiter.tell.send(Err(error.clone()));
        }
    }

    /// Opens the connections that waiting requests need.
    fn grow(self: &Arc<Self>, state: &mut State) {
        let now = crate::clock::now();
        if state.closed || state.backoff.holds(now) {
            return;
        }
        // Those that get no more requests are not to be counted upon.
        (state.shared).retain(|shared| !shared.lock().connection.is_retired());
        let most_singles = self.config.single_connections.max(1);
        let most_singles = most_singles.min(state.most_connections);
        let wanted = state.singles_wanted(most_singles);
        let ask = !state.verdict.is_single()
            && !state.waiting.is_empty()
            && state.usable() < self.config.connections.max(1);
        let most = self.config.connections.max(1).saturating_add(MOST_STALLED);
        if ask && !state.opening_shared && state.shared.len() < most {
            self.open(state, true);
        }
        while state.opening_singles + state.idle.len() < wanted && state.singles < most_singles {
            // After a failure one connection is to show that it works again.
            if state.backoff.failures > 0 && state.is_opening() {
                break;
            }
            self.open(state, false);
        }
    }

    /// Opens a further shared connection beside those in use, if more are wanted, or it is time to ask
    /// whether there may be any. To be called when a request has its place: whoever asks comes after it.
    fn spread(self: &Arc<Self>, state: &mut State) {
        let now = crate::clock::now();
        let more = match state.verdict {
            Verdict::Unknown => false,
            Verdict::Shared { .. } => state.shared.len() < self.config.connections,
            Verdict::Single { .. } => self.config.multiplex && state.verdict.is_due(now),
        };
        if more && !state.opening_shared && !state.backoff.holds(now) && !state.closed {
            state.verdict = state.verdict.asking(now, &self.config.patience);
            self.open(state, true);
        }
    }

    fn open(self: &Arc<Self>, state: &mut State, shared: bool) {
        if shared {
            state.opening_shared = true;
        } else {
            state.singles += 1;
            state.opening_singles += 1;
        }
        tokio::spawn(super::connection::run(Arc::clone(self), shared));
    }

    /// A connection has been established.
    pub(super) fn connected(self: &Arc<Self>, multiplexed: bool) -> Arc<Shared> {
        self.counters.opened();
        let mut config = self.config.connection.clone();
        let mut most = self.config.max_requests;
        let mut unwanted = Unwanted::new();
        let mut state = self.lock();
        if !multiplexed {
            config.requests = 1;
            config.keep_conn = self.config.keep_conn || !state.verdict.is_single();
            if !config.keep_conn {
                most = 1;
            }
        }
        let kept = config.keep_conn;
        let shared = Shared::new(config, multiplexed, most, Arc::clone(&self.counters));
        let again = state.backoff.failures > 0;
        state.backoff = Backoff::default();
        if state.closed {
            shared.retire();
        }
        if multiplexed {
            state.asking = Some(Arc::clone(&shared));
        } else {
            state.opening_singles -= 1;
            shared.lock().idle = true;
            state.idle.push(Arc::clone(&shared));
            unwanted = self.serve(&mut state);
            let before = state.idle.len();
            if !kept {
                // Nobody wants it any more.
                state.idle.retain(|other| !Arc::ptr_eq(other, &shared));
            }
            if state.idle.len() < before {
                shared.retire();
            } else if state.verdict.is_single() {
                self.spread(&mut state);
            }
        }
        drop(state);
        drop(unwanted);
        if again {
            tracing::info!(address = %self.name, "the application can be connected to again");
        }
        shared
    }

    /// A connection could not be opened: those that wait for it hear of it, unless there are others.
    pub(super) fn connect_failed(self: &Arc<Self>, multiplexed: bool, error: io::Error) {
        self.counters.connect_failures();
        let error = Arc::new(error);
        let mut state = self.lock();
        if multiplexed {
            state.opening_shared = false;
            if state.verdict.is_single() {
                // It was to ask beside the requests, which find out for themselves.
                state.verdict =
                    (state.verdict).unreachable(crate::clock::now(), &self.config.patience);
                return;
            }
        } else {
            state.singles -= 1;
            state.opening_singles -= 1;
        }
        if state.shared.is_empty() {
            state.verdict = (state.verdict).unreachable(crate::clock::now(), &self.config.patience);
        }
        let first = state.backoff.failures == 0;
        state.backoff.fail(&self.config, Arc::clone(&error));
        let failure = Error::Connect {
            address: Arc::clone(&self.name),
            source: Arc::clone(&error),
        };
        self.fail_hopeless(&mut state, Some(failure));
        drop(state);
        if first {
            tracing::warn!(address = %self.name, %error, "cannot connect to the application");
        }
    }

    fn unreachable(&self, state: &State) -> Error {
        let backoff = &state.backoff;
        let (Some(source), Some(at)) = (&backoff.error, backoff.retry_at) else {
            return Error::Closed;
        };
        Error::Unreachable {
            address: Arc::clone(&self.name),
            source: Arc::clone(source),
            retry_in: at.saturating_duration_since(crate::clock::now()),
        }
    }

    /// A request has left a connection, so that there may be room.
    pub(super) fn settle(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut state = self.lock();
        if !shared.multiplexed {
            let mut connection = shared.lock();
            let free = connection.is_quiet() && connection.connection.has_room();
            if free && !connection.idle {
                connection.idle = true;
                drop(connection);
                state.idle.push(Arc::clone(shared));
            }
        }
        let unwanted = self.serve(&mut state);
        let most = match state.verdict {
            Verdict::Unknown => 0,
            Verdict::Shared { .. } => self.config.single_idle,
            Verdict::Single { .. } => state.most_idle,
        };
        while state.idle.len() > most {
            state.idle.remove(0).retire();
        }
        drop(state);
        drop(unwanted);
    }

    /// A connection is no more; `probing`: before it was known what it is good for.
    pub(super) fn gone(self: &Arc<Self>, shared: &Arc<Shared>, probing: bool) {
        self.counters.closed();
        if shared.multiplexed && probing {
            // It speaks, and closes at a GET_VALUES.
            self.silent(shared, "it closes the connection at GET_VALUES");
        }
        let mut state = self.lock();
        state.shared.retain(|other| !Arc::ptr_eq(other, shared));
        state.idle.retain(|other| !Arc::ptr_eq(other, shared));
        if !shared.multiplexed {
            state.singles -= 1;
        }
        let unwanted = self.serve(&mut state);
        drop(state);
        drop(unwanted);
    }

    /// No new requests; connections are closed when their last request has ended.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // Whoever waits finds the sender gone.
        state.waiting.clear();
        state.alone.clear();
        let open: Vec<_> = state.shared.drain(..).collect();
        let idle: Vec<_> = state.idle.drain(..).collect();
        drop(state);
        for shared in open.into_iter().chain(idle) {
            shared.retire();
        }
    }
}

/// Counts a request in the pool's load, until it has a place or none.
struct Load<'a>(&'a Pool);

impl<'a> Load<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.load.fetch_add(1, Ordering::Relaxed);
        Self(pool)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a request in the queue.
struct Queued<'a>(&'a Pool);

impl<'a> Queued<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.counters.queued();
        Self(pool)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.queued -= 1;
        state.prune();
        drop(state);
        self.0.counters.unqueued();
    }
}

impl Pool {
    pub(super) fn enter(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
        self.counters.begin();
    }

    pub(super) fn leave(&self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.counters.end();
    }
}
