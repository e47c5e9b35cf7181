//! The connections to one address: which of them a request goes to, when one is opened, asked, given
//! up or closed, and which requests wait.
//!
//! Whether the application multiplexes is asked on each shared connection before a request is put on
//! it: the application may be another one since the last (R-40, R-41). One that does not gets a
//! connection for each request, as from a web server without multiplexing. It is asked again beside
//! the requests, which do not wait for that ([`verdict`]).
//!
//! Here is no socket, no clock and no lock. Whoever has the connections tells what happened to them
//! and performs the [`Action`]s that follow from it. The nginx module and the client are two of those,
//! so that they decide alike.
//!
//! Names of connections and requests carry a generation: one that outlives what it names finds
//! nothing.

mod config;
mod members;
mod owner;
mod queue;
mod serve;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
pub mod verdict;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use config::{Backoff, Config, Kind, Wants};
pub use members::MemberId;
use members::{Members, Phase};
pub use owner::{Action, Asked, Connections, Look, Why};
use queue::Queues;
pub use queue::Ticket;
use verdict::Verdict;

use crate::values::Values;

/// The connections to one address. `M`, `P`: see [`Connections`]; `R`: a request that waits.
///
/// ```
/// use std::time::Instant;
/// use afcgi_proto::pool::{Action, Asked, Config, Connections, Kind, Look, Pool, Wants};
/// use afcgi_proto::web::{self, Connection};
/// use afcgi_proto::{Handle, Values};
///
/// // Where the connections are; a connection is named by its place there.
/// struct Lines(Vec<Connection>);
///
/// impl Connections for Lines {
///     type Member = usize;
///     type Place = (usize, Handle);
///
///     fn look(&self, &at: &usize) -> Look {
///         Look {
///             active: self.0[at].active(),
///             takes: self.0[at].has_room(),
///             controlled: self.0[at].is_controlled(),
///             ..Look::default()
///         }
///     }
///
///     fn open(&mut self, &at: &usize) -> Option<(usize, Handle)> {
///         Some((at, self.0[at].open().ok()?))
///     }
/// }
///
/// let now = Instant::now();
/// let mut lines = Lines(Vec::new());
/// let mut pool = Pool::new(Config::default(), now);
/// // The first request waits for a connection.
/// assert!(matches!(pool.ask(Wants::default(), now, &mut lines), Asked::Wait));
/// let ticket = pool.wait(Wants::default(), "GET /", now, &mut lines);
/// assert!(ticket.is_ok());
/// let Some(Action::Open { id, kind: Kind::Shared }) = pool.poll_action() else { panic!() };
/// // It is connected, and the application says that it multiplexes.
/// lines.0.push(Connection::new(web::Config::default()));
/// pool.connected(id, 0, now, &mut lines);
/// let values = Values { mpxs_conns: Some(true), ..Values::default() };
/// pool.answered(id, &values, now, &mut lines);
/// assert!(matches!(pool.poll_action(), Some(Action::Judged { changed: true, .. })));
/// assert!(matches!(pool.poll_action(), Some(Action::Give("GET /", (0, _)))));
/// ```
#[derive(Debug)]
pub struct Pool<M, P, R> {
    config: Config,
    verdict: Verdict,
    members: Members<M>,
    queues: Queues<R>,
    /// What the application says it takes (R-40).
    most_connections: usize,
    most_requests: usize,
    /// Failures to connect in a row, and until when it is too early to try again.
    failures: u32,
    retry_at: Option<Instant>,
    closed: bool,
    actions: VecDeque<Action<M, P, R>>,
}

