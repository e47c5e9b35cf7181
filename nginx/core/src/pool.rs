//! The connections of a worker to one address, and what is known of the application there.
//!
//! What is to be done with them is decided by [`afcgi_proto::pool`]. Requests to an application that does
//! not multiplex go by nginx's own connections, as they would without this module; only those that came
//! before that was known get connections here, one each.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Instant;

use afcgi_proto::Handle;
use afcgi_proto::pool::{self, Connections, Look};
use slotmap::SlotMap;

use crate::conf::Settings;
use crate::faults;
use crate::host::{Nginx, Socket};
use crate::keys::{FakeKey, PoolKey, RealKey};
use crate::real::{Real, Reals};
use crate::route::Route;
use crate::status::{Counts, Gauge, Share};

/// A request's place: a connection, and the request on it.
pub type Spot = (RealKey, Handle);

/// The pools of a worker.
pub type Pools = SlotMap<PoolKey, Pool>;

#[derive(Debug)]
pub struct Pool {
    pub route: Rc<Route>,
    /// By which the workers know the address.
    pub address: u64,
    /// By which the worker finds the pool.
    pub hash: u64,
    pub policy: pool::Pool<RealKey, Spot, FakeKey>,
    /// The system's error of the last try to connect, 0 if there was none.
    pub errno: i32,
    pub share: Share,
}

impl Pool {
    pub fn new(route: Rc<Route>, hash: u64, counts: Counts, now: Instant) -> Self {
        let mut hasher = DefaultHasher::new();
        route.target.address.hash(&mut hasher);
        let Settings {
            connections,
            requests,
            ..
        } = route.settings;
        let config = pool::Config {
            connections: connections.into(),
            // As many wait as would fill the connections a second time.
            queue: usize::from(connections) * usize::from(requests),
            ..pool::Config::default()
        };
        Self {
            route,
            address: hasher.finish(),
            hash,
            policy: pool::Pool::new(config, now),
            errno: 0,
            share: Share::new(counts),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.route.settings
    }

    /// The address for logs.
    pub fn name(&self) -> &str {
        &self.route.target.name
    }

    /// Shows how many requests wait.
    pub fn show(&mut self) {
        let waiting = self.policy.waiting();
        self.share.show(Gauge::Waiting, waiting);
    }
}

/// The connections of a worker, as the policy of one of its pools sees them.
pub struct Lines<'a, N: Nginx> {
    pub reals: &'a mut Reals<N>,
    /// Where the requests of the pool are to go.
    pub route: &'a Rc<Route>,
}

impl<N: Nginx> Connections for Lines<'_, N> {
    type Member = RealKey;
    type Place = Spot;

    fn look(&self, &id: &RealKey) -> Look {
        let Some(real) = self.reals.get(id) else {
            return Look {
                retired: true,
                ..Look::default()
            };
        };
        let connection = &real.connection;
        Look {
            active: connection.active(),
            takes: real.has_room(),
            retired: connection.is_retired(),
            controlled: connection.is_controlled(),
            stalled: connection.is_stalled(),
        }
    }

    fn open(&mut self, &id: &RealKey) -> Option<Spot> {
        let mut id = id;
        if faults::misdirects() {
            let wrong =
                |real: &Real<N>| real.is_shared() && real.has_room() && !real.route.is(self.route);
            let wrong = self.reals.iter().find(|(_, real)| wrong(real));
            id = wrong.map_or(id, |(id, _)| id);
        }
        let real = self.reals.get_mut(id)?;
        if real.leads_astray(self.route) {
            return None;
        }
        // nginx has not looked at it while it had no request.
        if !real.is_shared() && real.sock.as_ref().is_none_or(Socket::is_stale) {
            real.connection.retire();
            return None;
        }
        let handle = real.connection.open().ok()?;
        // The request is to hear of an answer that comes before it has asked for one.
        let _ = real.connection.notify_readable(handle);
        Some((id, handle))
    }
}
