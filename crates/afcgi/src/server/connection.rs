//! The driver of a connection: one task that reads and writes in large batches.
//!
//! The requests' tasks write into the connection's output; the driver is woken once, runs after the
//! tasks that are ready, and writes what has gathered. It reads into a buffer of its thread, so an
//! idle connection holds none.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use afcgi_proto::app::{self, Event, OverflowTotal, Refusal};
use afcgi_proto::{BeginRequest, Handle, Params, ProtocolStatus};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::RuntimeFlavor;
use tokio::time::Sleep;
use tokio_util::sync::ReusableBoxFuture;

use super::app::App;
use super::linger::Linger;
use super::noise::Noise;
use super::request::{AppStatus, Request};
use super::shared::Shared;
use super::stats::Stats;
use super::upgrade::Upgrades;

/// Bytes that are read at a time.
const READ: usize = 128 * 1024;

thread_local! {
    /// What the connections of a thread are read into.
    pub(super) static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// What the connections of a server have in common.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) stats: Stats,
    pub(crate) noise: Noise,
    pub(crate) max_requests: usize,
    pub(crate) overflow: OverflowTotal,
    pub(crate) send_timeout: Duration,
    pub(crate) linger: Linger,
    pub(crate) upgrades: Upgrades,
}

/// Drives a connection until it is closed.
pub(crate) struct Driver<IO, A> {
    io: IO,
    app: A,
    shared: Arc<Shared>,
    common: Common,
    /// Bytes that were read and that the connection would not take yet.
    held_back: Vec<u8>,
    /// Whether the web server has closed its half.
    input_closed: bool,
    /// Since when the socket has taken nothing.
    full_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// On a runtime of several threads: whether the tasks that are ready had their turn before what
    /// they write is sent.
    gathered: bool,
    begun: Vec<(Handle, BeginRequest, Params)>,
    spare: Spare,
    wakers: Vec<Waker>,
}

/// How a connection ended; for the log.
#[derive(Debug)]
pub(crate) enum Ending {
    /// In agreement: nothing was left to do.
    Finished,
    /// It was idle, and makes room for another.
    MadeRoom,
    /// The peer broke the protocol.
    Protocol(afcgi_proto::ConnectionError),
    /// The socket failed, or took nothing for too long.
    Io(io::Error),
}

