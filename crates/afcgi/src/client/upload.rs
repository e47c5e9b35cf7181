//! The body of a request on its way to STDIN, or the file of a filter on its way to DATA.
//!
//! What was sent is kept until the response begins, up to a limit, so that the request can be sent
//! again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use afcgi_proto::web::Output;
use afcgi_proto::{Gone, Handle};
use bytes::{Buf, Bytes};
use http_body::Body;
use http_body_util::BodyExt;

use super::BoxError;
use super::data::{Again, Opened};
use super::error::Error;
use super::shared::Shared;

pub(super) type BoxBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

pub(super) fn boxed<B>(body: B) -> BoxBody
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let to_bytes = |frame: http_body::Frame<B::Data>| {
        frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
    };
    Box::pin(body.map_frame(to_bytes).map_err(Into::into))
}

/// The content of a stream, and how much of it went.
pub(super) struct Upload {
    output: Output,
    /// `None`: it was read to its end, or there is none.
    body: Option<BoxBody>,
    /// What the body gave and the connection has not taken.
    chunk: Bytes,
    /// What the body gave, from the start, while that is within the limit.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    most_kept: usize,
    /// Whether all that it gave is in `kept`.
    whole: bool,
    /// Which of `kept` goes next, when the request is sent again.
    replay: usize,
    /// The length, if it was announced, and how many bytes of it are still to come.
    announced: Option<u64>,
    left: Option<u64>,
    /// Makes `body` from its start.
    again: Option<Again>,
    ended: bool,
    /// Whether it waits for the application, and not for the body.
    pub(super) is_held: bool,
    /// Whether the application has taken something since that was last asked.
    pub(super) has_moved: bool,
}

impl Upload {
    pub(super) fn new<B>(body: B, announced: Option<u64>, most_kept: usize) -> Self
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let body = (!body.is_end_stream()).then(|| boxed(body));
        Self::of(Output::Stdin, body, announced, most_kept)
    }

    /// A file for DATA. Nothing of it is kept if it can be begun again.
    pub(super) fn data(file: Opened, most_kept: usize) -> Self {
        let most_kept = match file.again {
            Some(_) => 0,
            None => most_kept,
        };
        let length = Some(file.length);
        Self {
            again: file.again,
            ..Self::of(Output::Data, Some(file.body), length, most_kept)
        }
    }

    fn of(output: Output, body: Option<BoxBody>, announced: Option<u64>, most_kept: usize) -> Self {
        Self {
            output,
            body,
            chunk: Bytes::new(),
            kept: Vec::new(),
            kept_bytes: 0,
            most_kept,
            whole: true,
            replay: 0,
            announced,
            left: announced,
            again: None,
            ended: false,
            is_held: false,
            has_moved: false,
        }
    }

    /// An empty one.
    pub(super) fn none() -> Self {
        Self::new(http_body_util::Empty::<Bytes>::new(), None, 0)
    }

    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.body.is_none() && self.kept.is_empty() && self.chunk.is_empty()
    }

    /// Reads up to `most` bytes of the body before any of it is sent. `Some`: that is all of it, and
    /// its length.
    pub(super) async fn collect(&mut self, most: usize) -> Result<Option<u64>, Error> {
        while let Some(body) = &mut self.body {
            if self.kept_bytes >= most {
                return Ok(None);
            }
            match body.frame().await {
                None => self.body = None,
                Some(Err(error)) => return Err(Error::Body(error.into())),
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.kept_bytes = self.kept_bytes.saturating_add(data.len());
                    self.kept.push(data);
                }
            }
        }
        Ok(Some(self.kept_bytes as u64))
    }

    /// Goes back to the start. `false`: that is not there any more.
    pub(super) fn rewind(&mut self) -> bool {
        if self.whole {
            self.replay = 0;
        } else if let Some(again) = &self.again {
            self.body = Some(again());
            self.left = self.announced;
            self.whole = true;
        } else {
            return false;
        }
        self.chunk = Bytes::new();
        self.ended = false;
        true
    }

    /// It will not be sent again.
    pub(super) fn forget(&mut self) {
        self.again = None;
        self.give_up();
    }

    /// What is kept is not all of it any more.
    fn give_up(&mut self) {
        self.whole = false;
        if self.replay >= self.kept.len() {
            self.kept = Vec::new();
        }
    }

    /// Sends what there is, and the end. Ready when all of that was taken, or the request is gone.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Arc<Shared>,
        handle: Handle,
    ) -> Poll<Result<(), Error>> {
        self.is_held = false;
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        loop {
            while !self.chunk.is_empty() {
                let written = shared.poll_write(cx, handle, self.output, &self.chunk);
                if written.is_pending() {
                    self.is_held = true;
                }
                match ready!(written) {
                    Ok(count) => self.sent(count),
                    Err(Gone) => return Poll::Ready(Ok(())),
                }
            }
            if let Some(chunk) = self.kept.get(self.replay) {
                self.replay += 1;
                self.chunk = chunk.clone();
                continue;
            }
            let Some(body) = &mut self.body else {
                if self.left.is_some_and(|left| left > 0) {
                    return Poll::Ready(Err(self.wrong_length()));
                }
                self.ended = true;
                shared.end(handle, self.output);
                return Poll::Ready(Ok(()));
            };
            if !matches!(shared.ended(handle), Ok(None)) {
                // Nobody wants more of it.
                return Poll::Ready(Ok(()));
            }
            match ready!(body.as_mut().poll_frame(cx)) {
                None => self.body = None,
                Some(Err(error)) => {
                    return Poll::Ready(Err(match self.output {
                        Output::Data => Error::Data(error.into()),
                        Output::Params | Output::Stdin => Error::Body(error.into()),
                    }));
                }
                Some(Ok(frame)) => {
                    // CGI has no trailers.
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    if let Some(left) = self.left {
                        let rest = left.checked_sub(data.len() as u64);
                        self.left = Some(rest.ok_or_else(|| self.wrong_length())?);
                    }
                    self.take(data);
                }
            }
        }
    }

    fn wrong_length(&self) -> Error {
        match self.output {
            Output::Data => Error::DataLength,
            Output::Params | Output::Stdin => Error::BodyLength,
        }
    }

    /// Takes a chunk of the body: it is kept if there is room.
    fn take(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let kept = self.kept_bytes.saturating_add(data.len());
        if self.whole && kept <= self.most_kept {
            self.kept_bytes = kept;
            self.kept.push(data.clone());
            self.replay = self.kept.len();
        } else {
            self.give_up();
        }
        self.chunk = data;
    }

    fn sent(&mut self, count: usize) {
        self.chunk.advance(count);
        self.has_moved = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_the_limit_is_kept() {
        let mut upload = Upload::none();
        upload.most_kept = 5;
        upload.take(Bytes::from_static(b"abc"));
        upload.sent(2);
        assert!(upload.rewind());
        assert_eq!((upload.replay, upload.kept.len()), (0, 1));
        upload.replay = 1;
        upload.take(Bytes::from_static(b"de"));
        assert!(upload.rewind());
        upload.replay = 2;
        upload.take(Bytes::from_static(b"f"));
        assert!(!upload.rewind());
        assert!(upload.kept.is_empty());
    }
}
