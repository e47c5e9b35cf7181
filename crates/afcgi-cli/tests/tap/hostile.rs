//! Peers that mean harm, and many of them: what passes, what is held, what reaches the terminal.

use std::process::{Command, Stdio};

use afcgi_interop::app::afcgi;
use afcgi_interop::fake::{Fake, end, response};
use afcgi_interop::raw::{self, kind, record};
use afcgi_interop::tap::Tap;
use afcgi_interop::wait::{SOON, eventually, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{answers, exchange, request};

/// An application that reads all, and answers the id 1 once its request is there.
async fn devours() -> Fake {
    Fake::start(|mut socket, _| async move {
        while let Some(record) = raw::read(&mut socket).await {
            let is_end = record.kind == kind::STDIN && record.content.is_empty();
            if is_end && record.id == 1 && socket.write_all(&response(1, "x")).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// Three hundred connections with a thousand requests each that never end: what is held has bounds, and others are served.
#[tokio::test]
async fn three_hundred_that_never_end() {
    let app = devours().await;
    let mut tap = Tap::before(app.port(), &["--json"]).await;
    let mut one = Vec::new();
    let long = "x".repeat(100);
    let params: Vec<(&str, &str)> = vec![("REQUEST_URI", long.as_str()); 30];
    for id in 2..1002 {
        let whole = request(id, &params, b"");
        // Without the end of STDIN.
        one.extend(&whole[..whole.len() - 8]);
    }
    let mut sockets = Vec::new();
    for _ in 0..300 {
        let mut socket = raw::connect(tap.port()).await;
        socket.write_all(&one).await.expect("written");
        sockets.push(socket);
    }
    let mut socket = raw::connect(tap.port()).await;
    let records = exchange(&mut socket, &raw::request(1, "/", "")).await;
    assert_eq!(records.len(), 3);
    tap.says("too many requests are active at a time").await;
    let peak = tap.process.peak();
    assert!(peak < 400 << 20, "{} MB", peak >> 20);
    drop(sockets);
    // When they are gone, there is room again.
    eventually("requests are followed again", SOON, || async {
        let mut socket = raw::connect(tap.port()).await;
        exchange(&mut socket, &raw::request(1, "/again", "")).await;
        let log = tap.process.log();
        match log.contains("\"uri\":\"/again\"") {
            true => Ok(()),
            false => Err(String::from("they are not")),
        }
    })
    .await;
}

/// All ids of a connection at once.
#[tokio::test]
async fn all_ids_at_once() {
    let app = devours().await;
    let mut tap = Tap::before(app.port(), &["-q"]).await;
    let mut socket = raw::connect(tap.port()).await;
    let mut all = Vec::new();
    for id in (1..=u16::MAX).rev() {
        all.extend(raw::begin(id));
    }
    all.extend(&raw::request(1, "/", "")[16..]);
    exchange(&mut socket, &all).await;
    drop(socket);
    let (log, _) = tap.end().await;
    assert!(log.contains("at most 65535 at a time on one"), "{log}");
    assert!(log.contains("65534 requests without END_REQUEST"), "{log}");
}

/// Violations without number: some are shown, all are counted, and the terminal is told nothing.
#[tokio::test]
async fn floods_and_control_characters() {
    let mut answer = record(kind::STDERR, 1, b"bad \x1b[31m thing\nnext line");
    answer.extend(record(kind::STDOUT, 1, b"Status: 200\r\n\r\n\x1b[2J"));
    for _ in 0..5000 {
        answer.extend(record(kind::STDOUT, 9, b"x"));
    }
    answer.extend(end(1, 0));
    let app = answers(answer).await;
    for flag in ["--id=1", "--json", "-v"] {
        let mut tap = Tap::before(app.port(), &[flag]).await;
        let mut socket = raw::connect(tap.port()).await;
        let params = [
            ("REQUEST_METHOD", "G\x1b[2J"),
            ("REQUEST_URI", "/\x1b]0;title\x07"),
        ];
        exchange(&mut socket, &request(1, &params, b"")).await;
        drop(socket);
        let (log, _) = tap.end().await;
        let acts = |c: char| c.is_control() && c != '\n';
        assert_eq!(log.find(acts), None, "{flag}");
        if flag == "-v" {
            assert!(log.contains("further violations of this connection are counted"));
            assert_eq!(
                log.matches("for an id that was never begun").count(),
                20 + 1
            );
        }
        let counted = match flag {
            "--json" => "\"count\":5000,",
            _ => "R-10 by app: 5000 times",
        };
        assert!(log.contains(counted), "{flag}: {log}");
    }
}

/// Whoever reads the output stops reading: traffic goes on, and what could not be printed is counted.
#[tokio::test]
async fn a_reader_that_stops() {
    let app = answers(response(1, &"x".repeat(60_000))).await;
    let port = free_port();
    let mut child = Command::new(afcgi())
        .args(["tap", "-v", "--listen", &format!("127.0.0.1:{port}")])
        .args(["--connect", &format!("127.0.0.1:{}", app.port())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("afcgi tap");
    let mut socket = eventually("it listens", SOON, || async {
        TcpStream::connect(("127.0.0.1", port))
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    let long = "y".repeat(120);
    let params: Vec<(&str, &str)> = vec![("SOME_NAME", long.as_str()); 400];
    // Some 17 MB of lines and more.
    for _ in 0..600 {
        exchange(&mut socket, &request(1, &params, b"")).await;
    }
    drop(socket);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, afcgi_interop::process::Signal::INT).expect("a signal");
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let (mut out, mut err) = (Vec::new(), String::new());
        child
            .stdout
            .take()
            .expect("piped")
            .read_to_end(&mut out)
            .expect("read");
        child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut err)
            .expect("read");
        (child.wait().expect("its end"), out.len(), err)
    });
    let (status, length, err) = read.await.expect("a thread");
    assert!(status.success() && length > 10_000_000, "{length}: {err}");
    assert!(
        err.contains("were not printed: whoever reads the output is too slow"),
        "{err}"
    );
    assert!(err.contains("600 requests on 1 connection"), "{err}");
}

/// A length that is a lie holds nothing, and the bytes pass.
#[tokio::test]
async fn hostile_lengths_pass() {
    let app = Fake::start(|mut socket, _| async move {
        let mut count = 0;
        let mut buffer = vec![0; 65_536];
        while count < 600_032 {
            count += socket.read(&mut buffer).await.expect("read");
        }
        socket.write_all(b"all").await.expect("written");
    })
    .await;
    let tap = Tap::before(app.port(), &["-v"]).await;
    let mut socket = raw::connect(tap.port()).await;
    let mut bytes = raw::begin(1);
    bytes.extend(record(kind::PARAMS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff"));
    for _ in 0..10 {
        bytes.extend(record(kind::PARAMS, 1, &[b'x'; 59_992]));
    }
    socket.write_all(&bytes).await.expect("written");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("read");
    assert_eq!(answer, b"all");
    tap.says("R-02 by app").await;
}
