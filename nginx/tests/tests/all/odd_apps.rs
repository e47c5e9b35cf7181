//! Applications that break the rules, or know less of FastCGI than others.

use std::time::{Duration, Instant};

use afcgi_interop::fake::{Fake, end, next_request, response, values, write};
use afcgi_interop::http::{client, get, get_ok, noise};
use afcgi_interop::raw::{self, kind, record};
use afcgi_nginx_tests::nginx::Nginx;
use futures_util::future::join_all;
use tokio::io::AsyncReadExt;

/// It multiplexes: serves each connection's requests one after the other, which is its own affair.
async fn plain(port: usize) -> Fake {
    Fake::start(move |mut socket, n| async move {
        while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
            write(&mut socket, &response(id, &format!("{} {n} {id}", port))).await;
        }
    })
    .await
}

#[tokio::test]
async fn ids_are_reused_on_the_one_connection() {
    let app = plain(0).await;
    let nginx = Nginx::before(app.port(), "").await;
    let client = client();
    for _ in 0..50 {
        // the id is free again with END_REQUEST.
        assert_eq!(get_ok(&client, &nginx.url("/")).await, "0 0 1");
    }
    assert_eq!(app.connections(), 1);
}

/// It never answers GET_VALUES: after a bounded wait it counts as one that does not multiplex.
#[tokio::test]
async fn silent_at_get_values() {
    let app = Fake::start(async |mut socket, n| {
        while let Some(id) = next_request(&mut socket, None).await {
            // Long enough that the requests overlap.
            tokio::time::sleep(Duration::from_millis(100)).await;
            write(&mut socket, &response(id, &format!("{n} {id}"))).await;
        }
    })
    .await;
    let nginx = Nginx::before(app.port(), "").await;
    let client = client();
    let start = Instant::now();
    let bodies = join_all((0..10).map(async |_| get_ok(&client, &nginx.url("/")).await)).await;
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    for body in bodies {
        assert!(body.ends_with(b" 1"), "a second id: {body:?}");
    }
    assert_eq!(app.connections(), 11, "the probe, and one for each");
    nginx.logs("it does not answer GET_VALUES").await;
}

/// It closes the connection at GET_VALUES, as old ones do.
#[tokio::test]
async fn closes_at_get_values() {
    let app = Fake::start(async |mut socket, _| {
        while let Some(record) = raw::read(&mut socket).await {
            if record.kind == kind::GET_VALUES {
                return;
            }
            if record.kind == kind::STDIN && record.content.is_empty() {
                write(&mut socket, &response(record.id, "served")).await;
                return;
            }
        }
    })
    .await;
    let nginx = Nginx::before(app.port(), "").await;
    let client = client();
    for _ in 0..5 {
        assert_eq!(get_ok(&client, &nginx.url("/")).await, "served");
    }
    nginx.logs("it closes the connection at GET_VALUES").await;
}

/// It answers GET_VALUES with MPXS_CONNS=0, and closes, as newer PHP-FPM does.
#[tokio::test]
async fn says_no_and_closes() {
    let app = Fake::start(async |mut socket, _| {
        while let Some(record) = raw::read(&mut socket).await {
            if record.kind == kind::GET_VALUES {
                write(&mut socket, &values(false)).await;
                return;
            }
            if record.kind == kind::STDIN && record.content.is_empty() {
                write(&mut socket, &response(record.id, "served")).await;
                return;
            }
        }
    })
    .await;
    let nginx = Nginx::before(app.port(), "").await;
    let client = client();
    let bodies = join_all((0..20).map(async |_| get_ok(&client, &nginx.url("/")).await)).await;
    assert!(bodies.iter().all(|body| body == "served"));
}

/// It says that it multiplexes, and then refuses a second request at a time. The refused one was not processed and may be tried
/// again.
#[tokio::test]
async fn refuses_to_multiplex_after_all() {
    let app = Fake::start(async |mut socket, _| {
        let mut busy = None;
        let mut keep_conn = true;
        loop {
            let read = tokio::time::timeout(Duration::from_millis(100), raw::read(&mut socket));
            match read.await {
                Err(_) => {
                    if let Some(id) = busy.take() {
                        write(&mut socket, &response(id, "served")).await;
                        if !keep_conn {
                            return;
                        }
                    }
                }
                Ok(None) => return,
                Ok(Some(record)) => match record.kind {
                    kind::GET_VALUES => write(&mut socket, &values(true)).await,
                    kind::BEGIN_REQUEST if busy.is_none() => {
                        busy = Some(record.id);
                        keep_conn = record.content.get(2) == Some(&1);
                    }
                    kind::BEGIN_REQUEST => write(&mut socket, &end(record.id, 1)).await,
                    _ => {}
                },
            }
        }
    })
    .await;
    let nginx = Nginx::before(app.port(), "").await;
    let client = client();
    get_ok(&client, &nginx.url("/")).await;
    let bodies = join_all((0..10).map(async |_| get_ok(&client, &nginx.url("/")).await)).await;
    assert!(bodies.iter().all(|body| body == "served"));
    nginx.logs("refused the request: CantMpxConn").await;
}

