//! The client against our own server: what goes through, and what is given up.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::peer::{ask, body, post, text};
use crate::common::{Served, eventually, patient, serve};
use afcgi::client::{
    Client, Config, Error, ExtraParams, LocalAddr, Mapping, OnStderr, remove_hop_by_hop,
};
use afcgi::{Params, RemoteAddr, Request, Role, http, native};
use axum::Router;
use axum::extract::Extension;
use axum::routing::{any, get};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::{Semaphore, mpsc};

fn to(path: &str) -> crate::common::peer::Request {
    crate::common::peer::get(&format!("http://host.test{path}"))
}

async fn client_of(server: &Served) -> Client {
    patient(Client::connect(&server.addr.to_string()))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_request_is_answered() {
    let app = Router::new().route("/hello", get(async || "hello"));
    let server = serve(afcgi::Config::default(), http(app));
    let client = client_of(&server).await;
    let response = ask(&client, to("/hello")).await.unwrap();
    assert_eq!(response.status(), 200);
    let content_type = &response.headers()["content-type"];
    assert_eq!(content_type, "text/plain; charset=utf-8");
    // It has come as a whole.
    assert_eq!(response.body().size_hint().exact(), Some(5));
    assert_eq!(body(response).await.unwrap(), "hello");
    for _ in 0..100 {
        assert_eq!(text(&client, to("/hello")).await, "hello");
    }
    let stats = client.stats();
    assert_eq!((stats.requests, stats.opened, stats.active), (101, 1, 0));
    assert_eq!(server.stats.snapshot().served, 101);
    let head = ::http::Request::head("/hello").body(Full::<Bytes>::default());
    let response = ask(&client, head.unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-length"], "5");
    assert_eq!(body(response).await.unwrap(), "");
    assert_eq!(client.stats().aborts, 0);
}

/// What an application was told, one `NAME=value` on each line.
async fn told(request: ::http::Request<Full<Bytes>>, mapping: Mapping) -> Vec<String> {
    let app = any(async |Extension(params): Extension<Params>| {
        params
            .iter()
            .map(|(name, value)| format!("{}={}\n", name.escape_ascii(), value.escape_ascii()))
            .collect::<String>()
    });
    let server = serve(
        afcgi::Config::default(),
        http(Router::new().fallback_service(app)),
    );
    let client = Client::builder().address(server.addr.to_string());
    let client = client.mapping(mapping).build().unwrap();
    let text = text(&client, request).await;
    text.lines().map(str::to_owned).collect()
}

fn assert_told(told: &[String], expected: &[&str]) {
    for line in expected {
        assert!(told.iter().any(|told| told == line), "{line} in {told:#?}");
    }
}

#[tokio::test]
async fn what_an_application_is_told() {
    let mut request = ::http::Request::post("https://u:p@example.org:8443/a%20b/c?x=%20y")
        .header("host", "other.example.org")
        .header("content-type", "text/x")
        .header("accept", "a")
        .header("accept", "b")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::from("12345"))
        .unwrap();
    let remote: SocketAddr = "[::ffff:192.0.2.1]:4711".parse().unwrap();
    request.extensions_mut().insert(RemoteAddr(remote));
    let extra = ExtraParams(vec![("REMOTE_USER".into(), "me".into())]);
    request.extensions_mut().insert(extra);
    let mapping = Mapping::default().param("APP_ENV", "test");
    let told = told(request, mapping).await;
    assert_told(
        &told,
        &[
            "REQUEST_METHOD=POST",
            "REQUEST_URI=/a%20b/c?x=%20y",
            "QUERY_STRING=x=%20y",
            "SCRIPT_NAME=",
            "PATH_INFO=/a b/c",
            "CONTENT_LENGTH=5",
            "CONTENT_TYPE=text/x",
            "SERVER_PROTOCOL=HTTP/1.1",
            "GATEWAY_INTERFACE=CGI/1.1",
            "SERVER_NAME=example.org",
            "SERVER_PORT=8443",
            "HTTP_HOST=example.org:8443",
            "HTTPS=on",
            "REQUEST_SCHEME=https",
            "REMOTE_ADDR=192.0.2.1",
            "REMOTE_PORT=4711",
            "HTTP_ACCEPT=a, b",
            "HTTP_COOKIE=a=1; b=2",
            "REMOTE_USER=me",
            "APP_ENV=test",
        ],
    );
    let names: Vec<_> = told.iter().map(|line| line.split('=').next()).collect();
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(names.len(), unique.len(), "{told:#?}");
}

#[tokio::test]
async fn a_client_cannot_say_what_it_should_not() {
    let mut request = ::http::Request::get("/")
        .header("host", "[::1]:80x")
        .header("proxy", "evil:1")
        .header("x_real-ip", "forged")
        .header("x.real.ip", "forged")
        .header("connection", "close, x-secret, x-forwarded-for")
        .header("x-secret", "1")
        .header("x-forwarded-for", "192.0.2.1")
        .header("keep-alive", "1")
        .header("te", "trailers")
        .header("transfer-encoding", "identity")
        .header("upgrade", "h2c")
        .header("proxy-authorization", "x")
        .header("script-filename", "/etc/passwd")
        .header("fcgi-upgrade", "1")
        .body(Full::default())
        .unwrap();
    let local: SocketAddr = "192.0.2.2:8080".parse().unwrap();
    request.extensions_mut().insert(LocalAddr(local));
    remove_hop_by_hop(request.headers_mut());
    let told = told(request, Mapping::default()).await;
    let mut http: Vec<_> = told
        .iter()
        .filter(|line| line.starts_with("HTTP"))
        .collect();
    http.sort_unstable();
    assert_eq!(
        http,
        [
            "HTTP_FCGI_UPGRADE=1",
            "HTTP_HOST=[::1]:80x",
            "HTTP_SCRIPT_FILENAME=/etc/passwd",
            "HTTP_X_FORWARDED_FOR=192.0.2.1",
        ]
    );
    assert_told(
        &told,
        &[
            "SERVER_NAME=[::1]",
            "SERVER_PORT=8080",
            "SERVER_ADDR=192.0.2.2",
        ],
    );
    assert!(!told.iter().any(|line| line.contains("forged")));
}

#[tokio::test]
async fn scripts_have_names_and_files() {
    let php = Mapping::php("/srv/www/");
    let told = told(to("/blog/index.php/2024?x"), php.clone()).await;
    assert_told(
        &told,
        &[
            "DOCUMENT_ROOT=/srv/www/",
            "SCRIPT_FILENAME=/srv/www/blog/index.php",
            "SCRIPT_NAME=/blog/index.php",
            "PATH_INFO=/2024",
            "PATH_TRANSLATED=/srv/www/2024",
            "DOCUMENT_URI=/blog/index.php/2024",
            "REDIRECT_STATUS=200",
        ],
    );
    let client = Client::builder().address("127.0.0.1:9").mapping(php);
    let client = client.build().unwrap();
    for (path, status) in [("/a%0a.php", 400), ("/%2e%2e/x.php", 400), ("/plain", 404)] {
        let error = ask(&client, to(path)).await.unwrap_err();
        assert_eq!(error.status(), status, "{path}: {error}");
    }
    let request = ::http::Request::get("/").header("host", "a");
    let request = request.header("host", "b").body(Full::default());
    let error = ask(&client, request.unwrap()).await.unwrap_err();
    assert_eq!(error.status(), 400);
}

/// An application that tells how many bytes it was sent, having read them all.
fn counts_bytes() -> Router {
    let count = async |body: axum::body::Body| {
        let mut body = body.into_data_stream();
        let mut sum = 0_u64;
        let mut length = 0;
        while let Some(Ok(data)) = futures_util::StreamExt::next(&mut body).await {
            for &byte in &data {
                sum = sum.wrapping_mul(31).wrapping_add(byte.into());
            }
            length += data.len();
        }
        format!("{length} {sum}")
    };
    Router::new().fallback_service(any(count))
}

fn megabytes(count: usize) -> Vec<u8> {
    (0..count << 20).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn fifty_megabytes_go_up_whole() {
    let server = serve(afcgi::Config::default(), http(counts_bytes()));
    let client = client_of(&server).await;
    let content = megabytes(50);
    let sum = content.iter().fold(0_u64, |sum, &byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    let expected = format!("{} {sum}", content.len());
    assert_eq!(text(&client, post("/", content)).await, expected);
}

#[tokio::test]
async fn fifty_megabytes_come_down_whole() {
    let content = Bytes::from(megabytes(50));
    let answer = content.clone();
    let app = Router::new().fallback(move || {
        let answer = answer.clone();
        async move { answer }
    });
    let server = serve(afcgi::Config::default(), http(app));
    let client = client_of(&server).await;
    let response = ask(&client, to("/")).await.unwrap();
    assert!(body(response).await.unwrap() == content);
}

/// An application that gives back what it reads, as it reads it.
fn echo() -> Router {
    let echo = async |body: axum::body::Body| body;
    Router::new().fallback_service(any(echo))
}

#[tokio::test]
async fn both_ways_at_the_same_time() {
    let server = serve(afcgi::Config::default(), http(echo()));
    let client = client_of(&server).await;
    let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
    let stream = StreamBody::new(futures_util::stream::poll_fn(move |cx| {
        let next = receiver.poll_recv(cx);
        next.map(|data| data.map(|data| Ok::<_, std::io::Error>(http_body::Frame::data(data))))
    }));
    let request = ::http::Request::post("/").body(stream).unwrap();
    let response = patient(client.request(request)).await.unwrap();
    let mut body = response.into_body();
    for round in 0..100 {
        let said = Bytes::from(vec![round; 10_000]);
        sender.send(said.clone()).await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < said.len() {
            let frame = patient(body.frame()).await.unwrap().unwrap();
            heard.extend_from_slice(&frame.into_data().unwrap());
        }
        assert_eq!(heard, said);
    }
    drop(sender);
    assert!(patient(body.frame()).await.is_none());
}

#[tokio::test]
async fn a_body_that_fails_or_has_another_length_gives_the_request_up() {
    let server = serve(afcgi::Config::default(), http(echo()));
    let client = client_of(&server).await;
    let parts = |last: Result<&'static str, std::io::Error>| {
        let frames = [Ok("first"), last]
            .map(|part| part.map(|part| http_body::Frame::data(Bytes::from(part))));
        StreamBody::new(futures_util::stream::iter(frames))
    };
    let failing = parts(Err(std::io::Error::other("went away")));
    let request = ::http::Request::post("/").header("content-length", "10");
    let sent = patient(client.request(request.body(failing).unwrap())).await;
    let error = match sent {
        Err(error) => error,
        Ok(response) => body(response).await.unwrap_err(),
    };
    assert!(matches!(error, Error::Body(_)), "{error:?}");
    for length in ["9", "11"] {
        let request = ::http::Request::post("/").header("content-length", length);
        let sent = patient(client.request(request.body(parts(Ok("next5"))).unwrap())).await;
        let error = match sent {
            Err(error) => error,
            Ok(response) => body(response).await.unwrap_err(),
        };
        assert!(matches!(error, Error::BodyLength), "{length}: {error:?}");
    }
    eventually("all were given up", || client.stats().aborts == 3).await;
}

#[tokio::test]
async fn a_body_of_unknown_length_may_be_measured() {
    let app = any(async |Extension(params): Extension<Params>, body: Bytes| {
        let length = params.get("CONTENT_LENGTH").unwrap_or(b"unknown");
        format!("{} {}", length.escape_ascii(), body.len())
    });
    let server = serve(
        afcgi::Config::default(),
        http(Router::new().fallback_service(app)),
    );
    for (most, expected) in [(0, "unknown 6"), (5, "unknown 6"), (100, "6 6")] {
        let mut config = Config::default();
        config.collect_body = most;
        let client = Client::builder().address(server.addr.to_string());
        let client = client.config(config).build().unwrap();
        let frames = ["one", "two"]
            .map(|part| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(part))));
        let stream = StreamBody::new(futures_util::stream::iter(frames));
        let request = ::http::Request::post("/").body(stream).unwrap();
        let response = patient(client.request(request)).await.unwrap();
        assert_eq!(body(response).await.unwrap(), expected, "{most}");
    }
}

