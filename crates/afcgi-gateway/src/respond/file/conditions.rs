//! Whether a client has a file already, or wants it only if it is still the same (RFC 9110 section 13).
//!
//! What cannot be read as a condition is no condition, so that the file is sent as a whole; but for If-Match, where it
//! matches nothing.

use std::fs::Metadata;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The time of a file that has none: archives and images that are built the same each time set 0 or 1, and what is rebuilt
/// has the same then.
const NO_TIME: u64 = 1;

/// What tells one state of a file from another.
#[derive(Debug)]
pub(super) struct Validators {
    /// Always a strong one.
    etag: Option<HeaderValue>,
    /// Seconds since 1970.
    modified: Option<u64>,
}

/// What is to be done about a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing speaks against sending it.
    Send,
    /// The client has it: 304.
    NotModified,
    /// It is not what the client thought: 412.
    Failed,
}

impl Validators {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
        Self::new(modified, metadata.len(), SystemTime::now())
    }

    fn new(modified: SystemTime, length: u64, now: SystemTime) -> Self {
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        if since.as_secs() <= NO_TIME {
            return Self {
                etag: None,
                modified: None,
            };
        }
        let tag = format!("\"{:x}-{length:x}\"", since.as_nanos());
        Self {
            etag: HeaderValue::try_from(tag).ok(),
            // No date that is still to come may be told (RFC 9110 section 8.8.2.1).
            modified: (modified <= now).then_some(since.as_secs()),
        }
    }

    /// Adds them to the fields of a response.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        if let Some(etag) = &self.etag {
            headers.insert(ETAG, etag.clone());
        }
        if let Some(modified) = self.modified {
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(modified));
            if let Ok(date) = HeaderValue::try_from(date) {
                headers.insert(LAST_MODIFIED, date);
            }
        }
    }
}

/// Looks at the conditions of a GET or HEAD, in the order of RFC 9110 section 13.2.2.
pub(super) fn check(headers: &HeaderMap, file: &Validators) -> Verdict {
    let since = |name| Some((date(single(headers, name)?)?, file.modified?));
    let failed = match headers.contains_key(IF_MATCH) {
        true => !matches(headers, IF_MATCH, file, is_strong),
        false => since(IF_UNMODIFIED_SINCE).is_some_and(|(date, modified)| modified > date),
    };
    if failed {
        return Verdict::Failed;
    }
    let has = match headers.contains_key(IF_NONE_MATCH) {
        true => matches(headers, IF_NONE_MATCH, file, |_| true),
        false => since(IF_MODIFIED_SINCE).is_some_and(|(date, modified)| modified <= date),
    };
    match has {
        true => Verdict::NotModified,
        false => Verdict::Send,
    }
}

/// Whether parts of a file are of use to a client that has others: If-Range, by a strong ETag or by the very date.
pub(super) fn range_holds(headers: &HeaderMap, file: &Validators) -> bool {
    if !headers.contains_key(IF_RANGE) {
        return true;
    }
    let Some(value) = single(headers, IF_RANGE) else {
        return false;
    };
    // That of a file is strong: a weak one is another.
    if value.ends_with(b"\"") {
        return file.etag.as_ref().is_some_and(|etag| etag == value);
    }
    file.modified.is_some() && date(value) == file.modified
}

/// One entity tag of a list.
struct Tag<'a> {
    weak: bool,
    /// With its quotes.
    opaque: &'a [u8],
}

fn is_strong(tag: &Tag<'_>) -> bool {
    !tag.weak
}

/// Whether a list of entity tags has that of the file, among those that `counts` lets count; `*` has every one.
fn matches(
    headers: &HeaderMap,
    name: HeaderName,
    file: &Validators,
    counts: fn(&Tag<'_>) -> bool,
) -> bool {
    let etag = file.etag.as_ref().map(HeaderValue::as_bytes);
    headers.get_all(name).iter().any(|value| {
        let value = value.as_bytes().trim_ascii();
        value == b"*" || tags(value).any(|tag| counts(&tag) && Some(tag.opaque) == etag)
    })
}

/// The entity tags of a list, up to what is none.
fn tags(mut list: &[u8]) -> impl Iterator<Item = Tag<'_>> {
    std::iter::from_fn(move || {
        while let [b' ' | b'\t' | b',', rest @ ..] = list {
            list = rest;
        }
        let (weak, tag) = match list.strip_prefix(b"W/") {
            Some(tag) => (true, tag),
            None => (false, list),
        };
        let length = tag.strip_prefix(b"\"")?.iter().position(|&b| b == b'"')? + 2;
        let (opaque, rest) = tag.split_at_checked(length)?;
        list = rest;
        Some(Tag { weak, opaque })
    })
}

