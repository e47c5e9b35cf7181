//! The body of a response that sends a file, or parts of it with texts between them.
//!
//! It is as long as it was announced, or fails: a file may be cut while it is sent, and what is appended is not sent.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::front::BoxError;

/// Bytes that are read at a time.
const PIECE: u64 = 64 << 10;

/// A piece of a body.
#[derive(Debug)]
pub(super) enum Part {
    Text(Bytes),
    /// Bytes of the file.
    File(Range<u64>),
}

impl Part {
    fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File(range) => range.end.saturating_sub(range.start),
        }
    }
}

/// Parts of a file, and texts, one after the other.
pub(super) struct Content {
    file: Arc<File>,
    parts: VecDeque<Part>,
    /// Bytes of them.
    left: u64,
    /// What is being read.
    piece: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Content {
    pub(super) fn new(file: File, parts: Vec<Part>) -> Self {
        Self {
            file: Arc::new(file),
            left: parts.iter().map(Part::length).sum(),
            parts: parts.into(),
            piece: None,
        }
    }

    /// Bytes that are still to come.
    pub(super) fn length(&self) -> u64 {
        self.left
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let range = loop {
            match self.parts.front_mut() {
                None => return Poll::Ready(Ok(None)),
                Some(Part::File(range)) if range.is_empty() => drop(self.parts.pop_front()),
                Some(Part::File(range)) => break range,
                Some(Part::Text(text)) => {
                    let text = std::mem::take(text);
                    self.parts.pop_front();
                    return Poll::Ready(Ok(Some(text)));
                }
            }
        };
        let piece = self.piece.get_or_insert_with(|| {
            let (file, from) = (Arc::clone(&self.file), range.clone());
            tokio::task::spawn_blocking(move || read(&file, from))
        });
        let read = ready!(Pin::new(piece).poll(cx));
        self.piece = None;
        let read = read??;
        range.start = range.start.saturating_add(read.len() as u64);
        Poll::Ready(Ok(Some(read)))
    }
}

/// Reads the beginning of a range.
fn read(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let most = range.end.saturating_sub(range.start).min(PIECE);
    let mut buffer = vec![0; usize::try_from(most).unwrap_or_default()];
    loop {
        match file.read_at(&mut buffer, range.start) {
            Ok(0) => {
                let why = "the file was cut while it was sent";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
            Ok(count) => {
                buffer.truncate(count);
                return Ok(buffer.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match ready!(self.poll(cx)) {
            Ok(None) => None,
            Ok(Some(bytes)) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                Some(Ok(Frame::data(bytes)))
            }
            Err(error) => {
                self.parts.clear();
                Some(Err(error.into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::io::Write;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[tokio::test]
    async fn parts_and_texts() {
        let content: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
        let parts = vec![
            Part::Text("<".into()),
            Part::File(3..150_003),
            Part::Text("|".into()),
            Part::File(7..7),
            Part::File(0..2),
            Part::Text(">".into()),
        ];
        let body = Content::new(file(&content), parts);
        assert_eq!(body.length(), 150_005);
        let sent = body.collect().await.unwrap().to_bytes();
        let expected = [b"<", &content[3..150_003], b"|", &content[..2], b">"].concat();
        assert!(sent == expected, "{} bytes", sent.len());
    }

    #[tokio::test]
    async fn a_file_that_is_cut() {
        let file = file(&[b'x'; 100_000]);
        let other = file.try_clone().unwrap();
        let mut body = Content::new(file, vec![Part::File(0..100_000)]);
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len() as u64, PIECE);
        other.set_len(PIECE).unwrap();
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("cut"), "{error}");
        assert!(body.frame().await.is_none());
        assert!(!http_body::Body::is_end_stream(&body), "it is not whole");
    }

    #[tokio::test]
    async fn a_file_that_grows() {
        let mut file = file(b"0123");
        let body = Content::new(file.try_clone().unwrap(), vec![Part::File(0..4)]);
        file.write_all(b"456").unwrap();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "0123");
    }
}
