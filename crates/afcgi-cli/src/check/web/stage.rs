//! The vocabulary of the cases for web servers: ask it by HTTP, take the request that it sends, answer as an application would, or not.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::check::case::{Failure, Outcome, deviation, skip};
use crate::check::link::Link;
use crate::check::probe::because;
use crate::check::raw::{self, Record, first_pairs, kind, pair, pairs, record, stream};
use crate::check::transcript::{Scribe, Transcript};

/// Bytes of an HTTP response that are read.
const MOST: usize = 16 << 20;

/// Where the web server is asked, and where it finds its application.
#[derive(Debug)]
pub struct Place {
    /// Where the tool listens.
    pub listener: TcpListener,
    /// `HOST:PORT` of the web server. Empty: somebody else asks it, each time that they are told to.
    pub host: String,
    /// The path.
    pub path: String,
    /// How long the web server may take for anything.
    pub limit: Duration,
}

/// What a case has at hand.
#[derive(Debug)]
pub struct Stage {
    pub(crate) place: Arc<Place>,
    pub(crate) transcript: Arc<Mutex<Transcript>>,
}

/// An HTTP request that waits for its response.
pub(crate) struct Client {
    /// `None`: somebody else is the client.
    socket: Option<TcpStream>,
    limit: Duration,
}

/// An HTTP response.
#[derive(Debug, Default)]
pub(crate) struct Http {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether it came to its end, as it says by itself where that is.
    pub(crate) whole: bool,
}

/// A connection from the web server.
pub(crate) struct Peer {
    pub(crate) link: Link,
}

/// A request as it came.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    pub(crate) id: u16,
    pub(crate) begin: Vec<u8>,
    pub(crate) params: Vec<u8>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) records: Vec<Record>,
}

impl Incoming {
    /// A parameter.
    pub(crate) fn value(&self, name: &str) -> Option<Vec<u8>> {
        // Whether they are whole is another case.
        let all = first_pairs(&mut self.params.as_slice());
        let found = all.into_iter().find(|pair| pair.0 == name.as_bytes());
        found.map(|pair| pair.1)
    }

    /// A parameter is this.
    pub(crate) fn has(&self, name: &str, value: &[u8]) -> Outcome {
        let came = match self.value(name) {
            Some(came) if came == value => return Ok(()),
            Some(came) => format!("`{}`", crate::wire::escaped(&came[..came.len().min(100)])),
            None => String::from("no such parameter"),
        };
        let shown = crate::wire::escaped(&value[..value.len().min(100)]);
        Err(deviation(format!("{name} = `{shown}`"), came))
    }

    /// Whether the application is to leave the connection open.
    pub(crate) fn keeps(&self) -> bool {
        self.begin.get(2).is_some_and(|flags| flags & 1 == 1)
    }
}

impl Stage {
    pub(crate) fn new(place: Arc<Place>) -> Self {
        Self {
            place,
            transcript: Arc::new(Mutex::new(Transcript::new())),
        }
    }

