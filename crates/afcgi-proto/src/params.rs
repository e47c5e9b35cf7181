//! Name-value pairs (R-20 to R-22) and the parameters of a request.
//!
//! A request's PARAMS content is collected in one buffer, checked once when the stream ends, and
//! then read in place: no map, no copy of names or values.

use std::fmt;

use bytes::Bytes;

use crate::error::RequestError;
use crate::record::MAX_CONTENT;

/// Appends a name-value pair in its shortest form (R-20). Lengths of 2^31 and more cannot be
/// written: such a pair is left out and `false` returned.
///
/// ```
/// let mut out = Vec::new();
/// assert!(afcgi_proto::params::encode_pair(&mut out, b"A", b"bc"));
/// assert_eq!(out, b"\x01\x02Abc");
/// ```
pub fn encode_pair(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> bool {
    let (Some(name_length), Some(value_length)) = (length(name), length(value)) else {
        return false;
    };
    for length in [name_length, value_length] {
        match u8::try_from(length) {
            Ok(short) if short < 0x80 => out.push(short),
            _ => out.extend_from_slice(&(length | 0x8000_0000).to_be_bytes()),
        }
    }
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    true
}

fn length(bytes: &[u8]) -> Option<u32> {
    u32::try_from(bytes.len()).ok().filter(|&n| n < 0x8000_0000)
}

/// A pair reaches beyond the end of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A name and its value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// Takes a pair off the front of `input`; `None` at the end.
#[inline]
pub fn decode_pair<'a>(input: &mut &'a [u8]) -> Result<Option<Pair<'a>>, Malformed> {
    // Nearly all lengths are short: those need one look at the input, not four.
    if let [name_length @ ..0x80, value_length @ ..0x80, rest @ ..] = input {
        let name_length = usize::from(*name_length);
        let end = name_length.saturating_add(usize::from(*value_length));
        let (pair, rest) = rest.split_at_checked(end).ok_or(Malformed)?;
        *input = rest;
        return Ok(pair.split_at_checked(name_length));
    }
    decode_long_pair(input)
}

/// As [`decode_pair`], for lengths of either form, and at the end.
#[cold]
fn decode_long_pair<'a>(input: &mut &'a [u8]) -> Result<Option<Pair<'a>>, Malformed> {
    if input.is_empty() {
        return Ok(None);
    }
    let name_length = decode_length(input)?;
    let value_length = decode_length(input)?;
    let (name, rest) = input.split_at_checked(name_length).ok_or(Malformed)?;
    let (value, rest) = rest.split_at_checked(value_length).ok_or(Malformed)?;
    *input = rest;
    Ok(Some((name, value)))
}

/// Content of PARAMS that is being cut into records, between pairs only: PHP-FPM reads each record by
/// itself, and closes the connection if a pair is cut. No rule asks for that (R-06), but no web server
/// that it was tried with cuts pairs.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    /// What is left of a pair that is longer than any record.
    left: usize,
}

impl Cutter {
    /// How much of `content`, which begins with a pair or with the rest of one that was cut, goes into
    /// the next record: as many pairs as have `room`, or the first alone if it is not longer than `most`.
    /// 0: there is no room for it yet. `content` that ends inside a pair is not cut before its end.
    pub(crate) fn next(&mut self, content: &[u8], room: usize, most: usize) -> usize {
        if self.left > 0 {
            let count = self.left.min(content.len()).min(room);
            self.left = self.left.saturating_sub(count);
            return count;
        }
        if content.len() <= room {
            return content.len();
        }
        let mut count = 0_usize;
        let first = loop {
            let rest = content.get(count..).unwrap_or_default();
            let length = pair_length(rest).unwrap_or(rest.len());
            let end = count.saturating_add(length);
            if end > room {
                break length;
            }
            count = end;
        };
        if count > 0 {
            return count;
        }
        if first <= most {
            return first.min(content.len());
        }
        if first <= MAX_CONTENT {
            return 0;
        }
        let count = room.min(content.len());
        self.left = first.saturating_sub(count);
        count
    }
}

/// How long the pair is that begins here; `None` if not even its lengths are here.
fn pair_length(content: &[u8]) -> Option<usize> {
    let mut rest = content;
    let name_length = decode_length(&mut rest).ok()?;
    let value_length = decode_length(&mut rest).ok()?;
    let lengths = content.len().saturating_sub(rest.len());
    Some(
        lengths
            .saturating_add(name_length)
            .saturating_add(value_length),
    )
}

fn decode_length(input: &mut &[u8]) -> Result<usize, Malformed> {
    let (&first, rest) = input.split_first().ok_or(Malformed)?;
    if first < 0x80 {
        *input = rest;
        return Ok(usize::from(first));
    }
    let (bytes, rest) = input.split_first_chunk::<4>().ok_or(Malformed)?;
    *input = rest;
    let length = u32::from_be_bytes(*bytes) & 0x7fff_ffff;
    usize::try_from(length).map_err(|_| Malformed)
}

/// The parameters of a request: checked, in their order on the wire, duplicates kept.
///
/// Cloning is cheap (a reference count).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Params {
    bytes: Bytes,
    count: usize,
}

impl Params {
    /// Checks PARAMS content that is complete.
    ///
    /// Fails with [`RequestError::MalformedParams`] or, above `max_pairs`, with
    /// [`RequestError::TooManyParams`].
    pub fn parse(bytes: Bytes, max_pairs: usize) -> Result<Self, RequestError> {
        let mut rest = &bytes[..];
        let mut count = 0_usize;
        while decode_pair(&mut rest)
            .map_err(|Malformed| RequestError::MalformedParams)?
            .is_some()
        {
            count = count.saturating_add(1);
            if count > max_pairs {
                return Err(RequestError::TooManyParams);
            }
        }
        Ok(Self { bytes, count })
    }

