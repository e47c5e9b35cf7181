//! What goes to the application behind the parameters: STDIN, and after it, for a filter, DATA.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use afcgi_proto::Handle;

use super::error::Error;
use super::shared::Shared;
use super::upload::Upload;

/// The streams of a request, in the order in which they are sent.
pub(super) struct Streams {
    pub(super) stdin: Upload,
    /// `None`: the application is no filter.
    data: Option<Box<Upload>>,
}

impl Streams {
    pub(super) fn new(stdin: Upload, data: Option<Upload>) -> Self {
        Self {
            stdin,
            data: data.map(Box::new),
        }
    }

    /// Takes them out, and leaves nothing to send.
    pub(super) fn take(&mut self) -> Self {
        Self {
            stdin: std::mem::replace(&mut self.stdin, Upload::none()),
            data: self.data.take(),
        }
    }

    /// Whether there is nothing to send but the end of STDIN.
    pub(super) fn is_empty(&self) -> bool {
        self.data.is_none() && self.stdin.is_empty()
    }

    pub(super) fn is_filtered(&self) -> bool {
        self.data.is_some()
    }

    /// See [`Upload::rewind`].
    pub(super) fn rewind(&mut self) -> bool {
        self.stdin.rewind() && self.data.as_mut().is_none_or(|data| data.rewind())
    }

    /// See [`Upload::forget`].
    pub(super) fn forget(&mut self) {
        self.stdin.forget();
        if let Some(data) = &mut self.data {
            data.forget();
        }
    }

    /// Whether they wait for the application, and not for what they are made of.
    pub(super) fn is_held(&self) -> bool {
        self.stdin.is_held || self.data.as_ref().is_some_and(|data| data.is_held)
    }

    /// Whether the application has taken something since that was last asked.
    pub(super) fn has_moved(&mut self) -> bool {
        let data = self.data.as_mut();
        let moved = data.is_some_and(|data| std::mem::take(&mut data.has_moved));
        std::mem::take(&mut self.stdin.has_moved) || moved
    }

    /// Sends one stream to its end, and then the other.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Arc<Shared>,
        handle: Handle,
    ) -> Poll<Result<(), Error>> {
        ready!(self.stdin.poll(cx, shared, handle))?;
        match &mut self.data {
            Some(data) => data.poll(cx, shared, handle),
            None => Poll::Ready(Ok(())),
        }
    }
}
