//! A child process of a test: its log is kept, and it never outlives the test.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};

/// How long a process may take to leave after SIGTERM before it is killed.
const LEAVE: Duration = Duration::from_secs(10);

/// How many lines of its log are shown when the test has failed.
const LINES_SHOWN: usize = 40;

/// A running process. Dropping it ends the process and waits until it is gone.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; what it writes to standard output and error goes to `log`.
    ///
    /// The kernel ends it too if the thread that called this dies (setpriv), so that a test run that is itself killed leaves nothing behind.
    /// Start it therefore from the thread that keeps the guard.
    pub fn start(name: &str, command: &Command, log: &Path) -> Self {
        let file = File::create(log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let copy = file.try_clone().expect("a second handle of the log");
        let mut wrapped = Command::new("setpriv");
        wrapped
            .args(["--pdeathsig", "TERM", "--"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            wrapped.current_dir(dir);
        }
        wrapped
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .process_group(0);
        let child = wrapped
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: setpriv: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            status: None,
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Its exit status, if it has left already.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("waiting for a child");
        }
        self.status
    }

    /// Fails the test if the process has left.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.exited() {
            panic!(
                "{} has left with {status}:\n{}",
                self.name,
                tail(&self.log())
            );
        }
    }

    /// Sends SIGTERM and waits until the process has left; kills it after ten seconds.
    pub fn stop(&mut self) -> ExitStatus {
        if let Some(status) = self.exited() {
            return status;
        }
        // The child is not yet reaped, so the id is still its own.
        let pid = Pid::from_child(&self.child);
        _ = kill_process(pid, Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < LEAVE {
            if let Some(status) = self.exited() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        eprintln!("{} did not leave within {LEAVE:?} of SIGTERM", self.name);
        _ = kill_process_group(pid, Signal::KILL);
        let status = self.child.wait().expect("waiting for a child");
        self.status = Some(status);
        status
    }

    /// Kills the process (SIGKILL) and waits for it.
    pub fn kill(&mut self) {
        if self.exited().is_none() {
            _ = self.child.kill();
            self.status = Some(self.child.wait().expect("waiting for a child"));
        }
    }

    /// Kills the process and all of its group, which are those that it has started (SIGKILL), and waits for it.
    pub fn kill_all(&mut self) {
        if self.exited().is_none() {
            _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        self.kill();
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.assert_running();
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
    }

    /// Resident memory now, in bytes, from /proc; the process must be running.
    pub fn resident(&mut self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most resident memory it has ever had, in bytes.
    pub fn peak(&mut self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&mut self, name: &str) -> u64 {
        self.assert_running();
        let status = read(Path::new(&format!("/proc/{}/status", self.id())));
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in /proc/PID/status"));
        let kilobytes: u64 = line
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number of kB");
        kilobytes * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let early = self.exited();
        self.stop();
        if std::thread::panicking() {
            if let Some(status) = early {
                let signal = status
                    .signal()
                    .map(|number| format!(", signal {number}"))
                    .unwrap_or_default();
                eprintln!(
                    "{} had left before the test ended: {status}{signal}",
                    self.name
                );
            }
            eprintln!("--- log of {}:\n{}\n---", self.name, tail(&self.log()));
        }
    }
}

/// A file as text, whatever its bytes are; empty if it cannot be read.
pub(crate) fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    _ = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}
