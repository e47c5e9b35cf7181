//! Which connection takes a request, and when another one is opened.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use afcgi_proto::Verdict;
use afcgi_proto::relay::Relay;

use super::Worker;
use crate::fake::{Place, Wants};
use crate::faults;
use crate::ffi::log::{self, Level};
use crate::ffi::sock::{LogTo, Sock};
use crate::ffi::zone;
use crate::keys::{FakeKey, PoolKey, RealKey};
use crate::pool::Pool;
use crate::real::{Kind, Real, State};
use crate::status::Count;

/// Shared connections of an address that may be held up by requests that stalled, beside those that
/// take new ones.
const MOST_STALLED: usize = 1024;

/// Whether there is a connection to wait for, an open one or one that is being opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Grown {
    /// For requests in the queue for shared connections.
    pub(super) shared: bool,
    /// For those that need one of their own.
    pub(super) alone: bool,
}

impl Worker {
    /// Puts a request on a connection that has room for it.
    pub(super) fn try_place(&mut self, fake_id: FakeKey, now: Instant) -> bool {
        let Some((pool, wants)) = self.fakes.get(fake_id).map(|fake| (fake.pool, fake.wants))
        else {
            return false;
        };
        while let Some(real_id) = self.find(pool, wants) {
            if self.is_astray(fake_id, real_id) {
                continue;
            }
            let Some(real) = self.reals.get_mut(real_id) else {
                continue;
            };
            let Ok(handle) = real.connection.open() else {
                self.settle(real_id, now);
                continue;
            };
            // The request is to hear of an answer that comes before it has asked for one.
            let _ = real.connection.notify_readable(handle);
            real.put(handle, fake_id);
            let mut relay = Relay::new(handle);
            if wants.upgrade {
                relay = relay.with_upgrade();
            }
            if let Some(fake) = self.fakes.get_mut(fake_id) {
                fake.began = now;
                fake.place = Place::On {
                    real: real_id,
                    relay: Box::new(relay),
                };
                real.note_place(&mut fake.trace, handle, now);
            }
            self.drop_retired(real_id);
            return true;
        }
        false
    }

    /// Whether a connection does not lead where a request is to go. That cannot be, and is looked at all
    /// the same, since the request would reach another application with its cookies: the connection
    /// gets no more requests.
    fn is_astray(&mut self, fake: FakeKey, id: RealKey) -> bool {
        let (Some(fake), Some(real)) = (self.fakes.get(fake), self.reals.get_mut(id)) else {
            return false;
        };
        if real.route.is(&fake.route) {
            return false;
        }
        let (wanted, found) = (&fake.route.target.name, &real.route.target.name);
        let text = format!(
            "a request to {wanted} was not put on a connection to {found}: this is a defect of the module, please report it"
        );
        log::line(Level::Alert, &text);
        real.share.add(Count::Astray, 1);
        real.connection.retire();
        if let Some(pool) = self.pools.get_mut(fake.pool) {
            pool.shared.retain(|&shared| shared != id);
        }
        self.drop_retired(id);
        true
    }

    /// The connection that the next request is to go to: of the shared ones the one with the fewest
    /// requests, of the others the one used last.
    fn find(&mut self, pool_id: PoolKey, wants: Wants) -> Option<RealKey> {
        let Self { pools, reals, .. } = self;
        let pool = pools.get_mut(pool_id)?;
        if faults::misdirects()
            && let Some((id, _)) = (reals.iter())
                .find(|(_, real)| real.pool != pool_id && real.is_shared() && real.has_room())
        {
            return Some(id);
        }
        if !pool.isolates(wants) {
            return pool
                .shared
                .iter()
                .filter_map(|&id| Some((id, reals.get(id)?)))
                .filter(|(_, real)| real.has_room())
                .filter(|(_, real)| !wants.body || real.connection.is_controlled())
                .min_by_key(|(_, real)| real.connection.active())
                .map(|(id, _)| id);
        }
        while let Some(id) = pool.idle.pop() {
            let stale = reals.get(id).is_none_or(|real| {
                !real.has_room() || real.sock.as_ref().is_none_or(Sock::is_stale)
            });
            if !stale {
                return Some(id);
            }
            // Nobody uses it.
            reals.remove(id);
        }
        None
    }

