//! Which request id is next.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::record::RequestId;

/// The ids of a connection: the lowest free one is taken, so that ids stay small.
///
/// An id whose request was aborted is taken again only when no other is left: some applications
/// send records for it after its END_REQUEST, and those must not reach another request.
///
/// Invariants: every id below `next` is taken, in `free` or in `late`, and in one of them only.
#[derive(Debug)]
pub(super) struct Ids {
    next: u32,
    most: u16,
    free: BinaryHeap<Reverse<RequestId>>,
    late: VecDeque<RequestId>,
}

impl Ids {
    /// Ids from 1 to `most`.
    pub(super) fn new(most: u16) -> Self {
        Self {
            next: 1,
            most,
            free: BinaryHeap::new(),
            late: VecDeque::new(),
        }
    }

    pub(super) fn take(&mut self) -> Option<RequestId> {
        if let Some(Reverse(id)) = self.free.pop() {
            return Some(id);
        }
        match u16::try_from(self.next) {
            Ok(next) if next <= self.most => {
                self.next = self.next.saturating_add(1);
                RequestId::new(next)
            }
            _ => self.late.pop_front(),
        }
    }

    /// Gives an id back whose END_REQUEST has come.
    pub(super) fn release(&mut self, id: RequestId, aborted: bool) {
        if aborted {
            self.late.push_back(id);
        } else {
            self.free.push(Reverse(id));
        }
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
        let mut ids = Ids::new(100);
        let taken: Vec<_> = (0..4).filter_map(|_| ids.take()).collect();
        assert_eq!(taken, [id(1), id(2), id(3), id(4)]);
        ids.release(id(3), false);
        ids.release(id(1), false);
        assert_eq!(ids.take(), Some(id(1)));
        assert_eq!(ids.take(), Some(id(3)));
        assert_eq!(ids.take(), Some(id(5)));
    }

    #[test]
    fn aborted_ids_come_last() {
        let mut ids = Ids::new(3);
        for _ in 0..3 {
            ids.take();
        }
        assert_eq!(ids.take(), None);
        ids.release(id(2), true);
        ids.release(id(1), true);
        ids.release(id(3), false);
        assert_eq!(ids.take(), Some(id(3)));
        assert_eq!(ids.take(), Some(id(2)));
        assert_eq!(ids.take(), Some(id(1)));
        assert_eq!(ids.take(), None);
    }

    #[test]
    fn r13_ids_end() {
        let mut ids = Ids::new(u16::MAX);
        let mut count = 0;
        while ids.take().is_some() {
            count += 1;
        }
        assert_eq!(count, 65_535);
    }
}
