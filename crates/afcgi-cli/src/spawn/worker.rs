//! One worker process: its start, its readiness, and its end with all that it has started.
//!
//! ```text
//!   start ──> runs ──ready──> serves ──(by itself)──> ended ──> what it leaves behind is ended
//!               │                │                                ^
//!               └── stop: signal ┴─> ends, or is killed ──────────┘
//! ```

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, kill_process_group, test_kill_process_group, waitpgid,
};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::listen::{Loan, Socket};
use super::log::Log;
use super::notify::{Folder, Readiness};
use super::user::Identity;

/// How often it is looked whether what a worker left behind is gone: the system does not tell.
const LOOK: Duration = Duration::from_millis(20);
/// How long the system may take to end what was killed.
const KILLED: Duration = Duration::from_secs(5);
/// How long the last lines of a worker are waited for before its end is told of.
const MOMENT: Duration = Duration::from_millis(100);
/// How long they are waited for when nobody is left whom it is known to have started.
const LAST_LINES: Duration = Duration::from_secs(1);

/// What all workers have in common.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) program: Vec<OsString>,
    pub(super) dir: Option<PathBuf>,
    pub(super) identity: Option<Identity>,
    /// Open files: the soft limit and the hard one, where they are to be set.
    pub(super) nofile: (Option<u64>, Option<u64>),
    /// Where workers say that they are ready; `None`: they are when they have lived for `settle`.
    pub(super) notify: Option<Folder>,
    pub(super) start_timeout: Duration,
    pub(super) settle: Duration,
    pub(super) stop_signal: Signal,
    pub(super) grace: Duration,
    pub(super) log: Log,
    /// Workers that are being ended, and what they left behind.
    pub(super) ending: TaskTracker,
    /// Whoever is to end is killed now.
    pub(super) hurry: CancellationToken,
    /// Whether somebody had to be killed.
    pub(super) killed: AtomicBool,
}

/// A process that was started. It is killed if this is dropped before its end.
#[derive(Debug)]
pub(super) struct Worker {
    number: u16,
    pid: Pid,
    child: Child,
    began: Instant,
    readiness: Option<Readiness>,
    is_ready: bool,
    /// What passes on its lines, until the last of them.
    lines: Option<JoinHandle<()>>,
    _loan: Loan,
}

/// What a worker does.
#[derive(Debug)]
pub(super) enum News {
    /// It is ready.
    Ready,
    /// It was not ready in time.
    TooLate,
    /// Its process has ended.
    Ended(ExitStatus),
}

