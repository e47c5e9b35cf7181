//! What bodies are made of: blocks of 64 bytes that tell whose they are, for which request, and where they belong.
//!
//! A block is a line: `NAME TOKEN INDEX`, filled up with spaces. The first one of a response also tells the length and the digest of the
//! request's body as the application got it. So a byte that is wrong tells where it comes from. The programs in `peers/` make the same
//! blocks by themselves.

use std::fmt::Write as _;

/// The bytes of a block.
pub const BLOCK: usize = 64;

/// Who makes the bodies of requests.
pub const CLIENT: &str = "client";

/// FNV-1a with 64 bits, which every language of the applications has or can have in three lines. A single changed byte always changes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Takes more bytes in.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    }

    /// That of one text.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digest = Self::default();
        digest.add(bytes);
        digest
    }
}

/// What an application says of the body that it got: its length and its digest.
pub fn received(length: usize, digest: Digest) -> String {
    format!("{length} {:016x}", digest.0)
}

/// A block of a body. `more` stands behind the index.
pub fn block(name: &str, token: u64, index: usize, more: &str) -> [u8; BLOCK] {
    let mut line = String::with_capacity(2 * BLOCK);
    // Writing to a text cannot fail.
    _ = write!(line, "{name} {token:016x} {index}");
    if !more.is_empty() {
        line.push(' ');
        line.push_str(more);
    }
    let mut block = [b' '; BLOCK];
    let length = line.len().min(BLOCK - 1);
    block[..length].copy_from_slice(&line.as_bytes()[..length]);
    block[BLOCK - 1] = b'\n';
    block
}

/// The body of a request, so many bytes long; the last block may be cut.
pub fn request_body(token: u64, length: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(length + BLOCK);
    let mut index = 0;
    while body.len() < length {
        body.extend_from_slice(&block(CLIENT, token, index, ""));
        index += 1;
    }
    body.truncate(length);
    body
}

/// A body as it should be, which is compared with what comes, piece by piece.
#[derive(Clone, Debug)]
pub struct Expected {
    name: String,
    token: u64,
    first: String,
    length: usize,
    at: usize,
}

impl Expected {
    /// The response of an application, of so many blocks, after which it has received `received`.
    pub fn response(name: &str, token: u64, blocks: usize, received: &str) -> Self {
        Self {
            name: name.to_owned(),
            token,
            first: received.to_owned(),
            length: blocks * BLOCK,
            at: 0,
        }
    }

    /// A request's own body, given back.
    pub fn echo(token: u64, length: usize) -> Self {
        Self {
            name: CLIENT.to_owned(),
            token,
            first: String::new(),
            length,
            at: 0,
        }
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> usize {
        self.length - self.at
    }

    /// Bytes that have come.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Compares the next bytes.
    ///
    /// # Errors
    /// Says what came in place of what, where they differ.
    pub fn check(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        if bytes.len() > self.left() {
            return Err(format!(
                "{} bytes more than {}: {:?}",
                bytes.len() - self.left(),
                self.length,
                shown(bytes)
            ));
        }
        while !bytes.is_empty() {
            let index = self.at / BLOCK;
            let more = if index == 0 { &*self.first } else { "" };
            let block = block(&self.name, self.token, index, more);
            let wanted = &block[self.at % BLOCK..];
            let (now, rest) = bytes.split_at(bytes.len().min(wanted.len()));
            if now != &wanted[..now.len()] {
                return Err(format!(
                    "byte {} of {}: {:?} in place of {:?}",
                    self.at,
                    self.length,
                    shown(bytes),
                    shown(wanted)
                ));
            }
            self.at += now.len();
            bytes = rest;
        }
        Ok(())
    }
}

/// As much as tells whose it is.
fn shown(bytes: &[u8]) -> String {
    let length = bytes.len().min(2 * BLOCK);
    String::from_utf8_lossy(&bytes[..length])
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_is_found_wherever_the_pieces_are_cut() {
        let body = request_body(7, 1000);
        for piece in [1, 63, 64, 65, 999] {
            let mut expected = Expected::echo(7, 1000);
            for bytes in body.chunks(piece) {
                assert_eq!(expected.check(bytes), Ok(()));
            }
            assert_eq!(expected.left(), 0);
            for at in [0, 64, 998] {
                let mut wrong = body.clone();
                wrong[at] ^= 1;
                let mut expected = Expected::echo(7, 1000);
                assert!(
                    wrong
                        .chunks(piece)
                        .any(|bytes| expected.check(bytes).is_err())
                );
            }
        }
    }

    #[test]
    fn another_request_and_another_application_are_told_apart() {
        let own = |name, token| {
            let mut all = block(name, token, 0, "5 x").to_vec();
            all.extend(block(name, token, 1, ""));
            all
        };
        let expected = Expected::response("go-1", 7, 2, "5 x");
        assert_eq!(expected.clone().check(&own("go-1", 7)), Ok(()));
        assert!(expected.clone().check(&own("go-2", 7)).is_err());
        assert!(expected.clone().check(&own("go-1", 8)).is_err());
        let longer = [own("go-1", 7), vec![b' ']].concat();
        assert!(expected.clone().check(&longer).is_err());
    }

    #[test]
    fn the_digest_is_fnv_1a() {
        assert_eq!(received(6, Digest::of(b"foobar")), "6 85944171f73967e8");
    }
}
