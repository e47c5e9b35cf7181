//! All that a worker process has, and the entry points for requests on their fake connections.
//! `open` finds and opens connections, `events` is what the event loop tells of them, `counts` is
//! what operators are told.

mod counts;
mod events;
mod found;
mod open;
mod pools;

use std::rc::Rc;
use std::time::Instant;

use afcgi_proto::ProtocolStatus;
use afcgi_proto::pool::{Asked, Why};
use afcgi_proto::relay::{Recv, RelayError};
use bytes::BufMut;

use found::Found;

use crate::conf::Settings;
use crate::fake::{Fake, Fakes, Freed, Got, Place, Wants};
use crate::faults;
use crate::host::{FakeConnection, Level, Nginx, Socket, TargetRef};
use crate::keys::{FakeKey, PoolKey, RealKey};
use crate::pool::Pools;

use crate::real::{Real, Reals};
use crate::status::Count;
use crate::trace::Trace;

/// Bytes that are read from a connection in one turn of the event loop.
const READ: usize = 128 * 1024;
/// Fake connections that are kept for further requests.
const SPARE: usize = 256;

#[derive(Debug)]
pub struct Worker<N: Nginx> {
    pools: Pools,
    /// Where pools are by what they lead to.
    found: Found,
    reals: Reals<N>,
    fakes: Fakes<N>,
    spare: Vec<N::Fake>,
    /// The request that nginx is about to be given.
    opening: Option<FakeKey>,
    /// Whether what the policy of a pool has decided is being performed.
    performing: bool,
    buffer: Box<[u8]>,
}

/// What a request for a connection gives.
#[derive(Debug)]
pub enum Opened {
    /// A place on a connection, and whether that has served before.
    Now { fake: FakeKey, used: bool },
    /// A place in the queue.
    Waiting { fake: FakeKey },
    /// The application does not multiplex: nginx opens a connection itself.
    Aside,
    /// No connection can be opened.
    Refused,
    /// As many requests wait as may.
    Full,
}

impl<N: Nginx> Default for Worker<N> {
    /// A worker without connections.
    fn default() -> Self {
        Self {
            pools: Pools::with_key(),
            found: Found::default(),
            reals: Reals::with_key(),
            fakes: Fakes::with_key(),
            spare: Vec::new(),
            opening: None,
            performing: false,
            buffer: vec![0; READ].into_boxed_slice(),
        }
    }
}

impl<N: Nginx> Worker<N> {
    /// A callback of nginx's begins. The last one may have failed while it performed something.
    pub const fn begin(&mut self) {
        self.performing = false;
    }

    /// A connection for a request to an address.
    pub fn open(
        &mut self,
        settings: Settings,
        wants: Wants,
        target: TargetRef<'_>,
        log: N::Log,
    ) -> Opened {
        let now = N::now();
        let key = self.pool(settings, target, now);
        self.learn(key, now);
        let Some(pool) = self.pools.get_mut(key) else {
            return Opened::Refused;
        };
        if pool.policy.verdict().is_single() {
            pool.share.add(Count::Aside, 1);
            self.ask_beside(key, now);
            return Opened::Aside;
        }
        let Some(fake) = self.new_fake(key, wants, now) else {
            return Opened::Refused;
        };
        let wants = wants.of_a_connection();
        let asked = self.decide(key, |policy, lines| policy.ask(wants, now, lines));
        match asked {
            Some(Asked::Placed(spot)) => self.seat(fake, spot, now),
            Some(Asked::Wait) => {
                let waits = self.decide(key, |policy, lines| policy.wait(wants, fake, now, lines));
                if let Some(Ok(ticket)) = waits
                    && let Some(fake) = self.fakes.get_mut(fake)
                {
                    fake.place = Place::Waiting(ticket);
                }
            }
            Some(Asked::Full) => {
                self.recycle(fake);
                return Opened::Full;
            }
            Some(Asked::Closed) | None => {}
        }
        // An address on this machine may be connected to at once.
        self.perform(key, now, log);
        match self.fakes.get(fake).map(|fake| &fake.place) {
            Some(Place::On { .. }) => self.opened(fake),
            Some(Place::Waiting(_)) => Opened::Waiting { fake },
            _ => {
                self.recycle(fake);
                Opened::Refused
            }
        }
    }

