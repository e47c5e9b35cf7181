//! What no web server sends: `afcgitest` says in its log what is wrong, keeps its memory bounded, and serves everyone else meanwhile.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use afcgi_interop::app::App;
use afcgi_interop::http::noise;
use afcgi_interop::raw::{self, begin, kind, pair, params, record, request};
use afcgi_interop::wait::{SOON, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MB: u64 = 1 << 20;

/// What one attacker may cost in memory, at most, while it lasts.
const BOUND: u64 = 64 * MB;

/// Runs `attack` while others are served: requests on connections of their own, one after the other, and one that was there before on a
/// multiplexed connection and is held until after. Then compares the memory.
async fn others_are_served<T>(app: &mut App, attack: impl Future<Output = T>) -> T {
    let port = app.port();
    assert_hello(port).await;
    let before = app.process.resident();
    let mut held = raw::connect(port).await;
    held.write_all(&request(1, "/events", "n=100000&ms=20"))
        .await
        .expect("a request that is held");
    next_event(&mut held).await;

    // Joined and not raced: a race would cut off the reading of a record in the middle.
    let over = Cell::new(false);
    let attack = async {
        let result = attack.await;
        over.set(true);
        result
    };
    let others = async {
        while !over.get() {
            assert_hello(port).await;
            next_event(&mut held).await;
        }
    };
    let (result, ()) = tokio::join!(attack, others);
    assert_hello(port).await;
    next_event(&mut held).await;
    let peak = app.process.peak();
    assert!(
        peak < before + BOUND,
        "memory went from {before} to {peak} bytes"
    );
    result
}

/// Waits for STDOUT content on a connection that carries one request.
async fn next_event(socket: &mut TcpStream) {
    let next = tokio::time::timeout(SOON, raw::read(socket))
        .await
        .expect("an event in time");
    assert_eq!(next.expect("an open connection").kind, kind::STDOUT);
}

async fn assert_hello(port: u16) {
    let response = tokio::time::timeout(SOON, raw::get(port, "/", ""))
        .await
        .expect("an answer in time");
    assert!(
        response.ends_with(b"\r\n\r\nHello world\n"),
        "{}",
        String::from_utf8_lossy(&response)
    );
}

/// Waits for a line of the log that holds all of `words`; it must be new if `from` is the length of the log before.
async fn logged(app: &App, from: usize, words: &[&str]) {
    eventually("a line in the log", SOON, || async {
        let log = app.process.log();
        let new = log.get(from..).unwrap_or("");
        if new
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
        {
            Ok(())
        } else {
            Err(format!("no line with {words:?} in:\n{new}"))
        }
    })
    .await;
}

async fn stat(port: u16, name: &str) -> u64 {
    let response = String::from_utf8(raw::get(port, "/stats", "").await).expect("text");
    let (_, body) = response.split_once("\r\n\r\n").expect("a head and a body");
    let stats: serde_json::Value = serde_json::from_str(body).expect("JSON");
    stats
        .get(name)
        .and_then(serde_json::Value::as_u64)
        .unwrap_or_else(|| panic!("no number {name:?} in {stats}"))
}

/// Waits until a number of `/stats` is at most `most`.
async fn settles(port: u16, name: &str, most: u64) {
    eventually(&format!("{name} is at most {most}"), SOON, || async {
        match stat(port, name).await {
            value if value <= most => Ok(()),
            value => Err(format!("it is {value}")),
        }
    })
    .await;
}

/// Sends `bytes` on a fresh connection. The server must close it without a word, and say why in its log.
async fn is_closed_with(app: &mut App, bytes: &[u8], words: &[&str]) {
    closes(app, bytes, false, words).await;
}

/// The same when the peer closes its half behind the bytes.
async fn broken_off_is_closed_with(app: &mut App, bytes: &[u8], words: &[&str]) {
    closes(app, bytes, true, words).await;
}

async fn closes(app: &mut App, bytes: &[u8], break_off: bool, words: &[&str]) {
    let port = app.port();
    let from = app.process.log().len();
    let answer = others_are_served(app, async {
        let mut socket = raw::connect(port).await;
        // The server may close as soon as it has seen enough.
        _ = socket.write_all(bytes).await;
        if break_off {
            _ = socket.shutdown().await;
        }
        let mut answer = Vec::new();
        let read = socket.read_to_end(&mut answer);
        _ = tokio::time::timeout(SOON, read)
            .await
            .expect("the connection is closed");
        answer
    })
    .await;
    assert!(answer.is_empty(), "answered {answer:?}");
    logged(app, from, words).await;
}

const NOT_FASTCGI: &str = "does not speak FastCGI";

#[tokio::test]
async fn r02_garbage() {
    let mut app = App::afcgitest(&[]).await;
    for seed in 1..=10 {
        let mut garbage = noise(100_000, seed);
        garbage[0] |= 2;
        is_closed_with(&mut app, &garbage, &["WARN", NOT_FASTCGI]).await;
    }
}

#[tokio::test]
async fn r02_http() {
    let mut app = App::afcgitest(&[]).await;
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    is_closed_with(&mut app, http, &["WARN", NOT_FASTCGI, "0x47"]).await;
}

#[tokio::test]
async fn r02_tls() {
    let mut app = App::afcgitest(&[]).await;
    let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello.extend_from_slice(&noise(506, 1));
    is_closed_with(&mut app, &hello, &["WARN", NOT_FASTCGI, "0x16"]).await;
}

#[tokio::test]
async fn r02_wrong_version() {
    let mut app = App::afcgitest(&[]).await;
    for version in [0, 2, 255] {
        let mut bytes = begin(1);
        bytes[0] = version;
        is_closed_with(&mut app, &bytes, &["WARN", NOT_FASTCGI]).await;
    }
    // In the middle of a good conversation too: no byte after it can be trusted.
    let mut second = record(kind::PARAMS, 1, b"");
    second[0] = 2;
    is_closed_with(
        &mut app,
        &[begin(1), second].concat(),
        &["WARN", NOT_FASTCGI, "0x02"],
    )
    .await;
}

#[tokio::test]
async fn r04_truncated_records() {
    let mut app = App::afcgitest(&[]).await;
    let good = request(1, "/delay", "ms=60000");
    let stdin = record(kind::STDIN, 1, &noise(1000, 1));
    // In a header, in content, and in a request that is active.
    for bytes in [
        &begin(1)[..3],
        &begin(1)[..12],
        &[&good[..], &stdin[..5]].concat(),
        &[&good[..], &stdin[..500]].concat(),
    ] {
        broken_off_is_closed_with(&mut app, bytes, &["WARN", "closed inside a record"]).await;
    }
    settles(app.port(), "active", 2).await;
}

#[tokio::test]
async fn r06_bodies_of_a_wrong_length() {
    let mut app = App::afcgitest(&[]).await;
    for length in [0, 1, 7, 9, 65_535] {
        let bytes = record(kind::BEGIN_REQUEST, 1, &vec![0; length]);
        is_closed_with(
            &mut app,
            &bytes,
            &["WARN", "BeginRequest", &length.to_string()],
        )
        .await;
    }
}

#[tokio::test]
async fn r12_an_id_twice() {
    let mut app = App::afcgitest(&[]).await;
    let bytes = [begin(7), begin(7)].concat();
    is_closed_with(&mut app, &bytes, &["WARN", "BEGIN_REQUEST", "7", "active"]).await;
}

#[tokio::test]
async fn records_of_the_wrong_side() {
    let mut app = App::afcgitest(&[]).await;
    for kind in [kind::END_REQUEST, kind::STDOUT, kind::STDERR] {
        let bytes = [begin(1), record(kind, 1, &[0; 8])].concat();
        is_closed_with(&mut app, &bytes, &["WARN", "wrong side"]).await;
    }
}

#[tokio::test]
async fn r40_a_management_record_of_64_kib() {
    let mut app = App::afcgitest(&[]).await;
    let bytes = record(kind::GET_VALUES, 0, &[0; 65_535]);
    is_closed_with(&mut app, &bytes, &["WARN", "management record", "65535"]).await;
}

/// One connection: request 1 has bad PARAMS, request 2 is good and is answered.
async fn fails_alone(app: &mut App, content: &[Vec<u8>], words: &[&str]) {
    let port = app.port();
    let from = app.process.log().len();
    others_are_served(app, async {
        let mut socket = raw::connect(port).await;
        socket.write_all(&begin(1)).await.expect("BEGIN_REQUEST");
        for content in content {
            socket
                .write_all(&record(kind::PARAMS, 1, content))
                .await
                .expect("PARAMS");
        }
        let rest = [
            record(kind::PARAMS, 1, b""),
            record(kind::STDIN, 1, b""),
            request(2, "/", ""),
        ];
        socket.write_all(&rest.concat()).await.expect("the rest");
        let (mut ended, mut stdout) = (Vec::new(), Vec::new());
        while ended.len() < 2 {
            let next = tokio::time::timeout(SOON, raw::read(&mut socket))
                .await
                .expect("an answer in time");
            let next = next.expect("the connection stays open");
            match (next.kind, next.id) {
                (kind::END_REQUEST, id) => ended.push(id),
                (kind::STDOUT, 2) => stdout.extend_from_slice(&next.content),
                (kind::STDOUT | kind::STDERR, 1) => {}
                _ => panic!("{next:?}"),
            }
        }
        ended.sort_unstable();
        assert_eq!(ended, [1, 2]);
        assert!(stdout.ends_with(b"Hello world\n"));
    })
    .await;
    logged(app, from, words).await;
}

#[tokio::test]
async fn r22_hostile_lengths() {
    let mut app = App::afcgitest(&[]).await;
    let huge = [0xff; 4];
    let hostile: [Vec<u8>; 6] = [
        [&huge[..], &huge[..]].concat(),
        [&huge[..], &[0][..]].concat(),
        [&[4], &huge[..], &b"NAME"[..]].concat(),
        [&[0x80, 1, 0, 0, 0x80, 1, 0, 0][..], b"x"].concat(),
        vec![5, 5, b'x'],
        vec![0x80],
    ];
    for content in hostile {
        fails_alone(&mut app, &[content], &["WARN", "PARAMS"]).await;
    }
}

#[tokio::test]
async fn r22_a_hundred_megabytes_of_parameters() {
    let mut app = App::afcgitest(&[]).await;
    let mut value = vec![4, 0x84, 0, 0, 0];
    value.extend_from_slice(b"NAME");
    let mut content = vec![value];
    content.extend((0..1600).map(|seed| noise(65_000, seed)));
    fails_alone(&mut app, &content, &["WARN", "PARAMS"]).await;
}

#[tokio::test]
async fn r22_a_million_parameters() {
    let mut app = App::afcgitest(&[]).await;
    let pairs = pair("", "").repeat(32_000);
    fails_alone(&mut app, &vec![pairs; 32], &["WARN", "PARAMS"]).await;
}

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
    let mut sockets = Vec::new();
    for _ in 0..200 {
        sockets.push(raw::connect(port).await);
    }
    let mut closed = 0;
    for socket in &mut sockets[20..] {
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

#[tokio::test]
async fn r11_r42_records_of_no_request_and_of_no_known_type() {
    let app = App::afcgitest(&[]).await;
    let mut socket = raw::connect(app.port()).await;
    let bytes = [
        record(kind::STDIN, 9, b"nobody's"),
        record(kind::PARAMS, 9, b"\x01\x01ab"),
        record(kind::ABORT_REQUEST, 9, b""),
        record(99, 9, b"of no known type"),
        record(200, 0, b"management"),
        request(1, "/", ""),
    ];
    socket.write_all(&bytes.concat()).await.expect("records");
    let mut answer = Vec::new();
    loop {
        let next = raw::read(&mut socket).await.expect("an open connection");
        match next.kind {
            kind::UNKNOWN_TYPE => {
                assert_eq!((next.id, next.content), (0, vec![200, 0, 0, 0, 0, 0, 0, 0]));
                answer.push("unknown");
            }
            kind::END_REQUEST => {
                assert_eq!(next.id, 1);
                answer.push("end");
            }
            _ => assert_eq!(next.id, 1, "{next:?}"),
        }
        if answer.len() == 2 {
            break;
        }
    }
}
