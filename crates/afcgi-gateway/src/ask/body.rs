//! The body of a request on its way to an application: bounded in length and time.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::front::{BoxError, Unread};

/// Why the body of a request was not taken as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is longer than the limit.
    TooLong,
    /// It paused for too long.
    TooSlow,
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "it is longer than the limit",
            Self::TooSlow => "it paused for longer than the limit",
        })
    }
}

impl std::error::Error for Refusal {}

/// What became of a request's body, for whoever answers the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict(Arc<AtomicU8>);

impl Verdict {
    pub(crate) fn get(&self) -> Option<Refusal> {
        match self.0.load(Ordering::Acquire) {
            1 => Some(Refusal::TooLong),
            2 => Some(Refusal::TooSlow),
            _ => None,
        }
    }

    fn set(&self, refusal: Refusal) -> BoxError {
        let number = match refusal {
            Refusal::TooLong => 1,
            Refusal::TooSlow => 2,
        };
        self.0.store(number, Ordering::Release);
        refusal.into()
    }
}

/// The body of a request. What is not read of it is read for a while after it was dropped.
pub(crate) struct RequestBody {
    inner: Unread,
    left: u64,
    pause: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waits: bool,
    verdict: Verdict,
}

impl RequestBody {
    pub(crate) fn new(inner: Unread, most: u64, pause: Duration) -> Self {
        Self {
            inner,
            left: most,
            pause,
            timer: None,
            waits: false,
            verdict: Verdict::default(),
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = this.inner.poll_frame(cx) else {
            let pause = this.pause;
            let timer = this
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            if !std::mem::replace(&mut this.waits, true) {
                timer.as_mut().reset(Instant::now() + pause);
            }
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(this.verdict.set(Refusal::TooSlow))));
        };
        this.waits = false;
        Poll::Ready(match frame {
            None => None,
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                match this.left.checked_sub(length) {
                    Some(left) => {
                        this.left = left;
                        Some(Ok(frame))
                    }
                    None => Some(Err(this.verdict.set(Refusal::TooLong))),
                }
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
