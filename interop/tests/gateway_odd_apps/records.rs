//! Requests that hang, and records that are for nobody: those beside them on the connection go on.

use std::time::Duration;

use afcgi_interop::fake::{Fake, end, records, response, values, write};
use afcgi_interop::http::{client, get, get_ok};
use afcgi_interop::own::Own;
use afcgi_interop::raw::{self, kind, record};
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::{seen, stdout};

/// A request that hangs gets 504, one that stops in its body is broken off, and both are given up; the others on the connection go on.
#[tokio::test]
async fn hangs() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let app = Fake::start(move |socket, _| {
        let tell = tell.clone();
        async move {
            let (mut records, mut socket) = records(socket);
            let (mut hang, mut stop, mut slow, mut sent) = (None, None, None, 0);
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            loop {
                let next = tokio::select! {
                    next = records.recv() => Some(next),
                    _ = ticks.tick() => None,
                };
                let Some(next) = next else {
                    if let Some(id) = slow {
                        sent += 1;
                        write(&mut socket, &stdout(id, b"on and on\n")).await;
                        if sent == 30 {
                            slow = None;
                            write(&mut socket, &end(id, 0)).await;
                        }
                    }
                    continue;
                };
                let Some(record) = next else { return };
                let holds = |what: &[u8]| {
                    record
                        .content
                        .windows(what.len())
                        .any(|found| found == what)
                };
                match record.kind {
                    kind::GET_VALUES => write(&mut socket, &values(true)).await,
                    kind::PARAMS if holds(b"/hang") => hang = Some(record.id),
                    kind::PARAMS if holds(b"/stop") => {
                        stop = Some(record.id);
                        let begin = b"Content-Type: text/plain\r\n\r\nthe beginning";
                        write(&mut socket, &stdout(record.id, begin)).await;
                    }
                    kind::PARAMS if holds(b"/slow") => {
                        slow = Some(record.id);
                        write(
                            &mut socket,
                            &stdout(record.id, b"Content-Type: text/plain\r\n\r\n"),
                        )
                        .await;
                    }
                    kind::ABORT_REQUEST => {
                        assert!([hang, stop].contains(&Some(record.id)), "{record:?}");
                        _ = tell.send(record.id);
                        write(&mut socket, &end(record.id, 0)).await;
                    }
                    kind::STDIN
                        if record.content.is_empty()
                            && ![hang, stop, slow].contains(&Some(record.id)) =>
                    {
                        write(&mut socket, &response(record.id, "served")).await;
                    }
                    _ => {}
                }
            }
        }
    })
    .await;
    let keys = "first_byte_timeout = \"1s\"\nread_timeout = \"1s\"";
    let gateway = Own::before(app.port(), keys).await;
    let gateway = &gateway;
    let http = client();
    let ((status, _), stopped, slow, ()) = tokio::join!(
        seen(gateway, "/hang"),
        seen(gateway, "/stop"),
        async { get_ok(&http, &gateway.url("/slow")).await },
        async {
            for _ in 0..20 {
                assert_eq!(get_ok(&http, &gateway.url("/")).await, "served");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        },
    );
    assert_eq!(status, 504);
    assert_eq!(stopped, (200, None));
    assert_eq!(slow, "on and on\n".repeat(30));
    gateway
        .logs(&[
            "ERROR",
            "status=504",
            "path=/hang",
            "did not answer in time",
        ])
        .await;
    gateway
        .logs(&[
            "ERROR",
            "a response broke off",
            "did not go on with its response in time",
        ])
        .await;
    for _ in 0..2 {
        told.recv().await.expect("an abort");
    }
    assert_eq!(app.connections(), 1);
    drop(http);
    gateway.is_idle().await;
}

