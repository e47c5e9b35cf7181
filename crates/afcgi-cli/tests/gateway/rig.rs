//! A gateway of a test: the process, its addresses and its files.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use afcgi_interop::http::{client, get_ok};
use afcgi_interop::process::Process;
use afcgi_interop::wait::{SOON, eventually, free_port};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A running gateway.
pub(crate) struct Rig {
    pub(crate) process: Process,
    pub(crate) port: u16,
    pub(crate) admin: u16,
    dir: TempDir,
}

impl Rig {
    /// Starts the gateway with flags.
    pub(crate) async fn flags(flags: &[&str]) -> Self {
        Self::start(flags, None).await
    }

    /// Starts the gateway with a configuration.
    pub(crate) async fn config(toml: &str) -> Self {
        Self::start(&[], Some(toml)).await
    }

    /// Starts the gateway with both.
    pub(crate) async fn start(flags: &[&str], toml: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (port, admin) = (free_port(), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_afcgi"));
        command.arg("gateway").args(flags);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--admin", &format!("127.0.0.1:{admin}")]);
        command.args(["--access-log", "-"]);
        if let Some(toml) = toml {
            std::fs::write(dir.path().join("gateway.toml"), toml).unwrap();
            command.arg("--config").arg(dir.path().join("gateway.toml"));
        }
        let mut process = Process::start("gateway", &command, &dir.path().join("log"));
        eventually("the gateway listens", SOON, || {
            process.assert_running();
            // Its own word: somebody else's socket would take connections too.
            let log = process.log();
            async move {
                match log.contains("listening on ") {
                    true => Ok(()),
                    false => Err(log),
                }
            }
        })
        .await;
        Self {
            process,
            port,
            admin,
            dir,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin)
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("gateway.toml")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for a line of the log that holds all of the words.
    pub(crate) async fn logs(&self, words: &[&str]) {
        eventually("a line in the log", SOON, || async {
            let log = self.process.log();
            let found = |line: &str| words.iter().all(|word| line.contains(word));
            match log.lines().any(found) {
                true => Ok(()),
                false => Err(format!("no line with {words:?} in:\n{log}")),
            }
        })
        .await;
    }

    /// Waits until so many requests are being answered.
    pub(crate) async fn active(&self, count: usize) {
        let line = format!("afcgi_gateway_requests_active {count}");
        let client = client();
        eventually(&line, SOON, || async {
            let metrics = get_ok(&client, &self.admin_url("/metrics")).await;
            let metrics = String::from_utf8_lossy(&metrics).into_owned();
            match metrics.lines().any(|found| found == line) {
                true => Ok(()),
                false => Err(metrics),
            }
        })
        .await;
    }

    /// Sends bytes on a connection of their own, and returns what is answered until that is closed.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        socket.write_all(request).await.unwrap();
        rest(&mut socket).await
    }
}

/// All that comes until the connection is closed.
pub(crate) async fn rest(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A connection that is reset has been closed, too.
    let read = tokio::time::timeout(SOON, socket.read_to_end(&mut answer));
    let _ = read.await.expect("the connection is closed in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Runs the program until it leaves by itself.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.arg(Duration::from_secs(30).as_secs().to_string());
    command.arg(env!("CARGO_BIN_EXE_afcgi")).args(arguments);
    command.output().unwrap()
}
