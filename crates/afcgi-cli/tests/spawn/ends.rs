//! How it ends: in order, in time, by force, and by accident.

use std::time::Instant;

use afcgi_interop::app::afcgitest;
use afcgi_interop::gateway::{Gateway, Kind};
use afcgi_interop::http::{client, get_ok};
use afcgi_interop::process::Signal;
use afcgi_interop::spawn::Spawn;
use afcgi_interop::wait::{SOON, eventually};

use super::is_gone;

const STUBBORN: [&str; 3] = [
    "sh",
    "-c",
    "trap '' TERM; sleep 1000 & while :; do sleep 0.05; done",
];

async fn status(spawn: &mut Spawn) -> Option<i32> {
    let process = std::cell::RefCell::new(&mut spawn.process);
    let status = eventually("it has ended", SOON, || async {
        process
            .borrow_mut()
            .exited()
            .ok_or_else(|| "it runs".to_owned())
    });
    status.await.code()
}

/// A request that goes on when it is told to stop has its answer.
#[tokio::test]
async fn requests_end_first() {
    let program = afcgitest().display().to_string();
    let mut spawn = Spawn::start(&["--workers", "2"], &[&program]).await;
    let gateway = Gateway::start(Kind::Nginx, spawn.port()).await;
    let url = gateway.url("/events?n=20&ms=50");
    let answer = tokio::spawn(async move {
        let client = client();
        let mut response = afcgi_interop::http::get(&client, &url).await;
        let first = response.chunk().await.unwrap();
        (first, response)
    });
    let (first, mut response) = answer.await.unwrap();
    assert!(first.is_some());
    spawn.process.signal(Signal::TERM);
    let mut events = 0;
    while let Some(chunk) = response.chunk().await.unwrap() {
        events += chunk.windows(5).filter(|bytes| bytes == b"data:").count();
    }
    assert!(events >= 15, "{events}");
    assert_eq!(status(&mut spawn).await, Some(0), "{}", spawn.process.log());
}

/// Nobody who ignores the signal, and nobody whom it has started, outlives the time.
#[tokio::test]
async fn a_worker_that_does_not_end_is_killed() {
    let mut spawn = Spawn::start(&["--workers", "2", "--grace", "300ms"], &STUBBORN).await;
    let pids = spawn.pids();
    spawn.process.signal(Signal::INT);
    assert_eq!(status(&mut spawn).await, Some(3), "{}", spawn.process.log());
    spawn.logs(&["did not end in time: killed"], 2).await;
    for pid in pids {
        is_gone(pid).await;
        let group = rustix::process::Pid::from_raw(pid).unwrap();
        assert!(rustix::process::test_kill_process_group(group).is_err());
    }
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let mut spawn = Spawn::start(&["--workers", "2", "--grace", "1h"], &STUBBORN).await;
    spawn.process.signal(Signal::TERM);
    spawn.logs(&["stopping"], 1).await;
    let began = Instant::now();
    spawn.process.signal(Signal::INT);
    assert_eq!(status(&mut spawn).await, Some(3), "{}", spawn.process.log());
    assert!(began.elapsed() < SOON);
}

/// The signal that the program wants, to the program itself.
#[tokio::test]
async fn another_stop_signal() {
    let script = "trap 'echo in order; exit 0' USR1; while :; do sleep 0.05; done";
    let flags = ["--workers", "1", "--stop-signal", "SIGUSR1"];
    let mut spawn = Spawn::start(&flags, &["sh", "-c", script]).await;
    assert!(spawn.process.stop().success());
    spawn.logs(&["[1] in order"], 1).await;
}

/// The manager is killed: its workers end by themselves, also those that run as somebody else.
#[tokio::test]
async fn the_manager_is_killed() {
    let program = afcgitest().display().to_string();
    let mut users: Vec<&[&str]> = vec![&["--workers", "2"]];
    if rustix::process::getuid().is_root() {
        users.push(&["--workers", "2", "--user", "nobody"]);
    }
    for flags in users {
        let readable = super::users::for_all(&program);
        let program = readable.path().join("program").display().to_string();
        let mut spawn = Spawn::start(flags, &[&program]).await;
        let pids = spawn.pids();
        spawn.process.kill();
        for pid in pids {
            is_gone(pid).await;
        }
    }
}

/// It is asked to stop before its workers are up, again and again.
#[tokio::test]
async fn stopped_while_it_starts() {
    for _ in 0..20 {
        let flags = ["--listen", "DIR/app.sock", "--workers", "3"];
        let mut spawn = Spawn::run(super::spawn(), &flags, &["sleep", "1000"]);
        spawn.logs(&["listening"], 1).await;
        assert!(spawn.process.stop().success(), "{}", spawn.process.log());
        assert!(!spawn.dir().join("app.sock").exists());
    }
}

/// A gateway in front of one that stops hears that nobody is there.
#[tokio::test]
async fn nobody_listens_afterwards() {
    let program = afcgitest().display().to_string();
    let mut spawn = Spawn::start(&["--workers", "2"], &[&program]).await;
    let gateway = Gateway::start(Kind::Nginx, spawn.port()).await;
    get_ok(&client(), &gateway.url("/")).await;
    assert!(spawn.process.stop().success());
    let connected = std::net::TcpStream::connect(("127.0.0.1", spawn.port()));
    assert!(connected.is_err());
}
