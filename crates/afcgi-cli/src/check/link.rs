//! A connection under test: bytes out, records in, both in the transcript, nothing of it without a bound.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::sleep_until;

use super::case::{Failure, Outcome, deviation};
use super::raw::{Record, Splitter, hex};
use super::transcript::Scribe;
use crate::request::Socket;
use crate::wire::Side;

/// Bytes that are read of the socket at a time.
const PIECE: usize = 16 * 1024;
/// Bytes that a peer may send in a case, on all of its connections.
const MOST: u64 = 64 << 20;
/// What a record counts for beside its bytes: it takes as much to keep.
const RECORD: u64 = 64;
/// Records that wait to be looked at while something is sent.
const WAITING: usize = 4096;

/// An open connection.
pub(crate) struct Link {
    reader: ReadHalf<Box<dyn Socket>>,
    writer: WriteHalf<Box<dyn Socket>>,
    piece: Vec<u8>,
    splitter: Splitter,
    inbox: VecDeque<Record>,
    scribe: Scribe,
    /// How long the peer may take for anything.
    limit: Duration,
    at_end: bool,
    /// Whether the peer broke the connection, in place of closing it.
    broken: bool,
    deaf: bool,
}

impl Link {
    pub(crate) fn new(socket: Box<dyn Socket>, scribe: Scribe, limit: Duration) -> Self {
        let (reader, writer) = tokio::io::split(socket);
        Self {
            reader,
            writer,
            piece: vec![0; PIECE],
            splitter: Splitter::default(),
            inbox: VecDeque::new(),
            scribe,
            limit,
            at_end: false,
            broken: false,
            deaf: false,
        }
    }

    /// Sends bytes, and reads meanwhile. That the peer takes no more is no failure: what is expected then says more.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Outcome {
        self.scribe.sent(bytes);
        let mut rest = bytes;
        let mut until = Instant::now() + self.limit;
        while !rest.is_empty() && !self.deaf {
            tokio::select! {
                written = self.writer.write(rest) => match written {
                    Ok(count) => {
                        rest = &rest[count..];
                        until = Instant::now() + self.limit;
                    }
                    Err(error) => self.no_more(&error),
                },
                read = self.reader.read(&mut self.piece), if !self.at_end && self.inbox.len() < WAITING => {
                    let count = read.map_err(|error| error.to_string());
                    self.took(count)?;
                }
                () = sleep_until(until.into()) => {
                    let took = humantime::format_duration(self.limit);
                    return Err(deviation("what is sent is read", format!("nothing was read for {took}")));
                }
            }
        }
        Ok(())
    }

    /// Sends as many of the bytes as the peer takes at once or within a time, without reading. Returns how many that were.
    pub(crate) async fn press(&mut self, bytes: &[u8], within: Duration) -> usize {
        self.scribe.sent(bytes);
        let mut rest = bytes;
        while !rest.is_empty() && !self.deaf {
            match tokio::time::timeout(within, self.writer.write(rest)).await {
                Ok(Ok(count)) => rest = &rest[count..],
                Ok(Err(error)) => self.no_more(&error),
                Err(_) => break,
            }
        }
        bytes.len() - rest.len()
    }

    fn no_more(&mut self, error: &std::io::Error) {
        self.deaf = true;
        self.scribe.note(format!("the peer takes no more: {error}"));
    }

    /// Closes our half.
    pub(crate) async fn finish(&mut self) {
        self.scribe.finished();
        _ = self.writer.shutdown().await;
    }

    /// The next record; `None` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Record>, Failure> {
        let until = Instant::now() + self.limit;
        loop {
            if let Some(record) = self.inbox.pop_front() {
                return Ok(Some(record));
            }
            if let Some(garbage) = self.splitter.garbage() {
                return Err(deviation("a record of version 1", hex(garbage)));
            }
            if self.at_end {
                return match self.splitter.part() {
                    [] => Ok(None),
                    part => Err(deviation(
                        "whole records to the end of the connection",
                        format!("the end, inside a record that begins with {}", hex(part)),
                    )),
                };
            }
            tokio::select! {
                read = self.reader.read(&mut self.piece) => {
                    let count = read.map_err(|error| error.to_string());
                    self.took(count)?;
                }
                () = sleep_until(until.into()) => {
                    let waited = humantime::format_duration(self.limit);
                    self.scribe.note(format!("nothing comes for {waited}"));
                    return Err(deviation("an answer, or the end of the connection", format!("nothing for {waited}")));
                }
            }
        }
    }

    /// A record that is here, or comes within a time; `None` if none does, or the connection has ended.
    pub(crate) async fn within(&mut self, time: Duration) -> Option<Record> {
        match tokio::time::timeout(time, self.next()).await {
            Ok(Ok(record)) => record,
            _ => None,
        }
    }

    /// Whether the connection has ended, as far as is known.
    pub(crate) fn has_ended(&self) -> bool {
        self.at_end && self.inbox.is_empty()
    }

    /// Whether it was broken (reset) in place of closed.
    pub(crate) fn was_broken(&self) -> bool {
        self.broken
    }

    fn took(&mut self, read: Result<usize, String>) -> Outcome {
        let count = match read {
            Ok(0) => {
                self.at_end = true;
                self.scribe
                    .note(String::from("the peer closed the connection"));
                return Ok(());
            }
            Ok(count) => count,
            Err(error) => {
                self.at_end = true;
                self.broken = true;
                self.scribe.note(format!("the connection broke: {error}"));
                return Ok(());
            }
        };
        let before = self.inbox.len();
        let (inbox, scribe) = (&mut self.inbox, &self.scribe);
        let was_garbage = self.splitter.garbage().is_some();
        self.splitter.feed(&self.piece[..count], |record| {
            scribe.record(Side::App, &record);
            inbox.push_back(record);
        });
        if let (false, Some(garbage)) = (was_garbage, self.splitter.garbage()) {
            scribe.note(format!("what came is no record: {}", hex(garbage)));
        }
        let records = (self.inbox.len() - before) as u64;
        let came = self.scribe.came(count as u64 + RECORD * records);
        match came > MOST {
            true => Err(deviation("an end", format!("more than {MOST} bytes"))),
            false => Ok(()),
        }
    }
}
