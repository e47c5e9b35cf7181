//! The application of `afcgi demo`, over HTTP. What it does over FastCGI, behind a web server and in a
//! browser, is in the interop tests and in those of the nginx module.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use afcgi::{Server, Stopping};
use afcgi_cli::demo::{Config, Public, app};
use afcgi_interop::http::{client, get};
use afcgi_interop::wait::{SOON, eventually, free_port};
use futures_util::{SinkExt, StreamExt};
use reqwest::header::ORIGIN;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

/// The application, served by HTTP, so that it is the web server of its clients too.
struct Rig {
    url: String,
    client: Client,
    /// Ends the event streams when it is dropped.
    server: Option<Server>,
}

impl Rig {
    async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        Self::on(listener, address, config)
    }

    /// With clients that connect to an address.
    fn on(listener: TcpListener, clients: SocketAddr, config: Config) -> Self {
        let server = Server::new();
        let stopping: Stopping = server.stopping();
        let app = app(config, Public::of(clients), server.stats(), stopping);
        let url = format!("http://{}/", listener.local_addr().expect("its address"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            url,
            client: client(),
            server: Some(server),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn get(&self, path: &str) -> Response {
        get(&self.client, &self.url(path)).await
    }

    async fn post(&self, path: &str) -> Response {
        let request = self.client.post(self.url(path));
        request.send().await.expect("an answer")
    }

    async fn page(&self) -> Page {
        let mut page = Page {
            response: self.get("live").await,
            text: String::new(),
            id: String::new(),
        };
        let hello = page.next("hello").await;
        hello["page"]
            .as_str()
            .expect("a number")
            .clone_into(&mut page.id);
        page
    }
}

/// A page that is open: its event stream.
struct Page {
    response: Response,
    text: String,
    id: String,
}

impl Page {
    /// The data of the next event of that name.
    async fn next(&mut self, name: &str) -> Value {
        tokio::time::timeout(SOON, async {
            loop {
                while let Some((event, rest)) = self.text.split_once("\n\n") {
                    let event = event.to_owned();
                    self.text = rest.to_owned();
                    let (first, data) = event.split_once("\ndata: ").expect("an event with data");
                    if first == format!("event: {name}") {
                        return serde_json::from_str(data).expect("JSON");
                    }
                }
                let chunk = self.response.chunk().await.expect("a chunk");
                let chunk = chunk.expect("more of the event stream");
                self.text += std::str::from_utf8(&chunk).expect("text");
            }
        })
        .await
        .expect("in time")
    }

    /// Waits until the numbers are as they should be.
    async fn numbers(&mut self, what: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let numbers = self.next("numbers").await;
            if what(&numbers) {
                return numbers;
            }
            assert!(start.elapsed() < SOON, "still {numbers}");
        }
    }
}

/// How many clients are being opened, as the answer tells.
async fn opening(answer: Response) -> u64 {
    assert_eq!(answer.status(), StatusCode::OK);
    let answer = answer.bytes().await.expect("an answer");
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    answer["opening"].as_u64().expect("a number")
}

fn config() -> Config {
    Config::default()
}

#[tokio::test]
async fn routes() {
    let rig = Rig::start(config()).await;
    let page = rig.get("").await;
    assert_eq!(page.status(), StatusCode::OK);
    let policy = page.headers()["content-security-policy"].to_str();
    assert!(policy.expect("text").starts_with("default-src 'none'"));
    assert_eq!(page.headers()["cache-control"], "no-store");
    let text = page.text().await.expect("a page");
    assert!(text.starts_with("<!doctype html>") && text.contains("new EventSource(base"));
    for elsewhere in [
        "src=\"http",
        "href=\"http",
        "url(http",
        "@import",
        "/* page.js */",
    ] {
        assert!(!text.contains(elsewhere), "{elsewhere}");
    }
    // At any path.
    for path in ["demo/", "a/b/c"] {
        assert_eq!(rig.get(path).await.text().await.expect("a page"), text);
    }
    assert_eq!(
        rig.get("a/ping").await.text().await.expect("text"),
        "pong\n"
    );
    for path in ["live", "clock"] {
        let events = rig.get(path).await;
        assert_eq!(events.headers()["content-type"], "text/event-stream");
        assert_eq!(events.headers()["x-accel-buffering"], "no");
    }
    for path in ["", "live", "clock", "ping", "echo", "download"] {
        let status = rig.post(path).await.status();
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "POST {path}");
    }
    for path in ["load", "close", "message"] {
        let status = rig.get(path).await.status();
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "GET {path}");
    }
    assert!(rig.get("echo").await.status().is_client_error());
}