/// What is no FastCGI ends the connection at once, and the requests on it fail; the next ones get another.
#[tokio::test]
async fn speaks_another_protocol() {
    let app = Fake::start(async |mut socket, n| {
        if n == 0 {
            // After GET_VALUES and one request.
            next_request(&mut socket, Some(&values(true))).await;
            write(&mut socket, b"HTTP/1.1 200 OK\r\n\r\n").await;
            let mut rest = [0; 1000];
            while socket.read(&mut rest).await.is_ok_and(|count| count > 0) {}
            return;
        }
        while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
            write(&mut socket, &response(id, "served")).await;
        }
    })
    .await;
    let nginx = Nginx::before(app.port(), "").await;
    let client = client();
    let first = get(&client, &nginx.url("/")).await;
    assert_eq!(first.status().as_u16(), 502);
    nginx.logs("does not speak FastCGI 1").await;
    assert_eq!(get_ok(&client, &nginx.url("/")).await, "served");
}

/// A response that breaks off must not look complete, also where nginx takes the end of a connection for the end of the response.
#[tokio::test]
async fn dies_inside_a_response() {
    for more in ["", "fastcgi_buffering off;", "fastcgi_keep_conn on;"] {
        let app = Fake::start(async |mut socket, _| {
            let id = next_request(&mut socket, Some(&values(true))).await;
            let head = b"Content-Type: text/plain\r\n\r\nthe beginning";
            if let Some(id) = id {
                write(&mut socket, &record(kind::STDOUT, id, head)).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
        let nginx = Nginx::before(app.port(), more).await;
        let response = get(&client(), &nginx.url("/")).await;
        assert_eq!(response.status().as_u16(), 200);
        let body = response.bytes().await;
        assert!(body.is_err(), "{more}: taken for complete: {body:?}");
        nginx.logs("the response is not complete").await;
    }
}

/// END_REQUEST twice, STDOUT after it, and records of ids that nobody uses.
#[tokio::test]
async fn says_too_much() {
    let app = Fake::start(async |mut socket, _| {
        while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
            let late = record(kind::STDOUT, id, b"late");
            let bytes = [
                record(kind::STDOUT, 777, b"whose?"),
                record(99, 0, b"what?"),
                record(kind::GET_VALUES_RESULT, 0, b""),
                response(id, "served"),
                end(id, 0),
                late,
                end(id, 0),
            ];
            write(&mut socket, &bytes.concat()).await;
        }
    })
    .await;
    let nginx = Nginx::before(app.port(), "").await;
    let client = client();
    for _ in 0..20 {
        assert_eq!(get_ok(&client, &nginx.url("/")).await, "served");
    }
    assert_eq!(app.connections(), 1);
}

/// A hung application: what times out is aborted, nobody hears a byte of it, and new requests get a new connection.
#[tokio::test]
async fn hangs() {
    let app = Fake::start(async |mut socket, n| {
        while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
            if n > 0 {
                write(&mut socket, &response(id, "served")).await;
            }
        }
    })
    .await;
    let nginx = Nginx::before(app.port(), "fastcgi_read_timeout 1s;").await;
    let client = client();
    let responses = join_all((0..5).map(async |_| get(&client, &nginx.url("/")).await)).await;
    for response in responses {
        assert_eq!(response.status().as_u16(), 504);
    }
    assert_eq!(get_ok(&client, &nginx.url("/")).await, "served");
}

/// A client that leaves: ABORT_REQUEST for that id, and the id is held until END_REQUEST comes.
#[tokio::test]
async fn an_aborted_id_is_held() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let app = Fake::start(move |mut socket, _| {
        let tell = tell.clone();
        async move {
            let mut first = true;
            while let Some(record) = raw::read(&mut socket).await {
                match record.kind {
                    kind::GET_VALUES => write(&mut socket, &values(true)).await,
                    kind::ABORT_REQUEST => _ = tell.send(record.id),
                    kind::STDIN if record.content.is_empty() && !std::mem::take(&mut first) => {
                        write(&mut socket, &response(record.id, &record.id.to_string())).await;
                    }
                    _ => {}
                }
            }
        }
    })
    .await;
    let nginx = Nginx::before(app.port(), "").await;
    let client = client();
    let given_up = client
        .get(nginx.url("/"))
        .timeout(Duration::from_millis(300))
        .send();
    assert!(given_up.await.is_err());
    assert_eq!(told.recv().await, Some(1));
    for _ in 0..3 {
        assert_eq!(get_ok(&client, &nginx.url("/")).await, "2");
    }
    assert_eq!(app.connections(), 1);
}

/// It answers without reading the body, and closes: the system tells of that first when nginx writes more of the body. The answer is there
/// all the same.
#[tokio::test]
async fn answers_and_closes_while_nginx_writes() {
    let app = Fake::start(async |mut socket, _| {
        while let Some(record) = raw::read(&mut socket).await {
            match record.kind {
                kind::GET_VALUES => write(&mut socket, &values(true)).await,
                kind::STDIN => {
                    write(&mut socket, &response(record.id, "served")).await;
                    return;
                }
                _ => {}
            }
        }
    })
    .await;
    let nginx = Nginx::before(app.port(), "").await;
    let client = client();
    let body = noise(4_000_000, 1);
    for n in 0..30 {
        let request = client.post(nginx.url("/")).body(body.clone());
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200, "POST {n}");
        assert_eq!(response.text().await.expect("the body"), "served");
    }
}
