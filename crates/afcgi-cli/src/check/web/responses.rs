//! What a web server makes of what an application sends, right, odd or wrong; and of connections and clients that leave.

use super::stage::{HELLO, Stage, end, response};
use crate::check::application::noise;
use crate::check::case::{Outcome, cases, deviation, ensure};
use crate::check::raw::{kind, padded, record, stream};

cases! { Stage:
    "web/21" Must [58] "a response arrives" arrives;
    "web/22" Must [6] "a response in records of one byte" by_byte;
    "web/23" Must [3] "padding is skipped, whatever it holds" padding;
    "web/24" Must [6] "a response of 300,000 bytes" large;
    "web/25" Must [6] "a record of 65,535 bytes" longest;
    "web/26" Must [58] "Status: is the status, and not a header field" status;
    "web/27" Must [58] "header lines may end with LF alone" line_feeds;
    "web/28" Must [53] "STDERR is not part of the response" stderr;
    "web/29" Should [53] "END_REQUEST without an empty STDOUT record ends the response" no_empty_record;
    "web/30" Robust [31] "a response without its end is not passed off as whole" cut;
    "web/31" Robust [31] "a connection that is closed without an answer is an error" nothing;
    "web/32" Must [51] "a request that is refused as OVERLOADED is an error" overloaded;
    "web/33" Robust [2] "an answer that is no FastCGI is an error" garbage;
    "web/34" Robust [11] "STDOUT for another id is not part of the response" other_id;
    "web/35" Must [30] "an application that leaves the connection open does not hold up the response" left_open;
    "web/36" Must [30] "the next request is answered when the application closed a kept connection" closed;
    "web/37" Must [57] "when the client leaves, the request is aborted or its connection closed" client_leaves;
    "web/38" Must [12 40] "two requests at a time are on two connections unless the application multiplexes" apart;
}

/// The client gets this body of what the application sends.
async fn gives(p: &Stage, bytes: impl FnOnce(u16) -> Vec<u8>, status: u16, body: &[u8]) -> Outcome {
    p.what_comes_of(bytes).await?.is(status, body)
}

async fn arrives(p: &Stage) -> Outcome {
    p.exchange(HELLO).await?.1.is(200, b"hello\n")
}

async fn by_byte(p: &Stage) -> Outcome {
    gives(
        p,
        |id| [stream(kind::STDOUT, id, HELLO, 1), end(id, 0)].concat(),
        200,
        b"hello\n",
    )
    .await
}

async fn padding(p: &Stage) -> Outcome {
    let bytes = |id| {
        [
            padded(kind::STDOUT, id, HELLO, &end(id, 2)),
            padded(kind::STDOUT, id, b"more\n", &[1; 255]),
            padded(kind::STDOUT, id, &[], &[1; 7]),
            end(id, 0),
        ]
        .concat()
    };
    gives(p, bytes, 200, b"hello\nmore\n").await
}

async fn large(p: &Stage) -> Outcome {
    let body = noise(300_000);
    p.exchange(&[b"Content-Type: x/y\r\n\r\n", &body[..]].concat())
        .await?
        .1
        .is(200, &body)
}

async fn longest(p: &Stage) -> Outcome {
    let body = vec![b'x'; 65_535];
    let bytes = |id| {
        let head = record(kind::STDOUT, id, b"Content-Type: x/y\r\n\r\n");
        [
            head,
            stream(kind::STDOUT, id, &[b'x'; 65_535], 65_535),
            end(id, 0),
        ]
        .concat()
    };
    gives(p, bytes, 200, &body).await
}

async fn status(p: &Stage) -> Outcome {
    let http = p
        .exchange(b"Status: 418 Teapot\r\nContent-Type: text/plain\r\n\r\nhello\n")
        .await?
        .1;
    http.is(418, b"hello\n")?;
    let field = http
        .head
        .lines()
        .any(|line| line.to_ascii_lowercase().starts_with("status:"));
    ensure(!field, "no header field Status", "there is one")
}

async fn line_feeds(p: &Stage) -> Outcome {
    p.exchange(b"Content-Type: text/plain\nX-Other: y\n\nhello\n")
        .await?
        .1
        .is(200, b"hello\n")
}

