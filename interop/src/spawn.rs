//! `afcgi spawn` with a program of any kind.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::app::afcgi;
use crate::process::Process;
use crate::wait::{SOON, eventually, free_port};

/// A running process manager, and a folder of its own.
#[derive(Debug)]
pub struct Spawn {
    /// The manager, for its log and its end.
    pub process: Process,
    port: u16,
    dir: TempDir,
}

impl Spawn {
    /// Listens on a port of 127.0.0.1, and waits until all workers are up.
    pub async fn start(flags: &[&str], program: &[&str]) -> Self {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let mut command = Command::new(afcgi());
        command.args(["spawn", "--listen", &listen]);
        let mut spawn = Self::run(command, flags, program);
        spawn.port = port;
        spawn.logs(&["ready: "], 1).await;
        spawn
    }

    /// Starts the manager by a command to which flags and program are added, and waits for nothing. DIR in flags and program is its folder.
    pub fn run(mut command: Command, flags: &[&str], program: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("afcgi-spawn")
            .tempdir()
            .expect("a temporary folder");
        let own = |text: &&str| text.replace("DIR", &dir.path().display().to_string());
        command.args(flags.iter().map(own)).arg("--");
        command.args(program.iter().map(own));
        command.env_remove("FCGI_WEB_SERVER_ADDRS");
        let process = Process::start("afcgi spawn", &command, &dir.path().join("log"));
        Self {
            process,
            port: 0,
            dir,
        }
    }

    /// Waits until so many lines of the log hold all of the words.
    pub async fn logs(&self, words: &[&str], count: usize) {
        eventually("lines in the log", SOON, || async {
            let log = self.process.log();
            let holds = |line: &&str| words.iter().all(|word| line.contains(word));
            match log.lines().filter(holds).count() {
                found if found >= count => Ok(()),
                found => Err(format!(
                    "{found} lines with {words:?}, not {count}, in:\n{log}"
                )),
            }
        })
        .await;
    }

    /// The process ids of the workers whose start was logged, in that order.
    pub fn pids(&self) -> Vec<i32> {
        let log = self.process.log();
        let up = log.lines().filter(|line| line.contains("the worker is up"));
        let pid = |line: &str| {
            let (_, pid) = line.rsplit_once("pid=")?;
            pid.trim().parse().ok()
        };
        up.filter_map(pid).collect()
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Whatever a test is about: the manager never panics.
impl Drop for Spawn {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.process.stop();
            let log = self.process.log();
            assert!(!log.contains("panicked at"), "{log}");
        }
    }
}
