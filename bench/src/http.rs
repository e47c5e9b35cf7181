//! The HTTP/1.1 generator: keep-alive clients, each with one GET on its way, closed loop, one thread. Every answer is
//! checked: its framing (Content-Length or chunked), status 200 and the expected body. Enough to load a gateway on
//! loopback with; not a general client.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::load::{Expect, Limit, LoadError, Output, Stats, Stream, Target};

/// What is sent, where, and by how many.
#[derive(Clone, Debug)]
pub struct Config {
    /// The web server.
    pub target: Target,
    /// Clients, each with its connection.
    pub clients: usize,
    /// Path and query of the GET.
    pub path: String,
    /// What must come back.
    pub expect: Expect,
    /// How long to wait without any answer before the run fails.
    pub stall: Duration,
}

/// A running load. Dropping it closes its connections.
#[derive(Debug)]
pub struct Load {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    shared: Shared,
    stall: Duration,
}

#[derive(Debug)]
struct Client {
    stream: Stream,
    input: Vec<u8>,
    output: Output,
    started: Option<Duration>,
}

#[derive(Debug)]
struct Shared {
    request: Vec<u8>,
    expect: Expect,
    /// The last good answer. Its Date changes once a second, and then it is parsed anew.
    template: Vec<u8>,
    stats: Stats,
    reissue: bool,
    epoch: Instant,
    now: Duration,
    buffer: Vec<u8>,
}

impl Load {
    /// Connects; nothing is sent before [`Load::run`].
    pub fn connect(config: Config) -> Result<Self, LoadError> {
        let poll = Poll::new()?;
        let mut clients = Vec::with_capacity(config.clients);
        for index in 0..config.clients {
            let stream = Stream::connect(&config.target, poll.registry(), Token(index))?;
            clients.push(Client {
                stream,
                input: Vec::new(),
                output: Output::default(),
                started: None,
            });
        }
        let shared = Shared {
            request: request("GET", &config.path, ""),
            expect: config.expect,
            template: Vec::new(),
            stats: Stats::default(),
            reissue: true,
            epoch: Instant::now(),
            now: Duration::ZERO,
            buffer: vec![0; 64 * 1024],
        };
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            clients,
            shared,
            stall: config.stall,
        })
    }

    /// Counters since the start or the last reset.
    pub fn stats(&mut self) -> &mut Stats {
        &mut self.shared.stats
    }

    /// Clients that wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.clients
            .iter()
            .filter(|client| client.started.is_some())
            .count()
    }

    /// Lets every idle client send, and each send again as soon as it is answered, until a bound is reached. Returns
    /// with requests in flight; may be called again.
    pub fn run(&mut self, limit: Limit) -> Result<(), LoadError> {
        self.shared.reissue = true;
        self.shared.now = self.shared.epoch.elapsed();
        for client in &mut self.clients {
            if client.started.is_none() {
                client.send(&mut self.shared)?;
            }
        }
        self.turn_until(limit)
    }

    /// Sends nothing more; returns when no client waits, or at the limit with an error if one does.
    pub fn drain(&mut self, time: Duration) -> Result<(), LoadError> {
        self.shared.reissue = false;
        let requests = self.in_flight() as u64;
        if requests > 0 {
            self.turn_until(Limit { time, requests })?;
        }
        match self.in_flight() {
            0 => Ok(()),
            unanswered => Err(LoadError::Stalled { unanswered }),
        }
    }

    fn turn_until(&mut self, limit: Limit) -> Result<(), LoadError> {
        let start = Instant::now();
        let enough = self.shared.stats.completed.saturating_add(limit.requests);
        let mut progress = (start, self.shared.stats.completed);
        loop {
            let now = Instant::now();
            let left = limit.time.saturating_sub(now - start);
            if left.is_zero() || self.shared.stats.completed >= enough {
                return Ok(());
            }
            if progress.1 != self.shared.stats.completed {
                progress = (now, self.shared.stats.completed);
            } else if now - progress.0 > self.stall {
                return Err(LoadError::Stalled {
                    unanswered: self.in_flight(),
                });
            }
            match self
                .poll
                .poll(&mut self.events, Some(left.min(Duration::from_millis(100))))
            {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            self.shared.now = self.shared.epoch.elapsed();
            for event in &self.events {
                let Some(client) = self.clients.get_mut(event.token().0) else {
                    continue;
                };
                if event.is_writable() {
                    client
                        .output
                        .flush(&mut client.stream, &mut self.shared.stats)?;
                }
                if event.is_readable() || event.is_read_closed() {
                    client.receive(&mut self.shared)?;
                }
            }
        }
    }
}

impl Client {
    fn send(&mut self, shared: &mut Shared) -> Result<(), LoadError> {
        self.started = Some(shared.now);
        self.output.bytes.extend_from_slice(&shared.request);
        Ok(self.output.flush(&mut self.stream, &mut shared.stats)?)
    }

