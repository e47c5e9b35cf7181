//! What comes on STDOUT: the head, which is looked at, and the body, which goes where it is wanted.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use afcgi_proto::cgi::{Head, HeadLimits};
use http::StatusCode;
use tokio::io::AsyncWriteExt;

use super::arguments::Arguments;
use super::failure::Failure;
use super::link::Clock;
use crate::wire::{Cleaner, escaped};

/// Bytes of the body that JSON holds.
pub(super) const JSON_BODY: usize = 1024 * 1024;

/// A response that comes in.
#[derive(Debug)]
pub(super) struct Response {
    raw: bool,
    include: bool,
    fail: bool,
    head_only: bool,
    /// What came of the head while that is not complete.
    part: Vec<u8>,
    pub(super) head: Option<Answer>,
    /// Bytes of the body.
    pub(super) length: u64,
    /// When the head was complete.
    pub(super) head_at: Option<Duration>,
    /// Bytes that the body may have.
    most: Option<u64>,
    sink: Sink,
}

/// The head.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) reason: String,
    pub(super) fields: Vec<(String, String)>,
}

/// Where the body goes.
#[derive(Debug)]
enum Sink {
    Nowhere,
    Stdout(tokio::io::Stdout, Option<Cleaner>),
    File(String, Option<File>),
    /// So many bytes at most.
    Memory(Vec<u8>, usize),
}

impl Response {
    pub(super) fn new(arguments: &Arguments) -> Self {
        let sink = match &arguments.output {
            _ if arguments.repeat.is_some() => Sink::Nowhere,
            Some(name) if name != "-" => Sink::File(name.clone(), None),
            _ if arguments.json => Sink::Memory(Vec::new(), JSON_BODY),
            _ => {
                let cleaner = io::stdout().is_terminal().then(Cleaner::default);
                Sink::Stdout(tokio::io::stdout(), cleaner)
            }
        };
        Self {
            raw: arguments.raw,
            include: (arguments.include || arguments.head) && !arguments.json,
            fail: arguments.fail,
            head_only: arguments.head,
            part: Vec::new(),
            head: None,
            length: 0,
            head_at: None,
            most: None,
            sink,
        }
    }

    /// All of STDOUT is kept, up to so many bytes, and nothing is shown.
    pub(super) fn kept(most: usize) -> Self {
        Self {
            raw: true,
            ..Self::in_memory(most)
        }
    }

    /// One whose body is kept, and has so many bytes at most.
    pub(super) fn bounded(most: u64) -> Self {
        Self {
            most: Some(most),
            ..Self::in_memory(usize::MAX)
        }
    }

    fn in_memory(most: usize) -> Self {
        Self {
            raw: false,
            include: false,
            fail: false,
            head_only: false,
            part: Vec::new(),
            head: None,
            length: 0,
            head_at: None,
            most: None,
            sink: Sink::Memory(Vec::new(), most),
        }
    }

    /// What was kept.
    pub(super) fn held(&self) -> &[u8] {
        match &self.sink {
            Sink::Memory(held, _) => held,
            Sink::Nowhere | Sink::Stdout(..) | Sink::File(..) => &[],
        }
    }

    /// What came of STDOUT.
    pub(super) async fn push(&mut self, bytes: &[u8], clock: &Clock) -> Result<(), Failure> {
        if self.raw || self.head.is_some() {
            return self.body(bytes, clock).await;
        }
        self.part.extend_from_slice(bytes);
        let limits = HeadLimits::default();
        // A head is complete with the end of a line. To look at it more often would cost the square of its length.
        if !bytes.contains(&b'\n') && self.part.len() < limits.bytes {
            return Ok(());
        }
        let part = std::mem::take(&mut self.part);
        match Head::parse(&part, limits).map_err(Failure::Head)? {
            Some(head) => {
                self.head_at = Some(clock.at());
                let answer = Answer::of(&head);
                let is_error = answer.status >= 400;
                if self.fail && is_error {
                    self.sink = Sink::Nowhere;
                } else if self.include {
                    self.write(answer.as_text().as_bytes(), clock).await?;
                }
                self.head = Some(answer);
                self.body(&part[head.length..], clock).await
            }
            None => {
                self.part = part;
                Ok(())
            }
        }
    }