    fn opened(&self, fake: FakeKey) -> Opened {
        let used = match self.fakes.get(fake).map(|fake| &fake.place) {
            Some(Place::On { real, .. }) => self.reals.get(*real).is_some_and(|real| real.served),
            _ => false,
        };
        Opened::Now { fake, used }
    }

    fn new_fake(&mut self, pool_key: PoolKey, wants: Wants, now: Instant) -> Option<FakeKey> {
        let Self {
            pools,
            fakes,
            spare,
            ..
        } = self;
        let route = Rc::clone(&pools.get(pool_key)?.route);
        let make = |key| {
            let connection = match spare.pop() {
                Some(mut connection) => {
                    connection.renew(key);
                    connection
                }
                None => N::fake(key).ok_or(())?,
            };
            Ok::<_, ()>(Fake {
                connection,
                pool: pool_key,
                route,
                wants,
                place: Place::New,
                began: now,
                blocked: false,
                answered: false,
                refused: false,
                trace: Trace::new(now),
            })
        };
        self.opening = fakes.try_insert_with_key(make).ok();
        faults::point();
        self.opening
    }

    fn recycle(&mut self, fake: FakeKey) -> Option<Fake<N>> {
        let fake = self.fakes.remove(fake)?;
        fake.connection.silence();
        Some(fake)
    }

    /// A callback has failed while a request got its connection, of which nginx has not heard.
    pub fn abandon_opened(&mut self) {
        if let Some(fake) = self.opening.take() {
            self.abandon(fake);
        }
    }

    /// A callback has failed while nginx was done with a request: what is left of it goes, and with it
    /// the connection that it was on.
    pub fn abandon(&mut self, fake: FakeKey) {
        if let Some(fake) = self.fakes.remove(fake)
            && let Place::Waiting(ticket) = fake.place
            && let Some(pool) = self.pools.get_mut(fake.pool)
        {
            pool.policy.cancel(ticket);
            pool.show();
        }
        let on = |(id, real): (RealKey, &mut Real<N>)| real.forget(fake).then_some(id);
        if let Some(real) = self.reals.iter_mut().find_map(on) {
            self.give_up(real);
        }
    }

    /// A callback has failed on the connection of a request.
    pub fn give_up_under(&mut self, fake: FakeKey) {
        if let Some(Place::On { real, .. }) = self.fakes.get(fake).map(|fake| &fake.place) {
            self.give_up(*real);
        }
    }

    /// What nginx is to take for the connection of a request.
    pub fn connection(&mut self, fake: FakeKey) -> Option<&N::Fake> {
        self.opening = None;
        Some(&self.fakes.get(fake)?.connection)
    }

    /// Reads from a fake connection.
    pub fn recv(&mut self, id: FakeKey, out: &mut impl BufMut) -> Got {
        let Some(fake) = self.fakes.get_mut(id) else {
            return Got::Failed;
        };
        let (real_id, relay) = match &mut fake.place {
            Place::New | Place::Waiting(_) => return Got::Again,
            Place::Failed(errno) => {
                let errno = *errno;
                fake.connection
                    .log(Level::Error, errno, "no connection to the application");
                return Got::Failed;
            }
            Place::On { real, relay } => (*real, relay),
        };
        let Some(real) = self.reals.get_mut(real_id) else {
            return Got::Failed;
        };
        let handle = relay.handle();
        // A refused request was not processed: another server may be asked.
        if !fake.answered
            && let Ok(Some(end)) = real.connection.ended(handle)
            && end.protocol_status != ProtocolStatus::RequestComplete
        {
            let status = end.protocol_status;
            real.share.add(Count::Refusals, 1);
            let text = format!("the application refused the request: {status:?}");
            fake.connection.log(Level::Error, 0, &text);
            fake.refused = true;
            if status == ProtocolStatus::CantMpxConn {
                self.fell_silent(real_id, Why::Refused, N::now());
            }
            return Got::Failed;
        }
        let mut text = [0; 1024];
        let count = relay.read_stderr(&mut real.connection, &mut text);
        if let Some(text) = text.get(..count).filter(|text| !text.is_empty()) {
            let text = String::from_utf8_lossy(text);
            let text = format!("the application wrote to STDERR: {}", text.trim_end());
            fake.connection.log(Level::Error, 0, &text);
        }
        let got = match relay.recv(&mut real.connection, out) {
            Recv::Bytes(count) => {
                fake.answered = true;
                Got::Bytes {
                    count,
                    more: relay.is_ready(&mut real.connection),
                }
            }
            Recv::Pending => Got::Again,
            Recv::End => Got::End,
            Recv::Broken(why) => {
                let text = format!("the response is not complete: {why}");
                fake.connection.log(Level::Error, 0, &text);
                Got::Failed
            }
        };
        // For what was read the application may get credit.
        real.flush_soon();
        real.resume_reading();
        got
    }

