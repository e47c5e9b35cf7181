//! The limits that the command line sets, and who may connect.

use std::time::Instant;

use afcgi_interop::wait::{SOON, eventually};
use afcgi_proto::web::Output;
use afcgi_proto::{ProtocolStatus, Role};
use tempfile::tempdir;

use crate::AFCGITEST;
use crate::common::client::{Client, params};
use crate::common::{Server, command, left, listens_unix, logs, start};

const OVERLOADED: Option<ProtocolStatus> = Some(ProtocolStatus::Overloaded);

#[tokio::test]
async fn r40_limits_are_told() {
    let options = ["--max-requests", "7", "--max-connections", "3"];
    let server = Server::start(AFCGITEST, &options).await;
    let values = server.client().await.values().await;
    assert_eq!(values.max_conns, Some(3));
    assert_eq!(values.max_reqs, Some(7));
    assert_eq!(values.mpxs_conns, Some(true));

    let server = Server::start(AFCGITEST, &["--max-connection-requests", "1"]).await;
    assert_eq!(server.client().await.values().await.mpxs_conns, Some(false));
}

#[tokio::test]
async fn r51_more_requests_than_may_be_are_refused() {
    let server = Server::start(AFCGITEST, &["--max-requests", "2"]).await;
    let (mut one, mut other) = (server.client().await, server.client().await);
    let first = one.open("/delay?ms=3600000").await;
    // It counts once the server has read it.
    let second = one.open("/events?n=2&ms=3600000").await;
    one.read_until(second, "data: 0").await;
    for client in [&mut one, &mut other] {
        let third = client.open("/").await;
        let end = client.end(third).await;
        assert_eq!(end.map(|end| end.protocol_status), OVERLOADED);
    }
    one.abort(first).await;
    // The aborted one counts until its handler is dropped, a moment later.
    let start = Instant::now();
    loop {
        let request = one.open("/").await;
        let end = one.end(request).await.expect("an end");
        if end.protocol_status == ProtocolStatus::RequestComplete {
            break;
        }
        assert!(start.elapsed() < SOON, "{end:?}");
    }
}

#[tokio::test]
async fn more_requests_on_a_connection_than_may_be_are_refused() {
    let server = Server::start(AFCGITEST, &["--max-connection-requests", "1"]).await;
    let (mut one, mut other) = (server.client().await, server.client().await);
    let first = one.open("/delay?ms=3600000").await;
    let second = one.open("/").await;
    let end = one.end(second).await;
    assert!(
        end.is_some_and(|end| end.protocol_status != ProtocolStatus::RequestComplete),
        "{end:?}"
    );
    assert_eq!(other.get("/").await.text(), "Hello world\n");
    one.abort(first).await;
}

/// A connection that is let in and has had an answer, where there may be one alone.
async fn only_connection(server: &Server) -> Client {
    // That by which the start was noticed may still be there.
    eventually("the only connection", SOON, || async {
        let mut client = server.client().await;
        let request = client.open("/").await;
        let end = client.end(request).await;
        end.map(|_| client).ok_or_else(|| "refused".to_owned())
    })
    .await
}

