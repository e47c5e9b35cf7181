//! WebSocket through a real codec at both ends, on a request under flow control.

use crate::common::upgrade::{offered, websocket};
use crate::common::{Client, PATIENCE, Served, eventually, patient, serve};
use afcgi::{Config, http};
use afcgi_proto::inbox::Read;
use afcgi_proto::web::{self, Connection, Event, Input, Output};
use afcgi_proto::{Handle, Role};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, protocol};

/// A WebSocket client on one request of a connection under flow control.
async fn open_websocket(server: &Served) -> WebSocketStream<DuplexStream> {
    let config = web::Config {
        receive_buffer: 10_000,
        ..web::Config::default()
    };
    let mut client = server.client().await;
    client.connection = Connection::new(config);
    client.connection.probe();
    client.flush().await;
    loop {
        assert!(client.fill().await);
        if let Some(Event::Values(values)) = client.connection.poll_event() {
            assert!(values.flow_control.is_some() && values.upgrade == Some(true));
            break;
        }
    }
    let request = client.begin(Role::Responder, &offered());
    let head = client.stdout(request, 1).await;
    assert!(head.ends_with(b"\r\n\r\n"));
    let (near, far) = duplex(64 * 1024);
    tokio::spawn(carry(client, request, far));
    WebSocketStream::from_raw_socket(near, protocol::Role::Client, None).await
}

/// Carries bytes between a request and the end of a pipe, until the request has ended.
async fn carry(mut client: Client, request: Handle, far: DuplexStream) {
    let (mut from_peer, mut to_peer) = tokio::io::split(far);
    let mut open = true;
    let mut buffer = vec![0; 16 * 1024];
    while !matches!(client.connection.ended(request), Ok(Some(_))) {
        let room = client.connection.room(request, Output::Stdin).unwrap_or(0);
        let most = room.min(buffer.len());
        tokio::select! {
            count = from_peer.read(&mut buffer[..most]), if open && most > 0 => match count.unwrap_or(0) {
                0 => {
                    open = false;
                    let _ = client.connection.end(request, Output::Stdin);
                }
                count => client.put(request, Output::Stdin, &buffer[..count]),
            },
            () = async { client.socket.readable().await.unwrap() } => {
                client.fill().await;
                while let Ok(Read::Content(content)) =
                    client.connection.read(request, Input::Stdout, usize::MAX)
                {
                    if to_peer.write_all(&content).await.is_err() {
                        break;
                    }
                }
            }
        }
        client.flush().await;
    }
}

#[tokio::test]
async fn messages_of_any_size_come_back() {
    echoes_messages().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_several_threads_too() {
    echoes_messages().await;
}

async fn echoes_messages() {
    let server = serve(Config::default(), http(websocket()));
    let mut socket = open_websocket(&server).await;
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let content: Vec<u8> = (0..size).map(|at: usize| (at % 251) as u8).collect();
        let message = tungstenite::Message::binary(content);
        patient(socket.send(message.clone())).await.unwrap();
        let answer = patient(socket.next()).await.unwrap().unwrap();
        assert!(answer == message, "{size} bytes differ");
    }
    // Both ways at the same time.
    let (mut sender, mut receiver) = socket.split();
    let text = tungstenite::Message::text("x".repeat(100_000));
    let sending = async {
        for _ in 0..20 {
            sender.send(text.clone()).await.unwrap();
        }
    };
    let receiving = async {
        for _ in 0..20 {
            assert!(receiver.next().await.unwrap().unwrap() == text);
        }
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(sending, receiving) })
        .await
        .unwrap();
}

#[tokio::test]
async fn either_side_may_close_a_websocket() {
    let server = serve(Config::default(), http(websocket()));
    let mut socket = open_websocket(&server).await;
    patient(socket.close(None)).await.unwrap();
    let answer = patient(socket.next()).await.unwrap().unwrap();
    assert!(answer.is_close());
    assert!(patient(socket.next()).await.is_none());

    let mut socket = open_websocket(&server).await;
    let leave = tungstenite::Message::text("leave");
    patient(socket.send(leave)).await.unwrap();
    let answer = patient(socket.next()).await.unwrap().unwrap();
    let tungstenite::Message::Close(Some(frame)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!((u16::from(frame.code), &*frame.reason), (4000, "you asked"));
    assert!(patient(socket.next()).await.is_none());
    eventually("both have ended", || server.stats.snapshot().served == 2).await;
}
