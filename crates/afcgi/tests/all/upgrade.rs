//! Requests that become tunnels (`docs/upgrade.md`): records by hand against what an application
//! sees.

use std::time::Duration;

use crate::common::upgrade::{HANDSHAKE, OFFER, offered, websocket};
use crate::common::{Served, eventually, patient, serve};
use afcgi::{AppStatus, Config, Request, Upgrades, http, native};
use afcgi_proto::Role;
use afcgi_proto::params::encode_pair;
use afcgi_proto::web::{self, Connection, Event, Input};
use afcgi_testkit::record::{self, code};
use axum::Router;
use axum::extract::Request as HttpRequest;
use axum::http::StatusCode;
use axum::http::header::UPGRADE;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// A connection on which records are written and read by hand; its only request has the id 1.
struct Raw {
    socket: TcpStream,
    /// Whole records.
    received: Vec<u8>,
    /// The beginning of one.
    part: Vec<u8>,
}

impl Raw {
    async fn new(server: &Served) -> Self {
        Self {
            socket: TcpStream::connect(server.addr).await.unwrap(),
            received: Vec::new(),
            part: Vec::new(),
        }
    }

    /// A connection with a request whose STDIN is open.
    async fn begin(server: &Served, params: &[(&str, &str)]) -> Self {
        let mut raw = Self::new(server).await;
        let request = [record::begin(1, 1, 1), record::params(1, params)].concat();
        raw.send(&request).await;
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        patient(self.socket.write_all(bytes)).await.unwrap();
    }

    async fn stdin(&mut self, content: &[u8]) {
        self.send(&record::record(code::STDIN, 1, content)).await;
    }

    /// Reads until what was received is enough.
    async fn until(&mut self, enough: impl Fn(&[u8]) -> bool) {
        while !enough(&self.received) {
            let count = patient(self.socket.read_buf(&mut self.part)).await.unwrap();
            assert!(count > 0, "closed after {:?}", self.outline());
            let mut rest = &self.part[..];
            while record::take(&mut rest).is_some() {}
            let whole = self.part.len() - rest.len();
            self.received.extend(self.part.drain(..whole));
        }
    }

    /// STDOUT so far, once it ends this way.
    async fn stdout(&mut self, end: &str) -> String {
        let stdout = |bytes: &[u8]| record::content(bytes, code::STDOUT, 1);
        self.until(|bytes| stdout(bytes).ends_with(end.as_bytes()))
            .await;
        String::from_utf8(stdout(&self.received)).unwrap()
    }

    /// The application status, once the request has ended.
    async fn ended(&mut self) -> u32 {
        let end = |bytes: &[u8]| record::content(bytes, code::END, 1);
        self.until(|bytes| !end(bytes).is_empty()).await;
        let end = end(&self.received);
        assert_eq!((end.len(), end[4]), (8, 0));
        u32::from_be_bytes([end[0], end[1], end[2], end[3]])
    }

    fn outline(&self) -> Vec<(u8, u16, usize)> {
        record::outline(&self.received)
    }
}

/// What a tunnel does with what it is given, for a protocol called `x`.
fn tunnel<F, Fut>(run: F) -> Router
where
    F: Fn(Upgraded) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Router::new().fallback(any(async move |mut request: HttpRequest| {
        let upgrade = hyper::upgrade::on(&mut request);
        let body = axum::body::to_bytes(request.into_body(), 100).await;
        assert_eq!(body.unwrap(), "", "the body of an upgrade");
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                run(TokioIo::new(upgraded)).await;
            }
        });
        switching()
    }))
}

fn switching() -> Response {
    (StatusCode::SWITCHING_PROTOCOLS, [(UPGRADE, "x")]).into_response()
}

/// Gives back what comes, up to its end.
async fn give_back(upgraded: Upgraded) {
    let (mut reader, mut writer) = tokio::io::split(upgraded);
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
}

fn served(router: Router) -> Served {
    serve(Config::default(), http(router))
}

