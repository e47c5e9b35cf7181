//! The last stage, and the one way out: what every response passes, whoever made it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body::{Frame, SizeHint};
use tokio_util::task::TaskTracker;

use crate::ask::Answer;
use crate::config::HeaderRules;
use crate::front::{BoxError, Busy};
use crate::respond::{Body, Refused, fields, is_whole};
use crate::say::Entry;

/// A request until its response or its tunnel has ended: then it is logged and counted, whatever became of it.
pub(super) struct Ongoing {
    pub(super) entry: Entry,
    busy: Busy,
    version: Version,
    is_head: bool,
}

impl Ongoing {
    pub(super) fn new(request: &Parts, entry: Entry, busy: Busy) -> Self {
        Self {
            entry,
            busy,
            version: request.version,
            is_head: request.method == Method::HEAD,
        }
    }

    /// The response could not be sent as a whole.
    fn broke_off(&self, error: &(dyn std::error::Error + 'static)) {
        // The end of the connection may be what ends the response.
        if self.version <= Version::HTTP_10 {
            self.busy.broke_off();
        }
        self.entry.broke_off(error);
    }
}

/// Takes out what applications and authorizers say to the gateway alone, applies the rules of the route, if there is one, and has
/// the request logged when the response is over, or the tunnel, which is one of `tasks`.
pub(super) fn finish(
    answered: Result<Answer, Refused>,
    rules: Option<&HeaderRules>,
    mut ongoing: Box<Ongoing>,
    tasks: &TaskTracker,
) -> Response<Logged> {
    let is_refused = answered.is_err();
    let Answer {
        mut response,
        tunnel,
    } = answered.unwrap_or_else(|refused| Answer::from(*refused));
    let headers = response.headers_mut();
    fields::keep_inside(headers);
    if let Some(rules) = rules {
        fields::apply(rules, headers);
    }
    if is_refused && ongoing.version <= Version::HTTP_11 && is_unclear(response.status()) {
        fields::close(response.headers_mut());
    }
    let entry = &mut ongoing.entry;
    entry.status = response.status().as_u16();
    entry.is_whole = (ongoing.is_head || is_whole(response.body())) && tunnel.is_none();
    let ongoing = match tunnel {
        None => Some(ongoing),
        Some((offer, tunnel)) => {
            tasks.spawn(async move {
                match offer.join(*tunnel).await {
                    Ok(()) => ongoing.entry.is_whole = true,
                    Err(error) => {
                        tracing::debug!(%error, host = %ongoing.entry.host, "a tunnel broke off");
                    }
                }
            });
            None
        }
    };
    response.map(|inner| Logged { inner, ongoing })
}

/// Whether a request was refused since it is not certain what it is.
fn is_unclear(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED
    )
}

/// The body of a response, and the request that is over with it.
pub(crate) struct Logged {
    inner: Body,
    /// `None`: it is over with its tunnel.
    ongoing: Option<Box<Ongoing>>,
}

impl http_body::Body for Logged {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let Self { inner, ongoing } = &mut *self;
        if let Some(ongoing) = ongoing {
            let entry = &mut ongoing.entry;
            match &frame {
                Some(Ok(frame)) => {
                    entry.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                    entry.is_whole = is_whole(inner);
                }
                Some(Err(error)) => ongoing.broke_off(&**error),
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
