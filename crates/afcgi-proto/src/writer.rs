//! Bytes to transmit: one bounded buffer per connection that the requests fill in turns.
//!
//! A request writes a record straight into the buffer while it has a turn left and the buffer has
//! room; otherwise it waits, keeps its own content, and is told when to go on. So no request holds
//! more than its turn in the buffer at a time, a large response cannot push the small ones back by
//! more than the buffer's size, and a waiting request costs the connection nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::credit::Flow;
use crate::params::Cutter;
use crate::record::{HEADER_LEN, Header, MAX_CONTENT, RecordType, RequestId};
use crate::table::Handle;

/// A buffer that grew beyond this many bytes is given back when nothing was written for a while.
const KEEP: usize = 4 * 1024;
/// How long that while is.
const QUIET: Duration = Duration::from_secs(1);

/// How much a request has written in the current round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn {
    round: u32,
    used: usize,
    /// Whether the request is in the queue of those that wait.
    waiting: bool,
}

/// The output of a connection.
///
/// Invariants: `sent <= buffer.len()`; content of streams is only added while fewer than `high`
/// bytes are pending, so `pending() < high + turn + discrete records`; a record of PARAMS that cannot
/// be cut may be longer than a turn.
#[derive(Debug)]
pub(crate) struct Writer {
    buffer: Vec<u8>,
    sent: usize,
    high: usize,
    turn: usize,
    round: u32,
    waiting: VecDeque<Handle>,
    /// How often the buffer was emptied, wrapping.
    emptied: u32,
    /// Since when the buffer is larger than it need be, and `emptied` at that time.
    spare_since: Option<(Instant, u32)>,
}

impl Writer {
    /// `high`: bytes that may be pending before requests wait; `turn`: bytes that one request may
    /// add in a round.
    pub(crate) fn new(high: usize, turn: usize) -> Self {
        Self {
            buffer: Vec::new(),
            sent: 0,
            high: high.max(1),
            turn: turn.clamp(1, MAX_CONTENT),
            // A default `Turn` is of an earlier round.
            round: 1,
            waiting: VecDeque::new(),
            emptied: 0,
            spare_since: None,
        }
    }

