//! The connections to one address. Which of them a request goes to, and when one is opened, asked or
//! closed, is decided by [`afcgi_proto::pool`]: here that is performed, by tasks.
//!
//! Invariants: what was decided is performed after the lock was given back; the lock of a connection
//! is taken under that of the pool, never the other way round.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use afcgi_proto::pool::{
    self, Action, Asked, Backoff, Connections, Kind, Look, MemberId, Ticket, Wants, Why,
};
use afcgi_proto::{Handle, Values, Verdict};
use tokio::sync::oneshot;

use super::config::Config;
use super::error::Error;
use super::place::Place;
use super::resolve::Target;
use super::shared::Shared;
use super::stats::Counters;

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

#[derive(Debug)]
struct State {
    policy: pool::Pool<Arc<Shared>, Spot, Waiter>,
    /// Why connecting failed last.
    error: Option<Arc<io::Error>>,
}

type Waiter = oneshot::Sender<Result<Place, Error>>;

/// A request that was opened on a connection, which may have served others before.
#[derive(Debug)]
struct Spot {
    shared: Arc<Shared>,
    handle: Handle,
    kept: bool,
}

/// The connections as the policy sees them.
struct Lines;

impl Connections for Lines {
    type Member = Arc<Shared>;
    type Place = Spot;

    fn look(&self, shared: &Arc<Shared>) -> Look {
        shared.lock().look()
    }

    fn open(&mut self, shared: &Arc<Shared>) -> Option<Spot> {
        let mut connection = shared.lock();
        let handle = connection.open()?;
        Some(Spot {
            shared: Arc::clone(shared),
            handle,
            kept: connection.served,
        })
    }
}

/// What became of a request for a place.
enum Got {
    Place(Spot),
    Turn(Ticket, oneshot::Receiver<Result<Place, Error>>),
}

