//! The requests of a connection: slots, handles with a generation, and the map from the ids on the
//! wire to slots.
//!
//! A slot and an id have lives of their own. The web side gives an id free when END_REQUEST comes,
//! while the slot stays until the consumer has taken what was received.

use crate::error::Gone;
use crate::record::RequestId;

/// Names one request of one connection. A late call with the handle of a request that has ended
/// fails with [`Gone`], also when its id or slot serves another request by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    id: RequestId,
    slot: u32,
    generation: u32,
}

impl Handle {
    /// The id on the wire.
    pub const fn id(self) -> RequestId {
        self.id
    }

    /// The slot: small and dense, below the largest number of requests at a time, for a table of
    /// the caller's that lies beside the connection's.
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

const PAGE: usize = 256;
const NONE: u32 = u32::MAX;

/// Ids to slots, in pages that are made when first used: a few low ids cost 1 KiB, and an id that a
/// peer picks from the top of the range costs no more.
#[derive(Debug, Default)]
struct Index {
    pages: Vec<Option<Box<[u32; PAGE]>>>,
}

impl Index {
    fn place(id: RequestId) -> (usize, usize) {
        let id = usize::from(id.get());
        (id >> 8, id & 0xff)
    }

    fn get(&self, id: RequestId) -> Option<u32> {
        let (page, entry) = Self::place(id);
        let slot = *self.pages.get(page)?.as_ref()?.get(entry)?;
        (slot != NONE).then_some(slot)
    }

    fn set(&mut self, id: RequestId, slot: u32) {
        let (page, entry) = Self::place(id);
        if self.pages.len() <= page {
            self.pages.resize_with(page.saturating_add(1), || None);
        }
        if let Some(page) = self.pages.get_mut(page) {
            let page = page.get_or_insert_with(|| Box::new([NONE; PAGE]));
            if let Some(entry) = page.get_mut(entry) {
                *entry = slot;
            }
        }
    }
}

#[derive(Debug)]
enum Slot<T> {
    Used { handle: Handle, value: T },
    Free { generation: u32, next: u32 },
}

/// The requests of a connection.
///
/// Invariants: each id maps to at most one used slot; `used` counts the used slots; the free slots
/// form one list from `free`; a generation never repeats within 2^32 uses of a slot.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Slot<T>>,
    index: Index,
    free: u32,
    used: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            index: Index::default(),
            free: NONE,
            used: 0,
        }
    }
}

impl<T> Table<T> {
    /// How many slots are in use.
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Whether no slot is in use.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Puts a request into a free slot, under an id that is not taken.
    pub fn insert(&mut self, id: RequestId, value: T) -> Handle {
        let handle = match self.slots.get_mut(self.free as usize) {
            Some(slot @ &mut Slot::Free { generation, next }) => {
                let handle = Handle {
                    id,
                    slot: self.free,
                    generation,
                };
                self.free = next;
                *slot = Slot::Used { handle, value };
                handle
            }
            _ => {
                let handle = Handle {
                    id,
                    slot: u32::try_from(self.slots.len()).unwrap_or(NONE),
                    generation: 0,
                };
                self.slots.push(Slot::Used { handle, value });
                handle
            }
        };
        self.used = self.used.saturating_add(1);
        self.index.set(id, handle.slot);
        handle
    }

    /// The request that is active under an id.
    pub fn find(&self, id: RequestId) -> Option<Handle> {
        let slot = self.index.get(id)?;
        match self.slots.get(slot as usize)? {
            Slot::Used { handle, .. } => Some(*handle),
            Slot::Free { .. } => None,
        }
    }

    /// The request of a handle.
    pub fn get(&self, handle: Handle) -> Result<&T, Gone> {
        match self.slots.get(handle.slot()) {
            Some(Slot::Used { handle: at, value }) if *at == handle => Ok(value),
            _ => Err(Gone),
        }
    }