    fn receive(&mut self, shared: &mut Shared) -> Result<(), LoadError> {
        loop {
            let got = match self.stream.read(&mut shared.buffer) {
                Ok(0) => {
                    return Err(LoadError::Closed {
                        unanswered: usize::from(self.started.is_some()),
                    });
                }
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            shared.stats.reads += 1;
            shared.stats.bytes_in += got as u64;
            let Some(started) = self.started else {
                return Err(LoadError::Protocol(
                    "bytes that nobody asked for".to_owned(),
                ));
            };
            let same = self.input.is_empty() && shared.buffer.get(..got) == Some(&shared.template);
            if !same {
                self.input.extend_from_slice(&shared.buffer[..got]);
                match answer(&self.input)? {
                    None => continue,
                    Some((status, body, length)) if length == self.input.len() => {
                        shared.expect.check(status, &body)?
                    }
                    Some(_) => {
                        return Err(LoadError::Protocol("bytes behind the answer".to_owned()));
                    }
                }
                std::mem::swap(&mut shared.template, &mut self.input);
                self.input.clear();
            }
            self.started = None;
            shared.stats.completed += 1;
            let latency = shared.now.saturating_sub(started).as_nanos();
            shared
                .stats
                .latency
                .saturating_record(u64::try_from(latency).unwrap_or(u64::MAX).max(1));
            if shared.reissue {
                self.send(shared)?;
            }
            if got < shared.buffer.len() {
                return Ok(());
            }
        }
    }
}

/// The head of a request; `fields` are lines of their own.
pub(crate) fn request(method: &str, path: &str, fields: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: afcgi-bench\r\nAccept: */*\r\n{fields}\r\n"
    )
    .into_bytes()
}

/// The body of one GET on a connection of its own, which must be answered with status 200 within `patience`.
pub fn get(address: SocketAddr, path: &str, patience: Duration) -> Result<Vec<u8>, LoadError> {
    let deadline = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.write_all(&request("GET", path, ""))?;
    let (mut input, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LoadError::Stalled { unanswered: 1 });
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => return Err(LoadError::Closed { unanswered: 1 }),
            Ok(got) => input.extend_from_slice(&piece[..got]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        }
        if let Some((status, body, _)) = answer(&input)? {
            Expect::Ok.check(status, &body)?;
            return Ok(body);
        }
    }
}

/// Status, body and length of a complete answer; `None` while it is not complete.
pub(crate) fn answer(input: &[u8]) -> Result<Option<(u16, Vec<u8>, usize)>, LoadError> {
    let protocol = |error: httparse::Error| LoadError::Protocol(format!("not HTTP: {error}"));
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(input).map_err(protocol)? else {
        return Ok(None);
    };
    let status = response.code.unwrap_or(0);
    let field = |name: &str| {
        response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    };
    if let Some(length) = field("content-length") {
        let length: usize = std::str::from_utf8(length)
            .ok()
            .and_then(|length| length.parse().ok())
            .ok_or_else(|| LoadError::Protocol("a strange Content-Length".to_owned()))?;
        let end = head.saturating_add(length);
        return Ok(input
            .get(head..end)
            .map(|body| (status, body.to_vec(), end)));
    }
    if !field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"chunked")) {
        return Err(LoadError::Protocol(format!(
            "status {status} with a body that only a close would end"
        )));
    }
    let (mut at, mut body) = (head, Vec::new());
    loop {
        let rest = input.get(at..).unwrap_or_default();
        let size = httparse::parse_chunk_size(rest)
            .map_err(|_| LoadError::Protocol("a strange chunk".to_owned()))?;
        let httparse::Status::Complete((line, size)) = size else {
            return Ok(None);
        };
        let start = at + line;
        let end = usize::try_from(size)
            .ok()
            .and_then(|size| start.checked_add(size))
            .unwrap_or(usize::MAX - 2);
        let Some(chunk) = input
            .get(start..end)
            .filter(|_| input.get(end..end + 2).is_some())
        else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        at = end + 2;
        if size == 0 {
            return Ok(Some((status, body, at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_complete_at_their_last_byte() {
        let cases: [&[u8]; 2] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        ];
        for case in cases {
            for cut in 0..case.len() {
                assert!(
                    answer(&case[..cut]).unwrap().is_none(),
                    "{cut} bytes of {}",
                    String::from_utf8_lossy(case)
                );
            }
            assert_eq!(
                answer(case).unwrap(),
                Some((200, b"hello".to_vec(), case.len()))
            );
        }
    }

    #[test]
    fn answers_that_cannot_be_framed_are_errors() {
        assert!(answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(answer(b"\x01\x06\x00\x01").is_err());
        assert!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").is_err());
        assert!(answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").is_err());
    }
}
