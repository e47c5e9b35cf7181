//! Requests out of a recording, with what was answered.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use afcgi_proto::reader::Reader;
use afcgi_proto::record::BODY_LEN;
use afcgi_proto::{BeginRequest, EndRequest, RecordType, Role};

use crate::capture::{self, Found};
use crate::wire::Side;

/// Requests, and bytes of them with their answers, that are taken of a recording.
const REQUESTS: usize = 100_000;
const BYTES: usize = 256 * 1024 * 1024;

/// A request as it was.
#[derive(Debug)]
pub(super) struct Recorded {
    began: Duration,
    pub(super) role: Role,
    pub(super) params: Vec<u8>,
    pub(super) stdin: Vec<u8>,
    pub(super) data: Vec<u8>,
    pub(super) stdout: Vec<u8>,
    pub(super) end: EndRequest,
}

/// What is in a recording.
#[derive(Debug, Default)]
pub(super) struct Recording {
    /// In the order in which they began.
    pub(super) requests: Vec<Recorded>,
    /// Those that were not seen whole, or were given up.
    pub(super) partial: u64,
    /// Those that there was no room for.
    pub(super) left_out: u64,
}

/// A request that goes on.
#[derive(Debug)]
struct Open {
    recorded: Recorded,
    /// PARAMS and STDIN have ended.
    params_ended: bool,
    stdin_ended: bool,
    aborted: bool,
}

#[derive(Debug, Default)]
struct Connection {
    readers: [Reader; 2],
    bodies: [Vec<u8>; 2],
    open: HashMap<u16, Open>,
    broken: bool,
}

/// Reads all of it.
pub(super) fn read(name: &str) -> io::Result<Recording> {
    read_within(name, REQUESTS, BYTES)
}

fn read_within(name: &str, requests: usize, bytes: usize) -> io::Result<Recording> {
    let file = crate::tap::open(name)?;
    let mut recording = Recording::default();
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut room = bytes;
    let mut reader = capture::Reader::new(None);
    let read = reader.read(file, |number, at, found| {
        match found {
            Found::Open => {
                connections.insert(number, Connection::default());
            }
            Found::Bytes(side, piece) => {
                if let Some(connection) = connections.get_mut(&number) {
                    connection.take(side, at, piece, &mut room, requests, &mut recording);
                }
            }
            Found::Close(Side::Web, _) => {}
            Found::Close(Side::App, _) | Found::Gap | Found::End => {
                if let Some(connection) = connections.remove(&number) {
                    recording.partial += connection.open.len() as u64;
                }
            }
        }
        Ok(())
    });
    read.map_err(|error| io::Error::new(error.kind(), format!("cannot use {name}: {error}")))?;
    recording.requests.sort_by_key(|recorded| recorded.began);
    Ok(recording)
}

impl Connection {
    fn take(
        &mut self,
        side: Side,
        at: Duration,
        mut bytes: &[u8],
        room: &mut usize,
        most: usize,
        recording: &mut Recording,
    ) {
        while !self.broken {
            let fragment = match self.readers[side as usize].read(&mut bytes) {
                Ok(Some(fragment)) => fragment,
                Ok(None) => return,
                Err(_) => {
                    self.broken = true;
                    recording.partial += self.open.drain().count() as u64;
                    return;
                }
            };
            let Some(id) = fragment.header.request_id else {
                continue;
            };
            let kind = fragment.header.record_type;
            match (side, kind) {
                (Side::Web, RecordType::BeginRequest) | (Side::App, RecordType::EndRequest) => {
                    let body = &mut self.bodies[side as usize];
                    if fragment.first {
                        body.clear();
                    }
                    let missing = BODY_LEN.saturating_sub(body.len());
                    body.extend(fragment.content.iter().take(missing));
                    let Ok(body) = <[u8; BODY_LEN]>::try_from(body.as_slice()) else {
                        continue;
                    };
                    if !fragment.last {
                        continue;
                    }
                    if kind == RecordType::BeginRequest {
                        if recording.requests.len() + self.open.len() < most {
                            let role = BeginRequest::parse(&body).role;
                            self.open.insert(id.get(), Open::new(at, role));
                        } else {
                            recording.left_out += 1;
                        }
                    } else if let Some(open) = self.open.remove(&id.get()) {
                        match open.params_ended && !open.aborted && open.is_whole() {
                            true => recording.requests.push(Recorded {
                                end: EndRequest::parse(&body),
                                ..open.recorded
                            }),
                            false => recording.partial += 1,
                        }
                    }
                }
                (Side::Web, RecordType::AbortRequest) => {
                    if let Some(open) = self.open.get_mut(&id.get()) {
                        open.aborted = true;
                    }
                }
                (Side::Web, RecordType::Params | RecordType::Stdin | RecordType::Data)
                | (Side::App, RecordType::Stdout) => {
                    let Some(open) = self.open.get_mut(&id.get()) else {
                        continue;
                    };
                    let recorded = &mut open.recorded;
                    let held = match kind {
                        RecordType::Params => &mut recorded.params,
                        RecordType::Stdin => &mut recorded.stdin,
                        RecordType::Data => &mut recorded.data,
                        _ => &mut recorded.stdout,
                    };
                    match room.checked_sub(fragment.content.len()) {
                        Some(left) => *room = left,
                        None => {
                            recording.left_out += 1;
                            self.open.remove(&id.get());
                            continue;
                        }
                    }
                    held.extend_from_slice(fragment.content);
                    let is_end = fragment.is_empty_record();
                    open.params_ended |= is_end && kind == RecordType::Params;
                    open.stdin_ended |= is_end && kind == RecordType::Stdin;
                }
                _ => {}
            }
        }
    }
}

