//! One request of a FastCGI client that knows only one request per connection, put onto a shared
//! [`web::Connection`](crate::web::Connection).
//!
//! nginx's stock module writes records with id 1 and expects records with id 1. A relay stands in
//! for the connection that it believes to have. It re-frames: what the client writes is read as
//! records and written as complete records of the shared connection's own, so that a client that
//! breaks off inside a record cannot wedge the connection; what the application answers is put into
//! records for the client again.
//!
//! A record of PARAMS is taken and written as a whole: where the client does not cut a pair, nor does
//! the relay (PHP-FPM reads each such record by itself).
//!
//! A request that may be upgraded (`docs/upgrade.md`) keeps its STDIN open behind the client's back
//! until the client has seen the head of the response. From then on it is a tunnel of plain bytes, or
//! a request like any other.

use std::fmt;

use bytes::{Buf, BufMut};

use crate::error::ConnectionError;
use crate::inbox::Broken;
use crate::reader::Reader;
use crate::record::{
    BODY_LEN, BeginRequest, HEADER_LEN, Header, MAX_CONTENT, RecordType, RequestId, Role,
};
use crate::table::Handle;
use crate::web::{Connection, Input, Output};

/// What [`Relay::recv`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recv {
    /// This many bytes, not 0, were put into the buffer.
    Bytes(usize),
    /// Nothing has come yet: [`Event::Readable`](crate::web::Event::Readable) follows.
    Pending,
    /// END_REQUEST was given, and nothing follows it.
    End,
    /// The response breaks off here.
    Broken(Broken),
}

/// Why a relay cannot go on with what its client writes. The client is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayError {
    /// The client does not write records.
    Record(ConnectionError),
    /// The client writes a record that has no place in a single request.
    Unexpected(RecordType),
    /// The request has ended.
    Gone,
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(error) => error.fmt(f),
            Self::Unexpected(record_type) => {
                write!(f, "{record_type:?} record has no place in a single request")
            }
            Self::Gone => f.write_str("the request has ended"),
        }
    }
}

impl std::error::Error for RelayError {}

/// A request on a shared connection, seen as a connection of its own.
///
/// Between [`Connection::open`] and [`Relay::close`] the relay alone reads and writes the request.
#[derive(Debug)]
pub struct Relay {
    handle: Handle,
    reader: Reader,
    /// The body of BEGIN_REQUEST, as far as it has come.
    begin: Vec<u8>,
    /// Content of a PARAMS record that has not come to its end; below 64 KiB, and nothing where records
    /// come whole.
    params: Vec<u8>,
    /// Bytes of headers and END_REQUEST that `recv` has yet to give.
    head: [u8; 3 * HEADER_LEN],
    head_from: usize,
    head_to: usize,
    /// Content that `recv` has announced in a header and has yet to give.
    content: usize,
    input: Input,
    /// Whether END_REQUEST was put into `head`.
    ended: bool,
    upgrade: Upgrade,
}

/// How far an upgrade is.
///
/// ```text
///  Wanted ──────> Offered ──────> Open
///     │ the application    │ decline     accept
///     │ takes none         │
///     └──> No <────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    No,
    /// The request is not begun, and its client asks for an upgrade.
    Wanted,
    /// The application may accept; whether the client has ended STDIN, which is held back.
    Offered {
        ended: bool,
    },
    /// The client reads and writes plain bytes.
    Open,
}

impl Relay {
    /// Relays the request of `handle`, which was opened and not begun.
    pub fn new(handle: Handle) -> Self {
        Self {
            handle,
            reader: Reader::new(),
            begin: Vec::new(),
            params: Vec::new(),
            head: [0; 3 * HEADER_LEN],
            head_from: 0,
            head_to: 0,
            content: 0,
            input: Input::Stdout,
            ended: false,
            upgrade: Upgrade::No,
        }
    }

    /// Offers an upgrade to the application, if that accepts any: the request has no body, and its
    /// client will say by [`Relay::accept`] or [`Relay::decline`] what the head of the response says.
    /// Until then [`Relay::recv`] gives no more than one record at a time.
    #[must_use]
    pub fn with_upgrade(mut self) -> Self {
        if self.begin.is_empty() {
            self.upgrade = Upgrade::Wanted;
        }
        self
    }

    /// Makes the request a tunnel: what was received of the current record and not read, and all that
    /// follows on STDOUT, is given as it is, and what is written goes to STDIN as it is. `false`: the
    /// application was not offered an upgrade.
    pub fn accept(&mut self) -> bool {
        let offered = matches!(self.upgrade, Upgrade::Offered { .. });
        if offered {
            self.upgrade = Upgrade::Open;
            self.head_to = self.head_from;
            self.content = 0;
        }
        offered
    }

    /// The request is no tunnel: its STDIN is ended, if the client has ended it.
    pub fn decline(&mut self, connection: &mut Connection) {
        if let Upgrade::Offered { ended } = std::mem::replace(&mut self.upgrade, Upgrade::No)
            && ended
        {
            let _ = connection.end(self.handle, Output::Stdin);
        }
    }

