//! A FastCGI client on [`web::Connection`]: as much of one as the tests need.
//!
//! Whatever it waits for has to come within [`SOON`], or the test fails.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use afcgi_interop::wait::SOON;
use afcgi_proto::cgi::Head;
use afcgi_proto::inbox::Read;
use afcgi_proto::params::encode_pair;
pub(crate) use afcgi_proto::web::Output;
use afcgi_proto::web::{self, Config, Connection, Event};
use afcgi_proto::{EndRequest, Handle, ProtocolStatus, Role, Values};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Bytes of an answer that are held until it is read.
const RECEIVED: usize = 64 * 1024 * 1024;

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection to an application. Requests that were begun go on side by side.
pub(crate) struct Client {
    io: Box<dyn Io>,
    pub(super) connection: Connection,
    values: Option<Values>,
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) end: EndRequest,
}

impl Answer {
    /// The value of a header field, whatever the case of its name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let field = self
            .fields
            .iter()
            .find(|field| field.0.eq_ignore_ascii_case(name))?;
        Some(&field.1)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// The parameters of a request for a path, as nginx sends them.
pub(crate) fn params(method: &str, uri: &str) -> Vec<(String, String)> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    [
        ("QUERY_STRING", query),
        ("REQUEST_METHOD", method),
        ("SCRIPT_NAME", path),
        ("REQUEST_URI", uri),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

impl Client {
    pub(crate) async fn unix(socket: &Path) -> Self {
        Self::new(UnixStream::connect(socket).await.expect("a connection"))
    }

    pub(crate) async fn tcp(address: &str) -> Self {
        Self::new(TcpStream::connect(address).await.expect("a connection"))
    }

    fn new(io: impl Io + 'static) -> Self {
        let config = Config {
            // Answers are read when their request was sent.
            receive_buffer: RECEIVED,
            ..Config::default()
        };
        Self {
            io: Box::new(io),
            connection: Connection::new(config),
            values: None,
        }
    }

    /// Begins a request: sends BEGIN_REQUEST and PARAMS, nothing else.
    pub(crate) async fn begin(&mut self, role: Role, params: &[(String, String)]) -> Handle {
        let handle = self.connection.open().expect("a free id");
        self.connection.begin(handle, role).expect("a request");
        let mut encoded = Vec::new();
        for (name, value) in params {
            assert!(encode_pair(&mut encoded, name.as_bytes(), value.as_bytes()));
        }
        self.send(handle, Output::Params, &encoded).await;
        handle
    }

    /// Sends a whole stream and its end.
    pub(crate) async fn send(&mut self, handle: Handle, output: Output, content: &[u8]) {
        self.send_part(handle, output, content).await;
        self.connection.end(handle, output).expect("a request");
        self.flush().await;
    }

    /// Sends content of a stream.
    pub(crate) async fn send_part(&mut self, handle: Handle, output: Output, content: &[u8]) {
        let mut rest = content;
        while !rest.is_empty() {
            let count = self
                .connection
                .write(handle, output, rest)
                .expect("a request");
            rest = &rest[count..];
            if count == 0 {
                self.turn().await;
            }
        }
        self.flush().await;
    }

    async fn flush(&mut self) {
        while !self.connection.transmit().is_empty() {
            self.turn().await;
        }
    }

    /// A GET request, to its end.
    pub(crate) async fn get(&mut self, uri: &str) -> Answer {
        let handle = self.open(uri).await;
        self.finish(handle).await
    }

    /// Begins a GET request, and sends all of it.
    pub(crate) async fn open(&mut self, uri: &str) -> Handle {
        let handle = self.begin(Role::Responder, &params("GET", uri)).await;
        self.send(handle, Output::Stdin, b"").await;
        handle
    }

    /// A request with a body and further parameters, to its end.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        uri: &str,
        more: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut params = params(method, uri);
        params.push(("CONTENT_LENGTH".into(), body.len().to_string()));
        params.extend(
            more.iter()
                .map(|&(name, value)| (name.into(), value.into())),
        );
        let handle = self.begin(Role::Responder, &params).await;
        self.send(handle, Output::Stdin, body).await;
        self.finish(handle).await
    }

    /// Reads STDOUT until it holds a text; all that was read.
    pub(crate) async fn read_until(&mut self, handle: Handle, text: &str) -> Vec<u8> {
        let mut stdout = Vec::new();
        while !String::from_utf8_lossy(&stdout).contains(text) {
            match self
                .connection
                .read(handle, web::Input::Stdout, usize::MAX)
                .expect("a request")
            {
                Read::Content(content) => stdout.extend_from_slice(&content),
                Read::Pending => self.turn().await,
                end => panic!("{end:?} after {:?}", String::from_utf8_lossy(&stdout)),
            }
        }
        stdout
    }

    /// How a request ends; `None`: with the connection. What it gives is discarded.
    pub(crate) async fn end(&mut self, handle: Handle) -> Option<EndRequest> {
        loop {
            while let Ok(Read::Content(_)) =
                self.connection.read(handle, web::Input::Stdout, usize::MAX)
            {}
            match self.connection.ended(handle) {
                Ok(None) => self.turn().await,
                Ok(end) => return end,
                Err(_) => return None,
            }
        }
    }

    /// Reads a whole answer, whose request was processed.
    pub(crate) async fn finish(&mut self, handle: Handle) -> Answer {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let end = loop {
            for (input, out) in [
                (web::Input::Stdout, &mut stdout),
                (web::Input::Stderr, &mut stderr),
            ] {
                while let Ok(Read::Content(content)) =
                    self.connection.read(handle, input, usize::MAX)
                {
                    out.extend_from_slice(&content);
                }
            }
            match self
                .connection
                .ended(handle)
                .expect("END_REQUEST before the end of the connection")
            {
                Some(end) => break end,
                None => self.turn().await,
            }
        };
        self.connection.close(handle, Instant::now());
        assert_eq!(
            end.protocol_status,
            ProtocolStatus::RequestComplete,
            "{end:?}"
        );
        let head = Head::parse(&stdout, Default::default()).expect("a response head");
        let head = head.unwrap_or_else(|| {
            panic!(
                "no whole response head in {:?}",
                String::from_utf8_lossy(&stdout)
            )
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Answer {
            status: head.status,
            fields: head
                .fields
                .iter()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            body: stdout[head.length..].to_vec(),
            stderr,
            end,
        }
    }

    /// Gives a request up: sends ABORT_REQUEST.
    pub(crate) async fn abort(&mut self, handle: Handle) {
        self.connection.close(handle, Instant::now());
        self.flush().await;
    }

    /// What the application says of itself.
    pub(crate) async fn values(&mut self) -> Values {
        self.connection.probe();
        loop {
            match self.values.take() {
                Some(values) => return values,
                None => self.turn().await,
            }
        }
    }

    /// Whether a request has ended, as far as was read.
    pub(crate) fn has_ended(&self, handle: Handle) -> bool {
        self.connection.ended(handle).is_ok_and(|end| end.is_some())
    }

    /// Waits until the application closes the connection.
    pub(crate) async fn closed(&mut self) {
        while !self.connection.is_finished() {
            self.turn().await;
        }
    }

    /// Sends or receives something.
    async fn turn(&mut self) {
        assert!(
            !self.connection.is_finished(),
            "the application has closed the connection"
        );
        let moved = poll_fn(|cx| self.poll_turn(cx));
        tokio::time::timeout(SOON, moved)
            .await
            .expect("the application does something");
        while let Some(event) = self.connection.poll_event() {
            if let Event::Values(values) = event {
                self.values = Some(values);
            }
        }
    }

    /// Whether the application has closed the connection.
    pub(super) fn is_closed(&self) -> bool {
        self.connection.is_finished()
    }

    /// Ready when something was sent or received.
    pub(super) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { io, connection, .. } = self;
        let mut moved = false;
        while !connection.transmit().is_empty() {
            match Pin::new(&mut *io).poll_write(cx, connection.transmit()) {
                Poll::Ready(Ok(count)) => connection.transmitted(count),
                Poll::Ready(Err(_)) => connection.lost(),
                Poll::Pending => break,
            }
            moved = true;
        }
        connection.next_round();
        let mut buffer = [0; 16 * 1024];
        let mut buffer = ReadBuf::new(&mut buffer);
        if let Poll::Ready(read) = Pin::new(&mut *io).poll_read(cx, &mut buffer) {
            moved = true;
            if read.is_err() || buffer.filled().is_empty() {
                connection.lost();
            } else {
                let taken = connection
                    .receive(Instant::now(), buffer.filled())
                    .expect("FastCGI");
                // Only a request whose answer is not read could be in the way.
                assert_eq!(taken, buffer.filled().len(), "an answer is over the limit");
            }
        }
        if moved {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
