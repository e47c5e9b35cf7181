//! Records out of a byte stream that is cut anywhere (R-01 to R-04).
//!
//! The reader holds at most one header: content is handed on as it comes, in fragments, so nothing
//! is ever allocated for an announced length.

use crate::error::ConnectionError;
use crate::record::{BODY_LEN, HEADER_LEN, Header, VERSION};

/// A part of one record's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// The header of the record this belongs to.
    pub header: Header,
    /// The bytes; empty only for a record without content.
    pub content: &'a [u8],
    /// Whether the record's content begins here.
    pub first: bool,
    /// Whether the record's content ends here.
    pub last: bool,
}

impl Fragment<'_> {
    /// Whether this is a record without content: the end of a stream (R-06).
    pub fn is_empty_record(&self) -> bool {
        self.header.content_length == 0
    }
}

/// Where in a record the next byte belongs.
///
/// ```text
///   Header ──8 bytes──> Content ──content_length──> Padding ──padding_length──> Header
/// ```
#[derive(Debug)]
enum State {
    /// `have` bytes of the header are in the buffer; below 8.
    Header { have: usize },
    /// `left` bytes of content are to come; not 0.
    Content { header: Header, left: u16 },
    /// `left` bytes of padding are to come; not 0.
    Padding { left: u8 },
}

/// Reads records.
///
/// ```
/// use afcgi_proto::reader::Reader;
///
/// let mut reader = Reader::new();
/// let mut input: &[u8] = &[1, 5, 0, 1, 0, 2, 1, 0, b'h', b'i', 0];
/// let fragment = reader.read(&mut input)?.unwrap();
/// assert_eq!(fragment.content, b"hi");
/// assert_eq!(reader.read(&mut input)?, None);
/// assert!(input.is_empty() && reader.at_boundary());
/// # Ok::<(), afcgi_proto::ConnectionError>(())
/// ```
#[derive(Debug)]
pub struct Reader {
    state: State,
    partial: [u8; HEADER_LEN],
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// A reader at the beginning of a record.
    pub const fn new() -> Self {
        Self {
            state: State::Header { have: 0 },
            partial: [0; HEADER_LEN],
        }
    }

