//! The body of an HTTP request that came over FastCGI.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::server::{InputStream, ReadError};

/// A request body: STDIN, as it comes.
///
/// Where CONTENT_LENGTH announced a length, more than that is not given, and less is an error
/// . Not reading it leaves it where it is: the web server is held back once the server's
/// `stdin_buffer` is full.
#[derive(Debug)]
pub struct Body {
    stdin: InputStream,
    /// Bytes to come; `None`: nobody knows.
    left: Option<u64>,
}

/// Why a request body ends early.
pub type BodyError = ReadError;

impl Body {
    pub(super) fn new(stdin: InputStream, left: Option<u64>) -> Self {
        Self { stdin, left }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.left == Some(0) {
            return Poll::Ready(None);
        }
        let content = ready!(self.stdin.poll_read(cx));
        Poll::Ready(match content {
            Err(error) => Some(Err(error)),
            Ok(None) => None,
            Ok(Some(mut content)) => {
                if let Some(left) = &mut self.left {
                    content.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= content.len() as u64;
                }
                Some(Ok(Frame::data(content)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
