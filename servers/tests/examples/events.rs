//! `events`, behind nginx at several paths.

use std::time::{Duration, Instant};

use afcgi_interop::http::{client, get, get_ok};
use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::{Client, StatusCode};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{Server, Web, left, signal};

const EVENTS: &str = env!("CARGO_BIN_EXE_events");

struct Rig {
    web: Web,
    client: Client,
    server: Server,
}

impl Rig {
    /// At `/`, and at `/deep/events/`.
    async fn start() -> Self {
        let server = Server::start(EVENTS, &[]).await;
        let pass = format!("fastcgi_pass unix:{};", server.socket().display());
        let web = Web::nginx(&format!(
            "location / {{ {pass} }} location /deep/events/ {{ {pass} }}"
        ))
        .await;
        Self {
            web,
            client: client(),
            server,
        }
    }

    async fn say(&self, body: &Value) -> StatusCode {
        let request = self.client.post(self.web.url("/deep/events/messages"));
        let request = request
            .header("Content-Type", "application/json")
            .body(body.to_string());
        request.send().await.expect("POST").status()
    }

    async fn messages(&self, after: u64) -> Value {
        let body = get_ok(
            &self.client,
            &self.web.url(&format!("/messages?after={after}")),
        )
        .await;
        serde_json::from_slice(&body).expect("JSON")
    }
}

#[tokio::test]
async fn the_page_is_the_same_everywhere_and_needs_nothing_from_elsewhere() {
    let rig = Rig::start().await;
    let page = get(&rig.client, &rig.web.url("/")).await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert!(
        page.headers()["content-security-policy"]
            .to_str()
            .expect("text")
            .starts_with("default-src 'none'")
    );
    let page = page.text().await.expect("text");
    assert!(page.starts_with("<!doctype html>"));
    assert!(
        !page.contains("src=") && !page.contains("https:"),
        "something is loaded from elsewhere"
    );
    assert_eq!(
        get_ok(&rig.client, &rig.web.url("/deep/events/")).await,
        page
    );
    let delete = rig
        .client
        .delete(rig.web.url("/"))
        .send()
        .await
        .expect("DELETE");
    assert_eq!(delete.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_clock_ticks() {
    let rig = Rig::start().await;
    for path in ["/clock", "/deep/events/clock"] {
        let response = get(&rig.client, &rig.web.url(path)).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut pieces = response.bytes_stream();
        let (mut text, mut times) = (String::new(), Vec::new());
        let mut early = 0;
        while times.len() < 3 {
            text += &String::from_utf8_lossy(&pieces.next().await.expect("more").expect("a piece"));
            while let Some((event, rest)) = text.split_once("\n\n") {
                let event: Value =
                    serde_json::from_str(event.strip_prefix("data: ").expect("data"))
                        .expect("JSON");
                text = rest.to_owned();
                let alone = (&event["open"], &event["connections"]) == (&json!(1), &json!(1));
                // nginx may not have noticed yet that the client of the one before has left.
                if !alone && times.is_empty() && early < 5 {
                    early += 1;
                    continue;
                }
                assert!(alone, "{event}");
                times.push(event["time"].as_u64().expect("a time"));
            }
        }
        assert!(times[2] - times[0] >= 1900, "{times:?}");
        drop(pieces);
        // nginx notices that the client has left before the next one is counted.
        afcgi_interop::wait::eventually(
            "the stream has ended",
            afcgi_interop::wait::SOON,
            || async {
                let body = get(&rig.client, &rig.web.url("/clock"))
                    .await
                    .bytes_stream()
                    .next()
                    .await;
                let body =
                    String::from_utf8_lossy(&body.expect("more").expect("a piece")).into_owned();
                if body.contains(r#""open":1"#) {
                    Ok(())
                } else {
                    Err(body)
                }
            },
        )
        .await;
    }
}

#[tokio::test]
async fn everybody_who_waits_gets_a_message() {
    let rig = Rig::start().await;
    let waiting = join_all((0..30).map(|_| rig.messages(0)));
    let saying = async {
        // Some of the polls wait by then, and the others find it there: both is right.
        assert_eq!(
            rig.say(&json!({ "name": "Ada", "text": " Hello \u{1f44b}\n" }))
                .await,
            StatusCode::NO_CONTENT
        );
    };
    let (answers, ()) = tokio::join!(waiting, saying);
    for answer in answers {
        let message = &answer[0];
        assert_eq!(
            (&message["id"], &message["name"]),
            (&json!(1), &json!("Ada")),
            "{answer}"
        );
        assert_eq!(message["text"], "Hello \u{1f44b}");
    }
    // What has been seen is not sent again.
    let waiting = rig.messages(1);
    let again = json!({ "text": "again" });
    let saying = rig.say(&again);
    let (answer, _) = tokio::join!(waiting, saying);
    assert_eq!(
        (&answer[0]["id"], &answer[0]["name"]),
        (&json!(2), &json!("anonymous")),
        "{answer}"
    );
    assert_eq!(answer[1], Value::Null);
    // A page from before a restart gets what there is.
    assert_eq!(rig.messages(1_000_000).await[1]["id"], 2);
}

#[tokio::test]
async fn what_is_too_long_is_refused_and_what_is_old_forgotten() {
    let rig = Rig::start().await;
    for body in [
        json!({ "text": "  " }),
        json!({ "text": "x".repeat(501) }),
        json!({ "text": "x", "name": "x".repeat(25) }),
        json!({ "name": "x" }),
    ] {
        assert_eq!(
            rig.say(&body).await,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{body}"
        );
    }
    let huge = json!({ "text": "x".repeat(10_000) });
    assert_eq!(rig.say(&huge).await, StatusCode::PAYLOAD_TOO_LARGE);
    let bad = get(&rig.client, &rig.web.url("/messages?after=x")).await;
    assert_eq!(bad.status(), StatusCode::BAD_REQUEST);
    for number in 0..110 {
        assert_eq!(
            rig.say(&json!({ "text": format!("{number}\u{e9}") })).await,
            StatusCode::NO_CONTENT
        );
    }
    let kept = rig.messages(0).await;
    let kept = kept.as_array().expect("a list");
    assert_eq!((kept.len(), &kept[0]["text"]), (100, &json!("10\u{e9}")));
}

#[tokio::test]
async fn streams_and_polls_end_well_when_it_is_stopped() {
    let mut rig = Rig::start().await;
    let mut clock = get(&rig.client, &rig.web.url("/clock"))
        .await
        .bytes_stream();
    clock.next().await.expect("more").expect("a first event");
    let poll = tokio::spawn({
        let (client, url) = (rig.client.clone(), rig.web.url("/messages?after=0"));
        async move { get_ok(&client, &url).await }
    });
    // Until the poll is there, too.
    let ticks = async {
        loop {
            let event = clock.next().await.expect("more").expect("an event");
            if String::from_utf8_lossy(&event).contains(r#""open":2"#) {
                return;
            }
        }
    };
    tokio::time::timeout(afcgi_interop::wait::SOON, ticks)
        .await
        .expect("both are open");
    let start = Instant::now();
    signal(&mut rig.server.process, Signal::TERM);
    assert_eq!(poll.await.expect("the poll"), "[]");
    while let Some(piece) = clock.next().await {
        piece.expect("no broken stream");
    }
    assert_eq!(left(&mut rig.server.process).await.code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    assert!(
        !rig.server.process.log().contains("aborted"),
        "{}",
        rig.server.process.log()
    );
}
