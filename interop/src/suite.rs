//! What an application must do behind any web server: each function is one test, run for every pair of the two.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::{Client, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::app::App;
use crate::gateway::{Gateway, Kind};
use crate::http::{assert_same, client, get, get_ok, noise};
use crate::wait::{SOON, eventually};

const FIVE_MB: usize = 5_000_000;

/// An application behind a web server, and a client.
#[derive(Debug)]
pub struct Rig {
    /// The web server; ended first.
    pub gateway: Gateway,
    /// The application.
    pub app: App,
    /// The client.
    pub client: Client,
}

impl Rig {
    /// `afcgitest` behind `kind`.
    pub async fn afcgitest(kind: Kind) -> Self {
        Self::new(kind, App::afcgitest(&[]).await).await
    }

    /// The Go program behind `kind`.
    pub async fn go(kind: Kind) -> Self {
        Self::new(kind, App::go().await).await
    }

    /// An application behind `kind`.
    pub async fn new(kind: Kind, app: App) -> Self {
        let gateway = Gateway::start(kind, app.port()).await;
        Self {
            gateway,
            app,
            client: client(),
        }
    }

    fn url(&self, path: &str) -> String {
        self.gateway.url(path)
    }

    async fn get_ok(&self, path: &str) -> bytes::Bytes {
        get_ok(&self.client, &self.url(path)).await
    }

    /// One number of `/stats`.
    pub async fn stat(&self, name: &str) -> u64 {
        let body = self.get_ok("/stats").await;
        let stats: serde_json::Value = serde_json::from_slice(&body).expect("/stats is JSON");
        stats
            .get(name)
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_else(|| panic!("no number {name:?} in {stats}"))
    }

    /// Waits until the request that asks is the only active one.
    async fn settle(&self) {
        eventually("all requests have ended", SOON, || async {
            match self.stat("active").await {
                0 | 1 => Ok(()),
                active => Err(format!("{active} are active")),
            }
        })
        .await;
    }

    async fn assert_echo(&self, body: Vec<u8>) {
        let mut attempts = 1;
        let response = loop {
            // Said in full, since the client leaves it out for an empty body and lighttpd insists on it.
            let request = self
                .client
                .post(self.url("/echo"))
                .header("Content-Length", body.len());
            let response = request.body(body.clone()).send().await.expect("POST /echo");
            // While uploads share a connection, HAProxy now and then fails to start a request, without a byte to the application, and
            // answers 500 by itself (its log ends the line with "IH"). Seen with every application.
            let own_error = self.gateway.kind == Kind::Haproxy
                && response.status() == StatusCode::INTERNAL_SERVER_ERROR;
            if !own_error || attempts == 10 {
                break response;
            }
            attempts += 1;
        };
        assert_eq!(response.status(), StatusCode::OK);
        assert_same("/echo", &response.bytes().await.expect("the body"), &body);
    }

    async fn assert_hello(&self) {
        assert_eq!(self.get_ok("/").await, "Hello world\n");
    }
}

/// Any path without a route says hello.
pub async fn says_hello(rig: Rig) {
    rig.assert_hello().await;
    assert_eq!(rig.get_ok("/no/such/route?x=1").await, "Hello world\n");
}

/// `/echo` gives the body back, whatever its bytes are, and an empty one too.
pub async fn echoes_a_body(rig: Rig) {
    let every_byte: Vec<u8> = (0..=255).collect();
    for body in [
        Vec::new(),
        b"x".to_vec(),
        every_byte,
        noise(65_535, 1),
        noise(65_536, 2),
        noise(65_537, 3),
    ] {
        rig.assert_echo(body).await;
    }
}

/// 5 MB up and back, five at once, each its own.
pub async fn echoes_megabytes(rig: Rig) {
    join_all((0..5).map(|seed| rig.assert_echo(noise(FIVE_MB, seed)))).await;
    rig.settle().await;
}

