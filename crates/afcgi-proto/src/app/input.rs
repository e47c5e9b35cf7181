//! What the records of a web server do.

use std::time::Instant;

use super::request::{Phase, Request};
use super::{Blocked, Connection, Event, Input, Refusal};
use crate::credit::{self, Flow};
use crate::error::ConnectionError;
use crate::inbox::least_room;
use crate::reader::Fragment;
use crate::record::{
    BeginRequest, EndRequest, FLOW_CONTROL, ProtocolStatus, RecordType, RequestId, Role,
};
use crate::table::Handle;
use crate::values::Values;

impl Connection {
    /// Takes bytes that the socket gave, and says how many it took: fewer than all when the
    /// connection [is blocked](Self::is_blocked); the rest is to be offered again.
    ///
    /// An error is the end of the connection: what is pending may still be transmitted, then
    /// [`Connection::lost`] is to be called and the socket closed.
    pub fn receive(&mut self, now: Instant, input: &[u8]) -> Result<usize, ConnectionError> {
        if input.is_empty() {
            return Ok(0);
        }
        let mut rest = input;
        loop {
            if self.output_is_flooded() {
                break;
            }
            let share = self.overflow_share();
            let (table, limit) = (&mut self.table, self.config.stdin_buffer);
            let before = self.blocked;
            let mut full = None;
            let fragment = self.reader.read_within(&mut rest, |header| {
                let stream = match header.record_type {
                    RecordType::Stdin => Input::Stdin,
                    RecordType::Data => Input::Data,
                    _ => return usize::MAX,
                };
                let Some((handle, request)) = header.request_id.and_then(|id| table.find_mut(id))
                else {
                    return usize::MAX;
                };
                let room = request.room(stream, limit, share.of(request));
                let same =
                    before.filter(|blocked| (blocked.handle, blocked.stream) == (handle, stream));
                if room >= least_room(limit, same.is_some()) {
                    return room;
                }
                full = Some(same.unwrap_or(Blocked {
                    handle,
                    stream,
                    since: now,
                }));
                0
            })?;
            let Some(fragment) = fragment else {
                self.blocked = full;
                break;
            };
            self.blocked = None;
            self.fragment(now, fragment)?;
        }
        Ok(input.len().saturating_sub(rest.len()))
    }

    /// Whether [`Connection::receive`] would take nothing now: a request has to read its STDIN
    /// first, until half of its buffer is free, or the web server has to read the answers that are
    /// pending.
    pub fn is_blocked(&self) -> bool {
        self.full_request().is_some() || self.output_is_flooded()
    }

    /// The request that keeps the connection from being read, if it still does.
    pub(super) fn full_request(&self) -> Option<Blocked> {
        self.blocked.filter(|blocked| {
            let limit = self.config.stdin_buffer;
            let share = self.overflow_share();
            (self.table.get(blocked.handle)).is_ok_and(|request| {
                request.room(blocked.stream, limit, share.of(request)) < least_room(limit, true)
            })
        })
    }

    /// A web server that has discrete records answered and does not read the answers is not read
    /// either. Content of streams alone does not come that far, see [`crate::writer`].
    fn output_is_flooded(&self) -> bool {
        let most = self
            .config
            .output_buffer
            .saturating_add(self.config.output_turn)
            .saturating_mul(2);
        self.writer.len() > most
    }