    /// Writes to a fake connection, and says how much was taken. `None`: the request has failed.
    pub fn send(&mut self, id: FakeKey, bytes: &[u8]) -> Option<usize> {
        let fake = self.fakes.get_mut(id)?;
        let (real, relay) = match &mut fake.place {
            Place::New | Place::Waiting(_) => return Some(0),
            Place::Failed(_) => return None,
            Place::On { real, relay } => (*real, relay),
        };
        let real = self.reals.get_mut(real)?;
        match relay.send(&mut real.connection, bytes) {
            Ok(count) => {
                fake.blocked = count < bytes.len();
                if fake.blocked
                    && let Some(sock) = &real.sock
                {
                    sock.post_flush();
                }
                real.flush_soon();
                Some(count)
            }
            Err(error) => {
                // A request that has ended is no fault of anybody's writing.
                if error != RelayError::Gone {
                    let text = format!("nginx wrote what cannot be relayed: {error}");
                    fake.connection.log(Level::Alert, 0, &text);
                }
                None
            }
        }
    }

    /// nginx has read the head of a response that upgrades the request. `false`: the application was
    /// not offered that.
    pub fn accept_upgrade(&mut self, id: FakeKey) -> bool {
        match self.fakes.get_mut(id).map(|fake| &mut fake.place) {
            Some(Place::On { relay, .. }) => relay.accept(),
            _ => false,
        }
    }

    /// nginx has read the head of another response.
    pub fn decline_upgrade(&mut self, id: FakeKey) {
        if let Some(Place::On { real, relay }) = self.fakes.get_mut(id).map(|fake| &mut fake.place)
            && let Some(real) = self.reals.get_mut(*real)
        {
            relay.decline(&mut real.connection);
            real.flush_soon();
        }
    }

    /// nginx is done with a request; `gently`: it has all that it wants of the response, which may
    /// end soon by itself.
    pub fn free(&mut self, id: FakeKey, gently: bool) -> Freed {
        let Some(mut fake) = self.recycle(id) else {
            return Freed::default();
        };
        let now = N::now();
        faults::point();
        fake.trace.stop_waiting(now);
        match fake.place {
            Place::Waiting(ticket) => {
                if let Some(pool) = self.pools.get_mut(fake.pool) {
                    pool.policy.cancel(ticket);
                    pool.show();
                }
            }
            Place::New | Place::Failed(_) => {}
            Place::On {
                real: real_id,
                relay,
            } => {
                if let Some(real) = self.reals.get_mut(real_id) {
                    real.note_end(&mut fake.trace, &relay, now);
                    let aborts = real.connection.aborts();
                    real.take(relay.handle());
                    faults::point();
                    if gently && fake.answered {
                        relay.close_gently(&mut real.connection, now);
                    } else {
                        relay.close(&mut real.connection, now);
                    }
                    fake.trace.aborted |= real.connection.aborts() > aborts;
                    if fake.connection.timed_out() {
                        if real.received_at <= fake.began {
                            // Nobody has heard of the application since the request began: it may
                            // hang, or be gone without a word.
                            N::line(
                                Level::Warning,
                                "a connection is given up on which a request timed out and nothing came",
                            );
                            real.connection.retire();
                        } else {
                            // Others were answered meanwhile, perhaps a while ago.
                            real.check(now);
                        }
                    }
                    self.settle(real_id, now);
                }
            }
        }
        if self.spare.len() < SPARE {
            self.spare.push(fake.connection);
        }
        Freed {
            refused: fake.refused,
            trace: Some(fake.trace),
        }
    }
}
