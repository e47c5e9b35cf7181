//! A connection to the application, shared by requests, or used by one after the other.

use std::rc::Rc;
use std::time::{Duration, Instant};

use afcgi_proto::Handle;
use afcgi_proto::pool::{Kind, MemberId};
use afcgi_proto::web::Connection;
use slotmap::SlotMap;

use crate::host::{Level, Nginx, Socket};
use crate::keys::{FakeKey, PoolKey, RealKey};
use crate::route::Route;
use crate::status::{Count, Share};

/// How long connecting may take. nginx's own `fastcgi_connect_timeout` bounds each request's wait.
pub const CONNECT_WAIT: Duration = Duration::from_secs(60);
/// How long an application may take to show that it still reads a connection, and how long one is read
/// that it cannot be written to.
pub const CHECK_WAIT: Duration = Duration::from_secs(3);
/// How long a connection is kept without a request that carries one after the other, to an application
/// that multiplexes without flow control.
pub const IDLE_WAIT: Duration = Duration::from_millis(250);

/// How far a connection is.
///
/// ```text
///  Connecting ──────> Probing ──────> Ready       (shared)
///       └───────────────────────────────^         (one request at a time)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Connecting { until: Instant },
    Probing { until: Instant },
    Ready,
}

/// The connections of a worker.
pub type Reals<N> = SlotMap<RealKey, Real<N>>;

/// Invariants: `live` counts the entries of `by_slot` that are set; without a socket the connection
/// is none of its pool's, and stays only until its last request has read what was received.
#[derive(Debug)]
pub struct Real<N: Nginx> {
    pub sock: Option<N::Sock>,
    pub connection: Connection,
    pub pool: PoolKey,
    /// By which its pool knows it.
    pub member: MemberId,
    /// Where it leads, whatever became of the pool.
    pub route: Rc<Route>,
    pub kind: Kind,
    pub state: State,
    opened_at: Instant,
    /// Whether a request has ended on it.
    pub served: bool,
    /// Whether its pool is to be told that there may be room.
    pub has_changed: bool,
    /// Whether its pool knows that it gets no more requests.
    pub is_leaving: bool,
    /// The requests on it, by the slots of their handles.
    by_slot: Vec<Option<(Handle, FakeKey)>>,
    pub live: usize,
    /// Received bytes that the protocol has not taken: a request is to be read first. At most one
    /// read.
    pub rest: Vec<u8>,
    pub received_at: Instant,
    /// Until when it is kept without a request.
    pub idle_until: Option<Instant>,
    /// When it is too old for further requests.
    expires: Instant,
    /// Requests that may still begin on it.
    left: u32,
    /// When it is read again, while one request overflows its buffer.
    pub read_at: Option<Instant>,
    /// Bytes that were read since the last such pause.
    pub burst: usize,
    /// Until when the application has to show that it still reads the connection.
    pub check_until: Option<Instant>,
    /// Until when it is read though it cannot be written to any more.
    pub closing_until: Option<Instant>,
    pub share: Share,
    /// The request that keeps it from being read, and since when.
    pub stall: Option<(Handle, Instant)>,
}

impl<N: Nginx> Real<N> {
    pub fn new(
        sock: N::Sock,
        (pool, member): (PoolKey, MemberId),
        route: Rc<Route>,
        kind: Kind,
        now: Instant,
    ) -> Self {
        let settings = route.settings;
        Self {
            sock: Some(sock),
            connection: Connection::new(settings.connection(kind)),
            pool,
            member,
            route,
            kind,
            opened_at: now,
            state: State::Connecting {
                until: now + CONNECT_WAIT,
            },
            served: false,
            has_changed: false,
            is_leaving: false,
            by_slot: Vec::new(),
            live: 0,
            rest: Vec::new(),
            received_at: now,
            idle_until: None,
            expires: now + settings.lifetime,
            left: settings.max_requests,
            read_at: None,
            burst: 0,
            check_until: None,
            closing_until: None,
            share: Share::default(),
            stall: None,
        }
    }

    /// Whether it does not lead where a request is to go. That cannot be, and is looked at all the same,
    /// since the request would reach another application with its cookies: the connection gets no more
    /// requests.
    pub fn leads_astray(&mut self, route: &Rc<Route>) -> bool {
        if self.route.is(route) {
            return false;
        }
        let (wanted, found) = (&route.target.name, &self.route.target.name);
        let text = format!(
            "a request to {wanted} was not put on a connection to {found}: this is a defect of the module, please report it"
        );
        N::line(Level::Alert, &text);
        self.share.add(Count::Astray, 1);
        self.connection.retire();
        true
    }

    /// Whether it is not the time to read, and the timer will tell when it is.
    pub fn pauses(&mut self, now: Instant) -> bool {
        if self.read_at.is_some_and(|at| at <= now) {
            self.read_at = None;
        }
        self.read_at.is_some()
    }

