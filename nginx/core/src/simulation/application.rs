//! Applications, each with its own manners, and the connections to them.

use std::collections::VecDeque;
use std::time::Instant;

use afcgi_proto::{Handle, app};
use afcgi_testkit::record::{self, code};

use super::nginx::now;
use crate::keys::RealKey;

/// What the applications of a schedule are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Multiplexes, with flow control.
    Multiplexes,
    /// Says that it does not.
    Declines,
    /// Answers requests, one on each connection, and no GET_VALUES.
    Silent,
    /// Closes at GET_VALUES.
    Closes,
    /// Cannot be connected to.
    Down,
    /// Takes everything and says nothing.
    Hangs,
}

pub(super) const MANNERS: [Manner; 9] = [
    Manner::Multiplexes,
    Manner::Multiplexes,
    Manner::Multiplexes,
    Manner::Multiplexes,
    Manner::Declines,
    Manner::Silent,
    Manner::Closes,
    Manner::Down,
    Manner::Hangs,
];

/// Both ends of a connection.
pub(super) struct Line {
    pub(super) key: RealKey,
    pub(super) app: usize,
    /// `None`: it has not been found out yet.
    pub(super) connected: Option<bool>,
    pub(super) to_app: Vec<u8>,
    pub(super) to_us: VecDeque<u8>,
    /// The application has closed it.
    pub(super) closed: bool,
    /// This side has.
    pub(super) dropped: bool,
    /// A write did not take all: the event loop tells when there is room.
    pub(super) full: bool,
    pub(super) flush: bool,
    pub(super) read_again: bool,
    pub(super) closing: bool,
    pub(super) timer: Option<Instant>,
    /// The application's side, where it multiplexes.
    pub(super) served: app::Connection,
    /// Its responses that found no room yet.
    pub(super) pending: VecDeque<(Handle, Vec<u8>)>,
    /// Bytes of another one that are no request yet.
    pub(super) rest: Vec<u8>,
}

/// What an application answers to a request.
pub(super) fn answer(app: usize, number: &str) -> Vec<u8> {
    let line = format!("this is {app} to {number}\n");
    // Some are longer than what is sent at once.
    let times = 1 + number.len() * 37 % 150;
    format!("Status: 200\r\n\r\n{}", line.repeat(times)).into_bytes()
}

impl Line {
    /// The application does something.
    pub(super) fn work(&mut self, manner: Manner) {
        let received = std::mem::take(&mut self.to_app);
        if manner == Manner::Hangs || self.closed {
            return;
        }
        if manner == Manner::Multiplexes {
            return self.multiplex(&received);
        }
        self.rest.extend(received);
        let rest = std::mem::take(&mut self.rest);
        let mut left = &rest[..];
        let (mut params, mut last) = (Vec::new(), left);
        while let Some(record) = record::take(&mut left) {
            match record.code {
                code::GET_VALUES if manner == Manner::Declines => {
                    let no = record::pairs(&[("FCGI_MPXS_CONNS", "0")]);
                    self.to_us
                        .extend(record::record(code::GET_VALUES_RESULT, 0, &no));
                    last = left;
                }
                code::GET_VALUES if manner == Manner::Closes => self.closed = true,
                code::GET_VALUES => last = left,
                code::PARAMS => params.extend(record.content),
                code::STDIN if record.content.is_empty() => {
                    let number = params_number(&params);
                    let stdout = answer(self.app, &number);
                    for piece in stdout.chunks(5000) {
                        let piece = record::record(code::STDOUT, record.id, piece);
                        self.to_us.extend(piece);
                    }
                    self.to_us
                        .extend(record::record(code::STDOUT, record.id, b""));
                    self.to_us.extend(record::end(record.id, 0, 0));
                    self.closed = true;
                }
                _ => {}
            }
        }
        self.rest = last.to_vec();
    }

    fn multiplex(&mut self, received: &[u8]) {
        let now = now();
        let mut left = received;
        while !left.is_empty() {
            match self.served.receive(now, left) {
                Ok(0) => break,
                Ok(taken) => left = &left[taken..],
                Err(error) => panic!("the module broke the protocol: {error}"),
            }
        }
        while let Some(event) = self.served.poll_event() {
            if let app::Event::Request { handle, params, .. } = event {
                let number = params.get(b"N").unwrap_or_default();
                let stdout = answer(self.app, &String::from_utf8_lossy(number));
                self.pending.push_back((handle, stdout));
            }
        }
        // What was given up meanwhile needs no answer.
        for (handle, mut stdout) in std::mem::take(&mut self.pending) {
            match self.served.write(handle, app::Output::Stdout, &stdout) {
                Ok(count) if count == stdout.len() => {
                    let _ = self.served.finish(handle, 0);
                }
                Ok(count) => {
                    stdout.drain(..count);
                    self.pending.push_back((handle, stdout));
                }
                Err(_) => {}
            }
        }
        let sent = self.served.transmit().len();
        self.to_us.extend(self.served.transmit());
        self.served.transmitted(sent);
        self.served.next_round();
    }
}

/// The value of `N`, the first of the parameters, each of whose lengths has four bytes.
pub(super) fn params_number(params: &[u8]) -> String {
    let length = usize::from(params[7]);
    String::from_utf8(params[9..9 + length].to_vec()).unwrap()
}
