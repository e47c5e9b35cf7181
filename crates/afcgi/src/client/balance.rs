//! The addresses of a client, and which of them the next request goes to.
//!
//! The one with the fewest requests, of those that can be connected to. All of them are looked at:
//! there are few, and an address that refuses connections at once has few requests too, so that a
//! choice by load alone, between two taken by chance, would send more and more there. Such an address is
//! tried beside the requests, until it works again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::config::Config;
use super::error::Error;
use super::pool::Pool;
use super::resolve::{self, Resolver, Target};
use super::stats::Counters;
use crate::address::Address;

#[derive(Debug)]
pub(super) struct Balance {
    addresses: Vec<Address>,
    resolver: Resolver,
    pub(super) config: Arc<Config>,
    pub(super) counters: Arc<Counters>,
    pools: Mutex<Arc<[Arc<Pool>]>>,
    /// Where to begin to look, so that equals get equally much.
    turn: AtomicUsize,
    /// Whether `pools` is what the addresses mean.
    resolved: AtomicBool,
    /// Held while the names are first looked up; when that failed last, and why.
    resolving: tokio::sync::Mutex<Option<(Instant, Error)>>,
}

impl Balance {
    pub(super) fn new(addresses: Vec<Address>, resolver: Resolver, config: Config) -> Arc<Self> {
        Arc::new(Self {
            addresses,
            resolver,
            config: Arc::new(config),
            counters: Arc::default(),
            pools: Mutex::new(Arc::new([])),
            turn: AtomicUsize::new(0),
            resolved: AtomicBool::new(false),
            resolving: tokio::sync::Mutex::new(None),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Arc<[Arc<Pool>]>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pools of all addresses.
    pub(super) async fn pools(self: &Arc<Self>) -> Result<Arc<[Arc<Pool>]>, Error> {
        if !self.resolved.load(Ordering::Acquire) {
            let mut failed = self.resolving.lock().await;
            if !self.resolved.load(Ordering::Acquire) {
                if let Some((at, error)) = &*failed
                    && crate::clock::now().saturating_duration_since(*at) < self.config.backoff
                {
                    return Err(error.clone());
                }
                if let Err(error) = self.resolve().await {
                    *failed = Some((crate::clock::now(), error.clone()));
                    return Err(error);
                }
                self.resolved.store(true, Ordering::Release);
                if self.addresses.iter().any(resolve::is_name) {
                    let wait = self.config.resolve_interval.max(Duration::from_millis(10));
                    tokio::spawn(resolve_again(Arc::downgrade(self), wait));
                }
            }
        }
        Ok(self.known())
    }

    /// The pools of the addresses that are known by now.
    pub(super) fn known(&self) -> Arc<[Arc<Pool>]> {
        Arc::clone(&self.lock())
    }

    /// Looks the names up. Fails where none of the addresses leads anywhere.
    async fn resolve(&self) -> Result<(), Error> {
        let mut wanted: Vec<Target> = Vec::new();
        let mut failure = None;
        for address in &self.addresses {
            let (wait, most) = (self.config.connect_timeout, self.config.resolve_most);
            match resolve::targets(address, &self.resolver, wait, most).await {
                Ok(targets) => {
                    for target in targets {
                        if !wanted.contains(&target) {
                            wanted.push(target);
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%address, %error, "an address leads nowhere");
                    failure = Some(error);
                }
            }
        }
        // A name that cannot be looked up now keeps what it had.
        let keep = failure.is_some();
        if let Some(error) = failure
            && wanted.is_empty()
            && self.lock().is_empty()
        {
            return Err(error);
        }
        let mut pools = self.lock();
        let mut next: Vec<_> = Vec::new();
        let mut dropped = Vec::new();
        for pool in pools.iter() {
            match keep || wanted.contains(&pool.target) {
                true => next.push(Arc::clone(pool)),
                false => dropped.push(Arc::clone(pool)),
            }
        }
        for target in wanted {
            if !next.iter().any(|pool| pool.target == target) {
                let (config, counters) = (Arc::clone(&self.config), Arc::clone(&self.counters));
                next.push(Pool::new(target, config, counters));
            }
        }
        *pools = next.into();
        drop(pools);
        for pool in dropped {
            tracing::info!(address = %pool.name, "an address is gone: it gets no more requests");
            pool.close();
        }
        Ok(())
    }

    /// The pool that the next request is to go to, other than those in `tried`; `None`: there is no
    /// other.
    pub(super) fn choose(&self, pools: &[Arc<Pool>], tried: &[Arc<Pool>]) -> Option<Arc<Pool>> {
        let fresh = |pool: &Arc<Pool>| !tried.iter().any(|tried| Arc::ptr_eq(tried, pool));
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let turn = turn.checked_rem(pools.len()).unwrap_or(0);
        let (late, early) = pools.split_at(turn);
        let mut best: Option<(u8, usize, &Arc<Pool>)> = None;
        let mut again = Vec::new();
        for pool in early.iter().chain(late).filter(|pool| fresh(pool)) {
            let rank = match pool.failing() {
                None => 0,
                Some(true) => {
                    again.push(pool);
                    1
                }
                Some(false) => 2,
            };
            let load = pool.load();
            if best.is_none_or(|(other, least, _)| (rank, load) < (other, least)) {
                best = Some((rank, load, pool));
            }
        }
        let (rank, _, pool) = best?;
        if rank == 0 {
            for failed in again {
                failed.try_again();
            }
        }
        Some(Arc::clone(pool))
    }

    /// Connections are closed when their last request has ended.
    pub(super) fn close(&self) {
        for pool in self.known().iter() {
            pool.close();
        }
    }
}

/// Looks the names up again and again, until the client is gone.
async fn resolve_again(balance: Weak<Balance>, wait: Duration) {
    loop {
        tokio::time::sleep(wait).await;
        let Some(balance) = balance.upgrade() else {
            return;
        };
        // It was logged, and what was known still holds.
        let _ = balance.resolve().await;
    }
}
