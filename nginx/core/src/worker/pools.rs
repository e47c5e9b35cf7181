//! Which pool is for which address, and what is known of the application there: by this worker, and
//! by all of them.

use std::rc::Rc;
use std::time::Instant;

use afcgi_proto::pool::Why;
use afcgi_proto::{Values, Verdict};

use super::Worker;
use super::found::ADDRESSES;
use crate::conf::Settings;
use crate::host::{Level, Nginx, TargetRef};
use crate::keys::{PoolKey, RealKey};
use crate::pool::Pool;
use crate::route::Route;
use crate::status::Fact;

impl<N: Nginx> Worker<N> {
    /// The pool for an address, a new one if there is none.
    pub(super) fn pool(
        &mut self,
        settings: Settings,
        target: TargetRef<'_>,
        now: Instant,
    ) -> PoolKey {
        let hash = self.found.hash(&target);
        let pools = &self.pools;
        let is_it = |&key: &PoolKey| {
            pools.get(key).is_some_and(|pool| {
                target.is(&pool.route.target) && pool.route.settings == settings
            })
        };
        if let Some(&key) = self.found.by_hash.find(hash, is_it) {
            return key;
        }
        if self.pools.len() >= self.found.sweep_at {
            self.sweep();
        }
        let target = target.to_target();
        let counts = self.found.counts::<N>(&target.name);
        let route = Rc::new(Route { target, settings });
        let key = self.pools.insert(Pool::new(route, hash, counts, now));
        let pools = &self.pools;
        let hash_of = |&key: &PoolKey| pools.get(key).map_or(0, |pool| pool.hash);
        self.found.by_hash.insert_unique(hash, key, hash_of);
        key
    }

    /// Forgets the pools that no connection and no request belongs to.
    fn sweep(&mut self) {
        let reals = self.reals.values().map(|real| real.pool);
        let fakes = self.fakes.values().map(|fake| fake.pool);
        let used: std::collections::HashSet<_> = reals.chain(fakes).collect();
        self.pools.retain(|key, _| used.contains(&key));
        let Self { pools, found, .. } = self;
        found.by_hash.retain(|&mut key| pools.contains_key(key));
        found.counts.retain(|_, counts| counts.is_shared());
        found.sweep_at = ADDRESSES.max(2 * pools.len());
    }

    /// Takes over what another worker, or this one before a reload, has found out about an
    /// application to which there is no connection here.
    pub(super) fn learn(&mut self, key: PoolKey, now: Instant) {
        if let Some(pool) = self.pools.get_mut(key)
            && let Some(verdict) = N::verdict(pool.address, now)
            && pool.policy.learn(verdict)
        {
            pool.show_verdict();
            self.perform(key, now, N::worker_log());
        }
    }

    /// What is known of an application has changed, or was confirmed.
    pub(super) fn judged(
        &self,
        key: PoolKey,
        verdict: Verdict,
        changed: bool,
        why: Why,
        now: Instant,
    ) {
        let Some(pool) = self.pools.get(key) else {
            return;
        };
        if changed {
            let what = match verdict {
                Verdict::Shared { controlled: true } => "multiplexes, with flow control",
                Verdict::Shared { controlled: false } => "multiplexes, without flow control",
                Verdict::Unknown => "is to be asked again",
                Verdict::Single { .. } => "gets one request per connection",
            };
            N::line(Level::Notice, &format!("{} {what}: {why}", pool.name()));
        }
        pool.show_verdict();
        N::tell(pool.address, verdict, now);
    }

    /// Asks an application again that does not multiplex, if it is time to, beside the requests that
    /// nginx sends there itself. Of the workers one asks.
    pub(super) fn ask_beside(&mut self, key: PoolKey, now: Instant) {
        let Some(pool) = self.pools.get_mut(key) else {
            return;
        };
        let before = pool.policy.verdict();
        pool.policy.ask_again(now);
        if pool.policy.verdict() != before {
            N::tell(pool.address, pool.policy.verdict(), now);
        }
        self.perform(key, now, N::worker_log());
    }

    /// The application did not answer GET_VALUES, or not as it had agreed to.
    pub(super) fn fell_silent(&mut self, id: RealKey, why: Why, now: Instant) {
        let Some((key, member)) = self.reals.get(id).map(|real| (real.pool, real.member)) else {
            return;
        };
        self.decide(key, |policy, lines| {
            policy.silent(member, why, now, lines);
        });
        self.perform(key, now, N::worker_log());
    }

    /// The application has answered GET_VALUES.
    pub(super) fn has_said(&mut self, id: RealKey, values: &Values, now: Instant) {
        let Some((key, member)) = self.reals.get(id).map(|real| (real.pool, real.member)) else {
            return;
        };
        self.decide(key, |policy, lines| {
            policy.answered(member, values, now, lines);
        });
        self.perform(key, now, N::worker_log());
        self.note_values(key, values);
    }
}

impl Pool {
    /// Shows what is known of the application; for the rest there is no answer yet.
    fn show_verdict(&self) {
        let multiplexes = match self.policy.verdict() {
            Verdict::Unknown => None,
            Verdict::Shared { .. } => Some(true),
            Verdict::Single { .. } => Some(false),
        };
        self.share.tell(Fact::Multiplexes, multiplexes);
        self.share.tell(Fact::FlowControl, None);
        self.share.tell(Fact::Upgrade, None);
    }
}
