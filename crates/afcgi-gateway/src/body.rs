//! Bodies on their way through: those of requests are bounded in length and time, those of responses are counted.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::ext::ReasonPhrase;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use super::http2::Content;
use super::log::Entry;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a response.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The body of a request as it comes: by HTTP/1.1 or HTTP/2.
pub(crate) type Incoming = Either<hyper::body::Incoming, Content>;

/// A response that says its status, and nothing of why.
pub(crate) fn text(status: StatusCode) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or("Error");
    let text = Full::from(format!("{} {reason}\n", status.as_u16()));
    let mut response = Response::new(text.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    if status.canonical_reason().is_none() {
        // hyper would write `<none>`.
        let reason = ReasonPhrase::from_static(b"Error");
        response.extensions_mut().insert(reason);
    }
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

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

/// What is still read of a body that nobody wants, and for how long.
const LINGER: (usize, Duration) = (1 << 20, Duration::from_secs(2));

/// Reads on for a while: a client that is cut off while it sends does not see the response, and one that has sent all may
/// use its connection again.
pub(crate) fn linger(body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    // There may be none left at the end of the program.
    if let Ok(runtime) = Handle::try_current() {
        let (most, wait) = LINGER;
        runtime.spawn(tokio::time::timeout(
            wait,
            Limited::new(body, most).collect(),
        ));
    }
}

/// The body of a request. What is not read of it is read for a while after it was dropped.
pub(crate) struct RequestBody {
    /// `None`: it was dropped.
    inner: Option<Incoming>,
    left: u64,
    pause: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waits: bool,
    verdict: Verdict,
}

impl RequestBody {
    pub(crate) fn new(inner: Incoming, most: u64, pause: Duration) -> Self {
        Self {
            inner: Some(inner),
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
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) else {
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
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.as_ref();
        inner.map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            linger(inner);
        }
    }
}

/// Whether all of a body has been taken, as long as it was announced: nobody asks for more of it then, also if its end has not come yet.
pub(crate) fn is_whole(body: &Body) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// The body of a response, with what is logged of the request when it is over.
pub(crate) struct Logged {
    pub(crate) inner: Body,
    /// `None`: it is logged elsewhere.
    pub(crate) entry: Option<Box<Entry>>,
}

impl http_body::Body for Logged {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let Self { inner, entry } = &mut *self;
        if let Some(entry) = entry {
            match &frame {
                Some(Ok(frame)) => {
                    entry.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                    entry.is_whole = is_whole(inner);
                }
                Some(Err(error)) => entry.broke_off(&**error),
                None => entry.is_whole = true,
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