    /// Whether the request is a tunnel.
    pub fn is_open(&self) -> bool {
        self.upgrade == Upgrade::Open
    }

    /// Whether another [`Relay::recv`] would give something now. If not,
    /// [`Event::Readable`](crate::web::Event::Readable) follows.
    pub fn is_ready(&self, connection: &mut Connection) -> bool {
        let ready = self.has_something(connection);
        if !ready {
            let _ = connection.notify_readable(self.handle);
        }
        ready
    }

    fn has_something(&self, connection: &Connection) -> bool {
        let readable = |input| (connection.readable(self.handle, input)).is_ok_and(|n| n > 0);
        self.head_from < self.head_to
            || readable(Input::Stdout)
            || readable(Input::Stderr)
            || (self.is_open() && connection.is_at_end(self.handle))
            || connection.ended(self.handle) != Ok(None)
    }

    /// Takes text for the error log that the application wrote into the tunnel, which
    /// [`Relay::recv`] does not give then; says how many bytes were copied.
    pub fn read_stderr(&mut self, connection: &mut Connection, mut out: &mut [u8]) -> usize {
        if !self.is_open() {
            return 0;
        }
        connection
            .read_into(self.handle, Input::Stderr, &mut out, usize::MAX)
            .unwrap_or(0)
    }

    /// The request.
    pub const fn handle(&self) -> Handle {
        self.handle
    }

    /// Takes bytes that the client writes, and says how many it took. If that is not all,
    /// [`Event::Writable`](crate::web::Event::Writable) says when to go on with the rest.
    ///
    /// After an error the request is to be closed.
    pub fn send(&mut self, connection: &mut Connection, bytes: &[u8]) -> Result<usize, RelayError> {
        if self.is_open() {
            return connection
                .write(self.handle, Output::Stdin, bytes)
                .map_err(|_| RelayError::Gone);
        }
        let mut rest = bytes;
        loop {
            let mut full = None;
            let fragment = self
                .reader
                .read_within(&mut rest, |header| {
                    let Some(output) = output_of(header.record_type) else {
                        return usize::MAX;
                    };
                    // A request that is gone is found out below.
                    let room = if output == Output::Params {
                        let length = usize::from(header.content_length);
                        match connection.takes_record(self.handle, length) {
                            true => usize::MAX,
                            false => 0,
                        }
                    } else {
                        connection.room(self.handle, output).unwrap_or(usize::MAX)
                    };
                    if room == 0 {
                        full = Some(output);
                    }
                    room
                })
                .map_err(RelayError::Record)?;
            let Some(fragment) = fragment else {
                if let Some(output) = full {
                    connection
                        .wait(self.handle, output)
                        .map_err(|_| RelayError::Gone)?;
                }
                return Ok(bytes.len().saturating_sub(rest.len()));
            };
            let record_type = fragment.header.record_type;
            let output = match (record_type, output_of(record_type)) {
                (_, Some(output)) if self.begun() => output,
                (RecordType::BeginRequest, _) if !self.begun() => {
                    self.begin(connection, fragment.header, fragment.content)?;
                    continue;
                }
                _ => return Err(RelayError::Unexpected(record_type)),
            };
            let done = if fragment.is_empty_record() {
                if output == Output::Stdin
                    && let Upgrade::Offered { ended } = &mut self.upgrade
                {
                    *ended = true;
                    continue;
                }
                connection.end(self.handle, output)
            } else if output == Output::Params {
                if !fragment.last || !self.params.is_empty() {
                    self.params.extend_from_slice(fragment.content);
                }
                if !fragment.last {
                    continue;
                }
                let collected = std::mem::take(&mut self.params);
                let content = match collected.is_empty() {
                    true => fragment.content,
                    false => &collected,
                };
                connection.write_record(self.handle, content)
            } else {
                // No more than the room was read, so all of it is taken.
                connection
                    .write(self.handle, output, fragment.content)
                    .map(|_| ())
            };
            done.map_err(|_| RelayError::Gone)?;
        }
    }

    fn begun(&self) -> bool {
        self.begin.len() >= BODY_LEN
    }

    fn begin(
        &mut self,
        connection: &mut Connection,
        header: Header,
        content: &[u8],
    ) -> Result<(), RelayError> {
        let found = usize::from(header.content_length);
        if found != BODY_LEN {
            return Err(RelayError::Record(ConnectionError::BodyLength {
                record_type: header.record_type,
                found,
            }));
        }
        self.begin.extend_from_slice(content);
        if let Ok(body) = <[u8; BODY_LEN]>::try_from(&self.begin[..]) {
            let role = BeginRequest::parse(&body).role;
            connection
                .begin(self.handle, role)
                .map_err(|_| RelayError::Gone)?;
            if self.upgrade == Upgrade::Wanted {
                self.upgrade = Upgrade::No;
                if connection.offers_upgrade() && role == Role::Responder {
                    self.upgrade = Upgrade::Offered { ended: false };
                    connection
                        .offer_upgrade(self.handle)
                        .map_err(|_| RelayError::Gone)?;
                }
            }
        }
        Ok(())
    }

