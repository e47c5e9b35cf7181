//! Which connection takes a request, and when another one is opened.

use std::time::Instant;

use afcgi_proto::relay::Relay;
use afcgi_proto::web::Input;

use super::Worker;
use crate::fake::Place;
use crate::ffi::log::{self, Level};
use crate::ffi::sock::{LogTo, Sock};
use crate::pool::Verdict;
use crate::real::{Real, State};

impl Worker {
    /// Puts a request on a connection that has room for it.
    pub(super) fn try_place(&mut self, fake_id: usize, now: Instant) -> bool {
        let Some(pool) = self.fakes.get(fake_id).map(|fake| fake.pool) else {
            return false;
        };
        while let Some(real_id) = self.find(pool) {
            let Some(real) = self.reals.get_mut(real_id) else {
                continue;
            };
            let Ok(handle) = real.connection.open() else {
                self.settle(real_id, now);
                continue;
            };
            // The request is to hear of an answer that comes before it has asked for one.
            let _ = real.connection.read_into(handle, Input::Stdout, &mut []);
            real.put(handle, fake_id);
            if let Some(fake) = self.fakes.get_mut(fake_id) {
                fake.began = now;
                fake.place = Place::On {
                    real: real_id,
                    relay: Box::new(Relay::new(handle)),
                };
            }
            return true;
        }
        false
    }

    /// The connection that the next request is to go to: of the shared ones the one with the fewest
    /// requests, of the others the one used last.
    fn find(&mut self, pool_id: usize) -> Option<usize> {
        let Self { pools, reals, .. } = self;
        let pool = pools.get_mut(pool_id)?;
        if !matches!(pool.verdict, Verdict::Single { .. }) {
            return pool
                .shared
                .iter()
                .filter_map(|&id| Some((id, reals.get(id)?)))
                .filter(|(_, real)| real.has_room())
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
            reals.try_remove(id);
        }
        None
    }

    /// Opens the connections that so many more requests need. `false`: there is none, and none is
    /// being opened.
    pub(super) fn grow(&mut self, pool_id: usize, more: usize, now: Instant, log: LogTo) -> bool {
        let Some(pool) = self.pools.get(pool_id) else {
            return false;
        };
        let wanted = pool.waiting.len() + more;
        match pool.verdict {
            Verdict::Unknown | Verdict::Shared => {
                if self.may_share(pool_id) {
                    self.connect(pool_id, true, now, log);
                }
                self.pools
                    .get(pool_id)
                    .is_some_and(|pool| !pool.shared.is_empty() || pool.opening > 0)
            }
            Verdict::Single { until, .. } => {
                if until <= now && pool.shared.is_empty() {
                    self.connect(pool_id, true, now, log);
                }
                let has = |worker: &Self| {
                    worker
                        .pools
                        .get(pool_id)
                        .map_or(0, |pool| pool.opening + pool.idle.len())
                };
                while has(self) < wanted {
                    if !self.connect(pool_id, false, now, log) {
                        break;
                    }
                }
                has(self) > 0
            }
        }
    }

    /// Whether another shared connection is to be opened: there are not enough on which requests can
    /// be put, and none is on its way.
    fn may_share(&self, pool_id: usize) -> bool {
        let Some(pool) = self.pools.get(pool_id) else {
            return false;
        };
        let mut reals = pool.shared.iter().filter_map(|&id| self.reals.get(id));
        let usable = pool
            .shared
            .iter()
            .filter_map(|&id| self.reals.get(id))
            .filter(|real| !real.connection.is_blocked())
            .count();
        let most = usize::from(pool.settings.connections);
        // A connection that is held up by one request gets a stand-in.
        usable < most
            && pool.shared.len() < 2 * most
            && reals.all(|real| real.state == State::Ready)
    }

    /// Opens a further shared connection beside those in use, if more are wanted.
    pub(super) fn spread(&mut self, pool_id: usize, now: Instant) {
        let Some(pool) = self.pools.get(pool_id) else {
            return;
        };
        let wanted = pool.verdict == Verdict::Shared
            && pool.shared.len() < usize::from(pool.settings.connections);
        if wanted && self.may_share(pool_id) {
            self.connect(pool_id, true, now, LogTo::worker());
        }
    }