fn with(upgrades: Upgrades) -> Config {
    let mut config = Config::default();
    config.upgrades = upgrades;
    config
}

#[tokio::test]
async fn the_websocket_of_the_documentation() {
    let server = served(websocket());
    let mut raw = Raw::new(&server).await;
    raw.send(b"\x01\x09\0\0\0\x0e\0\0\x0c\0FCGI_UPGRADE").await;
    raw.until(|bytes| bytes.len() >= 23).await;
    assert_eq!(raw.received, b"\x01\x0a\0\0\0\x0f\0\0\x0c\x01FCGI_UPGRADE1");
    raw.received.clear();
    raw.send(b"\x01\x01\0\x01\0\x08\0\0\0\x01\x01\0\0\0\0\0")
        .await;
    let mut params = Vec::new();
    for (name, value) in offered() {
        assert!(encode_pair(&mut params, name.as_bytes(), value.as_bytes()));
    }
    raw.send(b"\x01\x04\0\x01\0\xca\0\0").await;
    raw.send(&params).await;
    raw.send(b"\x01\x04\0\x01\0\0\0\0").await;
    let head = raw.stdout("\r\n\r\n").await;
    assert_eq!(
        head,
        "Status: 101 Switching Protocols\r\nupgrade: websocket\r\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
    // "Hello", masked, from RFC 6455 section 5.7, and the same unmasked.
    raw.stdin(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58")
        .await;
    assert_eq!(head.len(), 0x6b);
    raw.until(|bytes| record::content(bytes, code::STDOUT, 1).ends_with(b"\x81\x05Hello"))
        .await;
    // Closing with status 1000, and the answer.
    raw.stdin(b"\x88\x82\0\0\0\0\x03\xe8").await;
    assert_eq!(raw.ended().await, 0);
    assert_eq!(
        raw.outline(),
        [
            (code::STDOUT, 1, head.len()),
            (code::STDOUT, 1, 7),
            (code::STDOUT, 1, 4),
            (code::STDOUT, 1, 0),
            (code::END, 1, 8),
        ]
    );
    assert_eq!(server.stats.snapshot().served, 1);
}

#[tokio::test]
async fn bytes_go_both_ways_and_the_end_of_stdin_is_an_end() {
    let server = served(tunnel(give_back));
    let mut raw = Raw::begin(&server, &offered()).await;
    assert_eq!(
        raw.stdout("\r\n\r\n").await,
        "Status: 101 Switching Protocols\r\nupgrade: x\r\n\r\n"
    );
    for said in ["a", "\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "Status: 200\r\n"] {
        raw.stdin(said.as_bytes()).await;
        raw.stdout(said).await;
    }
    raw.send(&record::record(code::STDIN, 1, b"")).await;
    assert_eq!(raw.ended().await, 0);
}

#[tokio::test]
async fn what_comes_before_the_answer_waits_for_it() {
    let server = served(tunnel(give_back));
    let mut raw = Raw::new(&server).await;
    let early = [
        record::begin(1, 1, 1),
        record::record(code::STDIN, 1, b"early "),
        record::params(1, &offered()),
        record::stream(code::STDIN, 1, b"bird", 1),
    ];
    raw.send(&early.concat()).await;
    let stdout = raw.stdout("bird").await;
    assert!(stdout.ends_with("upgrade: x\r\n\r\nearly bird"), "{stdout}");
    assert_eq!(raw.ended().await, 0);
}

#[tokio::test]
async fn either_half_may_be_closed_first() {
    let server = served(tunnel(async |mut upgraded| {
        upgraded.write_all(b"all").await.unwrap();
        upgraded.shutdown().await.unwrap();
        let error = upgraded.write_all(b"more").await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        let mut rest = String::new();
        upgraded.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "goodbye");
    }));
    let mut raw = Raw::begin(&server, &offered()).await;
    raw.until(|bytes| record::outline(bytes).contains(&(code::STDOUT, 1, 0)))
        .await;
    raw.send(&record::stream(code::STDIN, 1, b"goodbye", 3))
        .await;
    assert_eq!(raw.ended().await, 0);
    let outline = raw.outline();
    assert_eq!(
        outline[1..],
        [
            (code::STDOUT, 1, 3),
            (code::STDOUT, 1, 0),
            (code::END, 1, 8)
        ]
    );
}

#[tokio::test]
async fn any_other_status_declines() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let server = served(
        Router::new()
            .route(
                "/late",
                any(async move |mut request: HttpRequest| {
                    let upgrade = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move { tell.send(upgrade.await.is_ok()) });
                    (StatusCode::FORBIDDEN, [(UPGRADE, "x")], "no").into_response()
                }),
            )
            .fallback(any(async || "plain")),
    );
    let mut raw = Raw::begin(&server, &offered()).await;
    assert_eq!(raw.ended().await, 0);
    let answer = raw.stdout("plain").await;
    assert!(answer.starts_with("Status: 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-length: 5\r\n"), "{answer}");

    let mut params = offered();
    params[1].1 = "/late";
    let mut raw = Raw::begin(&server, &params).await;
    assert_eq!(raw.ended().await, 0);
    let answer = raw.stdout("no").await;
    assert!(answer.starts_with("Status: 403 Forbidden\r\n"), "{answer}");
    assert_eq!(patient(told.recv()).await, Some(false));
}

