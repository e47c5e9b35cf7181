//! The web server's side of one connection: requests go out, answers come in.
//!
//! The caller moves bytes, as on the [other side](crate::app). An id is released by END_REQUEST
//! only (R-12): a request that is given up drains until then.

mod config;
mod ending;
mod ids;
mod input;
mod request;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BufMut;
pub use config::{Config, OVERFLOW_BURST, OVERFLOW_PAUSE};
use ids::Ids;
use request::{Phase, Request, Sent};

use crate::credit::{self, Budget, Flow};
use crate::error::{BeginError, Gone};
use crate::inbox::{Broken, Read};
use crate::params::encode_pair;
use crate::reader::{Discrete, Reader};
use crate::record::{BeginRequest, EndRequest, FLOW_CONTROL, KEEP_CONN, RecordType, Role};
use crate::table::{Handle, Table};
use crate::values::{UPGRADE, Values};
use crate::writer::Writer;

/// What the consumer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The answer to [`Connection::probe`]. All fields are `None` if the application does not know
    /// the question.
    Values(Values),
    /// There is something to read again, the end included.
    Readable(Handle),
    /// A write that took less than it was given may be continued.
    Writable(Handle),
    /// A request keeps the connection from being read, for the first time. Told of once for each.
    Stalled(Handle),
    /// A request has left the connection: there is room for another.
    Released,
}

/// A stream that the web server writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The parameters, as encoded pairs (R-20).
    Params,
    /// The request body.
    Stdin,
    /// The file of a filter (R-55).
    Data,
}

/// A stream that the web server reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The response (R-58).
    Stdout,
    /// Text for the error log.
    Stderr,
}

/// The web server's side of one connection.
///
/// ```
/// use std::time::Instant;
/// use afcgi_proto::web::{Config, Connection, Input, Output};
/// use afcgi_proto::{Role, inbox::Read};
///
/// let now = Instant::now();
/// let mut connection = Connection::new(Config::default());
/// let handle = connection.open()?;
/// connection.begin(handle, Role::Responder).unwrap();
/// connection.end(handle, Output::Params).unwrap();
/// connection.end(handle, Output::Stdin).unwrap();
/// assert_eq!(connection.transmit().len(), 16 + 8 + 8);
///
/// let answer = b"\x01\x06\x00\x01\x00\x07\x00\x00\r\nhello\x01\x03\x00\x01\x00\x08\x00\x00\0\0\0\0\0\0\0\0";
/// connection.receive(now, answer).unwrap();
/// let Ok(Read::Content(stdout)) = connection.read(handle, Input::Stdout, usize::MAX) else { panic!() };
/// assert_eq!(&stdout[..], b"\r\nhello");
/// assert_eq!(connection.ended(handle).unwrap().unwrap().app_status, 0);
/// connection.close(handle, now);
/// # Ok::<(), afcgi_proto::BeginError>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    config: Config,
    reader: Reader,
    /// The discrete record that is being received.
    discrete: Discrete,
    table: Table<Request>,
    ids: Ids,
    writer: Writer,
    events: VecDeque<Event>,
    /// Requests that were given up and whose END_REQUEST has not come.
    draining: usize,
    aborts: u64,
    /// When to look for those that drain for too long.
    drain_check_at: Option<Instant>,
    /// Requests that have ended and whose consumer has not taken note.
    ended: usize,
    /// GET_VALUES that have not been answered.
    probes: usize,
    blocked: Option<Blocked>,
    /// Active requests that have kept the connection from being read.
    stalled: usize,
    /// The first of them, which may overflow its buffer.
    overflowing: Option<Handle>,
    /// Requests that drain and have not been aborted, and when they are to be; in that order.
    lingering: VecDeque<(Instant, Handle)>,
    retired: bool,
    lost: bool,
    /// The credit that the application grants each request, if it knows flow control.
    granted: Option<u32>,
    /// Whether the application accepts upgrades.
    upgrades: bool,
    windows: Budget,
}

/// The request that keeps the connection from being read.
#[derive(Clone, Copy, Debug)]
struct Blocked {
    handle: Handle,
    stream: Input,
    /// Since when, or since when others are held up by it.
    since: Instant,
    /// Whether there are others.
    shared: bool,
}