#[tokio::test]
async fn more_connections_than_may_be_are_closed() {
    let server = Server::start(AFCGITEST, &["--max-connections", "1"]).await;
    let mut first = only_connection(&server).await;
    // One that is busy makes no room.
    let busy = first.open("/events?n=2&ms=3600000").await;
    first.read_until(busy, "data: 0").await;
    server.client().await.closed().await;
    first.abort(busy).await;
    assert_eq!(first.get("/").await.text(), "Hello world\n");
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_another() {
    let server = Server::start(AFCGITEST, &["--max-connections", "1"]).await;
    let mut idle = only_connection(&server).await;
    let mut other = only_connection(&server).await;
    idle.closed().await;
    logs(&server.process, "to make room").await;
    assert_eq!(other.get("/").await.text(), "Hello world\n");
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let server = Server::start(AFCGITEST, &["--idle-timeout", "200ms"]).await;
    let mut client = server.client().await;
    // A request that takes longer is not idle.
    assert_eq!(client.get("/delay?ms=1000").await.text(), "Hello world\n");
    client.closed().await;
}

#[tokio::test]
async fn a_body_that_waits_holds_up_nobody_within_its_overflow() {
    for (overflow, delay, waits) in [("9000000", "3600000", false), ("0", "100", true)] {
        let server = Server::start(AFCGITEST, &["--overflow", overflow]).await;
        let mut client = server.client().await;
        let delay = params("POST", &format!("/delay?ms={delay}"));
        let slow = client.begin(Role::Responder, &delay).await;
        client.send(slow, Output::Stdin, &vec![7; 8 << 20]).await;
        assert_eq!(client.get("/").await.text(), "Hello world\n");
        // What is behind a body that is not taken comes when its handler has ended.
        assert_eq!(client.has_ended(slow), waits, "--overflow {overflow}");
    }
}

#[tokio::test]
async fn r34_only_the_listed_may_connect() {
    let folder = tempdir().expect("a folder");
    let socket = folder.path().join("app.sock");
    for (list, tcp, warns) in [
        ("127.0.0.1, ::1", true, false),
        ("192.0.2.1", false, false),
        ("nonsense", false, true),
    ] {
        let port = afcgi_interop::wait::free_port();
        let address = format!("127.0.0.1:{port}");
        let mut command = command(AFCGITEST);
        command
            .arg(&address)
            .arg(&socket)
            .env("FCGI_WEB_SERVER_ADDRS", list);
        let mut process = start(&command, folder.path());
        listens_unix(&mut process, &socket).await;
        let mut client = Client::tcp(&address).await;
        if tcp {
            assert_eq!(client.get("/").await.text(), "Hello world\n");
        } else {
            client.closed().await;
            logs(&process, "is not among FCGI_WEB_SERVER_ADDRS").await;
        }
        assert_eq!(
            process.log().contains("no IP address"),
            warns,
            "{}",
            process.log()
        );
        // Nobody on a unix socket is listed.
        Client::unix(&socket).await.closed().await;
        assert!(process.stop().success());
    }
}

#[tokio::test]
async fn threads_share_the_connections() {
    for threads in ["0", "3"] {
        let server = Server::start(AFCGITEST, &["--threads", threads]).await;
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(server.client().await);
        }
        for client in &mut clients {
            assert_eq!(client.get("/").await.text(), "Hello world\n");
        }
        if threads != "0" {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", server.process.id()))
                .expect("its threads");
            assert_eq!(tasks.count(), 4, "one that accepts and three");
        }
    }
}

#[tokio::test]
async fn what_it_cannot_be_told_is_said_clearly() {
    let folder = tempdir().expect("a folder");
    for (arguments, expected) in [
        (&["5000"][..], "`5000` is no address: expected HOST:PORT"),
        (&["::1:5000"], "is no address"),
        (&["127.0.0.1:99999"], "is no address"),
        (
            &["--delay", "soon", ":0"],
            "invalid value 'soon' for '--delay <DURATION>'",
        ),
        (&["--threads", "some", ":0"], "'--threads <N>'"),
        (
            &["--max-requests", "many", ":0"],
            "invalid value 'many' for '--max-requests <N>'",
        ),
        (&["--mode", "9", "./a"], "expected permission bits in octal"),
        (&["--sorry", ":0"], "unexpected argument '--sorry'"),
        (
            &["/no/such/folder/app.sock"],
            "cannot listen at unix:/no/such/folder/app.sock",
        ),
        (
            &["no.such.host.invalid:5000"],
            "cannot listen at no.such.host.invalid:5000",
        ),
        (
            &[],
            "descriptor 0 is not a listening socket: name an address",
        ),
    ] {
        let mut command = command(AFCGITEST);
        command.args(arguments);
        let mut process = start(&command, folder.path());
        let status = left(&mut process).await;
        let log = process.log();
        assert!(
            matches!(status.code(), Some(1 | 2)),
            "{arguments:?}: {status}"
        );
        assert!(log.contains(expected), "{arguments:?}: {log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}