type Answered = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

/// An application that begins its response, and goes on when there are permits.
fn gated() -> (
    Arc<Semaphore>,
    impl Fn(Request) -> Answered + Clone + Send + Sync + 'static,
) {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let app = move |request: Request| -> Answered {
        let held = Arc::clone(&held);
        Box::pin(async move {
            let begins = request.params().get("REQUEST_URI") == Some(b"/begins");
            if begins {
                request.stdout().write(b"\r\n").await?;
            }
            held.acquire()
                .await
                .map_err(std::io::Error::other)?
                .forget();
            let head: &[u8] = if begins { b"" } else { b"\r\n" };
            request.stdout().write(&[head, b"done"].concat()).await?;
            Ok(())
        })
    };
    (gate, app)
}

#[tokio::test]
async fn a_thousand_wait_on_one_connection() {
    let (gate, app) = gated();
    let server = serve(afcgi::Config::default(), native(app));
    let client = client_of(&server).await;
    let many: Vec<_> = (0..1000)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { text(&client, to("/")).await })
        })
        .collect();
    eventually("all are there", || server.stats.snapshot().active == 1000).await;
    assert_eq!(client.stats().active, 1000);
    gate.add_permits(1000);
    for one in many {
        assert_eq!(patient(one).await.unwrap(), "done");
    }
    assert_eq!(server.stats.snapshot().accepted, 1);
    assert_eq!(client.stats().active, 0);
}

