//! The routes of `afcgitest`.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use afcgi::{App, AppStatus, OutputStream, Params, Request, Stats};
use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::routing::any;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// The period of the bytes of `/bytes`: byte `i` is `i % 251`.
const PATTERN: usize = 251;
/// Bytes of `/bytes` that are written at a time: a multiple of the pattern.
const CHUNK: usize = PATTERN * 256;
/// Bytes of a body that `/echo` keeps in memory.
const ECHO_MEMORY: usize = 1 << 20;
/// Bytes that a WebSocket reads at a time; it holds as many while it is open.
const WEBSOCKET_BUFFER: usize = 4096;
/// Bytes of a message that `/websocket` gives back.
const WEBSOCKET_MESSAGE: usize = 16 << 20;
/// The longest wait that a request may ask for.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug)]
pub(crate) struct Site {
    delay: Duration,
    stats: Stats,
}

/// What the routes need of the parameters, found in one pass.
struct Target<'a> {
    path: Cow<'a, [u8]>,
    query: &'a [u8],
}

impl<'a> Target<'a> {
    fn new(params: &'a Params) -> Self {
        let (mut script_name, mut path_info, mut query) = (&b""[..], &b""[..], &b""[..]);
        for (name, value) in params {
            match name {
                b"SCRIPT_NAME" => script_name = value,
                b"PATH_INFO" => path_info = value,
                b"QUERY_STRING" => query = value,
                _ => {}
            }
        }
        let path = if path_info.is_empty() {
            script_name.into()
        } else {
            [script_name, path_info].concat().into()
        };
        Self { path, query }
    }

    /// The number behind `name=` in the query.
    fn number(&self, name: &str) -> Option<u64> {
        let query = std::str::from_utf8(self.query).ok()?;
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .into_iter()
            .find(|pair| pair.0 == name)?
            .1
            .parse()
            .ok()
    }

    /// The milliseconds behind `name=` in the query, bounded.
    fn wait(&self, name: &str) -> Option<Duration> {
        Some(Duration::from_millis(self.number(name)?).min(LONGEST))
    }
}

impl App for Site {
    async fn call(self, request: Request) -> AppStatus {
        let target = Target::new(request.params());
        let mut stdout = request.stdout();
        match &*target.path {
            b"/delay" => {
                let delay = target.wait("ms").unwrap_or(self.delay);
                hello(delay, &mut stdout).await.into()
            }
            b"/websocket" => {
                drop(target);
                Box::pin(afcgi::http(WEBSOCKET.clone()).call(request)).await
            }
            b"/echo" | b"/bytes" | b"/env" | b"/status" | b"/stderr" | b"/events" | b"/stats" => {
                drop(target);
                // On the heap, so that a request that waits does not carry what these may need.
                Box::pin(self.special(request, stdout)).await.into()
            }
            _ => hello(self.delay, &mut stdout).await.into(),
        }
    }
}

impl Site {
    pub(crate) fn new(delay: Duration, stats: Stats) -> Self {
        Self { delay, stats }
    }

    async fn special(self, request: Request, mut stdout: OutputStream) -> io::Result<()> {
        let target = Target::new(request.params());
        let stdout = &mut stdout;
        match &*target.path {
            b"/echo" => echo(&request, stdout).await,
            b"/bytes" => bytes(target.number("n").unwrap_or(0), stdout).await,
            b"/env" => env(request.params(), stdout).await,
            b"/status" => status(target.number("code"), stdout).await,
            b"/stderr" => {
                request.stderr().write(b"written by /stderr\n").await?;
                hello(Duration::ZERO, stdout).await
            }
            b"/events" => {
                let pause = target.wait("ms").unwrap_or(Duration::from_secs(1));
                events(target.number("n").unwrap_or(10), pause, stdout).await
            }
            _ => self.stats(stdout).await,
        }
    }

    async fn stats(&self, stdout: &mut OutputStream) -> io::Result<()> {
        let now = self.stats.snapshot();
        let json = format!(
            r#"{{"connections":{},"active":{},"served":{},"aborted":{},"refused":{}}}"#,
            now.connections, now.active, now.served, now.aborted, now.refused
        );
        let response = format!("Content-Type: application/json\r\n\r\n{json}\n");
        Ok(stdout.write(response.as_bytes()).await?)
    }
}

