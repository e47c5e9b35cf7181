//! Received content of one stream that its consumer has not taken yet.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::record::MAX_CONTENT;

/// What a read from a stream gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Content, never empty.
    Content(Bytes),
    /// Nothing has come yet; an event follows when something has.
    Pending,
    /// The stream was ended by its sender, and all of it has been taken.
    End,
    /// The stream will not be completed: see [`Broken`].
    Broken(Broken),
}

/// Why a stream will not be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Broken {
    /// The connection was lost, or the web server closed its half inside the stream.
    Truncated,
    /// The sender did not keep to its credit, so the request was given up.
    Violated,
    /// The consumer took nothing for so long that the rest was given up, so that the other requests
    /// of the connection could go on.
    Stalled,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the connection ended inside the stream",
            Self::Violated => "the peer did not keep to flow control, so the request was given up",
            Self::Stalled => "the stream was not read in time and was given up",
        })
    }
}

impl std::error::Error for Broken {}

/// How much room a stream must have for more of it to be received. One that had filled its buffer
/// has to be drained by half: a consumer that takes a byte now and then would otherwise hold up its
/// connection for ever without ever being late.
pub(crate) fn least_room(limit: usize, was_full: bool) -> usize {
    if was_full { (limit / 2).max(1) } else { 1 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Broken(Broken),
}

/// Bytes of content from which on a buffer is not made larger: another follows it. A large one would
/// have to be copied as it grows, and be there twice meanwhile.
const CHUNK: usize = 256 * 1024;

/// A bounded queue of bytes.
///
/// Invariants: the caller offers no more than [`Inbox::room`]; content is kept in large buffers, so
/// that a peer that cuts a stream into records of one byte costs no more than another; `bytes` is not
/// empty while there is something in `later`, which holds so many bytes as `later_len` says.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: BytesMut,
    later: VecDeque<BytesMut>,
    later_len: usize,
    state: State,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            bytes: BytesMut::new(),
            later: VecDeque::new(),
            later_len: 0,
            state: State::Open,
        }
    }
}

impl Inbox {
    /// Bytes that may be pushed under a limit; without limit once the rest is discarded.
    pub(crate) fn room(&self, limit: usize) -> usize {
        match self.state {
            State::Open => limit.saturating_sub(self.len()),
            State::Ended | State::Broken(_) => usize::MAX,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len().saturating_add(self.later_len)
    }

    /// Whether more may come.
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Gives back what was received and what may come: nobody will read it.
    pub(crate) fn discard(&mut self) {
        self.bytes = BytesMut::new();
        self.later = VecDeque::new();
        self.later_len = 0;
        self.end();
    }

    /// Why the stream will not be completed, if so.
    pub(crate) fn broken(&self) -> Option<Broken> {
        match self.state {
            State::Broken(why) => Some(why),
            State::Open | State::Ended => None,
        }
    }

    /// Appends content; what comes after the end or a break is discarded.
    pub(crate) fn push(&mut self, content: &[u8]) {
        if self.state != State::Open || content.is_empty() {
            return;
        }
        let last = self.later.back_mut().unwrap_or(&mut self.bytes);
        if last.len() < CHUNK {
            make_room(last, content.len());
            last.extend_from_slice(content);
            if !self.later.is_empty() {
                self.later_len = self.later_len.saturating_add(content.len());
            }
            return;
        }
        // As large as it gets: it is not copied as it grows.
        let mut next = BytesMut::with_capacity(CHUNK.saturating_add(MAX_CONTENT));
        next.extend_from_slice(content);
        self.later.push_back(next);
        self.later_len = self.later_len.saturating_add(content.len());
    }

    /// Goes on with the next buffer when the first is empty.
    fn advance(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = self.later.pop_front().unwrap_or_default();
            self.later_len = self.later_len.saturating_sub(self.bytes.len());
            if self.later.is_empty() {
                self.later = VecDeque::new();
            }
        }
    }

    pub(crate) fn end(&mut self) {
        if self.state == State::Open {
            self.state = State::Ended;
        }
    }

    pub(crate) fn break_off(&mut self, why: Broken) {
        if self.state == State::Open {
            self.state = State::Broken(why);
        }
    }

