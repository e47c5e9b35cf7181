//! What an answer must be, and an answer that is being looked at: its head (R-58) and its body, in whatever pieces they come.
//! None of it is kept but the line of the head that is not complete.

use memchr::{memchr, memmem};
use sha2::{Digest, Sha256};

use super::stats::{Kind, shown};

/// Bytes of a head.
pub(super) const HEAD_MOST: usize = 64 * 1024;
/// Bytes that are held of incomplete lines and texts, of all answers of an engine.
pub(super) const HELD_MOST: usize = 64 * 1024 * 1024;

/// Which status is as expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpectStatus {
    /// Below 400.
    #[default]
    Success,
    /// This one.
    Is(u16),
    /// Any.
    Any,
}

/// What an answer must be.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// Its status.
    pub status: ExpectStatus,
    /// Bytes of its body.
    pub length: Option<u64>,
    /// A text that its body holds.
    pub text: Option<Vec<u8>>,
    /// All of its body.
    pub body: Option<Vec<u8>>,
    /// SHA-256 of its body.
    pub hash: Option<[u8; 32]>,
    /// Whether there is to be nothing on STDERR.
    pub quiet: bool,
}

/// What is wrong with an answer.
pub(super) type Wrong = (Kind, String);

/// An answer that is being looked at.
#[derive(Debug, Default)]
pub(super) struct Check {
    /// A line of the head whose end has not come; then the last bytes of the body, in which a text may begin.
    part: Vec<u8>,
    /// Bytes of the head.
    head: usize,
    in_body: bool,
    status: Option<u16>,
    location: bool,
    length: u64,
    hash: Option<Sha256>,
    found: bool,
    wrong: Option<Wrong>,
    /// The only piece of STDOUT so far, if that is short.
    pub(super) only: Option<Vec<u8>>,
}

impl Check {
    /// As new, with what it has allocated; `held` is what all of an engine hold.
    pub(super) fn clear(&mut self, held: &mut usize) {
        *held = held.saturating_sub(self.part.len());
        let (mut part, mut only) = (std::mem::take(&mut self.part), self.only.take());
        part.clear();
        part.shrink_to(1024);
        if let Some(only) = &mut only {
            only.clear();
        }
        *self = Self {
            part,
            only,
            ..Self::default()
        };
    }