#[tokio::test]
async fn whoever_does_not_take_the_tunnel_ends_it() {
    let server = served(Router::new().fallback(any(async || switching())));
    let mut raw = Raw::begin(&server, &offered()).await;
    assert_eq!(raw.ended().await, 0);
    assert!(
        raw.stdout("\r\n\r\n")
            .await
            .starts_with("Status: 101 Switching Protocols\r\n")
    );
}

#[tokio::test]
async fn an_upgrade_that_nobody_offered_is_an_error() {
    let server = served(Router::new().fallback(any(async || switching())));
    let mut with_body = offered();
    with_body.push(("CONTENT_LENGTH", "4"));
    for params in [HANDSHAKE, &with_body, &[OFFER]] {
        let mut raw = Raw::begin(&server, params).await;
        assert_eq!(raw.ended().await, 0);
        let answer = raw.stdout("\n").await;
        assert!(answer.starts_with("Status: 500 "), "{answer}");
    }
}

#[tokio::test]
async fn the_setting_decides_who_is_offered_an_upgrade() {
    for (upgrades, plain, marked) in [
        (Upgrades::Never, false, false),
        (Upgrades::Offered, false, true),
        (Upgrades::ByHeader, true, true),
    ] {
        let server = serve(with(upgrades), http(websocket()));
        for (params, expected) in [(HANDSHAKE, plain), (&offered(), marked)] {
            let mut raw = Raw::begin(&server, params).await;
            raw.until(|bytes| !record::content(bytes, code::STDOUT, 1).is_empty())
                .await;
            let answer = raw.stdout("").await;
            // axum says "426 Upgrade Required" where there is no upgrade.
            assert_eq!(answer.starts_with("Status: 101 "), expected, "{answer}");
        }
        let mut raw = Raw::new(&server).await;
        raw.send(b"\x01\x09\0\0\0\x0e\0\0\x0c\0FCGI_UPGRADE").await;
        raw.until(|bytes| bytes.len() >= 8).await;
        let length = if upgrades == Upgrades::Never { 0 } else { 15 };
        assert_eq!(raw.outline(), [(code::GET_VALUES_RESULT, 0, length)]);
    }
}

/// A server whose tunnels say what they met.
fn watched() -> (Served, mpsc::UnboundedReceiver<String>) {
    let (tell, told) = mpsc::unbounded_channel();
    let router = tunnel(move |mut upgraded| {
        let tell = tell.clone();
        async move {
            upgraded.write_all(b"open").await.unwrap();
            let mut all = Vec::new();
            let read = upgraded.read_to_end(&mut all).await;
            let write = upgraded.write_all(b"late").await;
            let kind = |result: Option<std::io::Error>| result.map(|error| error.kind());
            let _ = tell.send(format!(
                "{} {:?} {:?}",
                String::from_utf8_lossy(&all),
                kind(read.err()),
                kind(write.err())
            ));
        }
    });
    (served(router), told)
}

