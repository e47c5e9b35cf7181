//! What the records of an application do. An application may be as hostile as a web server.

use std::time::Instant;

use super::request::{Phase, Sent};
use super::{Blocked, Connection, Event, Input, Output};
use crate::credit;
use crate::error::ConnectionError;
use crate::inbox::{Broken, least_room};
use crate::reader::Fragment;
use crate::record::{EndRequest, RecordType, RequestId};
use crate::table::Handle;
use crate::values::Values;

impl Connection {
    /// Takes bytes that the socket gave, and says how many it took: fewer than all when the
    /// connection [is blocked](Self::is_blocked); the rest is to be offered again.
    ///
    /// An error is the end of the connection, at once: no byte after it can be trusted. Call
    /// [`Connection::lost`] and close the socket.
    pub fn receive(&mut self, now: Instant, input: &[u8]) -> Result<usize, ConnectionError> {
        if input.is_empty() {
            return Ok(0);
        }
        let mut rest = input;
        loop {
            let before = self.blocked;
            let mut full = None;
            let buffer = self.config.receive_buffer;
            let overflows = self.overflows();
            let table = &mut self.table;
            let fragment = self.reader.read_within(&mut rest, |header| {
                let stream = match header.record_type {
                    RecordType::Stdout => Input::Stdout,
                    RecordType::Stderr => Input::Stderr,
                    _ => return usize::MAX,
                };
                let Some((handle, request)) = header.request_id.and_then(|id| table.find_mut(id))
                else {
                    return usize::MAX;
                };
                let more = overflows.filter(|&(overflowing, _)| overflowing == handle);
                let limit = buffer.saturating_add(more.map_or(0, |(_, more)| more));
                let room = request.room(stream, limit);
                let same =
                    before.filter(|blocked| (blocked.handle, blocked.stream) == (handle, stream));
                if room >= least_room(buffer, same.is_some()) {
                    return room;
                }
                full = Some(same.unwrap_or(Blocked {
                    handle,
                    stream,
                    since: now,
                    shared: false,
                }));
                0
            })?;
            let Some(fragment) = fragment else {
                self.blocked = full;
                if self.note_stalled() {
                    // There is more room for it than there was.
                    continue;
                }
                self.note_shared(now);
                return Ok(input.len().saturating_sub(rest.len()));
            };
            self.blocked = None;
            self.fragment(now, fragment)?;
        }
    }

    /// Whether [`Connection::receive`] would take nothing now: a request has to be read first,
    /// until half of its buffer is free.
    pub fn is_blocked(&self) -> bool {
        self.blocked_by().is_some()
    }

    /// The request that has to be read first, if the connection [is blocked](Self::is_blocked).
    pub fn blocked_by(&self) -> Option<Handle> {
        let blocked = self.blocked?;
        let buffer = self.config.receive_buffer;
        let more = self
            .overflows()
            .filter(|&(handle, _)| handle == blocked.handle);
        let limit = buffer.saturating_add(more.map_or(0, |(_, more)| more));
        (self.table.get(blocked.handle))
            .is_ok_and(|request| request.room(blocked.stream, limit) < least_room(buffer, true))
            .then_some(blocked.handle)
    }

    /// Whether a request overflows its buffer, so that what is behind it is reached. It pays to read
    /// slowly then: an application that is held up in writing that one response gets to the others.
    pub fn is_overflowing(&self) -> bool {
        self.overflows().is_some_and(|(handle, _)| {
            (self.table.get(handle)).is_ok_and(|request| {
                let held = request.stdout.len().saturating_add(request.stderr.len());
                held > self.config.receive_buffer
            })
        })
    }

    /// The request that may overflow its buffer, because others are behind it on the connection, and
    /// by how many bytes.
    fn overflows(&self) -> Option<(Handle, usize)> {
        let others = self.active() > 1;
        Some((self.overflowing.filter(|_| others)?, self.config.overflow))
    }

    /// The application closed the connection: every active request ends as truncated. The error
    /// tells that it was inside a record.
    pub fn end_of_input(&mut self) -> Result<(), ConnectionError> {
        self.lost();
        if self.reader.at_boundary() {
            Ok(())
        } else {
            Err(ConnectionError::Truncated)
        }
    }

