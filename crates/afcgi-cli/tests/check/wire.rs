//! Records and pairs of the breakable server: by hand, so that no mistake of the tool or of the library is made twice.

use crate::mutant::Mutant;

pub(crate) const BEGIN: u8 = 1;
pub(crate) const ABORT: u8 = 2;
pub(crate) const END: u8 = 3;
pub(crate) const PARAMS: u8 = 4;
pub(crate) const STDIN: u8 = 5;
pub(crate) const STDOUT: u8 = 6;
pub(crate) const STDERR: u8 = 7;
pub(crate) const DATA: u8 = 8;
pub(crate) const GET_VALUES: u8 = 9;
pub(crate) const GET_VALUES_RESULT: u8 = 10;
pub(crate) const UNKNOWN_TYPE: u8 = 11;
pub(crate) const CREDIT: u8 = 64;

pub(crate) fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len())
        .expect("a short record")
        .to_be_bytes();
    let id = id.to_be_bytes();
    let mut bytes = vec![1, kind, id[0], id[1], length[0], length[1], 0, 0];
    bytes.extend_from_slice(content);
    bytes
}

pub(crate) fn pair(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for length in [name.len(), value.len()] {
        match length {
            0..=127 => bytes.push(length as u8),
            _ => bytes.extend((length as u32 | 0x8000_0000).to_be_bytes()),
        }
    }
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(value);
    bytes
}

/// What is wrong with pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// They end inside a length.
    CutLength,
    /// They end behind the length of a name.
    NoValueLength,
    /// They end inside a pair with these lengths.
    CutPair(usize, usize),
    /// They are not liked, by a fault.
    Fault,
}

pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The pairs of some content that came in records which begin at `cuts`.
pub(crate) fn pairs(content: &[u8], cuts: &[usize], mutant: Option<Mutant>) -> Result<Pairs, Bad> {
    let is = |other| mutant == Some(other);
    let within = |from: usize, to: usize| cuts.iter().any(|&cut| from < cut && cut < to);
    let (mut at, mut all) = (0, Pairs::new());
    while at < content.len() {
        let begin = at;
        let name = length(content, &mut at, mutant)?.ok_or(Bad::CutLength)?;
        if at == content.len() {
            return Err(Bad::NoValueLength);
        }
        let value = length(content, &mut at, mutant)?.ok_or(Bad::CutLength)?;
        let (names, values, end) = (at, at + name, at + name + value);
        let cut = Bad::CutPair(name, value);
        let name = content.get(names..values).ok_or(cut)?;
        let mut value = content.get(values..end).ok_or(cut)?.to_vec();
        at = end;
        if is(Mutant::RefusesAnEmptyValue) && value.is_empty() && all.is_empty()
            || is(Mutant::RefusesAnEmptyName) && name.is_empty()
            || is(Mutant::RefusesValuesOf64K) && value.len() > 65_535
            || is(Mutant::WantsAnOrder) && all.is_empty() && name == b"HTTP_ACCEPT"
        {
            return Err(Bad::Fault);
        }
        if is(Mutant::Loses128) && value.len() == 128
            || is(Mutant::LosesLongNames) && name.len() >= 200
            || is(Mutant::LosesACutName) && within(names, values)
            || is(Mutant::LosesACutValue) && within(values, end)
            || is(Mutant::LosesACutLength) && within(begin, names)
            || is(Mutant::LosesManyPairs) && all.len() >= 256
        {
            continue;
        }
        if is(Mutant::WantsAscii) {
            value.retain(u8::is_ascii);
        }
        if is(Mutant::CutsLongValues) && (10_000..60_000).contains(&value.len()) {
            value.truncate(10_000);
        }
        all.push((name.to_vec(), value));
    }
    Ok(all)
}

fn length(content: &[u8], at: &mut usize, mutant: Option<Mutant>) -> Result<Option<usize>, Bad> {
    let first = content[*at];
    let most = if mutant == Some(Mutant::Takes127ForLong) {
        127
    } else {
        128
    };
    if first < most {
        *at += 1;
        return Ok(Some(first.into()));
    }
    let Some(bytes) = content[*at..].first_chunk::<4>() else {
        return Ok(None);
    };
    *at += 4;
    let length = (u32::from_be_bytes(*bytes) & 0x7fff_ffff) as usize;
    match mutant == Some(Mutant::RefusesTheLongForm) && length < 128 {
        true => Err(Bad::Fault),
        false => Ok(Some(length)),
    }
}
