//! The body of a request by HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Frame, SizeHint};

/// The body of a request. Dropped before its end, it tells the client that no more is wanted.
#[derive(Debug)]
pub(crate) struct Content {
    /// `None`: there is none.
    stream: Option<RecvStream>,
    /// Bytes that are to come, where that was said; the h2 crate refuses another length.
    left: Option<u64>,
}

impl Content {
    pub(crate) fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        let stated = headers.get(CONTENT_LENGTH).map(http::HeaderValue::to_str);
        let left = match stated {
            Some(Ok(text)) => text.parse().ok(),
            _ => None,
        };
        Self {
            stream: Some(stream),
            left,
        }
    }

    /// An empty one.
    pub(crate) fn none() -> Self {
        Self {
            stream: None,
            left: None,
        }
    }
}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(None);
        };
        let Some(data) = ready!(stream.poll_data(cx)) else {
            // CGI knows no trailers, so what they say is of no use.
            return stream.poll_trailers(cx).map(|trailers| match trailers {
                Err(error) => Some(Err(error)),
                Ok(_) => None,
            });
        };
        let data = data?;
        this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
        stream.flow_control().release_capacity(data.len())?;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (self.is_end_stream(), self.left) {
            (true, _) => SizeHint::with_exact(0),
            (false, Some(left)) => SizeHint::with_exact(left),
            (false, None) => SizeHint::new(),
        }
    }
}