impl<M: Clone, P, R> Pool<M, P, R> {
    /// A pool without connections.
    pub fn new(config: Config, now: Instant) -> Self {
        let verdict = match config.multiplex {
            true => Verdict::Unknown,
            // It is never asked.
            false => Verdict::Unknown.silent(now, &config.patience),
        };
        Self {
            config,
            verdict,
            members: Members::new(),
            queues: Queues::new(),
            most_connections: usize::MAX,
            most_requests: usize::MAX,
            failures: 0,
            retry_at: None,
            closed: false,
            actions: VecDeque::new(),
        }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action<M, P, R>> {
        self.actions.pop_front()
    }

    /// What is known of the application.
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Takes over what somebody else has found out about the application, and says whether that was
    /// another thing. No effect where a shared connection exists, on which it is asked, or which shows
    /// that it multiplexes.
    pub fn learn(&mut self, verdict: Verdict) -> bool {
        let counts = self.members.counts();
        if counts.asking > 0 || counts.ready > 0 || self.verdict == verdict {
            return false;
        }
        self.verdict = verdict;
        if verdict.is_single() {
            self.give_up_sharing();
        }
        true
    }

    /// Requests that wait for a connection.
    pub fn waiting(&self) -> usize {
        self.queues.len()
    }

    /// Whether any connection is open or being opened, or a request waits.
    #[cfg(test)]
    fn is_used(&self) -> bool {
        self.queues.len() > 0 || self.members.all().next().is_some()
    }

    /// The connection on which the application is being asked, if it is established.
    pub fn asking(&self) -> Option<&M> {
        self.members.get(self.members.asking()?)
    }

    /// How long the application may go on not answering from when it was asked, as things are now.
    /// `round_trip`: what connecting to it took. `loaded`: requests are under way that do not wait for
    /// the answer, and one of them may wait for the process that is asked.
    pub fn patience(&self, round_trip: Duration, loaded: bool) -> Duration {
        let patience = &self.config.patience;
        match self.verdict.is_single() && loaded {
            true => patience.beside(self.verdict, round_trip),
            false => patience.of(self.verdict, round_trip),
        }
    }

    /// Whether connecting failed lately; `None`: it did not, otherwise whether it may be tried again.
    pub fn failing(&self, now: Instant) -> Option<bool> {
        (self.failures > 0).then(|| !self.is_too_early(now))
    }

    /// In how long connecting is tried again, if it failed.
    pub fn retry_in(&self, now: Instant) -> Option<Duration> {
        self.retry_at.map(|at| at.saturating_duration_since(now))
    }

    /// Opens a connection to see whether that works again, if connecting failed and it is time.
    pub fn try_again(&mut self, now: Instant) {
        let counts = self.members.counts();
        if self.failing(now) == Some(true)
            && counts.asking == 0
            && counts.opening == 0
            && !self.closed
        {
            let kind = match self.verdict.is_single() {
                true => self.single(),
                false => Kind::Shared,
            };
            self.open(kind);
        }
    }

    /// Opens a connection to ask an application again that does not multiplex, if it is time. To be
    /// called when the request that reminds of it has its place: whoever asks comes after it.
    pub fn ask_again(&mut self, now: Instant) {
        if self.config.multiplex
            && self.verdict.is_due(now)
            && self.members.counts().asking == 0
            && !self.is_too_early(now)
            && !self.closed
        {
            self.verdict = self.verdict.asking(now, &self.config.patience);
            self.open(Kind::Shared);
        }
    }

    /// A connection is established. On a shared one the application is to be asked, unless it is to be
    /// retired.
    pub fn connected<C>(&mut self, id: MemberId, member: M, now: Instant, connections: &mut C)
    where
        C: Connections<Member = M, Place = P>,
    {
        self.members.establish(id, member);
        self.failures = 0;
        self.retry_at = None;
        if self.closed {
            self.retire(id);
        } else if self.members.kind(id) == Some(Kind::Shared) {
            self.members.set(id, Phase::Asking);
        } else {
            self.members.set(id, Phase::Idle);
            self.serve(now, connections);
            if self.verdict.is_single() {
                self.ask_again(now);
            }
        }
        self.trim();
    }

    /// A connection could not be established. `true`: it is the first failure after it worked.
    pub fn connect_failed(&mut self, id: MemberId, now: Instant, chance: f64) -> bool {
        let Some((kind, Phase::Opening)) = self.members.remove(id) else {
            return false;
        };
        if self.members.counts().ready == 0 {
            self.verdict = self.verdict.unreachable(now, &self.config.patience);
            self.judged(self.verdict, false, Why::Unreachable);
        }
        if kind == Kind::Shared && self.verdict.is_single() {
            // It was to ask beside the requests, which find out for themselves.
            return false;
        }
        let first = self.failures == 0;
        // Those that were tried at the same time count as one.
        if !self.is_too_early(now) {
            let pause = self
                .config
                .backoff
                .map(|it| it.pause(self.failures, chance));
            self.retry_at = pause.and_then(|pause| now.checked_add(pause));
            self.failures = self.failures.saturating_add(1);
        }
        self.cancel_opening();
        self.fail_hopeless();
        first
    }

    /// The application has answered GET_VALUES on a shared connection.
    pub fn answered<C>(&mut self, id: MemberId, values: &Values, now: Instant, connections: &mut C)
    where
        C: Connections<Member = M, Place = P>,
    {
        if self.members.phase(id) != Some(Phase::Asking) {
            return;
        }
        self.most_connections = said(values.max_conns);
        self.most_requests = said(values.max_reqs);
        let mut verdict = self.verdict.answered(values, now, &self.config.patience);
        if let Verdict::Shared { controlled } = &mut verdict {
            *controlled &=
                (self.members.get(id)).is_some_and(|member| connections.look(member).controlled);
            // One that says another thing is another application: what leads to the last one ends.
            let other = |id: &MemberId| {
                let member = self.members.get(*id);
                member.is_some_and(|it| verdict != shared(connections.look(it)))
            };
            let others: Vec<_> = self.members.ready().iter().copied().filter(other).collect();
            for other in others {
                self.retire(other);
            }
            self.judge(verdict, Why::Answered);
            self.members.set(id, Phase::Ready);
        } else {
            self.judge(verdict, Why::Answered);
            // Nothing is lost with it.
            self.retire(id);
        }
        self.serve(now, connections);
    }

    /// The application does not answer GET_VALUES on a shared connection, or has refused what it agreed
    /// to.
    pub fn silent<C>(&mut self, id: MemberId, why: Why, now: Instant, connections: &mut C)
    where
        C: Connections<Member = M, Place = P>,
    {
        self.judge(self.verdict.silent(now, &self.config.patience), why);
        self.retire(id);
        self.serve(now, connections);
    }

    /// Something has happened to a connection by which there may be room on it: a request has left it,
    /// or it is not held up any more, or gets no more requests.
    pub fn changed<C>(&mut self, id: MemberId, now: Instant, connections: &mut C)
    where
        C: Connections<Member = M, Place = P>,
    {
        // One on which the application is asked takes no request anyway: how it ends tells something.
        let phase = self
            .members
            .phase(id)
            .filter(|&phase| phase != Phase::Asking);
        let look = self.members.get(id).map(|member| connections.look(member));
        if let (Some(phase), Some(look)) = (phase, look) {
            if look.retired {
                self.retire(id);
            } else if phase == Phase::Busy && look.active == 0 {
                match self.members.kind(id) {
                    Some(Kind::Once) => self.retire(id),
                    _ => self.members.set(id, Phase::Idle),
                }
            }
        }
        self.serve(now, connections);
        self.trim();
    }

    /// A connection that was established is no more.
    pub fn gone<C>(&mut self, id: MemberId, now: Instant, connections: &mut C)
    where
        C: Connections<Member = M, Place = P>,
    {
        if let Some((Kind::Shared, Phase::Asking)) = self.members.remove(id) {
            // It speaks, and closes at a GET_VALUES.
            self.judge(self.verdict.silent(now, &self.config.patience), Why::Closed);
        }
        self.serve(now, connections);
    }

    /// A connection is no more that whoever has it has closed of their own accord: nothing is known by
    /// that.
    pub fn closed_by_us<C>(&mut self, id: MemberId, now: Instant, connections: &mut C)
    where
        C: Connections<Member = M, Place = P>,
    {
        self.members.remove(id);
        self.serve(now, connections);
    }

    /// No more places: those that wait fail, and connections are closed when their last request has
    /// ended.
    pub fn close(&mut self) {
        self.closed = true;
        self.cancel_opening();
        let all: Vec<_> = self.members.all().collect();
        for id in all {
            self.retire(id);
        }
        let Queues { waiting, alone, .. } = &mut self.queues;
        for waiter in waiting.drain(..).chain(alone.drain(..)) {
            self.actions.push_back(Action::Fail(waiter.request));
        }
    }

    /// The kind of connection for one request at a time, as things are now.
    const fn single(&self) -> Kind {
        match self.verdict {
            Verdict::Single { .. } if !self.config.keep_conn => Kind::Once,
            _ => Kind::Kept,
        }
    }

    fn is_too_early(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at > now)
    }

