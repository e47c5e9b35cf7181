//! The body of a response: STDOUT behind the head, as it comes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use afcgi_proto::ProtocolStatus;
use afcgi_proto::inbox::Read;
use afcgi_proto::web::Input;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use super::error::{Awaited, Error};
use super::linger::linger;
use super::place::Place;
use super::stderr::Stderr;
use super::streams::Streams;

/// Most bytes of a piece of a body. What is not taken stays where it is bounded and the application feels it.
const PIECE: usize = 64 << 10;

/// The body of a response.
///
/// It ends without an error only where the application said that it has ended, and as long as it
/// announced. Not reading it holds the application back. Dropping it gives the request up, if that
/// has not ended: the application is sent ABORT_REQUEST.
#[derive(Default)]
pub struct ResponseBody {
    /// What came with the head, or is all of the body.
    first: Bytes,
    /// `None`: the request is over.
    open: Option<Box<Open>>,
}

struct Open {
    place: Place,
    stderr: Stderr,
    /// Content-Length, and how much of it has not come.
    announced: Option<u64>,
    found: u64,
    /// The rest of the request's body and file, that is still being sent.
    upload: Option<Task>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether `timer` runs.
    waits: bool,
}

/// A task that ends with its handle.
struct Task(JoinHandle<Result<(), Error>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ResponseBody {
    pub(super) fn new(
        place: Place,
        first: Bytes,
        announced: Option<u64>,
        upload: Option<Streams>,
        stderr: Stderr,
    ) -> Result<Self, (Place, Error)> {
        let upload = upload.map(|mut upload| {
            let shared = Arc::clone(&place.shared);
            let handle = place.handle;
            Task(tokio::spawn(async move {
                std::future::poll_fn(|cx| upload.poll(cx, &shared, handle)).await
            }))
        });
        let mut open = Box::new(Open {
            place,
            stderr,
            announced,
            found: 0,
            upload,
            timer: None,
            waits: false,
        });
        // Most responses have come as a whole.
        let counted = open.count(first.len());
        let over = counted.and_then(|()| match open.is_over() {
            Ok(over) => Ok(over),
            // What came is to be read before the error is, unless that is nothing.
            Err(error) if first.is_empty() || open.announced.is_some() => Err(error),
            Err(_) => Ok(false),
        });
        match over {
            Ok(over) => Ok(Self {
                first,
                open: (!over).then_some(open),
            }),
            Err(error) => Err((open.place, error)),
        }
    }

    /// A text that is all of the body.
    pub(super) fn text(text: Bytes) -> Self {
        Self {
            first: text,
            open: None,
        }
    }
}

impl Open {
    /// Counts content in.
    fn count(&mut self, length: usize) -> Result<(), Error> {
        self.found += length as u64;
        match self.announced {
            Some(announced) if self.found > announced => Err(Error::Length {
                announced,
                found: self.found,
            }),
            announced => {
                // All is there: whoever stops reading now gives nothing up.
                self.place.gently = announced == Some(self.found);
                Ok(())
            }
        }
    }

    /// Whether the request has ended well, and all of it was read.
    fn is_over(&mut self) -> Result<bool, Error> {
        let Place { shared, handle, .. } = &self.place;
        if !shared.is_at_end(*handle) {
            return Ok(false);
        }
        let Some(end) = shared.ended(*handle)? else {
            return Ok(false);
        };
        self.stderr.read(&self.place);
        if end.protocol_status != ProtocolStatus::RequestComplete {
            return Err(Error::Refused(end.protocol_status));
        }
        if end.app_status != 0 {
            return Err(Error::AppStatus(end.app_status));
        }
        match self.announced {
            Some(announced) if announced != self.found => Err(Error::Length {
                announced,
                found: self.found,
            }),
            _ => Ok(true),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        if let Some(Task(task)) = &mut self.upload
            && let Poll::Ready(result) = Pin::new(task).poll(cx)
        {
            self.upload = None;
            result.unwrap_or(Ok(()))?;
        }
        loop {
            self.stderr.read(&self.place);
            let Place { shared, handle, .. } = &self.place;
            if let Read::Content(content) = shared.read(*handle, Input::Stdout, PIECE) {
                self.waits = false;
                self.count(content.len())?;
                return Poll::Ready(Ok(Some(content)));
            }
            if self.is_over()? {
                return Poll::Ready(Ok(None));
            }
            let Place { shared, handle, .. } = &self.place;
            shared.ended(*handle)?;
            if shared.wait_to_read(cx, *handle) {
                ready!(self.poll_timer(cx));
                let Place { pool, shared, .. } = &self.place;
                pool.counters.timeouts();
                shared.doubt(self.place.began, pool.config.patience.shared);
                return Poll::Ready(Err(Error::Timeout(Awaited::Read)));
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(wait) = self.place.pool.config.read_timeout else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        if !std::mem::replace(&mut self.waits, true) {
            let now = tokio::time::Instant::now();
            // What cannot be added is never.
            let far = now + Duration::from_secs(86_400 * 365);
            timer.as_mut().reset(now.checked_add(wait).unwrap_or(far));
        }
        timer.as_mut().poll(cx)
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        // Whoever knows the length asks for no more.
        if self.first.is_empty() && open.place.gently && open.upload.is_none() {
            let Open { place, stderr, .. } = *open;
            linger(place, stderr);
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(open) = &mut self.open else {
            return Poll::Ready(None);
        };
        let polled = ready!(open.poll(cx));
        if !matches!(polled, Ok(Some(_))) {
            self.open = None;
        }
        Poll::Ready(polled.transpose().map(|content| content.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.open.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.len() as u64;
        match &self.open {
            None => SizeHint::with_exact(first),
            Some(open) => match open.announced {
                Some(announced) => {
                    SizeHint::with_exact(announced.saturating_sub(open.found) + first)
                }
                None => SizeHint::default(),
            },
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("is_over", &self.open.is_none())
            .finish_non_exhaustive()
    }
}
