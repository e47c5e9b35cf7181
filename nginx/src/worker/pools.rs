//! Which pool is for which address, and what is known of the application there: by this worker, and
//! by all of them.

use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::time::Instant;

use afcgi_proto::{Values, Verdict};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::Worker;
use crate::conf::Settings;
use crate::ffi::log::{self, Level};
use crate::ffi::sock::TargetRef;
use crate::ffi::zone;
use crate::keys::PoolKey;
use crate::pool::{Pool, Route};
use crate::status::{Counts, Fact};

/// Addresses above which those are forgotten, now and then, that nothing leads to.
const ADDRESSES: usize = 256;

/// Where pools are.
#[derive(Debug)]
pub(super) struct Found {
    by_hash: HashTable<PoolKey>,
    hasher: DefaultHashBuilder,
    /// Where requests are counted, by the names of addresses: what differs in the rest shares that.
    counts: HashMap<String, Counts>,
    /// So many pools have the next look at which are in use.
    sweep_at: usize,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            by_hash: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            counts: HashMap::new(),
            sweep_at: ADDRESSES,
        }
    }
}

impl Found {
    fn hash(&self, target: &TargetRef<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(target.address);
        hasher.write(target.local);
        hasher.finish()
    }

    /// Where requests to the address of that name are counted.
    pub(super) fn counts(&mut self, name: &str) -> Counts {
        if let Some(counts) = self.counts.get(name) {
            return counts.clone();
        }
        let counts = zone::counts(name);
        self.counts.insert(name.to_owned(), counts.clone());
        counts
    }

    /// Everything is to be counted elsewhere.
    pub(super) fn forget_counts(&mut self) {
        self.counts.clear();
    }
}

impl Worker {
    /// The pool for an address, a new one if there is none.
    pub(super) fn pool(&mut self, settings: Settings, target: TargetRef<'_>) -> PoolKey {
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
        let counts = self.found.counts(&target.name);
        let route = Rc::new(Route { target, settings });
        let key = self.pools.insert(Pool::new(route, hash, counts));
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
            && pool.shared.is_empty()
            && let Some(verdict) = zone::verdict(pool.address, now)
            && verdict != pool.verdict
        {
            pool.verdict = verdict;
            pool.judged();
        }
    }

    /// What is known of an application has changed, or was confirmed.
    pub(super) fn judge(&mut self, key: PoolKey, verdict: Verdict, why: &str, now: Instant) {
        let Some(pool) = self.pools.get_mut(key) else {
            return;
        };
        if !pool.verdict.agrees(verdict) {
            let name = pool.name();
            let text = match verdict {
                Verdict::Shared { controlled: true } => {
                    format!("{name} multiplexes, with flow control: {why}")
                }
                Verdict::Shared { controlled: false } => {
                    format!("{name} multiplexes, without flow control: {why}")
                }
                Verdict::Unknown => format!("{name} is to be asked again: {why}"),
                Verdict::Single { .. } => {
                    format!("{name} gets one request per connection: {why}")
                }
            };
            log::line(Level::Notice, &text);
        }
        pool.verdict = verdict;
        pool.judged();
        zone::tell(pool.address, verdict, now);
        if verdict.is_single() {
            // A used connection may lead to a process that takes no other request.
            for id in std::mem::take(&mut pool.idle) {
                self.reals.remove(id);
            }
            // Those that were shared end with their requests.
            for id in &pool.shared {
                if let Some(real) = self.reals.get_mut(*id) {
                    real.retire_soon();
                }
            }
        }
    }

    /// The application did not answer GET_VALUES, or not as it had agreed to.
    pub(super) fn fell_silent(&mut self, key: PoolKey, why: &str, now: Instant) {
        if let Some(pool) = self.pools.get(key) {
            let verdict = pool.verdict.silent(now, &Pool::patience());
            self.judge(key, verdict, why, now);
        }
    }

    /// The application has answered GET_VALUES.
    pub(super) fn has_said(&mut self, key: PoolKey, values: &Values, now: Instant) {
        if let Some(pool) = self.pools.get(key) {
            let verdict = pool.verdict.answered(values, now, &Pool::patience());
            self.judge(key, verdict, "that is its answer to GET_VALUES", now);
            self.note_values(key, values);
        }
    }

    /// No connection can be opened.
    pub(super) fn is_unreachable(&mut self, key: PoolKey, now: Instant) {
        if let Some(pool) = self.pools.get_mut(key) {
            pool.verdict = pool.verdict.unreachable(now, &Pool::patience());
            zone::tell(pool.address, pool.verdict, now);
        }
    }
}

impl Pool {
    /// Shows what is known of the application; for the rest there is no answer yet.
    fn judged(&self) {
        let multiplexes = match self.verdict {
            Verdict::Unknown => None,
            Verdict::Shared { .. } => Some(true),
            Verdict::Single { .. } => Some(false),
        };
        self.share.tell(Fact::Multiplexes, multiplexes);
        self.share.tell(Fact::FlowControl, None);
        self.share.tell(Fact::Upgrade, None);
    }
}
