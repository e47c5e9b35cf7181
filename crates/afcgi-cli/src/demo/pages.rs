//! The pages that are open, and what each has asked for.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::load::Clients;

/// What a page has, beside its stream.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) clients: Clients,
    /// Bytes of its download that were handed over to be sent.
    pub(super) handed: Arc<AtomicU64>,
}

/// The pages that are open, by a number that only they know; a clone has the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages(Arc<Mutex<HashMap<u64, Arc<Page>>>>);

/// The entry of a page, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    pages: Pages,
    pub(super) id: u64,
    pub(super) page: Arc<Page>,
}

impl Pages {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Page>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens one.
    pub(super) fn add(&self) -> Entry {
        let (id, page) = (fastrand::u64(..), Arc::<Page>::default());
        self.lock().insert(id, Arc::clone(&page));
        Entry {
            pages: self.clone(),
            id,
            page,
        }
    }

    /// The page that says so of itself, if it is open.
    pub(super) fn get(&self, id: &str) -> Option<Arc<Page>> {
        let id = u64::from_str_radix(id, 16).ok()?;
        self.lock().get(&id).cloned()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.pages.lock().remove(&self.id);
    }
}
