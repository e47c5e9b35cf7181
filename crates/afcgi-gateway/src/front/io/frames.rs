//! What h2 answers by itself: 431 to a head over the limit, of which nobody hears. So its frames are looked at as they are written:
//! a response on a stream that was given to nobody is such a one.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Bytes of the head of a frame (RFC 9113 section 4.1).
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;
/// Streams that are remembered: of one that the client has reset no end is written, so the oldest are forgotten.
const REMEMBERED: usize = 1024;

/// The streams of a connection whose requests were given to somebody.
#[derive(Debug, Default)]
pub(crate) struct Accepted(Mutex<Frames>);

#[derive(Debug, Default)]
struct Frames {
    accepted: BTreeSet<u32>,
    /// The beginning of a frame's head.
    head: Vec<u8>,
    /// Bytes to come of a frame's content.
    left: usize,
    refused: usize,
}

impl Accepted {
    pub(crate) fn add(&self, stream: u32) {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frames.accepted.insert(stream);
        if frames.accepted.len() > REMEMBERED {
            frames.accepted.pop_first();
        }
    }

    /// How many requests were refused since.
    pub(crate) fn take_refused(&self) -> usize {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut frames.refused)
    }

    /// Looks at what was written: so many bytes of the pieces.
    pub(super) fn wrote<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>, mut count: usize) {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in pieces {
            let now = piece.get(..count).unwrap_or(piece);
            count -= now.len();
            frames.wrote(now);
        }
    }
}

impl Frames {
    fn wrote(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            let rest = bytes.get(skipped..).unwrap_or_default();
            let taken = (HEAD - self.head.len()).min(rest.len());
            let (now, rest) = rest.split_at(taken);
            self.head.extend_from_slice(now);
            if let Ok([a, b, c, kind, flags, stream @ ..]) =
                <[u8; HEAD]>::try_from(self.head.as_slice())
            {
                self.head.clear();
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                self.frame(kind, flags, u32::from_be_bytes(stream));
            }
            bytes = rest;
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32) {
        if kind == HEADERS && !self.accepted.contains(&stream) {
            self.refused += 1;
        }
        let ends = flags & END_STREAM != 0 && matches!(kind, HEADERS | DATA);
        if ends || kind == RST_STREAM {
            self.accepted.remove(&stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_to_nobody_are_counted_at_every_cut() {
        let frame = |kind, flags, stream: u8, content: &[u8]| {
            let head = [0, 0, content.len() as u8, kind, flags, 0, 0, 0, stream];
            [&head, content].concat()
        };
        let bytes = [
            frame(4, 0, 0, b"settings"),
            frame(HEADERS, 4, 1, b"\x08"),
            frame(HEADERS, 4 | END_STREAM, 3, b"refused"),
            frame(DATA, END_STREAM, 1, b"\0\0\0\x01\x01\0\0\0\x05"),
            frame(HEADERS, 4 | END_STREAM, 5, b""),
            frame(RST_STREAM, 0, 3, b"\0\0\0\0"),
        ]
        .concat();
        for cut in 0..=bytes.len() {
            let accepted = Accepted::default();
            accepted.add(1);
            accepted.add(5);
            let (before, after) = bytes.split_at(cut);
            accepted.wrote([before, after], cut);
            accepted.wrote([after, b"not written"], after.len());
            assert_eq!(accepted.take_refused(), 1, "{cut}");
            let frames = accepted.0.lock().unwrap();
            assert!(frames.accepted.is_empty() && frames.left == 0 && frames.head.is_empty());
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let accepted = Accepted::default();
        for number in 0..10_000 {
            accepted.add(2 * number + 1);
        }
        assert_eq!(accepted.0.lock().unwrap().accepted.len(), REMEMBERED);
    }
}
