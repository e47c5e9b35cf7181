//! A worker's place: there is a worker in it, or a pause until the next one is started.
//!
//! ```text
//!            start                 ends by itself
//!   pause ─────────> [ worker ] ──────────────────> pause
//!                     │     ^
//!                roll │     │ the new one is ready: it takes the place, and the old one is stopped
//!                     v     │
//!                [ worker + new ] ── the new one ends or is not ready in time ──> [ worker ]
//! ```

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::exec::{CANNOT_RUN, NOT_FOUND};
use super::listen::Socket;
use super::worker::{News, Plan, Worker, describe};

/// That the worker is to be replaced; answered with whether it was, when the old one has ended.
pub(super) type Roll = oneshot::Sender<bool>;

/// Why there is to be no worker any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was asked for.
    Stopped,
    /// It crashed too often in a row.
    GaveUp,
    /// The program cannot be run: an exit status as of a shell.
    CannotRun(u8),
}

/// The place of one worker.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) number: u16,
    pub(super) plan: Arc<Plan>,
    pub(super) socket: Arc<Socket>,
    pub(super) stop: CancellationToken,
    /// How many workers are ready, of all.
    pub(super) ready: watch::Sender<usize>,
    pub(super) backoff: Backoff,
    pub(super) give_up: Option<u32>,
    /// Whether a worker of this place is among those.
    pub(super) is_ready: bool,
    /// Whether one ever was.
    pub(super) was_ready: bool,
}

impl Slot {
    /// Keeps a worker there until it is asked to stop.
    pub(super) async fn run(mut self, mut rolls: mpsc::Receiver<Roll>) -> End {
        let mut asked = None;
        loop {
            let lived = match Worker::start(&self.plan, self.number, &self.socket) {
                Ok(worker) => match self.keep(worker, &mut rolls, asked.take()).await {
                    Ok(lived) => lived,
                    Err(end) => return end,
                },
                Err(error) => {
                    tracing::error!(worker = self.number, %error, "the worker cannot be started");
                    Duration::ZERO
                }
            };
            let pause = self.backoff.after(lived, fastrand::f64());
            let failures = self.backoff.failures();
            if self.give_up.is_some_and(|limit| failures >= limit) {
                tracing::error!(
                    worker = self.number,
                    failures,
                    "the worker ends too soon each time: given up"
                );
                return End::GaveUp;
            }
            if !pause.is_zero() {
                let pause =
                    humantime::format_duration(Duration::from_millis(pause.as_millis() as u64));
                tracing::info!(
                    worker = self.number,
                    failures,
                    "the worker is started again in {pause}"
                );
            }
            let until = Instant::now() + pause;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return End::Stopped,
                () = sleep_until(until) => {}
                roll = rolls.recv() => asked = roll,
            }
        }
    }

    /// Until the worker ends by itself: how long it had lived.
    async fn keep(
        &mut self,
        mut worker: Worker,
        rolls: &mut mpsc::Receiver<Roll>,
        mut asked: Option<Roll>,
    ) -> Result<Duration, End> {
        let plan = Arc::clone(&self.plan);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.set_ready(false);
                    self.retire(worker, None);
                    return Err(End::Stopped);
                }
                news = worker.news(&plan) => match news {
                    News::Ended(status) => return self.ended(worker, status, asked).await,
                    News::Ready => {
                        self.up(&worker);
                        answer(asked.take(), true);
                    }
                    News::TooLate => {
                        tracing::error!(worker = self.number, pid = worker.pid(), "the worker was not ready in time");
                        answer(asked.take(), false);
                        worker.stop(&plan).await;
                        return Ok(Duration::ZERO);
                    }
                },
                Some(roll) = rolls.recv() => worker = self.replace(worker, roll).await,
            }
        }
    }

    /// Puts a new worker in the place of the old one when it is ready; otherwise the old one stays.
    async fn replace(&mut self, old: Worker, roll: Roll) -> Worker {
        let plan = Arc::clone(&self.plan);
        let mut new = match Worker::start(&plan, self.number, &self.socket) {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(worker = self.number, %error, "a new worker cannot be started: the old one stays");
                answer(Some(roll), false);
                return old;
            }
        };
        let why = tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                self.retire(new, None);
                answer(Some(roll), false);
                return old;
            }
            news = new.news(&plan) => match news {
                News::Ready => {
                    self.up(&new);
                    self.retire(old, Some(roll));
                    return new;
                }
                News::TooLate => "was not ready in time".to_owned(),
                News::Ended(status) => {
                    new.last_lines().await;
                    format!("ended {}", describe(status))
                }
            },
        };
        tracing::error!(
            worker = self.number,
            pid = new.pid(),
            "the new worker {why}: the old one stays"
        );
        self.retire(new, None);
        answer(Some(roll), false);
        old
    }

    async fn ended(
        &mut self,
        mut worker: Worker,
        status: ExitStatus,
        asked: Option<Roll>,
    ) -> Result<Duration, End> {
        self.set_ready(false);
        let lived = worker.lived();
        worker.last_lines().await;
        let how = describe(status);
        let pid = worker.pid();
        if status.success() {
            tracing::info!(worker = self.number, pid, "the worker ended {how}");
        } else {
            tracing::warn!(worker = self.number, pid, "the worker ended {how}");
        }
        let plan = Arc::clone(&self.plan);
        self.plan
            .ending
            .spawn(async move { worker.clean_up(&plan).await });
        answer(asked, false);
        match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code @ (CANNOT_RUN | NOT_FOUND)) if !self.was_ready => Err(End::CannotRun(code)),
            _ => Ok(lived),
        }
    }

    /// Stops a worker, and answers when it has ended.
    fn retire(&self, worker: Worker, roll: Option<Roll>) {
        let plan = Arc::clone(&self.plan);
        self.plan.ending.spawn(async move {
            worker.stop(&plan).await;
            answer(roll, true);
        });
    }

    fn up(&mut self, worker: &Worker) {
        tracing::info!(worker = self.number, pid = worker.pid(), "the worker is up");
        self.was_ready = true;
        self.set_ready(true);
    }

    fn set_ready(&mut self, is_ready: bool) {
        if self.is_ready != is_ready {
            self.is_ready = is_ready;
            self.ready.send_modify(|ready| match is_ready {
                true => *ready += 1,
                false => *ready = ready.saturating_sub(1),
            });
        }
    }
}

fn answer(roll: Option<Roll>, done: bool) {
    if let Some(roll) = roll {
        // A manager that stops does not listen any more.
        _ = roll.send(done);
    }
}
