//! The requests that wait for a connection, in the order of their arrival.

use std::collections::VecDeque;

use super::config::Wants;

/// Names a request in the queue of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

#[derive(Debug)]
pub(super) struct Waiter<R> {
    pub(super) ticket: Ticket,
    pub(super) wants: Wants,
    pub(super) request: R,
}

#[derive(Debug)]
pub(super) struct Queues<R> {
    /// For a place on a shared connection, or on any if there are none.
    pub(super) waiting: VecDeque<Waiter<R>>,
    /// For a connection of their own, though others share one.
    pub(super) alone: VecDeque<Waiter<R>>,
    next: u64,
}

impl<R> Queues<R> {
    pub(super) const fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            alone: VecDeque::new(),
            next: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len().saturating_add(self.alone.len())
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.next = self.next.wrapping_add(1);
        Ticket(self.next)
    }

    /// Takes a request out, wherever it waits. Tickets are in order in each queue.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> Option<R> {
        for queue in [&mut self.waiting, &mut self.alone] {
            if let Ok(at) = queue.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
                return queue.remove(at).map(|waiter| waiter.request);
            }
        }
        None
    }

    /// Moves the first of those that wait for a shared connection to those that need one of their own,
    /// among which it keeps the place that its arrival gives it.
    pub(super) fn part(&mut self) {
        if let Some(waiter) = self.waiting.pop_front() {
            let before = |other: &Waiter<R>| other.ticket < waiter.ticket;
            let at = self.alone.partition_point(before);
            self.alone.insert(at, waiter);
        }
    }

    /// All that wait are to have connections of their own.
    pub(super) fn part_all(&mut self) {
        let mut all: Vec<_> = self.waiting.drain(..).chain(self.alone.drain(..)).collect();
        all.sort_by_key(|waiter| waiter.ticket);
        self.alone = all.into();
    }
}