    /// Whether it takes no new requests because of its age.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires <= now
    }

    /// Whether requests share it.
    pub fn is_shared(&self) -> bool {
        self.kind == Kind::Shared
    }

    /// How long connecting took, which is a round trip, if it is connected now.
    pub fn round_trip(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened_at)
    }

    /// Asks the application for a sign that it reads the connection, if it has not been asked.
    pub fn check(&mut self, now: Instant) {
        if self.is_shared() && self.state == State::Ready && self.check_until.is_none() {
            self.check_until = Some(now + CHECK_WAIT);
            self.connection.probe();
        }
    }

    /// It gets no more requests, and is closed when it has none.
    pub fn retire_soon(&mut self) {
        if self.state == State::Ready {
            self.connection.retire();
            if let Some(sock) = &self.sock {
                sock.post_flush();
            }
        }
    }

    /// It cannot be written to any more, and is read until its end, for a while at most.
    pub fn close_by(&mut self, now: Instant) {
        self.connection.retire();
        self.closing_until = Some(now + CHECK_WAIT);
        if let Some(sock) = &self.sock {
            sock.read_next_turn();
        }
    }

    /// Whether it takes a request now.
    pub fn has_room(&self) -> bool {
        self.sock.is_some()
            && self.state == State::Ready
            && self.connection.has_room()
            && !self.connection.is_blocked()
    }

    /// The request of a handle.
    pub fn fake(&self, handle: Handle) -> Option<FakeKey> {
        let (owner, fake) = self.by_slot.get(handle.slot()).copied().flatten()?;
        (owner == handle).then_some(fake)
    }

    /// All requests on it.
    pub fn fakes(&self) -> Vec<FakeKey> {
        self.by_slot
            .iter()
            .flatten()
            .map(|&(_, fake)| fake)
            .collect()
    }

    pub fn put(&mut self, handle: Handle, fake: FakeKey) {
        if self.by_slot.len() <= handle.slot() {
            self.by_slot.resize(handle.slot() + 1, None);
        }
        if let Some(slot) = self.by_slot.get_mut(handle.slot())
            && slot.replace((handle, fake)).is_none()
        {
            self.live += 1;
        }
        if self.idle_until.take().is_some()
            && let Some(sock) = &self.sock
        {
            sock.set_reusable(false);
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.connection.retire();
        }
        self.mark_idle();
    }

    pub fn take(&mut self, handle: Handle) {
        if let Some(slot) = self.by_slot.get_mut(handle.slot())
            && slot.take_if(|(owner, _)| *owner == handle).is_some()
        {
            self.live -= 1;
        }
        self.mark_idle();
    }

    /// It has no request, and is kept so long, unless nginx needs room for another connection.
    pub fn keep_until(&mut self, until: Instant) {
        self.idle_until = Some(until);
        if let Some(sock) = &self.sock {
            sock.set_reusable(true);
        }
    }

    /// Takes a request away of which nothing else is left, and says whether it was here.
    pub fn forget(&mut self, fake: FakeKey) -> bool {
        let is_it = |(_, found): &mut (Handle, FakeKey)| *found == fake;
        let mut slots = self.by_slot.iter_mut();
        let found = slots.any(|slot| slot.take_if(is_it).is_some());
        if found {
            self.live -= 1;
        }
        found
    }

    /// nginx closes idle connections when a worker is to end.
    fn mark_idle(&self) {
        if let Some(sock) = &self.sock {
            sock.set_idle(self.live == 0);
        }
    }

    /// Has what is to be transmitted sent in this turn of the event loop, together with what other
    /// requests add. A socket that is full says by itself when it can go on: until then another try
    /// would be one of many.
    pub fn flush_soon(&self) {
        if let Some(sock) = &self.sock
            && self.closing_until.is_none()
            && sock.may_write()
            && !self.connection.transmit().is_empty()
        {
            sock.post_flush();
        }
    }

    /// Has the connection read again whose reading had stopped because of a request that was full, if
    /// that is not full any more or is gone. The event loop would not call by itself.
    pub fn resume_reading(&self) {
        if let Some(sock) = &self.sock
            && !self.rest.is_empty()
            && self.read_at.is_none()
            && !self.connection.is_blocked()
        {
            sock.read_next_turn();
        }
    }

    /// Sets the timer to what is due next.
    pub fn arm(&mut self, now: Instant) {
        let state = match self.state {
            State::Connecting { until } | State::Probing { until } => Some(until),
            State::Ready => self.idle_until,
        };
        let ages = self.is_shared() && self.state == State::Ready && !self.connection.is_retired();
        let expires = ages.then_some(self.expires);
        let due = (state.into_iter())
            .chain(self.check_until)
            .chain(self.closing_until)
            .chain(self.read_at)
            .chain(expires)
            .chain(self.connection.deadline(now))
            .min();
        if let (Some(sock), Some(due)) = (&self.sock, due) {
            sock.wake_at(now, due);
        }
    }
}
