//! What is due by the clock: requests that are late or to be aborted, connections that are not opened or closed in time.

use std::io;
use std::time::Duration;

use super::super::shared::Shared;
use super::super::slot::{Phase, Sent};
use super::super::stats::Kind;
use super::{Connection, SPENT, State};

/// How long the application has to close a connection that was not to be kept, in nanoseconds.
const CLOSING: u64 = 100_000_000;

impl Connection {
    /// Aborts every request on it.
    pub(in super::super) fn abort_all(&mut self, shared: &mut Shared) {
        for index in 0..self.slots.len() {
            self.abort(index, Phase::Aborting, shared.now);
        }
        self.flush(shared);
    }

    /// Sends ABORT_REQUEST for an active request, if the application knows of it.
    fn abort(&mut self, index: usize, phase: Phase, now: u64) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if slot.phase != Phase::Active || slot.sent == Sent::Nothing {
            return;
        }
        (slot.phase, slot.begun) = (phase, now);
        let [high, low] = (index as u16 + 1).to_be_bytes();
        self.output
            .extend_from_slice(&[1, 2, high, low, 0, 0, 0, 0]);
    }

    /// Does what has become due by the clock.
    pub(in super::super) fn scan(&mut self, shared: &mut Shared) {
        let (now, config) = (shared.now, &shared.config);
        let (timeout, patience) = (config.timeout, config.patience);
        let abort_after = config.abort_after;
        let single = config.concurrent == 1;
        match self.state {
            State::Connecting { since } if now - since > timeout => {
                return self.cannot_connect(shared, &io::ErrorKind::TimedOut.into());
            }
            State::Finishing { since } if now - since > CLOSING => {
                return self.close(shared, now);
            }
            State::Open => {}
            _ => return,
        }
        let (mut late, mut unheeded) = (0, 0);
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(index) else {
                break;
            };
            let age = now.saturating_sub(slot.begun);
            match slot.phase {
                Phase::Active if age > patience => {
                    late += 1;
                    self.abandon(index, shared);
                }
                Phase::Active if slot.aborts && age >= abort_after => {
                    self.abort(index, Phase::Aborting, now);
                }
                Phase::Aborting if age > timeout => {
                    unheeded += 1;
                    slot.phase = Phase::Abandoned;
                    self.open -= 1;
                    shared.in_flight -= 1;
                }
                _ => {}
            }
        }
        let text = || format!("no end within {:?}", Duration::from_nanos(timeout));
        if late > 0 {
            shared.stats.fail(Kind::TimedOut, late, text);
        }
        if unheeded > 0 {
            shared.stats.fail(Kind::Unheeded, unheeded, text);
        }
        if single && late + unheeded > 0 || self.retiring && self.open == 0 {
            // Of one request at a time it is the end of the connection.
            return self.close(shared, now);
        }
        self.fill(shared);
    }

    /// Gives an active request up, and its place to another.
    fn abandon(&mut self, index: usize, shared: &mut Shared) {
        self.abort(index, Phase::Abandoned, shared.now);
        if let Some(slot) = self.slots.get_mut(index) {
            if slot.phase == Phase::Active {
                // Nothing of it was sent.
                slot.phase = Phase::Spent;
            }
            slot.clear(&mut shared.held);
            self.open -= 1;
            shared.in_flight -= 1;
            self.spent += 1;
            self.retiring |= self.spent > SPENT;
        }
    }
}
