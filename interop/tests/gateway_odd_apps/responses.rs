//! Responses that are not whole, or none.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use afcgi_interop::fake::{Fake, end, next_request, response, values, write};
use afcgi_interop::http::{client, get_ok, noise};
use afcgi_interop::own::Own;
use afcgi_interop::raw::{self, kind, record};
use afcgi_interop::wait::{SOON, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{seen, stdout};

/// It answers each request with these bytes, and closes the connection if it is to.
async fn saying(answer: impl Fn(u16) -> Vec<u8> + Send + Sync + 'static, closes: bool) -> Fake {
    let answer = Arc::new(answer);
    Fake::start(move |mut socket, _| {
        let answer = Arc::clone(&answer);
        async move {
            while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
                write(&mut socket, &answer(id)).await;
                if closes {
                    return;
                }
            }
        }
    })
    .await
}

/// The status of a request that is not repeated.
async fn posted(gateway: &Own, path: &str) -> u16 {
    let post = client().post(gateway.url(path)).body("once");
    post.send().await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn dies_before_the_head() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let app = Fake::start(move |mut socket, _| {
        let count = Arc::clone(&count);
        async move {
            if next_request(&mut socket, Some(&values(true)))
                .await
                .is_some()
            {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
    let gateway = Own::before(app.port(), "").await;
    assert_eq!(posted(&gateway, "/a").await, 502);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "a POST is not repeated");
    assert_eq!(seen(&gateway, "/b").await.0, 502);
    let why = "the application closed the connection";
    for path in ["path=/a", "path=/b"] {
        gateway
            .logs(&["ERROR", "no response", "status=502", path, why])
            .await;
    }
    gateway.is_idle().await;
}

/// A body that breaks off is one that breaks off, in every version of HTTP, with Content-Length or without.
#[tokio::test]
async fn dies_inside_the_body() {
    for field in ["", "Content-Length: 100\r\n"] {
        let head = format!("Content-Type: text/plain\r\n{field}\r\n");
        let app = Fake::start(move |mut socket, _| {
            let head = head.clone();
            async move {
                if let Some(id) = next_request(&mut socket, Some(&values(true))).await {
                    write(&mut socket, &stdout(id, head.as_bytes())).await;
                    write(&mut socket, &stdout(id, b"the beginning")).await;
                    // So that it is on its way.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        })
        .await;
        let gateway = Own::before(app.port(), "").await;
        assert_eq!(seen(&gateway, "/").await, (200, None), "{field}");
        gateway
            .logs(&[
                "ERROR",
                "a response broke off",
                "the response is not complete",
            ])
            .await;
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--max-time", "30", "--noproxy", "*", version]);
            curl.arg(gateway.url("/"));
            let output = tokio::task::spawn_blocking(move || curl.output());
            let output = output.await.expect("no panic").expect("curl");
            assert_eq!(output.stdout, b"the beginning");
            assert!(!output.status.success(), "{version}: taken for complete");
        }
        // Without a length it is the end of the connection that ends the body of HTTP/1.0.
        let mut old = TcpStream::connect(("127.0.0.1", gateway.port()))
            .await
            .expect("a connection");
        old.write_all(b"GET / HTTP/1.0\r\n\r\n")
            .await
            .expect("a request");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(SOON, old.read_to_end(&mut answer))
            .await
            .expect("an end");
        let is_short = answer.ends_with(b"the beginning") && !field.is_empty();
        assert!(read.is_err() || is_short, "{field}: taken for complete");
        gateway.is_idle().await;
    }
}

/// STDOUT is ended and the connection closed, without END_REQUEST: that the response is whole nobody said, but for its length.
#[tokio::test]
async fn leaves_without_a_word() {
    let whole = |id| [stdout(id, b"Content-Length: 3\r\n\r\nabc"), stdout(id, b"")].concat();
    let app = saying(whole, true).await;
    let gateway = Own::before(app.port(), "").await;
    let (status, body) = seen(&gateway, "/").await;
    assert!(
        status == 502 || body.is_none_or(|body| body == "abc"),
        "{status}"
    );
    let open = |id| {
        [
            stdout(id, b"Content-Type: text/plain\r\n\r\nabc"),
            stdout(id, b""),
        ]
        .concat()
    };
    let app = saying(open, true).await;
    let gateway = Own::before(app.port(), "").await;
    let (status, body) = seen(&gateway, "/").await;
    assert!(
        status == 502 || body.is_none(),
        "{status}: taken for complete"
    );
    gateway
        .logs(&["ERROR", "the response is not complete"])
        .await;
    let nothing = |id| stdout(id, b"");
    let app = saying(nothing, true).await;
    let gateway = Own::before(app.port(), "").await;
    assert_eq!(seen(&gateway, "/").await.0, 502);
    gateway.logs(&["ERROR", "no response", "status=502"]).await;
}

/// A body that is shorter or longer than its Content-Length, and a request that ends with a status that is not 0.
#[tokio::test]
async fn ends_in_another_way() {
    type Say = fn(u16) -> Vec<u8>;
    let cases: [(Say, &str); 4] = [
        (
            |id| {
                [
                    stdout(id, b"Content-Length: 9\r\n\r\n"),
                    stdout(id, b"abc"),
                    end(id, 0),
                ]
                .concat()
            },
            "3 bytes instead of 9",
        ),
        (
            |id| {
                [
                    stdout(id, b"Content-Length: 3\r\n\r\n"),
                    stdout(id, b"abcdef"),
                    end(id, 0),
                ]
                .concat()
            },
            "6 bytes instead of 3",
        ),
        (
            |id| {
                let mut status = end(id, 0);
                // After the header.
                status[8..12].copy_from_slice(&[0, 0, 0, 7]);
                [stdout(id, b"Content-Type: text/plain\r\n\r\nabc"), status].concat()
            },
            "ended the request with status 7",
        ),
        (|id| end(id, 3), "refused the request: UnknownRole"),
    ];
    for (say, why) in cases {
        let app = saying(say, false).await;
        let gateway = Own::before(app.port(), "").await;
        let (status, body) = seen(&gateway, "/").await;
        assert!(status == 502 || body.is_none(), "{why}: {status} {body:?}");
        gateway.logs(&["ERROR", why]).await;
        gateway.is_idle().await;
        assert_eq!(app.connections(), 1, "{why}");
    }
}

#[tokio::test]
async fn answers_nonsense() {
    let noise = noise(100_000, 7);
    let answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        noise,
    ];
    for answer in answers {
        let asked = Arc::new(AtomicUsize::new(0));
        let app = Fake::start(move |mut socket, _| {
            let (answer, asked) = (answer.clone(), Arc::clone(&asked));
            async move {
                while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
                    match asked.fetch_add(1, Ordering::Relaxed) {
                        0 => write(&mut socket, &answer).await,
                        _ => write(&mut socket, &response(id, "served")).await,
                    }
                }
            }
        })
        .await;
        let gateway = Own::before(app.port(), "").await;
        assert_eq!(posted(&gateway, "/").await, 502);
        gateway
            .logs(&[
                "ERROR",
                "no response",
                "status=502",
                "does not speak FastCGI 1",
            ])
            .await;
        assert_eq!(get_ok(&client(), &gateway.url("/")).await, "served");
    }
    // At GET_VALUES already.
    let app = Fake::start(async |mut socket, _| {
        raw::read(&mut socket).await;
        write(&mut socket, b"SSH-2.0-OpenSSH_9.2\r\n").await;
    })
    .await;
    let gateway = Own::before(app.port(), "").await;
    assert_eq!(posted(&gateway, "/").await, 502);
}

/// The request fails and no other: the connection is still good.
#[tokio::test]
async fn answers_with_a_head_that_is_none() {
    let long = [b"X-Long: ", &[b'a'; 60_000][..]].concat();
    let heads: [&[u8]; 9] = [
        b"no head at all\r\n\r\n",
        b": no name\r\n\r\n",
        b"Bad Name: x\r\n\r\n",
        b"Status: ok\r\n\r\n",
        b"Status: 99\r\n\r\n",
        b"Content-Length: many\r\n\r\n",
        b"X-A: a\0b\r\n\r\n",
        b"Content-Type: text/plain\r\n",
        b"",
    ];
    for head in heads.map(<[u8]>::to_vec).into_iter().chain([long]) {
        let shown = String::from_utf8_lossy(&head[..head.len().min(30)]).into_owned();
        let first = AtomicUsize::new(0);
        let app = saying(
            move |id| match first.fetch_add(1, Ordering::Relaxed) {
                0 => [
                    stdout(id, &head),
                    stdout(id, b"more than a head may hold").repeat(300),
                    end(id, 0),
                ]
                .concat(),
                _ => response(id, "served"),
            },
            false,
        )
        .await;
        let gateway = Own::before(app.port(), "").await;
        let (status, _) = seen(&gateway, "/").await;
        assert_eq!(status, 502, "{shown}");
        gateway.logs(&["ERROR", "no response", "status=502"]).await;
        assert_eq!(
            get_ok(&client(), &gateway.url("/")).await,
            "served",
            "{shown}"
        );
        assert_eq!(app.connections(), 1, "{shown}");
    }
}

/// Between the last byte and END_REQUEST there may be a while, which the client does not wait for if it knows the length. What the application
/// has to say by then is logged.
#[tokio::test]
async fn takes_its_time_to_end() {
    const PAUSE: Duration = Duration::from_millis(50);
    let app = Fake::start(async |mut socket, _| {
        while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
            write(&mut socket, &stdout(id, b"Content-Length: 6\r\n\r\nabc")).await;
            tokio::time::sleep(PAUSE).await;
            write(&mut socket, &stdout(id, b"def")).await;
            tokio::time::sleep(PAUSE).await;
            let late = format!("said late by {id}\n");
            let late = record(kind::STDERR, id, late.as_bytes());
            write(&mut socket, &[late, end(id, 0)].concat()).await;
        }
    })
    .await;
    let gateway = Own::before(app.port(), "").await;
    assert_eq!(get_ok(&client(), &gateway.url("/")).await, "abcdef");
    gateway.logs(&["path=/", "said late by"]).await;
    let head = client().head(gateway.url("/head")).send().await;
    assert_eq!(head.expect("a head").status(), 200);
    gateway.logs(&["path=/head", "said late by"]).await;
    gateway.is_idle().await;
    let line = eventually("the access log has it", SOON, || async {
        let log = gateway.access_log();
        log.lines().next().map(str::to_owned).ok_or(log)
    })
    .await;
    assert!(!line.contains("incomplete"), "{line}");
}
