//! Who says that somebody is ready: workers to the manager, and the manager to systemd.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use afcgi_interop::process::Signal;
use afcgi_interop::spawn::Spawn;

/// A worker that waits for a file before it says that it is ready, and goes on talking afterwards.
const WORKER: &str = "
import os, socket, sys, time
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ['NOTIFY_SOCKET'])
s.send(b'STATUS=nothing\\n')
s.send(b'STATUS=something\\nREADY=1\\n')
for n in range(2000): s.send(b'STATUS=%d' % n)
print('said it all', flush=True)
time.sleep(1000)
";

/// The messages that systemd gets, until one holds the words.
fn heard(socket: &UnixDatagram, words: &str) -> Vec<String> {
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut messages = Vec::new();
    loop {
        let mut buffer = [0; 1000];
        let count = socket
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("no {words}: {error}: {messages:?}"));
        messages.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
        if messages.last().unwrap().contains(words) {
            return messages;
        }
    }
}

/// Systemd hears of it when all workers are up, when they are replaced, and when it stops.
#[tokio::test]
async fn systemd_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = super::spawn();
    command.env("NOTIFY_SOCKET", &path);
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "2",
        "--settle",
        "50ms",
    ];
    let script = "echo notify ${NOTIFY_SOCKET-none}; exec sleep 1000";
    let mut spawn = Spawn::run(command, &flags, &["sh", "-c", script]);
    let messages = heard(&socket, "READY=1");
    assert!(
        messages
            .last()
            .unwrap()
            .contains("STATUS=2 of 2 workers are up"),
        "{messages:?}"
    );
    spawn.logs(&["notify none"], 2).await;
    spawn.process.signal(Signal::HUP);
    let messages = heard(&socket, "RELOADING=1");
    assert!(
        messages.last().unwrap().contains("MONOTONIC_USEC="),
        "{messages:?}"
    );
    heard(&socket, "READY=1");
    assert!(spawn.process.stop().success());
    heard(&socket, "STOPPING=1");
}

/// With `--notify` a worker is up when it says so, and not before; it may talk as much as it likes.
#[tokio::test]
async fn workers_that_say_when() {
    let mut flags = vec!["--listen", "127.0.0.1:0", "--workers", "1", "--notify"];
    let program = super::users::for_all("/usr/bin/env");
    if rustix::process::getuid().is_root() {
        flags.extend(["--user", "nobody"]);
    }
    let go = program.path().join("go").display().to_string();
    let mut spawn = Spawn::run(super::spawn(), &flags, &["python3", "-c", WORKER, &go]);
    spawn.logs(&["listening"], 1).await;
    assert!(spawn.pids().is_empty());
    std::fs::write(&go, "").unwrap();
    spawn.logs(&["ready: 1 of 1"], 1).await;
    spawn.logs(&["said it all"], 1).await;
    std::fs::remove_file(&go).unwrap();
    spawn.process.signal(Signal::HUP);
    spawn.logs(&["SIGHUP: replacing"], 1).await;
    assert_eq!(spawn.pids().len(), 1);
    std::fs::write(&go, "").unwrap();
    spawn.logs(&["all workers were replaced"], 1).await;
    assert!(spawn.process.stop().success());
}

#[tokio::test]
async fn a_worker_that_never_says_it() {
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "1",
        "--notify",
        "--start-timeout",
        "100ms",
    ];
    let spawn = Spawn::run(super::spawn(), &flags, &["sleep", "1000"]);
    spawn.logs(&["the worker was not ready in time"], 2).await;
    spawn.logs(&["started again in"], 2).await;
    assert!(spawn.pids().is_empty());
}
