//! How it begins and ends: signals, arguments, exit status.

use std::process::{Command, Stdio};

use afcgi_interop::app::afcgi;
use afcgi_interop::fake::{Fake, next_request, response, write};
use afcgi_interop::process::Signal;
use afcgi_interop::raw;
use afcgi_interop::tap::Tap;
use afcgi_interop::wait::{SOON, eventually, free_port};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::{afcgi_with, answers, exchange, texts};

/// Requests end by themselves after the first signal; idle connections end at once, and nobody new is served.
#[tokio::test]
async fn requests_may_end() {
    static GO: Semaphore = Semaphore::const_new(0);
    static THERE: Semaphore = Semaphore::const_new(0);
    let app = Fake::start(|mut socket, number| async move {
        while next_request(&mut socket, None).await.is_some() {
            if number == 1 {
                THERE.add_permits(1);
                GO.acquire().await.expect("it goes on").forget();
            }
            write(&mut socket, &response(1, "x")).await;
        }
    })
    .await;
    let mut tap = Tap::before(app.port(), &[]).await;
    let mut idle = raw::connect(tap.port()).await;
    exchange(&mut idle, &raw::request(1, "/", "")).await;
    let mut busy = raw::connect(tap.port()).await;
    busy.write_all(&raw::request(1, "/busy", ""))
        .await
        .expect("written");
    let there = timeout(SOON, THERE.acquire()).await;
    there
        .expect("the application has it")
        .expect("a permit")
        .forget();
    tap.process.signal(Signal::TERM);
    tap.says("waiting for 1 connection with requests").await;
    let end = timeout(SOON, raw::read(&mut idle)).await.expect("an end");
    assert_eq!(end, None);
    assert!(TcpStream::connect(("127.0.0.1", tap.port())).await.is_err());
    GO.add_permits(1);
    let record = timeout(SOON, raw::read(&mut busy))
        .await
        .expect("an answer");
    assert!(record.is_some());
    assert_eq!(tap.ended().await, 0);
    assert!(tap.process.log().contains("2 requests on 2 connections"));
}

#[tokio::test]
async fn a_second_signal_ends_all() {
    static THERE: Semaphore = Semaphore::const_new(0);
    let app = Fake::start(|mut socket, _| async move {
        next_request(&mut socket, None).await;
        THERE.add_permits(1);
        std::future::pending::<()>().await;
    })
    .await;
    let mut tap = Tap::before(app.port(), &[]).await;
    let mut busy = raw::connect(tap.port()).await;
    busy.write_all(&raw::request(1, "/busy", ""))
        .await
        .expect("written");
    let there = timeout(SOON, THERE.acquire()).await;
    there
        .expect("the application has it")
        .expect("a permit")
        .forget();
    tap.process.signal(Signal::INT);
    tap.says("waiting for 1 connection with requests").await;
    let (log, code) = tap.end().await;
    assert_eq!(code, 0);
    assert!(
        log.contains("GET /busy - in 0 out 0 total ") && log.contains("[its end was not seen]"),
        "{log}"
    );
}

#[tokio::test]
async fn arguments() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("its address").to_string();
    let free = format!("127.0.0.1:{}", free_port());
    for (flags, expected, words) in [
        (&[][..], 2, "--listen <ADDR>"),
        (&["--listen", &free], 2, "--connect <ADDR>"),
        (
            &["--listen", &free, "--connect", &free],
            2,
            "the tap would talk to itself",
        ),
        (
            &["--listen", &taken, "--connect", &free],
            1,
            "another process listens there",
        ),
        (&["--listen", &free, "--connect", "x"], 2, "no address"),
        (
            &["--read", "/none", "--status", "6"],
            2,
            "such as 500 or 5xx",
        ),
        (&["--read", "/none"], 1, "cannot read /none: No such file"),
        (
            &["--read", "/etc/passwd"],
            1,
            "it is neither a pcapng nor a pcap file",
        ),
        (
            &["--read", "/dev/null"],
            1,
            "it is neither a pcapng nor a pcap file",
        ),
        (
            &["--listen", &free, "--connect", &taken, "-w", "/none/x"],
            1,
            "cannot write /none/x",
        ),
        (
            &["--listen", &free, "--connect", &taken, "-w", "-", "-v"],
            2,
            "takes the standard output",
        ),
    ] {
        let (code, _, err) = texts(&afcgi_with(&[&["tap"], flags].concat()).await);
        assert_eq!(code, expected, "{flags:?}: {err}");
        assert!(err.contains(words), "{flags:?}: {err}");
    }
    let (code, help, _) = texts(&afcgi_with(&["tap", "--help"]).await);
    assert!(
        code == 0 && help.contains("Examples:") && help.contains("Exit status:"),
        "{help}"
    );
}

/// As with `| head`: it ends in order.
#[tokio::test]
async fn nobody_reads_any_more() {
    let app = answers(response(1, "x")).await;
    let port = free_port();
    let mut child = Command::new(afcgi())
        .args(["tap", "--listen", &format!("127.0.0.1:{port}")])
        .args(["--connect", &format!("127.0.0.1:{}", app.port())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("afcgi tap");
    drop(child.stdout.take());
    let mut socket = eventually("it listens", SOON, || async {
        TcpStream::connect(("127.0.0.1", port))
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    // The one whose line cannot be printed is served.
    exchange(&mut socket, &raw::request(1, "/", "")).await;
    let wait = tokio::task::spawn_blocking(move || child.wait_with_output().expect("its end"));
    let output = timeout(SOON, wait)
        .await
        .expect("it ends")
        .expect("a thread");
    let (code, _, err) = texts(&output);
    assert!(
        code == 0 && err.contains("nobody reads the output any more"),
        "{err}"
    );
}

/// A disk that is full ends the file, not the traffic.
#[tokio::test]
async fn a_file_that_cannot_be_written() {
    let app = answers(response(1, "x")).await;
    let mut tap = Tap::before(app.port(), &["-w", "/dev/full"]).await;
    tap.says("the file cannot be written any more").await;
    let mut socket = raw::connect(tap.port()).await;
    for _ in 0..3 {
        exchange(&mut socket, &raw::request(1, "/", "")).await;
    }
    drop(socket);
    let (log, code) = tap.end().await;
    assert_eq!(code, 1, "{log}");
    assert!(
        log.contains("cannot write /dev/full: No space left on device"),
        "{log}"
    );
    assert!(log.contains("3 requests on 1 connection"), "{log}");
}
