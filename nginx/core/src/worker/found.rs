//! Where pools are found by what they lead to.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::host::{Nginx, TargetRef};
use crate::keys::PoolKey;
use crate::status::Counts;

/// Addresses above which those are forgotten, now and then, that nothing leads to.
pub(super) const ADDRESSES: usize = 256;

/// Where pools are.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) by_hash: HashTable<PoolKey>,
    hasher: DefaultHashBuilder,
    /// Where requests are counted, by the names of addresses: what differs in the rest shares that.
    pub(super) counts: HashMap<String, Counts>,
    /// So many pools have the next look at which are in use.
    pub(super) sweep_at: usize,
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
    pub(super) fn hash(&self, target: &TargetRef<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(target.address);
        hasher.write(target.local);
        hasher.finish()
    }

    /// Where requests to the address of that name are counted.
    pub(super) fn counts<N: Nginx>(&mut self, name: &str) -> Counts {
        if let Some(counts) = self.counts.get(name) {
            return counts.clone();
        }
        let counts = N::counts(name);
        self.counts.insert(name.to_owned(), counts.clone());
        counts
    }

    /// Everything is to be counted elsewhere.
    pub(super) fn forget_counts(&mut self) {
        self.counts.clear();
    }
}
