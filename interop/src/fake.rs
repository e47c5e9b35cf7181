//! Applications made by hand: each does one thing that an application should not do, or does rarely.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use crate::raw::{self, Record, kind, pair, record};

/// An application on a port of 127.0.0.1, as long as this lives.
#[derive(Debug)]
pub struct Fake {
    port: u16,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Fake {
    /// An application that does with each connection what `serve` says. It is told which connection it is, from 0.
    pub async fn start<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_at(([127, 0, 0, 1], 0), serve).await
    }

    /// The same at an address, with any port if that is 0.
    pub async fn start_at<F>(
        address: ([u8; 4], u16),
        serve: impl Fn(TcpStream, usize) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = std::net::SocketAddr::from(address);
        let listener = TcpListener::bind(address).await.expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                _ = socket.set_nodelay(true);
                tokio::spawn(serve(socket, count.fetch_add(1, Ordering::Relaxed)));
            }
        });
        Self {
            port,
            connections,
            task,
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections it has been sent so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Writes, and takes it that the other side may have closed.
pub async fn write(socket: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    _ = socket.write_all(bytes).await;
}

/// The answer to GET_VALUES of an application that multiplexes, or one that says it does not.
pub fn values(multiplexes: bool) -> Vec<u8> {
    let value = if multiplexes { "1" } else { "0" };
    record(
        kind::GET_VALUES_RESULT,
        0,
        &[pair("FCGI_MPXS_CONNS", value), pair("FCGI_MAX_CONNS", "64")].concat(),
    )
}

/// END_REQUEST with a protocol status.
pub fn end(id: u16, protocol_status: u8) -> Vec<u8> {
    record(
        kind::END_REQUEST,
        id,
        &[0, 0, 0, 0, protocol_status, 0, 0, 0],
    )
}

/// A whole response.
pub fn response(id: u16, body: &str) -> Vec<u8> {
    let head = format!(
        "Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [
        record(kind::STDOUT, id, (head + body).as_bytes()),
        record(kind::STDOUT, id, b""),
        end(id, 0),
    ]
    .concat()
}

/// The next request that is complete: reads up to its last record, the empty STDIN. GET_VALUES is answered on the way, if `answer` says
/// how. `None`: the connection was closed.
pub async fn next_request(socket: &mut TcpStream, answer: Option<&[u8]>) -> Option<u16> {
    loop {
        match raw::read(socket).await? {
            Record {
                kind: kind::GET_VALUES,
                ..
            } => {
                if let Some(answer) = answer {
                    write(socket, answer).await;
                }
            }
            Record {
                kind: kind::STDIN,
                id,
                content,
            } if content.is_empty() => return Some(id),
            _ => {}
        }
    }
}

/// The records of a connection as they come, for an application that does something else in between: no longer to wait for one loses no part
/// of it.
pub fn records(socket: TcpStream) -> (UnboundedReceiver<Record>, OwnedWriteHalf) {
    let (mut from, to) = socket.into_split();
    let (tell, told) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(record) = raw::read(&mut from).await {
            if tell.send(record).is_err() {
                return;
            }
        }
    });
    (told, to)
}