/// `/bytes` sends as many as were asked for, from none to 5 MB, five at once.
pub async fn sends_bytes(rig: Rig) {
    let rig = &rig;
    join_all([0, 1, 65_535, 65_536, FIVE_MB].map(async |n| {
        let body = rig.get_ok(&format!("/bytes?n={n}")).await;
        assert_same("/bytes", &body, &pattern(n));
    }))
    .await;
    rig.settle().await;
}

/// What `/bytes?n=N` sends.
fn pattern(n: usize) -> Vec<u8> {
    (0..=250).cycle().take(n).collect()
}

/// `/env` shows the request as the web server describes it.
pub async fn shows_parameters(rig: Rig) {
    let url = rig.url("/env?a=1&b=%20c");
    let response = rig
        .client
        .get(url)
        .header("X-Interop-Test", "some value")
        .send()
        .await
        .expect("GET /env");
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.text().await.expect("the body");
    let value = |name: &str| {
        let mut found = body
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let value = found
            .next()
            .unwrap_or_else(|| panic!("no {name} in:\n{body}"))
            .to_owned();
        assert_eq!(found.next(), None, "{name} twice in:\n{body}");
        value
    };
    assert_eq!(value("REQUEST_METHOD"), "GET");
    assert_eq!(value("QUERY_STRING"), "a=1&b=%20c");
    assert_eq!(value("HTTP_X_INTEROP_TEST"), "some value");
}

/// `/status` sets the status of the response, and the body is the application's.
pub async fn sets_the_status(rig: Rig) {
    for code in [200, 201, 404, 418, 500, 503] {
        let response = get(&rig.client, &rig.url(&format!("/status?code={code}"))).await;
        assert_eq!(response.status().as_u16(), code);
    }
    let response = get(&rig.client, &rig.url("/status?code=204")).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(response.bytes().await.expect("the body"), "");
    rig.assert_hello().await;
}

/// What goes to the STDERR stream reaches the log of the web server and nothing of it the client.
pub async fn logs_stderr(rig: Rig) {
    let body = rig.get_ok("/stderr").await;
    assert!(
        !String::from_utf8_lossy(&body).contains("stderr"),
        "STDERR in the body: {body:?}"
    );
    // Caddy 2.6 keeps it to itself when the status is a good one, whatever it is told.
    if rig.gateway.kind == Kind::Caddy {
        rig.assert_hello().await;
        return;
    }
    eventually("STDERR is in the log", SOON, || async {
        if rig.gateway.log().to_lowercase().contains("stderr") {
            Ok(())
        } else {
            Err(String::from("it is not"))
        }
    })
    .await;
    rig.assert_hello().await;
}

/// `/events` arrives event by event, not at the end.
pub async fn streams_events(rig: Rig) {
    const PAUSE: Duration = Duration::from_millis(300);
    let response = get(
        &rig.client,
        &rig.url(&format!("/events?n=5&ms={}", PAUSE.as_millis())),
    )
    .await;
    assert_eq!(response.status(), StatusCode::OK);
    let content_type = response
        .headers()
        .get("content-type")
        .expect("a Content-Type")
        .to_str()
        .expect("text")
        .to_owned();
    assert!(
        content_type.starts_with("text/event-stream"),
        "{content_type}"
    );
    let mut stream = response.bytes_stream();
    let (mut body, mut first) = (Vec::new(), None);
    while let Some(piece) = stream.next().await {
        body.extend_from_slice(&piece.expect("a piece of the body"));
        first.get_or_insert_with(Instant::now);
    }
    let events = String::from_utf8(body).expect("text");
    assert_eq!(events.matches("data:").count(), 5, "{events}");
    assert_eq!(events.matches("\n\n").count(), 5, "{events}");
    // Four pauses lie between the first and the last. Half of that leaves room for a busy machine.
    let spread = first.expect("a first piece").elapsed();
    assert!(spread >= PAUSE * 2, "all of it within {spread:?}");
}

