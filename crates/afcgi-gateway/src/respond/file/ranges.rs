//! Which parts of a file a client asks for (RFC 9110 section 14).
//!
//! A Range that is none, or asks for more than there is, is not heeded: the file is sent as a whole, which is never wrong.
//! So a response never has more of a file than the file has, whatever ranges are asked for and however they overlap.

use std::ops::Range;

use http::HeaderMap;
use http::header::RANGE;

use super::conditions::single;

/// How many ranges are looked at. A response has about 130 bytes for each beside the file's.
const MOST: usize = 64;

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ranges {
    /// All of it.
    Whole,
    /// None of what is asked for is there: 416.
    Unsatisfiable,
    /// One part, at least a byte long.
    One(Range<u64>),
    /// Several, in the order in which they were asked for, together no longer than the file.
    Several(Vec<Range<u64>>),
}

/// Finds what is asked for of a file of so many bytes.
pub(super) fn of(headers: &HeaderMap, length: u64) -> Ranges {
    let value = single(headers, RANGE);
    value
        .and_then(|value| parse(value, length))
        .unwrap_or(Ranges::Whole)
}

/// `None`: it is not to be heeded.
fn parse(value: &[u8], length: u64) -> Option<Ranges> {
    let (unit, set) = cut(value, b'=')?;
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let specs = set
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|spec| !spec.is_empty());
    let (mut ranges, mut count, mut total) = (Vec::new(), 0, 0_u64);
    for spec in specs {
        count += 1;
        if count > MOST {
            return None;
        }
        let range = range(spec, length)?;
        if !range.is_empty() {
            total = total.saturating_add(range.end - range.start);
            ranges.push(range);
        }
    }
    // Of nothing there are no parts, though some clients ask for them always.
    if count == 0 || length == 0 || total > length {
        return None;
    }
    Some(match ranges.as_slice() {
        [] => Ranges::Unsatisfiable,
        [range] => Ranges::One(range.clone()),
        _ => Ranges::Several(ranges),
    })
}

/// The part of a file that one range asks for, empty where there is none. `None`: it is no range.
fn range(spec: &[u8], length: u64) -> Option<Range<u64>> {
    Some(match cut(spec, b'-')? {
        (b"", last) => length.saturating_sub(number(last)?)..length,
        (first, b"") => number(first)?.min(length)..length,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first.min(length)..last.saturating_add(1).min(length)
        }
    })
}

fn cut(value: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let found = value.iter().position(|&byte| byte == at)?;
    Some((value.get(..found)?, value.get(found + 1..)?))
}