    pub(crate) fn pending(&self) -> &[u8] {
        self.buffer.get(self.sent..).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.buffer.len().saturating_sub(self.sent)
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes note that the first `count` pending bytes were transmitted.
    pub(crate) fn transmitted(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(count).min(self.buffer.len());
        if self.sent == self.buffer.len() {
            self.sent = 0;
            self.buffer.clear();
            self.emptied = self.emptied.wrapping_add(1);
            // Nobody has anything in an empty buffer, so everybody has a whole turn again. Whoever
            // waits does so while something is pending, and what is pending ends in here.
            self.round = self.round.wrapping_add(1);
        }
    }

    /// When [`Writer::release`] is to be called: a busy connection keeps its buffer, so that it
    /// need not grow again for each batch, and a quiet one gives it back.
    pub(crate) fn release_at(&mut self, now: Instant) -> Option<Instant> {
        if self.len() > 0 || self.buffer.capacity() <= KEEP {
            self.spare_since = None;
            return None;
        }
        let (since, _) = self.spare_since.get_or_insert((now, self.emptied));
        since.checked_add(QUIET)
    }

    /// Gives the buffer back if nothing was written since [`Writer::release_at`] first named a time.
    pub(crate) fn release(&mut self, now: Instant) {
        let Some((since, emptied)) = self.spare_since else {
            return;
        };
        if now.saturating_duration_since(since) < QUIET {
            return;
        }
        self.spare_since = None;
        if self.len() == 0 && emptied == self.emptied {
            self.buffer = Vec::new();
        }
    }

    /// Forgets everything: the connection is lost.
    pub(crate) fn clear(&mut self) {
        self.buffer = Vec::new();
        self.sent = 0;
        self.waiting.clear();
    }

    /// Begins a new round when there is room for one: says which requests may go on, in the order
    /// in which they began to wait, no more of them than have room.
    pub(crate) fn next_round(&mut self, mut grant: impl FnMut(Handle) -> bool) {
        if self.len() > self.high / 2 {
            return;
        }
        self.round = self.round.wrapping_add(1);
        let room = self.high.saturating_sub(self.len());
        let mut turns = room.div_ceil(self.turn.max(1));
        while turns > 0 {
            let Some(handle) = self.waiting.pop_front() else {
                break;
            };
            // A request that has ended since takes no turn.
            if grant(handle) {
                turns = turns.saturating_sub(1);
            }
        }
    }

    /// Whether the request is to be told that it may go on: it waits, and its wait is over.
    pub(crate) fn granted(turn: &mut Turn) -> bool {
        std::mem::take(&mut turn.waiting)
    }

    /// Appends a record of stream content: as much of `content` as the request's turn and the
    /// buffer allow, and says how much that was. If it was not all, the request waits from now on.
    pub(crate) fn stream(
        &mut self,
        handle: Handle,
        turn: &mut Turn,
        record_type: RecordType,
        content: &[u8],
    ) -> usize {
        let count = content.len().min(self.room(turn));
        self.whole(
            handle,
            turn,
            record_type,
            content.get(..count).unwrap_or_default(),
        );
        if count < content.len() {
            self.wait(handle, turn);
        }
        count
    }

    /// Like [`Writer::stream`], for a request that may be under flow control: it adds no more than
    /// it has credit for, and if that is what is missing waits for credit.
    pub(crate) fn stream_within(
        &mut self,
        handle: Handle,
        turn: &mut Turn,
        flow: Option<&mut Flow>,
        record_type: RecordType,
        content: &[u8],
    ) -> usize {
        let Some(flow) = flow else {
            return self.stream(handle, turn, record_type, content);
        };
        let most = content.len().min(flow.left());
        let count = self.stream(
            handle,
            turn,
            record_type,
            content.get(..most).unwrap_or_default(),
        );
        flow.sent(count);
        if count == most && most < content.len() {
            flow.wait();
        }
        count
    }

    /// Appends PARAMS, cut between pairs: as many as the request's turn allows. A pair that is longer
    /// than a turn takes a whole one. Says how much of `content` that was; if it was not all, the
    /// request waits from now on.
    pub(crate) fn params(
        &mut self,
        handle: Handle,
        turn: &mut Turn,
        cutter: &mut Cutter,
        content: &[u8],
    ) -> usize {
        let room = self.room(turn);
        let count = match room {
            0 => 0,
            _ if turn.used == 0 => cutter.next(content, room, MAX_CONTENT),
            _ => cutter.next(content, room, room),
        };
        self.whole(
            handle,
            turn,
            RecordType::Params,
            content.get(..count).unwrap_or_default(),
        );
        if count < content.len() {
            self.wait(handle, turn);
        }
        count
    }

    /// Whether a record of this many bytes may be added that cannot be cut: it fits into what is left of
    /// the request's turn, or the request has the whole of it.
    pub(crate) fn takes_whole(&self, turn: &mut Turn, length: usize) -> bool {
        let room = self.room(turn);
        length <= room || (room > 0 && turn.used == 0)
    }

    /// Appends a record that [`Writer::takes_whole`]; nothing if it is empty.
    pub(crate) fn whole(
        &mut self,
        handle: Handle,
        turn: &mut Turn,
        record_type: RecordType,
        content: &[u8],
    ) {
        if !content.is_empty() {
            turn.used = turn.used.saturating_add(content.len());
            self.record(record_type, Some(handle.id()), content);
        }
    }

    /// Bytes of content that a request may add now.
    pub(crate) fn room(&self, turn: &mut Turn) -> usize {
        if turn.round != self.round {
            turn.round = self.round;
            turn.used = 0;
        }
        if self.len() < self.high {
            self.turn.saturating_sub(turn.used)
        } else {
            0
        }
    }

    /// Puts a request into the queue of those that wait for a turn, if it is not there.
    pub(crate) fn wait(&mut self, handle: Handle, turn: &mut Turn) {
        if !turn.waiting {
            turn.waiting = true;
            self.waiting.push_back(handle);
        }
    }

    /// Appends a record whatever is pending: for discrete records, ends of streams and management,
    /// which the caller bounds. `content` is at most [`MAX_CONTENT`] bytes.
    pub(crate) fn record(
        &mut self,
        record_type: RecordType,
        id: Option<RequestId>,
        content: &[u8],
    ) {
        debug_assert!(content.len() <= MAX_CONTENT);
        let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
        self.compact(content.len());
        self.buffer
            .extend_from_slice(&Header::new(record_type, id, length).encode());
        self.buffer
            .extend_from_slice(content.get(..usize::from(length)).unwrap_or_default());
    }

    /// Moves what is pending to the front when that spares a growth of the buffer.
    fn compact(&mut self, content: usize) {
        let needed = content.saturating_add(HEADER_LEN);
        let spare = self.buffer.capacity().saturating_sub(self.buffer.len());
        if self.sent > 0 && spare < needed && self.sent >= self.len() {
            self.buffer.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    fn handles(count: u16) -> Vec<Handle> {
        let mut table = Table::default();
        (1..=count)
            .map(|id| table.insert(RequestId::new(id).unwrap(), ()))
            .collect()
    }

    #[test]
    fn a_request_writes_its_turn_and_then_waits() {
        let mut writer = Writer::new(1000, 100);
        let handle = handles(1)[0];
        let mut turn = Turn::default();
        let written = writer.stream(handle, &mut turn, RecordType::Stdout, &[7; 150]);
        assert_eq!(written, 100);
        assert_eq!(
            writer.stream(handle, &mut turn, RecordType::Stdout, &[7; 50]),
            0
        );
        assert_eq!(writer.len(), 108);
        assert!(writer.has_waiting());

        let mut granted = Vec::new();
        writer.next_round(|h| {
            granted.push(h);
            Writer::granted(&mut turn)
        });
        assert_eq!(granted, [handle]);
        assert!(!writer.has_waiting());
        assert_eq!(
            writer.stream(handle, &mut turn, RecordType::Stdout, &[7; 50]),
            50
        );
    }

    #[test]
    fn a_turn_that_was_used_up_exactly_comes_back() {
        let mut writer = Writer::new(1000, 100);
        let handle = handles(1)[0];
        let mut turn = Turn::default();
        for _ in 0..5 {
            let written = writer.stream(handle, &mut turn, RecordType::Stdout, &[7; 100]);
            assert_eq!(written, 100);
            assert!(!writer.has_waiting());
            writer.transmitted(writer.len());
        }
    }

    #[test]
    fn the_buffer_is_bounded_and_turns_go_round() {
        let mut writer = Writer::new(1000, 100);
        let handles = handles(40);
        let mut turns = vec![Turn::default(); handles.len()];
        let mut written = vec![0_usize; handles.len()];
        for (i, &handle) in handles.iter().enumerate() {
            written[i] += writer.stream(handle, &mut turns[i], RecordType::Stdout, &[0; 500]);
        }
        let mut most = writer.len();
        for _ in 0..100 {
            let pending = writer.len();
            writer.transmitted(pending);
            let mut granted = Vec::new();
            writer.next_round(|h| {
                granted.push(h);
                Writer::granted(&mut turns[h.slot()])
            });
            assert!(granted.len() <= 10);
            for handle in granted {
                let i = handle.slot();
                let left = vec![0; 500 - written[i]];
                written[i] += writer.stream(handle, &mut turns[i], RecordType::Stdout, &left);
            }
            most = most.max(writer.len());
            // Those that had a turn before the buffer was full are a turn ahead.
            let low = written.iter().min().unwrap();
            let high = written.iter().max().unwrap();
            assert!(high - low <= 200, "{low} {high}");
        }
        assert!(written.iter().all(|&n| n == 500), "{written:?}");
        assert!(most <= 1000 + 100 + HEADER_LEN * 40, "{most}");
    }

    #[test]
    fn requests_that_ended_take_no_turn() {
        let mut writer = Writer::new(200, 100);
        let handles = handles(10);
        let mut turns = vec![Turn::default(); handles.len()];
        for (i, &handle) in handles.iter().enumerate() {
            writer.stream(handle, &mut turns[i], RecordType::Stdout, &[0; 150]);
        }
        writer.transmitted(writer.len());
        let last = handles[9];
        let mut granted = Vec::new();
        writer.next_round(|h| {
            if h == last {
                granted.push(h);
            }
            h == last
        });
        assert_eq!(granted, [last]);
    }

    #[test]
    fn a_quiet_connection_gives_its_buffer_back() {
        let mut writer = Writer::new(1 << 20, 1 << 16);
        let mut now = Instant::now();
        assert_eq!(writer.release_at(now), None);
        let batch = |writer: &mut Writer| {
            writer.record(RecordType::Stdout, RequestId::new(1), &[0; 60_000]);
            writer.transmitted(writer.len());
        };
        batch(&mut writer);
        let at = writer.release_at(now).unwrap();
        batch(&mut writer);
        now = at;
        writer.release(now);
        assert!(writer.buffer.capacity() > 0);
        now = writer.release_at(now).unwrap();
        writer.release(now);
        assert_eq!(writer.buffer.capacity(), 0);
        assert_eq!(writer.release_at(now), None);
    }

    #[test]
    fn partly_transmitted_bytes_stay_in_order() {
        let mut writer = Writer::new(1 << 20, 1 << 16);
        let mut expected = Vec::new();
        let mut seen = Vec::new();
        for n in 0..200_u16 {
            let content = vec![n as u8; usize::from(n) * 3];
            let id = RequestId::new(1);
            writer.record(RecordType::Stdin, id, &content);
            let length = content.len() as u16;
            expected.extend_from_slice(&Header::new(RecordType::Stdin, id, length).encode());
            expected.extend_from_slice(&content);
            let part = writer.len().min(usize::from(n) * 2);
            seen.extend_from_slice(&writer.pending()[..part]);
            writer.transmitted(part);
        }
        seen.extend_from_slice(writer.pending());
        writer.transmitted(writer.len());
        assert_eq!(seen, expected);
        assert!(writer.pending().is_empty());
    }
}