#[tokio::test]
async fn the_clock_ticks() {
    let rig = Rig::start(config()).await;
    let mut page = rig.page().await;
    let first = page.next("time").await.as_u64().expect("milliseconds");
    let second = page.next("time").await.as_u64().expect("milliseconds");
    assert!(
        (500..10_000).contains(&(second - first)),
        "{first} {second}"
    );
}

#[tokio::test]
async fn clients_are_opened_and_closed() {
    let rig = Rig::start(config()).await;
    let mut page = rig.page().await;
    let answer = rig.post(&format!("load?page={}&n=100", page.id)).await;
    assert_eq!(opening(answer).await, 100);
    page.numbers(|numbers| numbers["clocks"] == 100 && numbers["clients"]["open"] == 100)
        .await;
    // Each gets an event every second.
    page.numbers(|numbers| numbers["clients"]["events"].as_u64() >= Some(200))
        .await;
    let answer = rig.post(&format!("load?page={}&n=1", page.id)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    page.numbers(|numbers| numbers["clocks"] == 101).await;
    let answer = rig.post(&format!("close?page={}", page.id)).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    let numbers = page.numbers(|numbers| numbers["clocks"] == 0).await;
    assert_eq!(numbers["clients"]["failed"], 0, "{numbers}");
}

#[tokio::test]
async fn clients_end_with_their_page() {
    let rig = Rig::start(config()).await;
    let (mut one, mut other) = (rig.page().await, rig.page().await);
    for (id, n) in [(&one.id, 30), (&other.id, 7)] {
        rig.post(&format!("load?page={id}&n={n}")).await;
    }
    one.numbers(|numbers| numbers["clocks"] == 37 && numbers["pages"] == 2)
        .await;
    let id = one.id.clone();
    drop(one);
    other
        .numbers(|numbers| numbers["clocks"] == 7 && numbers["pages"] == 1)
        .await;
    for path in ["load?n=1&page=", "close?page="] {
        let status = rig.post(&format!("{path}{id}")).await.status();
        assert_eq!(status, StatusCode::GONE);
    }
}

#[tokio::test]
async fn clients_end_after_their_time() {
    let mut config = config();
    config.longest = Duration::from_millis(300);
    let rig = Rig::start(config).await;
    let mut page = rig.page().await;
    rig.post(&format!("load?page={}&n=20", page.id)).await;
    let ended = |numbers: &Value| {
        let clients = &numbers["clients"];
        clients["events"].as_u64() >= Some(20) && clients["open"] == 0 && numbers["clocks"] == 0
    };
    let numbers = page.numbers(ended).await;
    assert_eq!(numbers["clients"]["failed"], 0, "{numbers}");
}

#[tokio::test]
async fn there_are_only_so_many_clients() {
    let mut config = config();
    config.most_clients = 10;
    let rig = Rig::start(config).await;
    let (one, mut other) = (rig.page().await, rig.page().await);
    for n in ["0", "11", "-1", "x", ""] {
        let answer = rig.post(&format!("load?page={}&n={n}", one.id)).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{n}");
    }
    for (id, wanted, expected) in [(&one.id, 6, 6), (&other.id, 6, 4)] {
        let answer = rig.post(&format!("load?page={id}&n={wanted}")).await;
        assert_eq!(opening(answer).await, expected);
    }
    let answer = rig.post(&format!("load?page={}&n=1", one.id)).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    other.numbers(|numbers| numbers["clocks"] == 10).await;
    rig.post(&format!("close?page={}", one.id)).await;
    other.numbers(|numbers| numbers["clocks"] == 4).await;
    let answer = rig.post(&format!("load?page={}&n=6", other.id)).await;
    assert_eq!(opening(answer).await, 6);
}

#[tokio::test]
async fn clients_that_fail_say_why() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let rig = Rig::on(listener, nobody, config());
    let mut page = rig.page().await;
    rig.post(&format!("load?page={}&n=3", page.id)).await;
    let numbers = page
        .numbers(|numbers| numbers["clients"]["failed"] == 3)
        .await;
    let why = numbers["clients"]["why"].as_str().expect("a reason");
    assert!(why.contains("refused"), "{why}");
    // A web server that has something else there.
    let mut config = config();
    config.clocks = 0;
    let rig = Rig::start(config).await;
    let mut page = rig.page().await;
    rig.post(&format!("load?page={}&n=3", page.id)).await;
    let numbers = page
        .numbers(|numbers| numbers["clients"]["failed"] == 3)
        .await;
    let why = numbers["clients"]["why"].as_str().expect("a reason");
    assert!(why.contains("503"), "{why}");
}

