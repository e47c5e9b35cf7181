//! The requests that have ended while the web server still sends their streams. What comes of those means
//! nothing, but a connection that is closed before it has come is reset, and its web server may lose
//! the answer that it has not read yet.

use std::collections::BTreeMap;

use super::request::Request;
use super::{Connection, Input};
use crate::record::{BeginRequest, RecordType, RequestId, Role};

/// Requests that are remembered. There may be more, but all that is to be known is whether there are any.
const MOST: usize = 1024;

/// The requests, with the stream that the web server sends last. Invariant: no more than [`MOST`].
#[derive(Debug, Default)]
pub(super) struct Unended(BTreeMap<RequestId, RecordType>);

impl Unended {
    /// A request was refused as it began.
    pub(super) fn refused(&mut self, id: RequestId, begin: BeginRequest) {
        self.add(id, begin.role);
    }

    /// A request has ended.
    pub(super) fn ended(&mut self, id: RequestId, request: &Request) {
        let reads = |input| match (input, &request.data) {
            (Input::Stdin, _) => request.stdin.inbox.is_open(),
            (Input::Data, Some(data)) => data.inbox.is_open(),
            (Input::Data, None) => false,
        };
        if !request.is_delivered() || reads(Input::Stdin) || reads(Input::Data) {
            self.add(id, request.begin.role);
        }
    }

    fn add(&mut self, id: RequestId, role: Role) {
        if self.0.len() < MOST {
            self.0.insert(id, last_stream(role));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A stream of a request that is not active has ended.
    pub(super) fn stream_ended(&mut self, id: RequestId, stream: RecordType) {
        if self.0.get(&id) == Some(&stream) {
            self.0.remove(&id);
        }
    }

    /// Nothing more comes for an id: it was aborted, or is begun again.
    pub(super) fn forget(&mut self, id: RequestId) {
        self.0.remove(&id);
    }
}

fn last_stream(role: Role) -> RecordType {
    match role {
        //
        Role::Authorizer => RecordType::Params,
        Role::Filter => RecordType::Data,
        Role::Responder | Role::Other(_) => RecordType::Stdin,
    }
}

impl Connection {
    /// Whether the web server still sends streams of requests that have ended: a socket that is closed now
    /// would be reset, and the answers to them might be lost. What comes is to be read, for a while, and
    /// dropped.
    pub fn is_still_sent(&self) -> bool {
        let closing = &self.closing;
        let over = closing.half_closed.is_some() || closing.timed_out || closing.lost;
        !over && self.unended.len() > 0
    }
}
