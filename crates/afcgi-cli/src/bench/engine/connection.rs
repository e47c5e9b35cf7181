//! A connection: the requests on it, what is sent of them, and how it is opened, lost and opened again.
//!
//! ```text
//! Closed ──> Connecting ──> Open ──> Finishing: no request is left, the application is to close it
//!   ^            │            │          │
//!   └────────────┴────────────┴──────────┘
//! ```

mod late;

use std::collections::VecDeque;
use std::io;

use mio::{Registry, Token};

use super::reply::{Part, Reader};
use super::shared::Shared;
use super::slot::{Phase, Sent, Slot};
use super::socket::Stream;
use super::stats::{self, Kind, shown};

/// Output above which further requests wait until it was written; what is written at a time.
const OUTPUT: usize = 64 * 1024;
/// Reads of one connection before it is the turn of the others.
const TURN: usize = 16;
/// Ids that were used up on a connection, after which it is given up.
const SPENT: usize = 32_000;
/// The first pause after a failure, in nanoseconds, and the doublings of it.
const PAUSE: u64 = 10_000_000;
const DOUBLINGS: u32 = 7;
/// How long a full queue is left alone, in nanoseconds.
const QUEUE_PAUSE: u64 = 2_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { retry: u64 },
    Connecting { since: u64 },
    Open,
    Finishing { since: u64 },
}

#[derive(Debug)]
pub(super) struct Connection {
    index: usize,
    state: State,
    stream: Option<Stream>,
    reader: Reader,
    output: Vec<u8>,
    written: usize,
    /// Whether the application takes nothing any more. It may still have something to say.
    deaf: bool,
    /// Requests of which the piece of this number is to be sent.
    sending: VecDeque<(u16, u32)>,
    /// What the ids are, from 1 on.
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Requests that take a place.
    open: usize,
    /// Ids that are not used again.
    spent: usize,
    /// Whether no further request is begun.
    retiring: bool,
    /// Answers since it was opened.
    answered: u64,
    /// Times in a row that it was lost without one.
    failures: u32,
    opened: bool,
}

impl Connection {
    pub(super) fn new(index: usize) -> Self {
        Self {
            index,
            state: State::Closed { retry: 0 },
            stream: None,
            reader: Reader::default(),
            output: Vec::new(),
            written: 0,
            deaf: false,
            sending: VecDeque::new(),
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            spent: 0,
            retiring: false,
            answered: 0,
            failures: 0,
            opened: false,
        }
    }

    /// When it may be opened; `None`: it is open, or on its way.
    pub(super) fn retry(&self) -> Option<u64> {
        match self.state {
            State::Closed { retry } => Some(retry),
            _ => None,
        }
    }

