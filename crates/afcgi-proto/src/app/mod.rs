//! The application's side of one connection: requests come in, answers go out.
//!
//! The caller moves bytes: [`Connection::receive`] takes what the socket gave, [`Connection::
//! transmit`] says what the socket is to be given. Everything that concerns the application comes
//! out of [`Connection::poll_event`]. Management records are answered here (R-41).

mod config;
mod input;
mod overflow;
mod request;
#[cfg(test)]
mod tests;
mod timers;
mod unended;

use std::collections::VecDeque;
use std::time::Instant;

pub use config::Config;
use overflow::Overflow;
pub use overflow::OverflowTotal;
use request::{Request, Written};
use timers::FIRST_REQUEST;
use unended::Unended;

use crate::credit::{self, Budget};
use crate::error::{ConnectionError, Gone, RequestError};
use crate::inbox::{Broken, Read};
use crate::params::Params;
use crate::reader::{Discrete, Reader};
use crate::record::{BeginRequest, EndRequest, ProtocolStatus, RecordType, RequestId};
use crate::table::{Handle, Table};
use crate::writer::Writer;

/// What an application is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A request whose PARAMS is complete. It ends with [`Connection::finish`].
    Request {
        /// Names the request from now on.
        handle: Handle,
        /// Role and flags.
        begin: BeginRequest,
        /// The parameters.
        params: Params,
    },
    /// A read that gave [`Read::Pending`] would give something else now.
    Readable(Handle),
    /// A write that took less than it was given may be continued.
    Writable(Handle),
    /// A request that had been announced is over: stop working on it. Its END_REQUEST has been
    /// written (R-57) or the connection is lost (R-31); the handle is [`Gone`].
    Aborted(Handle),
    /// A request was refused or failed before it was announced; for logs and counters.
    Refused {
        /// Its id.
        id: RequestId,
        /// Why.
        why: Refusal,
    },
}

/// Why a request was not announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// A limit of the connection is reached, or it is draining.
    Overloaded,
    /// The role is not one of FastCGI 1.0 (R-56).
    UnknownRole,
    /// Its PARAMS is no good.
    Failed(RequestError),
    /// The web server gave it up before its PARAMS was complete.
    Aborted,
}

/// A stream that the application reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The request body.
    Stdin,
    /// The file of a filter (R-55).
    Data,
}

/// A stream that the application writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The response (R-58).
    Stdout,
    /// Text for the web server's error log.
    Stderr,
}

impl Output {
    fn record_type(self) -> RecordType {
        match self {
            Self::Stdout => RecordType::Stdout,
            Self::Stderr => RecordType::Stderr,
        }
    }
}

/// The application's side of one connection.
///
/// ```
/// use std::time::Instant;
/// use afcgi_proto::app::{Config, Connection, Event, Output};
///
/// let now = Instant::now();
/// let mut connection = Connection::new(Config::default(), now);
/// let received = b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\
///                  \x01\x04\x00\x01\x00\x00\x00\x00\x01\x05\x00\x01\x00\x00\x00\x00";
/// assert_eq!(connection.receive(now, received)?, received.len());
/// let Some(Event::Request { handle, .. }) = connection.poll_event() else { panic!() };
/// connection.write(handle, Output::Stdout, b"\r\nhello").unwrap();
/// connection.finish(handle, 0).unwrap();
/// assert_eq!(connection.transmit().len(), 15 + 8 + 16);
/// # Ok::<(), afcgi_proto::ConnectionError>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    config: Config,
    reader: Reader,
    /// The discrete record that is being received.
    discrete: Discrete,
    table: Table<Request>,
    writer: Writer,
    events: VecDeque<Event>,
    incomplete: Incomplete,
    blocked: Option<Blocked>,
    overflow: Overflow,
    unended: Unended,
    /// Whether there have been several requests at a time.
    multiplexed: bool,
    /// Since when there has been no request.
    idle_since: Option<Instant>,
    closing: Closing,
    /// Whether the web server was told that this side knows flow control.
    flow_offered: bool,
    windows: Budget,
}

/// The request that keeps the connection from being read.
#[derive(Clone, Copy, Debug)]
struct Blocked {
    handle: Handle,
    stream: Input,
    since: Instant,
}

/// The requests whose PARAMS is not complete.
#[derive(Debug, Default)]
struct Incomplete {
    count: usize,
    /// Since when there have been some.
    since: Option<Instant>,
    bytes: usize,
    /// When to look for those that take too long.
    check_at: Option<Instant>,
}

