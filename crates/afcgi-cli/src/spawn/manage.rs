//! The manager: the workers' places, the signals, and what systemd is told.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::arguments::Arguments;
use super::backoff::Backoff;
use super::listen::Sockets;
use super::notify::tell;
use super::slot::{End, Roll, Slot};
use super::watch::Watch;
use super::worker::Plan;
use crate::terminal::Terminal;

/// A roll of all workers: whether it went through.
type Rolling = Pin<Box<dyn Future<Output = bool> + Send>>;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All workers ended in time.
    Stopped,
    /// Some had to be killed.
    Killed,
    /// A worker crashed too often in a row.
    GaveUp,
    /// The program cannot be run: an exit status as of a shell.
    CannotRun(u8),
}

/// Everything that runs.
struct Manager {
    workers: u16,
    plan: Arc<Plan>,
    stop: CancellationToken,
    slots: JoinSet<End>,
    rolls: Vec<mpsc::Sender<Roll>>,
    ready: watch::Receiver<usize>,
    rolling: Option<Rolling>,
    /// Whether another roll is to follow: what it is to bring may have come after the beginning of this one.
    roll_again: bool,
    was_ready: bool,
}

/// Runs the workers until it is told to stop, or cannot go on.
pub(super) async fn run(
    arguments: &Arguments,
    plan: Plan,
    sockets: Sockets,
    mut watched: Option<Watch>,
) -> io::Result<Outcome> {
    let terminal = Terminal::of_this_process();
    let mut hangups = signal(SignalKind::hangup())?;
    let mut stops = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ];
    sockets.announce();
    let mut manager = Manager::start(arguments, plan, sockets);
    let reason = loop {
        tokio::select! {
            () = any(&mut stops) => break None,
            _ = hangups.recv() => match terminal.is_gone() {
                true => break None,
                false => manager.roll("SIGHUP"),
            },
            () = changed(&mut watched) => manager.roll("a file has changed"),
            done = rolled(&mut manager.rolling) => manager.rolled(done),
            Some(end) = manager.slots.join_next() => break Some(end.unwrap_or(End::GaveUp)),
            Ok(()) = manager.ready.changed() => manager.count(),
        }
    };
    manager.drain(&mut stops).await;
    tracing::info!("stopped");
    let killed = manager.plan.killed.load(Ordering::Relaxed);
    Ok(match reason {
        Some(End::CannotRun(code)) => Outcome::CannotRun(code),
        Some(End::GaveUp) => Outcome::GaveUp,
        Some(End::Stopped) | None if killed => Outcome::Killed,
        Some(End::Stopped) | None => Outcome::Stopped,
    })
}

impl Manager {
    fn start(arguments: &Arguments, plan: Plan, sockets: Sockets) -> Self {
        let plan = Arc::new(plan);
        let stop = CancellationToken::new();
        let (sender, ready) = watch::channel(0);
        let (mut slots, mut rolls) = (JoinSet::new(), Vec::new());
        for number in 1..=sockets.workers {
            let Some(socket) = sockets.of(number) else {
                break;
            };
            let slot = Slot {
                number,
                plan: Arc::clone(&plan),
                socket,
                stop: stop.clone(),
                ready: sender.clone(),
                backoff: Backoff::new(arguments.backoff_max, arguments.healthy_after),
                give_up: arguments.give_up,
                is_ready: false,
                was_ready: false,
            };
            let (roll, asked) = mpsc::channel(1);
            rolls.push(roll);
            slots.spawn(slot.run(asked));
        }
        Self {
            workers: sockets.workers,
            plan,
            stop,
            slots,
            rolls,
            ready,
            rolling: None,
            roll_again: false,
            was_ready: false,
        }
    }

    /// Replaces the workers one by one, now or after the roll that goes on.
    fn roll(&mut self, why: &str) {
        if self.rolling.is_some() {
            self.roll_again = true;
            return;
        }
        tracing::info!("{why}: replacing the workers one by one");
        let now = NotifyState::monotonic_usec_now();
        tell(&match now {
            Ok(now) => vec![NotifyState::Reloading, now],
            Err(_) => vec![NotifyState::Reloading],
        });
        let rolls = self.rolls.clone();
        self.rolling = Some(Box::pin(async move {
            for roll in rolls {
                let (reply, done) = oneshot::channel();
                if roll.send(reply).await.is_err() || done.await != Ok(true) {
                    return false;
                }
            }
            true
        }));
    }

    fn rolled(&mut self, done: bool) {
        self.rolling = None;
        match done {
            true => tracing::info!("all workers were replaced"),
            false => tracing::error!("a worker could not be replaced: the rest stay as they are"),
        }
        if std::mem::take(&mut self.roll_again) {
            self.roll("asked for meanwhile");
        } else {
            tell(&[NotifyState::Ready]);
        }
    }

    fn count(&mut self) {
        let (ready, workers) = (*self.ready.borrow_and_update(), self.workers);
        let status = format!("{ready} of {workers} workers are up");
        if ready == usize::from(workers) && !self.was_ready {
            self.was_ready = true;
            tracing::info!("ready: {status}");
            tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
        } else {
            tell(&[NotifyState::Status(&status)]);
        }
    }

    /// Ends all workers, and returns when they are gone.
    async fn drain(&mut self, stops: &mut [Signal; 2]) {
        tell(&[NotifyState::Stopping]);
        tracing::info!("stopping: a second signal kills the workers");
        // The last of those who have a socket closes it: nobody is to come who is not served.
        self.stop.cancel();
        let plan = Arc::clone(&self.plan);
        let gone = async {
            while self.slots.join_next().await.is_some() {}
            plan.ending.close();
            plan.ending.wait().await;
        };
        tokio::pin!(gone);
        tokio::select! {
            () = &mut gone => return,
            () = any(stops) => {}
        }
        self.plan.hurry.cancel();
        gone.await;
    }
}

async fn any([one, other]: &mut [Signal; 2]) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

async fn changed(watched: &mut Option<Watch>) {
    match watched {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

async fn rolled(rolling: &mut Option<Rolling>) -> bool {
    match rolling {
        Some(rolling) => rolling.await,
        None => std::future::pending().await,
    }
}
