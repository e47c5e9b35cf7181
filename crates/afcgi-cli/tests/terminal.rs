//! A terminal that is closed ends what runs in it, and nothing else.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};

use afcgi_interop::wait::{SOON, eventually, free_port};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::net::TcpStream;

/// A program that is the first of a terminal of its own. All in that terminal end with this.
struct Session {
    /// The other end of the terminal, until that is closed.
    terminal: Option<OwnedFd>,
    child: Child,
    log: tempfile::NamedTempFile,
    port: u16,
}

impl Session {
    /// Runs a shell command in which `$AFCGI` is the program and `$PORT` a free port, until something listens there.
    async fn start(command: &str) -> Self {
        let terminal =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let tty = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap());
        let (log, port) = (tempfile::NamedTempFile::new().unwrap(), free_port());
        let child = Command::new("setsid")
            .args(["--ctty", "bash", "-c", command])
            .env("AFCGI", env!("CARGO_BIN_EXE_afcgi"))
            .env("PORT", port.to_string())
            .stdin(tty.unwrap())
            .stdout(log.reopen().unwrap())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut session = Self {
            terminal: Some(terminal),
            child,
            log,
            port,
        };
        session.listens().await;
        session
    }

    async fn listens(&mut self) {
        let (port, log) = (self.port, self.log.path().to_owned());
        eventually("it listens", SOON, || async {
            let connected = TcpStream::connect(("127.0.0.1", port)).await;
            let said = std::fs::read_to_string(&log).unwrap();
            connected
                .map(drop)
                .map_err(|error| format!("{error}: {said}"))
        })
        .await;
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    fn close(&mut self) {
        self.terminal = None;
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until the first program has left, and everybody has who listened.
    async fn left(&mut self) -> ExitStatus {
        let (port, log) = (self.port, self.log.path().to_owned());
        eventually("nobody listens", SOON, || async {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(_) => Err(std::fs::read_to_string(&log).unwrap()),
                Err(_) => Ok(()),
            }
        })
        .await;
        let child = std::cell::RefCell::new(&mut self.child);
        eventually("it leaves", SOON, || {
            let status = child.borrow_mut().try_wait().unwrap();
            std::future::ready(status.ok_or_else(|| "it runs".to_owned()))
        })
        .await
    }

    async fn logs(&self, words: &str) {
        eventually("it says so", SOON, || async {
            let said = self.said();
            said.contains(words).then_some(()).ok_or(said)
        })
        .await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        _ = kill_process_group(self.pid(), Signal::KILL);
        _ = self.child.wait();
    }
}

const GATEWAY: &str = "exec $AFCGI gateway 127.0.0.1:1 --listen 127.0.0.1:$PORT";
const DEMO: &str = "exec $AFCGI demo --listen 127.0.0.1:$PORT";

#[tokio::test]
async fn the_gateway_ends_with_its_terminal() {
    let mut session = Session::start(GATEWAY).await;
    // In a terminal that is there SIGHUP means what it means to a server.
    kill_process(session.pid(), Signal::HUP).unwrap();
    session.logs("was read again").await;
    session.close();
    assert!(session.left().await.success());
    assert!(session.said().contains("stopped"), "{}", session.said());
}

#[tokio::test]
async fn the_demonstration_ends_with_its_terminal() {
    let mut session = Session::start(DEMO).await;
    session.close();
    assert!(session.left().await.success());
}

/// `make` waits for what it runs, which the kernel does not tell.
#[tokio::test]
async fn what_is_waited_for_ends_with_its_terminal() {
    let command = "trap : HUP; $AFCGI demo --listen 127.0.0.1:$PORT; exit $?";
    let mut session = Session::start(command).await;
    session.close();
    assert!(session.left().await.success());
}

/// Those that were told to outlive it do.
#[tokio::test]
async fn nohup() {
    for command in [GATEWAY, DEMO] {
        let command = command.replace("exec", "exec nohup");
        let mut session = Session::start(&command).await;
        session.close();
        // It is told again, after the end of the terminal: what it does with that is the last word.
        kill_process(session.pid(), Signal::HUP).unwrap();
        if command.contains("gateway") {
            session.logs("was read again").await;
        }
        session.listens().await;
        kill_process(session.pid(), Signal::TERM).unwrap();
        assert!(session.left().await.success());
    }
}

/// The demonstration leaves nothing behind, however it is asked to end.
#[tokio::test]
async fn hangup_ends_the_demonstration_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let command = format!("export TMPDIR={}; {DEMO}", folder.path().display());
    let mut session = Session::start(&command).await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    kill_process(session.pid(), Signal::HUP).unwrap();
    assert!(session.left().await.success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