impl<IO, A> Driver<IO, A>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    A: App,
{
    pub(crate) fn new(io: IO, app: A, config: app::Config, common: Common) -> Self {
        let mut connection = app::Connection::new(config, crate::clock::now());
        connection.share_overflow(common.overflow.clone());
        Self {
            io,
            app,
            shared: Shared::new(connection, common.upgrades),
            common,
            held_back: Vec::new(),
            input_closed: false,
            full_since: None,
            timer: None,
            gathered: false,
            begun: Vec::new(),
            spare: match runtime_flavor() {
                RuntimeFlavor::CurrentThread => Spare::Ready(None),
                _ => Spare::Unused,
            },
            wakers: Vec::new(),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Drives the connection until it is to be closed.
    pub(crate) async fn run(mut self) -> Ending {
        let ending = match poll_fn(|cx| self.poll_drive(cx)).await {
            Ok(()) => Ending::Finished,
            Err(ending) => ending,
        };
        let still_sent = self.shared.lock().connection.is_still_sent();
        if matches!(ending, Ending::Finished) && still_sent {
            self.common.linger.run(&mut self.io, &self.shared).await;
        }
        ending
    }

    /// Takes in what the socket has, and says how many bytes that was.
    fn poll_input(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<usize, Ending>> {
        if !self.held_back.is_empty() {
            let taken = {
                let mut state = self.shared.lock();
                state.connection.receive(now, &self.held_back)
            };
            self.held_back.drain(..taken.map_err(Ending::Protocol)?);
            self.run_events();
            if !self.held_back.is_empty() {
                return Poll::Pending;
            }
            self.held_back = Vec::new();
        }
        if self.input_closed {
            return Poll::Pending;
        }
        let count = BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)).map_err(Ending::Io)?;
            let received = buffer.filled();
            let mut state = self.shared.lock();
            if received.is_empty() {
                self.input_closed = true;
                let ended = state.connection.end_of_input(now);
                return Poll::Ready(ended.map(|()| 0).map_err(Ending::Protocol));
            }
            let taken = state
                .connection
                .receive(now, received)
                .map_err(Ending::Protocol)?;
            self.held_back.extend_from_slice(&received[taken..]);
            Poll::Ready(Ok(received.len()))
        });
        let count = ready!(count)?;
        self.run_events();
        Poll::Ready(Ok(count))
    }

    /// Does what the connection's events ask for.
    fn run_events(&mut self) {
        let mut cancelled = Vec::new();
        let mut state = self.shared.lock();
        while let Some(event) = state.connection.poll_event() {
            match event {
                Event::Request {
                    handle,
                    begin,
                    params,
                } => {
                    if self.common.stats.begin(self.common.max_requests) {
                        self.begun.push((handle, begin, params));
                    } else {
                        self.common.stats.refused();
                        let _ = state.connection.refuse(handle, ProtocolStatus::Overloaded);
                    }
                }
                Event::Readable(handle) => {
                    self.wakers
                        .extend(state.take_readers(handle).into_iter().flatten());
                }
                Event::Writable(handle) => {
                    self.wakers
                        .extend(state.take_writers(handle).into_iter().flatten());
                }
                Event::Aborted(handle) => cancelled.push(state.take_task(handle)),
                Event::Refused { id, why } => {
                    self.common.stats.refused();
                    match why {
                        Refusal::Failed(error) if self.common.noise.may_warn() => {
                            tracing::warn!(request = %id, %error, "request refused");
                        }
                        other => tracing::debug!(request = %id, why = ?other, "request refused"),
                    }
                }
                _ => {}
            }
        }
        drop(state);
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        for task in cancelled {
            task.cancel();
        }
        self.spawn_begun();
    }

    fn spawn_begun(&mut self) {
        if self.begun.is_empty() {
            return;
        }
        let mut aborts = Vec::new();
        for (handle, begin, params) in self.begun.drain(..) {
            let request = Request::new(Arc::clone(&self.shared), handle, begin, params);
            let finish = Finish {
                shared: Arc::clone(&self.shared),
                stats: self.common.stats.clone(),
                handle,
                counted: false,
            };
            let answer = Answer {
                state: Answering::Begun {
                    start: Some((self.app.clone(), request)),
                    call: A::call,
                },
                finish,
            };
            let task = match &mut self.spare {
                Spare::Unused => Some(tokio::spawn(answer)),
                Spare::Ready(spare) => answer_at_once(spare, answer).map(tokio::spawn),
            };
            aborts.extend(task.map(|task| (handle, task.abort_handle())));
        }
        if aborts.is_empty() {
            return;
        }
        let mut late = Vec::new();
        let mut state = self.shared.lock();
        for (handle, abort) in aborts {
            late.extend(state.set_abort(handle, abort).err());
        }
        drop(state);
        // Those have ended, or were given up within the batch that began them.
        for abort in late {
            abort.abort();
        }
    }

    /// Gives the socket what it takes of the output.
    fn poll_output(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<(), Ending>> {
        let mut again = true;
        while again {
            let mut state = self.shared.lock();
            while !state.connection.transmit().is_empty() {
                match Pin::new(&mut self.io).poll_write(cx, state.connection.transmit()) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(Ending::Io(io::ErrorKind::WriteZero.into())));
                    }
                    Poll::Ready(Ok(count)) => {
                        self.full_since = None;
                        state.connection.transmitted(count);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Ending::Io(error))),
                    Poll::Pending => {
                        self.full_since.get_or_insert(now);
                        state.socket_full = true;
                        return Poll::Pending;
                    }
                }
            }
            state.socket_full = false;
            // Those that wait get a turn; whoever does not use it at once is not waited for.
            again = state.connection.next_round();
            drop(state);
            self.run_events();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Ending> {
        let full = self
            .full_since
            .and_then(|since| since.checked_add(self.common.send_timeout));
        if full.is_some_and(|at| at <= now) {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the web server reads nothing");
            return Err(Ending::Io(error));
        }
        let deadline = self.shared.lock().connection.deadline(now);
        let Some(deadline) = deadline.into_iter().chain(full).min() else {
            return Ok(false);
        };
        if deadline <= now {
            self.shared.lock().connection.handle_timeout(now);
            self.run_events();
            return Ok(true);
        }
        let deadline = tokio::time::Instant::from_std(deadline);
        match &mut self.timer {
            // A timer that fires too early costs less than one that is set for every batch.
            Some(timer) if timer.deadline() <= deadline && !timer.is_elapsed() => return Ok(false),
            Some(timer) => timer.as_mut().reset(deadline),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
        }
        Ok(self
            .timer
            .as_mut()
            .is_some_and(|timer| timer.as_mut().poll(cx).is_ready()))
    }

    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        let multi_thread = runtime_flavor() != RuntimeFlavor::CurrentThread;
        loop {
            let now = crate::clock::now();
            self.shared.lock().parked = false;
            // Reading goes on until the socket is pending, or until it is the turn of the tasks.
            let mut received = 0;
            while received < READ
                && let Poll::Ready(count) = self.poll_input(cx, now)
            {
                received += count?;
            }
            if multi_thread && !self.gathered && self.has_output() {
                // A task that is woken by another would run before the rest of them.
                self.gathered = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.gathered = false;
            if let Poll::Ready(result) = self.poll_output(cx, now) {
                result?;
            }
            let due = self.poll_timer(cx, now)?;
            let mut state = self.shared.lock();
            if state.connection.is_finished() {
                return Poll::Ready(Ok(()));
            }
            if state.makes_room() {
                return Poll::Ready(Err(Ending::MadeRoom));
            }
            if received >= READ {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let unblocked = !self.held_back.is_empty() && !state.connection.is_blocked();
            let output = !state.socket_full && !state.connection.transmit().is_empty();
            if due || unblocked || output {
                continue;
            }
            state.held_back = !self.held_back.is_empty();
            state.park(cx);
            return Poll::Pending;
        }
    }

    fn has_output(&self) -> bool {
        !self.shared.lock().connection.transmit().is_empty()
    }
}