impl Pool {
    pub(super) fn new(target: Target, config: Arc<Config>, counters: Arc<Counters>) -> Arc<Self> {
        let policy = pool::Config {
            multiplex: config.multiplex,
            connections: config.connections,
            singles: config.single_connections.max(1),
            idle: config.single_idle,
            keep_conn: config.keep_conn,
            queue: config.queue,
            patience: config.patience,
            backoff: Some(Backoff {
                first: config.backoff,
                most: config.backoff_most,
            }),
        };
        Arc::new(Self {
            name: target.to_string().into(),
            target,
            config,
            counters,
            state: Mutex::new(State {
                policy: pool::Pool::new(policy, crate::clock::now()),
                error: None,
            }),
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
        self.lock().policy.failing(crate::clock::now())
    }

    /// Opens a connection to see whether that works again.
    pub(super) fn try_again(self: &Arc<Self>) {
        self.with(|state, now| state.policy.try_again(now));
    }

    /// Lets the policy decide, and does what it wants done.
    fn with<T>(self: &Arc<Self>, decide: impl FnOnce(&mut State, Instant) -> T) -> T {
        self.with_failure(None, decide)
    }

    /// The same; `failure`: why there is nothing to wait for, if not that it is too early to try.
    fn with_failure<T>(
        self: &Arc<Self>,
        mut failure: Option<Error>,
        decide: impl FnOnce(&mut State, Instant) -> T,
    ) -> T {
        let now = crate::clock::now();
        let mut actions = Vec::new();
        let decided = {
            let mut state = self.lock();
            let decided = decide(&mut state, now);
            while let Some(action) = state.policy.poll_action() {
                if matches!(action, Action::Fail(_)) {
                    failure.get_or_insert_with(|| self.unreachable(&state, now));
                }
                actions.push(action);
            }
            decided
        };
        for action in actions {
            match action {
                Action::Open { id, kind } => {
                    tokio::spawn(super::connection::run(Arc::clone(self), id, kind));
                }
                Action::Retire(shared) => shared.retire(),
                // Whoever does not wait any more gives the place back.
                Action::Give(waiter, spot) => drop(waiter.send(Ok(self.place(spot)))),
                Action::Fail(waiter) => {
                    drop(waiter.send(Err(failure.clone().unwrap_or(Error::Closed))));
                }
                Action::Judged {
                    verdict,
                    changed: true,
                    why,
                } => {
                    tracing::info!(address = %self.name, %why, "the application {}", kind(verdict));
                }
                _ => {}
            }
        }
        decided
    }

    fn place(self: &Arc<Self>, spot: Spot) -> Place {
        Place::new(self, spot.shared, spot.handle, spot.kept)
    }

    /// A place on a connection for a request, as soon as there is one.
    pub(super) async fn acquire(self: &Arc<Self>, wants: Wants) -> Result<Place, Error> {
        let load = Load::new(self);
        let mut asking = None;
        let got = self.with(|state, now| {
            let policy = &mut state.policy;
            if policy.verdict().is_single() {
                asking = policy.asking().cloned();
            }
            match policy.ask(wants, now, &mut Lines) {
                Asked::Placed(spot) => return Ok(Got::Place(spot)),
                Asked::Full => return Err(Error::QueueFull),
                Asked::Closed => return Err(Error::Closed),
                Asked::Wait => {}
            }
            let (tell, receiver) = oneshot::channel();
            match policy.wait(wants, tell, now, &mut Lines) {
                Ok(ticket) => Ok(Got::Turn(ticket, receiver)),
                Err(_) => Err(self.unreachable(state, now)),
            }
        });
        if let Some(asking) = asking {
            // It may hold the process that the request needs: the driver sees to that.
            asking.lock().wake_driver_now();
        }
        let (ticket, receiver) = match got? {
            Got::Place(spot) => {
                let place = self.place(spot);
                drop(load);
                return Ok(place);
            }
            Got::Turn(ticket, receiver) => (ticket, receiver),
        };
        let queued = Queued::new(self, ticket);
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
        self.acquire(Wants::default()).await.map(drop)
    }

    /// A connection has been established. On one that is to be shared the application is to be asked.
    pub(super) fn connected(self: &Arc<Self>, id: MemberId, kind: Kind) -> Arc<Shared> {
        self.counters.opened();
        let mut config = self.config.connection.clone();
        let mut most = self.config.max_requests;
        if kind != Kind::Shared {
            config.requests = 1;
            config.keep_conn = kind == Kind::Kept;
        }
        if kind == Kind::Once {
            most = 1;
        }
        let shared = Shared::new(config, id, kind, most, Arc::clone(&self.counters));
        let again = self.with(|state, now| {
            let again = state.policy.failing(now).is_some();
            let member = Arc::clone(&shared);
            state.policy.connected(id, member, now, &mut Lines);
            again
        });
        if again {
            tracing::info!(address = %self.name, "the application can be connected to again");
        }
        shared
    }

    /// A connection could not be opened: those that wait for it hear of it, unless there are others.
    pub(super) fn connect_failed(self: &Arc<Self>, id: MemberId, error: io::Error) {
        self.counters.connect_failures();
        let error = Arc::new(error);
        let failure = Error::Connect {
            address: Arc::clone(&self.name),
            source: Arc::clone(&error),
        };
        let first = self.with_failure(Some(failure), |state, now| {
            state.error = Some(Arc::clone(&error));
            state.policy.connect_failed(id, now, fastrand::f64())
        });
        if first {
            tracing::warn!(address = %self.name, %error, "cannot connect to the application");
        }
    }

    /// Why there is no connection to wait for.
    fn unreachable(&self, state: &State, now: Instant) -> Error {
        match (&state.error, state.policy.retry_in(now)) {
            (Some(source), Some(retry_in)) => Error::Unreachable {
                address: Arc::clone(&self.name),
                source: Arc::clone(source),
                retry_in,
            },
            _ => Error::Closed,
        }
    }

    /// A request has left a connection, or it gets no more of them: there may be room.
    pub(super) fn settle(self: &Arc<Self>, shared: &Shared) {
        self.with(|state, now| state.policy.changed(shared.id, now, &mut Lines));
    }

    /// A connection is no more.
    pub(super) fn gone(self: &Arc<Self>, shared: &Shared) {
        self.counters.closed();
        self.with(|state, now| state.policy.gone(shared.id, now, &mut Lines));
    }

    /// The application has answered GET_VALUES on a connection that is to be shared.
    pub(super) fn answered(self: &Arc<Self>, shared: &Shared, values: &Values) {
        let most = values.max_reqs.filter(|&most| most > 1);
        let most = most.and_then(|most| u16::try_from(most).ok());
        (shared.lock().connection).limit_requests(most.unwrap_or(u16::MAX));
        self.with(|state, now| {
            (state.policy).answered(shared.id, values, now, &mut Lines);
        });
    }

    /// The application has not answered GET_VALUES, or refused what it should take.
    pub(super) fn silent(self: &Arc<Self>, shared: &Shared, why: Why) {
        self.with(|state, now| state.policy.silent(shared.id, why, now, &mut Lines));
    }

    /// How long an application may go on not answering from when it was asked, as things are now;
    /// `round_trip`: what connecting to it took.
    pub(super) fn patience(&self, round_trip: Duration) -> Duration {
        let loaded = self.load() > 0;
        self.lock().policy.patience(round_trip, loaded)
    }

    /// No new requests; connections are closed when their last request has ended.
    pub(super) fn close(self: &Arc<Self>) {
        self.with(|state, _| {
            state.error = None;
            state.policy.close();
        });
    }

    pub(super) fn enter(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
        self.counters.begin();
    }

    pub(super) fn leave(&self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.counters.end();
    }
}

/// What a verdict says of the application.
const fn kind(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unknown => "has not been asked",
        Verdict::Shared { controlled: true } => "multiplexes, with flow control",
        Verdict::Shared { controlled: false } => "multiplexes, without flow control",
        Verdict::Single { .. } => "gets one request per connection",
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

/// Counts a request in the queue, and takes it out when it does not wait any more.
struct Queued<'a> {
    pool: &'a Pool,
    ticket: Ticket,
}

impl<'a> Queued<'a> {
    fn new(pool: &'a Pool, ticket: Ticket) -> Self {
        pool.counters.queued();
        Self { pool, ticket }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let waiter = self.pool.lock().policy.cancel(self.ticket);
        drop(waiter);
        self.pool.counters.unqueued();
    }
}
