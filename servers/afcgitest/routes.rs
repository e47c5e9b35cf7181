//! The routes of `afcgitest`.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use afcgi::{OutputStream, Params, Request, Stats};

/// The period of the bytes of `/bytes`: byte `i` is `i % 251`.
const PATTERN: usize = 251;
/// Bytes of `/bytes` that are written at a time: a multiple of the pattern.
const CHUNK: usize = PATTERN * 256;
/// The longest wait that a request may ask for.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug)]
pub(crate) struct Site {
    delay: Duration,
    stats: Stats,
}

/// What the routes need of the parameters, found in one pass.
struct Target<'a> {
    script_name: &'a [u8],
    path_info: &'a [u8],
    query: &'a [u8],
}

impl<'a> Target<'a> {
    fn new(params: &'a Params) -> Self {
        let mut target = Self {
            script_name: b"",
            path_info: b"",
            query: b"",
        };
        for (name, value) in params {
            match name {
                b"SCRIPT_NAME" => target.script_name = value,
                b"PATH_INFO" => target.path_info = value,
                b"QUERY_STRING" => target.query = value,
                _ => {}
            }
        }
        target
    }

    fn is(&self, path: &str) -> bool {
        let path = path.as_bytes();
        path.strip_prefix(self.script_name) == Some(self.path_info)
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

impl Site {
    pub(crate) fn new(delay: Duration, stats: Stats) -> Self {
        Self { delay, stats }
    }

    pub(crate) async fn answer(&self, request: Request) -> io::Result<()> {
        let target = Target::new(request.params());
        let mut stdout = request.stdout();
        if target.is("/echo") {
            echo(&request, &mut stdout).await
        } else if target.is("/delay") {
            let delay = target.wait("ms").unwrap_or(self.delay);
            hello(delay, &mut stdout).await
        } else if target.is("/bytes") {
            bytes(target.number("n").unwrap_or(0), &mut stdout).await
        } else if target.is("/env") {
            env(request.params(), &mut stdout).await
        } else if target.is("/status") {
            status(target.number("code"), &mut stdout).await
        } else if target.is("/stderr") {
            write(&mut request.stderr(), b"written by /stderr\n").await?;
            hello(Duration::ZERO, &mut stdout).await
        } else if target.is("/events") {
            let pause = target.wait("ms").unwrap_or(Duration::from_secs(1));
            events(target.number("n").unwrap_or(10), pause, &mut stdout).await
        } else if target.is("/stats") {
            self.stats(&mut stdout).await
        } else {
            hello(self.delay, &mut stdout).await
        }
    }

    async fn stats(&self, stdout: &mut OutputStream) -> io::Result<()> {
        let now = self.stats.snapshot();
        let json = format!(
            r#"{{"connections":{},"active":{},"served":{},"aborted":{},"refused":{}}}"#,
            now.connections, now.active, now.served, now.aborted, now.refused
        );
        let response = format!("Content-Type: application/json\r\n\r\n{json}\n");
        write(stdout, response.as_bytes()).await
    }
}

async fn write(stream: &mut OutputStream, content: &[u8]) -> io::Result<()> {
    Ok(stream.write(content).await?)
}

async fn hello(delay: Duration, stdout: &mut OutputStream) -> io::Result<()> {
    if !delay.is_zero() {
        // On the heap: a request that does not wait need not carry a timer.
        Box::pin(tokio::time::sleep(delay)).await;
    }
    write(
        stdout,
        b"Content-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n",
    )
    .await
}

async fn echo(request: &Request, stdout: &mut OutputStream) -> io::Result<()> {
    let mut head = String::from("Content-Type: application/octet-stream\r\n");
    if let Some(length) = request.content_length() {
        let _ = write!(head, "Content-Length: {length}\r\n");
    }
    head.push_str("\r\n");
    write(stdout, head.as_bytes()).await?;
    let mut stdin = request.stdin();
    while let Some(content) = stdin.read().await? {
        write(stdout, &content).await?;
    }
    Ok(())
}

async fn bytes(count: u64, stdout: &mut OutputStream) -> io::Result<()> {
    let head = format!("Content-Type: application/octet-stream\r\nContent-Length: {count}\r\n\r\n");
    write(stdout, head.as_bytes()).await?;
    let chunk: Vec<u8> = (0..CHUNK).map(|i| (i % PATTERN) as u8).collect();
    let mut left = count;
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        write(stdout, &chunk[..size]).await?;
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
    write(stdout, &out).await
}

async fn status(code: Option<u64>, stdout: &mut OutputStream) -> io::Result<()> {
    let Some(code) = code.filter(|code| (200..=599).contains(code)) else {
        let response = b"Status: 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n\
                         expected ?code=N with N from 200 to 599\n";
        return write(stdout, response).await;
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
    write(stdout, response.as_bytes()).await
}

async fn events(count: u64, pause: Duration, stdout: &mut OutputStream) -> io::Result<()> {
    // nginx is told to pass each event on at once.
    let head = "Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n\r\n";
    write(stdout, head.as_bytes()).await?;
    for number in 0..count {
        if number > 0 {
            Box::pin(tokio::time::sleep(pause)).await;
        }
        write(stdout, format!("data: {number}\n\n").as_bytes()).await?;
    }
    Ok(())
}
