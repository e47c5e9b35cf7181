//! `afcgi spawn`: the process manager of any FastCGI program: as many processes as there are CPUs, on one socket.
//!
//! `docs/spawn.md` tells how to use it. Everything runs on one thread: workers are told to end with the thread that started them.

mod arguments;
mod backoff;
mod exec;
mod listen;
mod log;
mod manage;
mod notify;
mod slot;
mod user;
mod watch;
mod worker;

use std::io;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use arguments::Arguments;
pub use exec::Exec;

use listen::Sockets;
use log::Log;
use manage::Outcome;
use notify::Folder;
use user::Identity;
use watch::Watch;
use worker::Plan;

use crate::logging;

/// The exit status where workers had to be killed.
const KILLED: u8 = 3;

impl Arguments {
    /// Runs the workers until it is told to stop, or cannot go on. The exit status is as `--help` says.
    pub fn run(self) -> ExitCode {
        let log = match Log::start(self.log_format) {
            Ok(log) => log,
            Err(error) => {
                logging::fail("spawn", &error);
                return ExitCode::FAILURE;
            }
        };
        logging::init_to(self.log_format, log.clone());
        let outcome = self.manage(&log);
        if let Err(error) = &outcome {
            logging::fail("spawn", error);
        }
        log.finish();
        match outcome {
            Ok(Outcome::Stopped) => ExitCode::SUCCESS,
            Ok(Outcome::Killed) => ExitCode::from(KILLED),
            Ok(Outcome::CannotRun(code)) => ExitCode::from(code),
            Ok(Outcome::GaveUp) | Err(_) => ExitCode::FAILURE,
        }
    }

    fn manage(&self, log: &Log) -> io::Result<Outcome> {
        let identity = Identity::new(self.user.as_ref(), self.group.as_ref());
        let identity =
            identity.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        if let Some(why) = identity.as_ref().and_then(Identity::refused) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let identity = identity.filter(|identity| !identity.is_own());
        let uid = identity.as_ref().and_then(|identity| identity.uid);
        let sockets = Sockets::new(self)?;
        let watch = match self.watch.is_empty() {
            true => None,
            false => Some(Watch::new(&self.watch, &self.watch_ext, self.watch_poll)?),
        };
        let before = raise_descriptors();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let notify = self.notify.then(|| Folder::new(uid)).transpose()?;
            let plan = Plan {
                program: self.program.clone(),
                dir: self.chdir.clone(),
                identity,
                nofile: (self.limit_nofile.or(before), self.limit_nofile),
                notify,
                start_timeout: self.start_timeout,
                settle: self.settle,
                stop_signal: self.stop_signal,
                grace: self.grace,
                log: log.clone(),
                ending: TaskTracker::new(),
                hurry: CancellationToken::new(),
                killed: AtomicBool::new(false),
            };
            manage::run(self, plan, sockets, watch).await
        })
    }
}

/// Each worker takes some of the manager's descriptors: as many as this user may have. What the limit was is for the workers: programs
/// that use select(2) are better off with it.
fn raise_descriptors() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it cannot be raised the start of a worker says what is missing.
    _ = setrlimit(Resource::Nofile, raised);
    limit.current
}
