//! Requests that became tunnels (`docs/upgrade.md`), and the client's connection joined to them.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use afcgi_proto::inbox::Read;
use afcgi_proto::web::{Input, Output};
use afcgi_proto::{Gone, Handle};
use bytes::{Buf, Bytes};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::error::{Error, Lost};
use super::place::Place;
use super::shared::Shared;
use super::stderr::Stderr;

/// A request that became a tunnel: what is written goes to STDIN, what is read comes from STDOUT.
///
/// Shutting it down ends STDIN, the other half stays open. Dropped, it ends STDIN, and the
/// application has a moment to end the request, before that is given up.
pub struct Upgraded {
    place: Place,
    /// What came and was not read.
    rest: Bytes,
    stderr: Stderr,
}

/// Among the extensions of a response with status 101.
#[derive(Clone)]
struct Held(Arc<Mutex<Option<Upgraded>>>);

/// Takes the tunnel out of a response with status 101. `None`: it is no such response, or the
/// tunnel was taken.
pub fn upgraded<B>(response: &mut http::Response<B>) -> Option<Upgraded> {
    let held = response.extensions_mut().remove::<Held>()?;
    held.0.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Upgraded {
    pub(super) fn new(mut place: Place, rest: Bytes, stderr: Stderr) -> Self {
        place.gently = true;
        Self {
            place,
            rest,
            stderr,
        }
    }

    pub(super) fn put(self, extensions: &mut http::Extensions) {
        extensions.insert(Held(Arc::new(Mutex::new(Some(self)))));
    }

    /// Joins the tunnel with the connection to the client, once hyper gives that up, and returns when
    /// both are done: each half is closed when the other side has closed its own, and all of it when
    /// the application has ended the request or the client is gone.
    pub async fn join(self, client: OnUpgrade) -> io::Result<()> {
        let client = client.await.map_err(io::Error::other)?;
        self.join_io(TokioIo::new(client)).await
    }

    /// [`Upgraded::join`] with any pipe.
    pub async fn join_io(self, client: impl AsyncRead + AsyncWrite) -> io::Result<()> {
        let over = Over {
            shared: Arc::clone(&self.place.shared),
            handle: self.place.handle,
        };
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_app, mut to_app) = tokio::io::split(self);
        let down = async {
            tokio::io::copy(&mut from_app, &mut to_client).await?;
            // A client that is gone has closed it too.
            let _ = to_client.shutdown().await;
            io::Result::Ok(())
        };
        let up = async {
            tokio::io::copy(&mut from_client, &mut to_app).await?;
            to_app.shutdown().await
        };
        tokio::pin!(down, up);
        tokio::select! {
            result = &mut down => {
                result?;
                if over.is_over() {
                    return Ok(());
                }
                // STDOUT has ended, and what the client says is still read.
                up.await
            }
            result = &mut up => {
                result?;
                down.await
            }
        }
    }
}

/// Tells whether a request has ended, to whoever does not hold its place.
struct Over {
    shared: Arc<Shared>,
    handle: Handle,
}

impl Over {
    fn is_over(&self) -> bool {
        !matches!(self.shared.ended(self.handle), Ok(None))
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let most = buf.remaining();
        if most == 0 {
            return Poll::Ready(Ok(()));
        }
        if !this.rest.is_empty() {
            let count = most.min(this.rest.len());
            buf.put_slice(&this.rest[..count]);
            this.rest.advance(count);
            return Poll::Ready(Ok(()));
        }
        loop {
            this.stderr.read(&this.place);
            let Place { shared, handle, .. } = &this.place;
            if let Read::Content(content) = shared.read(*handle, Input::Stdout, most) {
                buf.put_slice(&content);
                return Poll::Ready(Ok(()));
            }
            shared.ended(*handle)?;
            if shared.is_at_end(*handle) {
                return Poll::Ready(Ok(()));
            }
            if shared.wait_to_read(cx, *handle) {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        content: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Place { shared, handle, .. } = &self.place;
        // For a request that has ended it is taken and dropped: what is to be read comes first.
        shared
            .poll_write(cx, *handle, Output::Stdin, content)
            .map_err(|Gone| Error::Lost(Lost::Closed).into())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.place.shared.end(self.place.handle, Output::Stdin);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").finish_non_exhaustive()
    }
}
