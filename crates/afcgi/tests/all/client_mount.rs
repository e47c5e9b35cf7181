//! A FastCGI application in an axum application, over real HTTP: requests, errors, WebSockets.

use std::net::SocketAddr;
use std::time::Duration;

use crate::common::peer::Peer;
use crate::common::upgrade::websocket;
use crate::common::{Served, eventually, patient, serve};
use afcgi::client::Client;
use afcgi::http;
use axum::Router;
use axum::routing::{any, get};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, tungstenite};

/// An HTTP server that answers `/own` itself, and leaves the rest to an application.
async fn mount(client: Client) -> SocketAddr {
    let router = Router::new()
        .route("/own", get(async || "own"))
        .fallback_service(client.into_service());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    addr
}

async fn mounted(server: &Served) -> (Client, SocketAddr) {
    let client = Client::balanced([server.addr.to_string().as_str()]).unwrap();
    (client.clone(), mount(client).await)
}

/// The whole answer to a request that closes its connection.
async fn raw(addr: SocketAddr, request: &str) -> String {
    let mut socket = patient(TcpStream::connect(addr)).await.unwrap();
    patient(socket.write_all(request.as_bytes())).await.unwrap();
    let mut answer = Vec::new();
    patient(socket.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn ask(addr: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    raw(addr, &request).await
}

#[tokio::test]
async fn a_mounted_application_answers_what_is_left_to_it() {
    let app = Router::new()
        .route("/hello", get(async || "hello"))
        .route("/echo", any(async |body: axum::body::Bytes| body));
    let server = serve(afcgi::Config::default(), http(app));
    let (_client, addr) = mounted(&server).await;
    assert!(ask(addr, "/own").await.ends_with("\r\n\r\nown"));
    let answer = ask(addr, "/hello").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-length: 5\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(ask(addr, "/none").await.starts_with("HTTP/1.1 404"));
    let chunked = "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                   Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    assert!(raw(addr, chunked).await.ends_with("\r\n\r\nbody"));
}

#[tokio::test]
async fn errors_are_answers() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    let addr = mount(Client::balanced([nobody.as_str()]).unwrap()).await;
    let answer = ask(addr, "/").await;
    assert!(
        answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
        "{answer}"
    );
    // The reason is for the log.
    assert!(answer.ends_with("\r\n\r\n502 Bad Gateway\n"), "{answer}");

    let peer = Peer::new().await;
    let client = crate::common::peer::client(peer.addr, |config| {
        config.first_byte_timeout = Some(Duration::from_millis(50));
        config.retries = 0;
    });
    tokio::spawn(async move {
        let mut link = peer.accept_controlled().await;
        let (id, _) = link.request().await.unwrap();
        link.say(&afcgi_testkit::record::end(id, 0, 2)).await;
        while link.next().await.is_some() {}
    });
    let addr = mount(client).await;
    let answer = ask(addr, "/").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    assert!(ask(addr, "/").await.starts_with("HTTP/1.1 504 "));
}

#[tokio::test]
async fn a_response_that_breaks_off_is_seen_to_do_so() {
    let peer = Peer::new().await;
    let client = crate::common::peer::client(peer.addr, |_| {});
    tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        let (id, _) = link.request().await.unwrap();
        let head = afcgi_testkit::record::record(6, id, b"A: b\n\nhalf");
        link.say(&head).await;
    });
    let addr = mount(client).await;
    // Whether hyper has sent anything by then is its affair.
    let answer = ask(addr, "/").await;
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
}

type Socket = WebSocketStream<TcpStream>;

async fn open(addr: SocketAddr, path: &str) -> Socket {
    let socket = patient(TcpStream::connect(addr)).await.unwrap();
    let url = format!("ws://{addr}{path}");
    let (socket, _) = patient(tokio_tungstenite::client_async(url, socket))
        .await
        .unwrap();
    socket
}

#[tokio::test]
async fn websockets_go_through() {
    let server = serve(afcgi::Config::default(), http(websocket()));
    let (client, addr) = mounted(&server).await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(open(addr, "/echo").await);
    }
    for size in [0, 1, 126, 65_536, 1 << 20] {
        let content: Vec<u8> = (0..size).map(|at: usize| (at % 251) as u8).collect();
        let message = tungstenite::Message::binary(content);
        for socket in &mut sockets {
            patient(socket.send(message.clone())).await.unwrap();
        }
        for socket in &mut sockets {
            let answer = patient(socket.next()).await.unwrap().unwrap();
            assert!(answer == message, "{size} bytes differ");
        }
    }
    let stats = client.stats();
    assert_eq!((stats.upgrades, stats.active, stats.opened), (20, 20, 1));
    // The client closes.
    for socket in &mut sockets[..10] {
        patient(socket.close(None)).await.unwrap();
        assert!(patient(socket.next()).await.unwrap().unwrap().is_close());
    }
    // The application closes.
    for socket in &mut sockets[10..15] {
        let leave = tungstenite::Message::text("leave");
        patient(socket.send(leave)).await.unwrap();
        assert!(patient(socket.next()).await.unwrap().unwrap().is_close());
        assert!(patient(socket.next()).await.is_none());
    }
    // The client is gone.
    drop(sockets);
    eventually("all are over", || client.stats().active == 0).await;
    eventually("there too", || server.stats.snapshot().active == 0).await;
    assert_eq!(client.stats().aborts, 0);
}

