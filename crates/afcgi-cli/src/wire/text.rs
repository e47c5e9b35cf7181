//! Bytes that may be anything as text that does a terminal no harm.

use std::fmt::Write;

/// Whether a terminal would act on a character instead of showing it, or would show others in another order.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push(out: &mut String, character: char, keep: impl Fn(char) -> bool) {
    if !acts(character) || keep(character) {
        out.push(character);
    } else {
        out.extend(character.escape_default());
    }
}

fn push_bytes(out: &mut String, bytes: &[u8], keep: impl Fn(char) -> bool + Copy) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push(out, character, keep);
        }
        for byte in chunk.invalid() {
            _ = write!(out, "\\x{byte:02x}");
        }
    }
}

/// Bytes on one line, without control characters.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut out = String::new();
    push_bytes(&mut out, bytes, |_| false);
    out
}

/// The same, of the first `most` bytes; says how many there are if there are more.
pub(crate) fn excerpt(bytes: &[u8], most: usize) -> String {
    match bytes.get(..most) {
        Some(first) if first.len() < bytes.len() => {
            format!("{}… ({} bytes)", escaped(first), bytes.len())
        }
        _ => escaped(bytes),
    }
}

/// Text for a terminal that comes in pieces: lines and tabs stay, other control characters are written out.
#[derive(Debug, Default)]
pub(crate) struct Cleaner {
    /// The beginning of a character that was cut: three bytes at most.
    part: Vec<u8>,
}

impl Cleaner {
    /// The next piece.
    pub(crate) fn clean(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.part);
        all.extend_from_slice(bytes);
        let cut = cut_character(&all);
        self.part = all.split_off(all.len() - cut);
        let mut out = String::with_capacity(all.len());
        push_bytes(&mut out, &all, |character| {
            matches!(character, '\n' | '\t' | '\r')
        });
        out
    }

    /// What is left at the end.
    pub(crate) fn finish(&mut self) -> String {
        escaped(&std::mem::take(&mut self.part))
    }
}

/// How many bytes at the end are the beginning of a character.
fn cut_character(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => bytes.len() - error.valid_up_to(),
        // A mistake further ahead hides the end: the last three bytes are looked at by themselves.
        Err(_) => (1..=bytes.len().min(3))
            .find(|&count| {
                let tail = &bytes[bytes.len() - count..];
                matches!(std::str::from_utf8(tail), Err(error) if error.valid_up_to() == 0 && error.error_len().is_none())
            })
            .unwrap_or(0),
        Ok(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(
            escaped(b"a\x1b[31m\x07\x9b\xc2\x9b\xff \xc3\xa4\n"),
            "a\\u{1b}[31m\\u{7}\\x9b\\u{9b}\\xff ä\\n"
        );
        assert_eq!(escaped("\u{202e}x".as_bytes()), "\\u{202e}x");
        assert_eq!(excerpt(b"abcdef", 3), "abc… (6 bytes)");
        assert_eq!(excerpt(b"abc", 3), "abc");
    }

    #[test]
    fn text_in_pieces() {
        let text = "é\t€ 🦀\r\n\u{1b}[2J".as_bytes();
        let expected = "é\t€ 🦀\r\n\\u{1b}[2J";
        for piece in 1..text.len() {
            let mut cleaner = Cleaner::default();
            let mut out: String = text
                .chunks(piece)
                .map(|piece| cleaner.clean(piece))
                .collect();
            out += &cleaner.finish();
            assert_eq!(out, expected, "{piece}");
        }
        let mut cleaner = Cleaner::default();
        assert_eq!(cleaner.clean(b"\xff\xe2\x82"), "\\xff");
        assert_eq!(cleaner.clean(b"\xac"), "€");
        assert_eq!(cleaner.clean(b"\xe2"), "");
        assert_eq!(cleaner.finish(), "\\xe2");
    }
}
