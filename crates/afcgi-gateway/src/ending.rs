//! How the connection of a client is closed: in order, or by a reset where the end of the connection is all that ends a response (HTTP/1.0
//! without Content-Length) and that is not complete. A unix socket knows no reset.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Activity;

/// The socket of a client.
#[derive(Debug)]
pub(crate) struct Ending<IO: AsFd> {
    pub(crate) io: IO,
    pub(crate) activity: Arc<Activity>,
}

impl<IO: AsFd> Drop for Ending<IO> {
    fn drop(&mut self) {
        if self.activity.is_broken()
            && let Err(error) = SockRef::from(&self.io).set_linger(Some(Duration::ZERO))
        {
            tracing::debug!(%error, "a connection is closed that should be reset");
        }
    }
}

impl<IO: AsyncRead + AsFd + Unpin> AsyncRead for Ending<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + AsFd + Unpin> AsyncWrite for Ending<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