#[tokio::test]
async fn r57_what_is_dropped_is_given_up() {
    let (_gate, app) = gated();
    let server = serve(afcgi::Config::default(), native(app));
    let client = client_of(&server).await;
    // The future.
    let asking = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, to("/")).await.map(drop) }
    });
    eventually("it is there", || server.stats.snapshot().active == 1).await;
    asking.abort();
    eventually("it is aborted", || server.stats.snapshot().aborted == 1).await;
    // The body.
    let response = ask(&client, to("/begins")).await.unwrap();
    assert_eq!(server.stats.snapshot().active, 1);
    drop(response);
    eventually("it is aborted", || server.stats.snapshot().aborted == 2).await;
    eventually("and counted", || client.stats().aborts == 2).await;
    assert_eq!(client.stats().active, 0);
    assert_eq!(server.stats.snapshot().accepted, 1);
}

#[tokio::test]
async fn a_response_that_is_not_read_holds_its_application_back_and_nobody_else() {
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let app = move |request: Request| -> Answered {
        let counter = Arc::clone(&counter);
        Box::pin(async move {
            let mut stdout = request.stdout();
            stdout.write(b"\r\n").await?;
            if request.params().get("REQUEST_URI") == Some(b"/fast") {
                return Ok(stdout.write(b"fast").await?);
            }
            for _ in 0..1000 {
                stdout.write(&[b'x'; 10_000]).await?;
                counter.fetch_add(10_000, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let server = serve(afcgi::Config::default(), native(app));
    let client = client_of(&server).await;
    let slow = ask(&client, to("/slow")).await.unwrap();
    let mut before = 0;
    let began = Instant::now();
    for _ in 0..200 {
        assert_eq!(text(&client, to("/fast")).await, "fast");
        tokio::time::sleep(Duration::from_millis(1)).await;
        before = written.load(std::sync::atomic::Ordering::Relaxed);
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(before < 2_000_000, "{before} bytes were written ahead");
    assert_eq!(body(slow).await.unwrap().len(), 10_000_000);
    assert_eq!((client.stats().opened, client.stats().stalls), (1, 0));
}

#[tokio::test]
async fn stderr_is_told_line_by_line() {
    let app = |request: Request| -> Answered {
        Box::pin(async move {
            let mut stderr = request.stderr();
            stderr.write(b"one\ntwo\x1b[31m\n").await?;
            request.stdout().write(b"\r\n").await?;
            stderr.write(b"three").await?;
            Ok(())
        })
    };
    let server = serve(afcgi::Config::default(), native(app));
    let client = client_of(&server).await;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut request = to("/");
    let tell = move |line: &str| drop(sender.send(line.to_owned()));
    request.extensions_mut().insert(OnStderr(Arc::new(tell)));
    assert_eq!(text(&client, request).await, "");
    let mut lines = Vec::new();
    while let Some(line) = patient(receiver.recv()).await {
        lines.push(line);
    }
    assert_eq!(lines, ["one", "two\\u{1b}[31m", "three"]);
}

#[tokio::test]
async fn r54_an_authorizer_is_asked_without_a_body() {
    let app = |request: Request| -> Answered {
        Box::pin(async move {
            let has = |name| request.params().get(name).is_some();
            assert_eq!(request.role(), Role::Authorizer);
            assert!(!has("CONTENT_LENGTH") && !has("PATH_INFO") && !has("SCRIPT_NAME"));
            assert_eq!(request.stdin().read().await.unwrap(), None);
            Ok(request
                .stdout()
                .write(b"Status: 200\r\nVariable-AUTH: me\r\n\r\n")
                .await?)
        })
    };
    let server = serve(afcgi::Config::default(), native(app));
    let client = client_of(&server).await;
    let mut request = post("/", "not for it");
    request.extensions_mut().insert(Role::Authorizer);
    let response = ask(&client, request).await.unwrap();
    assert_eq!(response.headers()["variable-auth"], "me");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_several_threads_too() {
    let app = Router::new()
        .route("/hello", get(async || "hello"))
        .fallback_service(any(async |body: axum::body::Body| body));
    let server = serve(afcgi::Config::default(), http(app));
    let mut config = Config::default();
    config.connections = 2;
    let client = Client::builder().address(server.addr.to_string());
    let client = client.config(config).build().unwrap();
    let many = (0_u8..64).map(|at| {
        let client = client.clone();
        tokio::spawn(async move {
            for round in 0..20 {
                assert_eq!(text(&client, to("/hello")).await, "hello");
                let content = vec![at; 1000 * round];
                let response = ask(&client, post("/", content.clone())).await.unwrap();
                assert_eq!(body(response).await.unwrap(), content);
            }
        })
    });
    for one in many.collect::<Vec<_>>() {
        patient(one).await.unwrap();
    }
    let stats = client.stats();
    assert_eq!((stats.opened, stats.active, stats.failures), (2, 0, 0));
}

#[tokio::test]
async fn connections_are_closed_with_the_last_client() {
    let server = serve(afcgi::Config::default(), http(Router::new()));
    let client = client_of(&server).await;
    let other = client.clone();
    drop(client);
    assert_eq!(ask(&other, to("/")).await.unwrap().status(), 404);
    assert_eq!(server.stats.snapshot().connections, 1);
    drop(other);
    eventually("it is closed", || server.stats.snapshot().connections == 0).await;
}

#[tokio::test]
async fn unix_sockets_are_addresses_too() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("app.sock").display());
    let error = Client::connect(&address).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    let listener = afcgi::Listener::bind(&address).unwrap();
    tokio::spawn(afcgi::serve(
        listener,
        Router::new().fallback(async || "here"),
    ));
    let client = patient(Client::connect(&address)).await.unwrap();
    assert_eq!(text(&client, to("/")).await, "here");
    assert_eq!(*client.addresses()[0].address, *address);
}
