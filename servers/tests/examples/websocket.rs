//! `websocket`: the echo and the whiteboard by a WebSocket client on FastCGI, the page behind nginx.

use afcgi_interop::http::{client, get, get_ok, noise};
use afcgi_interop::wait::{SOON, eventually};
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::common::tunnel::{HANDSHAKE, Socket};
use crate::common::{Server, Web, left, signal};

const WEBSOCKET: &str = env!("CARGO_BIN_EXE_websocket");

async fn open(server: &Server, uri: &str) -> Socket {
    let socket = Socket::open(server.client().await, uri, &HANDSHAKE).await;
    socket.expect("status 101")
}

/// Somebody at the whiteboard.
struct Guest {
    socket: Socket,
    /// What was on the board.
    board: Value,
}

impl Guest {
    async fn join(server: &Server) -> Self {
        let mut socket = open(server, "/board").await;
        let board = hear(&mut socket, "board").await;
        Self { socket, board }
    }

    async fn say(&mut self, what: &Value) {
        self.socket.send(what.to_string()).await;
    }

    async fn hear(&mut self, what: &str) -> Value {
        hear(&mut self.socket, what).await
    }
}

/// The next news of this kind.
async fn hear(socket: &mut Socket, what: &str) -> Value {
    loop {
        let message = socket.next().await.expect("more");
        let text = message.into_text().expect("text");
        let mut news: Value = serde_json::from_str(&text).expect("JSON");
        if news.get(what).is_some() {
            return news[what].take();
        }
    }
}

