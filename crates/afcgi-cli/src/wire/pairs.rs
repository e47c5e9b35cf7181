//! Name-value pairs that come in pieces, cut anywhere (R-06, R-20 to R-22).
//!
//! Nothing is held but the beginning of a name, so that a length that is only announced costs nothing.

/// Bytes of a name that are looked at.
const NAME: usize = 256;

/// Who is told of the pairs.
pub(crate) trait PairSink {
    /// A name is complete, and a value of this length follows.
    fn name(&mut self, name: &[u8], length: usize);
    /// A piece of the value, which begins at `at` in the content that is being read.
    fn value(&mut self, at: usize, piece: &[u8]);
    /// The value is complete.
    fn end(&mut self);
}

/// What the next byte is part of.
///
/// ```text
///   NameLength ──> ValueLength ──> Name ──> Value ──> NameLength
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    NameLength,
    ValueLength,
    Name,
    Value,
}

/// Reads pairs.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    state: State,
    /// What came of a length of four bytes.
    part: [u8; 4],
    have: u8,
    /// Bytes of the name and of the value that are to come.
    name_left: usize,
    value_left: usize,
    name: Vec<u8>,
}

impl Pairs {
    /// Whether all pairs so far are complete.
    pub(crate) fn at_boundary(&self) -> bool {
        self.state == State::NameLength && self.have == 0
    }

    /// The next piece of their stream.
    pub(crate) fn feed(&mut self, content: &[u8], sink: &mut impl PairSink) {
        let mut at = 0;
        while at < content.len() {
            let rest = &content[at..];
            at += match self.state {
                State::NameLength | State::ValueLength => self.length(rest[0]),
                State::Name => {
                    let count = self.name_left.min(rest.len());
                    let room = NAME.saturating_sub(self.name.len());
                    self.name.extend(&rest[..count.min(room)]);
                    self.name_left -= count;
                    count
                }
                State::Value => {
                    let count = self.value_left.min(rest.len());
                    sink.value(at, &rest[..count]);
                    self.value_left -= count;
                    count
                }
            };
            self.go_on(sink);
        }
    }

    /// A byte of a length.
    fn length(&mut self, byte: u8) -> usize {
        let length = match self.have {
            0 if byte < 0x80 => usize::from(byte),
            have => {
                self.part[usize::from(have)] = byte;
                self.have = have + 1;
                if self.have < 4 {
                    return 1;
                }
                usize::try_from(u32::from_be_bytes(self.part) & 0x7fff_ffff).unwrap_or(usize::MAX)
            }
        };
        self.have = 0;
        if self.state == State::NameLength {
            self.name_left = length;
            self.state = State::ValueLength;
        } else {
            self.value_left = length;
            self.state = State::Name;
        }
        1
    }

    /// Leaves what is complete: names and values may be empty.
    fn go_on(&mut self, sink: &mut impl PairSink) {
        if self.state == State::Name && self.name_left == 0 {
            sink.name(&self.name, self.value_left);
            self.name.clear();
            self.state = State::Value;
        }
        if self.state == State::Value && self.value_left == 0 {
            sink.end();
            self.state = State::NameLength;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<(Vec<u8>, usize, Vec<u8>)>, usize);

    impl PairSink for Seen {
        fn name(&mut self, name: &[u8], length: usize) {
            self.0.push((name.to_vec(), length, Vec::new()));
        }
        fn value(&mut self, _: usize, piece: &[u8]) {
            self.0.last_mut().expect("a name").2.extend(piece);
        }
        fn end(&mut self) {
            self.1 += 1;
        }
    }

    #[test]
    fn every_cut() {
        let mut bytes = b"\x01\x02Abc\x80\x00\x00\x01\x80\x00\x01\x00L".to_vec();
        bytes.extend([b'v'; 256]);
        bytes.extend(b"\x00\x00\x01\x00E");
        for cut in 0..=bytes.len() {
            let (mut pairs, mut seen) = (Pairs::default(), Seen::default());
            pairs.feed(&bytes[..cut], &mut seen);
            assert_eq!(
                pairs.at_boundary(),
                [0, 5, 270, 272, 275].contains(&cut),
                "{cut}"
            );
            pairs.feed(&bytes[cut..], &mut seen);
            let expected = [
                (b"A".to_vec(), 2, b"bc".to_vec()),
                (b"L".to_vec(), 256, vec![b'v'; 256]),
                (Vec::new(), 0, Vec::new()),
                (b"E".to_vec(), 0, Vec::new()),
            ];
            assert_eq!((seen.0.as_slice(), seen.1), (&expected[..], 4), "{cut}");
        }
    }

    /// Of a length that is a lie nothing is held.
    #[test]
    fn hostile_lengths() {
        let (mut pairs, mut seen) = (Pairs::default(), Seen::default());
        pairs.feed(b"\xff\xff\xff\xff\xff\xff\xff\xff", &mut seen);
        for _ in 0..100 {
            pairs.feed(&[b'n'; 10_000], &mut seen);
        }
        assert!(
            pairs.name.capacity() <= 2 * NAME,
            "{}",
            pairs.name.capacity()
        );
        assert!(!pairs.at_boundary() && seen.0.is_empty());
    }
}
