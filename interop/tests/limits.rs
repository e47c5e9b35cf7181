//! More than `afcgitest` can take: what is too much is refused, and everyone else is served meanwhile.

use std::time::Duration;

use afcgi_interop::app::App;
use afcgi_interop::attack::{logged, next_event, others_are_served, settles, stat};
use afcgi_interop::http::noise;
use afcgi_interop::raw::{self, begin, kind, pair, params, record, request};
use afcgi_interop::wait::{SOON, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn requests_that_never_become_complete() {
    let mut app = App::afcgitest(&["--params-timeout", "2s"]).await;
    let port = app.port();
    let from = app.process.log().len();
    let half = &params(1, "/", "")[..40];
    let sockets = others_are_served(&mut app, async {
        let mut sockets = Vec::new();
        for _ in 0..500 {
            let mut socket = raw::connect(port).await;
            socket.write_all(&begin(1)).await.expect("BEGIN_REQUEST");
            socket.write_all(half).await.expect("half of PARAMS");
            sockets.push(socket);
        }
        assert!(stat(port, "active").await <= 502);
        settles(port, "active", 2).await;
        sockets
    })
    .await;
    logged(&app, from, &["WARN", "PARAMS was not complete in time"]).await;
    drop(sockets);
    settles(port, "active", 2).await;
    settles(port, "connections", 3).await;
}

#[tokio::test]
async fn connections_that_say_nothing() {
    let mut app = App::afcgitest(&["--idle-timeout", "2s"]).await;
    let port = app.port();
    let sockets = others_are_served(&mut app, async {
        let mut sockets = Vec::new();
        for silent in 0..300 {
            let mut socket = raw::connect(port).await;
            // Some say nothing, some begin a record and stop.
            socket
                .write_all(&begin(1)[..silent % 8])
                .await
                .expect("a part of a header");
            sockets.push(socket);
        }
        settles(port, "connections", 3).await;
        sockets
    })
    .await;
    for mut socket in sockets {
        let end = tokio::time::timeout(SOON, socket.read_u8())
            .await
            .expect("an end in time");
        end.expect_err("the server has closed");
    }
}

#[tokio::test]
async fn more_connections_than_allowed() {
    let mut app = App::afcgitest(&["--max-connections", "20"]).await;
    let port = app.port();
    let from = app.process.log().len();
    let mut first = raw::connect(port).await;
    first
        .write_all(&request(1, "/events", "n=100000&ms=20"))
        .await
        .expect("a request");
    next_event(&mut first).await;
    // None of them is idle, so none makes room.
    let mut sockets = Vec::new();
    for _ in 1..20 {
        let mut socket = raw::connect(port).await;
        socket
            .write_all(&request(1, "/events", "n=2&ms=3600000"))
            .await
            .expect("a request");
        next_event(&mut socket).await;
        sockets.push(socket);
    }
    for _ in 0..180 {
        sockets.push(raw::connect(port).await);
    }
    let mut closed = 0;
    for socket in &mut sockets[19..] {
        let end = tokio::time::timeout(SOON, socket.read_u8())
            .await
            .expect("a connection too many is closed");
        end.expect_err("nothing is sent on it");
        closed += 1;
        next_event(&mut first).await;
    }
    assert_eq!(closed, 180);
    logged(&app, from, &["WARN", "connection"]).await;
    drop(sockets);
    eventually("others are let in again", SOON, || async {
        let mut socket = raw::connect(port).await;
        socket
            .write_all(&request(1, "/", ""))
            .await
            .map_err(|error| error.to_string())?;
        raw::read(&mut socket)
            .await
            .map(drop)
            .ok_or_else(|| String::from("closed"))
    })
    .await;
    app.process.assert_running();
}

/// Asks a question behind all that was sent, and waits for its answer: then all of it was read.
async fn answers_behind_it_all(socket: &mut TcpStream) {
    let question = record(kind::GET_VALUES, 0, &pair("FCGI_MAX_REQS", ""));
    socket.write_all(&question).await.expect("GET_VALUES");
    let answer = async {
        while raw::read(socket).await.expect("an open connection").kind != kind::GET_VALUES_RESULT {
        }
    };
    tokio::time::timeout(SOON, answer)
        .await
        .expect("GET_VALUES_RESULT in time");
}

#[tokio::test]
async fn a_hundred_thousand_begin_requests_on_ten_connections() {
    let mut app = App::afcgitest(&[]).await;
    let port = app.port();
    let sockets = others_are_served(&mut app, async {
        let mut sockets = Vec::new();
        for _ in 0..10 {
            let mut socket = raw::connect(port).await;
            let begins: Vec<u8> = (1..=10_000).flat_map(begin).collect();
            socket.write_all(&begins).await.expect("BEGIN_REQUESTs");
            sockets.push(socket);
        }
        for socket in &mut sockets {
            answers_behind_it_all(socket).await;
        }
        sockets
    })
    .await;
    drop(sockets);
    settles(port, "active", 1).await;
}

#[tokio::test]
async fn r13_a_hundred_thousand_begin_requests_on_one_connection() {
    let mut app = App::afcgitest(&[]).await;
    let port = app.port();
    let from = app.process.log().len();
    // There are 65,535 ids, so some come twice: those of the first that are active still.
    let begins: Vec<u8> = (0..100_000u32)
        .map(|n| (n % 65_535) as u16 + 1)
        .flat_map(begin)
        .collect();
    others_are_served(&mut app, async {
        let mut socket = raw::connect(port).await;
        let (mut read, mut write) = socket.split();
        let send = async {
            _ = write.write_all(&begins).await;
        };
        let receive = async {
            let mut buffer = vec![0; 65_536];
            while read.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
        };
        let both = async { tokio::join!(send, receive) };
        tokio::time::timeout(SOON, both)
            .await
            .expect("the connection is closed");
    })
    .await;
    logged(&app, from, &["WARN", "BEGIN_REQUEST", "active"]).await;
    settles(port, "active", 1).await;
}

#[tokio::test]
async fn a_web_server_that_reads_nothing() {
    let mut app = App::afcgitest(&[]).await;
    let port = app.port();
    let socket = others_are_served(&mut app, async {
        let mut socket = raw::connect(port).await;
        for id in 1..=200 {
            socket
                .write_all(&request(id, "/bytes", "n=100000000"))
                .await
                .expect("a request");
        }
        eventually("all are active", SOON, || async {
            match stat(port, "active").await {
                active if active >= 200 => Ok(()),
                active => Err(format!("{active} are active")),
            }
        })
        .await;
        // Time to write into memory what cannot be sent, if it would.
        tokio::time::sleep(Duration::from_millis(500)).await;
        socket
    })
    .await;
    drop(socket);
    settles(port, "active", 1).await;
}

#[tokio::test]
async fn a_body_that_is_not_read() {
    let mut app = App::afcgitest(&[]).await;
    let port = app.port();
    others_are_served(&mut app, async {
        let mut socket = raw::connect(port).await;
        let (mut read, mut write) = socket.split();
        let send = async {
            let start = [begin(1), params(1, "/delay", "ms=1000")].concat();
            write.write_all(&start).await.expect("a request");
            for seed in 0..1600 {
                write
                    .write_all(&record(kind::STDIN, 1, &noise(65_000, seed)))
                    .await
                    .expect("STDIN");
            }
            write
                .write_all(&record(kind::STDIN, 1, b""))
                .await
                .expect("the end of STDIN");
            write
                .write_all(&request(2, "/", ""))
                .await
                .expect("a second request");
        };
        // Both end: the first after its delay, whose body nobody wanted, and the second behind it.
        let receive = async {
            let mut header = [0; 8];
            let mut ended = Vec::new();
            while ended.len() < 2 {
                read.read_exact(&mut header).await.expect("a record");
                let length = u16::from_be_bytes([header[4], header[5]]) + u16::from(header[6]);
                let mut content = vec![0; usize::from(length)];
                read.read_exact(&mut content).await.expect("its content");
                if header[1] == kind::END_REQUEST {
                    ended.push(header[3]);
                }
            }
            assert_eq!(ended, [1, 2]);
        };
        let both = async { tokio::join!(send, receive) };
        tokio::time::timeout(SOON, both)
            .await
            .expect("both end in time");
    })
    .await;
}