/// `/stats` counts.
pub async fn counts(rig: Rig) {
    let before = rig.stat("served").await;
    for _ in 0..10 {
        rig.assert_hello().await;
    }
    let after = rig.stat("served").await;
    assert!(
        after >= before + 10,
        "{before} served before, {after} after ten requests"
    );
    for name in ["connections", "active", "aborted", "refused"] {
        rig.stat(name).await;
    }
}

/// Fifty requests that take two seconds each take little more than two seconds together.
pub async fn holds_fifty_requests(rig: Rig) {
    let start = Instant::now();
    join_all((0..50).map(|_| async {
        let one = Instant::now();
        assert_eq!(rig.get_ok("/delay?ms=2000").await, "Hello world\n");
        assert!(
            one.elapsed() >= Duration::from_millis(1990),
            "answered after {:?}",
            one.elapsed()
        );
    }))
    .await;
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "fifty at once took {:?}",
        start.elapsed()
    );
    rig.settle().await;
}

/// Two hundred requests at a time need no more connections than nginx has workers.
pub async fn shares_connections(rig: Rig) {
    let held = join_all((0..200).map(|_| async {
        assert_eq!(rig.get_ok("/delay?ms=2000").await, "Hello world\n");
    }));
    let meanwhile = eventually("all are active at once", SOON, || async {
        match (rig.stat("active").await, rig.stat("connections").await) {
            (active, connections) if active > 200 => Ok(connections),
            (active, _) => Err(format!("{active} are active")),
        }
    });
    let (connections, _) = tokio::join!(meanwhile, held);
    assert!(
        connections <= 2,
        "{connections} connections for 200 requests"
    );
}

/// A client that leaves in the middle of a response ends that request and no other.
pub async fn survives_a_client_that_leaves(rig: Rig) {
    // Each would last for 100 s: that they have ended means that the application was told.
    ten_clients_leave(&rig, "/events?n=2000&ms=50").await;
    let aborted = rig.stat("aborted").await;
    assert_eq!(
        aborted, 10,
        "ten clients have left, {aborted} requests were aborted"
    );
    rig.assert_hello().await;
}

/// The same where the application cannot be told: what it writes on goes nowhere, and to nobody else.
pub async fn serves_on_when_clients_leave(rig: Rig) {
    ten_clients_leave(&rig, "/events?n=40&ms=50").await;
    rig.assert_hello().await;
}

async fn ten_clients_leave(rig: &Rig, path: &str) {
    let neighbour = async {
        let body = rig.get_ok("/events?n=20&ms=50").await;
        assert_eq!(
            body,
            (0..20)
                .map(|n| format!("data: {n}\n\n"))
                .collect::<String>()
        );
    };
    let leavers = async {
        join_all((0..10).map(|_| async {
            let mut stream = get(&rig.client, &rig.url(path)).await.bytes_stream();
            stream
                .next()
                .await
                .expect("a first event")
                .expect("a first event");
        }))
        .await;
        for _ in 0..20 {
            rig.assert_hello().await;
        }
    };
    tokio::join!(neighbour, leavers);
    rig.settle().await;
}

/// A client that leaves in the middle of an upload leaves nothing behind.
pub async fn survives_a_broken_upload(rig: Rig) {
    const CLIENTS: u64 = 5;
    let mut sockets = Vec::new();
    for seed in 0..CLIENTS {
        let host = rig.gateway.address();
        let mut socket = TcpStream::connect(host).await.expect("a connection");
        let head =
            format!("POST /echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n");
        socket.write_all(head.as_bytes()).await.expect("the head");
        socket
            .write_all(&noise(100_000, seed))
            .await
            .expect("a part of the body");
        sockets.push(socket);
    }
    eventually("the uploads are under way", SOON, || async {
        match rig.stat("active").await {
            active if active > CLIENTS => Ok(()),
            active => Err(format!("{active} are active")),
        }
    })
    .await;
    drop(sockets);
    rig.settle().await;
    rig.assert_hello().await;
}
