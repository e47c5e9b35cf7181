//! One request as the web server's side sees it.

use std::time::Instant;

use super::{Input, Output};
use crate::credit::Flow;
use crate::inbox::Inbox;
use crate::params::Cutter;
use crate::record::EndRequest;
use crate::writer::Turn;

/// A request from [`open`](super::Connection::open) until both its consumer and the application
/// are done with it.
///
/// ```text
///          open                begin               END_REQUEST            close
///  (none) ──────> Reserved ─────────────> Active ─────────────> Ended ─────────────> (removed)
///                    │         BEGIN_REQUEST │                  id is free               ^
///                    │                       │ close, stalled                            │
///                    │                       └──────────────> Draining ──────────────────┤
///                    │ close               ABORT_REQUEST        id is held  END_REQUEST, │
///                    └───────────────────────────────────────────────────── time-out ────┘
/// ```
///
/// A request that is closed gently drains for a while before ABORT_REQUEST is sent.
/// A stalled request drains with its consumer still there, and then becomes `Ended`. When the
/// connection is lost, each request with a consumer becomes `Ended`, and the others are removed.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) phase: Phase,
    pub(super) params: Sent,
    pub(super) stdin: Sent,
    pub(super) data: Sent,
    pub(super) turn: Turn,
    pub(super) cutter: Cutter,
    /// `None`: the request is not under flow control.
    pub(super) flow: Option<Flow>,
    pub(super) stdout: Inbox,
    pub(super) stderr: Inbox,
    /// Whether the consumer found nothing to read and is to be told of more.
    pub(super) waited_for: bool,
    /// Whether the consumer has closed the request, so that nobody reads it.
    pub(super) closed: bool,
    /// Whether it has kept the connection from being read.
    pub(super) stalled: bool,
    /// While it drains without having been aborted: bytes that may come before it is.
    pub(super) linger: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Reserved,
    Active,
    /// Given up, since this time: what comes is discarded, the id is held until END_REQUEST (R-12).
    Draining(Instant),
    /// `None`: the connection was lost before END_REQUEST came.
    Ended(Option<EndRequest>),
}

/// How far a stream to the application is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sent {
    #[default]
    Open,
    Ended,
}

impl Request {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Reserved,
            params: Sent::Open,
            stdin: Sent::Open,
            data: Sent::Open,
            turn: Turn::default(),
            cutter: Cutter::default(),
            flow: None,
            stdout: Inbox::default(),
            stderr: Inbox::default(),
            waited_for: false,
            closed: false,
            stalled: false,
            linger: None,
        }
    }

    pub(super) fn sent(&mut self, output: Output) -> &mut Sent {
        match output {
            Output::Params => &mut self.params,
            Output::Stdin => &mut self.stdin,
            Output::Data => &mut self.data,
        }
    }

    /// Gives back what was received and what may come: nobody will read it.
    pub(super) fn discard(&mut self) {
        self.stdout.discard();
        self.stderr.discard();
    }

    /// Bytes of content of a stream that may be received, under a limit for STDOUT and STDERR
    /// together.
    pub(super) fn room(&self, input: Input, limit: usize) -> usize {
        if self.flow.is_some() {
            // What is beyond the credit given is an error of the request, not a reason to wait.
            return usize::MAX;
        }
        match input {
            Input::Stdout => self.stdout.room(limit.saturating_sub(self.stderr.len())),
            Input::Stderr => self.stderr.room(limit.saturating_sub(self.stdout.len())),
        }
    }
}
