//! Clients of HTTP/2 that ask for much and read nothing: what waits for them is bounded, others are served meanwhile, and the
//! memory is given back.

use std::time::{Duration, Instant};

use afcgi_interop::http::{client, get, get_ok};
use afcgi_interop::wait::{SOON, eventually};
use axum::Router;
use axum::routing::get as route;
use bytes::Bytes;
use http::Request;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::rig::Rig;
use crate::routes::app;

/// Requests of a connection: as many as may be.
const STREAMS: u32 = 200;

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(content.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(content);
    frame
}

/// A connection that gives all responses all the room there is, asks for many, and reads nothing.
async fn hoard(rig: &Rig, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = ([127, 0, 0, 1], rig.port).into();
    let mut stream = socket.connect(address).await.unwrap();
    let room = (i32::MAX as u32).to_be_bytes();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE, and the window of the connection.
    bytes.extend(frame(4, 0, 0, &[&[0, 4][..], &room].concat()));
    bytes.extend(frame(8, 0, 0, &((i32::MAX as u32) - 65_535).to_be_bytes()));
    for number in 0..STREAMS {
        let mut head = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
        head.extend_from_slice(path.as_bytes());
        head.extend_from_slice(b"\x01\x01x");
        // END_STREAM, END_HEADERS
        bytes.extend(frame(1, 5, 2 * number + 1, &head));
    }
    stream.write_all(&bytes).await.unwrap();
    stream
}

/// Kilobytes that the process has in memory.
fn resident(rig: &Rig) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

async fn metric(rig: &Rig, name: &str) -> u64 {
    let metrics = get_ok(&client(), &rig.admin_url("/metrics")).await;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let start = format!("afcgi_gateway_{name} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&start));
    value.unwrap().parse().unwrap()
}

async fn large() -> u16 {
    let content = Bytes::from(vec![b'x'; 4 << 20]);
    let large = route(async move || content);
    app(Router::new()
        .route("/large", large)
        .route("/", route(async || "small")))
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_them_is_bounded_and_others_are_served() {
    let port = large().await;
    let config = format!(
        "[limits]\nresponses = \"8M\"\n[upstream.a]\naddresses = [\"127.0.0.1:{port}\"]\n[[route]]\nupstream = \"a\""
    );
    let rig = Rig::config(&config).await;
    assert_eq!(get(&client(), &rig.url("/")).await.status(), 200);
    let before = resident(&rig);
    let mut hoarders = Vec::new();
    for _ in 0..25 {
        hoarders.push(hoard(&rig, "/large").await);
    }
    rig.active(25 * STREAMS as usize).await;
    // It does not end, and does not grow any more.
    let mut last = 0;
    let mut since = Instant::now();
    let deadline = Instant::now() + SOON;
    while since.elapsed() < Duration::from_secs(2) && Instant::now() < deadline {
        let now = metric(&rig, "responses_waiting_bytes").await;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let during = resident(&rig);
    assert!(last > 1 << 20, "nothing waits: {last}");
    assert!(last <= (8 << 20) + 25 * (128 << 10), "{last} bytes wait");
    assert!(
        during < before + 400_000,
        "{before} kB before, {during} kB now"
    );
    // By HTTP/1.1 and by HTTP/2, small and large.
    let answer = get_ok(&client(), &rig.url("/large")).await;
    assert_eq!(answer.len(), 4 << 20);
    let socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let (mut other, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    for (path, length) in [("/", 5), ("/large", 4 << 20)] {
        other = other.ready().await.unwrap();
        let request = Request::get(rig.url(path)).body(()).unwrap();
        let (response, _) = other.send_request(request, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut got = 0;
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            got += piece.len();
        }
        assert_eq!(got, length, "{path}");
    }
    drop(hoarders);
    rig.active(0).await;
    eventually("the memory is given back", SOON, || async {
        let (held, now) = (
            metric(&rig, "responses_waiting_bytes").await,
            resident(&rig),
        );
        match held == 0 && now < before + 100_000 {
            true => Ok(()),
            false => Err(format!(
                "{held} bytes wait; {before} kB before, {during} kB during, {now} kB now"
            )),
        }
    })
    .await;
}
