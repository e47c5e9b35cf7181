//! Every limit of a client is reached here. Those of [`Config`] that are times for a request are in
//! `client_peers.rs`: `first_byte_timeout`, `read_timeout`, `send_timeout`, `retries`,
//! `local_redirects`.

use std::time::{Duration, Instant};

use crate::common::peer::{Link, Peer, ask, body, client, get, post, text};
use crate::common::{PATIENCE, eventually, patient};
use afcgi::client::{Client, Config, Error, MappingError, OnStderr};
use afcgi_proto::cgi::HeadError;
use afcgi_testkit::record::{code, end, record};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const HELLO: &str = "Content-Type: text/plain\r\n\r\nhello";

/// Begins a request, and returns when it waits for its answer.
async fn hold(client: &Client, link: &mut Link) -> (u16, JoinHandle<String>) {
    let asking = client.clone();
    let task = tokio::spawn(async move { text(&asking, get("/held")).await });
    let (id, _) = link.request().await.unwrap();
    (id, task)
}

async fn answer(link: &mut Link, id: u16, task: JoinHandle<String>) {
    let response = afcgi_testkit::record::response(id, HELLO.as_bytes());
    link.say(&response).await;
    assert_eq!(patient(task).await.unwrap(), "hello");
}

#[tokio::test]
async fn requests_on_a_connection_are_limited_and_so_is_the_queue() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.connection.requests = 2;
        config.queue = 1;
        config.retries = 0;
    });
    let accepting = tokio::spawn(async move { (peer.accept_shared().await, peer) });
    let first = tokio::spawn({
        let client = client.clone();
        async move { text(&client, get("/held")).await }
    });
    let (mut link, _peer) = patient(accepting).await.unwrap();
    let (id, _) = link.request().await.unwrap();
    let (other, second) = hold(&client, &mut link).await;
    let third = tokio::spawn({
        let client = client.clone();
        async move { text(&client, get("/waits")).await }
    });
    eventually("the third waits", || client.stats().waiting == 1).await;
    let error = ask(&client, get("/")).await.unwrap_err();
    assert!(matches!(error, Error::QueueFull), "{error:?}");
    assert_eq!(error.status(), 503);
    assert!(error.retry_after().is_some());
    answer(&mut link, id, first).await;
    let (id, _) = link.request().await.unwrap();
    answer(&mut link, id, third).await;
    answer(&mut link, other, second).await;
    assert_eq!(client.stats().opened, 1);
}

#[tokio::test]
async fn waiting_is_limited_in_time() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.connection.requests = 2;
        config.queue_timeout = Duration::from_millis(100);
        config.retries = 0;
    });
    let serving = tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        for _ in 0..2 {
            link.request().await.unwrap();
        }
        assert!(link.next().await.is_none());
    });
    for _ in 0..2 {
        let client = client.clone();
        tokio::spawn(async move { ask(&client, get("/held")).await });
    }
    eventually("both are there", || client.stats().active == 2).await;
    let error = ask(&client, get("/")).await.unwrap_err();
    assert!(matches!(error, Error::QueueTimeout), "{error:?}");
    assert_eq!(client.stats().waiting, 0);
    serving.abort();
}

#[tokio::test]
async fn r40_the_application_says_how_many_requests_it_takes() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.queue_timeout = Duration::from_millis(100);
        config.connections = 2;
        config.retries = 0;
    });
    tokio::spawn(async move {
        let mut links = Vec::new();
        loop {
            let mut link = peer.accept().await;
            let values = [("FCGI_MPXS_CONNS", "1"), ("FCGI_MAX_REQS", "3")];
            link.answer_values(&values).await;
            links.push(link);
        }
    });
    for _ in 0..3 {
        let client = client.clone();
        tokio::spawn(async move { ask(&client, get("/held")).await });
    }
    eventually("three are there", || client.stats().active == 3).await;
    let error = ask(&client, get("/")).await.unwrap_err();
    assert!(matches!(error, Error::QueueTimeout), "{error:?}");
}

#[tokio::test]
async fn r40_connections_for_one_request_are_limited() {
    for (most, own) in [("2", 64), ("100", 2)] {
        let peer = Peer::new().await;
        let client = client(peer.addr, |config| {
            config.single_connections = own;
            config.queue_timeout = Duration::from_millis(200);
            config.retries = 0;
        });
        tokio::spawn(async move {
            peer.say_no(most).await;
            let mut links = Vec::new();
            loop {
                links.push(peer.accept().await);
            }
        });
        for _ in 0..2 {
            let client = client.clone();
            tokio::spawn(async move { ask(&client, get("/held")).await });
        }
        eventually("both are there", || client.stats().active == 2).await;
        let error = ask(&client, get("/")).await.unwrap_err();
        assert!(matches!(error, Error::QueueTimeout), "{error:?}");
        assert_eq!(client.stats().opened, 3);
    }
}