#[tokio::test]
async fn a_websocket_may_be_declined() {
    let app = Router::new().route(
        "/echo",
        any(async || (axum::http::StatusCode::FORBIDDEN, "no")),
    );
    let server = serve(afcgi::Config::default(), http(app));
    let (client, addr) = mounted(&server).await;
    let socket = patient(TcpStream::connect(addr)).await.unwrap();
    let url = format!("ws://{addr}/echo");
    match patient(tokio_tungstenite::client_async(url, socket)).await {
        Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), 403),
        other => panic!("{other:?}"),
    }
    eventually("it is over", || client.stats().active == 0).await;
    assert_eq!(client.stats().upgrades, 0);
}

#[tokio::test]
async fn who_was_not_offered_an_upgrade_is_not_asked_for_one() {
    let peer = Peer::new().await;
    let client = crate::common::peer::client(peer.addr, |_| {});
    let serving = tokio::spawn(async move {
        let mut link = peer.accept_controlled().await;
        let mut params = Vec::new();
        loop {
            let record = link.next().await.unwrap();
            params.extend_from_slice(&record.content);
            // It is ended as ever.
            if record.code == 5 {
                break;
            }
        }
        let answer = afcgi_testkit::record::response(1, b"Status: 101\nUpgrade: websocket\n\n");
        link.say(&answer).await;
        String::from_utf8_lossy(&params).into_owned()
    });
    let addr = mount(client).await;
    let request =
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n";
    assert!(raw(addr, request).await.starts_with("HTTP/1.1 502 "));
    let params = patient(serving).await.unwrap();
    assert!(!params.contains("UPGRADE"), "{params}");
}

#[tokio::test]
async fn the_bytes_of_a_tunnel_are_plain_and_each_half_closes_by_itself() {
    let server = serve(
        afcgi::Config::default(),
        afcgi::native(async |request: afcgi::Request| {
            let mut stdout = request.stdout();
            // The first of what is said comes with the head.
            let head = b"Status: 101\r\nUpgrade: x\r\n\r\nfirst";
            stdout.write(head).await?;
            let mut length = 0;
            let mut stdin = request.stdin();
            while let Some(content) = stdin.read().await? {
                length += content.len();
            }
            stdout.write(format!(" {length}").as_bytes()).await?;
            std::io::Result::Ok(())
        }),
    );
    let (client, addr) = mounted(&server).await;
    let mut socket = patient(TcpStream::connect(addr)).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    patient(socket.write_all(request.as_bytes())).await.unwrap();
    let mut heard = String::new();
    while !heard.ends_with("first") {
        let mut buffer = [0; 1000];
        let count = patient(socket.read(&mut buffer)).await.unwrap();
        assert!(count > 0, "{heard}");
        heard.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    assert!(heard.contains("connection: upgrade\r\n"), "{heard}");
    patient(socket.write_all(&vec![b'x'; 3_000_000]))
        .await
        .unwrap();
    patient(socket.shutdown()).await.unwrap();
    let mut rest = String::new();
    patient(socket.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, " 3000000");
    eventually("it is over", || client.stats().active == 0).await;
}

#[tokio::test]
async fn a_mount_may_be_mounted() {
    let app = websocket().route("/hello", get(async || "hello"));
    let inner = serve(afcgi::Config::default(), http(app));
    let client = Client::balanced([inner.addr.to_string().as_str()]).unwrap();
    // An application over FastCGI that asks another one.
    let outer = Router::new().fallback_service(client.into_service());
    let outer = serve(afcgi::Config::default(), http(outer));
    let (client, addr) = mounted(&outer).await;
    assert!(ask(addr, "/hello").await.ends_with("\r\n\r\nhello"));
    let mut socket = open(addr, "/echo").await;
    let message = tungstenite::Message::text("through two");
    patient(socket.send(message.clone())).await.unwrap();
    assert_eq!(patient(socket.next()).await.unwrap().unwrap(), message);
    drop(socket);
    eventually("all is over", || client.stats().active == 0).await;
}
