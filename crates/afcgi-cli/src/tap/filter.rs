//! Which requests are shown: by path, id and status.

use super::exchange::Exchange;

/// What `--path`, `--id` and `--status` ask for. What is not asked for does not matter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) paths: Vec<String>,
    pub(crate) ids: Vec<u16>,
    pub(crate) statuses: Vec<Statuses>,
}

/// A status, or all of a hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statuses {
    One(u16),
    /// Those that begin with this digit.
    Class(u16),
}

impl std::str::FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let class = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX"));
        let found = match class {
            Some(digit) => digit.parse().map(Self::Class).ok(),
            None => text.parse().map(Self::One).ok(),
        };
        match found {
            Some(Self::Class(1..=9) | Self::One(100..=999)) => found.ok_or_else(String::new),
            _ => Err(String::from("expected a status, such as 500 or 5xx")),
        }
    }
}

impl Filter {
    /// Whether it can only be told at the end of a request whether that is shown.
    pub(crate) fn waits(&self) -> bool {
        !self.paths.is_empty() || !self.statuses.is_empty()
    }

    pub(crate) fn takes_id(&self, id: u16) -> bool {
        self.ids.is_empty() || self.ids.contains(&id)
    }

    /// Whether a request is shown that is over.
    pub(crate) fn takes(&self, id: u16, exchange: &Exchange) -> bool {
        let status = exchange.status();
        let has_status = |wanted: &Statuses| match (wanted, status) {
            (Statuses::One(code), Some(status)) => *code == status,
            (Statuses::Class(digit), Some(status)) => *digit == status / 100,
            (_, None) => false,
        };
        self.takes_id(id)
            && (self.statuses.is_empty() || self.statuses.iter().any(has_status))
            && (self.paths.is_empty() || self.takes_uri(&exchange.told.uri()))
    }

    fn takes_uri(&self, uri: &[u8]) -> bool {
        let path = uri.split(|&byte| byte == b'?').next().unwrap_or(uri);
        let patterns = self.paths.iter();
        patterns.map(String::as_bytes).any(|p| matches(p, path))
    }
}

/// A pattern with `*` or `?` is for the whole path; any other for the path itself and all below it.
fn matches(pattern: &[u8], path: &[u8]) -> bool {
    if pattern.iter().any(|byte| matches!(byte, b'*' | b'?')) {
        return glob(pattern, path);
    }
    match path.strip_prefix(pattern) {
        Some(rest) => rest.is_empty() || pattern.ends_with(b"/") || rest.starts_with(b"/"),
        None => false,
    }
}

/// `*` stands for any bytes, `?` for one. The time is the product of both lengths at most.
fn glob(pattern: &[u8], path: &[u8]) -> bool {
    let (mut p, mut at) = (0, 0);
    // Behind the last `*`, and where in the path it was taken to end.
    let mut star: Option<(usize, usize)> = None;
    while at < path.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, at));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == path[at] => {
                p += 1;
                at += 1;
            }
            _ => match &mut star {
                Some((behind, end)) => {
                    *end += 1;
                    (p, at) = (*behind, *end);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (pattern, path, expected) in [
            ("/api", "/api", true),
            ("/api", "/api/a", true),
            ("/api", "/apis", false),
            ("/api/", "/api/a", true),
            ("/", "/a", true),
            ("*.php", "/a/b.php", true),
            ("/a/*/c", "/a/b/b/c", true),
            ("/a/*/c", "/a/c", false),
            ("/a?c", "/abc", true),
            ("/a?c", "/ac", false),
            ("*a*b*", "/xaxbx", true),
            ("*", "", true),
            ("?", "", false),
        ] {
            let found = matches(pattern.as_bytes(), path.as_bytes());
            assert_eq!(found, expected, "{pattern} {path}");
        }
        // A pattern that makes others slow.
        let (pattern, path) = ("*a".repeat(500), "a".repeat(2000) + "b");
        assert!(!matches(pattern.as_bytes(), path.as_bytes()));
    }

    #[test]
    fn statuses() {
        assert_eq!("5xx".parse(), Ok(Statuses::Class(5)));
        assert_eq!("404".parse(), Ok(Statuses::One(404)));
        for text in ["", "xx", "0xx", "10xx", "99", "1000", "-1", "ok"] {
            assert!(text.parse::<Statuses>().is_err(), "{text}");
        }
    }
}
