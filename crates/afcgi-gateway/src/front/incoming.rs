//! The body of a request as it comes: by HTTP/1.1 or HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Either, Limited};
use tokio::runtime::Handle;

use super::content::Content;

/// An error of a body or a connection, whoever it is about.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body by HTTP/1.1, or by HTTP/2.
pub(crate) type Incoming = Either<hyper::body::Incoming, Content>;

/// What is still read of a body that nobody wants, and for how long.
const LINGER: (usize, Duration) = (1 << 20, Duration::from_secs(2));

/// A body that is read on for a while when it is dropped before its end: a client that is cut off while it sends does not see the
/// response, and one that has sent all may use its connection again.
#[derive(Debug)]
pub(crate) struct Unread(Option<Incoming>);

impl Unread {
    pub(crate) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }

    /// All of it. What is left here is empty.
    pub(crate) fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Incoming::is_end_stream)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let body = self.0.as_ref();
        body.map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        // There may be none left at the end of the program.
        if let Ok(runtime) = Handle::try_current() {
            let (most, wait) = LINGER;
            runtime.spawn(tokio::time::timeout(
                wait,
                Limited::new(body, most).collect(),
            ));
        }
    }
}
