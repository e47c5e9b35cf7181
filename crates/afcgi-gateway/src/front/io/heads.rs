//! The heads of requests by HTTP/1.1 as they come, of which hyper tells too little: it drops a Content-Length beside a
//! Transfer-Encoding (RFC 9112 section 6.1) without a word, and what it refuses by itself nobody hears of.
//!
//! hyper decides what a request is. This reads along, to say what else stood in a head: where it loses its way, nothing is taken for
//! another request because of that.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::StatusCode;

/// Bytes of a line that are looked at.
const LINE: usize = 1024;
/// First lines of requests that hyper has not come to. A client that sends more at once has no line in the log for those that are none.
const AHEAD: usize = 32;
/// Bytes of a URI that hyper takes.
const URI: usize = 65_534;

/// Among the extensions of a request: both a length and a transfer coding were given for its body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unclear;

/// What is known of the heads on a connection.
#[derive(Debug, Default)]
pub(crate) struct Heads(Mutex<Reader>);

impl Heads {
    /// Looks at what was read.
    pub(crate) fn read(&self, bytes: &[u8]) {
        self.lock().read(bytes);
    }

    /// hyper has come to the next request: tells whether the length of its body is not certain.
    pub(crate) fn take(&self) -> Option<Unclear> {
        let mut reader = self.lock();
        let number = reader.taken;
        reader.taken += 1;
        if reader.first_lines.pop_front().is_none() {
            reader.skipped = reader.skipped.saturating_sub(1);
        }
        (reader.unclear == Some(number)).then_some(Unclear)
    }

    /// What comes now are no requests.
    pub(crate) fn stop(&self) {
        *self.lock() = Reader {
            stage: Stage::Lost,
            ..Reader::default()
        };
    }

    /// What hyper has answered an error with, and the first line of the request. `None`: it has answered nothing.
    pub(crate) fn refused(&self, error: &hyper::Error) -> Option<(StatusCode, Vec<u8>)> {
        let mut reader = self.lock();
        let long = reader.length > URI;
        let line = match reader.first_lines.pop_front() {
            Some(line) => line,
            // It was not read to its end.
            None if reader.skipped == 0 => std::mem::take(&mut reader.part),
            None => Vec::new(),
        };
        let status = match () {
            () if error.is_parse_too_large() && long => StatusCode::URI_TOO_LONG,
            () if error.is_parse_too_large() => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            () if error.is_parse() && !error.is_parse_version_h2() => StatusCode::BAD_REQUEST,
            () => return None,
        };
        Some((status, line))
    }

    fn lock(&self) -> MutexGuard<'_, Reader> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// ```text
///            empty line                 ┌── Body ──┐ all of it
///  First ──> Field ──────┬──────────────┴──────────┴──> First
///                        └──> Size ──> Data ──> DataEnd ──> Size ──> Trailer ──> First
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    First,
    Field,
    Body(u64),
    Size,
    Data(u64),
    DataEnd,
    Trailer,
    /// It is not known what comes.
    Lost,
}

#[derive(Debug, Default)]
struct Reader {
    stage: Stage,
    /// The beginning of a line.
    part: Vec<u8>,
    /// Bytes of the first line of the last request.
    length: usize,
    has_coding: bool,
    body: Option<u64>,
    /// Requests that were seen, and those that hyper has come to.
    seen: u64,
    taken: u64,
    first_lines: VecDeque<Vec<u8>>,
    /// Requests behind those, of which there is no first line.
    skipped: usize,
    /// The first one whose length is not certain: hyper closes the connection behind it.
    unclear: Option<u64>,
}

