//! Every limit on clients is reached.

use std::time::{Duration, Instant};

use afcgi_interop::app::App;
use afcgi_interop::http::{client, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{Rig, rest};

async fn limited(limits: &str) -> (Rig, App) {
    let app = App::afcgitest(&[]).await;
    let config = format!(
        "[limits]\n{limits}\n[upstream.a]\naddresses = [\"127.0.0.1:{}\"]\n\
         [[route]]\nupstream = \"a\"\n[[route]]\nupstream = \"a\"\npath = \"/echo/large\"\nbody = \"1M\"",
        app.port()
    );
    (Rig::config(&config).await, app)
}

#[tokio::test]
async fn bodies() {
    let (rig, _app) = limited("body = \"10K\"").await;
    let client = client();
    let post = async |path, length: usize| {
        let request = client.post(rig.url(path)).body(vec![b'x'; length]);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(post("/echo", 10_240).await, 200);
    assert_eq!(post("/echo/large", 1 << 20).await, 200);
    assert_eq!(post("/echo", 10_241).await, 413);
    // Its length is not known before.
    let mut request = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".to_vec();
    for _ in 0..11 {
        request.extend_from_slice(b"400\r\n");
        request.extend_from_slice(&[b'x'; 0x400]);
        request.extend_from_slice(b"\r\n");
    }
    let answer = rig.raw(&request).await;
    // What was sent back already is cut off.
    assert!(
        answer.starts_with("HTTP/1.1 413 ") || !answer.ends_with("0\r\n\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn heads() {
    let (rig, _app) = limited("header = \"8K\"").await;
    let answer = rig
        .raw(
            format!(
                "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
                "x".repeat(9000)
            )
            .as_bytes(),
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

/// A connection whose first request does not come, or comes byte by byte, is closed.
#[tokio::test]
async fn slow_heads() {
    let (rig, _app) = limited("header_timeout = \"500ms\"").await;
    for sent in [
        &b""[..],
        b"P",
        b"GET / HTTP/1.1\r\nHost: x\r\nX",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let start = Instant::now();
        let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
        socket.write_all(sent).await.unwrap();
        let answer = rest(&mut socket).await;
        assert!(!answer.contains("200"), "{answer}");
        assert!(
            start.elapsed() >= Duration::from_millis(400),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn idle_connections() {
    let (rig, _app) = limited("idle_timeout = \"500ms\"").await;
    let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    // It is not idle while it waits for a response.
    socket
        .write_all(b"GET /delay?ms=1500 HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let answer = rest(&mut socket).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("Hello world\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn slow_bodies() {
    let (rig, _app) = limited("body_timeout = \"300ms\"").await;
    let head = "POST /delay?ms=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123";
    let start = Instant::now();
    let answer = rig
        .raw(head.replace("/delay?ms=1", "/echo").as_bytes())
        .await;
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(
        answer.starts_with("HTTP/1.1 408 ") || !answer.ends_with("1234567890"),
        "{answer}"
    );
}

/// A client that does not read its response is given up; the others are served meanwhile.
#[tokio::test]
async fn slow_readers() {
    let (rig, _app) = limited("send_timeout = \"500ms\"").await;
    let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    socket
        .write_all(b"GET /bytes?n=100000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    rig.logs(&["\"GET /bytes?n=100000000 HTTP/1.1\" 200", " incomplete"])
        .await;
    assert_eq!(get(&client(), &rig.url("/")).await.status(), 200);
    let mut all = Vec::new();
    let _ = socket.read_to_end(&mut all).await;
    assert!(all.len() < 100_000_000);
}

#[tokio::test]
async fn connections() {
    let (rig, _app) = limited("connections = 2").await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
        socket
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 8];
        socket.read_exact(&mut first).await.unwrap();
        held.push(socket);
    }
    let mut third = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    third
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    rig.logs(&["WARN", "as many connections as may be"]).await;
    held.pop();
    assert!(rest(&mut third).await.starts_with("HTTP/1.1 200 "));
}