    pub(crate) fn take_transcript(&self) -> Transcript {
        self.transcript
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sends an HTTP request: `METHOD`, what follows the path, header lines with their ends, a body as it is on the wire.
    pub(crate) async fn ask(
        &self,
        method: &str,
        rest: &str,
        fields: &str,
        body: &[u8],
    ) -> Result<Client, Failure> {
        let Place {
            host, path, limit, ..
        } = &*self.place;
        let limit = *limit;
        if host.is_empty() {
            if (method, rest, fields) != ("GET", "", "") {
                return Err(skip("--url is not given, and the request is a special one"));
            }
            let address = self.place.listener.local_addr();
            let address = address.map_or_else(|_| String::new(), |address| address.to_string());
            eprintln!(
                "afcgi check: now ask the web server for a URL that it passes on to {address}"
            );
            return Ok(Client {
                socket: None,
                limit,
            });
        }
        let connecting = timeout(limit, TcpStream::connect(host)).await;
        let no = |text: String| deviation("the web server takes an HTTP request", text);
        let mut socket = match connecting {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(no(error.to_string())),
            Err(_) => return Err(no(String::from("no connection is accepted"))),
        };
        let head = format!(
            "{method} {path}{rest} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n"
        );
        let bytes = [head.as_bytes(), body].concat();
        let sending = timeout(limit, socket.write_all(&bytes)).await;
        sending
            .map_err(|_| no(String::from("it does not read it")))?
            .map_err(|error| no(error.to_string()))?;
        Ok(Client {
            socket: Some(socket),
            limit,
        })
    }

    /// GET, without anything special.
    pub(crate) async fn get(&self) -> Result<Client, Failure> {
        self.ask("GET", "", "", b"").await
    }

    /// The next connection from the web server.
    pub(crate) async fn accept(&self) -> Result<Peer, Failure> {
        match timeout(self.place.limit, self.place.listener.accept()).await {
            Ok(Ok((socket, _))) => {
                _ = socket.set_nodelay(true);
                let scribe = Scribe::new(&self.transcript);
                Ok(Peer {
                    link: Link::new(Box::new(socket), scribe, self.place.limit),
                })
            }
            Ok(Err(error)) => Err(deviation(
                "a connection from the web server",
                error.to_string(),
            )),
            Err(_) => Err(deviation("a connection from the web server", "none came")),
        }
    }

    /// The next request, on a new connection. Connections that end without one are passed over.
    pub(crate) async fn request(&self) -> Result<(Peer, Incoming), Failure> {
        loop {
            let mut peer = self.accept().await?;
            if let Some(request) = peer.request().await? {
                return Ok((peer, request));
            }
        }
    }

    /// Asks for something, and answers it with a body; the request and the response.
    pub(crate) async fn exchange(&self, stdout: &[u8]) -> Result<(Incoming, Http), Failure> {
        let client = self.get().await?;
        let (mut peer, request) = self.request().await?;
        peer.answer(&request, stdout).await?;
        let http = client.response().await?;
        Ok((request, http))
    }

    /// The request that comes of an HTTP request, answered.
    pub(crate) async fn comes_of(
        &self,
        method: &str,
        rest: &str,
        fields: &str,
        body: &[u8],
    ) -> Result<Incoming, Failure> {
        let client = self.ask(method, rest, fields, body).await?;
        let (mut peer, request) = self.request().await?;
        peer.answer(&request, HELLO).await?;
        match client.response().await {
            Err(failure @ Failure::Deviation { .. }) => Err(failure),
            _ => Ok(request),
        }
    }

    /// The bytes that an application sends, and what the client gets. Without an end the connection is closed behind them.
    pub(crate) async fn what_comes_of(
        &self,
        response: impl FnOnce(u16) -> Vec<u8>,
    ) -> Result<Http, Failure> {
        let client = self.get().await?;
        let (mut peer, request) = self.request().await?;
        peer.link.send(&response(request.id)).await?;
        // What waits for the end of the connection sees it; what reads on has it all.
        peer.link.finish().await;
        client.response().await
    }
}

/// A response.
pub(crate) const HELLO: &[u8] = b"Content-Type: text/plain\r\n\r\nhello\n";

/// A response as records.
pub(crate) fn response(id: u16, stdout: &[u8]) -> Vec<u8> {
    [stream(kind::STDOUT, id, stdout, 30_000), end(id, 0)].concat()
}

/// END_REQUEST.
pub(crate) fn end(id: u16, protocol_status: u8) -> Vec<u8> {
    record(
        kind::END_REQUEST,
        id,
        &[0, 0, 0, 0, protocol_status, 0, 0, 0],
    )
}

impl Peer {
    /// The next request, up to the end of its STDIN; `None` if the connection ends before one.
    pub(crate) async fn request(&mut self) -> Result<Option<Incoming>, Failure> {
        let mut incoming = Incoming::default();
        loop {
            let next = self.link.next().await;
            let next = next.map_err(|failure| because("a request", failure))?;
            let Some(record) = next else {
                return match incoming.begin.is_empty() {
                    true => Ok(None),
                    false => Err(deviation("the whole request", "the end of the connection")),
                };
            };
            match record.kind() {
                kind::GET_VALUES => self.values(&record).await?,
                kind::BEGIN_REQUEST if incoming.begin.is_empty() => {
                    incoming.id = record.id();
                    incoming.begin = record.content.clone();
                }
                kind::PARAMS => incoming.params.extend(&record.content),
                kind::STDIN => incoming.stdin.extend(&record.content),
                _ => {}
            }
            let over = record.kind() == kind::STDIN && record.content.is_empty();
            incoming.records.push(record);
            if over {
                return Ok(Some(incoming));
            }
        }
    }