/// A place for the future of a request that is over at once, so that it needs no task of its own.
enum Spare {
    /// There are several threads: another may begin the request while this one still reads.
    Unused,
    /// On one thread nothing is gained by waiting: a request's future is polled as it comes, in
    /// memory that the one before it left, and becomes a task only if it is not done then.
    Ready(Option<Reusable>),
}

/// The future of a request, in memory that can be used again.
type Reusable = ReusableBoxFuture<'static, ()>;

/// Polls the future of a request once. Gives it back if it has to go on.
fn answer_at_once(
    spare: &mut Option<Reusable>,
    answer: impl Future<Output = ()> + Send + 'static,
) -> Option<Reusable> {
    let mut future = match spare.take() {
        Some(mut future) => {
            future.set(answer);
            future
        }
        None => ReusableBoxFuture::new(answer),
    };
    // Whoever registers this waker is polled again, by the task, before it could be used.
    let mut cx = Context::from_waker(Waker::noop());
    let polled = catch_unwind(AssertUnwindSafe(|| future.poll(&mut cx)));
    match polled {
        Ok(Poll::Pending) => return Some(future),
        Ok(Poll::Ready(())) => *spare = Some(future),
        // As a task would: the panic was reported, and it is the end of that request alone.
        Err(_) => {}
    }
    None
}

fn runtime_flavor() -> RuntimeFlavor {
    tokio::runtime::Handle::current().runtime_flavor()
}

/// However the connection ends, no request of it is left behind.
impl<IO, A> Drop for Driver<IO, A> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.connection.lost();
        let mut cancelled = Vec::new();
        while let Some(event) = state.connection.poll_event() {
            if let Event::Aborted(handle) = event {
                cancelled.push(state.take_task(handle));
            }
        }
        drop(state);
        for task in cancelled {
            task.cancel();
        }
    }
}

pin_project! {
    /// The task of a request: calls the application and finishes the request. An async block would
    /// do, but it would hold what it starts with beside what it becomes.
    struct Answer<A, C, F> {
        #[pin]
        state: Answering<A, C, F>,
        finish: Finish,
    }
}

pin_project! {
    #[project = AnsweringProjection]
    enum Answering<A, C, F> {
        Begun { start: Option<(A, Request)>, call: C },
        Called { #[pin] answer: F },
    }
}

impl<A, C, F> Future for Answer<A, C, F>
where
    C: Fn(A, Request) -> F,
    F: Future<Output = AppStatus>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if let AnsweringProjection::Begun { start, call } = this.state.as_mut().project()
            && let Some((app, request)) = start.take()
        {
            let answer = call(app, request);
            this.state.set(Answering::Called { answer });
        }
        let AnsweringProjection::Called { answer } = this.state.project() else {
            return Poll::Ready(());
        };
        let status = ready!(answer.poll(cx));
        this.finish.finish(status.0);
        Poll::Ready(())
    }
}

/// Finishes a request: when its handler returns, or with a failure when that panics.
struct Finish {
    shared: Arc<Shared>,
    stats: Stats,
    handle: Handle,
    counted: bool,
}

impl Finish {
    fn finish(&mut self, app_status: u32) {
        self.counted = true;
        match self.shared.finish(self.handle, app_status) {
            Ok(()) => self.stats.served(),
            Err(_) => self.stats.aborted(),
        }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if !self.counted {
            self.finish(1);
        }
    }
}
