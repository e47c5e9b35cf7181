//! What is counted of connections and requests, and when. Each of these is called after something has
//! happened, and costs the same however many requests there are.

use std::time::Instant;

use afcgi_proto::inbox::Broken;
use afcgi_proto::relay::Relay;
use afcgi_proto::{Handle, Values};

use super::Worker;
use crate::host::{Nginx, Socket};
use crate::keys::{FakeKey, PoolKey, RealKey};
use crate::pool::Pool;
use crate::real::{Real, State};
use crate::status::{Count, Fact, Gauge};
use crate::trace::Trace;

impl<N: Nginx> Worker<N> {
    /// Has everything counted in another table from now on: a new configuration is in force in a process
    /// that goes on.
    pub fn recount(&mut self) {
        let Self {
            pools,
            reals,
            found,
            ..
        } = self;
        found.forget_counts();
        for pool in pools.values_mut() {
            pool.share.transfer(found.counts::<N>(pool.name()));
            pool.show();
        }
        for real in reals.values_mut() {
            real.share
                .transfer(found.counts::<N>(&real.route.target.name));
            real.show();
        }
    }

    /// What the variables tell of a request that has not been freed.
    pub fn trace(&self, fake: FakeKey) -> Option<Trace> {
        Some(self.fakes.get(fake)?.trace)
    }

    /// Something may have happened to a connection.
    pub(super) fn count(&mut self, id: RealKey, now: Instant) {
        let Self { reals, fakes, .. } = self;
        let Some(real) = reals.get_mut(id) else {
            return;
        };
        real.show();
        let blocked = real.connection.blocked_by();
        if real.stall.map(|(handle, _)| handle) == blocked {
            return;
        }
        if let Some((handle, since)) = real.stall.take()
            && let Some(fake) = real.fake(handle).and_then(|fake| fakes.get_mut(fake))
        {
            fake.trace.stalled += now.saturating_duration_since(since);
        }
        if let Some(handle) = blocked {
            real.stall = Some((handle, now));
            real.share.add(Count::Stalls, 1);
        }
    }

    /// An application has answered GET_VALUES.
    pub(super) fn note_values(&self, pool: PoolKey, values: &Values) {
        if let Some(pool) = self.pools.get(pool) {
            pool.answered(values);
        }
    }

    /// Lets the protocol do what is due.
    pub(super) fn handle_timeout(&mut self, id: RealKey, now: Instant) {
        let Some(real) = self.reals.get_mut(id) else {
            return;
        };
        let blocked = real.connection.blocked_by();
        real.connection.handle_timeout(now);
        let gone = |handle: Handle| real.connection.ended(handle) == Err(Broken::Stalled);
        if let Some(handle) = blocked.filter(|&handle| gone(handle)) {
            real.share.add(Count::StallAborts, 1);
            let fake = real.fake(handle).and_then(|fake| self.fakes.get_mut(fake));
            if let Some(fake) = fake {
                fake.trace.aborted = true;
            }
        }
    }
}

impl Pool {
    /// A connection that was being opened has ended, by an error if that is not 0.
    pub(super) fn note_failure(&mut self, errno: i32) {
        self.errno = errno;
        self.share.add(Count::ConnectFailures, 1);
    }

    /// It has answered.
    fn answered(&self, values: &Values) {
        let flow_control = values.flow_control.is_some();
        self.share.tell(Fact::FlowControl, Some(flow_control));
        let upgrade = values.upgrade == Some(true);
        self.share.tell(Fact::Upgrade, Some(upgrade));
    }
}

impl<N: Nginx> Real<N> {
    /// Shows how many requests there are on it.
    pub(super) fn show(&mut self) {
        let is_open = self.sock.is_some() && !matches!(self.state, State::Connecting { .. });
        let draining = self.connection.draining();
        let active = self.connection.active().saturating_sub(draining);
        self.share.show(Gauge::Connections, is_open.into());
        self.share.show(Gauge::Active, active);
        self.share.show(Gauge::Draining, draining);
        self.share.aborted(self.connection.aborts());
        if self.is_shared() && self.sock.is_some() && self.connection.is_retired() {
            self.share.retire();
        }
    }

    /// It is established.
    pub(super) fn note_connected(&mut self) {
        self.share.add(Count::Connects, 1);
        self.show();
    }

    /// A request has got its place here.
    pub(super) fn note_place(&mut self, trace: &mut Trace, handle: Handle, now: Instant) {
        let number = self.sock.as_ref().map_or(0, Socket::number);
        trace.placed(number, handle.id().get(), now);
        self.share.add(Count::Requests, 1);
        self.show();
    }

    /// nginx is done with a request, which is about to be closed.
    pub(super) fn note_end(&mut self, trace: &mut Trace, relay: &Relay, now: Instant) {
        let handle = relay.handle();
        if let Some((_, since)) = self.stall.take_if(|(by, _)| *by == handle) {
            trace.stalled += now.saturating_duration_since(since);
        }
        trace.aborted |= self.connection.ended(handle) == Err(Broken::Violated);
    }
}