impl Worker {
    /// Starts a process that takes its connections from the socket.
    pub(super) fn start(plan: &Plan, number: u16, socket: &Socket) -> io::Result<Self> {
        let (stdin, loan) = socket.lend()?;
        let (reader, writer) = io::pipe()?;
        let readiness = plan.notify.as_ref().map(Folder::socket).transpose()?;
        // This program, also where its file was replaced by a newer one.
        let mut command = Command::new("/proc/self/exe");
        command.arg("spawn-exec");
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                command.arg(name).arg(value);
            }
        };
        option("--parent", Some(std::process::id().to_string()));
        option("--nofile", plan.nofile.0.map(|limit| limit.to_string()));
        option("--nofile-max", plan.nofile.1.map(|limit| limit.to_string()));
        if let Some(identity) = &plan.identity {
            let groups: Vec<_> = identity.groups.iter().map(u32::to_string).collect();
            option("--groups", Some(groups.join(",")));
            option("--gid", Some(identity.gid.to_string()));
            option("--uid", identity.uid.map(|uid| uid.to_string()));
            command.envs(identity.variables.iter().map(|(name, value)| (name, value)));
        }
        command.arg("--").args(&plan.program);
        for name in [
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "NOTIFY_SOCKET",
            "WATCHDOG_PID",
            "WATCHDOG_USEC",
        ] {
            command.env_remove(name);
        }
        command.env("AFCGI_WORKER", number.to_string());
        if let Some(readiness) = &readiness {
            command.env("NOTIFY_SOCKET", readiness.path());
        }
        if let Some(dir) = &plan.dir {
            command.current_dir(dir);
        }
        command
            .stdin(stdin)
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        // The writing ends are in it: the end of the process is to be the end of the pipe.
        drop(command);
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = id.and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let reader = pipe::Receiver::from_owned_fd(reader.into())?;
        tracing::debug!(
            worker = number,
            pid = pid.as_raw_pid(),
            "the worker was started"
        );
        Ok(Self {
            number,
            pid,
            child,
            began: Instant::now(),
            readiness,
            is_ready: false,
            lines: Some(tokio::spawn(plan.log.clone().follow(
                reader,
                number,
                pid.as_raw_pid(),
            ))),
            _loan: loan,
        })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    pub(super) fn lived(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns when something is new. Nothing is lost where this is dropped.
    pub(super) async fn news(&mut self, plan: &Plan) -> News {
        tokio::select! {
            biased;
            // Where somebody else has waited for it nothing is known of it.
            status = self.child.wait() => News::Ended(status.unwrap_or_default()),
            is_ready = ready(self.readiness.as_ref(), self.began, plan), if !self.is_ready => {
                self.is_ready = is_ready;
                if is_ready { News::Ready } else { News::TooLate }
            }
            never = read_on(self.readiness.as_ref()), if self.is_ready => match never {},
        }
    }

    /// Waits for what the process has said, for a moment: somebody else may have its output. It has ended.
    pub(super) async fn last_lines(&mut self) {
        self.lines_within(MOMENT).await;
    }

    async fn lines_within(&mut self, time: Duration) {
        if let Some(lines) = &mut self.lines
            && timeout(time, lines).await.is_ok()
        {
            self.lines = None;
        }
    }

    /// Ends what the process has left behind. It has ended.
    pub(super) async fn clean_up(mut self, plan: &Plan) {
        self.end_group(plan, Instant::now() + plan.grace).await;
        self.lines_within(LAST_LINES).await;
    }

    /// Ends the process in order, kills it when that takes too long, then does the same with what it leaves behind.
    pub(super) async fn stop(mut self, plan: &Plan) {
        let limit = Instant::now() + plan.grace;
        if self.child.id().is_some() {
            // Only the process itself knows in which order its own children are to end.
            _ = kill_process(self.pid, plan.stop_signal);
        }
        let in_time = tokio::select! {
            _ = self.child.wait() => true,
            () = sleep_until(limit) => false,
            () = plan.hurry.cancelled() => false,
        };
        if !in_time {
            tracing::warn!(
                worker = self.number,
                pid = self.pid(),
                "the worker did not end in time: killed"
            );
            plan.killed.store(true, Ordering::Relaxed);
            self.kill();
            _ = timeout(KILLED, self.child.wait()).await;
            _ = timeout(KILLED, self.group_is_gone()).await;
        }
        self.last_lines().await;
        tracing::debug!(
            worker = self.number,
            pid = self.pid(),
            "the worker was stopped"
        );
        self.end_group(plan, limit).await;
        self.lines_within(LAST_LINES).await;
    }

    /// Ends the processes that are left of the group, by the limit.
    async fn end_group(&self, plan: &Plan, limit: Instant) {
        if !self.group_is_there() {
            return;
        }
        _ = kill_process_group(self.pid, Signal::TERM);
        let gone = self.group_is_gone();
        tokio::pin!(gone);
        let in_time = tokio::select! {
            () = &mut gone => true,
            () = sleep_until(limit) => false,
            () = plan.hurry.cancelled() => false,
        };
        if !in_time {
            tracing::warn!(
                worker = self.number,
                "processes that the worker had started did not end in time: killed"
            );
            plan.killed.store(true, Ordering::Relaxed);
            _ = kill_process_group(self.pid, Signal::KILL);
            _ = timeout(KILLED, gone).await;
        }
    }

    async fn group_is_gone(&self) {
        while self.group_is_there() {
            sleep(LOOK).await;
        }
    }

    /// Whether processes of the group are left. The id of a group is not given to another while they are.
    fn group_is_there(&self) -> bool {
        // Orphans are this process's where it is the first of a container.
        while let Ok(Some(_)) = waitpgid(self.pid, WaitOptions::NOHANG) {}
        test_kill_process_group(self.pid).is_ok()
    }

    fn kill(&mut self) {
        if self.child.id().is_some() {
            _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
        if let Some(lines) = &self.lines {
            lines.abort();
        }
    }
}

/// Whether a worker that was started then is ready, when that is known.
async fn ready(readiness: Option<&Readiness>, began: Instant, plan: &Plan) -> bool {
    match readiness {
        Some(readiness) => timeout_at(began + plan.start_timeout, readiness.wait())
            .await
            .is_ok(),
        None => {
            sleep_until(began + plan.settle).await;
            true
        }
    }
}

/// Reads what a worker has to say after that: it would wait for it.
async fn read_on(readiness: Option<&Readiness>) -> Infallible {
    match readiness {
        Some(readiness) => loop {
            readiness.wait().await;
        },
        None => std::future::pending().await,
    }
}

/// How a process ended, in words.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("with status {code}"),
        (None, Some(signal)) => {
            let core = if status.core_dumped() {
                ", core dumped"
            } else {
                ""
            };
            format!("by signal {signal}{core}")
        }
        (None, None) => "in an unknown way".to_owned(),
    }
}