    fn fragment(&mut self, now: Instant, fragment: Fragment<'_>) -> Result<(), ConnectionError> {
        let header = fragment.header;
        let Some(id) = header.request_id else {
            self.management(fragment);
            return Ok(());
        };
        match header.record_type {
            RecordType::Params => self.params(id, fragment),
            RecordType::Stdin | RecordType::Data => self.content(id, fragment),
            RecordType::BeginRequest => {
                if let Some(body) = self.discrete.body(fragment)? {
                    self.begin(now, id, BeginRequest::parse(&body))?;
                }
            }
            RecordType::AbortRequest => {
                if fragment.last {
                    self.abort(id);
                }
            }
            RecordType::EndRequest | RecordType::Stdout | RecordType::Stderr => {
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
                    self.credit(id, credit::parse(&body));
                }
            }
        }
        Ok(())
    }

    fn begin(
        &mut self,
        now: Instant,
        id: RequestId,
        begin: BeginRequest,
    ) -> Result<(), ConnectionError> {
        if self.table.find(id).is_some() {
            // Whose bytes would those be that follow? Nobody may guess.
            return Err(ConnectionError::IdInUse(id));
        }
        let is_first = self.closing.first_until.take().is_some();
        let refusal = if matches!(begin.role, Role::Other(_)) {
            Some((Refusal::UnknownRole, ProtocolStatus::UnknownRole))
        } else if self.table.len() >= self.config.requests || (self.closing.draining && !is_first) {
            Some((Refusal::Overloaded, ProtocolStatus::Overloaded))
        } else {
            None
        };
        if let Some((why, protocol_status)) = refusal {
            self.refused(id, why);
            self.closing.asked |= !begin.keep_conn();
            self.unended.refused(id, begin);
            self.write_end(
                id,
                EndRequest {
                    app_status: 0,
                    protocol_status,
                },
            );
            return Ok(());
        }
        self.unended.forget(id);
        let mut request = Request::new(begin, now);
        // where it was not agreed on, the flag and the reserved bytes mean nothing.
        if self.flow_offered && begin.flags & FLOW_CONTROL != 0 {
            let window = credit::initial(self.config.stdin_buffer);
            request.flow = Some(Flow::new(begin.credit.min(credit::MAX_CREDIT), window));
        }
        self.table.insert(id, request);
        self.idle_since = None;
        self.closing.timed_out = false;
        self.multiplexed |= self.table.len() > 1;
        if self.incomplete.count == 0 {
            self.incomplete.since = Some(now);
        }
        self.incomplete.count = self.incomplete.count.saturating_add(1);
        if self.incomplete.check_at.is_none() {
            self.incomplete.check_at = now.checked_add(self.config.params_timeout);
        }
        Ok(())
    }

    fn credit(&mut self, id: RequestId, increment: u32) {
        let Some((handle, request)) = self.table.find_mut(id) else {
            return;
        };
        match request.flow.as_mut().map(|flow| flow.credit(increment)) {
            Some(Ok(true)) => self.events.push_back(Event::Writable(handle)),
            Some(Ok(false)) | None => {}
            Some(Err(error)) => self.fail(handle, error),
        }
    }

    fn abort(&mut self, id: RequestId) {
        let Some((handle, request)) = self.table.find_mut(id) else {
            self.unended.forget(id);
            return;
        };
        if request.is_delivered() {
            self.events.push_back(Event::Aborted(handle));
        } else {
            self.refused(id, Refusal::Aborted);
        }
        self.end(
            handle,
            EndRequest {
                app_status: 0,
                protocol_status: ProtocolStatus::RequestComplete,
            },
        );
        self.unended.forget(id);
    }

    fn params(&mut self, id: RequestId, fragment: Fragment<'_>) {
        let Some((handle, request)) = self.table.find_mut(id) else {
            self.late(id, fragment);
            return;
        };
        let Phase::Params { collector, .. } = &mut request.phase else {
            return;
        };
        if !fragment.is_empty_record() {
            let pushed = collector.push(fragment.content, self.config.params_bytes);
            if let Err(error) = pushed {
                self.fail(handle, error);
                return;
            }
            self.add_incomplete(handle, fragment.content.len());
            return;
        }
        let collector = std::mem::take(collector);
        self.incomplete.bytes = self.incomplete.bytes.saturating_sub(collector.len());
        match collector.finish(self.config.params_pairs) {
            Ok(params) => {
                self.incomplete.count = self.incomplete.count.saturating_sub(1);
                self.incomplete.bytes =
                    (self.incomplete.bytes).saturating_sub(request.incomplete_bytes());
                request.phase = Phase::Delivered;
                let begin = request.begin;
                self.events.push_back(Event::Request {
                    handle,
                    begin,
                    params,
                });
            }
            Err(error) => self.fail(handle, error),
        }
    }

    /// A record of a stream whose request is not active.
    fn late(&mut self, id: RequestId, fragment: Fragment<'_>) {
        if fragment.is_empty_record() {
            self.unended.stream_ended(id, fragment.header.record_type);
        }
    }

    fn content(&mut self, id: RequestId, fragment: Fragment<'_>) {
        let Some((handle, request)) = self.table.find_mut(id) else {
            self.late(id, fragment);
            return;
        };
        let delivered = request.is_delivered();
        let limit = self.config.stdin_buffer;
        let excess = request.excess(limit);
        let input = match (fragment.header.record_type, &mut request.data) {
            (RecordType::Stdin, _) => &mut request.stdin,
            (RecordType::Data, Some(data)) => &mut **data,
            _ => return,
        };
        if let Some(flow) = &mut request.flow
            && let Err(error) = flow.received(fragment.content.len())
        {
            self.fail(handle, error);
            return;
        }
        let before = input.inbox.len();
        if fragment.is_empty_record() {
            input.inbox.end();
        } else {
            input.inbox.push(fragment.content);
        }
        let after = input.inbox.len();
        if std::mem::take(&mut input.waited_for) {
            self.events.push_back(Event::Readable(handle));
        }
        self.overflow.change(excess, request.excess(limit));
        if !delivered {
            // Nobody reads it yet, so nobody can be waited for, and it counts like PARAMS.
            self.add_incomplete(handle, after.saturating_sub(before));
            if after > self.config.stdin_buffer {
                self.overloaded(handle);
            }
        }
    }

    /// Counts bytes that a request adds whose PARAMS is not complete.
    fn add_incomplete(&mut self, handle: Handle, count: usize) {
        self.incomplete.bytes = self.incomplete.bytes.saturating_add(count);
        if self.incomplete.bytes > self.config.incomplete_bytes {
            self.overloaded(handle);
        }
    }

    /// Refuses a request that has not been announced, if it is still there.
    fn overloaded(&mut self, handle: Handle) {
        if self.table.get(handle).is_ok() {
            self.refused(handle.id(), Refusal::Overloaded);
            self.end(
                handle,
                EndRequest {
                    app_status: 0,
                    protocol_status: ProtocolStatus::Overloaded,
                },
            );
        }
    }

    fn management(&mut self, fragment: Fragment<'_>) {
        let record_type = fragment.header.record_type;
        if record_type != RecordType::GetValues {
            // Two sides that answer each other's answers would never end.
            if fragment.last && record_type != RecordType::UnknownType {
                // The body says nothing that an unknown type could mean.
                let body = [record_type.code(), 0, 0, 0, 0, 0, 0, 0];
                self.writer.record(RecordType::UnknownType, None, &body);
            }
            return;
        }
        // As long as a record may be, and answered with each name once: that is bounded enough.
        if let Some(query) = self.discrete.content(fragment) {
            let mut values = self.config.values;
            values.flow_control =
                (self.config.flow_control).then(|| credit::initial(self.config.stdin_buffer));
            let answer = values.answer(&query);
            self.flow_offered |= Values::parse(&answer).flow_control.is_some();
            self.writer
                .record(RecordType::GetValuesResult, None, &answer);
        }
    }
}
