//! What the policy of a pool has decided is done: connections are opened and closed, and requests get
//! their places.

use std::rc::Rc;
use std::time::Instant;

use afcgi_proto::pool::{self, Action, Kind, MemberId};
use afcgi_proto::relay::Relay;

use super::Worker;
use crate::fake::Place;
use crate::host::{FakeConnection, Nginx, Socket};
use crate::keys::{FakeKey, PoolKey, RealKey};
use crate::pool::{Lines, Pool, Spot};
use crate::real::{Real, State};
use crate::status::Count;

impl<N: Nginx> Worker<N> {
    /// Lets the policy of a pool decide. What follows from it is to be [performed](Self::perform).
    pub(super) fn decide<T>(
        &mut self,
        pool: PoolKey,
        decide: impl FnOnce(&mut pool::Pool<RealKey, Spot, FakeKey>, &mut Lines<'_, N>) -> T,
    ) -> Option<T> {
        let Self { pools, reals, .. } = self;
        let Pool { policy, route, .. } = pools.get_mut(pool)?;
        let decided = decide(policy, &mut Lines { reals, route });
        Some(decided)
    }

    /// Does what the policy of a pool has decided. What it decides meanwhile is done in its turn.
    pub(super) fn perform(&mut self, key: PoolKey, now: Instant, log: N::Log) {
        if self.performing {
            return;
        }
        self.performing = true;
        while let Some(action) =
            (self.pools.get_mut(key)).and_then(|pool| pool.policy.poll_action())
        {
            match action {
                Action::Open { id, kind } => self.connect(key, id, kind, now, log),
                Action::Retire(real) => self.retire(real, now),
                Action::Give(fake, spot) => {
                    self.seat(fake, spot, now);
                    self.tell_fake(fake);
                }
                Action::Fail(fake) => {
                    let errno = self.pools.get(key).map_or(0, |pool| pool.errno);
                    if let Some(fake) = self.fakes.get_mut(fake) {
                        fake.place = Place::Failed(errno);
                    }
                    self.tell_fake(fake);
                }
                Action::Judged {
                    verdict,
                    changed,
                    why,
                } => self.judged(key, verdict, changed, why, now),
                _ => {}
            }
        }
        if let Some(pool) = self.pools.get_mut(key) {
            pool.show();
        }
        self.performing = false;
    }

    /// Tells nginx of a request that it has its place, or that there is none. It hears of the one that it
    /// is about to be given without that.
    fn tell_fake(&self, id: FakeKey) {
        let Some(fake) = self.fakes.get(id).filter(|_| self.opening != Some(id)) else {
            return;
        };
        match fake.place {
            Place::On { .. } => fake.connection.wake_write(),
            // Not by a write: nginx would count the request as sent, and not try another server with one
            // that must not be sent twice.
            Place::Failed(_) => fake.connection.wake_read(),
            Place::New | Place::Waiting(_) => {}
        }
    }

    /// Puts a request on the connection that it was opened on.
    pub(super) fn seat(&mut self, fake_id: FakeKey, (real_id, handle): Spot, now: Instant) {
        let Some(real) = self.reals.get_mut(real_id) else {
            return;
        };
        let Some(fake) = self.fakes.get_mut(fake_id) else {
            real.connection.close(handle, now);
            return;
        };
        if real.leads_astray(&fake.route) {
            real.connection.close(handle, now);
            fake.place = Place::Failed(0);
            return;
        }
        real.put(handle, fake_id);
        let mut relay = Relay::new(handle);
        if fake.wants.upgrade {
            relay = relay.with_upgrade();
        }
        fake.began = now;
        fake.place = Place::On {
            real: real_id,
            relay: Box::new(relay),
        };
        real.note_place(&mut fake.trace, handle, now);
    }

    /// Begins to connect.
    fn connect(&mut self, key: PoolKey, member: MemberId, kind: Kind, now: Instant, log: N::Log) {
        let Self { pools, reals, .. } = self;
        let Some(pool) = pools.get_mut(key) else {
            return;
        };
        let mut connected = false;
        let opened = reals.try_insert_with_key(|id| {
            let (sock, at_once) = N::connect(&pool.route.target, id, log).ok_or(())?;
            connected = at_once;
            sock.set_idle(true);
            let mut real = Real::new(sock, (key, member), Rc::clone(&pool.route), kind, now);
            real.share = pool.share.beside();
            real.arm(now);
            Ok::<_, ()>(real)
        });
        match opened {
            Ok(id) if connected => self.connected(id, now),
            Ok(_) => {}
            Err(()) => {
                pool.share.add(Count::ConnectFailures, 1);
                pool.errno = 0;
                pool.policy.connect_failed(member, now, 0.0);
            }
        }
    }

    /// A connection has been established. What follows is to be performed.
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
            // Where it does not multiplex, nginx may have sent it requests.
            let wait = pool.policy.patience(real.round_trip(now), true);
            real.state = State::Probing { until: now + wait };
            real.connection.probe();
            real.flush_soon();
            real.arm(now);
        } else {
            real.state = State::Ready;
        }
        real.note_connected();
        let (key, member) = (real.pool, real.member);
        self.decide(key, |policy, lines| {
            policy.connected(member, id, now, lines);
        });
    }

    /// A connection gets no more requests, and is closed when it has none.
    fn retire(&mut self, id: RealKey, now: Instant) {
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        real.connection.retire();
        if real.live == 0 && real.connection.is_finished() {
            self.close(id, now);
        } else {
            real.retire_soon();
        }
    }
}
