//! Requests get their places, or wait, and connections are opened for them.

use std::time::Instant;

use super::config::{Kind, Wants};
use super::members::{MemberId, Phase};
use super::queue::{Ticket, Waiter};
use super::verdict::Verdict;
use super::{Action, Asked, Connections, Pool};

/// Shared connections that may be held up by requests that stalled, beside those that take new ones.
pub(super) const MOST_STALLED: usize = 1024;

impl<M: Clone, P, R> Pool<M, P, R> {
    /// A place for a request.
    pub fn ask<C>(&mut self, wants: Wants, now: Instant, connections: &mut C) -> Asked<P>
    where
        C: Connections<Member = M, Place = P>,
    {
        if self.closed {
            return Asked::Closed;
        }
        let alone = self.isolates(wants);
        let overtakes = match alone {
            true => self.queues.len() > 0,
            false => !self.queues.waiting.is_empty(),
        };
        if !overtakes && let Some(place) = self.place(wants, connections) {
            self.spread(now);
            return Asked::Placed(place);
        }
        match self.queues.len() >= self.config.queue.max(1) {
            true => Asked::Full,
            false => Asked::Wait,
        }
    }

    /// Puts a request into the queue for which there was no place, and opens the connection that it
    /// needs. The request itself comes back if there is nothing to wait for.
    pub fn wait<C>(
        &mut self,
        wants: Wants,
        request: R,
        now: Instant,
        connections: &mut C,
    ) -> Result<Ticket, R>
    where
        C: Connections<Member = M, Place = P>,
    {
        let ticket = self.queues.ticket();
        let alone = self.isolates(wants);
        let waiter = Waiter {
            ticket,
            wants,
            request,
        };
        match alone {
            true => self.queues.alone.push_back(waiter),
            false => self.queues.waiting.push_back(waiter),
        }
        self.grow(now, connections);
        match self.has_hope(alone) {
            true => Ok(ticket),
            false => self.queues.cancel(ticket).map_or(Ok(ticket), Err),
        }
    }

