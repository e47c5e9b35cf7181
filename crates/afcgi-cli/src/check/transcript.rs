//! What was said in a case, a bounded part of it.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use afcgi_proto::{Header, RequestId};

use super::raw::{Record, Splitter, hex};
use crate::wire::{Palette, Seen, Side, write_record};

/// Lines that are kept of the beginning of a case, and of its end: what went wrong is often the last that was said.
const KEPT: usize = 60;
/// Bytes of a record's content that are kept.
const CONTENT: usize = 256;

#[derive(Clone, Debug)]
enum Event {
    Record { seen: Seen, header: [u8; 8] },
    Note { at: Duration, text: String },
}

/// The records of a case, and what happened beside.
#[derive(Clone, Debug)]
pub(crate) struct Transcript {
    started: Instant,
    first: Vec<(u32, Event)>,
    last: std::collections::VecDeque<(u32, Event)>,
    left_out: usize,
    connections: u32,
    came: u64,
}

impl Transcript {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            first: Vec::new(),
            last: std::collections::VecDeque::new(),
            left_out: 0,
            connections: 0,
            came: 0,
        }
    }

    fn push(&mut self, connection: u32, event: Event) {
        if self.first.len() < KEPT {
            return self.first.push((connection, event));
        }
        self.last.push_back((connection, event));
        if self.last.len() > KEPT {
            self.last.pop_front();
            self.left_out += 1;
        }
    }

    /// The lines that show it.
    pub(crate) fn lines(&self, palette: Palette) -> Vec<String> {
        let mut lines = Vec::new();
        for event in &self.first {
            self.show(event, palette, &mut lines);
        }
        if self.left_out > 0 {
            lines.push(format!("… {} records more", self.left_out));
        }
        for event in &self.last {
            self.show(event, palette, &mut lines);
        }
        lines
    }

    fn show(&self, (connection, event): &(u32, Event), palette: Palette, lines: &mut Vec<String>) {
        let which = match self.connections {
            0 | 1 => String::new(),
            _ => format!("[{connection}] "),
        };
        let mut out = String::new();
        match event {
            Event::Record { seen, header } => {
                write_record(&mut out, seen, palette, true);
                // Bytes say more than words of a record that is short.
                if !seen.has_pairs() && seen.content.len() <= 8 {
                    let bytes = [&header[..], &seen.content].concat();
                    _ = writeln!(out, "    {}", hex(&bytes));
                }
            }
            Event::Note { at, text } => {
                let (on, off) = (palette.note, format!("{:#}", palette.note));
                _ = writeln!(out, "{on}* {:.6} {text}{off}", at.as_secs_f64());
            }
        }
        lines.extend(out.lines().map(|line| format!("{which}{line}")));
    }
}

/// The part of one connection in the transcript of a case.
#[derive(Debug)]
pub(crate) struct Scribe {
    transcript: Arc<Mutex<Transcript>>,
    connection: u32,
    sent: Splitter,
}

impl Scribe {
    pub(crate) fn new(transcript: &Arc<Mutex<Transcript>>) -> Self {
        let mut scribe = Self {
            transcript: transcript.clone(),
            connection: 0,
            sent: Splitter::default(),
        };
        scribe.connection = scribe.with(|transcript| {
            transcript.connections += 1;
            transcript.connections
        });
        scribe
    }

    fn with<T>(&self, act: impl FnOnce(&mut Transcript) -> T) -> T {
        act(&mut self
            .transcript
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts bytes that came. Returns how many those of all connections are.
    pub(crate) fn came(&self, count: u64) -> u64 {
        self.with(|transcript| {
            transcript.came += count;
            transcript.came
        })
    }

    /// Something that is no record.
    pub(crate) fn note(&self, text: String) {
        self.with(|transcript| {
            let at = transcript.started.elapsed();
            transcript.push(self.connection, Event::Note { at, text });
        });
    }

    /// A record, of one direction.
    pub(crate) fn record(&self, direction: Side, record: &Record) {
        let [_, kind, _, _, length1, length0, padding_length, _] = record.header;
        let header = Header {
            record_type: kind.into(),
            request_id: RequestId::new(record.id()),
            content_length: u16::from_be_bytes([length1, length0]),
            padding_length,
        };
        let kept = record.content.len().min(CONTENT);
        self.with(|transcript| {
            let seen = Seen {
                direction,
                at: transcript.started.elapsed(),
                header,
                content: record.content[..kept].to_vec(),
                before: 0,
            };
            let header = record.header;
            transcript.push(self.connection, Event::Record { seen, header });
        });
    }

    /// Bytes that were sent.
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        if self.sent.garbage().is_some() {
            return;
        }
        let mut sent = std::mem::take(&mut self.sent);
        sent.feed(bytes, |record| self.record(Side::Web, &record));
        if let Some(garbage) = sent.garbage() {
            self.note(format!("sent what is no record: {}", hex(garbage)));
        }
        self.sent = sent;
    }

    /// The end of what is sent.
    pub(crate) fn finished(&self) {
        let part = match self.sent.part() {
            part if part.is_empty() || self.sent.garbage().is_some() => String::new(),
            part => format!(" inside a record, of which this was sent: {}", hex(part)),
        };
        self.note(format!("closed our half{part}"));
    }
}
