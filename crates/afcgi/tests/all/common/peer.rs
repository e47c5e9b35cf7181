//! Applications made by hand: what they read and write is up to the test.

use std::net::SocketAddr;
use std::time::Duration;

use afcgi::client::{Client, Config, Error, ResponseBody};
use afcgi_testkit::record::{Record, code, pairs, record, take};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::patient;

pub type Request = http::Request<Full<Bytes>>;

pub fn get(path: &str) -> Request {
    http::Request::get(path).body(Full::default()).unwrap()
}

pub fn post(path: &str, body: impl Into<Bytes>) -> Request {
    let body = Full::new(body.into());
    http::Request::post(path).body(body).unwrap()
}

/// An answer to GET_VALUES is waited for so long, whatever is known of the application.
pub fn answers_within(config: &mut Config, wait: Duration) {
    config.patience.unknown = wait;
    config.patience.shared = wait;
    config.patience.beside = wait;
}

/// A client with limits for tests. An answer to GET_VALUES is waited for longer than a busy machine takes.
pub fn client(addr: SocketAddr, change: impl FnOnce(&mut Config)) -> Client {
    let mut config = Config::default();
    answers_within(&mut config, Duration::from_secs(3));
    config.patience.silent = Duration::from_secs(30);
    config.retry_pause = Duration::from_millis(1);
    change(&mut config);
    let address = addr.to_string();
    Client::builder()
        .address(address)
        .config(config)
        .build()
        .unwrap()
}

pub async fn ask(client: &Client, request: Request) -> Result<http::Response<ResponseBody>, Error> {
    patient(client.request(request)).await
}

/// The whole body.
pub async fn body(response: http::Response<ResponseBody>) -> Result<Bytes, Error> {
    Ok(patient(response.into_body().collect()).await?.to_bytes())
}

/// Response head and body of a request that succeeds.
pub async fn text(client: &Client, request: Request) -> String {
    let response = ask(client, request).await.unwrap();
    String::from_utf8(body(response).await.unwrap().to_vec()).unwrap()
}

/// Where an application listens.
pub struct Peer {
    listener: TcpListener,
    pub addr: SocketAddr,
}

impl Peer {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        Self { listener, addr }
    }

    pub fn from_listener(listener: TcpListener) -> Self {
        let addr = listener.local_addr().unwrap();
        Self { listener, addr }
    }

    pub async fn accept(&self) -> Link {
        let (socket, _) = patient(self.listener.accept()).await.unwrap();
        Link::new(socket)
    }

    /// Accepts a connection, and says on it that it multiplexes.
    pub async fn accept_shared(&self) -> Link {
        let mut link = self.accept().await;
        link.answer_values(&[("FCGI_MPXS_CONNS", "1")]).await;
        link
    }

    /// The same, with flow control.
    pub async fn accept_controlled(&self) -> Link {
        let mut link = self.accept().await;
        let values = [("FCGI_MPXS_CONNS", "1"), ("FCGI_FLOW_CONTROL", "65536")];
        link.answer_values(&values).await;
        link
    }

    /// Accepts a connection, and says on it that it does not multiplex.
    pub async fn say_no(&self, most: &str) {
        let mut link = self.accept().await;
        let values = [("FCGI_MPXS_CONNS", "0"), ("FCGI_MAX_CONNS", most)];
        link.answer_values(&values).await;
        assert!(link.next().await.is_none());
    }
}

/// The application's end of a connection.
pub struct Link {
    pub socket: TcpStream,
    bytes: Vec<u8>,
}

impl Link {
    pub fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            bytes: Vec::new(),
        }
    }

    /// The next record; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Record> {
        loop {
            let mut rest = &self.bytes[..];
            if let Some(record) = take(&mut rest) {
                self.bytes = rest.to_vec();
                return Some(record);
            }
            let mut buffer = [0; 65_536];
            match patient(self.socket.read(&mut buffer)).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
            }
        }
    }

    pub async fn say(&mut self, bytes: &[u8]) {
        patient(self.socket.write_all(bytes)).await.unwrap();
    }

    pub async fn answer_values(&mut self, values: &[(&str, &str)]) {
        let asked = self.next().await.unwrap();
        assert_eq!(asked.code, code::GET_VALUES);
        self.say(&record(code::GET_VALUES_RESULT, 0, &pairs(values)))
            .await;
    }

    /// Reads a request to the end of its STDIN; its id, and how long its body was.
    pub async fn request(&mut self) -> Option<(u16, usize)> {
        let mut length = 0;
        loop {
            let record = self.next().await?;
            match record.code {
                code::STDIN if record.content.is_empty() => return Some((record.id, length)),
                code::STDIN => length += record.content.len(),
                code::BEGIN | code::PARAMS => {}
                other => panic!("record {other}"),
            }
        }
    }

    /// Reads a request, and answers it with STDOUT as given.
    pub async fn answer(&mut self, stdout: &str) -> Option<u16> {
        let (id, _) = self.request().await?;
        let response = afcgi_testkit::record::response(id, stdout.as_bytes());
        self.say(&response).await;
        Some(id)
    }

    /// Answers requests until the connection ends; says how many they were.
    pub async fn answer_all(&mut self, stdout: &str) -> usize {
        let mut count = 0;
        while self.answer(stdout).await.is_some() {
            count += 1;
        }
        count
    }
}
