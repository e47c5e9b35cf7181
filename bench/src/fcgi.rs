//! The FastCGI generator: connections × requests multiplexed on each, closed loop, one thread.
//!
//! Every answer is checked: an id that is active (R-11), END_REQUEST once with both statuses zero (R-51), STDOUT ended
//! at most once and complete, nothing on STDERR, status 200 and the expected body (R-58). An answer in one STDOUT record
//! that equals the last good one byte for byte needs no parsing, so that checking costs little.

use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::load::{Expect, Limit, LoadError, Output, Stats, Stream, Target};
use crate::request::Request;

const READ: usize = 256 * 1024;
const LARGEST_RECORD: usize = 8 + 65_535 + 255;

/// What is sent, where, and how much of it at once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The application.
    pub target: Target,
    /// Connections, all made at the start.
    pub connections: usize,
    /// Requests in flight on each connection, 1 to 65,535; ids run from 1 to this number (R-10).
    pub requests: u16,
    /// What is sent for each.
    pub request: Request,
    /// What must come back.
    pub expect: Expect,
    /// How long to wait without any answer before the run fails.
    pub stall: Duration,
}

/// A running load. Dropping it closes its connections.
#[derive(Debug)]
pub struct Load {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    shared: Shared,
    stall: Duration,
    last_progress: (Instant, u64),
}

#[derive(Debug)]
struct Connection {
    stream: Stream,
    partial: Vec<u8>,
    output: Output,
    slots: Vec<Slot>,
    active: usize,
}

#[derive(Debug, Default)]
struct Slot {
    active: bool,
    started: Duration,
    answer: Answer,
    /// STDOUT so far, while it is not the template.
    content: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    Nothing,
    /// One record, equal to the last good answer.
    Template,
    /// In `content`.
    Kept,
    /// STDOUT has ended; what came is as the flag says.
    Ended { template: bool },
}

/// What every connection needs while it works.
#[derive(Debug)]
struct Shared {
    request: Request,
    expect: Expect,
    template: Vec<u8>,
    stats: Stats,
    reissue: bool,
    epoch: Instant,
    now: Duration,
    buffer: Vec<u8>,
}

