//! Upgrades for tower services (`docs/upgrade.md`): the `hyper::upgrade::OnUpgrade` among the
//! extensions of a request, which is what axum's `WebSocketUpgrade` and its like ask for.
//!
//! hyper makes one for connections of its own only. So a request that may be upgraded, and no
//! other, has such a connection, with [`Tunnel`] for a socket: its client asks for an upgrade in
//! constant words, the head that hyper answers with goes nowhere, and after it come STDIN and STDOUT.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

use crate::server::{InputStream, OutputStream};

/// What hyper is asked.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";

/// A request that may be upgraded, until it is answered.
pub(super) struct Offer {
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    accept: oneshot::Sender<()>,
    closed: oneshot::Receiver<Infallible>,
}

impl Offer {
    /// Dropped without [`Offer::accept`], the `OnUpgrade` fails. `None`: hyper will not have it.
    pub(super) async fn new(
        tunnel: Box<(InputStream, OutputStream)>,
    ) -> Option<(Box<Self>, OnUpgrade)> {
        let (stdin, stdout) = *tunnel;
        let (accept, accepted) = oneshot::channel();
        let (make, mut made) = oneshot::channel();
        let (open, closed) = oneshot::channel();
        let tunnel = Tunnel {
            stage: Stage::Request,
            stdin,
            stdout,
            _open: open,
        };
        let once = Mutex::new(Some((make, accepted)));
        let service = service_fn(move |request: http::Request<Incoming>| {
            let once = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move {
                if let Some((make, accepted)) = once {
                    // It is waited for below, and the other half by whoever has the offer.
                    let _ = make.send(hyper::upgrade::on(request));
                    accepted.await?;
                }
                let mut answer = http::Response::new(Empty::<Bytes>::new());
                *answer.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
                Ok::<_, oneshot::error::RecvError>(answer)
            }
        });
        let connection = http1::Builder::new().serve_connection(tunnel, service);
        let mut connection = Box::pin(connection.with_upgrades());
        let on_upgrade = poll_fn(|cx| {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                tracing::error!(?ended, "no upgrade can be offered");
                return Poll::Ready(None);
            }
            Pin::new(&mut made).poll(cx).map(Result::ok)
        })
        .await?;
        let offer = Self {
            connection,
            accept,
            closed,
        };
        Some((Box::new(offer), on_upgrade))
    }

    /// Opens the tunnel, whose head has been written, and returns when the application has dropped
    /// its end of it.
    pub(super) async fn accept(self: Box<Self>) {
        // The service waits for it.
        let _ = self.accept.send(());
        if let Err(error) = self.connection.await {
            tracing::error!(%error, "the upgrade failed");
        }
        let _ = self.closed.await;
    }
}

/// What hyper takes for the socket, and the application is given.
struct Tunnel {
    stage: Stage,
    stdin: InputStream,
    stdout: OutputStream,
    /// Dropped with the tunnel: tells that the application is done.
    _open: oneshot::Sender<Infallible>,
}

/// ```text
///           hyper reads REQUEST                   hyper has written a head
///  Request ─────────────────────> Head(… so far) ─────────────────────────> Open
/// ```
enum Stage {
    Request,
    Head(Vec<u8>),
    Open,
}

impl Read for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &self.stage {
            // hyper's buffer is larger at its smallest.
            Stage::Request => {
                buf.put_slice(REQUEST);
                self.stage = Stage::Head(Vec::new());
                Poll::Ready(Ok(()))
            }
            // What hyper waits for is the service.
            Stage::Head(_) => Poll::Pending,
            Stage::Open => {
                if let Some(content) = ready!(self.stdin.poll_take(cx, buf.remaining()))? {
                    buf.put_slice(&content);
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Write for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        content: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Stage::Open = self.stage {
            return Pin::new(&mut self.stdout).poll_write(cx, content);
        }
        if let Stage::Head(head) = &mut self.stage {
            head.extend_from_slice(content);
            if head.ends_with(b"\r\n\r\n") {
                self.stage = Stage::Open;
            }
        }
        Poll::Ready(Ok(content.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.stage {
            Stage::Open => Pin::new(&mut self.stdout).poll_shutdown(cx),
            Stage::Request | Stage::Head(_) => Poll::Ready(Ok(())),
        }
    }
}
