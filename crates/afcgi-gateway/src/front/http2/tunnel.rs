//! A stream of HTTP/2 as a pipe (RFC 8441).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::front::budget::{Piece, Ticket};

/// Most bytes of one write: what it takes is held until it is sent.
const MOST: usize = 16 << 10;

/// Where a tunnel comes to if a request is answered with a success: one of its extensions.
#[derive(Clone, Debug)]
pub(crate) struct OnTunnel(Arc<Mutex<Option<oneshot::Receiver<Tunnel>>>>);

impl OnTunnel {
    pub(crate) fn new(receiver: oneshot::Receiver<Tunnel>) -> Self {
        Self(Arc::new(Mutex::new(Some(receiver))))
    }

    /// Waits for it. There is one, for one who asks.
    pub(crate) async fn tunnel(self) -> io::Result<Tunnel> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match taken {
            Some(receiver) => receiver.await.map_err(io::Error::other),
            None => Err(io::Error::other("the tunnel was taken before")),
        }
    }
}

/// Both directions of a stream. Dropped before it is shut down, it is reset.
#[derive(Debug)]
pub(crate) struct Tunnel {
    send: SendStream<Piece>,
    ticket: Ticket,
    receive: RecvStream,
    /// Received, and not read.
    rest: Bytes,
}

impl Tunnel {
    pub(super) fn new(send: SendStream<Piece>, receive: RecvStream, ticket: Ticket) -> Self {
        Self {
            send,
            ticket,
            receive,
            rest: Bytes::new(),
        }
    }
}

fn broken(error: h2::Error) -> io::Error {
    match error.is_io() {
        true => error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()),
        false => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.rest.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                Some(Ok(data)) => {
                    if data.is_empty() && this.receive.is_end_stream() {
                        return Poll::Ready(Ok(()));
                    }
                    this.rest = data;
                }
            }
        }
        let count = this.rest.len().min(buffer.remaining());
        buffer.put_slice(this.rest.get(..count).unwrap_or_default());
        this.rest.advance(count);
        // What is not read keeps the client from sending more.
        let released = this.receive.flow_control().release_capacity(count);
        Poll::Ready(released.map_err(broken))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wanted = bytes.len().min(MOST);
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(wanted);
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                Some(Ok(_)) => {}
            }
        }
        // All tunnels and responses of the connection share it.
        ready!(self.ticket.poll_room(cx));
        let count = self.send.capacity().min(wanted);
        let piece = (self.ticket.share()).hold(bytes.get(..count).unwrap_or_default());
        self.ticket.share().pass_on();
        self.send.send_data(piece, false).map_err(broken)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.send.send_data(Piece::default(), true);
        Poll::Ready(sent.map_err(broken))
    }
}