impl Load {
    /// Connects; nothing is sent before [`Load::run`].
    pub fn connect(config: Config) -> Result<Self, LoadError> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(config.connections);
        for index in 0..config.connections {
            let stream = Stream::connect(&config.target, poll.registry(), Token(index))?;
            let slots = (0..config.requests).map(|_| Slot::default()).collect();
            connections.push(Connection {
                stream,
                partial: Vec::new(),
                output: Output::default(),
                slots,
                active: 0,
            });
        }
        let shared = Shared {
            request: config.request,
            expect: config.expect,
            template: Vec::new(),
            stats: Stats::default(),
            reissue: true,
            epoch: Instant::now(),
            now: Duration::ZERO,
            buffer: vec![0; READ + LARGEST_RECORD],
        };
        let last_progress = (Instant::now(), 0);
        let events = Events::with_capacity(1024);
        Ok(Self {
            poll,
            events,
            connections,
            shared,
            stall: config.stall,
            last_progress,
        })
    }

    /// Counters since the start or the last reset.
    pub fn stats(&mut self) -> &mut Stats {
        &mut self.shared.stats
    }

    /// Requests begun and not ended.
    pub fn in_flight(&self) -> usize {
        self.connections
            .iter()
            .map(|connection| connection.active)
            .sum()
    }

    /// Whether every byte has been handed to the kernel.
    pub fn sent(&self) -> bool {
        self.connections
            .iter()
            .all(|connection| connection.output.is_empty())
    }

    /// Fills every free place with a request, then answers each ending with a new beginning, until a bound is reached.
    /// Returns with requests in flight; may be called again.
    pub fn run(&mut self, limit: Limit) -> Result<(), LoadError> {
        self.shared.reissue = true;
        self.begin_all()?;
        self.turn_until(limit)
    }

    /// Fills every free place with a request, and sends as much as the sockets take.
    pub fn begin_all(&mut self) -> Result<(), LoadError> {
        self.shared.now = self.shared.epoch.elapsed();
        self.last_progress = (Instant::now(), self.shared.stats.completed);
        for connection in &mut self.connections {
            for index in 0..connection.slots.len() {
                connection.begin(index, &mut self.shared);
            }
            connection
                .output
                .flush(&mut connection.stream, &mut self.shared.stats)?;
        }
        Ok(())
    }

    /// Begins nothing; sends what is waiting and counts what comes, within the limit.
    pub fn wait(&mut self, limit: Limit) -> Result<(), LoadError> {
        self.shared.reissue = false;
        self.turn_until(limit)
    }

    /// Begins nothing more; returns when nothing is in flight, or at the limit with an error if something is.
    pub fn drain(&mut self, time: Duration) -> Result<(), LoadError> {
        let requests = self.in_flight() as u64;
        if requests > 0 {
            self.wait(Limit { time, requests })?;
        }
        match self.in_flight() {
            0 => Ok(()),
            unanswered => Err(LoadError::Stalled { unanswered }),
        }
    }

    fn turn_until(&mut self, limit: Limit) -> Result<(), LoadError> {
        let end = Instant::now() + limit.time;
        let enough = self.shared.stats.completed.saturating_add(limit.requests);
        loop {
            let now = Instant::now();
            if now >= end || self.shared.stats.completed >= enough {
                return Ok(());
            }
            if self.last_progress.1 != self.shared.stats.completed {
                self.last_progress = (now, self.shared.stats.completed);
            } else if now - self.last_progress.0 > self.stall {
                return Err(LoadError::Stalled {
                    unanswered: self.in_flight(),
                });
            }
            match self.poll.poll(
                &mut self.events,
                Some((end - now).min(Duration::from_millis(100))),
            ) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &self.events {
                let Some(connection) = self.connections.get_mut(event.token().0) else {
                    continue;
                };
                if event.is_writable() {
                    connection
                        .output
                        .flush(&mut connection.stream, &mut self.shared.stats)?;
                }
                if event.is_readable() || event.is_read_closed() {
                    connection.receive(&mut self.shared)?;
                }
            }
        }
    }
}

impl Connection {
    fn begin(&mut self, index: usize, shared: &mut Shared) {
        let Some(slot) = self.slots.get_mut(index).filter(|slot| !slot.active) else {
            return;
        };
        slot.active = true;
        slot.started = shared.now;
        slot.answer = Answer::Nothing;
        slot.content.clear();
        self.active += 1;
        // The number of slots is a u16, so that index + 1 is an id.
        shared
            .request
            .write((index + 1) as u16, &mut self.output.bytes);
    }

    fn receive(&mut self, shared: &mut Shared) -> Result<(), LoadError> {
        let mut buffer = std::mem::take(&mut shared.buffer);
        let result = self.receive_with(&mut buffer, shared);
        shared.buffer = buffer;
        result
    }

