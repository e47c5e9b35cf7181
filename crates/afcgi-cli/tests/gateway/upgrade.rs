//! What asks for an upgrade in any other way than `docs/upgrade.md` says is an ordinary request.

use std::time::Duration;

use afcgi_interop::app::App;
use afcgi_interop::wait::SOON;
use h2::ext::Protocol;
use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rig::Rig;

#[tokio::test]
async fn what_does_not_ask_by_the_rule_is_an_ordinary_request() {
    let app = App::afcgitest(&[]).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await;
    for (line, fields) in [
        (
            "POST /env HTTP/1.1",
            "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n",
        ),
        (
            "DELETE /env HTTP/1.1",
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
        ),
        (
            "GET /env HTTP/1.1",
            "Connection: upgrade\r\nUpgrade: h2c\r\n",
        ),
        (
            "GET /env HTTP/1.1",
            "Connection: upgrade\r\nUpgrade: websocket, H2C\r\n",
        ),
        (
            "GET /env HTTP/1.1",
            "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        ),
        (
            "GET /env HTTP/1.1",
            "Connection: upgrade\r\nUpgrade: web socket\r\n",
        ),
        (
            "GET /env HTTP/1.1",
            "Connection: upgrades\r\nUpgrade: websocket\r\n",
        ),
        ("GET /env HTTP/1.1", "Upgrade: websocket\r\n"),
        (
            "GET /env HTTP/1.0",
            "Connection: upgrade\r\nUpgrade: websocket\r\n",
        ),
    ] {
        let request = format!("{line}\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
        let answer = rig.raw(request.as_bytes()).await;
        assert!(answer.contains(" 200 OK\r\n"), "{request}\n---\n{answer}");
        assert!(!answer.contains("UPGRADE"), "{request}\n---\n{answer}");
    }
    // And this one is offered it, which the application declines.
    let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let request = "GET /env HTTP/1.1\r\nHost: x\r\nConnection: x, Upgrade\r\nUpgrade: a/1\r\nUpgrade: websocket\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("HTTP_UPGRADE=a/1, websocket\n") {
        let mut piece = [0; 4096];
        let count = timeout(SOON, socket.read(&mut piece))
            .await
            .unwrap()
            .unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..count]);
    }
}

#[tokio::test]
async fn an_extended_connect_goes_by_the_same_rule() {
    let app = App::afcgitest(&[]).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await;
    let stream = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    // The settings come before the first response.
    let request = Request::get(rig.url("/")).body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    for protocol in ["h2c", "H2C", "websocket, h2c", "web socket", ""] {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = rig.url("/websocket").parse().unwrap();
        request.extensions_mut().insert(Protocol::from(protocol));
        client = client.ready().await.unwrap();
        let (response, _send) = client.send_request(request, false).unwrap();
        let answer = timeout(SOON + Duration::from_secs(1), response)
            .await
            .unwrap();
        assert_eq!(answer.unwrap().status(), 501, "{protocol}");
    }
}
