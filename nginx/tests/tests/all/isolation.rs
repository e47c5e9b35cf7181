//! One request that is not read, in either direction, hurts nobody else: with flow control (afcgitest), and without (Go, and
//! applications made by hand).

use std::time::Duration;

use afcgi_interop::app::App;
use afcgi_interop::fake::{Fake, end, response, values, write};
use afcgi_interop::http::{client, get_ok};
use afcgi_interop::raw::{self, kind, pair, record};
use afcgi_interop::wait::{SOON, eventually};
use afcgi_nginx_tests::nginx::Nginx;
use afcgi_nginx_tests::slow::{Slow, ask, resident};
use futures_util::future::join_all;
use tokio::sync::mpsc;

const MIB: u64 = 1 << 20;

/// nginx that buffers nothing of a response, with parameters of `fastcgi_multiplex`.
async fn unbuffered(app: u16, parameters: &str) -> Nginx {
    Nginx::start(
        1,
        &format!(
            "upstream app {{ server 127.0.0.1:{app}; fastcgi_multiplex {parameters}; }}
             server {{ listen LISTEN; location / {{ fastcgi_buffering off; fastcgi_pass app; }}
                 location /-/status {{ fastcgi_multiplex_status; }} }}"
        ),
    )
    .await
}

async fn connections(nginx: &Nginx) -> u64 {
    let stats = get_ok(&client(), &nginx.url("/stats")).await;
    let stats: serde_json::Value = serde_json::from_slice(&stats).expect("/stats is JSON");
    stats["connections"].as_u64().expect("a number")
}

/// Slow clients of 200 MB each beside quick ones.
async fn slow_readers(app: App, count: usize, controlled: bool, memory: u64) {
    let nginx = unbuffered(app.port(), "").await;
    ask(&nginx, 8, 10).await;
    let worker = nginx.started_workers().await[0];
    let before = resident(worker);
    let mut slow = Vec::new();
    for n in 0..count {
        slow.push(Slow::get(&nginx, "/bytes?n=200000000").await);
        slow[n].is_answered().await;
        if !controlled {
            // Before that the next may still be put beside it.
            eventually("it stalls", SOON, || async {
                let status = get_ok(&client(), &nginx.url("/-/status")).await;
                let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
                match status["addresses"][0]["stalls"].as_u64() {
                    Some(stalls) if stalls == n as u64 + 1 => Ok(()),
                    _ => Err(status.to_string()),
                }
            })
            .await;
        }
    }
    let longest = ask(&nginx, 8, 200).await;
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    // The first takes those that do not hold up theirs, which with flow control is everybody.
    let expected = if controlled { 1 } else { count as u64 + 1 };
    assert_eq!(connections(&nginx).await, expected);
    let grown = resident(worker).saturating_sub(before);
    assert!(grown < memory, "the worker has grown by {grown} bytes");
    drop(slow);
    let longest = ask(&nginx, 8, 50).await;
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}

#[tokio::test]
async fn slow_readers_with_flow_control() {
    // Ten windows, and twice that for what nginx's memory looks like.
    slow_readers(
        App::afcgitest(&[]).await,
        10,
        true,
        3 * 10 * MIB / 4 + 2 * MIB,
    )
    .await;
}

#[tokio::test]
async fn slow_readers_without_flow_control() {
    // Each keeps to itself, with its buffer and what was read and not yet taken.
    slow_readers(App::go().await, 10, false, 10 * MIB + 2 * MIB).await;
}

/// Uploads that no handler reads, beside quick requests.
async fn unread_uploads(app: App, most_connections: u64) {
    let nginx = unbuffered(app.port(), "").await;
    ask(&nginx, 8, 10).await;
    let client = client();
    let uploads = (0..5).map(async |n| {
        // Small ones fit into what sockets hold, large ones do not.
        let body = vec![b'x'; 1000 * 20_usize.pow(n % 4)];
        let url = nginx.url("/delay?ms=3000");
        let response = client.post(url).body(body).send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
    });
    let beside = async {
        let mut found = 0;
        for _ in 0..10 {
            let longest = ask(&nginx, 8, 20).await;
            assert!(longest < Duration::from_secs(2), "{longest:?}");
            found = found.max(connections(&nginx).await);
        }
        found
    };
    let (_, found) = tokio::join!(join_all(uploads), beside);
    assert!(found <= most_connections, "{found} connections");
    ask(&nginx, 8, 10).await;
}

