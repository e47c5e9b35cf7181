//! Which request id is next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::record::RequestId;

/// Aborted requests after which a connection has done its part: half of all ids.
const MOST_GIVEN_UP: u16 = u16::MAX / 2;

/// The ids of a connection: the lowest free one is taken, so that ids stay small.
///
/// An id whose request was aborted is never taken again on its connection: some applications go on
/// sending records for it after its END_REQUEST, at any later time, and those must not reach another
/// request. When half of all ids are gone that way the connection is to be retired.
///
/// Invariant: every id below `next` is taken, in `free`, or was given up.
#[derive(Debug)]
pub(super) struct Ids {
    next: Option<RequestId>,
    free: BinaryHeap<Reverse<RequestId>>,
    given_up: u16,
}

impl Default for Ids {
    fn default() -> Self {
        Self {
            next: Some(RequestId::FIRST),
            free: BinaryHeap::new(),
            given_up: 0,
        }
    }
}

impl Ids {
    pub(super) fn take(&mut self) -> Option<RequestId> {
        if let Some(Reverse(id)) = self.free.pop() {
            return Some(id);
        }
        let id = self.next?;
        self.next = id.get().checked_add(1).and_then(RequestId::new);
        Some(id)
    }

    /// Whether [`Ids::take`] would give one.
    pub(super) fn has_next(&self) -> bool {
        self.next.is_some() || !self.free.is_empty()
    }

    /// Gives an id back whose END_REQUEST has come.
    pub(super) fn release(&mut self, id: RequestId, aborted: bool) {
        if aborted {
            self.given_up = self.given_up.saturating_add(1);
        } else {
            self.free.push(Reverse(id));
        }
    }

    /// Whether so many ids were given up that another connection serves better.
    pub(super) fn are_spent(&self) -> bool {
        self.given_up >= MOST_GIVEN_UP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> RequestId {
        RequestId::new(id).unwrap()
    }

    #[test]
    fn r10_the_lowest_free_id_is_taken() {
        let mut ids = Ids::default();
        let taken: Vec<_> = (0..4).filter_map(|_| ids.take()).collect();
        assert_eq!(taken, [id(1), id(2), id(3), id(4)]);
        ids.release(id(3), false);
        ids.release(id(1), false);
        assert_eq!(ids.take(), Some(id(1)));
        assert_eq!(ids.take(), Some(id(3)));
        assert_eq!(ids.take(), Some(id(5)));
    }

    #[test]
    fn r12_aborted_ids_are_never_taken_again() {
        let mut ids = Ids::default();
        let mut seen = std::collections::HashSet::new();
        while !ids.are_spent() {
            let id = ids.take().unwrap();
            assert!(seen.insert(id));
            ids.release(id, true);
        }
        assert_eq!(seen.len(), 32_767);
        assert_eq!(ids.take(), Some(id(32_768)));
    }

    #[test]
    fn r13_ids_end() {
        let mut ids = Ids::default();
        let mut count = 0;
        while ids.has_next() {
            assert!(ids.take().is_some());
            count += 1;
        }
        assert_eq!(count, 65_535);
        assert_eq!(ids.take(), None);
        ids.release(id(7), false);
        assert!(ids.has_next());
        assert_eq!(ids.take(), Some(id(7)));
    }
}
