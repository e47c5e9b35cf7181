//! Tunnels through nginx (`docs/upgrade.md`): what WebSocket asks for, what becomes of the tunnel when somebody leaves, and what is
//! no tunnel.

use std::time::Duration;

use afcgi_interop::app::App;
use afcgi_interop::fake::{Fake, end, response, write};
use afcgi_interop::http::{client, get_ok, noise};
use afcgi_interop::raw::{self, kind, pair, record};
use afcgi_interop::wait::{SOON, eventually};
use afcgi_interop::websocket::{self, Socket};
use afcgi_nginx_tests::nginx::Nginx;
use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

/// The example `websocket` behind nginx.
async fn rig(more: &str) -> (Nginx, App) {
    let app = App::websocket(&[]).await;
    (Nginx::before(app.port(), more).await, app)
}

async fn stat(nginx: &Nginx, name: &str) -> u64 {
    let stats = get_ok(&client(), &nginx.url("/stats")).await;
    let stats: serde_json::Value = serde_json::from_slice(&stats).expect("/stats is JSON");
    stats[name].as_u64().expect("a number")
}

async fn echo(socket: &mut Socket, content: &[u8]) {
    let message = Message::binary(content.to_vec());
    socket.send(message.clone()).await.expect("sent");
    let answer = websocket::next(socket).await.expect("an answer");
    assert!(answer == message, "{} bytes differ", content.len());
}

#[tokio::test]
async fn echoes() {
    let (nginx, _app) = rig("").await;
    websocket::echoes(&nginx.url("/echo")).await;
    websocket::echoes_megabytes(&nginx.url("/echo")).await;
}

#[tokio::test]
async fn closing_from_either_side() {
    let (nginx, _app) = rig("").await;
    websocket::the_client_closes(&nginx.url("/echo")).await;
    websocket::the_application_closes(&nginx.url("/board")).await;
}

#[tokio::test]
async fn whiteboard_in_two_browsers() {
    let (nginx, _app) = rig("").await;
    websocket::whiteboard(&nginx.url("/")).await;
}

/// Every byte of a thousand sockets, which share one connection of one worker.
#[tokio::test]
async fn a_thousand_sockets_on_one_connection() {
    const SOCKETS: u64 = 1000;
    let app = App::afcgitest(&[]).await;
    let nginx = Nginx::before(app.port(), "").await;
    let url = nginx.url("/websocket");
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        sockets.push(websocket::connect(&url).await);
    }
    assert_eq!(stat(&nginx, "active").await, SOCKETS + 1);
    assert_eq!(stat(&nginx, "connections").await, 1);
    // All at once; every twentieth up to a megabyte.
    let echoes = sockets.iter_mut().enumerate().map(async |(n, socket)| {
        let seed = n as u64;
        for round in 0..3 {
            let length = match n % 20 {
                0 => (1 << 20) - n,
                _ => 1 + n * 7,
            };
            echo(socket, &noise(length, seed * 3 + round)).await;
        }
    });
    tokio::time::timeout(4 * SOON, join_all(echoes))
        .await
        .expect("in time");
    assert_eq!(stat(&nginx, "connections").await, 1);
    let closes = sockets.iter_mut().map(async |socket| {
        socket.close(None).await.expect("closed");
        while socket.next().await.is_some() {}
    });
    join_all(closes).await;
    eventually("all have ended", SOON, || async {
        match stat(&nginx, "active").await {
            1 => Ok(()),
            active => Err(format!("{active} are active")),
        }
    })
    .await;
    // Those who closed in order were not aborted, so their ids serve again.
    assert_eq!(stat(&nginx, "aborted").await, 0);
}

/// Clients that are gone without a word: the application hears of each.
#[tokio::test]
async fn clients_that_vanish() {
    let app = App::afcgitest(&[]).await;
    let nginx = Nginx::before(app.port(), "").await;
    let url = nginx.url("/websocket");
    let mut sockets = join_all((0..50).map(|_| websocket::connect(&url))).await;
    for socket in &mut sockets {
        echo(socket, b"here").await;
    }
    drop(sockets);
    eventually("all have ended", SOON, || async {
        match stat(&nginx, "active").await {
            1 => Ok(()),
            active => Err(format!("{active} are active")),
        }
    })
    .await;
    assert_eq!(stat(&nginx, "connections").await, 1);
}