async fn state(server: &Server) -> Value {
    let answer = server.client().await.get("/state").await;
    assert_eq!(answer.field("content-type"), Some("application/json"));
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn stroke(points: usize) -> Value {
    json!({ "stroke": { "colour": 1, "width": 9, "points": vec![7; 2 * points] } })
}

#[tokio::test]
async fn the_page_is_the_same_everywhere_and_needs_nothing_from_elsewhere() {
    let server = Server::start(WEBSOCKET, &[]).await;
    let pass = format!("fastcgi_pass unix:{};", server.socket().display());
    let web = Web::nginx(&format!(
        "location / {{ {pass} }} location /deep/board/ {{ {pass} }}"
    ))
    .await;
    let client = client();
    let page = get(&client, &web.url("/")).await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert!(
        page.headers()["content-security-policy"]
            .as_bytes()
            .starts_with(b"default-src 'none'")
    );
    let page = page.text().await.expect("text");
    assert!(page.starts_with("<!doctype html>"));
    assert!(
        !page.contains("src=") && !page.contains("https:"),
        "something is loaded from elsewhere"
    );
    assert_eq!(get_ok(&client, &web.url("/deep/board/")).await, page);
    let state = get_ok(&client, &web.url("/deep/board/state")).await;
    assert_eq!(state, r#"{"here":0,"strokes":0,"points":0}"#);
    let post = client.post(web.url("/")).send().await.expect("POST");
    assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    // Without an upgrade there is no WebSocket.
    let plain = get(&client, &web.url("/echo")).await;
    assert_eq!(plain.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn messages_come_back_up_to_16_mib() {
    let server = Server::start(WEBSOCKET, &[]).await;
    let mut socket = open(&server, "/somewhere/echo").await;
    for message in [
        Message::text("Hello \u{1f44b}"),
        Message::text(""),
        Message::binary(noise(70_000, 1)),
        Message::binary(noise(16 << 20, 2)),
    ] {
        socket.send(message.clone()).await;
        assert!(socket.next().await == Some(message), "it is another");
    }
    let mut frame = vec![0x82, 0xff];
    frame.extend(((16_u64 << 20) + 1).to_be_bytes());
    frame.extend(b"mask");
    socket.raw(&frame).await;
    assert_eq!(socket.closed().await, 1009);
}

#[tokio::test]
async fn a_client_that_closes_is_answered() {
    let server = Server::start(WEBSOCKET, &[]).await;
    let mut socket = open(&server, "/echo").await;
    socket.send(Message::Close(None)).await;
    assert!(matches!(socket.next().await, Some(Message::Close(_))));
    assert_eq!(socket.next().await, None);
}

#[tokio::test]
async fn only_what_was_offered_is_accepted() {
    let server = Server::start(WEBSOCKET, &[]).await;
    let unmarked = &HANDSHAKE[1..];
    let refused = Socket::open(server.client().await, "/echo", unmarked).await;
    assert_eq!(refused.err(), Some(426));
    assert_eq!(server.client().await.values().await.upgrade, Some(true));

    let server = Server::start(WEBSOCKET, &["--upgrade-by-header"]).await;
    let accepted = Socket::open(server.client().await, "/echo", unmarked).await;
    let mut socket = accepted.expect("status 101");
    socket.send("hello").await;
    assert_eq!(socket.next().await, Some(Message::text("hello")));
}

#[tokio::test]
async fn pages_of_other_sites_are_kept_out() {
    let server = Server::start(WEBSOCKET, &[]).await;
    for (origin, expected) in [
        ("https://example.org", None),
        ("https://evil.example", Some(403)),
    ] {
        let more = [
            &HANDSHAKE[..],
            &[("HTTP_HOST", "example.org"), ("HTTP_ORIGIN", origin)],
        ]
        .concat();
        let opened = Socket::open(server.client().await, "/board", &more).await;
        assert_eq!(opened.err(), expected, "{origin}");
    }
}

#[tokio::test]
async fn everybody_sees_what_is_drawn() {
    let server = Server::start(WEBSOCKET, &[]).await;
    let mut ada = Guest::join(&server).await;
    assert_eq!(
        (&ada.board["you"], &ada.board["here"]),
        (&json!(1), &json!(1))
    );
    let mut bob = Guest::join(&server).await;
    assert_eq!(ada.hear("here").await, 2);
    ada.say(&stroke(3)).await;
    bob.say(&stroke(1)).await;
    let expected = json!({ "by": 1, "colour": 1, "width": 9, "points": [7, 7, 7, 7, 7, 7] });
    for guest in [&mut ada, &mut bob] {
        let (mut one, mut other) = (guest.hear("stroke").await, guest.hear("stroke").await);
        if one["by"] == 2 {
            std::mem::swap(&mut one, &mut other);
        }
        assert_eq!((&one, &other["by"]), (&expected, &json!(2)));
    }
    // Whoever comes later sees it too.
    let cleo = Guest::join(&server).await;
    let strokes = cleo.board["strokes"].as_array().expect("strokes");
    assert!(
        strokes.len() == 2 && strokes.contains(&expected),
        "{strokes:?}"
    );
    assert_eq!(
        state(&server).await,
        json!({ "here": 3, "strokes": 2, "points": 4 })
    );
    drop(cleo);
    bob.socket.close().await;
    bob = Guest::join(&server).await;
    ada.say(&json!({ "clear": {} })).await;
    bob.hear("clear").await;
    let empty = json!({ "here": 2, "strokes": 0, "points": 0 });
    eventually("those who left do not count", SOON, || async {
        let now = state(&server).await;
        if now == empty {
            Ok(())
        } else {
            Err(now.to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn the_board_forgets_and_refuses() {
    let server = Server::start(WEBSOCKET, &[]).await;
    let mut ada = Guest::join(&server).await;
    for _ in 0..250 {
        ada.say(&stroke(200)).await;
    }
    // A slow reader is sent the board instead of what it missed, so this is the last of it in any case.
    ada.say(&json!({ "stroke": { "colour": 6, "width": 80, "points": [0, 1] } }))
        .await;
    eventually("all of it is there", SOON, || async {
        let now = state(&server).await;
        let (strokes, points) = (&now["strokes"], &now["points"]);
        if (strokes, points) == (&json!(200), &json!(39_801)) {
            Ok(())
        } else {
            Err(now.to_string())
        }
    })
    .await;
    for wrong in [
        stroke(201).to_string(),
        stroke(0).to_string(),
        r#"{"stroke":{"colour":7,"width":9,"points":[1,1]}}"#.to_owned(),
        r#"{"stroke":{"colour":1,"width":0,"points":[1,1]}}"#.to_owned(),
        r#"{"stroke":{"colour":1,"width":9,"points":[1]}}"#.to_owned(),
        r#"{"stroke":{"colour":1,"width":9,"points":[1601,1]}}"#.to_owned(),
        r#"{"wipe":{}}"#.to_owned(),
        "x".to_owned(),
    ] {
        let mut guest = Guest::join(&server).await;
        guest.socket.send(wrong.clone()).await;
        assert_eq!(guest.socket.closed().await, 1008, "{wrong}");
    }
    let mut guest = Guest::join(&server).await;
    guest.socket.send("x".repeat(17_000)).await;
    assert_eq!(guest.socket.closed().await, 1009);
}

#[tokio::test]
async fn websockets_end_well_when_it_is_stopped() {
    let mut server = Server::start(WEBSOCKET, &[]).await;
    let mut echo = open(&server, "/echo").await;
    let mut guest = Guest::join(&server).await;
    signal(&mut server.process, Signal::TERM);
    assert_eq!(echo.closed().await, 1001);
    assert_eq!(guest.socket.closed().await, 1001);
    // Answering is what the next one does.
    assert_eq!(echo.next().await, None);
    assert_eq!(guest.socket.next().await, None);
    assert_eq!(left(&mut server.process).await.code(), Some(0));
}
