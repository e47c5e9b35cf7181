//! Records by hand, right or wrong, and records cut out of bytes.
//!
//! Nothing here uses the reader or the writer of `afcgi-proto`: those refuse what a check has to send, and to see.

/// Types of records.
pub(crate) mod kind {
    pub(crate) const BEGIN_REQUEST: u8 = 1;
    pub(crate) const ABORT_REQUEST: u8 = 2;
    pub(crate) const END_REQUEST: u8 = 3;
    pub(crate) const PARAMS: u8 = 4;
    pub(crate) const STDIN: u8 = 5;
    pub(crate) const STDOUT: u8 = 6;
    pub(crate) const STDERR: u8 = 7;
    pub(crate) const DATA: u8 = 8;
    pub(crate) const GET_VALUES: u8 = 9;
    pub(crate) const GET_VALUES_RESULT: u8 = 10;
    pub(crate) const UNKNOWN_TYPE: u8 = 11;
    pub(crate) const CREDIT: u8 = 64;
}

/// The role of a responder.
pub(crate) const RESPONDER: u16 = 1;
/// FCGI_KEEP_CONN.
pub(crate) const KEEP: u8 = 1;
/// The flag of `docs/flow-control.md`.
pub(crate) const FLOW: u8 = 2;
/// The most content of a record.
pub(crate) const MOST: usize = 65_535;

/// A record without padding. Content beyond what a record takes is left out.
pub(crate) fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    padded(kind, id, content, &[])
}

/// A record with padding.
pub(crate) fn padded(kind: u8, id: u16, content: &[u8], padding: &[u8]) -> Vec<u8> {
    let content = &content[..content.len().min(MOST)];
    let padding = &padding[..padding.len().min(255)];
    let [id1, id0] = id.to_be_bytes();
    let [length1, length0] = (content.len() as u16).to_be_bytes();
    let header = [1, kind, id1, id0, length1, length0, padding.len() as u8, 0];
    [&header[..], content, padding].concat()
}

/// BEGIN_REQUEST.
pub(crate) fn begin(id: u16, role: u16, flags: u8) -> Vec<u8> {
    let [role1, role0] = role.to_be_bytes();
    record(
        kind::BEGIN_REQUEST,
        id,
        &[role1, role0, flags, 0, 0, 0, 0, 0],
    )
}

/// BEGIN_REQUEST of a responder whose response begins with so much credit.
pub(crate) fn begin_controlled(id: u16, credit: u32) -> Vec<u8> {
    let [a, b, c, d] = credit.to_be_bytes();
    record(kind::BEGIN_REQUEST, id, &[0, 1, KEEP | FLOW, a, b, c, d, 0])
}

/// CREDIT.
pub(crate) fn credit(id: u16, increment: u32) -> Vec<u8> {
    let [a, b, c, d] = increment.to_be_bytes();
    record(kind::CREDIT, id, &[a, b, c, d, 0, 0, 0, 0])
}

/// ABORT_REQUEST.
pub(crate) fn abort(id: u16) -> Vec<u8> {
    record(kind::ABORT_REQUEST, id, &[])
}

/// A stream in records of so many bytes, and its end.
pub(crate) fn stream(kind: u8, id: u16, content: &[u8], most: usize) -> Vec<u8> {
    let mut out: Vec<u8> = content
        .chunks(most)
        .flat_map(|part| record(kind, id, part))
        .collect();
    out.extend(record(kind, id, &[]));
    out
}

/// The length of a name or value in its shortest form.
pub(crate) fn length(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short) if short < 128 => out.push(short),
        _ => long_length(out, length as u32),
    }
}

/// The length in four bytes, whatever it is.
pub(crate) fn long_length(out: &mut Vec<u8>, length: u32) {
    out.extend((length | 0x8000_0000).to_be_bytes());
}

/// A name-value pair.
pub(crate) fn pair(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    length(&mut out, name.len());
    length(&mut out, value.len());
    out.extend(name);
    out.extend(value);
    out
}

/// GET_VALUES.
pub(crate) fn get_values(names: &[&str]) -> Vec<u8> {
    let pairs: Vec<u8> = names
        .iter()
        .flat_map(|name| pair(name.as_bytes(), b""))
        .collect();
    record(kind::GET_VALUES, 0, &pairs)
}

/// A name and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// The pairs of some content; `None` if it holds anything else.
pub(crate) fn pairs(mut content: &[u8]) -> Option<Vec<Pair>> {
    let pairs = first_pairs(&mut content);
    content.is_empty().then_some(pairs)
}

