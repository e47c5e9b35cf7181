//! Received content of one stream that its consumer has not taken yet.

use bytes::{Buf, Bytes, BytesMut};

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

/// A bounded queue of bytes.
///
/// Invariant: the caller offers no more than [`Inbox::room`]; content is kept in one buffer, so
/// that a peer that cuts a stream into records of one byte costs no more than another.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: BytesMut,
    state: State,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            bytes: BytesMut::new(),
            state: State::Open,
        }
    }
}

impl Inbox {
    /// Bytes that may be pushed under a limit; without limit once the rest is discarded.
    pub(crate) fn room(&self, limit: usize) -> usize {
        match self.state {
            State::Open => limit.saturating_sub(self.bytes.len()),
            State::Ended | State::Broken(_) => usize::MAX,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether more may come.
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Gives back what was received and what may come: nobody will read it.
    pub(crate) fn discard(&mut self) {
        self.bytes = BytesMut::new();
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
        if self.state == State::Open {
            self.make_room(content.len());
            self.bytes.extend_from_slice(content);
        }
    }

    /// Makes the buffer large enough, by half at a time: what it would do of its own accord ends
    /// at four times what it holds when it is read a little at a time.
    fn make_room(&mut self, count: usize) {
        let length = self.bytes.len();
        let spare = self.bytes.capacity().saturating_sub(length);
        if length > 0 && spare < count && !self.bytes.try_reclaim(count) {
            let needed = length.saturating_add(count);
            let mut larger = BytesMut::with_capacity(needed.saturating_add(needed / 2));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
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
            return Read::Content(std::mem::take(&mut self.bytes).freeze());
        }
        Read::Content(self.bytes.split_to(most).freeze())
    }

    /// Copies up to `out.len()` bytes into `out`; says how many.
    pub(crate) fn read_into(&mut self, out: &mut [u8]) -> usize {
        let count = out.len().min(self.bytes.len());
        if let Some(out) = out.get_mut(..count) {
            self.bytes.copy_to_slice(out);
        }
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        count
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
        assert_eq!(inbox.read_into(&mut out), 4);
        assert_eq!(inbox.room(16), 10);
        inbox.break_off(Broken::Stalled);
        assert_eq!(inbox.room(16), usize::MAX);
        inbox.push(&[0; 10]);
        assert_eq!(inbox.len(), 6);
    }
}