    /// Begins to connect. `false`: it failed.
    fn connect(&mut self, pool_id: usize, shared: bool, now: Instant, log: LogTo) -> bool {
        let Self { pools, reals, .. } = self;
        let Some(pool) = pools.get_mut(pool_id) else {
            return false;
        };
        let entry = reals.vacant_entry();
        let id = entry.key();
        let Some((sock, connected)) = Sock::connect(&pool.target, id, log) else {
            return false;
        };
        sock.set_idle(true);
        let requests = if shared { pool.settings.requests } else { 1 };
        let mut real = Real::new(sock, pool_id, shared, requests, now);
        real.arm(now);
        entry.insert(real);
        if shared {
            pool.shared.push(id);
        } else {
            pool.opening += 1;
        }
        if connected {
            self.connected(id, now);
        }
        true
    }

    /// A connection has been established.
    pub(super) fn connected(&mut self, id: usize, now: Instant) {
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        let Some(pool) = self.pools.get_mut(real.pool) else {
            return;
        };
        if let Some(sock) = &real.sock {
            sock.set_nodelay(&pool.target);
        }
        if real.shared {
            real.state = State::Probing {
                until: now + crate::real::PROBE_WAIT,
            };
            real.connection.probe();
            real.flush_soon();
            real.arm(now);
        } else {
            real.state = State::Ready;
            pool.opening = pool.opening.saturating_sub(1);
            pool.idle.push(id);
        }
    }

    /// Gives the waiting requests of a pool their connections, as far as there are any.
    pub(super) fn serve(&mut self, pool_id: usize, now: Instant) {
        while let Some(&fake_id) = self
            .pools
            .get(pool_id)
            .and_then(|pool| pool.waiting.front())
        {
            if !self.try_place(fake_id, now) {
                break;
            }
            if let Some(pool) = self.pools.get_mut(pool_id) {
                pool.waiting.pop_front();
            }
            if let Some(fake) = self.fakes.get(fake_id) {
                fake.connection.wake_write();
            }
        }
        let waits = |worker: &Self| {
            worker
                .pools
                .get(pool_id)
                .is_some_and(|pool| !pool.waiting.is_empty())
        };
        if !waits(self) {
            return;
        }
        if !self.grow(pool_id, 0, now, LogTo::worker()) {
            self.fail_waiting(pool_id, 0);
        } else if self.find_ready(pool_id) {
            // Connected at once.
            self.serve(pool_id, now);
        }
    }

    fn find_ready(&self, pool_id: usize) -> bool {
        self.pools
            .get(pool_id)
            .is_some_and(|pool| !pool.idle.is_empty())
    }

    /// No connection can be had: every waiting request of the pool hears of it.
    pub(super) fn fail_waiting(&mut self, pool_id: usize, errno: i32) {
        let Some(pool) = self.pools.get_mut(pool_id) else {
            return;
        };
        for fake_id in std::mem::take(&mut pool.waiting) {
            if let Some(fake) = self.fakes.get_mut(fake_id) {
                fake.place = Place::Failed(errno);
                // Not by a write: nginx would count the request as sent, and not try another server
                // with one that must not be sent twice.
                fake.connection.wake_read();
            }
        }
    }

    /// Takes note of what an application said, or did not say, on a probed connection.
    pub(super) fn judge(&mut self, pool_id: usize, verdict: Verdict, why: &str) {
        let Some(pool) = self.pools.get_mut(pool_id) else {
            return;
        };
        if std::mem::discriminant(&pool.verdict) != std::mem::discriminant(&verdict) {
            let name = &pool.target.name;
            let text = match verdict {
                Verdict::Shared => format!("{name} multiplexes: {why}"),
                _ => format!("{name} gets one request per connection: {why}"),
            };
            log::line(Level::Notice, &text);
        }
        pool.verdict = verdict;
    }
}
