//! What the application writes to STDERR, for the log.

use std::sync::Arc;

use afcgi_proto::inbox::Read;
use afcgi_proto::web::Input;

use super::place::Place;

/// Bytes of a line; a longer one is cut into several.
const LINE: usize = 1024;

/// Is given what applications write to STDERR, as text for a log: one line at a time, with control
/// characters escaped. Among the extensions of a request, it goes before the log of `tracing`.
#[derive(Clone)]
pub struct OnStderr(pub Arc<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for OnStderr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OnStderr").finish_non_exhaustive()
    }
}

/// STDERR of one request.
#[derive(Debug)]
pub(super) struct Stderr {
    /// Where the request went: for the log.
    path: Box<str>,
    told: Option<OnStderr>,
    line: Vec<u8>,
    /// Bytes that may still be logged.
    left: usize,
    left_out: u64,
}

impl Stderr {
    pub(super) fn new(path: &str, told: Option<OnStderr>, most: usize) -> Self {
        Self {
            path: path.escape_debug().to_string().into(),
            told,
            line: Vec::new(),
            left: most,
            left_out: 0,
        }
    }

    /// Logs what has come, line by line.
    pub(super) fn read(&mut self, place: &Place) {
        while let Read::Content(content) =
            place.shared.read(place.handle, Input::Stderr, usize::MAX)
        {
            self.push(&content);
        }
    }

    fn push(&mut self, mut content: &[u8]) {
        if content.len() > self.left {
            self.left_out += (content.len() - self.left) as u64;
            content = &content[..self.left];
        }
        self.left -= content.len();
        for &byte in content {
            if byte != b'\n' {
                self.line.push(byte);
            }
            if byte == b'\n' || self.line.len() >= LINE {
                self.say();
            }
        }
    }

    fn say(&mut self) {
        let text = String::from_utf8_lossy(self.line.trim_ascii_end());
        if !text.is_empty() {
            let text = escape(&text);
            match &self.told {
                Some(told) => (told.0)(&text),
                None => {
                    tracing::warn!(target: "afcgi::client::stderr", path = %self.path, "{text}");
                }
            }
        }
        self.line.clear();
    }
}

/// The request is over: what stands in an unfinished line is said too.
impl Drop for Stderr {
    fn drop(&mut self) {
        self.say();
        if self.left_out > 0 {
            tracing::warn!(
                target: "afcgi::client::stderr",
                path = %self.path,
                left_out = self.left_out,
                "further bytes of STDERR were left out"
            );
        }
    }
}

/// Control characters as `\u{1b}`, so that no terminal takes them for its own.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => out.push(' '),
            character if character.is_control() => out.extend(character.escape_debug()),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn lines_are_bounded_and_harmless() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&said);
        let told = OnStderr(Arc::new(move |line| {
            to.lock().unwrap().push(line.to_owned())
        }));
        let mut stderr = Stderr::new("/", Some(told), 3000);
        stderr.push(b"one\r\ntw");
        stderr.push(b"o\n\n\x1b[31mred");
        stderr.push(&[b'x'; 5000]);
        assert_eq!(stderr.left_out, 5000 - (3000 - 18));
        drop(stderr);
        let said = said.lock().unwrap();
        assert_eq!(said[..2], ["one", "two"]);
        assert!(said[2].starts_with("\\u{1b}[31mredx"), "{}", said[2]);
        assert!(said.iter().all(|line| line.len() <= LINE + 8));
        assert_eq!(said.len(), 5);
    }
}
