//! Heads that are none, or that two readers could take for different requests: refused, and logged.

use afcgi_interop::http::{client, get_ok};
use afcgi_interop::wait::{SOON, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::rig::Rig;
use crate::way_out::application;

/// What hyper refuses by itself is logged too, with as much of the request as there is.
#[tokio::test]
async fn what_is_no_request_is_logged() {
    let port = application().await;
    let config = format!(
        "[limits]\nheader = \"8K\"\n[upstream.a]\naddresses = [\"127.0.0.1:{port}\"]\n[[route]]\nupstream = \"a\""
    );
    let rig = Rig::config(&config).await;
    let long = "x".repeat(9000);
    for (request, status, line) in [
        ("GET /no-version\r\nHost: x\r\n\r\n".to_owned(), 400, "\"GET /no-version -\" 400 0 "),
        ("G\x01T /a\x02 HTTP/1.1\r\n\r\n".to_owned(), 400, "\"G\\x01T /a\\x02 HTTP/1.1\" 400 0 "),
        ("GET /field HTTP/1.1\r\nHost: x\r\nA B: c\r\n\r\n".to_owned(), 400, "\"GET /field HTTP/1.1\" 400 0 "),
        ("GET /length HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n".to_owned(), 400, "\"GET /length HTTP/1.1\" 400 0 "),
        ("GET /coding HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(), 400, "\"GET /coding HTTP/1.1\" 400 0 "),
        (format!("GET /long HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"), 431, "\"GET /long HTTP/1.1\" 431 0 "),
        // Behind a request that is one, and its body.
        (
            "POST /first HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab\r\nc\r\n0\r\nT: x\r\n\r\nGET /second HTTP/9\r\n\r\n".to_owned(),
            404,
            "\"GET /second HTTP/9\" 400 0 ",
        ),
        (
            "POST /third HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n\r\n\r\nGET /fourth HTTP/1.1\r\nA B: c\r\n\r\n".to_owned(),
            404,
            "\"GET /fourth HTTP/1.1\" 400 0 ",
        ),
    ] {
        let answer = rig.raw(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        rig.logs(&["127.0.0.1 - - [", line]).await;
    }
    let metrics = get_ok(&client(), &rig.admin_url("/metrics")).await;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    assert!(
        metrics.contains("afcgi_gateway_requests_total{code=\"4xx\"} 10\n"),
        "{metrics}"
    );
    // A client that says nothing, or leaves in the middle, gets no response, and there is none to log.
    let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    socket.write_all(b"GET /half HTTP/1.1\r\n").await.unwrap();
    drop(socket);
    assert!(!rig.process.log().contains("/half"));
}

/// By HTTP/2 it is h2 that refuses large heads by itself.
#[tokio::test]
async fn large_heads_of_http2_are_logged() {
    let port = application().await;
    let config = format!(
        "[limits]\nheader = \"8K\"\n[upstream.a]\naddresses = [\"127.0.0.1:{port}\"]\n[[route]]\nupstream = \"a\""
    );
    let rig = Rig::config(&config).await;
    let stream = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (length, status) in [(10, 404), (9000, 431), (10, 404), (9000, 431)] {
        let request = http::Request::get(rig.url("/x")).header("x", "x".repeat(length));
        client = client.ready().await.unwrap();
        let (response, _) = client
            .send_request(request.body(()).unwrap(), true)
            .unwrap();
        assert_eq!(response.await.unwrap().status(), status, "{length}");
    }
    eventually("a line for each", SOON, || async {
        let log = rig.process.log();
        let lines = log
            .lines()
            .filter(|line| line.starts_with("127.0.0.1 - - ["));
        let found: Vec<_> = lines
            .filter_map(|line| line.split("\" ").nth(1)?.get(..3))
            .collect();
        match found == ["404", "431", "404", "431"] {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;
    rig.logs(&["127.0.0.1 - - [", "\"- - -\" 431 0 "]).await;
}

/// What two readers could take for different requests is neither (RFC 9112 section 6.1 and 6.3), and its connection ends.
#[tokio::test]
async fn lengths_and_codings_that_are_not_certain() {
    let port = application().await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{port}")]).await;
    let next = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for (fields, body, status) in [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
            400,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "0\r\n\r\n",
            400,
        ),
        (
            "transfer-encoding: chunked\r\nX: y\r\ncontent-LENGTH:0\r\n",
            "0\r\n\r\n",
            400,
        ),
        ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n", 501),
        ("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n", 501),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
            501,
        ),
        (
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
            501,
        ),
        ("Transfer-Encoding: CHUNKED\r\n", "0\r\n\r\n", 404),
        (
            "Transfer-Encoding: , chunked\r\nConnection: close\r\n",
            "0\r\n\r\n",
            404,
        ),
    ] {
        // The one before it is fine, and is answered, in one piece with it or not.
        for before in [
            "",
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\n0\r\n\r\n",
        ] {
            let end = if status == 404 {
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            } else {
                next
            };
            let request = format!("{before}POST /b HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}{end}");
            let answer = rig.raw(request.as_bytes()).await;
            let statuses: Vec<_> = answer
                .lines()
                .filter_map(|line| line.strip_prefix("HTTP/1.1 "))
                .map(|line| &line[..3])
                .collect();
            let at = usize::from(!before.is_empty());
            assert_eq!(
                statuses.get(at),
                Some(&&*status.to_string()),
                "{request}\n---\n{answer}"
            );
            if status != 404 {
                assert_eq!(statuses.len(), at + 1, "{request}\n---\n{answer}");
                assert!(
                    answer.contains("\r\nconnection: close\r\n"),
                    "{request}\n---\n{answer}"
                );
                rig.logs(&[
                    "127.0.0.1 - - [",
                    &format!("\"POST /b HTTP/1.1\" {status} "),
                ])
                .await;
            }
        }
    }
    assert!(!rig.process.log().contains("/smuggled"));
}
