//! Follows the requests of a connection by the records of both sides, and tells which rules are broken.
//!
//! It sees a copy of what goes by, and keeps nothing of it but what is counted here: bounds are in [`budget`](super::budget) and
//! [`exchange`](super::exchange). After bytes that are no record, or when there is no room for a request, it says so once and sees nothing more.

mod heed;
mod streams;

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use afcgi_proto::reader::{Fragment, Reader};
use afcgi_proto::record::{BODY_LEN, KEEP_CONN};
use afcgi_proto::{
    BeginRequest, ConnectionError, EndRequest, Header, ProtocolStatus, RecordType, Role,
};

use super::budget::Budget;
use super::exchange::{Exchange, HeadState, Keep};
use super::faults::Fault;
use crate::wire::mask::Masks;
use crate::wire::{Pairs, Side};

/// Bytes that were no record which are told of.
const GARBAGE: usize = 32;

/// Something that is to be told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A request is over.
    Ended(Box<Ended>),
    /// A rule was broken, by a record for this id or by the connection (0).
    Fault(Fault, Side, u16),
    /// Nothing more is seen of the connection.
    Blind(String),
}

/// A request that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) id: u16,
    pub(crate) at: Duration,
    pub(crate) how: How,
    pub(crate) exchange: Exchange,
}

/// What ended a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// END_REQUEST.
    End(EndRequest),
    /// The web server closed the connection.
    WebLeft,
    /// The application did.
    AppLeft,
    /// The tap sees nothing more of it.
    Unseen,
}

/// What one side sends.
#[derive(Debug, Default)]
struct Half {
    reader: Reader,
    body: Vec<u8>,
    pairs: Pairs,
    pairs_have_values: bool,
    /// Whether the record that goes on is one of a request that is followed.
    heeded: bool,
    closed: bool,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Tracker {
    keep: Keep,
    budget: Rc<Budget>,
    halves: [Half; 2],
    active: HashMap<u16, Box<Exchange>>,
    /// Ids that were begun, a bit for each: as many words as the highest needs.
    begun: Vec<u64>,
    /// GET_VALUES and unknown types that wait for an answer.
    values: u64,
    unknown: u64,
    blind: bool,
    /// Whether the web server asked for the connection to be kept, by the last request.
    pub(crate) keep_conn: bool,
    /// The most requests at a time.
    pub(crate) peak: usize,
    pub(crate) records: u64,
}

impl Tracker {
    pub(crate) fn new(keep: Keep, budget: Rc<Budget>) -> Self {
        Self {
            keep,
            budget,
            halves: [Half::default(), Half::default()],
            active: HashMap::new(),
            begun: Vec::new(),
            values: 0,
            unknown: 0,
            blind: false,
            keep_conn: false,
            peak: 0,
            records: 0,
        }
    }

    /// Whether it sees nothing more.
    pub(crate) fn is_blind(&self) -> bool {
        self.blind
    }

    /// Requests that are active.
    pub(crate) fn active(&self) -> usize {
        self.active.len()
    }

    /// Bytes that one side sent. Their secrets are among `masks` afterwards, if that is wanted: all bytes that it does not understand are.
    pub(crate) fn feed(
        &mut self,
        side: Side,
        at: Duration,
        bytes: &[u8],
        masks: &mut Masks,
        events: &mut Vec<Event>,
    ) {
        let mut rest = bytes;
        let mut seen = Seen {
            side,
            at,
            masks,
            events,
        };
        while !self.blind {
            let before = rest;
            match self.halves[side as usize].reader.read(&mut rest) {
                Ok(Some(fragment)) => {
                    // Content that is not empty is a part of the bytes.
                    let begin = match fragment.content {
                        [] => 0,
                        content => content.as_ptr().addr() - bytes.as_ptr().addr(),
                    };
                    self.fragment(&mut seen, begin, fragment);
                }
                Ok(None) => return,
                Err(error) => {
                    if let ConnectionError::Version { found } = error {
                        let fault = Fault::Version(found);
                        seen.events.push(Event::Fault(fault, side, 0));
                    }
                    let first = &before[..before.len().min(GARBAGE)];
                    let text = format!(
                        "nothing more is seen of this connection, which goes on: {} sent `{}`",
                        side.name(),
                        crate::wire::escaped(first)
                    );
                    self.go_blind(&mut seen, text);
                    rest = before;
                }
            }
        }
        if self.keep.masks {
            let begin = bytes.len() - rest.len();
            seen.masks.push(begin..bytes.len());
        }
    }

