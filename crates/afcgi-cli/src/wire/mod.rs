//! Records as a person reads them: cut out of the bytes of one direction, with no more of their content than is shown.
//!
//! What comes from the wire may be anything. Each record is held up to a bound, and no control character of it is printed as it is.

pub(crate) mod mask;
mod pairs;
mod print;
mod text;

use std::time::Duration;

use afcgi_proto::params::decode_pair;
use afcgi_proto::reader::Reader;
use afcgi_proto::record::{BODY_LEN, MAX_CONTENT};
use afcgi_proto::{BeginRequest, EndRequest, Header, RecordType, RequestId};

pub(crate) use pairs::{PairSink, Pairs};
pub(crate) use print::{Palette, describe, protocol_status, record_name, role_name, write_record};
pub(crate) use text::{Cleaner, escaped, excerpt};

/// Bytes of a record's content that are kept to be shown, unless it holds name-value pairs: those are kept whole, 64 KiB at most.
const KEPT: usize = 256;

/// Requests whose parameters were cut inside a pair, of which the beginning is kept: 64 KiB each at most.
const CUTS: usize = 16;

/// A side of a connection: who sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    /// The web server, which opened it.
    Web,
    /// The application.
    App,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::App => "app",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Web => Self::App,
            Self::App => Self::Web,
        }
    }
}

/// A record that went by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) direction: Side,
    /// When its last byte went by, since the beginning.
    pub(crate) at: Duration,
    pub(crate) header: Header,
    /// The first bytes of its content; of PARAMS, what the record before had of a pair comes first.
    pub(crate) content: Vec<u8>,
    /// How many bytes that is.
    pub(crate) before: usize,
}

impl Seen {
    /// Its body, if it is a BEGIN_REQUEST that is whole.
    pub(crate) fn begin(&self) -> Option<BeginRequest> {
        let body: &[u8; BODY_LEN] = self.content.as_slice().try_into().ok()?;
        (self.header.record_type == RecordType::BeginRequest).then(|| BeginRequest::parse(body))
    }

    /// Its body, if it is an END_REQUEST that is whole.
    pub(crate) fn end(&self) -> Option<EndRequest> {
        let body: &[u8; BODY_LEN] = self.content.as_slice().try_into().ok()?;
        (self.header.record_type == RecordType::EndRequest).then(|| EndRequest::parse(body))
    }

    /// Whether its content is name-value pairs.
    pub(crate) fn has_pairs(&self) -> bool {
        has_pairs(self.header.record_type)
    }
}

fn has_pairs(record_type: RecordType) -> bool {
    matches!(
        record_type,
        RecordType::Params | RecordType::GetValues | RecordType::GetValuesResult
    )
}

/// Cuts the bytes of one direction into records. After bytes that are no record it sees nothing more.
#[derive(Debug)]
pub(crate) struct Watcher {
    direction: Side,
    reader: Reader,
    content: Vec<u8>,
    /// Beginnings of pairs that go on in the next record.
    cuts: Vec<(Option<RequestId>, Vec<u8>)>,
    /// The first bytes that were no record.
    garbage: Option<Vec<u8>>,
}

impl Watcher {
    pub(crate) fn new(direction: Side) -> Self {
        Self {
            direction,
            reader: Reader::new(),
            content: Vec::new(),
            cuts: Vec::new(),
            garbage: None,
        }
    }

    /// Takes bytes that went by, and tells of each record that is complete.
    pub(crate) fn feed(&mut self, at: Duration, mut bytes: &[u8], mut tell: impl FnMut(Seen)) {
        if self.garbage.is_some() {
            return;
        }
        loop {
            let fragment = match self.reader.read(&mut bytes) {
                Ok(Some(fragment)) => fragment,
                Ok(None) => return,
                Err(_) => {
                    self.garbage = Some(bytes.iter().copied().take(KEPT).collect());
                    return;
                }
            };
            let most = match has_pairs(fragment.header.record_type) {
                true => usize::MAX,
                false => KEPT,
            };
            let room = most.saturating_sub(self.content.len());
            let kept = fragment.content.len().min(room);
            self.content.extend_from_slice(&fragment.content[..kept]);
            if fragment.last {
                let mut content = std::mem::take(&mut self.content);
                let before = self.join(&fragment.header, &mut content);
                tell(Seen {
                    direction: self.direction,
                    at,
                    header: fragment.header,
                    content,
                    before,
                });
            }
        }
    }

