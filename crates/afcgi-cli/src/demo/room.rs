//! What there may only be so many of at a time, and how many there are.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of places; a clone has the same ones.
#[derive(Clone, Debug)]
pub(super) struct Room {
    free: Arc<Semaphore>,
    most: usize,
}

/// A place, free again when it is dropped.
pub(super) type Place = OwnedSemaphorePermit;

impl Room {
    pub(super) fn new(most: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most)),
            most,
        }
    }

    /// `None` if there is no free place.
    pub(super) fn enter(&self) -> Option<Place> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    pub(super) fn taken(&self) -> usize {
        self.most - self.free.available_permits()
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_fills_and_empties() {
        let room = Room::new(2);
        let places = [room.enter(), room.enter()];
        assert!(places.iter().all(Option::is_some));
        assert!(room.enter().is_none());
        assert_eq!(room.taken(), 2);
        drop(places);
        assert_eq!((room.taken(), room.most()), (0, 2));
    }
}
