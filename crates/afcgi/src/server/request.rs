//! A FastCGI request as the application sees it: parameters as they came, the streams, and how to
//! find out that nobody waits for the answer any more.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use afcgi_proto::app::{Input, Output};
use afcgi_proto::record::BeginRequest;
use afcgi_proto::{Gone, Handle, Params, RequestId, Role};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared::{ReadError, Shared};

/// A request whose parameters are complete.
///
/// The handler's task is cancelled (its future is dropped) when the web server gives the request
/// up (R-57) or the connection is lost (R-31). When the handler returns, the request is finished
/// and its streams are ended.
///
/// ```
/// use afcgi::{AppStatus, Request};
///
/// async fn hello(request: Request) -> std::io::Result<AppStatus> {
///     let mut stdout = request.stdout();
///     stdout.write(b"Content-Type: text/plain\r\n\r\nHello ").await?;
///     stdout.write(request.params().get("REMOTE_ADDR").unwrap_or(b"you")).await?;
///     Ok(AppStatus::SUCCESS)
/// }
/// ```
pub struct Request {
    shared: Arc<Shared>,
    handle: Handle,
    begin: BeginRequest,
    params: Params,
}

impl Request {
    pub(crate) fn new(
        shared: Arc<Shared>,
        handle: Handle,
        begin: BeginRequest,
        params: Params,
    ) -> Self {
        Self {
            shared,
            handle,
            begin,
            params,
        }
    }

    /// What the application is asked to be (R-50).
    pub fn role(&self) -> Role {
        self.begin.role
    }

    /// The request's id on its connection: for logs.
    pub fn id(&self) -> RequestId {
        self.handle.id()
    }

    /// The parameters, in the order in which they came, as bytes.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The number in CONTENT_LENGTH, if it is one (RFC 3875 section 4.1.2).
    pub fn content_length(&self) -> Option<u64> {
        std::str::from_utf8(self.params.get("CONTENT_LENGTH")?)
            .ok()?
            .parse()
            .ok()
    }

    /// Whether this request may become a tunnel, as WebSocket does: the web server and
    /// [`Config::upgrades`](crate::Config::upgrades) allow it, and the client asks for it
    /// (`docs/upgrade.md`).
    ///
    /// It becomes one by an answer with status 101 that names the protocol in `Upgrade`: then
    /// [`Request::stdin`] is what the client sends, up to its end, and [`Request::stdout`] goes to
    /// the client. Whoever answers with another status declines. Handlers of HTTP requests need not
    /// know this: they are given a `hyper::upgrade::OnUpgrade`.
    ///
    /// ```
    /// use afcgi::{AppStatus, Request};
    ///
    /// /// Says everything again, louder.
    /// async fn shout(request: Request) -> std::io::Result<AppStatus> {
    ///     let mut stdout = request.stdout();
    ///     if !request.upgrade_offered() || request.params().get("HTTP_UPGRADE") != Some(b"shout") {
    ///         stdout.write(b"Status: 426 Upgrade Required\r\nUpgrade: shout\r\n\r\n").await?;
    ///         return Ok(AppStatus::SUCCESS);
    ///     }
    ///     stdout.write(b"Status: 101 Switching Protocols\r\nUpgrade: shout\r\n\r\n").await?;
    ///     let mut stdin = request.stdin();
    ///     while let Some(said) = stdin.read().await? {
    ///         stdout.write(&said.to_ascii_uppercase()).await?;
    ///     }
    ///     Ok(AppStatus::SUCCESS)
    /// }
    /// # let _ = afcgi::native(shout);
    /// ```
    pub fn upgrade_offered(&self) -> bool {
        self.role() == Role::Responder && self.shared.upgrades.offered(&self.params)
    }

    /// The request body. An authorizer's is empty (R-54).
    pub fn stdin(&self) -> InputStream {
        let announced = match self.role() {
            Role::Authorizer => None,
            _ => self.content_length(),
        };
        self.input(Input::Stdin, announced)
    }

    /// The file that a filter is to transform (R-55); empty for the other roles.
    pub fn data(&self) -> InputStream {
        let announced = self
            .params
            .get("FCGI_DATA_LENGTH")
            .filter(|_| self.role() == Role::Filter)
            .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        self.input(Input::Data, announced)
    }

    fn input(&self, input: Input, announced: Option<u64>) -> InputStream {
        InputStream {
            shared: Arc::clone(&self.shared),
            handle: self.handle,
            input,
            missing: announced.unwrap_or(0),
            rest: Bytes::new(),
        }
    }

    /// The response: a CGI head, an empty line, the body (R-58).
    pub fn stdout(&self) -> OutputStream {
        self.output(Output::Stdout)
    }

    /// Text for the web server's error log.
    pub fn stderr(&self) -> OutputStream {
        self.output(Output::Stderr)
    }

    fn output(&self, output: Output) -> OutputStream {
        OutputStream {
            shared: Arc::clone(&self.shared),
            handle: self.handle,
            output,
        }
    }