    fn fragment(&mut self, now: Instant, fragment: Fragment<'_>) -> Result<(), ConnectionError> {
        let header = fragment.header;
        let Some(id) = header.request_id else {
            self.management(fragment);
            return Ok(());
        };
        match header.record_type {
            RecordType::Stdout | RecordType::Stderr => self.content(now, id, fragment),
            RecordType::EndRequest => {
                if let Some(body) = self.discrete.body(fragment)? {
                    self.end_request(id, EndRequest::parse(&body));
                }
            }
            RecordType::BeginRequest
            | RecordType::AbortRequest
            | RecordType::Params
            | RecordType::Stdin
            | RecordType::Data => {
                // under an id that is not active even this is ignored.
                if self.table.find(id).is_some() {
                    return Err(ConnectionError::WrongSide(header.record_type));
                }
            }
            // Application records of a type that FastCGI 1.0 does not know mean nothing here.
            RecordType::GetValues
            | RecordType::GetValuesResult
            | RecordType::UnknownType
            | RecordType::Other(_) => {}
            RecordType::Credit => {
                // Where it was not agreed on, this is a type that is not known.
                let known = (self.table.find(id))
                    .and_then(|handle| self.table.get(handle).ok())
                    .is_some_and(|request| request.flow.is_some());
                if known && let Some(body) = self.discrete.body(fragment)? {
                    self.credit(now, id, credit::parse(&body));
                }
            }
        }
        Ok(())
    }

    fn content(&mut self, now: Instant, id: RequestId, fragment: Fragment<'_>) {
        let Some((handle, request)) = self.table.find_mut(id) else {
            return;
        };
        // Nothing was asked for yet under a reserved id: what comes is late, from its last use.
        if request.phase == Phase::Reserved {
            return;
        }
        if let Some(flow) = &mut request.flow
            && flow.received(fragment.content.len()).is_err()
            && matches!(request.phase, Phase::Active)
        {
            self.give_up(handle, Broken::Violated, now);
            return;
        }
        if let Some(left) = &mut request.linger {
            *left = left.saturating_sub(fragment.content.len());
            if *left == 0 {
                self.send_abort(handle);
            }
            return;
        }
        let inbox = match fragment.header.record_type {
            RecordType::Stderr => &mut request.stderr,
            _ => &mut request.stdout,
        };
        if fragment.is_empty_record() {
            inbox.end();
        } else {
            inbox.push(fragment.content);
        }
        if std::mem::take(&mut request.waited_for) {
            self.events.push_back(Event::Readable(handle));
        }
    }

    fn credit(&mut self, now: Instant, id: RequestId, increment: u32) {
        let Some((handle, request)) = self.table.find_mut(id) else {
            return;
        };
        let Some(flow) = &mut request.flow else {
            return;
        };
        match flow.credit(increment) {
            Ok(true) => self.events.push_back(Event::Writable(handle)),
            Ok(false) => {}
            Err(_) if request.phase == Phase::Active => {
                self.give_up(handle, Broken::Violated, now);
            }
            Err(_) => {}
        }
    }

    /// The connection is not read because of a request: it gets no others until that has ended. `true`:
    /// the request may overflow its buffer from now on, so that those behind it are reached.
    fn note_stalled(&mut self) -> bool {
        if self.config.requests > 1
            && let Some(blocked) = self.blocked
            && let Ok(request) = self.table.get_mut(blocked.handle)
            && !std::mem::replace(&mut request.stalled, true)
        {
            self.stalled = self.stalled.saturating_add(1);
            self.events.push_back(Event::Stalled(blocked.handle));
            if self.overflowing.is_none() {
                self.overflowing = Some(blocked.handle);
                return self.config.overflow > 0 && self.active() > 1;
            }
        }
        false
    }

    fn end_request(&mut self, id: RequestId, end: EndRequest) {
        let Some((handle, request)) = self.table.find_mut(id) else {
            return;
        };
        if request.phase == Phase::Reserved {
            return;
        }
        // Some applications take an id for busy until its streams have been ended.
        if [request.params, request.stdin, request.data].contains(&Sent::Open) {
            if self.config.requests == 1 {
                self.retired = true;
            }
            for output in [Output::Params, Output::Stdin, Output::Data] {
                if std::mem::replace(request.sent(output), Sent::Ended) == Sent::Open {
                    self.writer.record(output.into(), Some(id), b"");
                }
            }
        }
        self.leave(handle, Some(end));
    }

    fn management(&mut self, fragment: Fragment<'_>) {
        match fragment.header.record_type {
            RecordType::GetValuesResult => {
                if let Some(content) = self.discrete.content(fragment) {
                    self.answered(Values::parse(&content));
                }
            }
            // The application does not know GET_VALUES: nothing else is asked.
            RecordType::UnknownType if fragment.last => self.answered(Values::default()),
            _ => {}
        }
    }

    /// Go's net/http/fcgi answers twice, the second time with nothing: only the first counts.
    fn answered(&mut self, values: Values) {
        if self.probes > 0 {
            self.probes = self.probes.saturating_sub(1);
            if self.config.flow_control {
                self.granted = values.flow_control;
            }
            self.upgrades = values.upgrade == Some(true);
            self.events.push_back(Event::Values(values));
        }
    }
}
