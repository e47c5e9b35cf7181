//! Flow control of one request: how much this side may still send, and how much the peer may.
//!
//! An extension that both sides must have agreed on (`docs/flow-control.md`). Only content of
//! streams counts: STDOUT and STDERR together one way, STDIN and DATA together the other way.

use crate::error::RequestError;
use crate::record::BODY_LEN;

/// The most credit that may be outstanding, in bytes.
pub const MAX_CREDIT: u32 = (1 << 31) - 1;

/// The body of a CREDIT record.
pub(crate) fn encode(increment: u32) -> [u8; BODY_LEN] {
    let [i3, i2, i1, i0] = increment.to_be_bytes();
    [i3, i2, i1, i0, 0, 0, 0, 0]
}

/// The increment that a CREDIT record brings.
pub(crate) fn parse(body: &[u8; BODY_LEN]) -> u32 {
    let &[i3, i2, i1, i0, ..] = body;
    u32::from_be_bytes([i3, i2, i1, i0])
}

/// The flow control of one request, seen from one side.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Bytes that this side may still send.
    left: u32,
    /// Whether the sender waits for credit.
    waiting: bool,
    window: Window,
}

/// What the peer may send.
///
/// Invariant: `outstanding` + what was received and not consumed + `consumed` = `size`, so a peer
/// that keeps to its credit never makes this side hold more than `size` bytes.
#[derive(Debug)]
struct Window {
    size: u32,
    /// Credit that the peer has and has not used.
    outstanding: u32,
    /// Bytes that the consumer has taken and the peer has not been told of.
    consumed: u32,
}

/// The smallest window that a request begins with when many are active, in bytes.
pub const SMALLEST_WINDOW: usize = 4 * 1024;
/// A request begins with this part of what is left of the budget at most, so that many requests
/// have small windows, and none has none.
const PART: i64 = 64;

/// What windows may hold, on all requests of a connection together.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The largest window of one request, in bytes.
    most: u32,
    /// Bytes that are left for windows. Below 0 where requests began with the smallest window when
    /// nothing was left.
    left: i64,
    /// Bytes of `left` that no window grows by: they are for requests that begin.
    reserve: i64,
}

impl Budget {
    /// `most`: bytes of the largest window; `total`: bytes by which all windows of a connection
    /// together may exceed what they began with.
    pub(crate) fn of_growth(most: usize, total: usize) -> Self {
        Self {
            most: clamp(most),
            left: i64::try_from(total).unwrap_or(i64::MAX),
            reserve: 0,
        }
    }

    /// `most`: bytes of the largest window; `total`: bytes of all windows together. Half of that is
    /// kept for requests that begin.
    pub(crate) fn of_windows(most: usize, total: usize) -> Self {
        let total = i64::try_from(total).unwrap_or(i64::MAX);
        Self {
            most: clamp(most),
            left: total,
            reserve: total.checked_div(2).unwrap_or_default(),
        }
    }

    /// Takes the window that a request begins with: `wanted` bytes, fewer as less is left.
    pub(crate) fn begin(&mut self, wanted: u32) -> u32 {
        let part = self.left.checked_div(PART).unwrap_or_default();
        let least = clamp(SMALLEST_WINDOW).min(wanted);
        let window = u32::try_from(part.max(0)).unwrap_or(u32::MAX);
        let window = window.clamp(least, wanted.max(least));
        self.left = self.left.saturating_sub(window.into());
        window
    }

    /// Takes what a window may grow by: it doubles, as long as there is something left.
    fn take(&mut self, size: u32) -> u32 {
        let left = self.left.saturating_sub(self.reserve).max(0);
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let growth = size.min(self.most.saturating_sub(size)).min(left);
        self.left = self.left.saturating_sub(growth.into());
        growth
    }
}

/// A number of bytes as initial credit.
pub(crate) fn clamp(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(MAX_CREDIT).min(MAX_CREDIT)
}