#[tokio::test]
async fn every_other_limit_holds() {
    let mut config = config();
    (
        config.pages,
        config.clocks,
        config.sockets,
        config.downloads,
    ) = (1, 1, 1, 1);
    let rig = Rig::start(config).await;
    let mut page = rig.page().await;
    let download = format!("download?page={}", page.id);
    let (clock, slow) = (rig.get("clock").await, rig.get(&download).await);
    let socket = connect(&rig).await.expect("a WebSocket");
    page.numbers(|numbers| {
        ["pages", "clocks", "sockets", "downloads"].map(|name| numbers[name] == 1) == [true; 4]
    })
    .await;
    for path in ["live", "clock", &download] {
        let status = rig.get(path).await.status();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    assert!(connect(&rig).await.is_none());
    drop((clock, slow, socket));
    page.numbers(|numbers| {
        ["clocks", "sockets", "downloads"].map(|name| numbers[name] == 0) == [true; 3]
    })
    .await;
    drop(page);
    eventually("a place for a page", SOON, || async {
        match rig.get("live").await.status() {
            StatusCode::OK => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
}

type Socket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

async fn connect(rig: &Rig) -> Option<Socket> {
    afcgi_interop::websocket::try_connect(&rig.url("echo"))
        .await
        .ok()
}

#[tokio::test]
async fn the_socket_echoes() {
    let rig = Rig::start(config()).await;
    let mut socket = connect(&rig).await.expect("a WebSocket");
    for message in [Message::text("12.5"), Message::binary(vec![7; 4000])] {
        socket.send(message.clone()).await.expect("sent");
        let answer = afcgi_interop::websocket::next(&mut socket).await;
        assert_eq!(answer, Some(message));
    }
    // More than it takes.
    _ = socket.send(Message::binary(vec![7; 5000])).await;
    assert!(!matches!(socket.next().await, Some(Ok(Message::Binary(_)))));
}

#[tokio::test]
async fn a_download_is_held_back_by_its_client() {
    let rig = Rig::start(config()).await;
    let mut page = rig.page().await;
    let download = rig.get(&format!("download?page={}", page.id)).await;
    assert_eq!(download.content_length(), Some(200_000_000));
    let begun = page
        .numbers(|numbers| numbers["handed"].as_u64() > Some(0))
        .await;
    assert!(begun["handed"].as_u64() < Some(100_000_000), "{begun}");
    let body = download.bytes().await.expect("all of it");
    assert_eq!(body.len(), 200_000_000);
    page.numbers(|numbers| numbers["handed"] == 200_000_000 && numbers["downloads"] == 0)
        .await;
    let status = rig.get("download?page=0").await.status();
    assert_eq!(status, StatusCode::GONE);
}

#[tokio::test]
async fn a_chat() {
    let rig = Rig::start(config()).await;
    let say = async |said: Value| {
        let request = rig.client.post(rig.url("message"));
        let request = request.header("content-type", "application/json");
        let answer = request.body(said.to_string()).send().await;
        answer.expect("an answer").status()
    };
    let said = json!({ "name": " Ada ", "text": "one" });
    assert_eq!(say(said).await, StatusCode::NO_CONTENT);
    // What was said before, and what comes.
    let mut page = rig.page().await;
    let one = page.next("message").await;
    assert_eq!(
        (&one["name"], &one["text"], &one["id"]),
        (&json!("Ada"), &json!("one"), &json!(1))
    );
    say(json!({ "text": "two" })).await;
    let two = page.next("message").await;
    assert_eq!(
        (&two["name"], &two["text"]),
        (&json!("anonymous"), &json!("two"))
    );
    for bad in [
        json!({ "text": " " }),
        json!({ "text": "x".repeat(501) }),
        json!({ "name": "x".repeat(25), "text": "x" }),
        json!({ "name": "x" }),
        json!({ "text": "x".repeat(9000) }),
    ] {
        let status = say(bad).await;
        assert!(status.is_client_error(), "{status}");
    }
}

#[tokio::test]
async fn pages_of_other_sites_are_kept_out() {
    let rig = Rig::start(config()).await;
    let page = rig.page().await;
    for path in [format!("load?page={}&n=1", page.id), "message".to_owned()] {
        let request = rig.client.post(rig.url(&path));
        let answer = request.header(ORIGIN, "https://evil.example").send().await;
        let status = answer.expect("an answer").status();
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let mut rig = Rig::start(config()).await;
    let (page, clock) = (rig.page().await, rig.get("clock").await);
    rig.server = None;
    for stream in [page.response, clock] {
        let rest = tokio::time::timeout(SOON, stream.bytes()).await;
        rest.expect("in time").expect("an end in order");
    }
}