    /// A side has closed its half, or the connection broke.
    pub(crate) fn close(&mut self, side: Side, at: Duration, events: &mut Vec<Event>) {
        let half = &mut self.halves[side as usize];
        if std::mem::replace(&mut half.closed, true) || self.blind {
            return;
        }
        if !half.reader.at_boundary() {
            events.push(Event::Fault(Fault::InsideRecord, side, 0));
        }
        let web_left = self.halves[Side::Web as usize].closed;
        match side {
            // It may still receive the response.
            Side::Web => {}
            Side::App => {
                let how = match web_left {
                    true => How::WebLeft,
                    false => How::AppLeft,
                };
                self.end_all(at, how, events);
            }
        }
        if self.halves.iter().all(|half| half.closed) {
            for (count, record_type) in [
                (self.values, RecordType::GetValuesResult),
                (self.unknown, RecordType::UnknownType),
            ] {
                if count > 0 {
                    events.push(Event::Fault(Fault::NoAnswer(record_type), Side::App, 0));
                }
            }
        }
    }

    /// Nothing more is looked at.
    pub(crate) fn stop(&mut self, at: Duration, events: &mut Vec<Event>) {
        self.end_all(at, How::Unseen, events);
    }

    fn end_all(&mut self, at: Duration, how: How, events: &mut Vec<Event>) {
        let mut ids: Vec<u16> = self.active.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(mut exchange) = self.active.remove(&id) else {
                continue;
            };
            if how == How::AppLeft {
                let fault = match exchange.aborted {
                    Some(_) => Fault::ClosedForAbort,
                    None => Fault::NoEnd,
                };
                exchange.fault(fault.rule(), Side::App, false);
                events.push(Event::Fault(fault, Side::App, id));
            }
            events.push(Event::Ended(Box::new(Ended {
                id,
                at,
                how,
                exchange: *exchange,
            })));
        }
    }

    fn go_blind(&mut self, seen: &mut Seen<'_>, text: String) {
        self.end_all(seen.at, How::Unseen, seen.events);
        self.blind = true;
        seen.events.push(Event::Blind(text));
    }

    fn fragment(&mut self, seen: &mut Seen<'_>, at: usize, fragment: Fragment<'_>) {
        let header = fragment.header;
        let side = seen.side;
        if fragment.first {
            self.records += 1;
            self.halves[side as usize].body.clear();
            let heeded = self.heed(side, &header);
            self.halves[side as usize].heeded = heeded == Ok(true);
            if let Err(fault) = heeded {
                self.fault(seen, fault, &header);
            }
        }
        if !self.halves[side as usize].heeded {
            // What belongs to nothing that is known may be anything.
            if self.keep.masks {
                seen.masks.push(at..at + fragment.content.len());
            }
            return;
        }
        match header.record_type {
            RecordType::BeginRequest | RecordType::EndRequest => {
                if let Some(body) = self.body(side, &fragment) {
                    let result = match header.record_type {
                        RecordType::BeginRequest => self.begin(seen, &header, &body),
                        _ => self.end(seen, &header, &body),
                    };
                    if let Some(fault) = result {
                        self.fault(seen, fault, &header);
                    }
                }
            }
            RecordType::AbortRequest => {
                if let Some(exchange) = self.exchange(&header) {
                    exchange.aborted.get_or_insert(seen.at);
                }
            }
            RecordType::Params
            | RecordType::Stdin
            | RecordType::Data
            | RecordType::Stdout
            | RecordType::Stderr => self.stream(seen, at, fragment),
            RecordType::GetValues | RecordType::GetValuesResult => self.pairs(seen, fragment),
            RecordType::UnknownType => {}
            RecordType::Credit | RecordType::Other(_) => {
                if self.keep.masks && header.record_type != RecordType::Credit {
                    seen.masks.push(at..at + fragment.content.len());
                }
            }
        }
    }