    /// A request does not wait any more. `None`: it has its place already, or has failed.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<R> {
        self.queues.cancel(ticket)
    }

    /// Whether a request needs a connection of its own.
    pub(super) const fn isolates(&self, wants: Wants) -> bool {
        match self.verdict {
            Verdict::Unknown => wants.single,
            Verdict::Shared { controlled } => wants.single || (wants.body && !controlled),
            Verdict::Single { .. } => true,
        }
    }

    /// Puts a request on a connection that takes it: of the shared ones the one with the fewest
    /// requests, of the others the one used last.
    fn place<C>(&mut self, wants: Wants, connections: &mut C) -> Option<P>
    where
        C: Connections<Member = M, Place = P>,
    {
        if self.most_requests < usize::MAX && self.active(connections) >= self.most_requests {
            return None;
        }
        loop {
            let id = match self.isolates(wants) {
                true => *self.members.idle().last()?,
                false => self.least(wants, connections)?,
            };
            let member = self.members.get(id)?;
            if let Some(place) = connections.open(member) {
                if self.members.phase(id) == Some(Phase::Idle) {
                    self.members.set(id, Phase::Busy);
                }
                return Some(place);
            }
            self.retire(id);
        }
    }

    /// The shared connection with the fewest requests that takes another one.
    fn least<C>(&self, wants: Wants, connections: &C) -> Option<MemberId>
    where
        C: Connections<Member = M, Place = P>,
    {
        let looks = self.members.ready().iter().filter_map(|&id| {
            let look = connections.look(self.members.get(id)?);
            let takes = look.takes && (!wants.body || look.controlled);
            takes.then_some((look.active, id))
        });
        looks.min_by_key(|&(active, _)| active).map(|(_, id)| id)
    }

    /// Requests that the application works on.
    fn active<C>(&self, connections: &C) -> usize
    where
        C: Connections<Member = M, Place = P>,
    {
        let shared = self
            .members
            .ready()
            .iter()
            .filter_map(|&id| self.members.get(id));
        let shared = shared.map(|member| connections.look(member).active);
        shared.fold(self.members.counts().busy, usize::saturating_add)
    }

    /// Gives waiting requests their places, as far as there are any, and opens connections for the
    /// others.
    pub(super) fn serve<C>(&mut self, now: Instant, connections: &mut C)
    where
        C: Connections<Member = M, Place = P>,
    {
        while let Some(wants) = self.queues.waiting.front().map(|waiter| waiter.wants) {
            if self.isolates(wants) {
                self.queues.part();
                continue;
            }
            let Some(place) = self.place(wants, connections) else {
                break;
            };
            let waiter = self.queues.waiting.pop_front();
            self.give(waiter, place);
        }
        while let Some(wants) = self.queues.alone.front().map(|waiter| waiter.wants) {
            let own = Wants {
                single: true,
                ..wants
            };
            // By now it may share one. It waits for either: a connection was opened for it.
            let mut place = self.place(wants, connections);
            if place.is_none() {
                place = self.place(own, connections);
            }
            let Some(place) = place else {
                break;
            };
            let waiter = self.queues.alone.pop_front();
            self.give(waiter, place);
        }
        if self.queues.len() > 0 {
            self.grow(now, connections);
            self.fail_hopeless();
        }
    }

    fn give(&mut self, waiter: Option<Waiter<R>>, place: P) {
        if let Some(waiter) = waiter {
            self.actions.push_back(Action::Give(waiter.request, place));
        }
    }

    /// Opens the connections that waiting requests need.
    fn grow<C>(&mut self, now: Instant, connections: &mut C)
    where
        C: Connections<Member = M, Place = P>,
    {
        if self.closed || self.is_too_early(now) {
            return;
        }
        if !self.verdict.is_single() && !self.queues.waiting.is_empty() {
            let (mut usable, mut retired) = (0_usize, Vec::new());
            for &id in self.members.ready() {
                let Some(look) = self.members.get(id).map(|it| connections.look(it)) else {
                    continue;
                };
                if look.retired {
                    retired.push(id);
                } else if !look.stalled {
                    usable = usable.saturating_add(1);
                }
            }
            for id in retired {
                self.retire(id);
            }
            // One that is held up by a request gets a stand-in.
            let most = self.config.connections.max(1);
            let counts = self.members.counts();
            if usable < most
                && counts.asking == 0
                && counts.ready < most.saturating_add(MOST_STALLED)
            {
                self.open(Kind::Shared);
            }
        }
        let most = self.most_singles();
        let wanted = self.queues.alone.len().min(most);
        loop {
            let counts = self.members.counts();
            let free = counts.opening.saturating_add(counts.idle);
            // After a failure one connection is to show that it works again.
            let tries = self.failures > 0 && free.saturating_add(counts.asking) > 0;
            if free >= wanted
                || counts.singles() >= most
                || (tries && self.config.backoff.is_some())
            {
                return;
            }
            self.open(self.single());
        }
    }

    /// How many connections for one request at a time there may be.
    fn most_singles(&self) -> usize {
        self.config.singles.min(self.most_connections).max(1)
    }

    /// Opens a further shared connection beside those in use, if more are wanted, or it is time to ask
    /// whether there may be any.
    fn spread(&mut self, now: Instant) {
        let counts = self.members.counts();
        match self.verdict {
            Verdict::Unknown => {}
            Verdict::Shared { .. } => {
                if counts.ready < self.config.connections
                    && counts.asking == 0
                    && !self.is_too_early(now)
                {
                    self.open(Kind::Shared);
                }
            }
            Verdict::Single { .. } => self.ask_again(now),
        }
    }

    /// Whether there is a connection to wait for: one that may have room, one that is being opened, or,
    /// where no further one may be opened, one that will be free.
    fn has_hope(&self, alone: bool) -> bool {
        let counts = self.members.counts();
        match alone || self.verdict.is_single() {
            true => {
                counts.opening > 0
                    || counts.idle > 0
                    || (counts.busy > 0 && counts.singles() >= self.most_singles())
            }
            false => counts.asking > 0 || counts.ready > 0,
        }
    }

    /// Those that wait hear that there is nothing to wait for.
    pub(super) fn fail_hopeless(&mut self) {
        if !self.queues.waiting.is_empty() && !self.has_hope(false) {
            for waiter in self.queues.waiting.drain(..) {
                self.actions.push_back(Action::Fail(waiter.request));
            }
        }
        if !self.queues.alone.is_empty() && !self.has_hope(true) {
            for waiter in self.queues.alone.drain(..) {
                self.actions.push_back(Action::Fail(waiter.request));
            }
        }
    }
}
