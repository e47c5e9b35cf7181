//! The routes.

use std::time::{Duration, Instant};

use afcgi_interop::http::{assert_same, noise};
use afcgi_proto::Role;
use tokio_tungstenite::tungstenite::Message;

use crate::AFCGITEST;
use crate::common::Server;
use crate::common::client::{Output, params};
use crate::common::tunnel::{HANDSHAKE, Socket};

#[tokio::test]
async fn hello_is_the_answer_to_everything_else() {
    let server = Server::start(AFCGITEST, &[]).await;
    let mut client = server.client().await;
    for uri in ["/", "/fcgi", "/no/such?x=1", "/echoes", "/fcgi/echo"] {
        let answer = client.get(uri).await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, "Hello world\n"),
            "{uri}"
        );
        assert_eq!(answer.field("content-type"), Some("text/plain"));
        assert_eq!(answer.end.app_status, 0);
    }
}

#[tokio::test]
async fn the_delay_is_that_of_hello_alone() {
    let server = Server::start(AFCGITEST, &["--delay", "700ms"]).await;
    let mut client = server.client().await;
    let start = Instant::now();
    assert_eq!(client.get("/delay?ms=0").await.text(), "Hello world\n");
    assert_eq!(client.get("/bytes?n=1").await.body, b"\0");
    let quick = start.elapsed();
    assert_eq!(client.get("/").await.text(), "Hello world\n");
    let slow = start.elapsed() - quick;
    assert!(slow >= Duration::from_millis(690), "{slow:?}");
    // Without `ms` it is the delay of the command line too.
    let start = Instant::now();
    client.get("/delay").await;
    assert!(start.elapsed() >= Duration::from_millis(690));
}

