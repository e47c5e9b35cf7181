//! Records of the application, cut out of whatever a read gave: whole ones where they lie, others in pieces as they come. Nothing but a
//! header and the body of END_REQUEST is kept.

const HEADER: usize = 8;
/// The length of the body of END_REQUEST.
const END: usize = 8;
const END_REQUEST: u8 = 3;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Content of a record that is not END_REQUEST; `whole` if that is all of it.
    Content {
        kind: u8,
        id: u16,
        content: &'a [u8],
        whole: bool,
    },
    /// END_REQUEST.
    End {
        id: u16,
        app_status: u32,
        protocol_status: u8,
    },
}

/// Where in a record the bytes that were read end.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The first bytes of a header.
    header: [u8; HEADER],
    held: usize,
    kind: u8,
    id: u16,
    /// Bytes of content, and then of padding, that are still to come.
    content: usize,
    padding: usize,
    /// The body of an END_REQUEST.
    end: [u8; END],
}

impl Reader {
    /// The next part, and what is behind it; `None` when all of the input was taken. What is no record is an error, and the end of this.
    #[inline]
    pub(super) fn next<'a>(
        &mut self,
        mut input: &'a [u8],
    ) -> Result<Option<(Part<'a>, &'a [u8])>, String> {
        if self.content > 0 {
            if input.is_empty() {
                return Ok(None);
            }
            let (content, rest) = input.split_at(self.content.min(input.len()));
            if self.kind == END_REQUEST {
                let at = END.saturating_sub(self.content);
                for (place, byte) in self.end.iter_mut().skip(at).zip(content) {
                    *place = *byte;
                }
            }
            self.content -= content.len();
            return Ok(match (self.kind, self.content) {
                (END_REQUEST, 0) => Some((self.ended(self.end), rest)),
                (END_REQUEST, _) => None,
                _ => Some((self.part(content, false), rest)),
            });
        }
        if self.padding > 0 {
            let skipped = self.padding.min(input.len());
            self.padding -= skipped;
            input = &input[skipped..];
        }
        let header = match input.split_first_chunk() {
            Some((header, rest)) if self.held == 0 => {
                input = rest;
                *header
            }
            _ => {
                let more = (HEADER - self.held).min(input.len());
                self.header[self.held..self.held + more].copy_from_slice(&input[..more]);
                self.held += more;
                input = &input[more..];
                if self.held < HEADER {
                    return Ok(None);
                }
                self.held = 0;
                self.header
            }
        };
        let [version, kind, id1, id0, length1, length0, padding, _] = header;
        if version != 1 {
            return Err(format!("a record of the version {version}"));
        }
        let length = usize::from(u16::from_be_bytes([length1, length0]));
        self.kind = kind;
        self.id = u16::from_be_bytes([id1, id0]);
        self.padding = usize::from(padding);
        if kind == END_REQUEST {
            if length != END {
                return Err(format!("END_REQUEST of {length} bytes"));
            }
            if let Some((body, rest)) = input.split_first_chunk() {
                return Ok(Some((self.ended(*body), rest)));
            }
        } else if let Some((content, rest)) = input.split_at_checked(length) {
            return Ok(Some((self.part(content, true), rest)));
        }
        self.content = length;
        self.next(input)
    }

    fn part<'a>(&self, content: &'a [u8], whole: bool) -> Part<'a> {
        Part::Content {
            kind: self.kind,
            id: self.id,
            content,
            whole,
        }
    }

    fn ended(&self, [a, b, c, d, protocol_status, ..]: [u8; END]) -> Part<'static> {
        Part::End {
            id: self.id,
            app_status: u32::from_be_bytes([a, b, c, d]),
            protocol_status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, id: u8, content: &[u8], padding: u8) -> Vec<u8> {
        let mut bytes = vec![1, kind, 0, id, 0, content.len() as u8, padding, 0];
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len() + usize::from(padding), 9);
        bytes
    }

    /// Streams joined, by type and id, and the ends.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<(u8, u16, Vec<u8>)>, String> {
        let mut reader = Reader::default();
        let mut found: Vec<(u8, u16, Vec<u8>)> = Vec::new();
        let mut joins = false;
        for mut input in bytes.chunks(piece) {
            while let Some((part, rest)) = reader.next(input)? {
                input = rest;
                let (kind, id, content, whole) = match part {
                    Part::Content {
                        kind,
                        id,
                        content,
                        whole,
                    } => (kind, id, content.to_vec(), whole),
                    Part::End {
                        id,
                        app_status,
                        protocol_status,
                    } => {
                        let status = app_status.to_be_bytes();
                        (3, id, [&status[..], &[protocol_status]].concat(), true)
                    }
                };
                match found.last_mut().filter(|_| joins && !whole) {
                    Some(last) => last.2.extend(content),
                    None => found.push((kind, id, content)),
                }
                joins = !whole && reader.content > 0;
            }
        }
        Ok(found)
    }

    #[test]
    fn in_any_pieces() {
        let bytes = [
            record(6, 1, b"abc", 0),
            record(6, 2, b"de", 3),
            record(3, 1, &[0, 0, 1, 2, 3, 0, 0, 0], 5),
            record(6, 2, b"", 1),
            record(3, 2, &[0; 8], 0),
            record(10, 0, b"xyz", 255),
            record(6, 2, b"", 0),
        ]
        .concat();
        let expected = [
            (6, 1, b"abc".to_vec()),
            (6, 2, b"de".to_vec()),
            (3, 1, vec![0, 0, 1, 2, 3]),
            (6, 2, vec![]),
            (3, 2, vec![0; 5]),
            (10, 0, b"xyz".to_vec()),
            (6, 2, vec![]),
        ];
        for piece in 1..=bytes.len() {
            assert_eq!(read(&bytes, piece), Ok(expected.to_vec()), "{piece}");
        }
    }

    #[test]
    fn what_is_no_record() {
        for bytes in [
            b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
            record(3, 1, b"", 0),
            record(3, 1, &[0; 9], 0),
        ] {
            for piece in [1, 5, 100] {
                assert!(read(&bytes, piece).is_err());
            }
        }
    }
}