    /// Whether all records so far are complete.
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Header { have: 0 })
    }

    /// The next fragment; advances `input` past what was read. `None` means that `input` is used
    /// up. After an error the reader must not be used again.
    pub fn read<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<Fragment<'a>>, ConnectionError> {
        self.read_within(input, |_| usize::MAX)
    }

    /// Like [`Reader::read`], with at most `room(header)` bytes of content in the fragment. If
    /// that is 0 the result is `None`, and `input` keeps what comes from there on.
    #[inline]
    pub fn read_within<'a>(
        &mut self,
        input: &mut &'a [u8],
        mut room: impl FnMut(&Header) -> usize,
    ) -> Result<Option<Fragment<'a>>, ConnectionError> {
        if let Some(whole) = self.whole(input, &mut room)? {
            return Ok(Some(whole));
        }
        self.piece(input, room)
    }

    /// The next fragment of a record that is not whole.
    #[inline(never)]
    fn piece<'a>(
        &mut self,
        input: &mut &'a [u8],
        mut room: impl FnMut(&Header) -> usize,
    ) -> Result<Option<Fragment<'a>>, ConnectionError> {
        loop {
            match self.state {
                State::Header { have } => {
                    let Some(header) = self.header(have, input)? else {
                        return Ok(None);
                    };
                    if header.content_length == 0 {
                        self.after_content(header);
                        return Ok(Some(Fragment {
                            header,
                            content: &[],
                            first: true,
                            last: true,
                        }));
                    }
                    self.state = State::Content {
                        header,
                        left: header.content_length,
                    };
                }
                State::Content { header, left } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let content = take(input, usize::from(left).min(room(&header)));
                    if content.is_empty() {
                        return Ok(None);
                    }
                    let rest = left.saturating_sub(u16::try_from(content.len()).unwrap_or(left));
                    let last = rest == 0;
                    if last {
                        self.after_content(header);
                    } else {
                        self.state = State::Content { header, left: rest };
                    }
                    return Ok(Some(Fragment {
                        header,
                        content,
                        first: left == header.content_length,
                        last,
                    }));
                }
                State::Padding { left } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let skipped = take(input, usize::from(left)).len();
                    let rest = left.saturating_sub(u8::try_from(skipped).unwrap_or(left));
                    self.state = if rest == 0 {
                        State::Header { have: 0 }
                    } else {
                        State::Padding { left: rest }
                    };
                }
            }
        }
    }

    /// The next record, when it is in `input` from its first byte to its last and there is room
    /// for all of it: the common case, which needs no state to be kept.
    #[inline]
    fn whole<'a>(
        &self,
        input: &mut &'a [u8],
        room: &mut impl FnMut(&Header) -> usize,
    ) -> Result<Option<Fragment<'a>>, ConnectionError> {
        if !self.at_boundary() {
            return Ok(None);
        }
        let Some((bytes, rest)) = input.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let header = parse(bytes)?;
        let length = usize::from(header.content_length);
        let Some((content, rest)) = rest.split_at_checked(length) else {
            return Ok(None);
        };
        let Some(rest) = rest.get(usize::from(header.padding_length)..) else {
            return Ok(None);
        };
        if length > 0 && room(&header) < length {
            return Ok(None);
        }
        *input = rest;
        Ok(Some(Fragment {
            header,
            content,
            first: true,
            last: true,
        }))
    }

    fn header(
        &mut self,
        have: usize,
        input: &mut &[u8],
    ) -> Result<Option<Header>, ConnectionError> {
        if have == 0 {
            if let Some((bytes, rest)) = input.split_first_chunk::<HEADER_LEN>() {
                *input = rest;
                return parse(bytes).map(Some);
            }
            // A wrong version is known at the first byte: garbage need not wait for seven more.
            match input.first() {
                Some(&found) if found != VERSION => return Err(ConnectionError::Version { found }),
                _ => {}
            }
        }
        let part = take(input, HEADER_LEN.saturating_sub(have));
        for (slot, &byte) in self.partial.iter_mut().skip(have).zip(part) {
            *slot = byte;
        }
        let have = have.saturating_add(part.len());
        if have < HEADER_LEN {
            self.state = State::Header { have };
            return Ok(None);
        }
        self.state = State::Header { have: 0 };
        parse(&self.partial).map(Some)
    }

    fn after_content(&mut self, header: Header) {
        self.state = match header.padding_length {
            0 => State::Header { have: 0 },
            left => State::Padding { left },
        };
    }
}

/// Collects the content of a discrete record that comes in fragments.
#[derive(Debug, Default)]
pub(crate) struct Discrete {
    bytes: Vec<u8>,
}

impl Discrete {
    /// A body of 8 bytes, once it is complete; another length is an error (R-06).
    pub(crate) fn body(
        &mut self,
        fragment: Fragment<'_>,
    ) -> Result<Option<[u8; BODY_LEN]>, ConnectionError> {
        let found = usize::from(fragment.header.content_length);
        if found != BODY_LEN {
            return Err(ConnectionError::BodyLength {
                record_type: fragment.header.record_type,
                found,
            });
        }
        if let Ok(body) = fragment.content.try_into() {
            return Ok(Some(body));
        }
        let body = self.content(fragment);
        Ok(body.and_then(|body| body[..].try_into().ok()))
    }

