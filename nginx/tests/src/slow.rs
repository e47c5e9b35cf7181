//! Clients that do not take their response, and those beside them.

use std::time::Duration;

use afcgi_interop::http::{client, get_ok};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::nginx::Nginx;

/// A client that has sent a GET and reads only when it is told to.
#[derive(Debug)]
pub struct Slow(TcpStream);

impl Slow {
    /// Asks for a path.
    pub async fn get(nginx: &Nginx, path: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // What the kernel holds for it is not what is to be seen.
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let address = ([127, 0, 0, 1], nginx.port()).into();
        let mut stream = socket.connect(address).await.expect("a connection");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("a request");
        Self(stream)
    }

    /// Waits until nginx has begun to answer.
    pub async fn is_answered(&self) {
        self.0.readable().await.expect("an answer");
    }

    /// Reads to the end: how many bytes came, head included.
    pub async fn read_to_end(mut self) -> usize {
        let mut all = Vec::new();
        _ = self.0.read_to_end(&mut all).await;
        all.len()
    }
}

/// So many clients that ask for `/` one request after the other; each answer must be whole. Gives the longest that one has waited.
pub async fn ask(nginx: &Nginx, clients: usize, requests: usize) -> Duration {
    let longest = join_all((0..clients).map(async |_| {
        let client = client();
        let mut longest = Duration::ZERO;
        for _ in 0..requests {
            let start = std::time::Instant::now();
            assert_eq!(get_ok(&client, &nginx.url("/")).await, "Hello world\n");
            longest = longest.max(start.elapsed());
        }
        longest
    }))
    .await;
    longest.into_iter().max().unwrap_or_default()
}

/// Resident memory of a process in bytes.
pub fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    let kilobytes: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number of kB");
    kilobytes * 1024
}
