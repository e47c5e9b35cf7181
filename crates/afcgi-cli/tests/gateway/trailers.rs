//! Trailers of requests: CGI has none, so they are taken and dropped, and the body before them is whole.

use afcgi_interop::app::App;
use afcgi_interop::http::noise;
use afcgi_interop::wait::SOON;
use bytes::Bytes;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

use crate::rig::Rig;

const NEXT: &str = "GET /env?next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn of_http1() {
    let app = App::afcgitest(&[]).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await;
    for (path, trailers) in [
        ("/echo", "X-Checksum: 1234\r\n"),
        // What would mean something in a head means nothing here.
        (
            "/echo",
            "Host: evil\r\nContent-Length: 3\r\nTransfer-Encoding: x\r\nX-Forwarded-For: 6.6.6.6\r\n",
        ),
        (
            "/env",
            "X-Evil: 1\r\nFCGI-Role: 2\r\nProxy: x\r\nConnection: close\r\n",
        ),
    ] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n\
             5\r\nhello\r\n7\r\n, world\r\n0\r\n{trailers}\r\n{NEXT}"
        );
        let answer = rig.raw(request.as_bytes()).await;
        let (first, next) = answer
            .split_once("HTTP/1.1 200 OK\r\n")
            .unwrap()
            .1
            .split_once("HTTP/1.1 200 OK\r\n")
            .unwrap();
        let body = first.split_once("\r\n\r\n").unwrap().1;
        match path {
            "/echo" => assert_eq!(body, "hello, world"),
            _ => assert!(
                !body.contains("EVIL") && !body.contains("TRAILER"),
                "{body}"
            ),
        }
        // Neither do they reach the request behind them.
        assert!(
            next.contains("REQUEST_URI=/env?next\n") && !next.contains("6.6.6.6"),
            "{next}"
        );
        assert!(
            next.contains("HTTP_HOST=x\n") && !next.contains("EVIL"),
            "{next}"
        );
    }
}

#[tokio::test]
async fn that_are_too_long_are_refused() {
    let app = App::afcgitest(&[]).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await;
    for trailers in [
        format!("X: {}\r\n", "a".repeat(1 << 20)),
        "X: a\r\n".repeat(10_000),
        "no field\r\n".to_owned(),
    ] {
        let request = format!(
            "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{trailers}\r\n{NEXT}"
        );
        let answer = rig.raw(request.as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{answer}"
        );
        assert!(!answer.contains("REQUEST_URI"), "{answer}");
    }
    let answer = rig.raw(NEXT.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn of_http2() {
    let app = App::afcgitest(&[]).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await;
    let socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    // Longer than a window, with its length and without, and none at all.
    for (length, stated) in [(100_000, false), (100_000, true), (0, false)] {
        let content = noise(length, 7);
        let mut request = Request::post("http://a.example/echo").body(()).unwrap();
        if stated {
            request
                .headers_mut()
                .insert("content-length", length.into());
        }
        client = client.ready().await.unwrap();
        let (response, mut send) = client.send_request(request, false).unwrap();
        if length > 0 {
            send.send_data(Bytes::from(content.clone()), false).unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "1234".parse().unwrap());
        trailers.insert("host", "evil".parse().unwrap());
        send.send_trailers(trailers).unwrap();
        let response = tokio::time::timeout(SOON, response).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let mut echoed = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            echoed.extend_from_slice(&data);
        }
        assert!(echoed == content, "{} bytes", echoed.len());
        assert!(body.trailers().await.unwrap().is_none());
    }
    connection.abort();
    assert!(connection.await.is_err());
}