impl Open {
    fn new(began: Duration, role: Role) -> Self {
        Self {
            recorded: Recorded {
                began,
                role,
                params: Vec::new(),
                stdin: Vec::new(),
                data: Vec::new(),
                stdout: Vec::new(),
                end: EndRequest::parse(&[0; BODY_LEN]),
            },
            params_ended: false,
            stdin_ended: false,
            aborted: false,
        }
    }

    /// An application may answer before it has all of the body: that body is not known then.
    fn is_whole(&self) -> bool {
        self.stdin_ended || self.recorded.stdin.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Stream, header};

    fn record(kind: u8, id: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1, kind, 0, id, 0, content.len() as u8, 0, 0];
        bytes.extend(content);
        bytes
    }

    fn written(says: &[(Side, Vec<u8>)]) -> tempfile::NamedTempFile {
        let mut bytes = header("", "");
        let at = Duration::from_secs(1);
        let address = |port| ([127, 0, 0, 1], port).into();
        let mut stream = Stream::open(address(1), address(2), at, &mut bytes);
        for (number, (side, content)) in says.iter().enumerate() {
            let at = Duration::from_secs(number as u64 + 2);
            stream.data(*side, at, content, &mut bytes);
        }
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        file
    }

    #[test]
    fn what_is_whole_is_taken_and_bounds_hold() {
        let begin = |id| record(1, id, &[0, 1, 0, 0, 0, 0, 0, 0]);
        let params = |id| [record(4, id, b"\x01\x01ab"), record(4, id, b"")].concat();
        let end = |id| [record(6, id, b"\nbody"), record(3, id, &[0; 8])].concat();
        let file = written(&[
            (
                Side::Web,
                [begin(2), params(2), record(5, 2, b"in"), record(5, 2, b"")].concat(),
            ),
            (Side::Web, [begin(1), params(1), record(5, 1, b"")].concat()),
            (Side::App, end(1)),
            (Side::App, end(2)),
            // Given up, cut off, and never ended.
            (
                Side::Web,
                [begin(3), params(3), record(2, 3, b""), begin(4), params(4)].concat(),
            ),
            (Side::App, end(3)),
            (
                Side::Web,
                [begin(5), params(5), record(5, 5, b"i")].concat(),
            ),
            (Side::App, end(5)),
        ]);
        let name = file.path().to_str().expect("a name");
        let recording = read(name).expect("a recording");
        let bodies: Vec<_> = recording
            .requests
            .iter()
            .map(|r| r.stdin.as_slice())
            .collect();
        assert_eq!(bodies, [&b"in"[..], b""]);
        assert_eq!((recording.partial, recording.left_out), (3, 0));
        assert_eq!(recording.requests[0].stdout, b"\nbody");
        let few = read_within(name, 1, BYTES).expect("a recording");
        assert_eq!((few.requests.len(), few.left_out > 0), (1, true));
        let short = read_within(name, REQUESTS, 15).expect("a recording");
        assert_eq!((short.requests.len(), short.left_out > 0), (1, true));
        assert!(read("/none").is_err());
    }
}
