//! A FastCGI client for the tests, on the protocol crate, and a server to test.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

pub mod peer;
pub mod upgrade;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use afcgi::{App, Config, Listener, Server, Stats};
use afcgi_proto::inbox::Read;
use afcgi_proto::web::{self, Connection, Input, Output};
use afcgi_proto::{EndRequest, Handle, Role, params::encode_pair};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a port that is free, stopped when it is dropped.
pub struct Served {
    pub addr: SocketAddr,
    pub stats: Stats,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<io::Result<()>>,
}

pub fn serve(config: Config, app: impl App + Sync) -> Served {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::new()
        .listen(listener)
        .config(config)
        .signals(false)
        .stop_when(async {
            let _ = stopped.await;
        });
    let stats = server.stats();
    let task = tokio::spawn(server.serve(app));
    Served {
        addr,
        stats,
        stop: Some(stop),
        task,
    }
}

impl Served {
    pub async fn client(&self) -> Client {
        Client::new(TcpStream::connect(self.addr).await.unwrap())
    }

    /// Asks the server to stop, without waiting.
    pub fn ask_to_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Returns when the server has stopped.
    pub async fn stopped(self) -> io::Result<()> {
        patient(self.task).await.unwrap()
    }
}

/// Fails when a future takes too long.
pub async fn patient<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("took too long")
}

/// Returns when a condition holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What was answered to a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub stdout: Bytes,
    pub stderr: Bytes,
    pub end: EndRequest,
}

impl Answer {
    /// The part of STDOUT behind the head.
    pub fn body(&self) -> &[u8] {
        let at = self
            .stdout
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head");
        &self.stdout[at + 4..]
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.to_vec()).unwrap()
    }
}

/// One connection to a server.
pub struct Client {
    pub socket: TcpStream,
    pub connection: Connection,
    buffer: Vec<u8>,
}

impl Client {
    pub fn new(socket: TcpStream) -> Self {
        let config = web::Config {
            requests: u16::MAX,
            receive_buffer: usize::MAX,
            ..web::Config::default()
        };
        Self {
            socket,
            connection: Connection::new(config),
            buffer: vec![0; 64 * 1024],
        }
    }

    /// Begins a request with its parameters; STDIN is open.
    pub fn begin(&mut self, role: Role, params: &[(&str, &str)]) -> Handle {
        let handle = self.connection.open().unwrap();
        self.connection.begin(handle, role).unwrap();
        let mut encoded = Vec::new();
        for (name, value) in params {
            assert!(encode_pair(&mut encoded, name.as_bytes(), value.as_bytes()));
        }
        self.put(handle, Output::Params, &encoded);
        self.connection.end(handle, Output::Params).unwrap();
        handle
    }

    /// A GET for a path, complete.
    pub fn get(&mut self, path: &str) -> Handle {
        let handle = self.begin(
            Role::Responder,
            &[("REQUEST_METHOD", "GET"), ("SCRIPT_NAME", path)],
        );
        self.connection.end(handle, Output::Stdin).unwrap();
        handle
    }

    /// A POST with a body, sent as far as it goes by itself.
    pub async fn upload(&mut self, body: &[u8]) -> Handle {
        let handle = self.begin(Role::Responder, &[("REQUEST_METHOD", "POST")]);
        let mut rest = body;
        while !rest.is_empty() {
            let count = self.connection.write(handle, Output::Stdin, rest).unwrap();
            rest = &rest[count..];
            self.flush().await;
        }
        self.connection.end(handle, Output::Stdin).unwrap();
        handle
    }

    /// Content that fits into the output buffer.
    pub fn put(&mut self, handle: Handle, output: Output, content: &[u8]) {
        assert_eq!(
            self.connection.write(handle, output, content),
            Ok(content.len())
        );
    }

    /// Writes all that is pending.
    pub async fn flush(&mut self) {
        while !self.connection.transmit().is_empty() {
            let count = patient(self.socket.write(self.connection.transmit()))
                .await
                .unwrap();
            self.connection.transmitted(count);
            self.connection.next_round();
        }
    }

    /// Reads once; `false` at the end of the connection.
    pub async fn fill(&mut self) -> bool {
        let count = patient(self.socket.read(&mut self.buffer))
            .await
            .unwrap_or(0);
        if count == 0 {
            let _ = self.connection.end_of_input();
            return false;
        }
        let received = &self.buffer[..count];
        assert_eq!(self.connection.receive(Instant::now(), received), Ok(count));
        true
    }

    /// The whole answer to a request.
    pub async fn answer(&mut self, handle: Handle) -> Answer {
        self.flush().await;
        let end = loop {
            if let Some(end) = self.connection.ended(handle).unwrap() {
                break end;
            }
            self.fill().await;
        };
        let (stdout, stderr) = (
            self.read(handle, Input::Stdout).into(),
            self.read(handle, Input::Stderr).into(),
        );
        self.connection.close(handle, Instant::now());
        Answer {
            stdout,
            stderr,
            end,
        }
    }

    /// Reads until a request has brought this many bytes of STDOUT, and takes those.
    pub async fn stdout(&mut self, handle: Handle, least: usize) -> Vec<u8> {
        self.flush().await;
        while self.connection.readable(handle, Input::Stdout).unwrap() < least {
            assert!(self.fill().await, "the connection ended");
        }
        self.read(handle, Input::Stdout)
    }

    /// Takes all that has come of a stream.
    fn read(&mut self, handle: Handle, input: Input) -> Vec<u8> {
        let mut all = Vec::new();
        while let Ok(Read::Content(content)) = self.connection.read(handle, input, usize::MAX) {
            all.extend_from_slice(&content);
        }
        all
    }

    /// Writes bytes as they are.
    pub async fn raw(&mut self, bytes: &[u8]) {
        patient(self.socket.write_all(bytes)).await.unwrap();
    }

    /// All that comes until the server closes the connection.
    pub async fn until_closed(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        // A reset is an end too.
        let _ = patient(self.socket.read_to_end(&mut all)).await;
        all
    }
}
