//! What HTTP is spoken on with a client: its socket, with TLS or without.
//!
//! hyper and h2 each keep something to themselves, so their bytes are looked at here, where they are no secret: the heads of requests
//! by HTTP/1.1 as they are read, and the frames of HTTP/2 as they are written. By HTTP/1.1 interim responses go in between.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::frames::Accepted;
use super::heads::Heads;
use super::hints::{Hints, encode};
use super::socket::Socket;

/// A connection of a client, and what is looked at on it.
#[derive(Debug)]
pub(crate) struct ClientIo {
    transport: Transport,
    watch: Watch,
}

#[derive(Debug)]
enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

#[derive(Debug)]
enum Watch {
    Nothing,
    /// HTTP/1.1.
    One {
        hints: Arc<Hints>,
        heads: Arc<Heads>,
        /// Interim responses that were taken, and not written.
        out: Bytes,
    },
    /// HTTP/2.
    Two(Arc<Accepted>),
}

/// Calls a method of whichever it is.
macro_rules! either {
    ($io:expr, $method:ident($($argument:expr),*)) => {
        match &mut $io.transport {
            Transport::Plain(socket) => Pin::new(socket).$method($($argument),*),
            Transport::Tls(stream) => Pin::new(&mut **stream).$method($($argument),*),
        }
    };
}

impl From<Socket> for ClientIo {
    fn from(socket: Socket) -> Self {
        Self::new(Transport::Plain(socket))
    }
}

impl From<Box<TlsStream<Socket>>> for ClientIo {
    fn from(stream: Box<TlsStream<Socket>>) -> Self {
        Self::new(Transport::Tls(stream))
    }
}

impl ClientIo {
    fn new(transport: Transport) -> Self {
        Self {
            transport,
            watch: Watch::Nothing,
        }
    }

    /// HTTP/1.1 is spoken: `heads` is told what is read, and `hints` are written whenever hyper flushes.
    pub(crate) fn speaks_http1(mut self, hints: Arc<Hints>, heads: Arc<Heads>) -> Self {
        let out = Bytes::new();
        self.watch = Watch::One { hints, heads, out };
        self
    }

    /// HTTP/2 is spoken: `accepted` is told what is written.
    pub(crate) fn speaks_http2(mut self, accepted: Arc<Accepted>) -> Self {
        self.watch = Watch::Two(accepted);
        self
    }

    /// Writes the interim responses that were taken: before anything else.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Watch::One { out, .. } = &mut self.watch else {
            return Poll::Ready(Ok(()));
        };
        while !out.is_empty() {
            match ready!(either!(self, poll_write(cx, out)))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => out.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn wrote<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>, count: usize) {
        if let Watch::Two(accepted) = &self.watch {
            accepted.wrote(pieces, count);
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(either!(self, poll_read(cx, buffer)))?;
        if let Watch::One { heads, .. } = &self.watch {
            heads.read(buffer.filled().get(before..).unwrap_or_default());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        let count = ready!(either!(self, poll_write(cx, bytes)))?;
        self.wrote([bytes], count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_out(cx))?;
        let count = ready!(either!(self, poll_write_vectored(cx, pieces)))?;
        self.wrote(pieces.iter().map(|piece| &**piece), count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(socket) => socket.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Watch::One { hints, out, .. } = &mut self.watch
            && out.is_empty()
        {
            *out = encode(&hints.take());
        }
        ready!(self.poll_out(cx))?;
        either!(self, poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx))?;
        either!(self, poll_shutdown(cx))
    }
}
