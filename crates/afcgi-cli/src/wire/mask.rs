//! Which bytes on the wire are secrets: of parameters, of header fields of a response, of queries and forms.
//!
//! Nothing is changed here. What is secret is told as places in the bytes that came, so that a copy can be overwritten and keeps its length.

use std::ops::Range;

/// What stands in the place of each byte of a secret.
pub(crate) const STAR: u8 = b'*';

/// Bytes of a key or a field's name that are looked at.
const KEY: usize = 64;

/// Parts of names that mean a secret, in lower case, with `-` for `_`.
const PARTS: [&str; 9] = [
    "password",
    "passwd",
    "secret",
    "token",
    "api-key",
    "apikey",
    "credential",
    "cookie",
    "signature",
];

/// Names of parameters and fields that are secret as a whole.
const NAMES: [&str; 9] = [
    "authorization",
    "proxy-authorization",
    "authentication-info",
    "proxy-authentication-info",
    "php-auth-pw",
    "php-auth-digest",
    "auth-pw",
    "ssl-session-id",
    "x-auth",
];

/// Keys of queries and forms that are secret as a whole.
const KEYS: [&str; 9] = [
    "pass",
    "pwd",
    "pw",
    "auth",
    "sig",
    "key",
    "sid",
    "session",
    "phpsessid",
];

/// How a value is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Secret,
    /// A query, or a form.
    Query,
    /// A URL, which may have a query.
    Url,
}

/// That of the parameter with this name.
pub(crate) fn param(name: &[u8]) -> Kind {
    let name = plain(name);
    let name = name.as_str();
    // Apache passes on what was there before a redirect under this prefix.
    let name = name.trim_start_matches("redirect-");
    match name {
        "query-string" => Kind::Query,
        "request-uri" | "unencoded-url" | "http-referer" => Kind::Url,
        name => secret(name.strip_prefix("http-").unwrap_or(name)),
    }
}

/// That of the header field of a response with this name.
pub(crate) fn field(name: &[u8]) -> Kind {
    let name = plain(name);
    // Of an authorizer.
    match name.strip_prefix("variable-").unwrap_or(&name) {
        "location" | "content-location" | "refresh" | "link" => Kind::Url,
        name => secret(name),
    }
}

fn secret(name: &str) -> Kind {
    match NAMES.contains(&name) || PARTS.iter().any(|part| name.contains(part)) {
        true => Kind::Secret,
        false => Kind::Plain,
    }
}

fn key(key: &[u8]) -> bool {
    let key = plain(key);
    KEYS.contains(&key.as_str()) || secret(&key) == Kind::Secret
}

/// The name in lower case with `-` for `_`.
fn plain(name: &[u8]) -> String {
    let letter = |&byte: &u8| match byte {
        b'_' => '-',
        byte => char::from(byte.to_ascii_lowercase()),
    };
    name.iter().take(KEY).map(letter).collect()
}

/// Places in the bytes that came.
#[derive(Debug, Default)]
pub(crate) struct Masks(Vec<Range<usize>>);

impl Masks {
    pub(crate) fn push(&mut self, place: Range<usize>) {
        match self.0.last_mut() {
            _ if place.is_empty() => {}
            Some(last) if last.end == place.start => last.end = place.end,
            _ => self.0.push(place),
        }
    }