    /// Whether it is neither open nor on its way, and opening it has failed or was not tried.
    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.state, State::Connecting { .. })
    }

    /// Whether every byte was handed to the kernel.
    pub(super) fn is_sent(&self) -> bool {
        self.output.is_empty() && self.sending.is_empty()
    }

    /// Whether a request may begin on it.
    pub(super) fn has_place(&self, shared: &Shared) -> bool {
        self.state == State::Open
            && !self.retiring
            && self.open < usize::from(shared.config.concurrent)
            && (!self.free.is_empty() || self.slots.len() < usize::from(u16::MAX))
    }

    pub(super) fn connect(&mut self, shared: &mut Shared, registry: &Registry) {
        match Stream::connect(shared.endpoint(self.index), registry, Token(self.index)) {
            Ok(stream) => {
                self.stream = Some(stream);
                self.state = State::Connecting { since: shared.now };
                self.connecting(shared);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                shared.stats.queue_full += 1;
                self.close(shared, shared.now + QUEUE_PAUSE);
            }
            Err(error) => self.cannot_connect(shared, &error),
        }
    }

    /// Looks whether it is connected by now, and sends what may be sent.
    fn connecting(&mut self, shared: &mut Shared) {
        let (State::Connecting { since }, Some(stream)) = (self.state, &self.stream) else {
            return;
        };
        match stream.is_connected() {
            Ok(false) => {}
            Ok(true) => {
                shared.tick();
                self.state = State::Open;
                shared.stats.connections += 1;
                shared.stats.reconnects += u64::from(self.opened);
                self.opened = true;
                stats::record(&mut shared.stats.connect, shared.now - since);
                self.fill(shared);
            }
            Err(error) => self.cannot_connect(shared, &error),
        }
    }

    /// A request that was to begin has failed.
    fn cannot_connect(&mut self, shared: &mut Shared, error: &io::Error) {
        let kind = match error.kind() {
            io::ErrorKind::TimedOut => Kind::TimedOut,
            _ => Kind::Refused,
        };
        if shared.take(true).is_some() {
            let endpoint = shared.endpoint(self.index).to_string();
            let text = || format!("{endpoint}: {error}");
            shared.stats.fail(kind, 1, text);
        }
        self.pause(shared);
    }

    /// Closes it, to be opened again after a pause that grows.
    fn pause(&mut self, shared: &mut Shared) {
        shared.stats.put_off += 1;
        let pause = PAUSE << self.failures.min(DOUBLINGS);
        self.failures = self.failures.saturating_add(1);
        self.close(shared, shared.now + pause);
    }

    /// Closes it, to be opened again at a time. Its requests are gone.
    fn close(&mut self, shared: &mut Shared, retry: u64) {
        for slot in &mut self.slots {
            slot.clear(&mut shared.held);
        }
        shared.in_flight -= self.open as u64;
        self.slots.clear();
        self.free.clear();
        self.sending.clear();
        self.output.clear();
        self.reader = Reader::default();
        self.stream = None;
        (self.written, self.open, self.spent, self.answered) = (0, 0, 0, 0);
        (self.deaf, self.retiring) = (false, false);
        self.state = State::Closed { retry };
        shared.closed.push(self.index);
    }

    /// The connection is over. Its requests have failed, but for those that the application has not begun to answer on a connection that
    /// was kept: it may have been closing already.
    fn lost(&mut self, shared: &mut Shared, kind: Kind, text: &str) {
        let (mut failed, mut aborted, mut resent) = (0, 0, 0);
        for slot in &self.slots {
            match slot.phase {
                Phase::Active => {
                    let again = !slot.touched && !slot.resent && self.answered > 0;
                    if again && kind == Kind::Closed {
                        shared.resend.push_back(slot.due);
                        resent += 1;
                    } else {
                        failed += 1;
                    }
                }
                Phase::Aborting => aborted += 1,
                Phase::Free | Phase::Abandoned | Phase::Spent => {}
            }
        }
        if kind == Kind::Protocol && failed == 0 {
            failed = 1;
        }
        if failed > 0 {
            shared.stats.fail(kind, failed, || text.to_owned());
        }
        shared.stats.resent += resent;
        shared.stats.aborted += aborted;
        shared.stats.aborted_by_close += aborted;
        if aborted > 0 {
            shared.progress = shared.now;
        }
        shared.was_closed(self.answered, resent);
        if self.answered > 0 || aborted > 0 {
            self.failures = 0;
            self.close(shared, shared.now);
        } else {
            self.pause(shared);
        }
    }

    /// Begins as many requests as there are places and requests for.
    pub(super) fn fill(&mut self, shared: &mut Shared) {
        while self.has_place(shared)
            && let Some((due, resent)) = shared.take(self.answered == 0)
        {
            self.begin(due, resent, shared);
        }
        // A connection that is not kept is for those that begin at once.
        self.retiring |= !shared.keep && self.open > 0;
        self.flush(shared);
    }

    /// Begins one request if there is a place for it. [`Connection::flush`] sends it.
    pub(super) fn begin_one(&mut self, shared: &mut Shared) -> bool {
        if self.has_place(shared)
            && let Some((due, resent)) = shared.take(self.answered == 0)
        {
            self.begin(due, resent, shared);
            // One that is not kept is for this request alone.
            self.retiring |= !shared.keep;
            return true;
        }
        false
    }

    fn begin(&mut self, due: u64, resent: bool, shared: &mut Shared) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // There is a place, so there are fewer than ids.
            (self.slots.len() - 1) as u16
        });
        let Some(slot) = self.slots.get_mut(usize::from(index)) else {
            return;
        };
        slot.begin(due, shared.now, resent);
        slot.aborts = shared.aborts();
        self.open += 1;
        shared.in_flight += 1;
        shared.stats.begun += u64::from(!resent);
        if self.sending.is_empty() && self.output.len() < OUTPUT {
            let template = &shared.config.template;
            template.write(0, index + 1, &mut self.output);
            slot.sent = if template.pieces() > 1 {
                self.sending.push_back((index, 1));
                Sent::Part
            } else {
                Sent::All
            };
        } else {
            self.sending.push_back((index, 0));
        }
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self, shared: &mut Shared) {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.deaf) else {
            return;
        };
        if matches!(self.state, State::Connecting { .. }) {
            return;
        }
        loop {
            while let Some(rest) = self.output.get(self.written..)
                && !rest.is_empty()
            {
                match stream.write(rest) {
                    Ok(count) => {
                        self.written += count;
                        shared.stats.writes += 1;
                        shared.stats.bytes_out += count as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => {
                        // What it has said before is still to be read, and then the end.
                        self.deaf = true;
                        self.output.clear();
                        self.sending.clear();
                        self.written = 0;
                        return;
                    }
                }
            }
            self.output.clear();
            self.written = 0;
            let template = &shared.config.template;
            while self.output.len() < OUTPUT
                && let Some((index, piece)) = self.sending.pop_front()
            {
                let Some(slot) = self.slots.get_mut(usize::from(index)) else {
                    continue;
                };
                if slot.phase != Phase::Active {
                    continue;
                }
                template.write(piece, index + 1, &mut self.output);
                slot.sent = Sent::Part;
                if piece + 1 < template.pieces() {
                    self.sending.push_back((index, piece + 1));
                } else {
                    slot.sent = Sent::All;
                }
            }
            if self.output.is_empty() {
                // Of one that is quiet no large buffer is kept.
                if self.output.capacity() > 2 * OUTPUT {
                    self.output = Vec::new();
                }
                return;
            }
        }
    }

    /// Something can be done: writes, reads, and says whether there is more to read.
    pub(super) fn ready(&mut self, shared: &mut Shared, writable: bool, ended: bool) -> bool {
        if writable {
            self.connecting(shared);
            self.flush(shared);
        }
        if self.state == State::Open || matches!(self.state, State::Finishing { .. }) {
            return self.receive(shared, ended);
        }
        false
    }

    fn receive(&mut self, shared: &mut Shared, ended: bool) -> bool {
        let mut buffer = std::mem::take(&mut shared.buffer);
        let mut more = true;
        for _ in 0..TURN {
            let Some(stream) = &mut self.stream else {
                more = false;
                break;
            };
            let count = match stream.read(&mut buffer) {
                Ok(0) => {
                    self.lost(shared, Kind::Closed, "without END_REQUEST");
                    more = false;
                    break;
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    more = false;
                    break;
                }
                Err(error) => {
                    self.lost(shared, Kind::Closed, &error.to_string());
                    more = false;
                    break;
                }
            };
            shared.stats.reads += 1;
            shared.stats.bytes_in += count as u64;
            shared.tick();
            let input = buffer.get(..count).unwrap_or_default();
            if let Err(text) = self.records(input, shared) {
                let text = format!("{text}; what was read begins with `{}`", shown(input));
                self.lost(shared, Kind::Protocol, &text);
                more = false;
                break;
            }
            self.flush(shared);
            if count < buffer.len() && !ended {
                more = false;
                break;
            }
        }
        shared.buffer = buffer;
        more
    }

    fn records(&mut self, mut input: &[u8], shared: &mut Shared) -> Result<(), String> {
        while let Some((part, rest)) = self.reader.next(input)? {
            input = rest;
            match part {
                Part::Content {
                    kind,
                    id,
                    content,
                    whole,
                } => self.content(kind, id, content, whole, shared)?,
                Part::End {
                    id,
                    app_status,
                    protocol_status,
                } => self.end(id, app_status, protocol_status, shared)?,
            }
        }
        if self.open == 0 && self.retiring && self.state == State::Open {
            self.state = State::Finishing { since: shared.now };
        }
        Ok(())
    }

    fn content(
        &mut self,
        kind: u8,
        id: u16,
        content: &[u8],
        whole: bool,
        shared: &mut Shared,
    ) -> Result<(), String> {
        let slot = self.slots.get_mut(usize::from(id).wrapping_sub(1));
        match slot {
            Some(slot) if slot.phase == Phase::Active => match kind {
                6 => slot.stdout(content, whole, shared),
                7 => {
                    slot.touched = true;
                    if !content.is_empty() {
                        slot.noisy = true;
                        shared.stats.stderr(content);
                    }
                    Ok(())
                }
                _ => Err(format!("a record of the type {kind} for a request")),
            },
            // What was given up may go on for a while.
            Some(slot) if slot.phase != Phase::Free => Ok(()),
            _ if id == 0 => Ok(()),
            _ => Err(format!(
                "a record of the type {kind} for the id {id}, which is not active"
            )),
        }
    }

    fn end(
        &mut self,
        id: u16,
        app_status: u32,
        protocol_status: u8,
        shared: &mut Shared,
    ) -> Result<(), String> {
        let index = usize::from(id).wrapping_sub(1);
        let slot = self.slots.get_mut(index);
        let Some(slot) = slot.filter(|slot| slot.phase != Phase::Free) else {
            return Err(format!("END_REQUEST for the id {id}, which is not active"));
        };
        match slot.phase {
            Phase::Active => {
                slot.end(app_status, protocol_status, shared);
                self.answered += 1;
            }
            Phase::Aborting => {
                shared.stats.aborted += 1;
                let took = shared.now - slot.begun;
                stats::record(&mut shared.stats.abort_latency, took);
                self.answered += 1;
            }
            Phase::Abandoned => {
                // Its place was given away.
                slot.phase = Phase::Spent;
                return Ok(());
            }
            Phase::Free | Phase::Spent => return Ok(()),
        }
        shared.progress = shared.now;
        self.open -= 1;
        shared.in_flight -= 1;
        if slot.phase == Phase::Active && slot.sent == Sent::All {
            slot.phase = Phase::Free;
            self.free.push(index as u16);
        } else {
            // The application may still say something to an id that was aborted; and the rest of a body is not sent.
            slot.phase = Phase::Spent;
            self.spent += 1;
            self.retiring |= self.spent > SPENT || shared.config.concurrent == 1;
        }
        if self.has_place(shared)
            && let Some((due, resent)) = shared.take(false)
        {
            self.begin(due, resent, shared);
        }
        Ok(())
    }
}
