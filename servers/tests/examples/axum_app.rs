//! `axum-app`, behind nginx.

use std::time::{Duration, Instant};

use afcgi_interop::http::{client, get, get_ok};
use futures_util::StreamExt;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::common::{Server, Web};

const AXUM_APP: &str = env!("CARGO_BIN_EXE_axum-app");

struct Rig {
    web: Web,
    client: Client,
    _server: Server,
}

impl Rig {
    async fn start() -> Self {
        let server = Server::start(AXUM_APP, &[]).await;
        let pass = format!(
            "location / {{ fastcgi_pass unix:{}; fastcgi_request_buffering off; }}",
            server.socket().display()
        );
        Self {
            web: Web::nginx(&pass).await,
            client: client(),
            _server: server,
        }
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let response = get(&self.client, &self.web.url(path)).await;
        (response.status(), response.text().await.expect("text"))
    }
}

#[tokio::test]
async fn path_parameters_and_what_is_not_there() {
    let rig = Rig::start().await;
    assert_eq!(
        rig.get("/hello/J%C3%BCrgen%20%2F?x").await,
        (StatusCode::OK, "Hello J\u{fc}rgen /\n".into())
    );
    assert_eq!(rig.get("/nowhere").await.0, StatusCode::NOT_FOUND);
    assert_eq!(rig.get("/count").await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert!(rig.get("/").await.1.contains("/hello/NAME"));
    let head = rig
        .client
        .head(rig.web.url("/hello/you"))
        .send()
        .await
        .expect("HEAD");
    assert_eq!(head.headers()["content-length"], "10");
}

#[tokio::test]
async fn a_form() {
    let rig = Rig::start().await;
    let post = |body: &'static str| {
        let request = rig.client.post(rig.web.url("/greet"));
        request
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
    };
    let answer = post("name=a+%26+b&times=2").await.expect("POST");
    assert_eq!(
        answer.text().await.expect("text"),
        "Hello a & b\nHello a & b\n"
    );
    assert_eq!(
        post("times=2").await.expect("POST").status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
}

#[tokio::test]
async fn json_and_state() {
    let rig = Rig::start().await;
    let json_of = |text: String| serde_json::from_str::<Value>(&text).expect("JSON");
    for text in ["first", "second \u{1f980}"] {
        let request = rig
            .client
            .post(rig.web.url("/notes"))
            .header("Content-Type", "application/json");
        let answer = request
            .body(json!({ "text": text }).to_string())
            .send()
            .await
            .expect("POST");
        assert_eq!(answer.status(), StatusCode::CREATED);
        let location = answer.headers()["location"]
            .to_str()
            .expect("text")
            .to_owned();
        assert_eq!(
            json_of(answer.text().await.expect("text")),
            json!({ "text": text })
        );
        // nginx may make it absolute.
        let path = &location[location.find("/notes/").expect("a path")..];
        assert_eq!(json_of(rig.get(path).await.1), json!({ "text": text }));
    }
    let all = json_of(rig.get("/notes").await.1);
    assert_eq!(
        all,
        json!({ "1": { "text": "first" }, "2": { "text": "second \u{1f980}" } })
    );
    let delete = rig
        .client
        .delete(rig.web.url("/notes/1"))
        .send()
        .await
        .expect("DELETE");
    assert_eq!(delete.status(), StatusCode::NO_CONTENT);
    assert_eq!(rig.get("/notes/1").await.0, StatusCode::NOT_FOUND);
    let bad = rig
        .client
        .post(rig.web.url("/notes"))
        .header("Content-Type", "application/json");
    assert_eq!(
        bad.body("{").send().await.expect("POST").status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_body_streams_in() {
    let rig = Rig::start().await;
    for lines in [0, 1, 500_000] {
        let request = rig
            .client
            .post(rig.web.url("/count"))
            .body("0123456789\n".repeat(lines));
        let answer = request
            .send()
            .await
            .expect("POST")
            .text()
            .await
            .expect("text");
        assert_eq!(answer, format!("{} bytes, {lines} lines\n", lines * 11));
    }
}

#[tokio::test]
async fn a_body_streams_out() {
    let rig = Rig::start().await;
    let mut pieces = get(&rig.client, &rig.web.url("/countdown/10"))
        .await
        .bytes_stream();
    let (mut all, mut first) = (Vec::new(), None);
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece.expect("a piece"));
        first.get_or_insert_with(Instant::now);
    }
    assert_eq!(all, b"10\n9\n8\n7\n6\n5\n4\n3\n2\n1\n0\n");
    // Ten pauses of 100 ms lie behind the first number. Half of that leaves room for a busy machine.
    let spread = first.expect("a piece").elapsed();
    assert!(
        spread >= Duration::from_millis(500),
        "all of it within {spread:?}"
    );
    assert_eq!(
        get_ok(&rig.client, &rig.web.url("/countdown/0")).await,
        "0\n"
    );
}