async fn stderr(p: &Stage) -> Outcome {
    let bytes = |id| {
        [
            record(kind::STDERR, id, b"before"),
            record(kind::STDOUT, id, HELLO),
            stream(kind::STDERR, id, b"behind", 10),
            record(kind::STDOUT, id, &[]),
            end(id, 0),
        ]
        .concat()
    };
    gives(p, bytes, 200, b"hello\n").await
}

async fn no_empty_record(p: &Stage) -> Outcome {
    gives(
        p,
        |id| [record(kind::STDOUT, id, HELLO), end(id, 0)].concat(),
        200,
        b"hello\n",
    )
    .await
}

async fn cut(p: &Stage) -> Outcome {
    let head = b"Content-Type: text/plain\r\nContent-Length: 100\r\n\r\nnot all of it";
    p.what_comes_of(|id| record(kind::STDOUT, id, head))
        .await?
        .is_failure()
}

async fn nothing(p: &Stage) -> Outcome {
    p.what_comes_of(|_| Vec::new()).await?.is_failure()
}

async fn overloaded(p: &Stage) -> Outcome {
    let waiting = p.get().await?.response();
    let mut waiting = std::pin::pin!(waiting);
    // It may try again, as often as it likes.
    loop {
        tokio::select! {
            http = &mut waiting => return http?.is_failure(),
            Ok((mut peer, request)) = p.request() => {
                peer.link.send(&end(request.id, 2)).await?;
                peer.link.finish().await;
            }
        }
    }
}

async fn garbage(p: &Stage) -> Outcome {
    p.what_comes_of(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec())
        .await?
        .is_failure()
}

async fn other_id(p: &Stage) -> Outcome {
    let bytes = |id: u16| {
        let other = record(kind::STDOUT, id ^ 0x4000, b"somebody else's");
        [
            record(kind::STDOUT, id, HELLO),
            other,
            record(kind::STDOUT, id, &[]),
            end(id, 0),
        ]
        .concat()
    };
    let http = p.what_comes_of(bytes).await?;
    match http.is_failure() {
        Ok(()) => Ok(()),
        Err(_) => http.is(200, b"hello\n"),
    }
}

async fn left_open(p: &Stage) -> Outcome {
    let client = p.get().await?;
    let (mut peer, request) = p.request().await?;
    peer.link.send(&response(request.id, HELLO)).await?;
    client.response().await?.is(200, b"hello\n")
}

async fn closed(p: &Stage) -> Outcome {
    for _ in 0..3 {
        let client = p.get().await?;
        let (mut peer, request) = p.request().await?;
        peer.link.send(&response(request.id, HELLO)).await?;
        client.response().await?.is(200, b"hello\n")?;
        peer.link.finish().await;
    }
    Ok(())
}

async fn client_leaves(p: &Stage) -> Outcome {
    let client = p.get().await?;
    let (mut peer, request) = p.request().await?;
    client.leave();
    // Some notice it when they have something to pass on.
    peer.link
        .send(&record(kind::STDOUT, request.id, HELLO))
        .await?;
    for _ in 0..200 {
        match peer.link.within(std::time::Duration::from_millis(10)).await {
            Some(found) if found.kind() == kind::ABORT_REQUEST && found.id() == request.id => {
                return Ok(());
            }
            _ if peer.link.has_ended() => return Ok(()),
            _ => {
                peer.link
                    .send(&record(kind::STDOUT, request.id, &[b'x'; 4000]))
                    .await?
            }
        }
    }
    Err(deviation(
        "ABORT_REQUEST, or the end of the connection",
        "neither within two seconds",
    ))
}

async fn apart(p: &Stage) -> Outcome {
    let (first, second) = (p.get().await?, p.get().await?);
    let (mut one, a) = p.request().await?;
    // The other is on a connection of its own, or waits until this one is over.
    if let Some(found) = one.link.within(std::time::Duration::from_millis(100)).await {
        ensure(
            found.kind() != kind::BEGIN_REQUEST,
            "one request at a time",
            "a second BEGIN_REQUEST",
        )?;
    }
    one.answer(&a, HELLO).await?;
    let (mut other, b) = tokio::select! {
        found = p.request() => found?,
        Ok(Some(request)) = one.request() => (one, request),
    };
    other.answer(&b, HELLO).await?;
    first.response().await?.is(200, b"hello\n")?;
    second.response().await?.is(200, b"hello\n")
}