    /// Puts what the application answered into `out`, as records with id 1: STDERR before STDOUT
    /// where both have come, then the end of STDOUT and END_REQUEST. Nothing fits into an `out` without
    /// room; no byte of it need have been written.
    pub fn recv(&mut self, connection: &mut Connection, out: &mut impl BufMut) -> Recv {
        if !out.has_remaining_mut() {
            return Recv::Pending;
        }
        if self.is_open() {
            return self.recv_plain(connection, out);
        }
        let one_record = matches!(self.upgrade, Upgrade::Offered { .. });
        let mut given = 0_usize;
        while out.has_remaining_mut() {
            if one_record && given > 0 && self.head_from == self.head_to && self.content == 0 {
                break;
            }
            let count = if self.head_from < self.head_to {
                self.give_head(out)
            } else if self.content > 0 {
                self.give_content(connection, out)
            } else if self.next_record(connection) {
                continue;
            } else {
                0
            };
            if count == 0 {
                break;
            }
            given = given.saturating_add(count);
        }
        if given > 0 {
            return Recv::Bytes(given);
        }
        match connection.ended(self.handle) {
            Err(why) => Recv::Broken(why),
            Ok(Some(_)) => Recv::End,
            Ok(None) => Recv::Pending,
        }
    }

    /// Puts what the application wrote into the tunnel into `out`.
    fn recv_plain(&mut self, connection: &mut Connection, out: &mut impl BufMut) -> Recv {
        let count = connection
            .read_into(self.handle, Input::Stdout, out, usize::MAX)
            .unwrap_or(0);
        if count > 0 {
            return Recv::Bytes(count);
        }
        match connection.ended(self.handle) {
            Err(why) => Recv::Broken(why),
            Ok(Some(_)) => Recv::End,
            Ok(None) if connection.is_at_end(self.handle) => Recv::End,
            Ok(None) => Recv::Pending,
        }
    }

    /// The client is done. See [`Connection::close`], and for a tunnel [`Connection::close_gently`].
    pub fn close(self, connection: &mut Connection, now: std::time::Instant) {
        if self.is_open() {
            connection.close_gently(self.handle, now);
        } else {
            connection.close(self.handle, now);
        }
    }

    /// The client has all it wants of the response. See [`Connection::close_gently`].
    pub fn close_gently(self, connection: &mut Connection, now: std::time::Instant) {
        connection.close_gently(self.handle, now);
    }

    fn give_head(&mut self, out: &mut impl BufMut) -> usize {
        let head = self
            .head
            .get(self.head_from..self.head_to)
            .unwrap_or_default();
        let count = head.len().min(out.remaining_mut());
        out.put(head.take(count));
        self.head_from = self.head_from.saturating_add(count);
        count
    }

    fn give_content(&mut self, connection: &mut Connection, out: &mut impl BufMut) -> usize {
        let count = connection
            .read_into(self.handle, self.input, out, self.content)
            .unwrap_or(0);
        self.content = self.content.saturating_sub(count);
        count
    }

    /// Announces the next record; `false` if there is none now.
    fn next_record(&mut self, connection: &mut Connection) -> bool {
        for (input, record_type) in [
            (Input::Stderr, RecordType::Stderr),
            (Input::Stdout, RecordType::Stdout),
        ] {
            let waiting = connection.readable(self.handle, input).unwrap_or(0);
            if waiting > 0 {
                self.input = input;
                self.content = waiting.min(MAX_CONTENT);
                self.set_head(&[&header(record_type, self.content)]);
                return true;
            }
        }
        let Ok(Some(end)) = connection.ended(self.handle) else {
            // Asks for the event that tells of more.
            let _ = connection.notify_readable(self.handle);
            return false;
        };
        if self.ended {
            return false;
        }
        self.ended = true;
        self.set_head(&[
            &header(RecordType::Stdout, 0),
            &header(RecordType::EndRequest, BODY_LEN),
            &end.encode(),
        ]);
        true
    }

    fn set_head(&mut self, parts: &[&[u8; HEADER_LEN]]) {
        let bytes = parts.iter().flat_map(|part| part.iter());
        for (to, from) in self.head.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.head_from = 0;
        self.head_to = parts.len().saturating_mul(HEADER_LEN).min(self.head.len());
    }
}

/// The stream that a record of the client's belongs to.
const fn output_of(record_type: RecordType) -> Option<Output> {
    match record_type {
        RecordType::Params => Some(Output::Params),
        RecordType::Stdin => Some(Output::Stdin),
        RecordType::Data => Some(Output::Data),
        _ => None,
    }
}

fn header(record_type: RecordType, length: usize) -> [u8; HEADER_LEN] {
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    Header::new(record_type, Some(RequestId::FIRST), length).encode()
}