    fn receive_with(&mut self, buffer: &mut [u8], shared: &mut Shared) -> Result<(), LoadError> {
        loop {
            let held = self.partial.len();
            buffer[..held].copy_from_slice(&self.partial);
            let space = buffer.len() - held;
            let got = match self.stream.read(&mut buffer[held..]) {
                Ok(0) => {
                    return Err(LoadError::Closed {
                        unanswered: self.active,
                    });
                }
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            shared.stats.reads += 1;
            shared.stats.bytes_in += got as u64;
            shared.now = shared.epoch.elapsed();
            let filled = &buffer[..held + got];
            let taken = self.records(filled, shared)?;
            self.partial.clear();
            self.partial.extend_from_slice(&filled[taken..]);
            self.output.flush(&mut self.stream, &mut shared.stats)?;
            if got < space {
                return Ok(());
            }
        }
    }

    /// Handles the complete records at the start of `input`; returns their length.
    fn records(&mut self, input: &[u8], shared: &mut Shared) -> Result<usize, LoadError> {
        let mut at = 0;
        while let Some(&[version, kind, id1, id0, length1, length0, padding, _]) =
            input[at..].first_chunk()
        {
            if version != 1 {
                return Err(LoadError::Protocol(format!("version {version}")));
            }
            let length = usize::from(u16::from_be_bytes([length1, length0]));
            let end = at + 8 + length + usize::from(padding);
            if end > input.len() {
                break;
            }
            let content = &input[at + 8..at + 8 + length];
            let id = u16::from_be_bytes([id1, id0]);
            self.record(kind, id, content, shared)?;
            at = end;
        }
        Ok(at)
    }

    fn record(
        &mut self,
        kind: u8,
        id: u16,
        content: &[u8],
        shared: &mut Shared,
    ) -> Result<(), LoadError> {
        let index = usize::from(id).wrapping_sub(1);
        let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.active) else {
            return Err(LoadError::Protocol(format!(
                "a record of type {kind} for id {id}, which is not active"
            )));
        };
        match kind {
            6 => slot
                .stdout(content, &shared.template)
                .map_err(LoadError::Protocol),
            7 if content.is_empty() => Ok(()),
            7 => Err(LoadError::Answer(format!(
                "STDERR: {}",
                String::from_utf8_lossy(content).trim_end()
            ))),
            3 => {
                if content != [0; 8] {
                    return Err(LoadError::Answer(format!("END_REQUEST with {content:?}")));
                }
                match slot.answer {
                    Answer::Template | Answer::Ended { template: true } => {}
                    _ => {
                        let (status, body) = head(&slot.content)?;
                        shared.expect.check(status, body)?;
                        shared.template.clone_from(&slot.content);
                    }
                }
                slot.active = false;
                self.active -= 1;
                shared.stats.completed += 1;
                let latency = shared.now.saturating_sub(slot.started).as_nanos();
                shared
                    .stats
                    .latency
                    .saturating_record(u64::try_from(latency).unwrap_or(u64::MAX).max(1));
                if shared.reissue {
                    self.begin(index, shared);
                }
                Ok(())
            }
            _ => Err(LoadError::Protocol(format!(
                "a record of type {kind} for id {id}"
            ))),
        }
    }
}

impl Slot {
    fn stdout(&mut self, content: &[u8], template: &[u8]) -> Result<(), String> {
        match self.answer {
            Answer::Ended { .. } => return Err("STDOUT after its end".to_owned()),
            answer if content.is_empty() => {
                self.answer = Answer::Ended {
                    template: answer == Answer::Template,
                };
                return Ok(());
            }
            Answer::Nothing if content == template => {
                self.answer = Answer::Template;
                return Ok(());
            }
            // The template was taken for the whole answer, and more has come.
            Answer::Template => self.content.extend_from_slice(template),
            Answer::Nothing | Answer::Kept => {}
        }
        self.answer = Answer::Kept;
        self.content.extend_from_slice(content);
        Ok(())
    }
}