impl Connection {
    /// A connection that was just opened, or is being opened.
    pub fn new(config: Config) -> Self {
        let writer = Writer::new(config.output_buffer, config.output_turn);
        let windows = Budget::of_windows(config.window_most, config.windows_total);
        Self {
            granted: None,
            upgrades: false,
            windows,
            config,
            reader: Reader::new(),
            discrete: Discrete::default(),
            table: Table::default(),
            ids: Ids::default(),
            writer,
            events: VecDeque::new(),
            draining: 0,
            aborts: 0,
            drain_check_at: None,
            ended: 0,
            probes: 0,
            blocked: None,
            stalled: 0,
            overflowing: None,
            lingering: VecDeque::new(),
            retired: false,
            lost: false,
        }
    }

    /// Requests that hold an id: reserved, active and draining ones.
    pub fn active(&self) -> usize {
        self.table.len().saturating_sub(self.ended)
    }

    /// Requests that were given up and are held until their END_REQUEST comes.
    pub fn draining(&self) -> usize {
        self.draining
    }

    /// Requests that were aborted so far: by ABORT_REQUEST, or by the end of the connection where it
    /// carries one request at a time.
    pub fn aborts(&self) -> u64 {
        self.aborts
    }

    /// Whether [`Connection::open`] would succeed. A connection that was not read because of one of
    /// its requests takes no others until that one has ended: it may do so again.
    pub fn has_room(&self) -> bool {
        let requests = usize::from(self.config.requests);
        !self.retired
            && !self.lost
            && self.stalled == 0
            && self.active() < requests
            && self.table.len() < requests.saturating_mul(2)
            && !self.output_is_flooded()
            && self.ids.has_next()
    }

    /// Whether an active request has kept the connection from being read.
    pub const fn is_stalled(&self) -> bool {
        self.stalled > 0
    }

    /// Whether requests are under flow control: the application has granted credit.
    pub const fn is_controlled(&self) -> bool {
        self.granted.is_some()
    }

    /// Whether the application has said that it accepts upgrades (`docs/upgrade.md`).
    pub const fn offers_upgrade(&self) -> bool {
        self.upgrades
    }

    /// Lowers [`Config::requests`] to what the application takes, as [`Event::Values`] says. Requests
    /// above that go on.
    pub fn limit_requests(&mut self, most: u16) {
        self.config.requests = self.config.requests.min(most.max(1));
    }