/// Records of requests that are over, of ids that nobody uses, and of no kind that there is, come between those of forty others.
#[tokio::test]
async fn says_too_much() {
    let app = Fake::start(async |socket, _| {
        let (mut records, mut socket) = records(socket);
        let mut waiting = Vec::new();
        loop {
            // All that are there are answered at a time, piece by piece in turns.
            match tokio::time::timeout(Duration::from_millis(30), records.recv()).await {
                Ok(Some(record)) => match record.kind {
                    kind::GET_VALUES => write(&mut socket, &values(true)).await,
                    kind::STDIN if record.content.is_empty() => waiting.push(record.id),
                    _ => {}
                },
                Ok(None) => return,
                Err(_) => {
                    let mut out = Vec::new();
                    for &id in &waiting {
                        out.extend(stdout(id, b"Content-Type: text/plain\r\n\r\n"));
                        out.extend(stdout(
                            60_000 + id,
                            b"Content-Type: text/plain\r\n\r\nwhose?",
                        ));
                        out.extend(record(99, 0, b"what?"));
                    }
                    for piece in 0..5 {
                        for &id in &waiting {
                            out.extend(stdout(id, format!("{id}.{piece} ").as_bytes()));
                            out.extend(record(99, id, b"what?"));
                            out.extend(record(kind::GET_VALUES_RESULT, 0, b""));
                        }
                    }
                    for id in waiting.drain(..) {
                        out.extend([end(id, 0), stdout(id, b"late"), end(id, 0)].concat());
                        out.extend(end(60_000 + id, 0));
                    }
                    write(&mut socket, &out).await;
                }
            }
        }
    })
    .await;
    let gateway = Own::before(app.port(), "").await;
    let client = client();
    for _ in 0..5 {
        let bodies =
            join_all((0..40).map(async |_| get_ok(&client, &gateway.url("/")).await)).await;
        let mut ids: Vec<u16> = Vec::new();
        for body in bodies {
            let text = String::from_utf8(body.to_vec()).expect("text");
            let id = text
                .split('.')
                .next()
                .expect("an id")
                .parse()
                .expect("an id");
            let expected: String = (0..5).map(|piece| format!("{id}.{piece} ")).collect();
            assert_eq!(text, expected);
            ids.push(id);
        }
        ids.sort_unstable();
        ids.dedup();
        // Ids are used again, by one request at a time.
        assert!(ids.len() > 1 && ids.iter().all(|id| *id <= 40), "{ids:?}");
    }
    drop(client);
    assert_eq!(app.connections(), 1);
    gateway.is_idle().await;
}

/// Clients leave, and what the application goes on to say for them is for nobody else: their ids are not used again.
#[tokio::test]
async fn answers_those_that_have_left() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let app = Fake::start(move |mut socket, _| {
        let tell = tell.clone();
        async move {
            let mut left = Vec::new();
            while let Some(record) = raw::read(&mut socket).await {
                match record.kind {
                    kind::GET_VALUES => write(&mut socket, &values(true)).await,
                    kind::BEGIN_REQUEST if left.len() < 10 => {
                        let begin = b"Content-Type: text/plain\r\n\r\nthe beginning";
                        write(&mut socket, &stdout(record.id, begin)).await;
                    }
                    kind::ABORT_REQUEST => {
                        left.push(record.id);
                        write(&mut socket, &end(record.id, 0)).await;
                        _ = tell.send(record.id);
                    }
                    kind::STDIN if record.content.is_empty() && left.len() >= 10 => {
                        for &id in &left {
                            let late = [
                                stdout(id, b"Content-Type: x/y\r\n\r\nfor nobody"),
                                end(id, 0),
                            ];
                            write(&mut socket, &late.concat()).await;
                        }
                        write(&mut socket, &response(record.id, &record.id.to_string())).await;
                    }
                    _ => {}
                }
            }
        }
    })
    .await;
    let gateway = Own::before(app.port(), "").await;
    let gateway = &gateway;
    join_all((0..10).map(async |_| {
        let mut body = get(&client(), &gateway.url("/")).await.bytes_stream();
        body.next().await.expect("a piece").expect("a piece");
    }))
    .await;
    let mut left = Vec::new();
    while left.len() < 10 {
        left.push(told.recv().await.expect("an abort"));
    }
    for _ in 0..20 {
        let id = get_ok(&client(), &gateway.url("/")).await;
        let id: u16 = String::from_utf8_lossy(&id).parse().expect("an id");
        assert!(!left.contains(&id), "{id} was used again");
    }
    assert_eq!(app.connections(), 1);
    gateway.is_idle().await;
}
