//! The bytes of a TCP connection out of its packets, in order.

use std::collections::BTreeMap;

/// Bytes of packets that came before those in front of them.
const AHEAD: usize = 1024 * 1024;
/// Such packets.
const AHEAD_PACKETS: usize = 1000;

/// What one side sends.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// The number of the next byte; `None`: nothing was seen.
    next: Option<u32>,
    ahead: BTreeMap<u32, Vec<u8>>,
    ahead_bytes: usize,
    /// The number of the byte behind the last.
    end: Option<u32>,
    /// Whether bytes are missing: nothing that comes later can be understood.
    pub(super) broken: bool,
    closed: bool,
}

/// How far `to` is ahead of `from`; `None`: behind it.
fn ahead(from: u32, to: u32) -> Option<usize> {
    let distance = to.wrapping_sub(from);
    (distance < 1 << 31).then_some(distance as usize)
}

impl Flow {
    /// It begins with the byte of this number.
    pub(super) fn begin(&mut self, number: u32) {
        if self.next.is_none() {
            self.next = Some(number);
        }
    }

    /// The bytes of a packet: tells of those that are next, and of those that waited for them. False: some are missing for good.
    pub(super) fn push(
        &mut self,
        number: u32,
        bytes: &[u8],
        lost: bool,
        mut tell: impl FnMut(&[u8]),
    ) -> bool {
        if self.broken {
            return true;
        }
        let next = *self.next.get_or_insert(number);
        match ahead(next, number) {
            Some(0) => self.take(bytes, &mut tell),
            Some(_) if bytes.is_empty() => {}
            Some(_) => {
                self.ahead_bytes += bytes.len();
                if let Some(old) = self.ahead.insert(number, bytes.to_vec()) {
                    self.ahead_bytes -= old.len();
                }
                self.broken |= self.ahead_bytes > AHEAD || self.ahead.len() > AHEAD_PACKETS;
            }
            // It was sent again, with more maybe.
            None => {
                let seen = ahead(number, next).unwrap_or_default();
                self.take(bytes.get(seen..).unwrap_or_default(), &mut tell);
            }
        }
        // The end of the packet was not recorded.
        self.broken |= lost;
        if self.broken {
            self.ahead.clear();
        }
        !self.broken
    }

    fn take(&mut self, bytes: &[u8], tell: &mut impl FnMut(&[u8])) {
        let mut next = self.next.unwrap_or_default();
        if !bytes.is_empty() {
            tell(bytes);
            next = next.wrapping_add(bytes.len() as u32);
        }
        // What is behind `next` has been there, or is.
        while let Some((&number, _)) = (self.ahead.iter())
            .find(|(number, _)| ahead(next, **number).is_none_or(|distance| distance == 0))
        {
            let held = self.ahead.remove(&number).unwrap_or_default();
            self.ahead_bytes -= held.len();
            let seen = ahead(number, next).unwrap_or_default();
            if let Some(rest) = held.get(seen..).filter(|rest| !rest.is_empty()) {
                tell(rest);
                next = next.wrapping_add(rest.len() as u32);
            }
        }
        self.next = Some(next);
    }

    /// It ends before the byte of this number.
    pub(super) fn end(&mut self, number: u32) {
        self.end = Some(number);
    }

    /// Whether its end was reached; once.
    pub(super) fn ended(&mut self) -> bool {
        !self.closed && self.end.is_some() && self.end == self.next && {
            self.closed = true;
            true
        }
    }

    /// Whether bytes are missing that were waited for.
    pub(super) fn has_gap(&self) -> bool {
        self.broken || !self.ahead.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(packets: &[(u32, &[u8])]) -> (Vec<u8>, bool) {
        let mut flow = Flow::default();
        let mut all = Vec::new();
        flow.begin(packets[0].0);
        let mut whole = true;
        for (number, bytes) in &packets[1..] {
            whole &= flow.push(*number, bytes, false, |bytes| all.extend(bytes));
        }
        (all, whole && !flow.has_gap())
    }

    #[test]
    fn order_and_repetition() {
        let begin = u32::MAX - 1;
        let at = |offset: u32| begin.wrapping_add(offset);
        for packets in [
            &[(begin, &b""[..]), (at(0), b"abc"), (at(3), b"def")][..],
            &[(begin, b""), (at(3), b"def"), (at(0), b"abc")],
            &[
                (begin, b""),
                (at(0), b"abc"),
                (at(0), b"abc"),
                (at(1), b"bcdef"),
            ],
            &[(begin, b""), (at(4), b"ef"), (at(2), b"cd"), (at(0), b"ab")],
            &[
                (begin, b""),
                (at(2), b"cd"),
                (at(3), b"def"),
                (at(0), b"abc"),
            ],
        ] {
            assert_eq!(told(packets), (b"abcdef".to_vec(), true), "{packets:?}");
        }
        let gap = [(begin, &b""[..]), (at(0), b"abc"), (at(4), b"ef")];
        assert_eq!(told(&gap), (b"abc".to_vec(), false));
    }

    #[test]
    fn what_is_ahead_is_bounded() {
        let mut flow = Flow::default();
        flow.begin(0);
        let mut number = 1_u32;
        while flow.push(number, &[0; 50_000], false, |_| panic!("nothing is next")) {
            number += 50_000;
            assert!((number as usize) < AHEAD + 100_000);
        }
        assert!(flow.ahead.is_empty() && flow.has_gap());
        let mut flow = Flow::default();
        flow.begin(0);
        let mut number = 1_u32;
        while flow.push(number, b"x", false, |_| panic!("nothing is next")) {
            number += 2;
            assert!((number as usize) < 3 * AHEAD_PACKETS);
        }
    }
}