/// The value of a field that stands there once.
pub(super) fn single(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

/// A date in seconds since 1970.
fn date(value: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 2_000_000_000;
    const SAME: &str = "Sun, 09 Sep 2001 01:46:40 GMT";
    const BEFORE: &str = "Sun, 09 Sep 2001 01:46:39 GMT";
    const AFTER: &str = "Sun, 09 Sep 2001 01:46:41 GMT";
    /// Of [`file`].
    const TAG: &str = "\"de0b6b3a7640005-14\"";

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    /// 20 bytes, at the time of [`SAME`] and 5 nanoseconds.
    fn file() -> Validators {
        Validators::new(at(1_000_000_000, 5), 20, at(NOW, 0))
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |&(name, value): &(&str, &str)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            headers.append(name, value);
        }
        headers
    }

    fn checked(fields: &[(&str, &str)]) -> Verdict {
        check(&headers(fields), &file())
    }

    #[test]
    fn validators_are_told() {
        let mut told = HeaderMap::new();
        file().put(&mut told);
        assert_eq!(told, headers(&[("etag", TAG), ("last-modified", SAME)]));
        // Other nanoseconds, another file.
        let other = Validators::new(at(1_000_000_000, 6), 20, at(NOW, 0));
        assert_ne!(other.etag, file().etag);
    }

    /// Without a time that means something nothing is told, and no condition holds for it; a time that is still to come is
    /// not told, whatever it is.
    #[test]
    fn times_that_mean_nothing() {
        for time in [
            at(0, 0),
            at(1, 999_999_999),
            UNIX_EPOCH - Duration::from_secs(5),
        ] {
            let none = Validators::new(time, 20, at(NOW, 0));
            let mut told = HeaderMap::new();
            none.put(&mut told);
            assert!(told.is_empty(), "{told:?}");
            let since = |name| check(&headers(&[(name, AFTER)]), &none);
            assert_eq!(since("if-modified-since"), Verdict::Send);
            assert_eq!(since("if-unmodified-since"), Verdict::Send);
            assert_eq!(
                check(&headers(&[("if-match", TAG)]), &none),
                Verdict::Failed
            );
            assert_eq!(check(&headers(&[("if-match", "*")]), &none), Verdict::Send);
            assert!(!range_holds(&headers(&[("if-range", "no date")]), &none));
        }
        // Year 10000: what formats dates panics there.
        for time in [
            at(NOW, 1),
            at(253_402_300_800, 0),
            at(u64::from(u32::MAX) * 1000, 0),
        ] {
            let mut told = HeaderMap::new();
            Validators::new(time, 20, at(NOW, 0)).put(&mut told);
            assert!(told.contains_key(ETAG) && !told.contains_key(LAST_MODIFIED));
        }
    }

    #[test]
    fn in_their_order() {
        use Verdict::{Failed, NotModified, Send};
        let weak = format!("W/{TAG}");
        let listed = format!("\"a,b\" ,, W/\"\u{e9}\"\t,{TAG}");
        let broken = format!("\"a, {TAG}");
        for (fields, expected) in [
            (&[][..], Send),
            (&[("if-match", TAG)], Send),
            (&[("if-match", &weak)], Failed),
            (&[("if-match", "\"x\"")], Failed),
            (&[("if-match", "*")], Send),
            (&[("if-match", &listed)], Send),
            (&[("if-match", &broken)], Failed),
            (&[("if-match", "\"x\""), ("if-match", TAG)], Send),
            (&[("if-unmodified-since", SAME)], Send),
            (&[("if-unmodified-since", AFTER)], Send),
            (&[("if-unmodified-since", BEFORE)], Failed),
            (&[("if-unmodified-since", "no date")], Send),
            // It is not looked at beside If-Match.
            (&[("if-match", TAG), ("if-unmodified-since", BEFORE)], Send),
            (&[("if-none-match", TAG)], NotModified),
            (&[("if-none-match", &weak)], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", &listed)], NotModified),
            (&[("if-none-match", "\"x\"")], Send),
            (&[("if-none-match", &broken)], Send),
            (&[("if-none-match", "")], Send),
            (
                &[("if-none-match", "\"x\""), ("if-none-match", TAG)],
                NotModified,
            ),
            (&[("if-modified-since", SAME)], NotModified),
            (&[("if-modified-since", AFTER)], NotModified),
            (&[("if-modified-since", BEFORE)], Send),
            (&[("if-modified-since", "no date")], Send),
            (
                &[("if-modified-since", AFTER), ("if-modified-since", AFTER)],
                Send,
            ),
            // Nor that beside If-None-Match.
            (
                &[("if-none-match", "\"x\""), ("if-modified-since", AFTER)],
                Send,
            ),
            (
                &[("if-none-match", TAG), ("if-modified-since", BEFORE)],
                NotModified,
            ),
            (&[("if-match", "\"x\""), ("if-none-match", TAG)], Failed),
            (&[("if-match", TAG), ("if-none-match", TAG)], NotModified),
        ] {
            assert_eq!(checked(fields), expected, "{fields:?}");
        }
    }

    /// Whatever it is, it has an end, and only the tag of the file is that.
    #[test]
    fn lists_of_anything() {
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..20_000 {
            let length = random.usize(..24);
            let pick = |_| *random.choice(b"W/\"\"\",, \tx*\xff").unwrap();
            let value: Vec<u8> = (0..length).map(pick).collect();
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, HeaderValue::from_bytes(&value).unwrap());
            let any = value.trim_ascii() == b"*";
            let expected = if any { Verdict::Send } else { Verdict::Failed };
            assert_eq!(check(&headers, &file()), expected, "{headers:?}");
        }
    }

    #[test]
    fn parts_go_with_what_is_the_same() {
        for (value, holds) in [
            (TAG, true),
            (&format!("W/{TAG}"), false),
            ("\"x\"", false),
            ("*", false),
            (&format!("\"x\", {TAG}"), false),
            (&format!("{TAG}, {TAG}"), false),
            (SAME, true),
            ("Sunday, 09-Sep-01 01:46:40 GMT", true),
            (BEFORE, false),
            (AFTER, false),
            ("no date", false),
            ("", false),
        ] {
            let headers = headers(&[("if-range", value)]);
            assert_eq!(range_holds(&headers, &file()), holds, "{value}");
        }
        assert!(range_holds(&HeaderMap::new(), &file()));
        let twice = headers(&[("if-range", TAG), ("if-range", TAG)]);
        assert!(!range_holds(&twice, &file()));
    }
}