    /// Opens the connections that the requests in the queues need, and says whether those in either
    /// queue have one to wait for.
    pub(super) fn grow(&mut self, pool_id: PoolKey, now: Instant, log: LogTo) -> Grown {
        let Some(pool) = self.pools.get(pool_id) else {
            return Grown::default();
        };
        let wanted = pool.singles_wanted();
        let kind = match pool.verdict {
            Verdict::Single { .. } => Kind::Once,
            Verdict::Unknown | Verdict::Shared { .. } => Kind::Kept,
        };
        if pool.shared_wanted() && self.may_share(pool_id) {
            self.connect(pool_id, Kind::Shared, now, log);
        }
        let has = |worker: &Self| worker.pools.get(pool_id).map_or(0, Pool::singles);
        while has(self) < wanted {
            if !self.connect(pool_id, kind, now, log) {
                break;
            }
        }
        let Some(pool) = self.pools.get(pool_id) else {
            return Grown::default();
        };
        let alone = pool.singles() > 0;
        Grown {
            alone,
            shared: match pool.verdict {
                Verdict::Single { .. } => alone,
                Verdict::Unknown | Verdict::Shared { .. } => !pool.shared.is_empty(),
            },
        }
    }

    /// Asks an application again that does not multiplex, if it is time to, beside the requests that
    /// nginx sends there itself. Of the workers one asks.
    pub(super) fn ask_beside(&mut self, pool_id: PoolKey, now: Instant) {
        let Some(pool) = self.pools.get_mut(pool_id) else {
            return;
        };
        if pool.verdict.is_due(now) && pool.shared.is_empty() {
            pool.verdict = pool.verdict.asking(now, &Pool::patience());
            zone::tell(pool.address, pool.verdict, now);
            self.connect(pool_id, Kind::Shared, now, LogTo::worker());
        }
    }

    /// Whether another shared connection is to be opened: there are not enough on which requests can
    /// be put, and none is on its way.
    fn may_share(&self, pool_id: PoolKey) -> bool {
        let Some(pool) = self.pools.get(pool_id) else {
            return false;
        };
        let mut reals = pool.shared.iter().filter_map(|&id| self.reals.get(id));
        let usable = (pool.shared.iter())
            .filter_map(|&id| self.reals.get(id))
            .filter(|real| !real.connection.is_stalled())
            .count();
        let most = usize::from(pool.settings().connections);
        // A connection that is held up by one request gets a stand-in.
        usable < most
            && pool.shared.len() < most + MOST_STALLED
            && reals.all(|real| real.state == State::Ready)
    }

    /// Opens a further shared connection beside those in use, if more are wanted.
    pub(super) fn spread(&mut self, pool_id: PoolKey, now: Instant) {
        let Some(pool) = self.pools.get(pool_id) else {
            return;
        };
        let wanted = matches!(pool.verdict, Verdict::Shared { .. })
            && pool.shared.len() < usize::from(pool.settings().connections);
        if wanted && self.may_share(pool_id) {
            self.connect(pool_id, Kind::Shared, now, LogTo::worker());
        }
    }

    /// Begins to connect. `false`: it failed.
    fn connect(&mut self, pool_id: PoolKey, kind: Kind, now: Instant, log: LogTo) -> bool {
        let Self { pools, reals, .. } = self;
        let Some(pool) = pools.get_mut(pool_id) else {
            return false;
        };
        let mut connected = false;
        let opened = reals.try_insert_with_key(|id| {
            let (sock, at_once) = Sock::connect(&pool.route.target, id, log).ok_or(())?;
            connected = at_once;
            sock.set_idle(true);
            let mut real = Real::new(sock, pool_id, Rc::clone(&pool.route), kind, now);
            real.share = pool.share.beside();
            real.arm(now);
            Ok::<_, ()>(real)
        });
        let Ok(id) = opened else {
            pool.share.add(Count::ConnectFailures, 1);
            self.is_unreachable(pool_id, now);
            return false;
        };
        match kind {
            Kind::Shared => pool.shared.push(id),
            Kind::Kept | Kind::Once => pool.opening += 1,
        }
        if connected {
            self.connected(id, now);
        }
        true
    }

