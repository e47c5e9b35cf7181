//! Interim responses (status 1xx, such as 103 Early Hints), which hyper's server does not send.
//!
//! By HTTP/1.1 they are written between hyper's own bytes: a flush reaches the stream only when hyper has written all that it had, which is where one
//! message has ended and the next has not begun, as long as no response is given to hyper before its interim responses were taken.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use afcgi::client::OnInterim;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};

/// Takes out of a head what is not for clients.
pub(crate) type Tidy = fn(&mut HeaderMap);

/// Whether an application's interim response is passed on: not 100, which is between the client and the gateway, nor 101.
fn is_passed_on(status: StatusCode) -> bool {
    status.is_informational()
        && status != StatusCode::CONTINUE
        && status != StatusCode::SWITCHING_PROTOCOLS
}

/// The interim responses that are to be sent: on a connection of HTTP/1.1, or to a request of HTTP/2. The client library bounds how many bytes a request has of them: all its heads
/// share one limit.
#[derive(Debug)]
pub(crate) struct Hints {
    tidy: Tidy,
    is_empty: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    heads: Vec<Response<()>>,
    /// Whoever has a response, which has to wait.
    waker: Option<Waker>,
}

impl Hints {
    pub(crate) fn new(tidy: Tidy) -> Arc<Self> {
        Arc::new(Self {
            tidy,
            is_empty: AtomicBool::new(true),
            queue: Mutex::default(),
        })
    }

    /// Puts interim responses here.
    pub(crate) fn on_interim(self: &Arc<Self>) -> OnInterim {
        let hints = Arc::clone(self);
        OnInterim(Arc::new(move |response| hints.push(response)))
    }

    fn push(&self, mut response: Response<()>) {
        let status = response.status();
        if !is_passed_on(status) {
            return;
        }
        // RFC 9110 section 8.6. What is about the connection the client library has removed.
        response.headers_mut().remove(CONTENT_LENGTH);
        (self.tidy)(response.headers_mut());
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.heads.push(response);
        self.is_empty.store(false, Ordering::Release);
    }

    /// Returns when the stream has taken all of them.
    pub(crate) async fn taken(&self) {
        poll_fn(|cx| {
            if self.is_empty.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Those that have come since.
    pub(crate) fn take(&self) -> Vec<Response<()>> {
        if self.is_empty.load(Ordering::Acquire) {
            return Vec::new();
        }
        let queue = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        self.is_empty.store(true, Ordering::Release);
        if let Some(waker) = queue.waker {
            waker.wake();
        }
        queue.heads
    }
}

/// As HTTP/1.1 has them.
pub(super) fn encode(heads: &[Response<()>]) -> Bytes {
    let mut bytes = Vec::new();
    for head in heads {
        let status = head.status();
        let reason = status.canonical_reason().unwrap_or_default();
        bytes.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).as_bytes());
        for (name, value) in head.headers() {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.into()
}