#[tokio::test]
async fn routes_are_found_by_script_name_and_path_info_together() {
    let server = Server::start(AFCGITEST, &[]).await;
    let mut client = server.client().await;
    for (script_name, path_info) in [("/bytes", ""), ("", "/bytes"), ("/by", "tes")] {
        let pairs = [
            ("SCRIPT_NAME", script_name),
            ("PATH_INFO", path_info),
            ("QUERY_STRING", "n=3"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let request = client.begin(Role::Responder, &pairs).await;
        client.send(request, Output::Stdin, b"").await;
        assert_eq!(
            client.finish(request).await.body,
            b"\0\x01\x02",
            "{pairs:?}"
        );
    }
}

#[tokio::test]
async fn echo_gives_a_body_back_as_it_comes() {
    let server = Server::start(AFCGITEST, &[]).await;
    let mut client = server.client().await;
    for length in [0, 1, 65_535, 65_536, 3_000_000] {
        let body = noise(length, length as u64);
        let answer = client.request("POST", "/echo", &[], &body).await;
        assert_same("/echo", &answer.body, &body);
        assert_eq!(answer.field("content-length"), Some(&*length.to_string()));
    }
}

#[tokio::test]
async fn r59_echo_of_a_short_body_fails() {
    let server = Server::start(AFCGITEST, &[]).await;
    let mut client = server.client().await;
    let mut post = params("POST", "/echo");
    post.push(("CONTENT_LENGTH".into(), "10".into()));
    let request = client.begin(Role::Responder, &post).await;
    client.send(request, Output::Stdin, b"short").await;
    assert_eq!(client.end(request).await.expect("an end").app_status, 1);
}

#[tokio::test]
async fn delay_does_not_wait_for_the_body() {
    let server = Server::start(AFCGITEST, &[]).await;
    let mut client = server.client().await;
    let mut post = params("POST", "/delay?ms=100");
    post.push(("CONTENT_LENGTH".into(), "1000000".into()));
    let start = Instant::now();
    let request = client.begin(Role::Responder, &post).await;
    client
        .send_part(request, Output::Stdin, b"not all of it")
        .await;
    assert_eq!(client.finish(request).await.text(), "Hello world\n");
    assert!(start.elapsed() >= Duration::from_millis(95));
}

#[tokio::test]
async fn many_delays_at_a_time_on_one_connection() {
    let server = Server::start(AFCGITEST, &[]).await;
    let mut client = server.client().await;
    let start = Instant::now();
    let mut requests = Vec::new();
    for _ in 0..500 {
        requests.push(client.open("/delay?ms=2000").await);
    }
    for request in requests {
        assert_eq!(client.finish(request).await.text(), "Hello world\n");
    }
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn bytes_have_a_pattern_and_any_length() {
    let server = Server::start(AFCGITEST, &[]).await;
    let mut client = server.client().await;
    for (query, length) in [
        ("", 0),
        ("?n=x", 0),
        ("?n=0", 0),
        ("?n=1000", 1000),
        ("?m=1&n=5000000", 5_000_000),
    ] {
        let answer = client.get(&format!("/bytes{query}")).await;
        let expected: Vec<u8> = (0..length).map(|i: u32| (i % 251) as u8).collect();
        assert_same("/bytes", &answer.body, &expected);
        assert_eq!(answer.field("content-length"), Some(&*length.to_string()));
    }
}

#[tokio::test]
async fn env_shows_every_parameter_in_order() {
    let server = Server::start(AFCGITEST, &[]).await;
    let mut client = server.client().await;
    let pairs = [
        ("SCRIPT_NAME", "/env"),
        ("B", "2"),
        ("A", "\u{1}=\u{e4}"),
        ("B", ""),
        ("", "empty"),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let request = client.begin(Role::Responder, &pairs).await;
    client.send(request, Output::Stdin, b"").await;
    let answer = client.finish(request).await;
    assert_eq!(
        answer.text(),
        "SCRIPT_NAME=/env\nB=2\nA=\u{1}=\u{e4}\nB=\n=empty\n"
    );
}

#[tokio::test]
async fn status_is_the_one_that_was_asked_for() {
    let server = Server::start(AFCGITEST, &[]).await;
    let mut client = server.client().await;
    for code in [200, 201, 204, 302, 304, 404, 418, 499, 503, 599] {
        assert_eq!(
            client.get(&format!("/status?code={code}")).await.status,
            code
        );
    }
    for query in [
        "",
        "?code=",
        "?code=42",
        "?code=100",
        "?code=600",
        "?code=99999999999999999999999",
    ] {
        assert_eq!(
            client.get(&format!("/status{query}")).await.status,
            400,
            "{query}"
        );
    }
}

#[tokio::test]
async fn stderr_is_written_to() {
    let server = Server::start(AFCGITEST, &[]).await;
    let answer = server.client().await.get("/stderr").await;
    assert_eq!(answer.stderr, b"written by /stderr\n");
    assert_eq!(answer.text(), "Hello world\n");
}

#[tokio::test]
async fn events_come_one_by_one() {
    let server = Server::start(AFCGITEST, &[]).await;
    let mut client = server.client().await;
    let start = Instant::now();
    let answer = client.get("/events?n=5&ms=100").await;
    assert_eq!(
        answer.text(),
        "data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n"
    );
    assert_eq!(answer.field("content-type"), Some("text/event-stream"));
    assert!(start.elapsed() >= Duration::from_millis(390));
    // The first does not wait for the second.
    let request = client.open("/events?ms=3600000").await;
    client.read_until(request, "data: 0\n\n").await;
    client.abort(request).await;
    assert_eq!(client.get("/").await.text(), "Hello world\n");
}

#[tokio::test]
async fn stats_count() {
    let server = Server::start(AFCGITEST, &[]).await;
    let mut client = server.client().await;
    for _ in 0..3 {
        client.get("/").await;
    }
    let held = client.open("/delay?ms=3600000").await;
    let given_up = client.open("/delay?ms=3600000").await;
    client.abort(given_up).await;
    let unknown = client.begin(Role::Other(9), &[]).await;
    client.end(unknown).await;
    let answer = client.get("/stats").await;
    assert_eq!(answer.field("content-type"), Some("application/json"));
    let stats: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let expected =
        serde_json::json!({"connections": 1, "active": 2, "served": 3, "aborted": 1, "refused": 1});
    assert_eq!(stats, expected);
    client.abort(held).await;
}

#[tokio::test]
async fn websocket_gives_messages_back() {
    let server = Server::start(AFCGITEST, &[]).await;
    let opened = Socket::open(server.client().await, "/websocket", &HANDSHAKE).await;
    let mut socket = opened.expect("status 101");
    for message in [
        Message::text("Hello \u{1f44b}"),
        Message::binary(noise(1 << 20, 3)),
    ] {
        socket.send(message.clone()).await;
        assert!(socket.next().await == Some(message), "it is another");
    }
    socket.close().await;

    let unmarked = &HANDSHAKE[1..];
    let refused = Socket::open(server.client().await, "/websocket", unmarked).await;
    assert_eq!(refused.err(), Some(426));
    let server = Server::start(AFCGITEST, &["--upgrade-by-header"]).await;
    let accepted = Socket::open(server.client().await, "/websocket", unmarked).await;
    accepted.expect("status 101").close().await;
    let plain = server.client().await.get("/websocket").await;
    assert_eq!(plain.status, 400);
}
