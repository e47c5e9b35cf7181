//! Bytes that no web server sends: `afcgitest` says in its log what is wrong, keeps its memory bounded, and serves everyone else meanwhile.

use afcgi_interop::app::App;
use afcgi_interop::attack::{logged, others_are_served, settles};
use afcgi_interop::http::noise;
use afcgi_interop::raw::{self, begin, kind, pair, record, request};
use afcgi_interop::wait::SOON;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
async fn r40_questions_of_64_kib_have_one_short_answer() {
    let mut app = App::afcgitest(&[]).await;
    let port = app.port();
    let name = pair("FCGI_MPXS_CONNS", "");
    let others: Vec<u8> = (0..3000)
        .flat_map(|n| pair(&format!("NAME_{n}"), ""))
        .collect();
    others_are_served(&mut app, async {
        let mut socket = raw::connect(port).await;
        for (question, expected) in [
            (vec![0; 65_535], vec![]),
            (name.repeat(3000), pair("FCGI_MPXS_CONNS", "1")),
            ([others, name].concat(), pair("FCGI_MPXS_CONNS", "1")),
        ] {
            let bytes = record(kind::GET_VALUES, 0, &question);
            socket.write_all(&bytes).await.expect("a question");
            let answer = raw::read(&mut socket).await.expect("an answer");
            assert_eq!(answer.kind, kind::GET_VALUES_RESULT);
            assert_eq!(answer.content, expected);
        }
        let bytes = request(1, "/", "");
        socket.write_all(&bytes).await.expect("a request");
        while raw::read(&mut socket).await.expect("an answer").kind != kind::END_REQUEST {}
    })
    .await;
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