impl Reader {
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let left = match &mut self.stage {
                Stage::Lost => return,
                Stage::Body(left) | Stage::Data(left) => left,
                _ => {
                    bytes = self.line(bytes);
                    continue;
                }
            };
            let count = usize::try_from(*left)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            *left -= count as u64;
            bytes = bytes.get(count..).unwrap_or_default();
            self.stage = match self.stage {
                Stage::Body(0) => Stage::First,
                Stage::Data(0) => Stage::DataEnd,
                other => other,
            };
        }
    }

    /// Takes a line, or what there is of it.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let (now, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
        if self.stage == Stage::First {
            if self.part.is_empty() {
                self.length = 0;
            }
            self.length += now.len();
        }
        let room = LINE.saturating_sub(self.part.len());
        self.part.extend_from_slice(now.get(..room).unwrap_or(now));
        if end.is_some() {
            let line = std::mem::take(&mut self.part);
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            self.whole(text.strip_suffix(b"\r").unwrap_or(text));
        }
        rest
    }

    fn whole(&mut self, line: &[u8]) {
        self.stage = match self.stage {
            // Empty lines before a request are none.
            Stage::First if line.is_empty() => Stage::First,
            Stage::First => {
                self.begin(line);
                Stage::Field
            }
            Stage::Field if line.is_empty() => {
                if self.has_coding && self.body.is_some() {
                    self.unclear.get_or_insert(self.seen - 1);
                }
                match self.body {
                    _ if self.has_coding => Stage::Size,
                    Some(length) if length > 0 => Stage::Body(length),
                    _ => Stage::First,
                }
            }
            Stage::Field => {
                self.field(line);
                Stage::Field
            }
            Stage::Size => match size(line) {
                Some(0) => Stage::Trailer,
                Some(size) => Stage::Data(size),
                None => Stage::Lost,
            },
            Stage::DataEnd => Stage::Size,
            Stage::Trailer if line.is_empty() => Stage::First,
            stage @ (Stage::Trailer | Stage::Body(_) | Stage::Data(_) | Stage::Lost) => stage,
        };
    }

    fn begin(&mut self, line: &[u8]) {
        self.seen += 1;
        (self.has_coding, self.body) = (false, None);
        if self.skipped == 0 && self.first_lines.len() < AHEAD {
            self.first_lines.push_back(line.to_vec());
        } else {
            self.skipped += 1;
        }
    }

    fn field(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return;
        };
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.has_coding = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            let length = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok());
            // hyper refuses what is none.
            self.body = Some(length.unwrap_or(0));
        }
    }
}

/// The size of a chunk.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let digits = std::str::from_utf8(line.get(..digits)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: &[u8] = b"\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n\
        POST /b HTTP/1.1\r\nContent-Length: 6\r\n\r\nGET /\n\
        POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nGET\r\n\r\n1\r\n \r\n0\r\nT: x\r\n\r\n\
        GET /d HTTP/1.1\ncontent-LENGTH:0\nTRANSFER-encoding: chunked\n\n0\n\n\
        GET /e HTTP/1.1\r\n";

    #[test]
    fn requests_are_told_from_bodies_at_every_cut() {
        for cut in 0..=REQUESTS.len() {
            let mut reader = Reader::default();
            let (before, after) = REQUESTS.split_at(cut);
            reader.read(before);
            reader.read(after);
            let lines: Vec<_> = reader
                .first_lines
                .iter()
                .map(|line| line.escape_ascii().to_string())
                .collect();
            let expected = ["GET /a", "POST /b", "POST /c", "GET /d", "GET /e"]
                .map(|line| format!("{line} HTTP/1.1"));
            assert_eq!(lines, expected, "{cut}");
            assert_eq!((reader.seen, reader.unclear), (5, Some(3)), "{cut}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let heads = Heads::default();
        heads.read(&b"GET /pipelined HTTP/1.1\r\n\r\n".repeat(10_000));
        heads.read(
            &b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .repeat(2),
        );
        heads.read(&[b'x'; 1 << 20]);
        {
            let reader = heads.lock();
            assert_eq!(reader.first_lines.len(), AHEAD);
            assert!(
                reader.part.capacity() <= 2 * LINE,
                "{}",
                reader.part.capacity()
            );
            assert_eq!(reader.length, 1 << 20);
        }
        let unclear: Vec<_> = (0..10_002).filter(|_| heads.take().is_some()).collect();
        assert_eq!(unclear, [10_000]);
        heads.stop();
        heads.read(b"GET / HTTP/1.1\r\n\r\n");
        assert!(heads.lock().first_lines.is_empty());
    }

    #[test]
    fn sizes_of_chunks() {
        for (line, expected) in [
            ("0", Some(0)),
            ("1F;a=b", Some(31)),
            ("a \t", Some(10)),
            ("", None),
            ("-1", None),
            ("ffffffffffffffffff", None),
        ] {
            assert_eq!(size(line.as_bytes()), expected, "{line}");
        }
    }
}
