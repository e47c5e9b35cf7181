//! HTTP/2: what its clients see of requests and responses, of one another, and of the end.
//!
//! A second thread lets clients answer while a test waits for the gateway to leave.

use std::future::poll_fn;
use std::task::Poll;

use afcgi_interop::app::App;
use afcgi_interop::fake::{Fake, next_request, values, write};
use afcgi_interop::http::{client, get_ok, noise};
use afcgi_interop::raw::{kind, record};
use afcgi_interop::wait::{SOON, eventually};
use bytes::Bytes;
use futures_util::future::join_all;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::rig::Rig;

type Client = SendRequest<Bytes>;

/// A connection, which lasts as long as its requests.
async fn connect(rig: &Rig) -> Client {
    let socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn start(
    client: &Client,
    request: Request<()>,
    ends: bool,
) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let mut client = client.clone().ready().await.unwrap();
    client.send_request(request, ends).unwrap()
}

async fn get(client: &Client, url: String) -> Response<RecvStream> {
    let (response, _) = start(client, Request::get(url).body(()).unwrap(), true).await;
    timeout(SOON, response).await.unwrap().unwrap()
}

/// All of a body, with room given for each piece that was read.
async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = timeout(SOON, body.data()).await.unwrap() {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// Sends a body as it may.
async fn send(mut stream: SendStream<Bytes>, mut content: Bytes) {
    while !content.is_empty() {
        stream.reserve_capacity(content.len());
        let room = timeout(SOON, poll_fn(|cx| stream.poll_capacity(cx)));
        let room = room.await.unwrap().unwrap().unwrap();
        let piece = content.split_to(room.min(content.len()));
        stream.send_data(piece, content.is_empty()).unwrap();
    }
}

async fn rig() -> (Rig, App) {
    let app = App::afcgitest(&[]).await;
    (
        Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await,
        app,
    )
}

async fn stat(app: &Rig, name: &str) -> u64 {
    let stats = get_ok(&client(), &app.url("/stats")).await;
    let stats: serde_json::Value = serde_json::from_slice(&stats).unwrap();
    stats[name].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bodies_in_both_directions_at_once() {
    let (rig, _app) = rig().await;
    let connection = connect(&rig).await;
    let echoes = (0..30).map(async |n: u64| {
        let length = if n.is_multiple_of(10) {
            3_000_000
        } else {
            1 + n as usize * 1000
        };
        let content = Bytes::from(noise(length, n));
        let request = Request::post(rig.url("/echo")).body(()).unwrap();
        let (response, stream) = start(&connection, request, false).await;
        let answer = async {
            let mut response = timeout(SOON, response).await.unwrap().unwrap();
            assert_eq!(response.status(), 200);
            assert!(response.headers().contains_key("date"));
            read(response.body_mut()).await.unwrap()
        };
        let ((), answer) = tokio::join!(send(stream, content.clone()), answer);
        assert!(answer == content, "{n}: {} bytes", answer.len());
    });
    join_all(echoes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn heads_alone() {
    let (rig, _app) = rig().await;
    let connection = connect(&rig).await;
    let request = Request::head(rig.url("/bytes?n=1000")).body(()).unwrap();
    let (response, _) = start(&connection, request, true).await;
    let mut response = timeout(SOON, response).await.unwrap().unwrap();
    assert_eq!(response.headers()["content-length"], "1000");
    assert_eq!(read(response.body_mut()).await.unwrap(), b"");
    let response = get(&connection, rig.url("/status?code=204")).await;
    assert_eq!(response.status(), 204);
    assert!(!response.headers().contains_key("content-length"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_hint_comes_before_there_is_a_response() {
    let word = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let port = crate::interim::app(&word).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{port}")]).await;
    let connection = connect(&rig).await;
    let request = Request::get(rig.url("/")).body(()).unwrap();
    let (mut response, _) = start(&connection, request, true).await;
    let hint = poll_fn(|cx| response.poll_informational(cx));
    let hint = timeout(SOON, hint).await.unwrap().unwrap().unwrap();
    assert_eq!(hint.status(), 103);
    assert_eq!(hint.headers()["link"], "</a.css>; rel=preload");
    assert_eq!(hint.headers().len(), 1, "{hint:?}");
    word.add_permits(1);
    let mut response = timeout(SOON, response).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(read(response.body_mut()).await.unwrap(), b"hello");
}

/// Whoever gives a request up is heard, and hurts nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_request_that_is_reset() {
    let (rig, _app) = rig().await;
    let connection = connect(&rig).await;
    let held = async || {
        let request = Request::get(rig.url("/delay?ms=60000")).body(()).unwrap();
        start(&connection, request, true).await
    };
    let (_kept, (given_up, mut stream)) = (held().await, held().await);
    eventually("both are there", SOON, || async {
        match stat(&rig, "active").await {
            3 => Ok(()),
            active => Err(format!("{active} are active")),
        }
    })
    .await;
    stream.send_reset(Reason::CANCEL);
    drop(given_up);
    eventually("one was aborted", SOON, || async {
        match (stat(&rig, "aborted").await, stat(&rig, "active").await) {
            (1, 2) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
    assert_eq!(get(&connection, rig.url("/")).await.status(), 200);
}

/// A response that breaks off does not look like one that has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_response_that_breaks_off() {
    let app = Fake::start(|mut socket, _| async move {
        while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
            let begins = b"Content-Type: text/plain\r\n\r\nbegun";
            write(&mut socket, &record(kind::STDOUT, id, begins)).await;
            // END_REQUEST with a status of its own, without the end of STDOUT.
            write(
                &mut socket,
                &record(kind::END_REQUEST, id, &[0, 0, 0, 1, 0, 0, 0, 0]),
            )
            .await;
        }
    })
    .await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await;
    let request = Request::get(rig.url("/")).body(()).unwrap();
    let (response, _) = start(&connect(&rig).await, request, true).await;
    // The reset may overtake the head, or come behind what there was of the body.
    let error = match timeout(SOON, response).await.unwrap() {
        Ok(mut response) => read(response.body_mut()).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
}

/// Who opens no window for a response does not have it held for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_does_not_read() {
    let app = App::afcgitest(&[]).await;
    let config = format!(
        "[limits]\nsend_timeout = \"500ms\"\n[upstream.a]\naddresses = [\"127.0.0.1:{}\"]\n[[route]]\nupstream = \"a\"",
        app.port()
    );
    let rig = Rig::config(&config).await;
    let connection = connect(&rig).await;
    let mut response = get(&connection, rig.url("/bytes?n=10000000")).await;
    // No room is given for what comes, until the end.
    let mut bytes = 0;
    let error = loop {
        match timeout(SOON, response.body_mut().data()).await.unwrap() {
            Some(Ok(piece)) => bytes += piece.len(),
            Some(Err(error)) => break error,
            None => panic!("all {bytes} bytes came"),
        }
    };
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    assert_eq!(get(&connection, rig.url("/")).await.status(), 200);
}

/// What was begun is finished, and nothing more is begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stop() {
    let (mut rig, _app) = rig().await;
    let connection = connect(&rig).await;
    let request = Request::get(rig.url("/delay?ms=1500")).body(()).unwrap();
    let (response, _) = start(&connection, request, true).await;
    assert_eq!(get(&connection, rig.url("/")).await.status(), 200);
    rig.signal(Signal::TERM);
    let mut response = timeout(SOON, response).await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert!(!read(response.body_mut()).await.unwrap().is_empty());
    // GOAWAY has come, or the end of the connection.
    let refused = poll_fn(|cx| match connection.clone().poll_ready(cx) {
        Poll::Ready(Err(error)) => Poll::Ready(error),
        _ => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    });
    timeout(SOON, refused).await.unwrap();
    assert!(rig.process.stop().success());
}

/// The same path as by `Upgrade`, for a browser that has HTTP/2.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn websocket_by_extended_connect() {
    let app = App::afcgitest(&[]).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await;
    let mut client = connect(&rig).await;
    // The settings come before the first response.
    let request = Request::get(rig.url("/")).body(()).unwrap();
    client = client.ready().await.unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    assert!(client.is_extended_connect_protocol_enabled());

    let extended = |path: &str| {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = rig.url(path).parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-version", "13".parse().unwrap());
        request
            .extensions_mut()
            .insert(Protocol::from_static("websocket"));
        request
    };
    client = client.ready().await.unwrap();
    let (response, mut send) = client.send_request(extended("/websocket"), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(
        !response.headers().contains_key("upgrade")
            && !response.headers().contains_key("sec-websocket-accept")
    );
    let mut body = response.into_body();
    // A text of two bytes, masked with zeros, and what comes back of it.
    send.send_data(Bytes::from_static(b"\x81\x82\0\0\0\0hi"), false)
        .unwrap();
    let mut got = Vec::new();
    while got.len() < 4 {
        let piece = body.data().await.unwrap().unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        got.extend_from_slice(&piece);
    }
    assert_eq!(got, b"\x81\x02hi");
    // Others go on meanwhile, and the end of one side ends the other.
    client = client.ready().await.unwrap();
    let request = Request::get(rig.url("/")).body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    send.send_data(Bytes::from_static(b"\x88\x80\0\0\0\0"), true)
        .unwrap();
    while let Some(piece) = body.data().await {
        let Ok(piece) = piece else { break };
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    rig.logs(&["/websocket HTTP/2.0\" 200"]).await;
    // An ordinary response would be taken for a tunnel.
    client = client.ready().await.unwrap();
    let (response, _send) = client.send_request(extended("/"), false).unwrap();
    assert_eq!(response.await.unwrap().status(), 502);
}