    /// Tells when nobody waits for the answer any more.
    pub fn over(&self) -> Over {
        Over {
            shared: Arc::clone(&self.shared),
            handle: self.handle,
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id())
            .field("role", &self.role())
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

/// What a request returns to the web server beside its output, as a program's exit status: 0 is
/// success (R-51).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppStatus(pub u32);

impl AppStatus {
    /// 0.
    pub const SUCCESS: Self = Self(0);
    /// 1.
    pub const FAILURE: Self = Self(1);
}

impl From<()> for AppStatus {
    fn from((): ()) -> Self {
        Self::SUCCESS
    }
}

impl From<u32> for AppStatus {
    fn from(status: u32) -> Self {
        Self(status)
    }
}

/// An error ends the request with status 1 and is logged.
impl<T: Into<Self>, E: fmt::Display> From<Result<T, E>> for AppStatus {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(status) => status.into(),
            Err(error) => {
                tracing::info!(%error, "request failed");
                Self::FAILURE
            }
        }
    }
}

/// STDIN or DATA. Also a [`tokio::io::AsyncRead`]. One task at a time may wait on it.
///
/// Nothing is lost when a read is cancelled.
pub struct InputStream {
    shared: Arc<Shared>,
    handle: Handle,
    input: Input,
    /// Bytes that were announced and have not been read.
    missing: u64,
    /// Content that `AsyncRead` has taken and not given.
    rest: Bytes,
}

impl InputStream {
    /// The next content, as much as has come, at most what the server's `stdin_buffer` holds;
    /// `None` at the end.
    ///
    /// Fails when the request is over, when the connection ended inside the stream, and at an end
    /// that comes too early (R-59).
    pub async fn read(&mut self) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| self.poll_read(cx)).await
    }

    /// [`InputStream::read`] for the hand-written future.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ReadError>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.rest))));
        }
        let content = ready!(
            self.shared
                .poll_read(cx, self.handle, self.input, usize::MAX)
        )?;
        Poll::Ready(match content {
            Some(content) => {
                self.missing = self.missing.saturating_sub(content.len() as u64);
                Ok(Some(content))
            }
            None if self.missing > 0 => Err(ReadError::Short {
                missing: self.missing,
            }),
            None => Ok(None),
        })
    }

    /// [`InputStream::poll_read`] of at most `most` bytes.
    pub(crate) fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        let mut content = ready!(self.poll_read(cx))?;
        if let Some(content) = &mut content
            && content.len() > most
        {
            self.rest = content.split_off(most);
        }
        Poll::Ready(Ok(content))
    }
}

impl AsyncRead for InputStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(content) = ready!(self.poll_take(cx, buf.remaining()))? {
            buf.put_slice(&content);
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for InputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputStream")
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}

/// STDOUT or STDERR. Also a [`tokio::io::AsyncWrite`]. One task at a time may wait on it.
///
/// What was written is on its way: there is nothing to flush. A writer that is faster than its
/// share of the connection waits. [Shutting down](tokio::io::AsyncWriteExt::shutdown) ends the
/// stream, the other streams go on; if that is not done, the end of the request is its end.
pub struct OutputStream {
    shared: Arc<Shared>,
    handle: Handle,
    output: Output,
}

impl OutputStream {
    /// Writes all of `content`. When cancelled, a part of it may have been written.
    ///
    /// Fails when the request is over.
    pub async fn write(&mut self, mut content: &[u8]) -> Result<(), Gone> {
        while !content.is_empty() {
            let count = poll_fn(|cx| self.poll_write(cx, content)).await?;
            content = &content[count..];
        }
        Ok(())
    }

    /// Writes a first part of `content`, and says how many bytes that was: not 0, unless there are
    /// none.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        content: &[u8],
    ) -> Poll<Result<usize, Gone>> {
        self.shared
            .poll_write(cx, self.handle, self.output, content)
    }
}

impl AsyncWrite for OutputStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Self::poll_write(&mut self, cx, buf).map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Shut down twice, or after the request, it is as ended as it can be.
        let _ = self.shared.end_output(self.handle, self.output);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputStream")
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}

/// Tells that a request is over: given up by the web server, lost with its connection, or finished.
///
/// The handler itself is cancelled when its request is given up; this is for what it has set going
/// elsewhere. In an HTTP handler it is among the request's extensions.
#[derive(Clone)]
pub struct Over {
    shared: Arc<Shared>,
    handle: Handle,
}

impl Over {
    /// Whether the request is over.
    pub fn is_over(&self) -> bool {
        self.shared.is_over(self.handle)
    }

    /// Returns when the request is over.
    pub async fn wait(&self) {
        while let Some(over) = self.shared.over(self.handle) {
            let notified = over.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.is_over() {
                return;
            }
            notified.await;
        }
    }
}

impl fmt::Debug for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Over").finish_non_exhaustive()
    }
}