#[tokio::test]
async fn reload_keeps_open_tunnels() {
    let app = App::afcgitest(&[]).await;
    let nginx = Nginx::before(app.port(), "").await;
    let url = nginx.url("/websocket");
    let mut old = websocket::connect(&url).await;
    echo(&mut old, b"before").await;
    nginx.reload().await;
    let mut new = eventually("the new worker serves", SOON, || async {
        websocket::try_connect(&url)
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    for n in 0..20 {
        echo(&mut old, &noise(10_000, n)).await;
        echo(&mut new, &noise(10_000, n)).await;
    }
    old.close(None).await.expect("closed");
    while old.next().await.is_some() {}
    nginx.has_workers(1).await;
    echo(&mut new, b"after").await;
}

#[tokio::test]
async fn the_application_dies() {
    let mut app = App::afcgitest(&[]).await;
    let nginx = Nginx::before(app.port(), "").await;
    let url = nginx.url("/websocket");
    let mut sockets = join_all((0..50).map(|_| websocket::connect(&url))).await;
    for socket in &mut sockets {
        echo(socket, b"here").await;
    }
    app.process.kill();
    for socket in &mut sockets {
        // An end, and nothing that looks like a message.
        assert_eq!(websocket::next(socket).await, None);
    }
    nginx.logs("the connection ended inside the stream").await;
}

/// The timeout of reading is the time for which a tunnel may be silent.
#[tokio::test]
async fn a_silent_tunnel_times_out() {
    let app = App::afcgitest(&[]).await;
    let nginx = Nginx::before(app.port(), "fastcgi_read_timeout 700ms;").await;
    let mut socket = websocket::connect(&nginx.url("/websocket")).await;
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        echo(&mut socket, b"still here").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(websocket::next(&mut socket).await, None);
    nginx.logs("upstream timed out").await;
}

const ASKS: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: words\r\n\r\n";

/// What comes back for bytes that a client sends before it waits for the end.
async fn talk(nginx: &Nginx, bytes: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", nginx.port()))
        .await
        .expect("a connection");
    socket.write_all(bytes.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let reading = socket.read_to_end(&mut answer);
    tokio::time::timeout(SOON, reading)
        .await
        .expect("in time")
        .expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

/// An application that answers GET_VALUES so, and every request, when its PARAMS is complete, with records that `answer` makes. What it
/// sees is told.
async fn answers(
    values: Vec<u8>,
    tell: mpsc::UnboundedSender<(u8, Vec<u8>)>,
    answer: fn(u16) -> Vec<u8>,
) -> Fake {
    Fake::start(move |mut socket, _| {
        let (values, tell) = (values.clone(), tell.clone());
        async move {
            while let Some(found) = raw::read(&mut socket).await {
                let ends_params = found.kind == kind::PARAMS && found.content.is_empty();
                match found.kind {
                    kind::GET_VALUES => {
                        write(&mut socket, &record(kind::GET_VALUES_RESULT, 0, &values)).await;
                    }
                    _ if ends_params => write(&mut socket, &answer(found.id)).await,
                    _ => {}
                }
                _ = tell.send((found.kind, found.content));
            }
        }
    })
    .await
}

fn offers() -> Vec<u8> {
    [pair("FCGI_MPXS_CONNS", "1"), pair("FCGI_UPGRADE", "1")].concat()
}

/// Head and first words in one record; what was not asked of the record's length comes too.
#[tokio::test]
async fn words_right_behind_the_head() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = answers(offers(), tell, |id| {
        let mut content = b"Status: 101 Switching Protocols\r\nUpgrade: words\r\n\r\n".to_vec();
        content.extend([b'a'; 50_000]);
        let mut records = record(kind::STDOUT, id, &content);
        records.extend(record(kind::STDERR, id, b"a note\nfor the log"));
        records.extend(record(kind::STDOUT, id, b"the end"));
        records.extend(record(kind::STDOUT, id, b""));
        records.extend(end(id, 0));
        records
    })
    .await;
    for more in ["", "fastcgi_buffering off;", "fastcgi_buffer_size 1k;"] {
        let nginx = Nginx::before(app.port(), more).await;
        let answer = talk(&nginx, &format!("{ASKS}first words")).await;
        let (head, words) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.starts_with("HTTP/1.1 101 Switching Protocols"),
            "{head}"
        );
        assert!(head.contains("\r\nUpgrade: words"), "{head}");
        assert!(head.contains("\r\nConnection: upgrade"), "{head}");
        assert!(words == "a".repeat(50_000) + "the end", "{}", words.len());
        let mut seen = Vec::new();
        while let Ok(found) = told.try_recv() {
            seen.push(found);
        }
        let offer = pair("FCGI_UPGRADE", "1");
        assert!(seen.contains(&(kind::PARAMS, offer)), "{more}");
    }
}

/// A client that leaves at once after its last words: they are read to their end, and only then is the request aborted.
#[tokio::test]
async fn last_words_are_not_lost() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = answers(offers(), tell, |id| {
        record(
            kind::STDOUT,
            id,
            b"Status: 101\r\nUpgrade: words\r\n\r\nwelcome",
        )
    })
    .await;
    let nginx = Nginx::before(app.port(), "").await;
    let mut socket = TcpStream::connect(("127.0.0.1", nginx.port()))
        .await
        .expect("a connection");
    socket.write_all(ASKS.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"welcome") {
        let mut buffer = [0; 1000];
        let count = socket.read(&mut buffer).await.expect("an answer");
        assert!(count > 0);
        answer.extend(&buffer[..count]);
    }
    socket.write_all(b"farewell").await.expect("sent");
    drop(socket);
    let mut stdin = Vec::new();
    loop {
        match told.recv().await.expect("records") {
            (kind::STDIN, content) => stdin.push(content),
            (kind::ABORT_REQUEST, _) => break,
            _ => {}
        }
    }
    assert_eq!(stdin.last(), Some(&Vec::new()));
    assert_eq!(stdin.concat(), b"farewell");
}

/// A client that was not offered an upgrade cannot be given one: its application is at fault.
#[tokio::test]
async fn nobody_asked_for_101() {
    let plain = pair("FCGI_MPXS_CONNS", "1");
    let no_upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for (values, request) in [
        (offers(), no_upgrade),
        (plain, &ASKS.replace("keep-alive", "close")),
    ] {
        let (tell, _told) = mpsc::unbounded_channel();
        let app = answers(values, tell, |id| {
            let head = b"Status: 101 Switching Protocols\r\nUpgrade: words\r\n\r\n";
            [record(kind::STDOUT, id, head), end(id, 0)].concat()
        })
        .await;
        let nginx = Nginx::before(app.port(), "").await;
        let answer = talk(&nginx, request).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        nginx.logs("was not offered an upgrade").await;
    }
}

/// Who is no candidate: an older HTTP, a body, no word of it in `Connection`.
#[tokio::test]
async fn not_offered() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = answers(offers(), tell, |id| response(id, "plain")).await;
    let nginx = Nginx::before(app.port(), "").await;
    for request in [
        "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: words\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: words\r\nContent-Length: 1\r\n\r\n!",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUpgrade: words\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrades, close\r\nUpgrade: words\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n\r\n",
    ] {
        let answer = talk(&nginx, request).await;
        assert!(answer.ends_with("plain"), "{answer}");
    }
    while let Ok((kind, content)) = told.try_recv() {
        let offered = content.windows(12).any(|part| part == b"FCGI_UPGRADE");
        assert!(kind != kind::PARAMS || !offered, "it was offered");
    }
}

/// Any other answer is one as ever, and STDIN ends then.
#[tokio::test]
async fn declined() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let app = answers(offers(), tell, |id| {
        // It goes on when STDIN has ended.
        record(kind::STDOUT, id, b"Content-Length: 5\r\n\r\npl")
    })
    .await;
    for more in ["", "fastcgi_buffering off;"] {
        let nginx = Nginx::before(app.port(), more).await;
        let mut socket = TcpStream::connect(("127.0.0.1", nginx.port()))
            .await
            .expect("a connection");
        socket.write_all(ASKS.as_bytes()).await.expect("sent");
        loop {
            let (kind, content) = told.recv().await.expect("records");
            if kind == kind::STDIN {
                assert_eq!(content, b"");
                break;
            }
        }
    }
    // The real thing: a page that was asked for with an Upgrade that it does not heed.
    let (nginx, _app) = rig("").await;
    let answer = talk(&nginx, &ASKS.replace("keep-alive", "close")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("<!doctype html>"), "{answer}");
}
