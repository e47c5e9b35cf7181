//! One request as the application's side sees it.

use std::time::Instant;

use super::Output;
use crate::credit::Flow;
use crate::inbox::Inbox;
use crate::params::Collector;
use crate::record::{BeginRequest, Role};
use crate::writer::Turn;

/// A request from BEGIN_REQUEST to END_REQUEST.
///
/// ```text
///            BEGIN_REQUEST             PARAMS ends                finish, refuse,
///   (none) ────────────────> Params ───────────────> Delivered ──────────────────> (removed)
///                              │                         │          END_REQUEST
///                              │ bad PARAMS, time-out    │ ABORT_REQUEST, connection lost
///                              └────────> (removed) <────┘
///                                END_REQUEST, unless lost
/// ```
///
/// A request is removed by exactly one transition, and END_REQUEST leaves in it (R-52).
#[derive(Debug)]
pub(super) struct Request {
    pub(super) begin: BeginRequest,
    pub(super) phase: Phase,
    pub(super) stdin: Input,
    /// Only a filter has one (R-55).
    pub(super) data: Option<Box<Input>>,
    pub(super) turn: Turn,
    /// `None`: the request is not under flow control.
    pub(super) flow: Option<Flow>,
    pub(super) stdout: Written,
    pub(super) stderr: Written,
}

/// How far a stream is that the application writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Written {
    #[default]
    Nothing,
    Something,
    /// Its empty record was written: no content may follow.
    Ended,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// PARAMS is being received.
    Params {
        collector: Collector,
        since: Instant,
    },
    /// PARAMS is complete, and the application knows of the request.
    Delivered,
}

/// A stream that the application reads.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) inbox: Inbox,
    /// Whether the application found nothing to read and is to be told of more.
    pub(super) waited_for: bool,
}

impl Request {
    pub(super) fn new(begin: BeginRequest, now: Instant) -> Self {
        let mut stdin = Input::default();
        if begin.role == Role::Authorizer {
            // R-54: an authorizer has no STDIN, so nobody waits for its end.
            stdin.inbox.end();
        }
        Self {
            begin,
            phase: Phase::Params {
                collector: Collector::default(),
                since: now,
            },
            stdin,
            data: (begin.role == Role::Filter).then(Box::default),
            turn: Turn::default(),
            flow: None,
            stdout: Written::default(),
            stderr: Written::default(),
        }
    }

    pub(super) fn is_delivered(&self) -> bool {
        matches!(self.phase, Phase::Delivered)
    }

    /// Bytes that are held while PARAMS is incomplete.
    pub(super) fn incomplete_bytes(&self) -> usize {
        match &self.phase {
            Phase::Params { collector, .. } => [Some(&self.stdin), self.data.as_deref()]
                .into_iter()
                .flatten()
                .fold(collector.len(), |sum, input| {
                    sum.saturating_add(input.inbox.len())
                }),
            Phase::Delivered => 0,
        }
    }

    pub(super) fn written(&mut self, output: Output) -> &mut Written {
        match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        }
    }

    /// Bytes of content of a stream that may be received, within its buffer and `more` beyond; without
    /// limit where the caller is to discard or refuse it.
    pub(super) fn room(&self, stream: super::Input, limit: usize, more: usize) -> usize {
        let room = match (stream, &self.data) {
            // What is beyond the credit given is an error of the request, not a reason to wait.
            _ if !self.is_delivered() || self.flow.is_some() => usize::MAX,
            (super::Input::Stdin, _) => self.stdin.inbox.room(limit),
            (super::Input::Data, Some(data)) => data.inbox.room(limit),
            (super::Input::Data, None) => usize::MAX,
        };
        room.saturating_add(more)
    }

    /// Bytes by which its streams exceed their buffers, where they are not under flow control.
    pub(super) fn excess(&self, limit: usize) -> usize {
        if self.flow.is_some() {
            return 0;
        }
        [Some(&self.stdin), self.data.as_deref()]
            .into_iter()
            .flatten()
            .fold(0, |sum, input| {
                sum.saturating_add(input.inbox.len().saturating_sub(limit))
            })
    }
}