#[tokio::test]
async fn a_client_may_be_told_that_nothing_is_shared() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.multiplex = false;
        config.keep_conn = true;
        config.single_idle = 1;
        config.single_idle_timeout = Duration::from_millis(100);
    });
    let serving = tokio::spawn(async move {
        // It is not asked.
        let mut link = peer.accept().await;
        link.answer(HELLO).await.unwrap();
        link.answer(HELLO).await.unwrap();
        let since = Instant::now();
        assert!(link.next().await.is_none());
        since.elapsed()
    });
    assert_eq!(text(&client, get("/")).await, "hello");
    assert_eq!(text(&client, post("/", "body")).await, "hello");
    // It is kept for a while.
    assert!(patient(serving).await.unwrap() >= Duration::from_millis(90));
    assert_eq!(client.stats().opened, 1);
}

#[tokio::test]
async fn a_verdict_is_asked_for_again_after_a_while() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.patience.said_no = Duration::from_millis(50);
        config.keep_conn = true;
    });
    tokio::spawn(async move {
        peer.say_no("10").await;
        // Requests go on meanwhile.
        let mut single = peer.accept().await;
        tokio::spawn(async move { single.answer_all(HELLO).await });
        let mut shared = peer.accept_shared().await;
        shared.answer_all(HELLO).await;
    });
    assert_eq!(text(&client, get("/")).await, "hello");
    tokio::time::sleep(Duration::from_millis(60)).await;
    let end = Instant::now() + PATIENCE;
    // Until the shared one serves alone.
    loop {
        assert_eq!(text(&client, get("/")).await, "hello");
        if client.stats().opened >= 3 && client.stats().connections == 1 {
            break;
        }
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the application sees of a connection after one request on it: how long it was kept.
async fn kept(change: impl FnOnce(&mut Config)) -> Duration {
    let peer = Peer::new().await;
    let client = client(peer.addr, change);
    let serving = tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        link.answer(HELLO).await.unwrap();
        let since = Instant::now();
        assert!(link.next().await.is_none());
        since.elapsed()
    });
    assert_eq!(text(&client, get("/")).await, "hello");
    let elapsed = patient(serving).await.unwrap();
    eventually("it is closed here too", || client.stats().connections == 0).await;
    elapsed
}

#[tokio::test]
async fn connections_end_when_they_are_idle_or_old_or_used_up() {
    let wait = Duration::from_millis(150);
    let idle = kept(|config| config.idle_timeout = wait).await;
    assert!(idle >= wait - Duration::from_millis(20), "{idle:?}");
    kept(|config| config.lifetime = wait).await;
    kept(|config| config.max_requests = 1).await;
}

#[tokio::test]
async fn a_connection_that_is_old_finishes_what_it_has() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| config.max_requests = 1);
    let serving = tokio::spawn(async move {
        let mut old = peer.accept_shared().await;
        let (id, _) = old.request().await.unwrap();
        let mut new = peer.accept_shared().await;
        new.answer(HELLO).await.unwrap();
        old.say(&afcgi_testkit::record::response(id, HELLO.as_bytes()))
            .await;
    });
    let first = tokio::spawn({
        let client = client.clone();
        async move { text(&client, get("/held")).await }
    });
    eventually("it is there", || client.stats().active == 1).await;
    assert_eq!(text(&client, get("/")).await, "hello");
    assert_eq!(patient(first).await.unwrap(), "hello");
    patient(serving).await.unwrap();
}

#[tokio::test]
async fn an_application_that_is_not_there_is_not_asked_all_the_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let client = client(addr, |config| {
        config.backoff = Duration::from_millis(300);
        config.backoff_most = Duration::from_millis(300);
    });
    let error = ask(&client, get("/")).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert_eq!(error.status(), 502);
    let text_of = error.to_string();
    assert!(text_of.contains(&addr.to_string()) && text_of.contains("is it running?"));
    for _ in 0..100 {
        let error = ask(&client, get("/")).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    }
    let stats = client.stats();
    assert_eq!((stats.connect_failures, stats.retries), (1, 0));
    assert!(client.addresses()[0].is_failing);
    // And it is found when it is back.
    let listener = std::net::TcpListener::bind(addr).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut link = Link::new(socket);
        link.answer_values(&[("FCGI_MPXS_CONNS", "1")]).await;
        link.answer_all(HELLO).await;
    });
    let end = Instant::now() + PATIENCE;
    while ask(&client, get("/")).await.is_err() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!client.addresses()[0].is_failing);
}

#[tokio::test]
async fn connecting_is_limited_in_time() {
    // A listener whose backlog is full: connections to it hang.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    loop {
        let connecting = tokio::net::TcpStream::connect(addr);
        match tokio::time::timeout(Duration::from_millis(200), connecting).await {
            Ok(connected) => waiting.push(connected.unwrap()),
            Err(_) => break,
        }
    }
    let client = client(addr, |config| {
        config.connect_timeout = Duration::from_millis(100);
    });
    let error = ask(&client, get("/")).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert_eq!(error.status(), 504);
}