/// What brings the connection to its end.
#[derive(Debug, Default)]
struct Closing {
    /// A request without FCGI_KEEP_CONN has ended (R-30).
    asked: bool,
    /// [`Connection::drain`] was called.
    draining: bool,
    /// Until when the first request may come all the same. `None`: it has begun, or did not come in time.
    first_until: Option<Instant>,
    /// The web server closed its half (R-32): when to look next whether it is still there, and how
    /// often that was done.
    half_closed: Option<(Instant, usize)>,
    /// The connection has been idle for too long.
    timed_out: bool,
    lost: bool,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(config: Config, now: Instant) -> Self {
        let writer = Writer::new(config.output_buffer, config.output_turn);
        let windows = Budget::of_growth(config.window_most, config.windows_grow);
        Self {
            flow_offered: false,
            windows,
            overflow: Overflow::new(config.overflow),
            config,
            reader: Reader::new(),
            discrete: Discrete::default(),
            table: Table::default(),
            writer,
            events: VecDeque::new(),
            incomplete: Incomplete::default(),
            blocked: None,
            unended: Unended::default(),
            multiplexed: false,
            idle_since: Some(now),
            closing: Closing {
                first_until: now.checked_add(FIRST_REQUEST),
                ..Closing::default()
            },
        }
    }

    /// Requests that are active: begun, and not ended.
    pub fn active(&self) -> usize {
        self.table.len()
    }

