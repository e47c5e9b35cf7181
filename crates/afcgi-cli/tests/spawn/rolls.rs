//! Workers that are replaced: at SIGHUP, and when files change.

use afcgi_interop::process::Signal;
use afcgi_interop::spawn::Spawn;
use rustix::process::{Pid, kill_process};

use super::is_gone;

const PROGRAM: [&str; 3] = ["sh", "-c", "[ ! -e DIR/broken ] || exit 7; exec sleep 1000"];

#[tokio::test]
async fn one_by_one() {
    let mut spawn = Spawn::start(&["--workers", "3", "--settle", "50ms"], &PROGRAM).await;
    let before = spawn.pids();
    spawn.process.signal(Signal::HUP);
    spawn.logs(&["all workers were replaced"], 1).await;
    let after = spawn.pids();
    assert_eq!((before.len(), after.len()), (3, 6));
    for pid in before {
        is_gone(pid).await;
    }
    for pid in &after[3..] {
        kill_process(Pid::from_raw(*pid).unwrap(), Signal::CONT).unwrap();
    }
    assert!(spawn.process.stop().success());
}

/// A new program that does not come up changes nothing: the old workers stay, and the manager is there.
#[tokio::test]
async fn a_broken_program_does_not_take_over() {
    let mut spawn = Spawn::start(&["--workers", "2", "--settle", "500ms"], &PROGRAM).await;
    let pids = spawn.pids();
    std::fs::write(spawn.dir().join("broken"), "").unwrap();
    spawn.process.signal(Signal::HUP);
    spawn
        .logs(
            &["the new worker ended with status 7: the old one stays"],
            1,
        )
        .await;
    spawn.logs(&["the rest stay as they are"], 1).await;
    for pid in &pids {
        kill_process(Pid::from_raw(*pid).unwrap(), Signal::CONT).unwrap();
    }
    std::fs::remove_file(spawn.dir().join("broken")).unwrap();
    spawn.process.signal(Signal::HUP);
    spawn.logs(&["all workers were replaced"], 1).await;
    for pid in pids {
        is_gone(pid).await;
    }
}

/// Three hundred signals during a roll ask for one more.
#[tokio::test]
async fn many_signals() {
    let mut spawn = Spawn::start(&["--workers", "2", "--settle", "200ms"], &PROGRAM).await;
    spawn.process.signal(Signal::HUP);
    spawn.logs(&["SIGHUP: replacing"], 1).await;
    for _ in 0..300 {
        spawn.process.signal(Signal::HUP);
    }
    spawn.logs(&["all workers were replaced"], 2).await;
    let workers = spawn.pids().len();
    assert!((6..=8).contains(&workers), "{}", spawn.process.log());
}

/// A roll finds workers that crash all the time, and that is the end of the crashes when the new program is better.
#[tokio::test]
async fn a_roll_ends_a_pause() {
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "2",
        "--settle",
        "300ms",
        "--backoff-max",
        "24h",
    ];
    let script = "[ -e DIR/fixed ] || exit 7; exec sleep 1000";
    let mut spawn = Spawn::run(super::spawn(), &flags, &["sh", "-c", script]);
    // The next would be in half a minute, or in an hour.
    spawn.logs(&["started again in", "failures=4"], 2).await;
    std::fs::write(spawn.dir().join("fixed"), "").unwrap();
    spawn.process.signal(Signal::HUP);
    spawn.logs(&["ready: 2 of 2"], 1).await;
    assert!(spawn.process.stop().success());
}

/// It stops in the middle of a roll: nobody is left.
#[tokio::test]
async fn stopped_in_the_middle() {
    let mut spawn = Spawn::start(&["--workers", "2", "--settle", "300ms"], &PROGRAM).await;
    spawn.process.signal(Signal::HUP);
    spawn.logs(&["SIGHUP: replacing"], 1).await;
    assert!(spawn.process.stop().success(), "{}", spawn.process.log());
    for pid in spawn.pids() {
        is_gone(pid).await;
    }
}

#[tokio::test]
async fn files_that_change() {
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--workers",
        "1",
        "--settle",
        "50ms",
        "--watch",
        "DIR",
        "--watch-ext",
        "py",
    ];
    for poll in [&[][..], &["--watch-poll", "100ms"]] {
        let mut spawn = Spawn::run(super::spawn(), &[&flags[..], poll].concat(), &PROGRAM);
        spawn.logs(&["ready: "], 1).await;
        // The log is in that folder, too.
        for turn in 1..=2 {
            std::fs::write(spawn.dir().join("a.py"), format!("{turn}")).unwrap();
            spawn.logs(&["a file has changed: replacing"], turn).await;
            spawn.logs(&["all workers were replaced"], turn).await;
        }
        assert_eq!(spawn.pids().len(), 3);
        assert!(spawn.process.stop().success());
    }
}