    fn fault(&mut self, seen: &mut Seen<'_>, fault: Fault, header: &Header) {
        let (rule, minor) = (fault.rule(), fault.is_minor());
        if let Some(exchange) = self.exchange(header) {
            exchange.fault(rule, seen.side, minor);
        }
        let id = header.request_id.map_or(0, |id| id.get());
        seen.events.push(Event::Fault(fault, seen.side, id));
    }

    fn exchange(&mut self, header: &Header) -> Option<&mut Exchange> {
        let exchange = self.active.get_mut(&header.request_id?.get())?;
        Some(exchange)
    }

    /// The body of a discrete record, once it is whole.
    fn body(&mut self, side: Side, fragment: &Fragment<'_>) -> Option<[u8; BODY_LEN]> {
        if let Ok(whole) = fragment.content.try_into() {
            return Some(whole);
        }
        // Not longer than 8, by its header.
        let body = &mut self.halves[side as usize].body;
        body.extend_from_slice(fragment.content);
        match fragment.last {
            true => body.as_slice().try_into().ok(),
            false => None,
        }
    }

    fn begin(
        &mut self,
        seen: &mut Seen<'_>,
        header: &Header,
        body: &[u8; BODY_LEN],
    ) -> Option<Fault> {
        let id = header.request_id?.get();
        let begin = BeginRequest::parse(body);
        let Some(share) = self.budget.request() else {
            let text = "nothing more is seen of this connection, which goes on: too many requests are active at a time";
            self.go_blind(seen, String::from(text));
            return None;
        };
        let (word, bit) = (usize::from(id / 64), id % 64);
        if self.begun.len() <= word {
            self.begun.resize(word + 1, 0);
        }
        self.begun[word] |= 1 << bit;
        self.keep_conn = begin.flags & KEEP_CONN != 0;
        let exchange = Exchange::new(self.keep, share, begin.role, seen.at);
        self.active.insert(id, Box::new(exchange));
        self.peak = self.peak.max(self.active.len());
        match begin.role {
            Role::Other(code) => Some(Fault::Role(code)),
            Role::Responder | Role::Authorizer | Role::Filter => None,
        }
    }

    fn was_begun(&self, id: u16) -> bool {
        let word = self.begun.get(usize::from(id / 64)).copied();
        word.unwrap_or_default() & (1 << (id % 64)) != 0
    }

    fn end(
        &mut self,
        seen: &mut Seen<'_>,
        header: &Header,
        body: &[u8; BODY_LEN],
    ) -> Option<Fault> {
        let id = header.request_id?.get();
        let mut exchange = self.active.remove(&id)?;
        let end = EndRequest::parse(body);
        let mut faults = Vec::new();
        let is_complete = end.protocol_status == ProtocolStatus::RequestComplete;
        if let ProtocolStatus::Other(code) = end.protocol_status {
            faults.push(Fault::ProtocolStatus(code));
        } else if !is_complete && exchange.stdout.bytes > 0 {
            faults.push(Fault::RefusedLate);
        }
        if let Some(code) = exchange.must_be_refused(end.protocol_status) {
            faults.push(Fault::RoleTaken(code));
        }
        if is_complete {
            for (stream, kind) in [
                (exchange.stdout, RecordType::Stdout),
                (exchange.stderr, RecordType::Stderr),
            ] {
                if stream.used && !stream.ended {
                    faults.push(Fault::Unended(kind));
                }
            }
            let no_head = matches!(exchange.head, HeadState::None | HeadState::Part(_));
            let failed = exchange.aborted.is_some() || end.app_status != 0;
            if no_head && (exchange.stdout.bytes > 0 || !failed) && !exchange.cut {
                faults.push(Fault::NoHead);
            }
        }
        for fault in faults {
            exchange.fault(fault.rule(), Side::App, fault.is_minor());
            seen.events.push(Event::Fault(fault, Side::App, id));
        }
        seen.events.push(Event::Ended(Box::new(Ended {
            id,
            at: seen.at,
            how: How::End(end),
            exchange: *exchange,
        })));
        None
    }
}

/// Where what was found goes.
struct Seen<'a> {
    side: Side,
    at: Duration,
    masks: &'a mut Masks,
    events: &'a mut Vec<Event>,
}

#[cfg(test)]
mod tests;