    /// The request of a handle, to change it.
    pub fn get_mut(&mut self, handle: Handle) -> Result<&mut T, Gone> {
        match self.slots.get_mut(handle.slot()) {
            Some(Slot::Used { handle: at, value }) if *at == handle => Ok(value),
            _ => Err(Gone),
        }
    }

    /// The request that is active under an id, to change it.
    pub fn find_mut(&mut self, id: RequestId) -> Option<(Handle, &mut T)> {
        let slot = self.index.get(id)?;
        match self.slots.get_mut(slot as usize)? {
            Slot::Used { handle, value } => Some((*handle, value)),
            Slot::Free { .. } => None,
        }
    }

    /// Makes the id free; the slot stays.
    pub fn release_id(&mut self, handle: Handle) {
        if self.index.get(handle.id) == Some(handle.slot) && self.get(handle).is_ok() {
            self.index.set(handle.id, NONE);
        }
    }

    /// Takes a request out: its slot, and its id if that is still its own, are free again.
    pub fn remove(&mut self, handle: Handle) -> Result<T, Gone> {
        self.get(handle)?;
        self.release_id(handle);
        let slot = self.slots.get_mut(handle.slot()).ok_or(Gone)?;
        let free = Slot::Free {
            generation: handle.generation.wrapping_add(1),
            next: self.free,
        };
        let Slot::Used { value, .. } = std::mem::replace(slot, free) else {
            return Err(Gone);
        };
        self.free = handle.slot;
        self.used = self.used.saturating_sub(1);
        Ok(value)
    }

    /// All requests.
    pub fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Used { handle, value } => Some((*handle, value)),
            Slot::Free { .. } => None,
        })
    }

    /// The handles of all requests.
    pub fn handles(&self) -> Vec<Handle> {
        self.iter().map(|(handle, _)| handle).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> RequestId {
        RequestId::new(id).unwrap()
    }

    #[test]
    fn r10_stale_handles_never_reach_a_reused_id() {
        let mut table = Table::default();
        let old = table.insert(id(1), "old");
        assert_eq!(table.remove(old), Ok("old"));
        let new = table.insert(id(1), "new");
        assert_eq!((old.slot(), old.id()), (new.slot(), new.id()));
        assert_eq!(table.get(old), Err(Gone));
        assert_eq!(table.remove(old), Err(Gone));
        assert_eq!(table.get(new), Ok(&"new"));
    }

    #[test]
    fn r13_all_ids_at_once() {
        let mut table = Table::default();
        let handles: Vec<_> = (1..=u16::MAX).map(|n| table.insert(id(n), n)).collect();
        assert_eq!(table.len(), 65_535);
        for (n, handle) in (1..=u16::MAX).zip(&handles) {
            assert_eq!(table.find(id(n)), Some(*handle));
            assert_eq!(table.get(*handle), Ok(&n));
        }
        for handle in handles {
            table.remove(handle).unwrap();
        }
        assert!(table.is_empty());
        assert_eq!(table.find(id(7)), None);
    }

    #[test]
    fn a_released_id_serves_another_slot() {
        let mut table = Table::default();
        let first = table.insert(id(5), 1);
        table.release_id(first);
        assert_eq!(table.find(id(5)), None);
        let second = table.insert(id(5), 2);
        assert_ne!(first.slot(), second.slot());
        table.release_id(first);
        assert_eq!(table.remove(first), Ok(1));
        assert_eq!(table.find(id(5)), Some(second));
    }

    #[test]
    fn a_high_id_costs_one_page() {
        let mut table = Table::default();
        table.insert(id(65_535), ());
        let made = table.index.pages.iter().flatten().count();
        assert_eq!(made, 1);
    }

    #[test]
    fn slots_are_dense() {
        let mut table = Table::default();
        for round in 0..1000_u16 {
            let a = table.insert(id(round + 1), ());
            let b = table.insert(id(round + 2), ());
            assert!(a.slot() < 2 && b.slot() < 2);
            table.remove(a).unwrap();
            table.remove(b).unwrap();
        }
    }
}
