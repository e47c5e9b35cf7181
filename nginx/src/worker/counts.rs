//! What is counted of connections and requests, and when. Each of these is called after something has
//! happened, and costs the same however many requests there are.

use std::time::Instant;

use afcgi_proto::inbox::Broken;
use afcgi_proto::relay::Relay;
use afcgi_proto::{Handle, Values};

use super::{WORKER, Worker};
use crate::ffi::sock::Sock;
use crate::ffi::zone;
use crate::pool::Pool;
use crate::real::{Real, State};
use crate::status::{Count, Fact, Gauge};
use crate::trace::Trace;

/// Has everything counted in another table from now on: a new configuration is in force in a process
/// that goes on.
pub(crate) fn recount() {
    WORKER.with(|cell| {
        let Ok(mut worker) = cell.try_borrow_mut() else {
            return;
        };
        let Some(Worker { pools, reals, .. }) = &mut *worker else {
            return;
        };
        for (_, pool) in pools.iter_mut() {
            pool.counts = zone::counts(&pool.target.name);
            pool.show();
        }
        for (_, real) in reals.iter_mut() {
            let counts = pools.get(real.pool).map(|pool| pool.counts.clone());
            real.share.transfer(counts.unwrap_or_default());
            real.show();
        }
    });
}

impl Worker {
    /// What the variables tell of a request that has not been freed.
    pub(crate) fn trace(&self, fake: usize) -> Option<Trace> {
        Some(self.fakes.get(fake)?.trace)
    }

    /// Something may have happened to a connection.
    pub(super) fn count(&mut self, id: usize, now: Instant) {
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
    pub(super) fn note_values(&self, pool: usize, values: &Values) {
        if let Some(pool) = self.pools.get(pool) {
            pool.answered(values);
        }
    }

    /// Lets the protocol do what is due.
    pub(super) fn handle_timeout(&mut self, id: usize, now: Instant) {
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
    pub(crate) fn show(&self) {
        let waiting = self.waiting.len() + self.alone.len();
        self.counts.set(Gauge::Waiting, waiting);
    }

    /// The application was asked whether it multiplexes, and for the rest there is no answer yet.
    pub(super) fn judged(&self, multiplexes: bool) {
        self.counts.tell(Fact::Multiplexes, Some(multiplexes));
        self.counts.tell(Fact::FlowControl, None);
        self.counts.tell(Fact::Upgrade, None);
    }

    /// A connection that was being opened has ended, by an error if that is not 0.
    pub(super) fn note_failure(&self, errno: i32) {
        if errno != 0 {
            self.counts.add(Count::ConnectFailures, 1);
        }
    }

    /// It has answered.
    fn answered(&self, values: &Values) {
        let flow_control = values.flow_control.is_some();
        self.counts.tell(Fact::FlowControl, Some(flow_control));
        let upgrade = values.upgrade == Some(true);
        self.counts.tell(Fact::Upgrade, Some(upgrade));
    }
}

impl Real {
    /// Shows how many requests there are on it.
    pub(super) fn show(&mut self) {
        let is_open = self.sock.is_some() && !matches!(self.state, State::Connecting { .. });
        let draining = self.connection.draining();
        let active = self.connection.active().saturating_sub(draining);
        self.share.show(Gauge::Connections, is_open.into());
        self.share.show(Gauge::Active, active);
        self.share.show(Gauge::Draining, draining);
        self.share.aborted(self.connection.aborts());
        if self.shared && self.sock.is_some() && self.connection.is_retired() {
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
        let number = self.sock.as_ref().map_or(0, Sock::number);
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