/// The route that is an axum application of its own, wherever it is: the path was looked at.
static WEBSOCKET: LazyLock<Router> = LazyLock::new(|| {
    Router::new().fallback(any(async |upgrade: WebSocketUpgrade| {
        upgrade
            .max_message_size(WEBSOCKET_MESSAGE)
            .max_frame_size(WEBSOCKET_MESSAGE)
            .read_buffer_size(WEBSOCKET_BUFFER)
            .on_upgrade(websocket)
    }))
});

async fn websocket(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Text(_) | Message::Binary(_))
            && socket.send(message).await.is_err()
        {
            break;
        }
    }
}

async fn hello(delay: Duration, stdout: &mut OutputStream) -> io::Result<()> {
    if !delay.is_zero() {
        // On the heap: a request that does not wait need not carry a timer.
        Box::pin(tokio::time::sleep(delay)).await;
    }
    let response = b"Content-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n";
    Ok(stdout.write(response).await?)
}

/// Reads the whole body before it answers: nginx sends no more of a body once it has passed the head
/// of the response on. What is too much for memory waits in a temporary file.
async fn echo(request: &Request, stdout: &mut OutputStream) -> io::Result<()> {
    let mut stdin = request.stdin();
    let mut body = Vec::new();
    let mut file = None;
    let mut length = 0;
    while let Some(content) = stdin.read().await? {
        length += content.len();
        body.extend_from_slice(&content);
        if body.len() >= ECHO_MEMORY {
            let file = match &mut file {
                Some(file) => file,
                None => file.insert(File::from_std(tempfile::tempfile()?)),
            };
            file.write_all(&body).await?;
            body.clear();
        }
    }
    let head =
        format!("Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n");
    stdout.write(head.as_bytes()).await?;
    if let Some(mut file) = file {
        file.flush().await?;
        file.rewind().await?;
        let mut piece = vec![0; CHUNK];
        loop {
            let size = file.read(&mut piece).await?;
            if size == 0 {
                break;
            }
            stdout.write(&piece[..size]).await?;
        }
    }
    stdout.write(&body).await?;
    Ok(())
}

async fn bytes(count: u64, stdout: &mut OutputStream) -> io::Result<()> {
    let head = format!("Content-Type: application/octet-stream\r\nContent-Length: {count}\r\n\r\n");
    stdout.write(head.as_bytes()).await?;
    let chunk: Vec<u8> = (0..CHUNK).map(|i| (i % PATTERN) as u8).collect();
    let mut left = count;
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        stdout.write(&chunk[..size]).await?;
        left -= size as u64;
    }
    Ok(())
}

async fn env(params: &Params, stdout: &mut OutputStream) -> io::Result<()> {
    let mut out = b"Content-Type: text/plain\r\n\r\n".to_vec();
    for (name, value) in params {
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    Ok(stdout.write(&out).await?)
}

async fn status(code: Option<u64>, stdout: &mut OutputStream) -> io::Result<()> {
    let Some(code) = code.filter(|code| (200..=599).contains(code)) else {
        let response = b"Status: 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n\
                         expected ?code=N with N from 200 to 599\n";
        return Ok(stdout.write(response).await?);
    };
    let reason = u16::try_from(code)
        .ok()
        .and_then(|code| http::StatusCode::from_u16(code).ok())
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unknown");
    let mut response = format!("Status: {code} {reason}\r\nContent-Type: text/plain\r\n\r\n");
    if code != 204 && code != 304 {
        let _ = writeln!(response, "{code}");
    }
    Ok(stdout.write(response.as_bytes()).await?)
}

async fn events(count: u64, pause: Duration, stdout: &mut OutputStream) -> io::Result<()> {
    // nginx is told to pass each event on at once.
    let head = "Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n\r\n";
    stdout.write(head.as_bytes()).await?;
    for number in 0..count {
        if number > 0 {
            Box::pin(tokio::time::sleep(pause)).await;
        }
        stdout
            .write(format!("data: {number}\n\n").as_bytes())
            .await?;
    }
    Ok(())
}