    /// How many pairs there are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The pairs as they came on the wire.
    pub fn as_encoded(&self) -> &Bytes {
        &self.bytes
    }

    /// Name and value of each pair, in order. Both may be empty and hold any byte (R-21).
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.bytes }
    }

    /// The value of the first pair with this name.
    ///
    /// The time is linear in the number of pairs: to look at many, iterate once.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        let name = name.as_ref();
        self.iter().find(|pair| pair.0 == name).map(|pair| pair.1)
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| {
                (
                    name.escape_ascii().to_string(),
                    value.escape_ascii().to_string(),
                )
            }))
            .finish()
    }
}

impl<'a> IntoIterator for &'a Params {
    type Item = Pair<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The pairs of [`Params`], in order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = Pair<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        // The bytes were checked when the `Params` was made.
        decode_pair(&mut self.rest).ok().flatten()
    }
}

/// PARAMS content of a request whose stream has not ended.
///
/// Invariant: never longer than the limit that is passed to [`Collector::push`].
#[derive(Debug, Default)]
pub(crate) struct Collector {
    bytes: Vec<u8>,
}

impl Collector {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn push(&mut self, content: &[u8], max_bytes: usize) -> Result<(), RequestError> {
        if self.bytes.len().saturating_add(content.len()) > max_bytes {
            return Err(RequestError::ParamsTooLong);
        }
        self.bytes.extend_from_slice(content);
        Ok(())
    }

    pub(crate) fn finish(self, max_pairs: usize) -> Result<Params, RequestError> {
        Params::parse(Bytes::from(self.bytes.into_boxed_slice()), max_pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Owned = (Vec<u8>, Vec<u8>);

    fn pairs(bytes: &[u8]) -> Result<Vec<Owned>, RequestError> {
        let params = Params::parse(Bytes::copy_from_slice(bytes), 1000)?;
        assert_eq!(params.len(), params.iter().count());
        Ok(params
            .iter()
            .map(|(n, v)| (n.to_vec(), v.to_vec()))
            .collect())
    }

    #[test]
    fn r20_short_and_long_lengths_golden_bytes() {
        let mut out = Vec::new();
        assert!(encode_pair(&mut out, &[b'n'; 127], &[b'v'; 128]));
        assert_eq!(out[..5], [127, 0x80, 0, 0, 128]);
        assert_eq!(out.len(), 5 + 127 + 128);
        assert_eq!(pairs(&out), Ok(vec![(vec![b'n'; 127], vec![b'v'; 128])]));
    }

    #[test]
    fn r21_long_form_for_short_lengths() {
        let bytes = b"\x80\x00\x00\x01\x80\x00\x00\x02Abc";
        assert_eq!(pairs(bytes), Ok(vec![(b"A".to_vec(), b"bc".to_vec())]));
    }

    #[test]
    fn r21_empty_names_values_and_any_byte() {
        let bytes = b"\x00\x00\x01\x00N\x00\x01V\x02\x02\x00\xff\x80\n";
        assert_eq!(
            pairs(bytes),
            Ok(vec![
                (vec![], vec![]),
                (b"N".to_vec(), vec![]),
                (vec![], b"V".to_vec()),
                (vec![0, 0xff], vec![0x80, b'\n']),
            ])
        );
    }

    #[test]
    fn r22_lengths_beyond_the_stream() {
        let hostile: [&[u8]; 7] = [
            b"\x01",
            b"\x01\x01A",
            b"\x05\x00abc",
            b"\x80\x00\x00",
            b"\x80\x00\x00\x01",
            b"\xff\xff\xff\xff\xff\xff\xff\xffab",
            b"\x00\xff\xff\xff\xff",
        ];
        for bytes in hostile {
            assert_eq!(
                pairs(bytes),
                Err(RequestError::MalformedParams),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn every_truncation_is_malformed_or_shorter() {
        let mut out = Vec::new();
        encode_pair(&mut out, b"NAME", &[1; 200]);
        for cut in 1..out.len() {
            assert_eq!(
                pairs(&out[..cut]),
                Err(RequestError::MalformedParams),
                "{cut}"
            );
        }
    }

    #[test]
    fn pairs_are_limited() {
        let bytes = Bytes::from_static(b"\x00\x00\x00\x00\x00\x00");
        assert!(Params::parse(bytes.clone(), 3).is_ok());
        assert_eq!(Params::parse(bytes, 2), Err(RequestError::TooManyParams));
    }

    #[test]
    fn bytes_are_limited() {
        let mut collector = Collector::default();
        assert_eq!(collector.push(&[0; 10], 10), Ok(()));
        assert_eq!(collector.push(&[0], 10), Err(RequestError::ParamsTooLong));
        assert_eq!(collector.len(), 10);
    }

    #[test]
    fn get_returns_the_first_of_duplicates() {
        let mut out = Vec::new();
        encode_pair(&mut out, b"A", b"1");
        encode_pair(&mut out, b"A", b"2");
        let params = Params::parse(out.into(), 10).unwrap();
        assert_eq!(params.get("A"), Some(&b"1"[..]));
        assert_eq!(params.get("B"), None);
        assert_eq!(params.len(), 2);
        assert_eq!(format!("{params:?}"), r#"{"A": "1", "A": "2"}"#);
    }
}