#[tokio::test]
async fn unread_uploads_with_flow_control() {
    unread_uploads(App::afcgitest(&[]).await, 1).await;
}

#[tokio::test]
async fn unread_uploads_without_flow_control() {
    unread_uploads(App::go().await, 1 + 5).await;
}

/// What an application without flow control saw: of which connection, the type of the record, and its id.
type Seen = (usize, u8, u16);

/// It waits for two requests on its first connection; then sends a megabyte to the first and an answer to the second. Further
/// connections it serves at once.
async fn floods(tell: mpsc::UnboundedSender<Seen>) -> Fake {
    Fake::start(move |mut socket, n| {
        let tell = tell.clone();
        async move {
            let mut complete = Vec::new();
            while let Some(record) = raw::read(&mut socket).await {
                _ = tell.send((n, record.kind, record.id));
                match record.kind {
                    kind::GET_VALUES => write(&mut socket, &values(true)).await,
                    kind::ABORT_REQUEST => write(&mut socket, &end(record.id, 0)).await,
                    kind::STDIN if record.content.is_empty() && n > 0 => {
                        write(&mut socket, &response(record.id, "elsewhere")).await;
                    }
                    kind::STDIN if record.content.is_empty() => {
                        complete.push(record.id);
                        if let &[flooded, other] = &complete[..] {
                            let (mut reader, mut writer) = socket.into_split();
                            // It goes on reading while it writes.
                            let flood = tokio::spawn(async move {
                                use tokio::io::AsyncWriteExt;
                                let head = b"Content-Type: text/plain\r\n\r\n";
                                _ = writer
                                    .write_all(&raw::record(kind::STDOUT, flooded, head))
                                    .await;
                                for _ in 0..400 {
                                    let part = raw::record(kind::STDOUT, flooded, &[b'x'; 50_000]);
                                    _ = writer.write_all(&part).await;
                                }
                                _ = writer.write_all(&response(other, "beside it")).await;
                                _ = writer.write_all(&end(flooded, 0)).await;
                                writer
                            });
                            while let Some(record) = read_half(&mut reader).await {
                                _ = tell.send((n, record.0, record.1));
                            }
                            drop(flood);
                            return;
                        }
                    }
                    _ => {}
                }
            }
        }
    })
    .await
}

/// Type and id of the next record.
async fn read_half(reader: &mut tokio::net::tcp::OwnedReadHalf) -> Option<(u8, u16)> {
    use tokio::io::AsyncReadExt;
    let mut header = [0; 8];
    reader.read_exact(&mut header).await.ok()?;
    let length = u16::from_be_bytes([header[4], header[5]]);
    let mut rest = vec![0; usize::from(length) + usize::from(header[6])];
    reader.read_exact(&mut rest).await.ok()?;
    Some((header[1], u16::from_be_bytes([header[2], header[3]])))
}

#[tokio::test]
async fn a_stalled_connection_gets_no_others_and_the_one_that_stalls_is_aborted_alone() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = floods(tell).await;
    let nginx = unbuffered(app.port(), "stall_timeout=700ms overflow=0").await;
    let client = client();
    let slow = Slow::get(&nginx, "/slow").await;
    while told.recv().await.expect("records") != (0, kind::STDIN, 1) {}
    let beside = tokio::spawn({
        let (client, url) = (client.clone(), nginx.url("/beside"));
        async move { get_ok(&client, &url).await }
    });
    slow.is_answered().await;
    // The kernel's buffers take some of it before the connection stalls.
    let url = nginx.url("/");
    eventually("others go elsewhere", SOON, || async {
        let request = get_ok(&client, &url);
        match tokio::time::timeout(Duration::from_millis(300), request).await {
            Ok(body) if body == "elsewhere" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(get_ok(&client, &url).await, "elsewhere");
    }
    // The one beside it goes on when the slow one was aborted.
    assert_eq!(beside.await.expect("an answer"), "beside it");
    let mut aborted = Vec::new();
    while let Ok((connection, kind, id)) = told.try_recv() {
        if kind == kind::ABORT_REQUEST {
            aborted.push((connection, id));
        }
    }
    assert!(aborted.contains(&(0, 1)), "{aborted:?}");
    assert!(!aborted.contains(&(0, 2)), "{aborted:?}");
    // What came of it is not taken for all of it.
    assert!(slow.read_to_end().await < 20_000_000);
    nginx
        .logs("the stream was not read in time and was given up")
        .await;
    assert_eq!(app.connections(), 2);
}

/// What is behind the response that stalls is reached without giving that up.
#[tokio::test]
async fn those_beside_a_slow_one_are_reached() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = floods(tell).await;
    let nginx = unbuffered(app.port(), "stall_timeout=1h overflow=24m").await;
    let client = client();
    let slow = Slow::get(&nginx, "/slow").await;
    while told.recv().await.expect("records") != (0, kind::STDIN, 1) {}
    assert_eq!(get_ok(&client, &nginx.url("/beside")).await, "beside it");
    assert!(slow.read_to_end().await > 20_000_000);
    assert!(!nginx.log().contains("given up"), "{}", nginx.log());
}