    fn open(&mut self, kind: Kind) {
        let id = self.members.insert(kind);
        self.actions.push_back(Action::Open { id, kind });
    }

    /// What was to be opened and nobody has begun with is not opened.
    fn cancel_opening(&mut self) {
        let Self {
            members, actions, ..
        } = self;
        actions.retain(|action| match action {
            Action::Open { id, .. } => {
                members.remove(*id);
                false
            }
            _ => true,
        });
    }

    /// A connection gets no more requests.
    fn retire(&mut self, id: MemberId) {
        if self.members.phase(id) != Some(Phase::Leaving)
            && let Some(member) = self.members.get(id).cloned()
        {
            self.members.set(id, Phase::Leaving);
            self.actions.push_back(Action::Retire(member));
        }
    }

    /// Takes a verdict, and gives up what it does not allow.
    fn judge(&mut self, verdict: Verdict, why: Why) {
        let before = std::mem::replace(&mut self.verdict, verdict);
        self.judged(verdict, !before.agrees(verdict), why);
        if verdict.is_single() {
            self.give_up_sharing();
        }
    }

    fn judged(&mut self, verdict: Verdict, changed: bool, why: Why) {
        self.actions.push_back(Action::Judged {
            verdict,
            changed,
            why,
        });
    }

    /// The application does not multiplex: each request gets a connection of its own.
    fn give_up_sharing(&mut self) {
        let mut obsolete = self.members.ready().to_vec();
        if !self.config.keep_conn {
            // A used connection may lead to a process that takes no other request.
            obsolete.extend_from_slice(self.members.idle());
        }
        for id in obsolete {
            self.retire(id);
        }
        self.queues.part_all();
    }

    /// Closes the connections without a request that are more than are to be kept.
    fn trim(&mut self) {
        // An idle connection takes a process of the application: half of them are left to others.
        let idle = (self.most_connections / 2).min(self.config.idle);
        let most = match self.verdict {
            Verdict::Unknown => 0,
            Verdict::Shared { .. } => idle,
            Verdict::Single { .. } if self.config.keep_conn => idle,
            Verdict::Single { .. } => 0,
        };
        let many = self.members.idle().len().saturating_sub(most);
        let oldest: Vec<_> = self.members.idle().iter().take(many).copied().collect();
        for id in oldest {
            self.retire(id);
        }
    }
}

/// What is known of an application that multiplexes, by one of its connections.
const fn shared(look: Look) -> Verdict {
    Verdict::Shared {
        controlled: look.controlled,
    }
}

/// What the application says it takes. What is said of one is said by each of several processes of
/// itself.
fn said(number: Option<u32>) -> usize {
    match number {
        None | Some(0 | 1) => usize::MAX,
        Some(most) => usize::try_from(most).unwrap_or(usize::MAX),
    }
}