    /// The whole content, once it is complete. The caller has checked its length.
    pub(crate) fn content(&mut self, fragment: Fragment<'_>) -> Option<Vec<u8>> {
        if fragment.first {
            // Of a record that nobody wanted to the end.
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(fragment.content);
        fragment.last.then(|| std::mem::take(&mut self.bytes))
    }
}

#[inline]
fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Header, ConnectionError> {
    Header::parse(bytes).map_err(|found| ConnectionError::Version { found })
}

/// Up to `most` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (part, rest) = input.split_at_checked(most).unwrap_or((*input, &[]));
    *input = rest;
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RecordType, RequestId};

    fn record(code: u8, id: u16, content: &[u8], padding: &[u8]) -> Vec<u8> {
        let mut header = Header::new(code.into(), RequestId::new(id), content.len() as u16);
        header.padding_length = padding.len() as u8;
        [&header.encode()[..], content, padding].concat()
    }

    /// Type, id and content.
    type Whole = (u8, u16, Vec<u8>);

    /// Whole records out of fragments.
    fn read_all(pieces: &[&[u8]]) -> Vec<Whole> {
        let mut reader = Reader::new();
        let mut records = Vec::new();
        let mut content = Vec::new();
        for mut piece in pieces.iter().copied() {
            while let Some(fragment) = reader.read(&mut piece).unwrap() {
                assert_eq!(fragment.first, content.is_empty());
                content.extend_from_slice(fragment.content);
                if fragment.last {
                    let id = fragment.header.request_id.map_or(0, RequestId::get);
                    let code = fragment.header.record_type.code();
                    records.push((code, id, std::mem::take(&mut content)));
                }
            }
            assert!(piece.is_empty());
        }
        assert!(reader.at_boundary());
        records
    }

    fn sample() -> (Vec<u8>, Vec<Whole>) {
        let long = vec![7; 300];
        let bytes = [
            record(1, 1, &[0, 1, 1, 0, 0, 0, 0, 0], b""),
            record(5, 0x1234, b"hello", b"\x01\x02\x03"),
            record(5, 1, b"", b"\xff"),
            record(200, 0, &long, &[9; 255]),
            record(6, 65535, b"x", b""),
        ]
        .concat();
        let records = vec![
            (1, 1, vec![0, 1, 1, 0, 0, 0, 0, 0]),
            (5, 0x1234, b"hello".to_vec()),
            (5, 1, vec![]),
            (200, 0, long),
            (6, 65535, b"x".to_vec()),
        ];
        (bytes, records)
    }

    #[test]
    fn r04_split_at_every_byte() {
        let (bytes, records) = sample();
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(read_all(&[a, b]), records, "cut at {cut}");
        }
    }

    #[test]
    fn r04_byte_by_byte() {
        let (bytes, records) = sample();
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read_all(&pieces), records);
    }

    #[test]
    fn r03_largest_content_and_padding() {
        let content = vec![1; 65_535];
        let bytes = record(5, 1, &content, &[1; 255]);
        assert_eq!(read_all(&[&bytes]), vec![(5, 1, content)]);
    }

    #[test]
    fn content_is_handed_out_within_the_room() {
        let bytes = record(5, 1, b"abcde", b"");
        let mut reader = Reader::new();
        let mut input = &bytes[..];
        let fragment = reader.read_within(&mut input, |_| 3).unwrap().unwrap();
        assert_eq!((fragment.content, fragment.last), (&b"abc"[..], false));
        assert_eq!(reader.read_within(&mut input, |_| 0), Ok(None));
        assert_eq!(input, b"de");
        let fragment = reader.read(&mut input).unwrap().unwrap();
        assert_eq!(
            (fragment.content, fragment.first, fragment.last),
            (&b"de"[..], false, true)
        );
    }

    #[test]
    fn r02_wrong_version_is_known_at_the_first_byte() {
        let mut reader = Reader::new();
        assert_eq!(
            reader.read(&mut &b"G"[..]),
            Err(ConnectionError::Version { found: b'G' })
        );
        let mut reader = Reader::new();
        assert_eq!(
            reader.read(&mut &b"GET / HTTP/1.1\r\n"[..]),
            Err(ConnectionError::Version { found: b'G' })
        );
    }

    #[test]
    fn at_boundary_only_between_records() {
        let bytes = record(5, 1, b"ab", b"p");
        for cut in 1..bytes.len() {
            let mut reader = Reader::new();
            let mut input = &bytes[..cut];
            while reader.read(&mut input).unwrap().is_some() {}
            assert!(!reader.at_boundary(), "cut at {cut}");
        }
        let mut reader = Reader::new();
        let mut input = &bytes[..];
        let fragment = reader.read(&mut input).unwrap().unwrap();
        assert_eq!(fragment.header.record_type, RecordType::Stdin);
    }
}