    /// The next piece of STDOUT.
    pub(super) fn feed(&mut self, mut piece: &[u8], expect: &Expect, held: &mut usize) {
        while !self.in_body && self.wrong.is_none() {
            let end = memchr(b'\n', piece);
            self.head += end.map_or(piece.len(), |end| end + 1);
            if self.head > HEAD_MOST || *held > HELD_MOST {
                self.fail(Kind::Head, || {
                    format!("a head of more than {HEAD_MOST} bytes")
                });
                break;
            }
            let Some(end) = end else {
                *held += piece.len();
                self.part.extend_from_slice(piece);
                return;
            };
            let (line, rest) = (&piece[..end], &piece[end + 1..]);
            piece = rest;
            if self.part.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.part);
                *held = held.saturating_sub(whole.len());
                whole.extend_from_slice(line);
                self.line(&whole);
                whole.clear();
                self.part = whole;
            }
        }
        if self.wrong.is_none() && !piece.is_empty() {
            self.body(piece, expect, held);
        }
    }

    fn fail(&mut self, kind: Kind, text: impl FnOnce() -> String) {
        self.wrong.get_or_insert_with(|| (kind, text()));
    }

    /// A line of the head.
    fn line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            self.in_body = true;
            return;
        }
        let Some(colon) = memchr(b':', line) else {
            return self.fail(Kind::Head, || format!("`{}` is no field", shown(line)));
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"status") {
            let code = value
                .get(..3)
                .and_then(|code| std::str::from_utf8(code).ok());
            let code = code.and_then(|code| code.parse().ok());
            match code.filter(|code| (100..1000).contains(code)) {
                Some(code) => self.status = Some(code),
                None => self.fail(Kind::Head, || format!("`{}` is no status", shown(value))),
            }
        } else if name.eq_ignore_ascii_case(b"location") {
            self.location = true;
        }
    }

    fn body(&mut self, piece: &[u8], expect: &Expect, held: &mut usize) {
        if let Some(body) = &expect.body {
            let start = usize::try_from(self.length).unwrap_or(usize::MAX);
            let same = start
                .checked_add(piece.len())
                .and_then(|end| body.get(start..end))
                .is_some_and(|expected| expected == piece);
            if !same {
                let length = self.length;
                self.fail(Kind::Content, || {
                    format!("another body from byte {length} on: `{}`", shown(piece))
                });
            }
        }
        self.length += piece.len() as u64;
        if expect.hash.is_some() {
            self.hash.get_or_insert_default().update(piece);
        }
        let Some(text) = expect.text.as_deref().filter(|_| !self.found) else {
            return;
        };
        // What came before, as much as a text may begin in, and as much of this as it may end in.
        let before = self.part.len();
        let reach = text.len().saturating_sub(1);
        self.part
            .extend_from_slice(&piece[..piece.len().min(reach)]);
        self.found =
            memmem::find(&self.part, text).is_some() || memmem::find(piece, text).is_some();
        if self.found {
            self.part.clear();
        } else if piece.len() >= reach {
            self.part.clear();
            self.part.extend_from_slice(&piece[piece.len() - reach..]);
        } else {
            let surplus = self.part.len().saturating_sub(reach);
            self.part.drain(..surplus);
        }
        *held = held.saturating_sub(before) + self.part.len();
    }

    /// The end of STDOUT: status, and bytes of the body.
    pub(super) fn finish(&mut self, expect: &Expect) -> Result<(u16, u64), Wrong> {
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        if !self.in_body {
            let text = match self.head {
                0 => String::from("nothing on STDOUT"),
                bytes => format!("{bytes} bytes without the end of a head"),
            };
            return Err((Kind::Head, text));
        }
        // R-58.
        let status = self.status.unwrap_or(if self.location { 302 } else { 200 });
        let right = match expect.status {
            ExpectStatus::Success => status < 400,
            ExpectStatus::Is(expected) => status == expected,
            ExpectStatus::Any => true,
        };
        if !right {
            return Err((Kind::Status, format!("status {status}")));
        }
        let length = self.length;
        if expect.length.is_some_and(|expected| expected != length) {
            return Err((Kind::Length, format!("a body of {length} bytes")));
        }
        let short = |body: &Vec<u8>| length < body.len() as u64;
        if expect.body.as_ref().is_some_and(short) {
            return Err((Kind::Content, format!("a body of {length} bytes")));
        }
        if expect.text.as_ref().is_some_and(|text| !text.is_empty()) && !self.found {
            let text = format!("a body of {length} bytes without the text");
            return Err((Kind::Content, text));
        }
        if let Some(expected) = &expect.hash {
            let hash = self.hash.take().unwrap_or_default().finalize();
            if hash.as_slice() != expected {
                return Err((Kind::Hash, format!("SHA-256 is {hash:x}")));
            }
        }
        Ok((status, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of an answer, in pieces of any length.
    fn check(answer: &[u8], expect: &Expect) -> Result<(u16, u64), Kind> {
        let mut results = (1..=answer.len().max(1)).map(|piece| {
            let (mut check, mut held) = (Check::default(), 0);
            for piece in answer.chunks(piece) {
                check.feed(piece, expect, &mut held);
            }
            let result = check.finish(expect);
            check.clear(&mut held);
            assert_eq!(held, 0);
            result.map_err(|(kind, _)| kind)
        });
        let first = results.next().expect("a length");
        assert!(results.all(|result| result == first));
        first
    }

    #[test]
    fn heads() {
        let any = Expect {
            status: ExpectStatus::Any,
            ..Expect::default()
        };
        for (answer, expected) in [
            (&b"\nabc"[..], Ok((200, 3))),
            (b"Status: 404 Not Found\r\nA: b\r\n\r\n", Ok((404, 0))),
            (b"location: /x\n\n", Ok((302, 0))),
            (b"STATUS:204\n\n", Ok((204, 0))),
            (b"Status: x\n\n", Err(Kind::Head)),
            (b"Status: 99\n\n", Err(Kind::Head)),
            (b"no field\n\n", Err(Kind::Head)),
            (b"A: b\n", Err(Kind::Head)),
            (b"", Err(Kind::Head)),
        ] {
            assert_eq!(check(answer, &any), expected, "{}", shown(answer));
        }
    }

    #[test]
    fn bodies() {
        let answer = b"A: b\n\nHello world";
        let with = |change: &dyn Fn(&mut Expect)| {
            let mut expect = Expect::default();
            change(&mut expect);
            check(answer, &expect)
        };
        let right = Ok((200, 11));
        assert_eq!(with(&|_| {}), right);
        assert_eq!(with(&|e| e.status = ExpectStatus::Is(200)), right);
        assert_eq!(with(&|e| e.length = Some(11)), right);
        assert_eq!(with(&|e| e.body = Some(b"Hello world".to_vec())), right);
        for text in ["", "H", "lo wo", "Hello world", "d"] {
            assert_eq!(with(&|e| e.text = Some(text.into())), right, "{text}");
        }
        let hash: [u8; 32] = Sha256::digest(b"Hello world").into();
        assert_eq!(with(&|e| e.hash = Some(hash)), right);

        let status = with(&|e| e.status = ExpectStatus::Is(201));
        assert_eq!(status, Err(Kind::Status));
        assert_eq!(with(&|e| e.length = Some(12)), Err(Kind::Length));
        for body in ["Hello world!", "Hello worl", "hello world", ""] {
            let content = with(&|e| e.body = Some(body.into()));
            assert_eq!(content, Err(Kind::Content), "{body}");
        }
        for text in ["x", "Hello  ", "world.", "Hello world and more"] {
            let content = with(&|e| e.text = Some(text.into()));
            assert_eq!(content, Err(Kind::Content), "{text}");
        }
        assert_eq!(with(&|e| e.hash = Some([0; 32])), Err(Kind::Hash));
    }

    #[test]
    fn a_head_is_bounded() {
        let expect = Expect::default();
        for line in [&b"A: b\n"[..], b"A: bbbb"] {
            let (mut check, mut held) = (Check::default(), 0);
            for _ in 0..HEAD_MOST {
                check.feed(line, &expect, &mut held);
            }
            assert!(held <= HEAD_MOST && check.part.len() <= HEAD_MOST);
            let (kind, text) = check.finish(&expect).expect_err("too long");
            assert_eq!(kind, Kind::Head, "{text}");
        }
        // All of an engine together.
        let (mut check, mut held) = (Check::default(), HELD_MOST + 1);
        check.feed(b"A", &expect, &mut held);
        assert_eq!(check.finish(&expect).expect_err("too much").0, Kind::Head);
    }
}