    /// An application that answers and does not read could otherwise be sent beginnings and ends of
    /// requests without bound.
    fn output_is_flooded(&self) -> bool {
        self.writer.len() > self.config.most_output()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Bytes for the socket; say with [`Connection::transmitted`] how many went.
    pub fn transmit(&self) -> &[u8] {
        self.writer.pending()
    }

    /// The first `count` bytes of [`Connection::transmit`] went.
    pub fn transmitted(&mut self, count: usize) {
        let flooded = self.output_is_flooded();
        self.writer.transmitted(count);
        if flooded && self.has_room() {
            self.events.push_back(Event::Released);
        }
    }

    /// Gives those that wait to write a new turn if there is room: [`Event::Writable`] for each.
    ///
    /// To be called whenever the socket took bytes, and again as long as it returns `true`: there
    /// was room, and more requests wait. (A request need not use its turn.)
    pub fn next_round(&mut self) -> bool {
        let Self {
            writer,
            table,
            events,
            ..
        } = self;
        if !writer.has_waiting() {
            return false;
        }
        writer.next_round(|handle| {
            let granted = table
                .get_mut(handle)
                .is_ok_and(|request| Writer::granted(&mut request.turn));
            if granted {
                events.push_back(Event::Writable(handle));
            }
            granted
        });
        self.writer.has_waiting() && self.writer.len() == 0
    }

    /// Asks the application for its limits (R-40): [`Event::Values`] follows, or never does.
    pub fn probe(&mut self) {
        self.probes = self.probes.saturating_add(1);
        self.writer
            .record(RecordType::GetValues, None, &Values::query());
    }

    /// Reserves an id. Nothing is sent before [`Connection::begin`].
    pub fn open(&mut self) -> Result<Handle, BeginError> {
        if self.retired || self.lost {
            return Err(BeginError::Closed);
        }
        if !self.has_room() {
            return Err(BeginError::Full);
        }
        let id = self.ids.take().ok_or(BeginError::Full)?;
        Ok(self.table.insert(id, Request::new()))
    }

    /// Sends BEGIN_REQUEST, with FCGI_KEEP_CONN as [`Config::keep_conn`] says (R-30).
    pub fn begin(&mut self, handle: Handle, role: Role) -> Result<(), Gone> {
        let request = self.table.get_mut(handle)?;
        if request.phase != Phase::Reserved {
            return Err(Gone);
        }
        request.phase = Phase::Active;
        if matches!(role, Role::Responder | Role::Authorizer) {
            request.data = Sent::Ended;
        }
        let mut body = BeginRequest {
            role,
            flags: if self.config.keep_conn { KEEP_CONN } else { 0 },
            credit: 0,
        };
        self.retired |= !self.config.keep_conn;
        if let Some(granted) = self.granted {
            let window = self.windows.begin(credit::initial(self.config.window));
            request.flow = Some(Flow::new(granted, window));
            body.flags |= FLOW_CONTROL;
            body.credit = window;
        }
        self.writer
            .record(RecordType::BeginRequest, Some(handle.id()), &body.encode());
        Ok(())
    }

    /// Tells the application that the request may become a tunnel (`docs/upgrade.md`), by a
    /// parameter. Between [`Connection::begin`] and the end of PARAMS.
    pub fn offer_upgrade(&mut self, handle: Handle) -> Result<(), Gone> {
        let request = self.table.get(handle)?;
        if request.phase == Phase::Active && request.params == Sent::Open {
            let mut pair = Vec::new();
            encode_pair(&mut pair, UPGRADE, b"1");
            self.writer
                .record(RecordType::Params, Some(handle.id()), &pair);
        }
        Ok(())
    }

    /// Writes content of a stream: says how much of it was taken. If that is not all,
    /// [`Event::Writable`] says when to go on with the rest.
    ///
    /// PARAMS are to be given as whole pairs, or as what was not taken of them: records are cut between
    /// pairs, and a pair that is longer than `output_turn` waits for a whole turn, up to the largest
    /// record.
    ///
    /// Content for a request that has ended, whose application wants no more of it, is taken and
    /// dropped; so is DATA of a responder or an authorizer, which have none (R-55).
    pub fn write(&mut self, handle: Handle, output: Output, content: &[u8]) -> Result<usize, Gone> {
        let request = self.table.get_mut(handle)?;
        if request.phase != Phase::Active || *request.sent(output) == Sent::Ended {
            return Ok(content.len());
        }
        if output == Output::Params {
            let (turn, cutter) = (&mut request.turn, &mut request.cutter);
            return Ok(self.writer.params(handle, turn, cutter, content));
        }
        let flow = request.flow.as_mut();
        Ok(self
            .writer
            .stream_within(handle, &mut request.turn, flow, output.into(), content))
    }

    /// Whether a record of PARAMS of this length may be written by [`Connection::write_record`].
    pub(crate) fn takes_record(&mut self, handle: Handle, length: usize) -> bool {
        match self.table.get_mut(handle) {
            Ok(request) if request.phase == Phase::Active => {
                self.writer.takes_whole(&mut request.turn, length)
            }
            _ => true,
        }
    }

    /// Writes a record of PARAMS as it is, after [`Connection::takes_record`].
    pub(crate) fn write_record(&mut self, handle: Handle, content: &[u8]) -> Result<(), Gone> {
        let request = self.table.get_mut(handle)?;
        if request.phase == Phase::Active && request.params == Sent::Open {
            self.writer
                .whole(handle, &mut request.turn, RecordType::Params, content);
        }
        Ok(())
    }

    /// How many bytes of a stream [`Connection::write`] would take now; of PARAMS it may take fewer,
    /// or one pair that is longer.
    pub fn room(&mut self, handle: Handle, output: Output) -> Result<usize, Gone> {
        let request = self.table.get_mut(handle)?;
        Ok(match request.phase {
            Phase::Active => match &request.flow {
                Some(flow) if output != Output::Params => {
                    self.writer.room(&mut request.turn).min(flow.left())
                }
                _ => self.writer.room(&mut request.turn),
            },
            Phase::Reserved | Phase::Draining(_) | Phase::Ended(_) => usize::MAX,
        })
    }

    /// Asks for [`Event::Writable`] when there may be room again.
    pub fn wait(&mut self, handle: Handle, output: Output) -> Result<(), Gone> {
        let request = self.table.get_mut(handle)?;
        match &mut request.flow {
            Some(flow) if output != Output::Params && flow.left() == 0 => flow.wait(),
            _ => self.writer.wait(handle, &mut request.turn),
        }
        Ok(())
    }

    /// Ends a stream (R-06).
    pub fn end(&mut self, handle: Handle, output: Output) -> Result<(), Gone> {
        let request = self.table.get_mut(handle)?;
        let before = std::mem::replace(request.sent(output), Sent::Ended);
        if request.phase == Phase::Active && before == Sent::Open {
            self.writer.record(output.into(), Some(handle.id()), b"");
        }
        Ok(())
    }

    /// Takes up to `most` bytes of a stream: not all that have come, if they are many.
    ///
    /// After [`Read::Pending`], [`Event::Readable`] says when to try again. It also follows a
    /// [`Read::End`] that came before END_REQUEST, when the request [has ended](Self::ended).
    pub fn read(&mut self, handle: Handle, input: Input, most: usize) -> Result<Read, Gone> {
        let request = self.table.get_mut(handle)?;
        let read = match input {
            Input::Stdout => request.stdout.read(most),
            Input::Stderr => request.stderr.read(most),
        };
        request.waited_for |= match read {
            Read::Pending => true,
            Read::End => !matches!(request.phase, Phase::Ended(_)),
            Read::Content(_) | Read::Broken(_) => false,
        };
        if let Read::Content(content) = &read {
            self.consumed(handle, content.len());
        }
        Ok(read)
    }

    /// Bytes that can be read of a stream now.
    pub fn readable(&self, handle: Handle, input: Input) -> Result<usize, Gone> {
        let request = self.table.get(handle)?;
        Ok(match input {
            Input::Stdout => request.stdout.len(),
            Input::Stderr => request.stderr.len(),
        })
    }

    /// Like [`Connection::read`], into a buffer of the caller's, of which no byte need have been
    /// written: says how many bytes were copied, `most` at most. 0 also means that
    /// [`Event::Readable`] follows, unless the stream is at its end.
    pub fn read_into(
        &mut self,
        handle: Handle,
        input: Input,
        out: &mut impl BufMut,
        most: usize,
    ) -> Result<usize, Gone> {
        let request = self.table.get_mut(handle)?;
        let count = match input {
            Input::Stdout => request.stdout.read_into(out, most),
            Input::Stderr => request.stderr.read_into(out, most),
        };
        request.waited_for |= count == 0;
        self.consumed(handle, count);
        Ok(count)
    }

    /// Has [`Event::Readable`] tell when there is something to read, on either stream. `Err`: the
    /// request is gone.
    pub fn notify_readable(&mut self, handle: Handle) -> Result<(), Gone> {
        self.table.get_mut(handle)?.waited_for = true;
        Ok(())
    }

    /// The consumer took content, so the application may be given credit for more.
    fn consumed(&mut self, handle: Handle, count: usize) {
        let Ok(request) = self.table.get_mut(handle) else {
            return;
        };
        let emptied = request.stdout.len() == 0 && request.stderr.len() == 0;
        if let Some(flow) = &mut request.flow
            && request.phase == Phase::Active
            && let Some(increment) = flow.consumed(count, emptied, &mut self.windows)
        {
            let body = credit::encode(increment);
            self.writer
                .record(RecordType::Credit, Some(handle.id()), &body);
        }
    }

    /// Whether the application has ended STDOUT, and all of that was taken.
    pub fn is_at_end(&self, handle: Handle) -> bool {
        (self.table.get(handle))
            .is_ok_and(|request| request.stdout.len() == 0 && !request.stdout.is_open())
    }

    /// How the request ended: `None` while it has not.
    ///
    /// The error says that the response is not complete: the connection was lost, or the request
    /// was given up because its consumer took nothing for too long. What was received can be read
    /// first, in either case.
    pub fn ended(&self, handle: Handle) -> Result<Option<EndRequest>, Broken> {
        let Ok(request) = self.table.get(handle) else {
            return Err(Broken::Truncated);
        };
        match (request.stdout.broken(), request.phase) {
            (Some(why), _) => Err(why),
            (None, Phase::Ended(Some(end))) => Ok(Some(end)),
            (None, Phase::Ended(None)) => Err(Broken::Truncated),
            (None, Phase::Reserved | Phase::Active | Phase::Draining(_)) => Ok(None),
        }
    }
}

impl From<Output> for RecordType {
    fn from(output: Output) -> Self {
        match output {
            Output::Params => Self::Params,
            Output::Stdin => Self::Stdin,
            Output::Data => Self::Data,
        }
    }
}