    /// A connection has been established.
    pub(super) fn connected(&mut self, id: RealKey, now: Instant) {
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        let Some(pool) = self.pools.get_mut(real.pool) else {
            return;
        };
        if let Some(sock) = &real.sock {
            sock.set_nodelay(&real.route.target);
        }
        if real.is_shared() {
            let patience = Pool::patience();
            let wait = match pool.verdict {
                // The process that is asked may be the one that a request waits for.
                verdict @ Verdict::Single { .. } => patience.beside(verdict, real.round_trip(now)),
                verdict => patience.of(verdict, real.round_trip(now)),
            };
            real.state = State::Probing { until: now + wait };
            real.connection.probe();
            real.flush_soon();
            real.arm(now);
        } else {
            real.state = State::Ready;
            pool.opening = pool.opening.saturating_sub(1);
            pool.idle.push(id);
        }
        real.note_connected();
    }

    /// Gives the waiting requests of a pool their connections, as far as there are any.
    pub(super) fn serve(&mut self, pool_id: PoolKey, now: Instant) {
        loop {
            self.serve_queue(pool_id, |pool| &mut pool.alone, now);
            self.part(pool_id);
            self.serve_queue(pool_id, |pool| &mut pool.waiting, now);
            self.part(pool_id);
            let Some(pool) = self.pools.get(pool_id) else {
                return;
            };
            if pool.waiting.is_empty() && pool.alone.is_empty() {
                return;
            }
            let grown = self.grow(pool_id, now, LogTo::worker());
            if !grown.shared {
                self.fail_queue(pool_id, |pool| &mut pool.waiting, 0);
            }
            if !grown.alone {
                self.fail_queue(pool_id, |pool| &mut pool.alone, 0);
            }
            let connected_at_once = self
                .pools
                .get(pool_id)
                .is_some_and(|pool| pool.singles_wanted() > 0 && !pool.idle.is_empty());
            if !connected_at_once {
                return;
            }
        }
    }

    /// Those at the head of the queue for shared connections that turn out to need connections of
    /// their own get into the other queue.
    fn part(&mut self, pool_id: PoolKey) {
        let Self { pools, fakes, .. } = self;
        let Some(pool) = pools.get_mut(pool_id) else {
            return;
        };
        if matches!(pool.verdict, Verdict::Single { .. }) {
            return;
        }
        while let Some(&fake) = pool.waiting.front()
            && (fakes.get(fake)).is_some_and(|fake| pool.isolates(fake.wants))
        {
            pool.waiting.pop_front();
            pool.alone.push_back(fake);
        }
    }

    fn serve_queue(
        &mut self,
        pool_id: PoolKey,
        queue: fn(&mut Pool) -> &mut VecDeque<FakeKey>,
        now: Instant,
    ) {
        while let Some(&fake_id) = self
            .pools
            .get_mut(pool_id)
            .and_then(|pool| queue(pool).front())
        {
            if !self.try_place(fake_id, now) {
                break;
            }
            if let Some(pool) = self.pools.get_mut(pool_id) {
                queue(pool).pop_front();
                pool.show();
            }
            if let Some(fake) = self.fakes.get(fake_id) {
                fake.connection.wake_write();
            }
        }
    }

    /// No connection can be had: every request that waits in the queue hears of it.
    pub(super) fn fail_queue(
        &mut self,
        pool_id: PoolKey,
        queue: fn(&mut Pool) -> &mut VecDeque<FakeKey>,
        errno: i32,
    ) {
        let Some(pool) = self.pools.get_mut(pool_id) else {
            return;
        };
        for fake_id in std::mem::take(queue(pool)) {
            if let Some(fake) = self.fakes.get_mut(fake_id) {
                fake.place = Place::Failed(errno);
                // Not by a write: nginx would count the request as sent, and not try another server
                // with one that must not be sent twice.
                fake.connection.wake_read();
            }
        }
        pool.show();
    }
}