    /// Takes up to `most` bytes.
    pub(crate) fn read(&mut self, most: usize) -> Read {
        if self.bytes.is_empty() {
            return match self.state {
                State::Open => Read::Pending,
                State::Ended => Read::End,
                State::Broken(why) => Read::Broken(why),
            };
        }
        if most >= self.bytes.len() {
            let content = std::mem::take(&mut self.bytes).freeze();
            self.advance();
            return Read::Content(content);
        }
        Read::Content(self.bytes.split_to(most).freeze())
    }

    /// Copies up to `most` bytes into `out`, no more than it has room for; says how many.
    pub(crate) fn read_into(&mut self, out: &mut impl BufMut, most: usize) -> usize {
        let mut left = out.remaining_mut().min(most);
        let total = left;
        while left > 0 && !self.bytes.is_empty() {
            let count = left.min(self.bytes.len());
            out.put((&mut self.bytes).take(count));
            self.advance();
            left = left.saturating_sub(count);
        }
        total.saturating_sub(left)
    }
}

/// Makes a buffer large enough, by half at a time: what it would do of its own accord ends at four
/// times what it holds when it is read a little at a time.
fn make_room(bytes: &mut BytesMut, count: usize) {
    let length = bytes.len();
    let spare = bytes.capacity().saturating_sub(length);
    if length > 0 && spare < count && !bytes.try_reclaim(count) {
        let needed = length.saturating_add(count);
        let mut larger = BytesMut::with_capacity(needed.saturating_add(needed / 2));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_then_end() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.read(9), Read::Pending);
        inbox.push(b"hello");
        inbox.push(b" world");
        inbox.end();
        inbox.push(b"late");
        assert_eq!(inbox.read(5), Read::Content("hello".into()));
        assert_eq!(inbox.read(100), Read::Content(" world".into()));
        assert_eq!(inbox.read(100), Read::End);
    }

    #[test]
    fn what_came_before_a_break_is_read_first() {
        let mut inbox = Inbox::default();
        inbox.push(b"part");
        inbox.break_off(Broken::Truncated);
        inbox.end();
        assert_eq!(inbox.read(100), Read::Content("part".into()));
        assert_eq!(inbox.read(100), Read::Broken(Broken::Truncated));
    }

    #[test]
    fn much_content_is_in_several_buffers_and_in_order() {
        let mut inbox = Inbox::default();
        let content: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
        for part in content.chunks(40_000) {
            inbox.push(part);
        }
        assert_eq!(inbox.len(), content.len());
        let held = inbox.later.iter().map(BytesMut::capacity).sum::<usize>();
        assert!(
            held + inbox.bytes.capacity() < content.len() * 5 / 4,
            "{held}"
        );
        let mut seen = Vec::new();
        for round in 0.. {
            if round % 3 == 0 {
                let mut out = vec![0; 300_001];
                let count = inbox.read_into(&mut &mut out[..], usize::MAX);
                seen.extend(&out[..count]);
            }
            match inbox.read(70_000) {
                Read::Content(part) => seen.extend(part),
                other => {
                    assert_eq!(other, Read::Pending);
                    break;
                }
            }
            assert_eq!(inbox.len(), content.len() - seen.len());
        }
        assert!(seen == content);
    }

    #[test]
    fn a_slow_reader_costs_no_more_than_twice_the_limit() {
        let limit = 10_000;
        let mut inbox = Inbox::default();
        for round in 0..5_000_usize {
            let room = inbox.room(limit);
            inbox.push(&vec![1; room.min(round % 700)]);
            // What it holds on to of its own accord is its own affair.
            drop(inbox.read(round % 500));
            assert!(inbox.bytes.capacity() <= 2 * limit);
        }
    }

    #[test]
    fn room_is_bounded_while_open() {
        let mut inbox = Inbox::default();
        inbox.push(&[0; 10]);
        assert_eq!(inbox.room(16), 6);
        assert_eq!(inbox.room(4), 0);
        let mut out = [1; 4];
        assert_eq!(inbox.read_into(&mut &mut out[..], usize::MAX), 4);
        assert_eq!(inbox.room(16), 10);
        inbox.break_off(Broken::Stalled);
        assert_eq!(inbox.room(16), usize::MAX);
        inbox.push(&[0; 10]);
        assert_eq!(inbox.len(), 6);
    }
}
