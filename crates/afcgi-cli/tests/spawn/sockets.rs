//! Where it listens: sockets of its own, one for each worker, and those that were passed.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::Command;

use afcgi_interop::app::{afcgi, afcgitest};
use afcgi_interop::spawn::Spawn;
use afcgi_interop::wait::{SOON, eventually, free_port};

use super::{answers_at_path, answers_at_port, spawn};

fn program() -> String {
    afcgitest().display().to_string()
}

#[tokio::test]
async fn a_unix_socket_with_a_mode() {
    let flags = [
        "--listen",
        "DIR/app.sock",
        "--socket-mode",
        "620",
        "--workers",
        "2",
    ];
    let mut spawn = Spawn::run(spawn(), &flags, &[&program()]);
    spawn.logs(&["ready: 2 of 2"], 1).await;
    let path = spawn.dir().join("app.sock");
    answers_at_path(&path).await.unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o620);
    assert_eq!(metadata.uid(), rustix::process::getuid().as_raw());
    assert!(spawn.process.stop().success());
    assert!(!path.exists());
}

/// One that is alive is refused, a stale one replaced, and a file that is no socket left alone.
#[tokio::test]
async fn a_path_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listen = path.display().to_string();
    let refused = |words: &str| {
        let mut command = spawn();
        command.args(["--listen", &listen, "--", "true"]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words) && said.contains(&listen), "{said}");
    };
    let alive = UnixListener::bind(&path).unwrap();
    refused("another process listens there");
    assert!(path.exists());
    drop(alive);
    let flags = ["--listen", &listen, "--workers", "1"];
    let mut spawn = Spawn::run(spawn(), &flags, &[&program()]);
    spawn.logs(&["ready: 1 of 1"], 1).await;
    answers_at_path(&path).await.unwrap();
    assert!(spawn.process.stop().success());
    std::fs::write(&path, "precious").unwrap();
    refused("no socket");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_socket_for_each_worker() {
    let flags = ["--listen-each", "DIR/app-%d.sock", "--workers", "3"];
    let mut spawn = Spawn::run(spawn(), &flags, &["sh", "-c", "exec \"$0\"", &program()]);
    spawn.logs(&["ready: 3 of 3"], 1).await;
    let paths = [1, 2, 3].map(|n| spawn.dir().join(format!("app-{n}.sock")));
    for path in &paths {
        answers_at_path(path).await.unwrap();
    }
    // Each has its own and no other.
    let inode = |pid: i32| std::fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
    let inodes: std::collections::HashSet<_> = spawn.pids().into_iter().map(inode).collect();
    assert_eq!(inodes.len(), 3);
    assert!(spawn.process.stop().success());
    assert!(paths.iter().all(|path| !path.exists()));
}