/// The same, and never nothing: who may send nothing is never given more.
pub(crate) fn initial(bytes: usize) -> u32 {
    clamp(bytes).max(1)
}

impl Flow {
    /// `left`: what the peer granted; `window`: what the peer was granted.
    pub(crate) fn new(left: u32, window: u32) -> Self {
        Self {
            left,
            waiting: false,
            window: Window {
                size: window,
                outstanding: window,
                consumed: 0,
            },
        }
    }

    /// Bytes that may be sent now.
    pub(crate) fn left(&self) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX)
    }

    /// Takes note of content that was sent: no more than [`Flow::left`].
    pub(crate) fn sent(&mut self, count: usize) {
        self.left = self
            .left
            .saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// The sender has more to send than it has credit for.
    pub(crate) fn wait(&mut self) {
        self.waiting = true;
    }

    /// Takes note of credit that came. `true`: the sender waited for it.
    pub(crate) fn credit(&mut self, increment: u32) -> Result<bool, RequestError> {
        self.left = self
            .left
            .checked_add(increment)
            .filter(|&sum| sum <= MAX_CREDIT)
            .ok_or(RequestError::CreditOverflow)?;
        Ok(self.left > 0 && std::mem::take(&mut self.waiting))
    }

    /// The request ends: whoever waits for credit waits no more. `true`: somebody did.
    pub(crate) fn release(&mut self) -> bool {
        std::mem::take(&mut self.waiting)
    }

    /// Takes note of content that was received.
    pub(crate) fn received(&mut self, count: usize) -> Result<(), RequestError> {
        self.window.outstanding = u32::try_from(count)
            .ok()
            .and_then(|count| self.window.outstanding.checked_sub(count))
            .ok_or(RequestError::CreditExceeded)?;
        Ok(())
    }

    /// Takes note of content that the consumer took; `emptied`: nothing else has come so far, the
    /// consumer keeps up. The result is to be sent to the peer: half a window at least, so that
    /// there is one record for many reads.
    pub(crate) fn consumed(
        &mut self,
        count: usize,
        emptied: bool,
        budget: &mut Budget,
    ) -> Option<u32> {
        let window = &mut self.window;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        window.consumed = window.consumed.saturating_add(count);
        if window.consumed < window.size.div_ceil(2).max(1) {
            return None;
        }
        let more = if emptied { budget.take(window.size) } else { 0 };
        window.size = window.size.saturating_add(more);
        let increment = std::mem::take(&mut window.consumed).saturating_add(more);
        window.outstanding = window.outstanding.saturating_add(increment);
        Some(increment)
    }

    /// Gives back what the window has taken of the budget: all of it but the `free` bytes that it
    /// began with where those were not counted.
    pub(crate) fn close(&self, free: u32, budget: &mut Budget) {
        let taken = self.window.size.saturating_sub(free);
        budget.left = budget.left.saturating_add(taken.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_growth() -> Budget {
        Budget::of_growth(0, 0)
    }

    #[test]
    fn the_sender_keeps_to_its_credit() {
        let mut flow = Flow::new(10, 0);
        assert_eq!(flow.left(), 10);
        flow.sent(10);
        assert_eq!(flow.left(), 0);
        assert_eq!(flow.credit(5), Ok(false));
        flow.sent(5);
        flow.wait();
        assert_eq!(flow.credit(0), Ok(false), "no credit is no reason to go on");
        assert_eq!(flow.credit(7), Ok(true));
        assert_eq!(flow.credit(7), Ok(false));
        assert_eq!(flow.left(), 14);
        flow.wait();
        assert!(flow.release() && !flow.release());
    }

    #[test]
    fn credit_is_limited_to_31_bits() {
        let mut flow = Flow::new(1, 0);
        assert_eq!(flow.credit(MAX_CREDIT - 1), Ok(false));
        assert_eq!(flow.credit(1), Err(RequestError::CreditOverflow));
        let mut flow = Flow::new(0, 0);
        assert_eq!(flow.credit(u32::MAX), Err(RequestError::CreditOverflow));
    }

    #[test]
    fn the_peer_keeps_to_its_credit() {
        let mut flow = Flow::new(0, 100);
        assert_eq!(flow.received(60), Ok(()));
        assert_eq!(flow.received(40), Ok(()));
        assert_eq!(flow.received(1), Err(RequestError::CreditExceeded));
    }

    #[test]
    fn consumption_is_told_by_half_windows() {
        let mut flow = Flow::new(0, 100);
        let mut growth = no_growth();
        flow.received(100).unwrap();
        assert_eq!(flow.consumed(49, false, &mut growth), None);
        assert_eq!(flow.consumed(1, false, &mut growth), Some(50));
        assert_eq!(flow.consumed(50, true, &mut growth), Some(50));
        assert_eq!(flow.received(100), Ok(()));
        assert_eq!(flow.received(1), Err(RequestError::CreditExceeded));
    }

    #[test]
    fn a_window_grows_for_a_consumer_that_keeps_up() {
        let mut growth = Budget::of_growth(400, 1000);
        let mut flow = Flow::new(0, 100);
        flow.received(100).unwrap();
        // Not for one that does not.
        assert_eq!(flow.consumed(60, false, &mut growth), Some(60));
        flow.received(60).unwrap();
        assert_eq!(flow.consumed(100, true, &mut growth), Some(200));
        flow.received(200).unwrap();
        assert_eq!(flow.consumed(200, true, &mut growth), Some(400));
        flow.received(400).unwrap();
        assert_eq!(flow.consumed(400, true, &mut growth), Some(400));
        flow.close(100, &mut growth);
        assert_eq!(growth.left, 1000);
    }

    #[test]
    fn many_requests_begin_with_smaller_windows() {
        const TOTAL: usize = 64 << 20;
        let mut budget = Budget::of_windows(1 << 20, TOTAL);
        let wanted = 256 * 1024;
        let mut flows = Vec::new();
        let mut held = 0;
        for n in 0..16_384 {
            let window = budget.begin(wanted);
            assert!(n >= 100 || window == wanted, "{n}: {window}");
            assert!(window as usize >= SMALLEST_WINDOW);
            held += window as usize;
            flows.push(Flow::new(0, window));
        }
        assert!(held <= TOTAL + 16_384 * SMALLEST_WINDOW, "{held}");
        for flow in flows {
            flow.close(0, &mut budget);
        }
        assert_eq!(budget.left, TOTAL as i64);
        assert_eq!(budget.begin(100), 100, "no more than was wanted");
    }

    #[test]
    fn windows_that_grow_leave_half_to_others() {
        const TOTAL: u32 = 64 << 20;
        let mut budget = Budget::of_windows(1 << 30, TOTAL as usize);
        let mut flow = Flow::new(0, budget.begin(1 << 18));
        for _ in 0..20 {
            let all = flow.window.outstanding;
            flow.received(all as usize).unwrap();
            flow.consumed(all as usize, true, &mut budget);
        }
        assert_eq!(flow.window.size, TOTAL / 2);
        assert_eq!(budget.begin(1 << 18), 1 << 18);
    }

    #[test]
    fn all_windows_together_are_bounded() {
        let mut growth = Budget::of_growth(1 << 20, 150);
        let mut grown = 0;
        for _ in 0..5 {
            let mut flow = Flow::new(0, 100);
            flow.received(100).unwrap();
            grown += flow.consumed(100, true, &mut growth).unwrap() - 100;
        }
        assert_eq!(grown, 150);
    }

    #[test]
    fn body_golden_bytes() {
        assert_eq!(encode(0x0102_0304), [1, 2, 3, 4, 0, 0, 0, 0]);
        assert_eq!(parse(&[1, 2, 3, 4, 9, 9, 9, 9]), 0x0102_0304);
    }
}