/// The status and the body of a CGI response (R-58).
fn head(answer: &[u8]) -> Result<(u16, &[u8]), LoadError> {
    let mut rest = answer;
    let mut status = 200;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        if line.is_empty() {
            return Ok((status, rest));
        }
        if line
            .get(..7)
            .is_some_and(|name| name.eq_ignore_ascii_case(b"status:"))
        {
            let code = String::from_utf8_lossy(&line[7..]);
            status = code
                .trim()
                .get(..3)
                .and_then(|code| code.parse().ok())
                .ok_or_else(|| LoadError::Answer(format!("Status:{code}")))?;
        }
    }
    Err(LoadError::Answer(format!(
        "{} bytes without the end of a head",
        answer.len()
    )))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn record(kind: u8, id: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1, kind, 0, id, 0, content.len() as u8, 0, 0];
        bytes.extend_from_slice(content);
        bytes
    }

    /// Serves one connection: reads two requests, gives back these bytes in pieces of `piece`, waits for the close.
    fn play(answer: Vec<u8>, piece: usize) -> Result<u64, LoadError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = Config {
            target: Target::Tcp(listener.local_addr().unwrap()),
            connections: 1,
            requests: 2,
            request: Request::hello("/", ""),
            expect: Expect::Body(b"ok".to_vec()),
            stall: Duration::from_millis(500),
        };
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut requests = [0; 2 * crate::request::REQUEST_BYTES];
            stream.read_exact(&mut requests).unwrap();
            for piece in answer.chunks(piece) {
                if stream.write_all(piece).is_err() {
                    return;
                }
                std::thread::yield_now();
            }
            let _ = stream.read(&mut [0]);
        });
        let mut load = Load::connect(config).unwrap();
        let result = load
            .begin_all()
            .and_then(|()| load.drain(Duration::from_secs(10)));
        let completed = load.stats().completed;
        drop(load);
        server.join().unwrap();
        result.map(|()| completed)
    }

    fn good(id: u8) -> Vec<u8> {
        [
            record(6, id, b"Status: 200 OK\r\n\r\nok"),
            record(6, id, b""),
            record(3, id, &[0; 8]),
        ]
        .concat()
    }

    #[test]
    fn answers_in_any_pieces_and_order_are_taken() {
        for piece in [1, 2, 7, 8, 9, 1000] {
            assert_eq!(
                play([good(2), good(1)].concat(), piece).unwrap(),
                2,
                "in pieces of {piece}"
            );
        }
        let cut = [
            record(6, 1, b"X: y\n"),
            record(6, 2, b"A: b\n\no"),
            record(6, 1, b"\nok"),
            record(3, 1, &[0; 8]),
            record(6, 2, b"k"),
            record(3, 2, &[0; 8]),
        ];
        assert_eq!(play(cut.concat(), 1000).unwrap(), 2);
    }

    #[test]
    fn an_answer_that_begins_like_the_template_is_not_taken_for_it() {
        let longer = [
            record(6, 2, b"Status: 200 OK\r\n\r\nok"),
            record(6, 2, b"!"),
            record(3, 2, &[0; 8]),
        ]
        .concat();
        assert!(matches!(
            play([good(1), longer].concat(), 1000),
            Err(LoadError::Answer(_))
        ));
    }

    #[test]
    fn wrong_answers_fail_the_run() {
        let cases: [(&str, Vec<u8>); 9] = [
            (
                "body",
                [record(6, 1, b"\nno"), record(3, 1, &[0; 8])].concat(),
            ),
            (
                "no head",
                [record(6, 1, b"ok"), record(3, 1, &[0; 8])].concat(),
            ),
            (
                "status",
                [record(6, 1, b"Status: 500\n\nok"), record(3, 1, &[0; 8])].concat(),
            ),
            (
                "application status",
                [
                    record(6, 1, b"\nok"),
                    record(3, 1, &[0, 0, 0, 1, 0, 0, 0, 0]),
                ]
                .concat(),
            ),
            ("stderr", record(7, 1, b"oops")),
            (
                "END_REQUEST twice",
                [good(1), record(3, 1, &[0; 8])].concat(),
            ),
            ("unknown id", record(6, 3, b"\nok")),
            ("version", vec![2, 6, 0, 1, 0, 0, 0, 0]),
            (
                "STDOUT after its end",
                [record(6, 1, b""), record(6, 1, b"\nok")].concat(),
            ),
        ];
        for (name, answer) in cases {
            assert!(
                matches!(
                    play(answer, 1000),
                    Err(LoadError::Answer(_) | LoadError::Protocol(_))
                ),
                "{name}"
            );
        }
    }

    #[test]
    fn silence_is_a_stall() {
        assert!(matches!(
            play(good(1), 1000),
            Err(LoadError::Stalled { unanswered: 1 })
        ));
    }
}