    /// Overwrites them in a copy of the bytes, and forgets them.
    pub(crate) fn apply(&mut self, bytes: &mut [u8]) {
        for place in self.0.drain(..) {
            if let Some(bytes) = bytes.get_mut(place) {
                bytes.fill(STAR);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// A value that comes in pieces: which of its bytes are secret.
#[derive(Debug)]
pub(crate) struct Value {
    state: State,
    key: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plain,
    Secret,
    /// Before the `?`.
    Path,
    Key,
    /// Behind a `=`.
    Of {
        secret: bool,
    },
}

impl Value {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            state: match kind {
                Kind::Plain => State::Plain,
                Kind::Secret => State::Secret,
                Kind::Query => State::Key,
                Kind::Url => State::Path,
            },
            key: Vec::new(),
        }
    }

    /// The next piece, which begins at `at` of the bytes that came.
    pub(crate) fn feed(&mut self, at: usize, piece: &[u8], masks: &mut Masks) {
        match self.state {
            State::Plain => return,
            State::Secret => return masks.push(at..at + piece.len()),
            State::Path | State::Key | State::Of { .. } => {}
        }
        for (at, &byte) in (at..).zip(piece) {
            match (self.state, byte) {
                (State::Path, b'?') | (State::Key | State::Of { .. }, b'&' | b';') => {
                    self.key.clear();
                    self.state = State::Key;
                }
                (State::Key, b'=') => {
                    self.state = State::Of {
                        secret: key(&self.key),
                    };
                }
                (State::Key, byte) if self.key.len() < KEY => self.key.push(byte),
                (State::Of { secret: true }, _) => masks.push(at..at + 1),
                _ => {}
            }
        }
    }
}

/// The same bytes with the secrets of a value overwritten.
pub(crate) fn masked(kind: Kind, bytes: &[u8]) -> Vec<u8> {
    let mut copy = bytes.to_vec();
    let mut masks = Masks::default();
    Value::new(kind).feed(0, bytes, &mut masks);
    masks.apply(&mut copy);
    copy
}

/// Whether a value is one that was overwritten.
pub(crate) fn is_masked(kind: Kind, bytes: &[u8]) -> bool {
    let mut stars = bytes.to_vec();
    let mut masks = Masks::default();
    Value::new(kind).feed(0, bytes, &mut masks);
    let secret = masks.0.clone();
    masks.apply(&mut stars);
    !secret.is_empty() && stars == bytes
}

/// Secrets in the head of a response that comes in pieces.
#[derive(Debug)]
pub(crate) struct HeadMask {
    name: Vec<u8>,
    value: Option<Value>,
    /// Whether the value has not begun.
    fresh: bool,
    /// Whether the line that goes on had anything in it but its end.
    blank: bool,
    pub(crate) done: bool,
}

impl Default for HeadMask {
    fn default() -> Self {
        Self {
            name: Vec::new(),
            value: None,
            fresh: false,
            blank: true,
            done: false,
        }
    }
}

impl HeadMask {
    /// The next piece of STDOUT, which begins at `at` of the bytes that came.
    pub(crate) fn feed(&mut self, at: usize, piece: &[u8], masks: &mut Masks) {
        for (at, &byte) in (at..).zip(piece) {
            if self.done {
                return;
            }
            match byte {
                b'\n' => {
                    self.done = self.blank;
                    self.blank = true;
                    self.value = None;
                    self.name.clear();
                    continue;
                }
                b'\r' => continue,
                _ => self.blank = false,
            }
            match (&mut self.value, byte) {
                // White space in front of a value is none of it.
                (Some(_), b' ') if std::mem::take(&mut self.fresh) => {}
                (Some(value), _) => {
                    self.fresh = false;
                    value.feed(at, &[byte], masks);
                }
                (None, b':') => {
                    self.value = Some(Value::new(field(&self.name)));
                    self.fresh = true;
                }
                (None, _) if self.name.len() < KEY => self.name.push(byte),
                (None, _) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: Kind, bytes: &str) -> String {
        String::from_utf8(masked(kind, bytes.as_bytes())).expect("text")
    }

    #[test]
    fn names() {
        for name in [
            "HTTP_COOKIE",
            "HTTP_AUTHORIZATION",
            "REDIRECT_REDIRECT_HTTP_AUTHORIZATION",
            "HTTP_PROXY_AUTHORIZATION",
            "AUTHORIZATION",
            "PHP_AUTH_PW",
            "PHP_AUTH_DIGEST",
            "HTTP_X_API_KEY",
            "HTTP_X_CSRF_TOKEN",
            "DB_PASSWORD",
            "SSL_SESSION_ID",
            "http_cookie",
        ] {
            assert_eq!(param(name.as_bytes()), Kind::Secret, "{name}");
        }
        for name in [
            "REQUEST_METHOD",
            "HTTP_SEC_WEBSOCKET_KEY",
            "REMOTE_USER",
            "AUTH_TYPE",
            "HTTP_HOST",
            "",
        ] {
            assert_eq!(param(name.as_bytes()), Kind::Plain, "{name}");
        }
        assert_eq!(param(b"QUERY_STRING"), Kind::Query);
        assert_eq!(param(b"REQUEST_URI"), Kind::Url);
        for name in [
            "Set-Cookie",
            "set-cookie",
            "X-Auth-Token",
            "Variable-Secret",
        ] {
            assert_eq!(field(name.as_bytes()), Kind::Secret, "{name}");
        }
        assert_eq!(field(b"WWW-Authenticate"), Kind::Plain);
        assert_eq!(field(b"Location"), Kind::Url);
    }

    #[test]
    fn queries() {
        let query = "a=1&password=hunter2&x&Access_Token=t%20t;b=token&sid=7&key";
        let expected = "a=1&password=*******&x&Access_Token=*****;b=token&sid=*&key";
        assert_eq!(text(Kind::Query, query), expected);
        assert_eq!(text(Kind::Url, "/pass=1?pass=1"), "/pass=1?pass=*");
        assert_eq!(text(Kind::Secret, "a=1"), "***");
        for cut in 0..query.len() {
            let mut copy = query.as_bytes().to_vec();
            let (mut masks, mut value) = (Masks::default(), Value::new(Kind::Query));
            value.feed(0, &query.as_bytes()[..cut], &mut masks);
            value.feed(cut, &query.as_bytes()[cut..], &mut masks);
            masks.apply(&mut copy);
            assert_eq!(copy, expected.as_bytes(), "{cut}");
        }
        assert!(is_masked(Kind::Query, expected.as_bytes()));
        assert!(!is_masked(Kind::Query, query.as_bytes()));
        assert!(!is_masked(Kind::Query, b"a=***"));
        assert!(is_masked(Kind::Secret, b"***") && !is_masked(Kind::Secret, b""));
    }

    #[test]
    fn heads_at_every_cut() {
        let head = b"X: a\r\nSet-Cookie: a=b\nLocation: /?token=t\r\n\r\nSet-Cookie: body\n";
        let expected = b"X: a\r\nSet-Cookie: ***\nLocation: /?token=*\r\n\r\nSet-Cookie: body\n";
        for cut in 0..head.len() {
            let mut copy = head.to_vec();
            let (mut masks, mut mask) = (Masks::default(), HeadMask::default());
            mask.feed(0, &head[..cut], &mut masks);
            mask.feed(cut, &head[cut..], &mut masks);
            masks.apply(&mut copy);
            assert_eq!(copy, expected, "{cut}");
        }
    }
}