/// A number of digits; one that is too large for a file is as good as the largest.
fn number(digits: &[u8]) -> Option<u64> {
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| {
        digits.iter().fold(0_u64, |number, digit| {
            number
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &str, length: u64) -> Ranges {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, value.parse().unwrap());
        of(&headers, length)
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "that is what is meant")]
    fn of_twenty_bytes() {
        let huge = "9".repeat(40);
        let parts = |value: &str| match asked(value, 20) {
            Ranges::Whole => None,
            Ranges::Unsatisfiable => Some(vec![]),
            Ranges::One(range) => Some(vec![range]),
            Ranges::Several(ranges) => Some(ranges),
        };
        for (value, expected) in [
            ("bytes=0-0", Some(vec![0..1])),
            ("bytes=2-4", Some(vec![2..5])),
            ("BYTES=2-4", Some(vec![2..5])),
            ("bytes=19-", Some(vec![19..20])),
            ("bytes=0-19", Some(vec![0..20])),
            ("bytes=0-300", Some(vec![0..20])),
            ("bytes=-3", Some(vec![17..20])),
            ("bytes=-20", Some(vec![0..20])),
            ("bytes=-300", Some(vec![0..20])),
            (&format!("bytes=-{huge}"), Some(vec![0..20])),
            (&format!("bytes=4-{huge}"), Some(vec![4..20])),
            (&format!("bytes=4-{}", u64::MAX), Some(vec![4..20])),
            ("bytes=20-", Some(vec![])),
            ("bytes=20-30", Some(vec![])),
            ("bytes=-0", Some(vec![])),
            (&format!("bytes={huge}-"), Some(vec![])),
            ("bytes=99-,-0", Some(vec![])),
            ("bytes=0-1,4-5", Some(vec![0..2, 4..6])),
            ("bytes= 0-1 ,\t4-5 ,", Some(vec![0..2, 4..6])),
            ("bytes=-2,0-1", Some(vec![18..20, 0..2])),
            ("bytes=0-1,99-", Some(vec![0..2])),
            ("bytes=0-9,5-14", Some(vec![0..10, 5..15])),
            // More than there is.
            ("bytes=0-,0-", None),
            ("bytes=0-10,10-19", None),
            // None at all.
            ("lines=0-1", None),
            ("bytes", None),
            ("bytes=", None),
            ("bytes=,", None),
            ("bytes=-", None),
            ("bytes=--1", None),
            ("bytes=5-2", None),
            ("bytes=0-1,5-2", None),
            ("bytes=+1-2", None),
            ("bytes=1-2-3", None),
            ("bytes=0x1-2", None),
            ("bytes=1 - 2", None),
            ("bytes =1-2", None),
            (" bytes=1-2", None),
            ("2-4", None),
        ] {
            assert_eq!(parts(value), expected, "{value}");
        }
    }

    #[test]
    fn so_many() {
        let list = |count| vec!["0-0"; count].join(",");
        let of = |count| asked(&format!("bytes={}", list(count)), 1000);
        assert_eq!(of(MOST), Ranges::Several(vec![0..1; MOST]));
        assert_eq!(of(MOST + 1), Ranges::Whole);
        // As CVE-2011-3192 has it.
        let all: Vec<_> = (0..1300).map(|first| format!("5-{first}")).collect();
        let value = format!("bytes=0-,{}", all.join(","));
        assert_eq!(asked(&value, 1 << 30), Ranges::Whole);
        let halves = ["0-499"; 3].join(",");
        assert_eq!(asked(&format!("bytes={halves}"), 1000), Ranges::Whole);
        let all = vec![format!("0-{}", u64::MAX); MOST].join(",");
        assert_eq!(
            asked(&format!("bytes={all}"), i64::MAX as u64),
            Ranges::Whole
        );
    }

    /// Whatever is asked for, there is no more of it than of the file.
    #[test]
    fn of_anything() {
        let mut random = fastrand::Rng::with_seed(4);
        let mut heeded = 0;
        for _ in 0..100_000 {
            let length = random.u64(..12);
            let count = random.usize(..16);
            let pick = |_| char::from(*random.choice(b"0123456789--,, \tx").unwrap());
            let set: String = (0..count).map(pick).collect();
            let ranges = match asked(&format!("bytes={set}"), length) {
                Ranges::Whole | Ranges::Unsatisfiable => continue,
                Ranges::One(range) => vec![range],
                Ranges::Several(ranges) => ranges,
            };
            heeded += 1;
            let within = |range: &Range<u64>| range.start < range.end && range.end <= length;
            assert!(ranges.iter().all(within), "{set} of {length}: {ranges:?}");
            let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            assert!(total <= length, "{set} of {length}: {ranges:?}");
        }
        assert!(heeded > 1000, "{heeded}");
    }

    #[test]
    fn of_nothing_and_twice() {
        for value in ["bytes=0-", "bytes=-5", "bytes=-0", "bytes=3-4"] {
            assert_eq!(asked(value, 0), Ranges::Whole, "{value}");
        }
        let mut headers = HeaderMap::new();
        headers.append(RANGE, "bytes=0-1".parse().unwrap());
        headers.append(RANGE, "bytes=2-3".parse().unwrap());
        assert_eq!(of(&headers, 20), Ranges::Whole);
    }
}