/// The pairs at the beginning, up to what is none.
pub(crate) fn first_pairs(content: &mut &[u8]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    while let Some((pair, rest)) = take_pair(content) {
        pairs.push(pair);
        *content = rest;
    }
    pairs
}

fn take_pair(mut content: &[u8]) -> Option<(Pair, &[u8])> {
    let name = take_length(&mut content)?;
    let value = take_length(&mut content)?;
    let (name, rest) = content.split_at_checked(name)?;
    let (value, rest) = rest.split_at_checked(value)?;
    Some(((name.to_vec(), value.to_vec()), rest))
}

fn take_length(content: &mut &[u8]) -> Option<usize> {
    let (&first, rest) = content.split_first()?;
    if first < 128 {
        *content = rest;
        return Some(first.into());
    }
    let (long, rest) = content.split_first_chunk()?;
    *content = rest;
    Some((u32::from_be_bytes(*long) & 0x7fff_ffff) as usize)
}

/// A record that went by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// As it was on the wire.
    pub(crate) header: [u8; 8],
    pub(crate) content: Vec<u8>,
}

impl Record {
    pub(crate) fn kind(&self) -> u8 {
        self.header[1]
    }

    pub(crate) fn id(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }
}

/// Cuts the bytes of one direction into records.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    buffer: Vec<u8>,
    garbage: bool,
}

impl Splitter {
    /// Takes bytes, and tells of each record that is whole. After bytes of another version there are no records.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut tell: impl FnMut(Record)) {
        self.buffer.extend(bytes);
        let mut rest = self.buffer.as_slice();
        while !self.garbage
            && let Some((header, behind)) = rest.split_first_chunk::<8>()
        {
            if header[0] != 1 {
                self.garbage = true;
                break;
            }
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            let end = length + usize::from(header[6]);
            let (Some(content), Some(next)) = (behind.get(..length), behind.get(end..)) else {
                break;
            };
            tell(Record {
                header: *header,
                content: content.to_vec(),
            });
            rest = next;
        }
        let done = self.buffer.len() - rest.len();
        self.buffer.drain(..done);
        if self.garbage {
            self.buffer.truncate(64);
        }
    }

    /// The first bytes that were no record, if there were such.
    pub(crate) fn garbage(&self) -> Option<&[u8]> {
        self.garbage.then_some(self.buffer.as_slice())
    }

    /// The part of a record that is here.
    pub(crate) fn part(&self) -> &[u8] {
        &self.buffer
    }
}

/// Bytes in hex, the first 24 of them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut out: Vec<String> = bytes
        .iter()
        .take(24)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if bytes.len() > 24 {
        out.push(format!("… ({} bytes)", bytes.len()));
    }
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_cut_at_any_byte() {
        let bytes = [
            padded(kind::STDOUT, 0x0102, b"hello", &[7; 3]),
            record(kind::END_REQUEST, 0x0102, &[0; 8]),
        ]
        .concat();
        for piece in 1..bytes.len() {
            let (mut splitter, mut all) = (Splitter::default(), Vec::new());
            for part in bytes.chunks(piece) {
                splitter.feed(part, |record| all.push(record));
            }
            assert_eq!(all.len(), 2, "{piece}");
            assert_eq!((all[0].kind(), all[0].id()), (kind::STDOUT, 0x0102));
            assert_eq!(
                (all[0].content.as_slice(), splitter.part()),
                (&b"hello"[..], &b""[..])
            );
        }
    }

    #[test]
    fn what_is_no_record_is_kept() {
        let mut splitter = Splitter::default();
        splitter.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n", |_| unreachable!());
        assert_eq!(
            splitter.garbage().map(|bytes| &bytes[..4]),
            Some(&b"HTTP"[..])
        );
        for _ in 0..1000 {
            splitter.feed(&[0; 1000], |_| unreachable!());
        }
        assert!(splitter.part().len() <= 64);
    }

    #[test]
    fn pairs_of_both_forms() {
        let value = [b'v'; 200];
        let content = [pair(b"NAME", &value), pair(b"", b"")].concat();
        assert_eq!(
            pairs(&content),
            Some(vec![
                (b"NAME".to_vec(), value.to_vec()),
                (Vec::new(), Vec::new())
            ])
        );
        for end in 1..content.len() - 2 {
            assert_eq!(pairs(&content[..end]), None, "{end}");
        }
        assert_eq!(pairs(&[0xff; 8]), None);
    }
}