/// The sockets of all workers are one and the same, and nothing else is passed.
#[tokio::test]
async fn descriptors_of_workers() {
    let script = "env; exec sleep 1000";
    let mut spawn = Spawn::start(&["--workers", "2"], &["sh", "-c", script]).await;
    spawn.logs(&["AFCGI_WORKER="], 2).await;
    let log = spawn.process.log();
    assert!(
        !log.contains("LISTEN_FDS") && !log.contains("NOTIFY_SOCKET"),
        "{log}"
    );
    let mut sockets = std::collections::HashSet::new();
    for pid in spawn.pids() {
        // The shell has descriptors of its own while it works: `sleep` has those that were passed.
        let name = format!("/proc/{pid}/comm");
        eventually("the shell became `sleep`", SOON, || async {
            match std::fs::read_to_string(&name) {
                Ok(name) if name == "sleep\n" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let entry = entry.unwrap();
            let number = entry.file_name().into_string().unwrap();
            let file = std::fs::read_link(entry.path()).unwrap();
            // What this test was started with comes through to everything that it starts.
            let inherited = std::fs::read_link(format!("/proc/self/fd/{number}"));
            assert!(
                ["0", "1", "2"].contains(&&*number) || inherited.is_ok_and(|it| it == file),
                "worker {pid} has descriptor {number}: {file:?}"
            );
        }
        let socket = std::fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
        assert!(
            socket.to_string_lossy().starts_with("socket:"),
            "{socket:?}"
        );
        sockets.insert(socket);
    }
    assert_eq!(sockets.len(), 1);
    // Its own signal ends `sleep` without a word.
    assert!(spawn.process.stop().success());
}

/// What systemd does before it starts a service: so many sockets, from descriptor 3 on.
const ACTIVATE: &str = "
import os, socket, sys
sockets = []
for n, port in enumerate(sys.argv[1].split(',')):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('127.0.0.1', int(port)))
    s.listen()
    s.setblocking(False)
    sockets.append(os.dup(s.detach()))
for n, fd in enumerate(sockets):
    os.dup2(fd, 50 + n)
for n, fd in enumerate(sockets):
    os.dup2(50 + n, 3 + n)
os.closerange(3 + len(sockets), 100)
os.environ.update(LISTEN_FDS=str(len(sockets)), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
";

fn activated(ports: &str) -> Command {
    let mut command = Command::new("python3");
    command
        .args(["-c", ACTIVATE, ports])
        .arg(afcgi())
        .arg("spawn");
    command
}

/// One socket is for all workers, which find it blocking whoever made it; several are for one worker each.
#[tokio::test]
async fn socket_activation() {
    let port = free_port();
    let script = "grep flags /proc/$$/fdinfo/0; exec \"$0\"";
    let program = ["sh", "-c", script, &program()];
    let mut spawn = Spawn::run(activated(&port.to_string()), &["--workers", "1"], &program);
    spawn.logs(&["ready: 1 of 1"], 1).await;
    answers_at_port(port).await.unwrap();
    let log = spawn.process.log();
    let flags = log.lines().find_map(|line| line.strip_prefix("[1] flags:"));
    let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
    assert_eq!(flags & 0o4000, 0, "{log}");
    assert!(spawn.process.stop().success());

    let ports = [free_port(), free_port()];
    let list = format!("{},{}", ports[0], ports[1]);
    let mut spawn = Spawn::run(activated(&list), &[], &program);
    spawn.logs(&["ready: 2 of 2"], 1).await;
    for port in ports {
        eventually("it answers", SOON, || answers_at_port(port)).await;
    }
    assert!(spawn.process.stop().success());
    let mut spawn = Spawn::run(activated(&list), &["--workers", "3"], &program);
    spawn
        .logs(&["2 sockets were passed for 3 workers"], 1)
        .await;
    assert_eq!(spawn.process.stop().code(), Some(1));
}

/// A socket that was passed and one that is named: which is meant?
#[test]
fn a_socket_too_many() {
    let mut command = Command::new("sh");
    let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\" 3<&0";
    command.args(["-c", script, "sh"]).arg(afcgi());
    command.args(["spawn", "--listen", "127.0.0.1:0", "--", "true"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    command.stdin(std::os::fd::OwnedFd::from(listener));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("leave out --listen"), "{said}");
}

/// What spawn-fcgi does, in front of this: the socket is descriptor 0.
#[tokio::test]
async fn the_socket_that_is_descriptor_0() {
    let port = free_port();
    let mut command = Command::new("spawn-fcgi");
    command.args(["-n", "-a", "127.0.0.1", "-p", &port.to_string(), "--"]);
    command.arg(afcgi()).arg("spawn");
    let mut spawn = Spawn::run(command, &["--workers", "1"], &[&program()]);
    spawn.logs(&["ready: 1 of 1"], 1).await;
    answers_at_port(port).await.unwrap();
    assert!(spawn.process.stop().success());
}

#[test]
fn nothing_to_listen_on() {
    let mut command = spawn();
    command
        .args(["--", "true"])
        .stdin(std::process::Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("say where, with --listen"), "{said}");
}
