//! The socket of a client, TCP or unix: what is below TLS and HTTP.
//!
//! One type for both: what is served on it is made of generic code, which need not be there twice. A client that takes nothing for
//! too long is an error. The connection is closed in order, or by a reset where the end of the connection is all that ends a response
//! (HTTP/1.0 without Content-Length) and that is not complete. A unix socket knows no reset.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{Instant, Sleep};

use crate::front::activity::Activity;

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// A client, and its address, which those of a unix socket have not. Nothing is lost when the future is dropped.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::new(Stream::Tcp(stream)), Some(peer)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::new(Stream::Unix(stream)), None))
            }
        }
    }

    /// Where it can be reached by a scheme: as a URL, if there is one.
    pub(crate) fn url<'a>(&'a self, scheme: &'a str) -> impl fmt::Display + 'a {
        struct Url<'a>(&'a Listener, &'a str);
        impl fmt::Display for Url<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self(listener, scheme) = self;
                match listener {
                    Listener::Tcp(listener) => match listener.local_addr() {
                        Ok(address) => write!(f, "{scheme}://{address}"),
                        Err(_) => f.write_str(scheme),
                    },
                    Listener::Unix(listener) => {
                        let address = listener.local_addr().ok();
                        match address.as_ref().and_then(|address| address.as_pathname()) {
                            Some(path) => write!(f, "unix:{} ({scheme})", path.display()),
                            None => write!(f, "a unix socket ({scheme})"),
                        }
                    }
                }
            }
        }
        Url(self, scheme)
    }
}

/// A connection of a client.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Stream,
    activity: Arc<Activity>,
    /// How long the client may take nothing; `None`: for ever.
    send_timeout: Option<Duration>,
    /// There is one from the first time on that the client takes nothing.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the timer runs.
    waits: bool,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            activity: Arc::default(),
            send_timeout: None,
            timer: None,
            waits: false,
        }
    }

    /// For how long the client may take nothing of what is sent to it: for ever before this is called.
    pub(crate) fn set_send_timeout(&mut self, timeout: Duration) {
        self.send_timeout = Some(timeout);
    }

    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// What has come, without taking it from the stream; waits until there is something. 0: the client has left.
    pub(crate) async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.stream {
            Stream::Tcp(stream) => stream.peek(buffer).await,
            Stream::Unix(stream) => {
                let peek = || {
                    let (count, _) = rustix::net::recv(stream, &mut *buffer, RecvFlags::PEEK)?;
                    Ok(count)
                };
                stream.async_io(Interest::READABLE, peek).await
            }
        }
    }

    /// Sends small writes at once: a unix socket does anyhow.
    pub(crate) fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_nodelay(nodelay),
            Stream::Unix(_) => Ok(()),
        }
    }

    /// The address that the client connected to; `None`: a unix socket.
    pub(crate) fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().map(Some),
            Stream::Unix(_) => Ok(None),
        }
    }

    /// Passes on what became of a write, which is to become something in time.
    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waits = false;
            return written;
        }
        let Some(timeout) = self.send_timeout else {
            return written;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        if !std::mem::replace(&mut self.waits, true) {
            timer.as_mut().reset(Instant::now() + timeout);
        }
        ready!(timer.as_mut().poll(cx));
        self.waits = false;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.activity.is_broken()
            && let Err(error) = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
        {
            tracing::debug!(%error, "a connection is closed that should be reset");
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Calls a method of whichever it is.
macro_rules! either {
    ($socket:expr, $method:ident($($argument:expr),*)) => {
        match &mut $socket.stream {
            Stream::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = either!(self, poll_write(cx, bytes));
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = either!(self, poll_write_vectored(cx, pieces));
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = either!(self, poll_flush(cx));
        self.in_time(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = either!(self, poll_shutdown(cx));
        self.in_time(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing() {
        let (stream, _client) = UnixStream::pair().unwrap();
        let mut socket = Socket::new(Stream::Unix(stream));
        socket.set_send_timeout(Duration::from_secs(60));
        let began = Instant::now();
        let error = socket.write_all(&[0; 64 << 20]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 60);
    }
}