    async fn body(&mut self, bytes: &[u8], clock: &Clock) -> Result<(), Failure> {
        self.length += bytes.len() as u64;
        if let Some(most) = self.most.filter(|&most| self.length > most) {
            return Err(Failure::TooLong(most));
        }
        // An application may answer HEAD with a body, which web servers drop.
        match self.head_only {
            true => Ok(()),
            false => self.write(bytes, clock).await,
        }
    }

    async fn write(&mut self, bytes: &[u8], clock: &Clock) -> Result<(), Failure> {
        match &mut self.sink {
            Sink::Nowhere => Ok(()),
            Sink::Memory(held, most) => {
                let room = most.saturating_sub(held.len());
                held.extend(bytes.iter().take(room));
                Ok(())
            }
            Sink::File(name, file) => opened(name, file)
                .and_then(|file| file.write_all(bytes))
                .map_err(Failure::Write),
            Sink::Stdout(out, cleaner) => {
                let text;
                let bytes = match cleaner {
                    Some(cleaner) => {
                        text = cleaner.clean(bytes);
                        text.as_bytes()
                    }
                    None => bytes,
                };
                let write = async {
                    out.write_all(bytes).await?;
                    out.flush().await
                };
                let written = match clock.end() {
                    Some(end) => tokio::time::timeout_at(end.into(), write).await,
                    None => Ok(write.await),
                };
                let written = written.map_err(|_| clock.over())?;
                written.map_err(Failure::Write)
            }
        }
    }

    /// Nothing more comes: says whether a head did.
    pub(super) async fn finish(&mut self, clock: &Clock) -> Result<(), Failure> {
        if let Sink::Stdout(_, Some(cleaner)) = &mut self.sink {
            let rest = cleaner.finish();
            self.write(rest.as_bytes(), clock).await?;
        }
        if !self.raw && self.head.is_none() {
            return Err(Failure::NoHead);
        }
        if let Sink::File(name, file) = &mut self.sink {
            // A body of nothing is a file of nothing.
            opened(name, file).map_err(Failure::Write)?;
        }
        match &self.head {
            Some(head) if self.fail && head.status >= 400 => Err(Failure::Status(head.status)),
            _ => Ok(()),
        }
    }

    /// The body that JSON shows, if it is text.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.sink {
            Sink::Memory(held, most) => match std::str::from_utf8(held) {
                Ok(text) => Some(text),
                // The last character was cut.
                Err(error) if held.len() == *most && error.error_len().is_none() => {
                    std::str::from_utf8(&held[..error.valid_up_to()]).ok()
                }
                Err(_) => None,
            },
            Sink::Nowhere | Sink::Stdout(..) | Sink::File(..) => None,
        }
    }
}

fn opened<'a>(name: &str, file: &'a mut Option<File>) -> io::Result<&'a mut File> {
    match file {
        Some(file) => Ok(file),
        None => Ok(file.insert(File::create(name)?)),
    }
}

impl Answer {
    fn of(head: &Head<'_>) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let known = StatusCode::from_u16(head.status).ok();
        let known = known.and_then(|status| status.canonical_reason());
        Self {
            status: head.status,
            reason: match head.reason {
                [] => known.unwrap_or_default().to_owned(),
                reason => text(reason),
            },
            fields: head
                .fields
                .iter()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
        }
    }

    /// As CGI writes it.
    fn as_text(&self) -> String {
        let mut out = format!(
            "Status: {} {}\r\n",
            self.status,
            escaped(self.reason.as_bytes())
        );
        for (name, value) in &self.fields {
            out += &format!("{name}: {}\r\n", escaped(value.as_bytes()));
        }
        out + "\r\n"
    }
}
