//! Interim responses (status 1xx, such as 103 Early Hints), which hyper's server does not send.
//!
//! By HTTP/1.1 they are written between hyper's own bytes: a flush reaches the stream only when hyper has written all that it had, which is where one
//! message has ended and the next has not begun, as long as no response is given to hyper before its interim responses were taken.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use afcgi::client::OnInterim;
use bytes::{Buf, Bytes};
use http::header::CONTENT_LENGTH;
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::heads::Heads;
use super::outgoing;

/// Whether an application's interim response is passed on: not 100, which is between the client and the gateway, nor 101.
fn is_passed_on(status: StatusCode) -> bool {
    status.is_informational()
        && status != StatusCode::CONTINUE
        && status != StatusCode::SWITCHING_PROTOCOLS
}

/// The interim responses that are to be sent: on a connection of HTTP/1.1, or to a request of HTTP/2. The client library bounds how many bytes a request has of them: all its heads
/// share one limit.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    is_empty: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    heads: Vec<Response<()>>,
    /// Whoever has a response, which has to wait.
    waker: Option<Waker>,
}

impl Hints {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            is_empty: AtomicBool::new(true),
            queue: Mutex::default(),
        })
    }

    /// Puts interim responses here.
    pub(crate) fn on_interim(self: &Arc<Self>) -> OnInterim {
        let hints = Arc::clone(self);
        OnInterim(Arc::new(move |response| hints.push(response)))
    }

    fn push(&self, mut response: Response<()>) {
        let status = response.status();
        if !is_passed_on(status) {
            return;
        }
        // RFC 9110 section 8.6. What is about the connection the client library has removed.
        response.headers_mut().remove(CONTENT_LENGTH);
        outgoing::keep_inside(response.headers_mut());
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.heads.push(response);
        self.is_empty.store(false, Ordering::Release);
    }

    /// Returns when the stream has taken all of them.
    pub(crate) async fn taken(&self) {
        poll_fn(|cx| {
            if self.is_empty.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Those that have come since.
    pub(crate) fn take(&self) -> Vec<Response<()>> {
        if self.is_empty.load(Ordering::Acquire) {
            return Vec::new();
        }
        let queue = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        self.is_empty.store(true, Ordering::Release);
        if let Some(waker) = queue.waker {
            waker.wake();
        }
        queue.heads
    }
}

/// As HTTP/1.1 has them.
fn encode(heads: &[Response<()>]) -> Bytes {
    let mut bytes = Vec::new();
    for head in heads {
        let status = head.status();
        let reason = status.canonical_reason().unwrap_or_default();
        bytes.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).as_bytes());
        for (name, value) in head.headers() {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.into()
}

/// A stream into which interim responses go when it is flushed, and whose heads are looked at as they are read.
#[derive(Debug)]
pub(crate) struct Hinted<IO> {
    io: IO,
    hints: Arc<Hints>,
    heads: Arc<Heads>,
    /// Taken, and not written.
    out: Bytes,
}

impl<IO: AsyncWrite + Unpin> Hinted<IO> {
    pub(crate) fn new(io: IO, hints: Arc<Hints>, heads: Arc<Heads>) -> Self {
        Self {
            io,
            hints,
            heads,
            out: Bytes::new(),
        }
    }

    /// Writes what was taken: before anything else.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.out.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Hinted<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        self.heads
            .read(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Hinted<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            self.out = encode(&self.hints.take());
        }
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
