//! The request that is sent over and over: its records are made once, and only the id is written into a copy.
//!
//! The protocol crate has no part in it, nor in [`reply`](super::reply): a mistake there cannot hide in a measurement.

/// Bytes of a body that are sent in one record, and the longest body that is sent together with its parameters.
const PIECE: usize = 32 * 1024;
/// Content of a PARAMS record at most.
const PARAMS_MOST: usize = 65_535;

/// A whole FastCGI request, with the places where its id goes.
#[derive(Clone, Debug)]
pub struct Template {
    /// BEGIN_REQUEST, PARAMS and its end; STDIN and its end too, if the body is short.
    head: Vec<u8>,
    /// Where ids are in it.
    ids: Vec<usize>,
    /// A body that is not in `head`.
    body: Vec<u8>,
}

impl Template {
    /// A request of a role, with FCGI_KEEP_CONN or without. An authorizer (2) has an empty body.
    pub fn new<'a>(
        role: u16,
        keep_conn: bool,
        params: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        body: &[u8],
    ) -> Self {
        let mut template = Self {
            head: Vec::new(),
            ids: Vec::new(),
            body: Vec::new(),
        };
        let [high, low] = role.to_be_bytes();
        template.record(1, &[high, low, u8::from(keep_conn), 0, 0, 0, 0, 0], 0);
        let (mut content, mut encoded) = (Vec::new(), Vec::new());
        for (name, value) in params {
            encoded.clear();
            pair(&mut encoded, name, value);
            // PHP-FPM reads each record of PARAMS by itself, so pairs are not cut where that can be helped.
            if !content.is_empty() && content.len() + encoded.len() > PARAMS_MOST {
                template.stream(4, &content, PARAMS_MOST);
                content.clear();
            }
            content.append(&mut encoded);
        }
        template.stream(4, &content, PARAMS_MOST);
        template.record(4, &[], 0);
        if body.len() > PIECE {
            template.body = body.to_vec();
        } else {
            template.stream(5, body, PIECE);
            template.record(5, &[], 0);
        }
        template
    }

    /// Fills the request up to so many bytes with padding of the first PARAMS record, as far as padding reaches.
    pub fn pad(&mut self, size: usize) {
        let padding = u8::try_from(size.saturating_sub(self.head.len())).unwrap_or(0);
        let [start, end] = [16, self.ids.get(2).map_or(0, |at| at - 2)];
        let Some(length @ 0) = self.head.get_mut(start + 6) else {
            return;
        };
        *length = padding;
        let zeros = std::iter::repeat_n(0, usize::from(padding));
        self.head.splice(end..end, zeros);
        for at in self.ids.iter_mut().skip(2) {
            *at += usize::from(padding);
        }
    }

    /// Bytes on the wire.
    pub fn size(&self) -> usize {
        let records = self.body.len().div_ceil(PIECE);
        let end = usize::from(records > 0);
        self.head.len() + self.body.len() + 8 * (records + end)
    }

    /// In how many pieces it is sent, so that a long body does not keep the other requests waiting.
    pub(super) fn pieces(&self) -> u32 {
        u32::try_from(1 + self.body.len().div_ceil(PIECE)).unwrap_or(u32::MAX)
    }

    /// Appends a piece.
    pub(super) fn write(&self, piece: u32, id: u16, output: &mut Vec<u8>) {
        let id = id.to_be_bytes();
        let Some(piece) = piece.checked_sub(1) else {
            let start = output.len();
            output.extend_from_slice(&self.head);
            if let Some(copy) = output.get_mut(start..) {
                for &at in &self.ids {
                    if let Some(place) = copy.get_mut(at..at + 2) {
                        place.copy_from_slice(&id);
                    }
                }
            }
            return;
        };
        let start = piece as usize * PIECE;
        let end = (start + PIECE).min(self.body.len());
        let content = self.body.get(start..end).unwrap_or_default();
        let [high, low] = u16::try_from(content.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        output.extend_from_slice(&[1, 5, id[0], id[1], high, low, 0, 0]);
        output.extend_from_slice(content);
        if end == self.body.len() {
            output.extend_from_slice(&[1, 5, id[0], id[1], 0, 0, 0, 0]);
        }
    }

    fn stream(&mut self, kind: u8, content: &[u8], most: usize) {
        for piece in content.chunks(most) {
            self.record(kind, piece, 0);
        }
    }

    fn record(&mut self, kind: u8, content: &[u8], padding: u8) {
        let [high, low] = u16::try_from(content.len())
            .expect("content is cut into records")
            .to_be_bytes();
        self.ids.push(self.head.len() + 2);
        self.head
            .extend_from_slice(&[1, kind, 0, 0, high, low, padding, 0]);
        self.head.extend_from_slice(content);
    }
}

/// one byte below 128, otherwise four with the top bit set.
fn pair(params: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for length in [name.len(), value.len()] {
        match u8::try_from(length) {
            Ok(short) if short < 128 => params.push(short),
            _ => {
                let long = u32::try_from(length).expect("a parameter of less than 2 GiB");
                params.extend_from_slice(&(long | 1 << 31).to_be_bytes());
            }
        }
    }
    params.extend_from_slice(name);
    params.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types and lengths of the records, all of which have the id.
    fn records(mut bytes: &[u8], id: u16) -> Vec<(u8, usize)> {
        let mut found = Vec::new();
        while let Some(&[1, kind, id1, id0, length1, length0, padding, 0]) = bytes.first_chunk() {
            assert_eq!(u16::from_be_bytes([id1, id0]), id);
            let length = usize::from(u16::from_be_bytes([length1, length0]));
            bytes = &bytes[8 + length + usize::from(padding)..];
            found.push((kind, length));
        }
        assert!(bytes.is_empty());
        found
    }

    fn written(template: &Template, id: u16) -> Vec<u8> {
        let mut output = b"before".to_vec();
        for piece in 0..template.pieces() {
            template.write(piece, id, &mut output);
        }
        assert_eq!(output.len() - 6, template.size());
        output.split_off(6)
    }

    #[test]
    fn every_record_has_the_id() {
        let pairs = || [(b"A".as_slice(), b"b".as_slice())].into_iter();
        for (length, stdin) in [
            (0, vec![0]),
            (5, vec![5, 0]),
            (PIECE, vec![PIECE, 0]),
            (PIECE + 1, vec![PIECE, 1, 0]),
            (2 * PIECE, vec![PIECE, PIECE, 0]),
        ] {
            let mut template = Template::new(1, true, pairs(), &vec![b'x'; length]);
            for padded in [0, 100] {
                template.pad(template.size() + padded);
                let mut expected = vec![(1, 8), (4, 4), (4, 0)];
                expected.extend(stdin.iter().map(|&length| (5, length)));
                let bytes = written(&template, 0x1234);
                assert_eq!(records(&bytes, 0x1234), expected, "{length}, {padded}");
                assert_eq!(bytes[8..16], [0, 1, 1, 0, 0, 0, 0, 0]);
            }
        }
    }

    #[test]
    fn pairs_are_not_cut() {
        let value = vec![b'x'; 40_000];
        let pairs = [(b"A".as_slice(), value.as_slice()), (b"B", &value)];
        let template = Template::new(1, false, pairs.into_iter(), b"");
        let length = 1 + 4 + 1 + 40_000;
        let expected = [(1, 8), (4, length), (4, length), (4, 0), (5, 0)];
        assert_eq!(records(&written(&template, 7), 7), expected);
        let bytes = written(&template, 7);
        assert_eq!(bytes[24..30], [1, 0x80, 0, 0x9c, 0x40, b'A']);
    }
}