#[tokio::test]
async fn r57_an_abort_is_an_error_for_the_application() {
    let (server, mut told) = watched();
    let mut raw = Raw::begin(&server, &offered()).await;
    raw.stdin(b"some").await;
    raw.stdout("open").await;
    raw.send(&record::record(code::ABORT, 1, b"")).await;
    assert_eq!(raw.ended().await, 0);
    let met = patient(told.recv()).await.unwrap();
    assert_eq!(met, "some Some(ConnectionAborted) Some(BrokenPipe)");
    eventually("it is counted", || server.stats.snapshot().aborted == 1).await;
    assert_eq!(server.stats.snapshot().active, 0);
    // The connection goes on.
    raw.received.clear();
    let again = [record::begin(1, 1, 1), record::params(1, &offered())];
    raw.send(&again.concat()).await;
    raw.stdout("open").await;
}

#[tokio::test]
async fn r31_a_lost_connection_is_an_error_for_the_application() {
    let (server, mut told) = watched();
    let mut raw = Raw::begin(&server, &offered()).await;
    raw.stdout("open").await;
    // Closed with something unread, so that it is a reset.
    drop(raw);
    let met = patient(told.recv()).await.unwrap();
    assert!(met.starts_with(" Some(UnexpectedEof)"), "{met}");
    eventually("nothing is left", || {
        let now = server.stats.snapshot();
        (now.active, now.connections) == (0, 0)
    })
    .await;
}

#[tokio::test]
async fn a_writer_that_waits_hears_of_the_end() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let server = served(tunnel(move |mut upgraded| {
        let tell = tell.clone();
        async move {
            // More than anybody takes.
            let error = loop {
                if let Err(error) = upgraded.write_all(&[0; 100_000]).await {
                    break error;
                }
            };
            let _ = tell.send(error.kind());
        }
    }));
    let mut client = server.client().await;
    client.connection = Connection::new(web::Config::default());
    client.connection.probe();
    client.flush().await;
    while !matches!(client.connection.poll_event(), Some(Event::Values(_))) {
        assert!(client.fill().await);
    }
    let request = client.begin(Role::Responder, &offered());
    client.flush().await;
    let most = web::Config::default().receive_buffer;
    while client.connection.readable(request, Input::Stdout).unwrap() < most {
        assert!(client.fill().await);
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(told.try_recv().is_err(), "it waits for credit");
    client.raw(&record::record(code::ABORT, 1, b"")).await;
    assert_eq!(
        patient(told.recv()).await,
        Some(std::io::ErrorKind::BrokenPipe)
    );
}

#[tokio::test]
async fn a_native_handler_upgrades_by_itself() {
    let server = serve(
        Config::default(),
        native(async |request: Request| {
            let mut stdout = request.stdout();
            if !request.upgrade_offered() {
                stdout
                    .write(b"Status: 426 Upgrade Required\r\n\r\n")
                    .await?;
                return Ok::<_, std::io::Error>(AppStatus::FAILURE);
            }
            stdout
                .write(b"Status: 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
                .await?;
            let mut stdin = request.stdin();
            while let Some(content) = stdin.read().await? {
                stdout.write(&content).await?;
            }
            Ok(AppStatus::SUCCESS)
        }),
    );
    let mut raw = Raw::begin(&server, &offered()).await;
    raw.stdin(b"hello").await;
    raw.stdout("\r\n\r\nhello").await;
    raw.send(&record::record(code::STDIN, 1, b"")).await;
    assert_eq!(raw.ended().await, 0);
    let mut raw = Raw::begin(&server, HANDSHAKE).await;
    assert_eq!(raw.ended().await, 1);
}