    async fn values(&mut self, question: &Record) -> Outcome {
        let asked = pairs(&question.content).unwrap_or_default();
        let known = [
            ("FCGI_MPXS_CONNS", "0"),
            ("FCGI_MAX_CONNS", "10"),
            ("FCGI_MAX_REQS", "10"),
        ];
        let answer = known
            .iter()
            .filter(|(name, _)| asked.iter().any(|pair| pair.0 == name.as_bytes()));
        let answer: Vec<u8> = answer
            .flat_map(|(name, value)| pair(name.as_bytes(), value.as_bytes()))
            .collect();
        self.link
            .send(&raw::record(kind::GET_VALUES_RESULT, 0, &answer))
            .await
    }

    /// Answers a request, and closes the connection if that is wanted.
    pub(crate) async fn answer(&mut self, request: &Incoming, stdout: &[u8]) -> Outcome {
        self.link.send(&response(request.id, stdout)).await?;
        if !request.keeps() {
            self.link.finish().await;
        }
        Ok(())
    }
}

impl Client {
    /// The whole response.
    pub(crate) async fn response(mut self) -> Result<Http, Failure> {
        let Some(socket) = &mut self.socket else {
            return Err(skip("--url is not given: what the client gets is not seen"));
        };
        let mut all = Vec::new();
        let reading = async {
            let mut piece = vec![0; 16 * 1024];
            while all.len() < MOST {
                match socket.read(&mut piece).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => all.extend(&piece[..count]),
                }
            }
        };
        let over = timeout(self.limit, reading).await.is_ok();
        let Some(at) = all.windows(4).position(|part| part == b"\r\n\r\n") else {
            // To be closed on is an answer as well, though no good one.
            return match over {
                true => Ok(Http::default()),
                false => Err(deviation("an HTTP response", "nothing in time")),
            };
        };
        let head = String::from_utf8_lossy(&all[..at]).into_owned();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(':'));
            lines
                .find(|line| line.0.eq_ignore_ascii_case(name))
                .map(|line| line.1.trim().to_owned())
        };
        let rest = &all[at + 4..];
        let (body, whole) = if field("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            unchunked(rest)
        } else if let Some(length) =
            field("content-length").and_then(|value| value.parse::<usize>().ok())
        {
            (rest.to_vec(), rest.len() >= length)
        } else {
            (rest.to_vec(), over)
        };
        Ok(Http {
            status,
            head,
            body,
            whole,
        })
    }

    /// Leaves without the response.
    pub(crate) fn leave(self) {
        drop(self.socket);
    }
}

impl Http {
    /// Its status and body are these, and it is whole.
    pub(crate) fn is(&self, status: u16, body: &[u8]) -> Outcome {
        if self.status == status && self.body == body && self.whole {
            return Ok(());
        }
        let whole = if self.whole { "" } else { ", not whole" };
        let came = format!(
            "status {}, {} bytes{whole}: `{}`",
            self.status,
            self.body.len(),
            crate::wire::escaped(&self.body[..self.body.len().min(80)])
        );
        Err(deviation(
            format!("status {status}, {} bytes", body.len()),
            came,
        ))
    }

    /// It cannot be taken for a good one.
    pub(crate) fn is_failure(&self) -> Outcome {
        match self.status >= 500 || !self.whole {
            true => Ok(()),
            false => Err(deviation(
                "a status of 500 or more, or a response that is cut off",
                format!("status {}, whole", self.status),
            )),
        }
    }
}

/// The content of chunks, and whether the last one came.
fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|part| part == b"\r\n") else {
            return (body, false);
        };
        let text = String::from_utf8_lossy(&rest[..line]);
        let Ok(size) = usize::from_str_radix(text.split(';').next().unwrap_or_default().trim(), 16)
        else {
            return (body, false);
        };
        rest = &rest[line + 2..];
        if size == 0 {
            return (body, true);
        }
        body.extend(&rest[..size.min(rest.len())]);
        let Some(behind) = size.checked_add(2).and_then(|end| rest.get(end..)) else {
            return (body, false);
        };
        rest = behind;
    }
}

/// What a web server does that is asked for nothing special is skipped over where a case needs more.
pub(crate) fn unless(is_so: bool, reason: &str) -> Outcome {
    match is_so {
        true => Err(skip(reason)),
        false => Ok(()),
    }
}