/// The credit of each request, and what the application was sent before it gave any more.
#[tokio::test]
async fn windows_are_what_the_directive_says() {
    for (parameters, expected) in [("", 256 * 1024), ("window=64k", 64 * 1024)] {
        let (tell, mut told) = mpsc::unbounded_channel();
        let app = Fake::start(move |mut socket, _| {
            let tell = tell.clone();
            async move {
                let mut stdin = 0;
                while let Some(found) = raw::read(&mut socket).await {
                    match found.kind {
                        kind::GET_VALUES => {
                            let answer = [
                                pair("FCGI_MPXS_CONNS", "1"),
                                pair("FCGI_FLOW_CONTROL", "5000"),
                            ];
                            let answer = record(kind::GET_VALUES_RESULT, 0, &answer.concat());
                            write(&mut socket, &answer).await;
                        }
                        kind::BEGIN_REQUEST => {
                            assert_eq!(found.content[2], 3, "FCGI_KEEP_CONN and flow control");
                            let credit = [4, 5, 6, 7].map(|at| found.content[at - 1]);
                            _ = tell.send(u32::from_be_bytes(credit));
                        }
                        kind::STDIN => {
                            stdin += found.content.len();
                            assert!(stdin <= 5000, "{stdin} bytes without credit");
                            if stdin == 5000 {
                                write(&mut socket, &response(found.id, "enough")).await;
                                stdin = 0;
                            }
                        }
                        _ => {}
                    }
                }
            }
        })
        .await;
        let nginx = unbuffered(app.port(), parameters).await;
        let request = client().post(nginx.url("/")).body(vec![7; 100_000]);
        let response = request.send().await.expect("an answer");
        assert_eq!(response.text().await.expect("a body"), "enough");
        assert_eq!(told.recv().await, Some(expected));
    }
}

/// Without flow control a request with a body has its connection for itself, and gives it to the next.
#[tokio::test]
async fn bodies_keep_to_themselves_without_flow_control() {
    let app = Fake::start(async |mut socket, n| {
        let answer = values(true);
        let mut held = Vec::new();
        while let Some(found) = raw::read(&mut socket).await {
            match found.kind {
                kind::GET_VALUES => write(&mut socket, &answer).await,
                kind::STDIN if found.content.is_empty() => {
                    held.push(found.id);
                    if n == 0 && held.len() < 3 {
                        continue;
                    }
                    for id in held.drain(..) {
                        write(&mut socket, &response(id, &n.to_string())).await;
                    }
                }
                _ => {}
            }
        }
    })
    .await;
    let nginx = unbuffered(app.port(), "").await;
    let client = client();
    // Three without a body share one, and are answered when all are there.
    let bodies = join_all((0..3).map(|_| async { get_ok(&client, &nginx.url("/")).await })).await;
    assert!(bodies.iter().all(|body| body == "0"));
    let post = async |length: usize| {
        let request = client.post(nginx.url("/")).body(vec![7; length]);
        let response = request.send().await.expect("an answer");
        response.text().await.expect("a body")
    };
    for _ in 0..5 {
        assert_eq!(post(1).await, "1", "one after the other takes the same");
    }
    let mut bodies = join_all((0..3).map(|_| post(100_000))).await;
    bodies.sort();
    assert!(!bodies.contains(&String::from("0")), "{bodies:?}");
    // One without a body does not go there.
    let bodies = join_all((0..3).map(|_| async { get_ok(&client, &nginx.url("/")).await })).await;
    assert!(bodies.iter().all(|body| body == "0"));
    let empty = client.post(nginx.url("/")).body("").send();
    let url = nginx.url("/");
    let (empty, ..) = tokio::join!(empty, get_ok(&client, &url), get_ok(&client, &url));
    let empty = empty.expect("an answer").text().await.expect("a body");
    assert_eq!(empty, "0", "an empty body is none");
}