    /// Whether a handle names a request that has not ended.
    pub fn is_active(&self, handle: Handle) -> bool {
        self.table.get(handle).is_ok()
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
        self.writer.transmitted(count);
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

    /// Reads up to `most` bytes that have come of a stream of a request.
    ///
    /// After [`Read::Pending`], [`Event::Readable`] says when to try again.
    pub fn read(&mut self, handle: Handle, input: Input, most: usize) -> Result<Read, Gone> {
        let limit = self.config.stdin_buffer;
        let request = self.table.get_mut(handle)?;
        let excess = request.excess(limit);
        let input = match (input, &mut request.data) {
            (Input::Stdin, _) => &mut request.stdin,
            (Input::Data, Some(data)) => &mut **data,
            (Input::Data, None) => return Ok(Read::End),
        };
        let read = input.inbox.read(most);
        input.waited_for = read == Read::Pending;
        let emptied = input.inbox.len() == 0;
        self.overflow.change(excess, request.excess(limit));
        // STDIN and DATA share their credit: while one is open more may come.
        let open = request.stdin.inbox.is_open()
            || (request.data.as_ref()).is_some_and(|data| data.inbox.is_open());
        if let (Read::Content(content), Some(flow)) = (&read, &mut request.flow)
            && open
            && let Some(increment) = flow.consumed(content.len(), emptied, &mut self.windows)
        {
            let body = credit::encode(increment);
            self.writer
                .record(RecordType::Credit, Some(handle.id()), &body);
        }
        Ok(read)
    }

    /// Writes content of a stream: says how much of it was taken. If that is not all,
    /// [`Event::Writable`] says when to go on with the rest. A stream that was
    /// [ended](Self::end_output) is [`Gone`].
    pub fn write(&mut self, handle: Handle, output: Output, content: &[u8]) -> Result<usize, Gone> {
        let request = self.table.get_mut(handle)?;
        let written = request.written(output);
        if *written == Written::Ended {
            return Err(Gone);
        }
        *written = Written::Something;
        Ok(self.writer.stream_within(
            handle,
            &mut request.turn,
            request.flow.as_mut(),
            output.record_type(),
            content,
        ))
    }

    /// Ends a stream before its request: the half of a tunnel that goes to the client. To be called
    /// when all of its content was taken.
    pub fn end_output(&mut self, handle: Handle, output: Output) -> Result<(), Gone> {
        let written = self.table.get_mut(handle)?.written(output);
        if std::mem::replace(written, Written::Ended) != Written::Ended {
            self.writer
                .record(output.record_type(), Some(handle.id()), b"");
        }
        Ok(())
    }

    /// Ends a request: its streams, then END_REQUEST with `app_status` (0 is success).
    pub fn finish(&mut self, handle: Handle, app_status: u32) -> Result<(), Gone> {
        // R-53: STDERR needs an end if anything was written there, STDOUT always.
        if self.table.get(handle)?.stderr == Written::Something {
            self.end_output(handle, Output::Stderr)?;
        }
        self.end_output(handle, Output::Stdout)?;
        self.end(
            handle,
            EndRequest {
                app_status,
                protocol_status: ProtocolStatus::RequestComplete,
            },
        );
        Ok(())
    }

    /// Ends a request without having processed it, so that the web server may try elsewhere. Only
    /// before anything was written to it.
    pub fn refuse(&mut self, handle: Handle, why: ProtocolStatus) -> Result<(), Gone> {
        self.table.get(handle)?;
        self.end(
            handle,
            EndRequest {
                app_status: 0,
                protocol_status: why,
            },
        );
        Ok(())
    }

    /// New requests are refused with OVERLOADED from now on; the active ones go on. The connection
    /// [is finished](Self::is_finished) when they have ended.
    ///
    /// A connection that was accepted less than half a second ago, and has had no request, waits for the rest of that time: the web
    /// server has connected to send one, and need not send it again if it cannot be served. That one is served.
    pub fn drain(&mut self) {
        self.closing.draining = true;
    }

    /// Since when nobody has worked for the connection: no request is complete, and no output is pending. A
    /// part of a record, or of PARAMS, does not count as a request. `None`: somebody does.
    pub fn idle_since(&self) -> Option<Instant> {
        if self.writer.len() > 0 {
            None
        } else if self.table.is_empty() {
            self.idle_since
        } else if self.table.len() == self.incomplete.count {
            self.incomplete.since
        } else {
            None
        }
    }

    /// Whether the connection is to be closed now: nothing is active, nothing is to be transmitted
    /// (unless it has been idle for too long), and there is a reason.
    pub fn is_finished(&self) -> bool {
        let Closing {
            asked,
            draining,
            first_until,
            half_closed,
            timed_out,
            lost,
        } = &self.closing;
        let drained = *draining && first_until.is_none();
        let reason = *asked || drained || half_closed.is_some() || *timed_out || *lost;
        // After the idle timeout nobody can be waited for who does not read what is pending.
        reason && self.table.is_empty() && (self.writer.len() == 0 || *timed_out)
    }

    /// The web server closed its half. Requests that are complete get their whole response (R-32);
    /// what was not complete will not become so (R-59). The error tells that it was inside a record.
    pub fn end_of_input(&mut self, now: Instant) -> Result<(), ConnectionError> {
        for handle in self.table.handles() {
            let Ok(request) = self.table.get_mut(handle) else {
                continue;
            };
            if !request.is_delivered() {
                self.refused(handle.id(), Refusal::Aborted);
                self.remove(handle);
                continue;
            }
            let mut readable = false;
            for input in [Some(&mut request.stdin), request.data.as_deref_mut()]
                .into_iter()
                .flatten()
            {
                input.inbox.break_off(Broken::Truncated);
                readable |= std::mem::take(&mut input.waited_for);
            }
            if readable {
                self.events.push_back(Event::Readable(handle));
            }
        }
        self.blocked = None;
        self.closing.half_closed = Some((now, 0));
        if self.reader.at_boundary() {
            Ok(())
        } else {
            Err(ConnectionError::Truncated)
        }
    }

    /// The connection is lost, or is given up: every request on it is aborted (R-31).
    pub fn lost(&mut self) {
        for handle in self.table.handles() {
            if let Some(request) = self.remove(handle) {
                if request.is_delivered() {
                    self.events.push_back(Event::Aborted(handle));
                } else {
                    self.refused(handle.id(), Refusal::Aborted);
                }
            }
        }
        self.writer.clear();
        self.blocked = None;
        self.closing.lost = true;
    }

    /// Whether [`Connection::lost`] was called.
    pub fn is_lost(&self) -> bool {
        self.closing.lost
    }

    /// Ends a request whose web server is at fault, and says why in that one's error log.
    fn fail(&mut self, handle: Handle, error: RequestError) {
        // Told of once: as over to those who know of it, as refused otherwise.
        if self.table.get(handle).is_ok_and(Request::is_delivered) {
            self.events.push_back(Event::Aborted(handle));
        } else {
            self.refused(handle.id(), Refusal::Failed(error));
        }
        let text = format!("afcgi: {error}");
        if let Ok(request) = self.table.get(handle)
            && request.stderr != Written::Ended
            && (request.flow.as_ref()).is_none_or(|flow| flow.left() >= text.len())
        {
            self.writer
                .record(RecordType::Stderr, Some(handle.id()), text.as_bytes());
        }
        for output in [Output::Stderr, Output::Stdout] {
            // It is there: that is what fails.
            let _ = self.end_output(handle, output);
        }
        self.end(
            handle,
            EndRequest {
                app_status: 1,
                protocol_status: ProtocolStatus::RequestComplete,
            },
        );
    }

    fn refused(&mut self, id: RequestId, why: Refusal) {
        self.events.push_back(Event::Refused { id, why });
    }

    /// The one place where END_REQUEST of an active request is written (R-52).
    fn end(&mut self, handle: Handle, end: EndRequest) {
        if let Some(request) = self.remove(handle) {
            self.closing.asked |= !request.begin.keep_conn();
            self.unended.ended(handle.id(), &request);
            self.write_end(handle.id(), end);
        }
    }

    fn write_end(&mut self, id: RequestId, end: EndRequest) {
        self.writer
            .record(RecordType::EndRequest, Some(id), &end.encode());
    }

    fn remove(&mut self, handle: Handle) -> Option<Request> {
        let request = self.table.remove(handle).ok()?;
        (self.overflow).change(request.excess(self.config.stdin_buffer), 0);
        if let Some(flow) = &request.flow {
            flow.close(credit::initial(self.config.stdin_buffer), &mut self.windows);
        }
        if !request.is_delivered() {
            self.incomplete.count = self.incomplete.count.saturating_sub(1);
            self.incomplete.bytes = self
                .incomplete
                .bytes
                .saturating_sub(request.incomplete_bytes());
        }
        Some(request)
    }
}
