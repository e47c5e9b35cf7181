//! Web servers that give one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub(crate) const MODULE: &str = r#"{"entries":900,"entries_used":1,"addresses":[
{"address":"127.0.0.1:5000","multiplexes":true,"flow_control":true,"upgrade":null,"connections":2,"active":130,"draining":3,"waiting":0,"requests":1000,"aside":0,"bytes_sent":5000,"bytes_received":2500000,"aborts":17,"stalls":4,"stall_aborts":0,"refusals":0,"connects":2,"connect_failures":0,"retired":0,"astray":0}
]}"#;

/// A web server that gives one answer.
pub(crate) struct Web {
    pub(crate) port: u16,
    /// Requests that came.
    pub(crate) asked: Arc<AtomicUsize>,
    /// Answers that it may give.
    pub(crate) may: Arc<Semaphore>,
}

impl Web {
    /// With the bytes of a response.
    pub(crate) async fn raw(answer: Vec<u8>, may: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, may) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(may)));
        let (count, places) = (asked.clone(), may.clone());
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (count, places, answer) = (count.clone(), places.clone(), answer.clone());
                tokio::spawn(serve(socket, count, places, answer));
            }
        });
        Self { port, asked, may }
    }

    pub(crate) async fn with(body: &str) -> Self {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
        Self::raw(format!("{head}{body}").into_bytes(), 1_000_000).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/status", self.port)
    }
}

async fn serve(
    mut socket: TcpStream,
    count: Arc<AtomicUsize>,
    places: Arc<Semaphore>,
    answer: Arc<Vec<u8>>,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match socket.read(&mut byte).await {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    count.fetch_add(1, Ordering::SeqCst);
    let Ok(place) = places.acquire().await else {
        return;
    };
    place.forget();
    _ = socket.write_all(&answer).await;
    _ = socket.shutdown().await;
}
