//! `afcgi tap` between a web server and an application, or a peer made by hand on either side.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::app::afcgi;
use crate::process::{Process, Signal};
use crate::wait::{SOON, eventually, free_port};

/// A running tap, and a folder of its own.
#[derive(Debug)]
pub struct Tap {
    /// The process, for its memory.
    pub process: Process,
    port: u16,
    dir: TempDir,
}

impl Tap {
    /// Listens on a port of 127.0.0.1 before the application on another.
    pub async fn before(app: u16, flags: &[&str]) -> Self {
        Self::to(&format!("127.0.0.1:{app}"), flags).await
    }

    /// The same before an application at any address. DIR in flags is the tap's folder.
    pub async fn to(connect: &str, flags: &[&str]) -> Self {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        Self::between(&listen, connect, flags, port).await
    }

    /// The same on a unix socket in its folder, see [`Tap::file`].
    pub async fn at_socket(name: &str, connect: &str, flags: &[&str]) -> Self {
        Self::between(&format!("unix:DIR/{name}"), connect, flags, 0).await
    }

    async fn between(listen: &str, connect: &str, flags: &[&str], port: u16) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("afcgi-tap")
            .tempdir()
            .expect("a temporary folder");
        let own = |text: &str| text.replace("DIR", &dir.path().display().to_string());
        let mut command = Command::new(afcgi());
        command.args(["tap", "--listen", &own(listen), "--connect", connect]);
        command.args(flags.iter().map(|flag| own(flag)));
        let process = Process::start("afcgi tap", &command, &dir.path().join("log"));
        let tap = Self { process, port, dir };
        tap.says("is tapped before").await;
        tap
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until it has printed this.
    pub async fn says(&self, words: &str) {
        self.says_times(words, 1).await;
    }

    /// Waits until so many lines have this.
    pub async fn says_times(&self, words: &str, count: usize) {
        eventually(&format!("{count} lines with {words:?}"), SOON, || async {
            let log = self.process.log();
            match log.lines().filter(|line| line.contains(words)).count() {
                found if found >= count => Ok(()),
                _ => Err(log),
            }
        })
        .await;
    }

    /// Ends it by SIGINT: all that it has printed, and its exit status.
    pub async fn end(&mut self) -> (String, i32) {
        self.process.signal(Signal::INT);
        let status = self.ended().await;
        (self.process.log(), status)
    }

    /// Waits until it has ended, for its exit status.
    pub async fn ended(&mut self) -> i32 {
        let process = std::cell::RefCell::new(&mut self.process);
        let status = eventually("the tap has ended", SOON, || async {
            let mut process = process.borrow_mut();
            process.exited().ok_or_else(|| process.log())
        })
        .await;
        status.code().expect("an exit status")
    }
}
