//! Paths of requests, decoded once, in the form in which routes and files are looked up.

use percent_encoding::percent_decode;

/// A path, decoded, without empty parts and without `.`; it begins with a `/`.
///
/// What is decoded twice, or looked up in another form than it is checked in, leads around a route
/// that protects something: so there is one form, and `..` is refused before any file is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CleanPath(Vec<u8>);

impl CleanPath {
    /// Reads the path of a URI. `None`: it holds a line break, a zero byte, or a `..`, or is none.
    pub(crate) fn new(path: impl AsRef<[u8]>) -> Option<Self> {
        let decoded: Vec<u8> = percent_decode(path.as_ref()).collect();
        if !decoded.starts_with(b"/")
            || decoded.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
        {
            return None;
        }
        let mut clean = Vec::with_capacity(decoded.len());
        let mut parts = decoded.split(|&byte| byte == b'/').peekable();
        while let Some(part) = parts.next() {
            match part {
                b".." => return None,
                b"" | b"." => {
                    if parts.peek().is_none() && !clean.ends_with(b"/") {
                        clean.push(b'/');
                    }
                }
                part => {
                    clean.push(b'/');
                    clean.extend_from_slice(part);
                }
            }
        }
        Some(Self(clean))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the path is `prefix`, that has no `/` at its end, or below it.
    pub(crate) fn is_below(&self, prefix: &str) -> bool {
        let rest = self.0.strip_prefix(prefix.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }
}

/// Whether a part of the path is a hidden file or folder: one that begins with a dot, but for `/.well-known/`.
pub(crate) fn is_hidden(path: &[u8]) -> bool {
    let path = path.strip_prefix(b"/.well-known/").unwrap_or(path);
    path.split(|&byte| byte == b'/')
        .any(|part| part.starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(path: &str) -> Option<String> {
        CleanPath::new(path).map(|path| String::from_utf8(path.0).unwrap())
    }

    #[test]
    fn there_is_one_form() {
        for (path, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("//a//b", "/a/b"),
            ("/./a/.", "/a/"),
            ("/%61dmin", "/admin"),
            ("/%2561", "/%61"),
            ("/a%2fb", "/a/b"),
            ("/a/...", "/a/..."),
        ] {
            assert_eq!(clean(path).as_deref(), Some(expected), "{path}");
        }
        for bad in [
            "",
            "*",
            "a",
            "/..",
            "/a/../b",
            "/%2e%2e/a",
            "/a/%2E.",
            "/..%2fa",
            "/a%00",
            "/a%0ab",
            "/%0d",
        ] {
            assert_eq!(clean(bad), None, "{bad}");
        }
    }

    #[test]
    fn prefixes_end_at_a_slash() {
        let path = CleanPath::new("/admin//x").unwrap();
        assert!(path.is_below("/admin") && path.is_below("") && path.is_below("/admin/x"));
        assert!(!CleanPath::new("/administer").unwrap().is_below("/admin"));
    }

    #[test]
    fn hidden_parts() {
        for (path, hidden) in [
            ("/.git/config", true),
            ("/a/.env", true),
            ("/.well-known/acme", false),
            ("/.well-known/.x", true),
            ("/a/.well-known/x", true),
            ("/a.b", false),
        ] {
            assert_eq!(is_hidden(path.as_bytes()), hidden, "{path}");
        }
    }
}