#[tokio::test]
async fn heads_are_limited() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.head.bytes = 100;
        config.head.fields = 3;
    });
    tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        let fields = "A: b\n".repeat(4);
        // Interim heads count too.
        let interim = "Status: 103\nA: b\nA: b\n\n";
        let heads = [
            format!("A: b\nA: b\nA: b\n\n{}", "x".repeat(500)),
            format!("{fields}\n"),
            format!("A: {}\n\n", "x".repeat(100)),
            format!("{interim}A: b\nA: b\n\n"),
            interim.repeat(10),
        ];
        for head in heads {
            link.answer(&head).await.unwrap();
        }
    });
    assert_eq!(text(&client, get("/")).await.len(), 500);
    for expected in [
        HeadError::TooManyFields,
        HeadError::TooLong,
        HeadError::TooManyFields,
        HeadError::TooManyFields,
    ] {
        match ask(&client, get("/")).await {
            Err(Error::Head(found)) => assert_eq!(found, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn parameters_are_limited() {
    let client = client(([127, 0, 0, 1], 9).into(), |config| {
        config.params_bytes = 2000;
    });
    let request = http::Request::get("/").header("x", "y".repeat(2000));
    let request = request.body(Default::default()).unwrap();
    let error = ask(&client, request).await.unwrap_err();
    assert!(
        matches!(error, Error::Request(MappingError::TooLong)),
        "{error:?}"
    );
    assert_eq!(error.status(), 431);
}

#[tokio::test]
async fn what_is_kept_of_a_body_is_limited() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| config.replay_buffer = 1000);
    let serving = tokio::spawn(async move {
        let mut link = peer.accept_controlled().await;
        for length in [1000, 1000, 1001] {
            let (id, found) = link.request().await.unwrap();
            assert_eq!(found, length);
            link.say(&end(id, 0, 2)).await;
            if length == 1000 {
                let (id, found) = link.request().await.unwrap();
                assert_eq!(found, length);
                link.say(&afcgi_testkit::record::response(id, HELLO.as_bytes()))
                    .await;
            }
        }
    });
    // Refused, and sent again with its body.
    for _ in 0..2 {
        assert_eq!(text(&client, post("/", vec![0; 1000])).await, "hello");
    }
    assert_eq!(client.stats().retries, 2);
    let error = ask(&client, post("/", vec![0; 1001])).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert_eq!(client.stats().retries, 2);
    patient(serving).await.unwrap();
}

#[tokio::test]
async fn stderr_is_limited() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| config.stderr_bytes = 5000);
    tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        let (id, _) = link.request().await.unwrap();
        let text = record(code::STDERR, id, &[b'x'; 60_000]);
        link.say(&[text.clone(), text].concat()).await;
        link.say(&afcgi_testkit::record::response(id, HELLO.as_bytes()))
            .await;
    });
    let heard = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let to = std::sync::Arc::clone(&heard);
    let mut request = get("/");
    let tell = OnStderr(std::sync::Arc::new(move |line: &str| {
        to.fetch_add(line.len(), std::sync::atomic::Ordering::Relaxed);
    }));
    request.extensions_mut().insert(tell);
    let response = ask(&client, request).await.unwrap();
    assert_eq!(body(response).await.unwrap(), Bytes::from("hello"));
    assert_eq!(heard.load(std::sync::atomic::Ordering::Relaxed), 5000);
}

#[tokio::test]
async fn a_connection_that_is_not_read_is_given_up() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.send_timeout = Duration::from_millis(150);
    });
    let accepting = tokio::spawn(async move {
        let shared = peer.accept_shared().await;
        // Of this one nothing is read, and without flow control the socket is full at last.
        (shared, peer.accept().await)
    });
    let error = ask(&client, post("/", vec![0; 20_000_000]))
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Timeout(_) | Error::Lost(_)),
        "{error:?}"
    );
    let links = patient(accepting).await.unwrap();
    eventually("it is closed", || client.stats().connections == 1).await;
    drop(links);
}

#[tokio::test]
async fn upgrades_may_be_forbidden() {
    let server = crate::common::serve(
        afcgi::Config::default(),
        afcgi::http(crate::common::upgrade::websocket()),
    );
    for allowed in [true, false] {
        let client = client(server.addr, |config| config.upgrades = allowed);
        let request = http::Request::get("/echo")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let request = request.body(Default::default()).unwrap();
        let mut response = ask(&client, request).await.unwrap();
        assert_eq!(response.status() == 101, allowed);
        let tunnel = afcgi::client::upgraded(&mut response);
        assert_eq!(tunnel.is_some(), allowed);
        // It can be taken once.
        assert!(afcgi::client::upgraded(&mut response).is_none());
    }
}
