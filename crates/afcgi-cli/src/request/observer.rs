//! Who watches a request: what `-v` and `--json` show of its records, and the application's STDERR.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use afcgi_proto::{RecordType, RequestId};
use anstream::{AutoStream, ColorChoice};
use serde::Serialize;

use super::arguments::Arguments;
use crate::wire::{Cleaner, Palette, Seen, Side, describe, record_name, write_record};

/// Bytes of STDERR that are kept, for explanations and JSON.
const STDERR_KEPT: usize = 16 * 1024;
/// Records that are kept for JSON.
const RECORDS_KEPT: usize = 1000;

/// Sees records and STDERR of one request at a time.
#[derive(Debug)]
pub(super) struct Observer {
    verbose: bool,
    keeps: bool,
    /// Nothing is said: what is on STDERR is kept alone.
    silent: bool,
    palette: Palette,
    /// In front of each line, where several requests go on at a time.
    label: String,
    cleaner: Option<Cleaner>,
    /// Whether the application's last line on STDERR has not ended.
    inside_line: bool,
    pub(super) stderr: Vec<u8>,
    pub(super) stderr_bytes: u64,
    pub(super) records: Vec<Record>,
    pub(super) records_seen: u64,
}

/// A record in JSON.
#[derive(Debug, Serialize)]
pub(super) struct Record {
    direction: &'static str,
    at: f64,
    r#type: String,
    id: u16,
    length: u16,
    padding: u8,
    #[serde(skip_serializing_if = "String::is_empty")]
    says: String,
}

impl Observer {
    /// `number`: which of several that watch at a time.
    pub(super) fn new(arguments: &Arguments, number: Option<u32>) -> Self {
        let colours = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
        Self {
            verbose: arguments.verbose,
            keeps: arguments.json && arguments.repeat.is_none(),
            silent: false,
            palette: Palette::new(colours),
            label: number.map_or_else(String::new, |number| format!("[{number}] ")),
            cleaner: io::stderr().is_terminal().then(Cleaner::default),
            inside_line: false,
            stderr: Vec::new(),
            stderr_bytes: 0,
            records: Vec::new(),
            records_seen: 0,
        }
    }

    /// One that says nothing.
    pub(super) fn silent(arguments: &Arguments) -> Self {
        Self {
            silent: true,
            ..Self::new(arguments, None)
        }
    }

    /// A record went by.
    pub(super) fn record(&mut self, seen: Seen) {
        self.records_seen += 1;
        if self.verbose {
            let mut lines = String::new();
            // What STDERR says is printed anyway.
            let with_content = seen.header.record_type != RecordType::Stderr;
            write_record(&mut lines, &seen, self.palette, with_content);
            self.print(&lines);
        }
        if self.keeps && self.records.len() < RECORDS_KEPT {
            self.records.push(Record {
                direction: match seen.direction {
                    Side::Web => "sent",
                    Side::App => "received",
                },
                at: seen.at.as_secs_f64(),
                r#type: record_name(seen.header.record_type).into_owned(),
                id: seen.header.request_id.map_or(0, RequestId::get),
                length: seen.header.content_length,
                padding: seen.header.padding_length,
                says: describe(&seen),
            });
        }
    }

    /// The application wrote to STDERR.
    pub(super) fn stderr(&mut self, bytes: &[u8]) {
        self.stderr_bytes += bytes.len() as u64;
        let room = STDERR_KEPT.saturating_sub(self.stderr.len());
        self.stderr.extend(bytes.iter().take(room));
        if self.silent {
            return;
        }
        self.inside_line = bytes.last().is_some_and(|&last| last != b'\n');
        let mut out = io::stderr().lock();
        // Where nobody hears it, it is not said.
        _ = match &mut self.cleaner {
            Some(cleaner) => out.write_all(cleaner.clean(bytes).as_bytes()),
            None => out.write_all(bytes),
        };
    }

    /// Something happened that is no record.
    pub(super) fn note(&mut self, at: Duration, text: &str) {
        if self.verbose {
            let style = self.palette.note;
            let line = format!("{style}* {:.6} {text}{style:#}\n", at.as_secs_f64());
            self.print(&line);
        }
    }

    /// Lines for STDERR.
    pub(super) fn print(&mut self, lines: &str) {
        if self.silent {
            return;
        }
        let mut text = String::new();
        if std::mem::take(&mut self.inside_line) {
            text.push('\n');
        }
        for line in lines.split_inclusive('\n') {
            text.push_str(&self.label);
            text.push_str(line);
        }
        _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// A message of the program itself, which fits on a line.
    pub(super) fn say(&mut self, text: &str, bad: bool) {
        let style = match bad {
            true => self.palette.bad,
            false => self.palette.note,
        };
        self.print(&format!("{style}afcgi request:{style:#} {text}\n"));
    }

    /// The body goes on. On a terminal it begins a line of its own.
    pub(super) fn make_way(&mut self) {
        if self.cleaner.is_some() {
            self.print("");
        }
    }

    /// The request is over: ends the line on STDERR that the application has not ended. PHP ends none.
    pub(super) fn end(&mut self) {
        if let Some(cleaner) = &mut self.cleaner {
            let rest = cleaner.finish();
            _ = io::stderr().lock().write_all(rest.as_bytes());
        }
        self.print("");
    }

    /// Forgets one request before the next.
    pub(super) fn begin(&mut self) {
        self.stderr.clear();
        self.stderr_bytes = 0;
    }
}