    /// Puts the beginning of a pair in front of the rest of it, and keeps that of one that is cut.
    fn join(&mut self, header: &Header, content: &mut Vec<u8>) -> usize {
        let id = header.request_id;
        let is_params = header.record_type == RecordType::Params;
        if !is_params && header.record_type != RecordType::BeginRequest {
            return 0;
        }
        let place = self.cuts.iter().position(|cut| cut.0 == id);
        let cut = place.map(|place| self.cuts.swap_remove(place).1);
        let cut = cut.filter(|_| is_params).unwrap_or_default();
        let before = cut.len();
        if before > 0 {
            content.splice(..0, cut);
        }
        let mut rest = content.as_slice();
        let mut next = rest;
        // What is no whole pair may be half read.
        while let Ok(Some(_)) = decode_pair(&mut next) {
            rest = next;
        }
        let is_open = is_params && header.content_length > 0 && !rest.is_empty();
        if is_open && rest.len() <= MAX_CONTENT && self.cuts.len() < CUTS {
            self.cuts.push((id, rest.to_vec()));
        }
        before
    }

    /// The first bytes that were no record, if there were such.
    pub(crate) fn garbage(&self) -> Option<&[u8]> {
        self.garbage.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(bytes: &[u8], piece: usize) -> (Vec<Seen>, Option<Vec<u8>>) {
        let mut watcher = Watcher::new(Side::App);
        let mut all = Vec::new();
        for piece in bytes.chunks(piece) {
            watcher.feed(Duration::ZERO, piece, |seen| all.push(seen));
        }
        (all, watcher.garbage().map(<[u8]>::to_vec))
    }

    #[test]
    fn records_in_pieces_are_kept_up_to_a_bound() {
        let mut bytes = vec![1, 6, 0, 9, 4, 0, 3, 0];
        bytes.extend([b'x'; 1024 + 3]);
        bytes.extend([1, 3, 0, 9, 0, 8, 0, 0, 0, 0, 0, 5, 2, 0, 0, 0]);
        for piece in [1, 7, 5000] {
            let (all, garbage) = seen(&bytes, piece);
            assert_eq!((all.len(), garbage), (2, None), "{piece}");
            assert_eq!(all[0].content, [b'x'; KEPT]);
            assert_eq!(all[0].header.content_length, 1024);
            assert_eq!(all[1].end().expect("END_REQUEST").app_status, 5);
            assert_eq!(all[0].end(), None);
        }
    }

    #[test]
    fn pairs_are_kept_whole() {
        let mut bytes = vec![1, 4, 0, 1, 255, 255, 0, 0];
        bytes.extend(vec![7; 65_535]);
        let (all, _) = seen(&bytes, 1000);
        assert_eq!(all[0].content.len(), 65_535);
    }

    /// A pair that is cut is whole in the record that ends it; others' pairs, and what was before a new request, are none of it.
    #[test]
    fn pairs_are_joined() {
        let record = |kind: u8, id: u8, content: &[u8]| {
            let mut bytes = vec![1, kind, 0, id, 0, content.len() as u8, 0, 0];
            bytes.extend(content);
            bytes
        };
        let bytes = [
            record(4, 1, b"\x01\x01ab\x03\x03na"),
            record(4, 2, b"\x01\x01cd"),
            record(4, 1, b"mval\x01"),
            record(4, 1, b""),
            record(4, 3, b"\x05"),
            record(1, 3, &[0; 8]),
            record(4, 3, b"\x01\x01ef"),
        ]
        .concat();
        let (all, _) = seen(&bytes, 7);
        let contents: Vec<_> = all
            .iter()
            .map(|seen| (seen.content.as_slice(), seen.before))
            .collect();
        assert_eq!(contents[2], (&b"\x03\x03namval\x01"[..], 4));
        // What is left at the end of the stream is no pair.
        assert_eq!(contents[3], (&b"\x01"[..], 1));
        assert_eq!((contents[1].1, contents[6]), (0, (&b"\x01\x01ef"[..], 0)));
        // What is kept of them is bounded.
        let mut watcher = Watcher::new(Side::Web);
        for id in 1..=200 {
            let bytes = record(4, id, b"\x05\x05abc");
            watcher.feed(Duration::ZERO, &bytes, |_| {});
        }
        assert_eq!(watcher.cuts.len(), CUTS);
        let long = [&[1, 4, 0, 1, 255, 255, 0, 0], &[0xff; MAX_CONTENT][..]].concat();
        for _ in 0..3 {
            watcher.feed(Duration::ZERO, &long, |_| {});
        }
        assert!(watcher.cuts.iter().all(|cut| cut.1.len() <= MAX_CONTENT));
    }

    #[test]
    fn what_is_no_record_ends_it() {
        let (all, garbage) = seen(b"\x01\x0b\0\0\0\0\0\0HTTP/1.1 400 Bad Request", 500);
        assert_eq!(all.len(), 1);
        assert_eq!(garbage.expect("garbage"), b"HTTP/1.1 400 Bad Request");
    }
}
