//! How it stops.

use std::path::Path;
use std::time::{Duration, Instant};

use afcgi_interop::wait::{SOON, eventually};
use afcgi_proto::ProtocolStatus;
use rustix::process::Signal;
use tokio::net::UnixStream;

use crate::AFCGITEST;
use crate::common::{Server, left, logs, signal};

async fn takes_no_more_connections(socket: &Path) {
    eventually("no new connections", SOON, || async {
        match UnixStream::connect(socket).await {
            Ok(_) => Err("there was one".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn r60_both_signals_let_active_requests_finish() {
    for which in [Signal::TERM, Signal::INT] {
        for threads in ["1", "2"] {
            let mut server = Server::start(AFCGITEST, &["--threads", threads]).await;
            let mut client = server.client().await;
            let mut idle = server.client().await;
            let active = client.open("/events?n=2&ms=1500").await;
            client.read_until(active, "data: 0").await;
            signal(&mut server.process, which);
            takes_no_more_connections(&server.socket()).await;
            idle.closed().await;
            let late = client.open("/").await;
            let end = client.end(late).await.expect("an end");
            assert_eq!(end.protocol_status, ProtocolStatus::Overloaded);
            client.read_until(active, "data: 1\n\n").await;
            assert_eq!(client.end(active).await.expect("an end").app_status, 0);
            client.closed().await;
            assert_eq!(left(&mut server.process).await.code(), Some(0));
            assert!(!server.socket().exists());
        }
    }
}

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    let mut server = Server::start(AFCGITEST, &[]).await;
    let mut client = server.client().await;
    client.get("/").await;
    let start = Instant::now();
    signal(&mut server.process, Signal::TERM);
    assert_eq!(left(&mut server.process).await.code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_second_signal_ends_the_requests() {
    for threads in ["1", "2"] {
        let mut server = Server::start(AFCGITEST, &["--threads", threads]).await;
        let mut client = server.client().await;
        let active = client.open("/delay?ms=3600000").await;
        client.get("/").await;
        signal(&mut server.process, Signal::TERM);
        logs(&server.process, "stopping").await;
        server.process.assert_running();
        signal(&mut server.process, Signal::INT);
        assert_eq!(left(&mut server.process).await.code(), Some(0));
        logs(&server.process, "stopped at once").await;
        assert_eq!(client.end(active).await, None);
    }
}

#[tokio::test]
async fn requests_that_take_too_long_are_ended() {
    let mut server = Server::start(AFCGITEST, &["--drain-timeout", "500ms"]).await;
    let mut client = server.client().await;
    let active = client.open("/delay?ms=3600000").await;
    client.get("/").await;
    signal(&mut server.process, Signal::TERM);
    assert_eq!(left(&mut server.process).await.code(), Some(0));
    logs(&server.process, "requests did not end in time").await;
    assert_eq!(client.end(active).await, None);
}
