//! What is sent again: whatever was never written, and of what may have been written only what is idempotent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::peer::{Peer, answers_within, ask, body, client, get, post, text};
use crate::common::{PATIENCE, eventually, patient, serve};
use afcgi::client::{Client, Error, Trace};
use afcgi::http;
use axum::Router;
use bytes::Bytes;
use http_body_util::StreamBody;

const HELLO: &str = "Content-Type: text/plain\r\n\r\nhello";
/// More than the sockets of both ends take in.
const ENDLESS: usize = 1 << 30;
const CHUNK: usize = 64 << 10;

/// Sends a request whose body has no end, until the socket takes no more of it.
async fn fill(client: &Client, method: ::http::Method) -> tokio::task::JoinHandle<Error> {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let chunks = std::iter::repeat_with(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(vec![0; CHUNK])))
    });
    let stream = StreamBody::new(futures_util::stream::iter(chunks.take(ENDLESS / CHUNK)));
    let request = ::http::Request::builder().method(method).uri("/");
    let request = request.body(stream).unwrap();
    let filling = tokio::spawn({
        let client = client.clone();
        async move { patient(client.request(request)).await.unwrap_err() }
    });
    // All runs on this thread: while the sockets took something, more was taken of the body at each look.
    let mut seen = (0, 0);
    eventually("the socket is full", || {
        let now = taken.load(Ordering::Relaxed);
        seen = if seen.0 == now {
            (now, seen.1 + 1)
        } else {
            (now, 0)
        };
        now > 0 && seen.1 > 50
    })
    .await;
    assert!(taken.load(Ordering::Relaxed) < ENDLESS / CHUNK);
    filling
}

#[tokio::test]
async fn what_was_never_written_is_sent_again_whatever_its_method() {
    let peer = Peer::new().await;
    // Whatever was sent could be sent again.
    let client = client(peer.addr, |config| {
        answers_within(config, PATIENCE);
        config.replay_buffer = ENDLESS;
    });
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let mut unread = peer.accept().await;
        let values = [
            ("FCGI_MPXS_CONNS", "1"),
            ("FCGI_FLOW_CONTROL", "1000000000"),
        ];
        unread.answer_values(&values).await;
        closed.await.unwrap();
        drop(unread);
        let mut link = peer.accept_controlled().await;
        let mut lengths = Vec::new();
        for _ in 0..2 {
            let (id, length) = link.request().await.unwrap();
            lengths.push(length);
            link.say(&afcgi_testkit::record::response(id, HELLO.as_bytes()))
                .await;
        }
        lengths.sort_unstable();
        lengths
    });
    // A part of it was written, so that it may have been worked on.
    let written = fill(&client, ::http::Method::POST).await;
    // Those behind it were not.
    let behind = [post("/", "body"), get("/")].map(|mut request| {
        let trace = Trace::default();
        request.extensions_mut().insert(trace.clone());
        let client = client.clone();
        let asking = tokio::spawn(async move { text(&client, request).await });
        (asking, trace)
    });
    eventually("they have their places", || client.stats().active == 3).await;
    close.send(()).unwrap();
    for (asking, trace) in behind {
        assert_eq!(patient(asking).await.unwrap(), "hello");
        assert_eq!(trace.retries(), 1);
    }
    let error = patient(written).await.unwrap();
    assert!(matches!(error, Error::Lost(_)), "{error:?}");
    assert!(!error.is_retryable());
    let stats = client.stats();
    assert_eq!((stats.retries, stats.failures, stats.opened), (2, 1, 2));
    // Also the body was sent from its beginning.
    assert_eq!(patient(serving).await.unwrap(), [0, 4]);
}

/// A connection that was kept, and is closed while nothing goes on, costs nobody a request.
#[tokio::test]
async fn a_kept_connection_that_is_seen_to_be_closed_is_not_used() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| answers_within(config, PATIENCE));
    let serving = tokio::spawn(async move {
        let mut link = peer.accept_controlled().await;
        link.answer(HELLO).await.unwrap();
        drop(link);
        let mut link = peer.accept_controlled().await;
        link.answer(HELLO).await.unwrap();
        link
    });
    assert_eq!(text(&client, post("/", "body")).await, "hello");
    eventually("it is closed", || client.stats().connections == 0).await;
    assert_eq!(text(&client, post("/", "body")).await, "hello");
    assert_eq!((client.stats().retries, client.stats().opened), (0, 2));
    patient(serving).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_connected_to_was_not_written_to() {
    let there = serve(
        afcgi::Config::default(),
        http(Router::new().fallback(async |body: Bytes| body)),
    );
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [gone.local_addr().unwrap(), there.addr].map(|addr| addr.to_string());
    drop(gone);
    for first in [0, 1] {
        let order = [&*addresses[first], &*addresses[1 - first]];
        let client = Client::balanced(order).unwrap();
        for _ in 0..4 {
            let response = ask(&client, post("/", "body")).await.unwrap();
            assert_eq!(body(response).await.unwrap(), "body");
        }
        assert_eq!(client.stats().retries, 1);
    }
}
