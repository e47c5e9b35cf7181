//! Workers that crash, and programs that cannot be run.

use afcgi_interop::spawn::Spawn;
use rustix::process::{Pid, Signal, kill_process};

use super::{answers_at_port, is_gone, spawn};

fn run(flags: &[&str], program: &[&str]) -> (Option<i32>, String) {
    let mut command = spawn();
    command.args(["--listen", "127.0.0.1:0", "--workers", "1"]);
    command.args(flags).arg("--").args(program);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

/// One that crashes at once three hundred times: each is told of, the pauses grow to their limit, and it is given up in the end.
#[test]
fn three_hundred_crashes() {
    let (status, said) = run(
        &["--backoff-max", "10ms", "--give-up", "300"],
        &["sh", "-c", "kill -SEGV $$"],
    );
    assert_eq!(status, Some(1), "{said}");
    assert_eq!(said.matches("the worker ended by signal 11").count(), 300);
    assert!(said.contains("given up"), "{said}");
    let pauses = said
        .lines()
        .filter(|line| line.contains("started again in"));
    for line in pauses {
        let (_, pause) = line.split_once("again in ").unwrap();
        let pause: u64 = pause.split("ms").next().unwrap().parse().unwrap();
        assert!((5..=10).contains(&pause), "{line}");
    }
}

#[test]
fn a_program_that_cannot_be_run() {
    for (program, expected, words) in [
        ("/no/such/program", 127, "/no/such/program: No such file"),
        ("no-such-program-anywhere", 127, "No such file"),
        ("/etc/passwd", 126, "Permission denied"),
    ] {
        let (status, said) = run(&[], &[program]);
        assert_eq!(status, Some(expected), "{said}");
        assert!(said.contains(words), "{said}");
    }
    let (status, said) = run(&["--chdir", "/no/such/folder", "--give-up", "1"], &["true"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("cannot be started"), "{said}");
}

/// A worker that is killed comes back, and the socket takes connections all the time.
#[tokio::test]
async fn a_worker_that_is_killed_comes_back() {
    let program = afcgi_interop::app::afcgitest().display().to_string();
    let spawn = Spawn::start(&["--workers", "1", "--healthy-after", "100ms"], &[&program]).await;
    for turn in 1..=3 {
        let pid = *spawn.pids().last().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        // It waits in the socket for the next worker.
        answers_at_port(spawn.port()).await.unwrap();
        spawn.logs(&["the worker ended by signal 9"], turn).await;
        spawn.logs(&["the worker is up"], turn + 1).await;
    }
    assert!(!spawn.process.log().contains("started again in"));
}

/// What it had started does not stay.
#[tokio::test]
async fn a_worker_that_leaves_children_behind() {
    let script = "(trap '' TERM; while :; do sleep 0.05; done) & echo child $!; sleep 0.1; exit 1";
    let flags = [
        "--workers",
        "1",
        "--grace",
        "200ms",
        "--backoff-max",
        "10ms",
    ];
    let spawn = Spawn::run(
        super::spawn(),
        &[&["--listen", "127.0.0.1:0"], &flags[..]].concat(),
        &["sh", "-c", script],
    );
    spawn.logs(&["[1] child "], 3).await;
    spawn
        .logs(
            &["processes that the worker had started did not end in time: killed"],
            2,
        )
        .await;
    let log = spawn.process.log();
    for line in log
        .lines()
        .filter(|line| line.starts_with("[1] child "))
        .take(2)
    {
        is_gone(line.trim_start_matches("[1] child ").parse().unwrap()).await;
    }
}

/// In a container it is the first process, whose children all orphans become: it waits for those too.
#[tokio::test]
async fn the_first_process_of_a_container() {
    let mut command = std::process::Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(afcgi_interop::app::afcgi()).arg("spawn");
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "1",
        "--backoff-max",
        "10ms",
    ];
    let script = "trap '' TERM; sleep 0.05 & exit 1";
    let spawn = Spawn::run(command, &flags, &["sh", "-c", script]);
    spawn.logs(&["the worker ended with status 1"], 30).await;
    let own = spawn.process.id();
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let children = |pid: &str| read(format!("/proc/{pid}/task/{pid}/children"));
    let manager = children(&own.to_string());
    let left = children(manager.trim());
    // One runs, and those of the last moment are being waited for.
    assert!(left.split_whitespace().count() < 20, "{left}");
    assert!(
        !spawn.process.log().contains("killed"),
        "{}",
        spawn.process.log()
    );
}
