//! What an id of a connection is used for: a request, and what has come of its answer.

use super::expect::{Check, Wrong};
use super::shared::Shared;
use super::stats::Kind;

/// The longest answer that is compared as a whole with those after it.
const LEARNED: usize = 16 * 1024;

/// ```text
/// Free ──> Active ──> Aborting ──> Spent
///   ^        │ └────> Abandoned ─────^
///   └────────┘
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// No request.
    #[default]
    Free,
    /// A request whose answer is waited for.
    Active,
    /// It was aborted on purpose, and its end is waited for.
    Aborting,
    /// It has failed, and nobody waits for it.
    Abandoned,
    /// An id that is not used again.
    Spent,
}

/// How much of a request was put in the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sent {
    #[default]
    Nothing,
    Part,
    All,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    Nothing,
    /// One record, equal to the last right answer.
    Learned,
    /// In `check`.
    Checked,
    /// STDOUT has ended.
    Ended { learned: bool },
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) phase: Phase,
    pub(super) sent: Sent,
    answer: Answer,
    /// Whether anything has come of it.
    pub(super) touched: bool,
    /// Whether it was lost with another connection before.
    pub(super) resent: bool,
    /// Whether there was something on STDERR.
    pub(super) noisy: bool,
    /// Whether it is to be aborted.
    pub(super) aborts: bool,
    /// When it was to be begun.
    pub(super) due: u64,
    /// When it was begun; then, when it was aborted.
    pub(super) begun: u64,
    /// As new between two requests.
    check: Option<Box<Check>>,
}

impl Slot {
    #[inline]
    pub(super) fn begin(&mut self, due: u64, now: u64, resent: bool) {
        let check = self.check.take();
        *self = Self {
            phase: Phase::Active,
            due,
            begun: now,
            resent,
            check,
            ..Self::default()
        };
    }

    /// Forgets what was held of its answer.
    pub(super) fn clear(&mut self, held: &mut usize) {
        if let Some(check) = &mut self.check {
            check.clear(held);
        }
    }

    /// A piece of STDOUT.
    #[inline]
    pub(super) fn stdout(
        &mut self,
        content: &[u8],
        whole: bool,
        shared: &mut Shared,
    ) -> Result<(), String> {
        self.touched = true;
        match self.answer {
            Answer::Ended { .. } => return Err(String::from("STDOUT after its end")),
            answer if content.is_empty() => {
                let learned = answer == Answer::Learned;
                self.answer = Answer::Ended { learned };
                return Ok(());
            }
            Answer::Nothing if whole && content == shared.learned => {
                self.answer = Answer::Learned;
                return Ok(());
            }
            _ => {}
        }
        self.check(content, whole, shared);
        Ok(())
    }

    fn check(&mut self, content: &[u8], whole: bool, shared: &mut Shared) {
        let (expect, held) = (&shared.config.expect, &mut shared.held);
        let check = self.check.get_or_insert_default();
        match self.answer {
            Answer::Nothing => {
                if whole && shared.lessons > 0 && content.len() <= LEARNED {
                    let only = check.only.get_or_insert_default();
                    only.clear();
                    only.extend_from_slice(content);
                } else {
                    check.only = None;
                }
            }
            Answer::Learned => {
                // It was taken for the whole answer, and more has come.
                check.feed(&shared.learned, expect, held);
                check.only = None;
            }
            Answer::Checked | Answer::Ended { .. } => check.only = None,
        }
        check.feed(content, expect, held);
        self.answer = Answer::Checked;
    }

    /// END_REQUEST: counts what became of it.
    #[inline]
    pub(super) fn end(&mut self, app_status: u32, protocol_status: u8, shared: &mut Shared) {
        let learned = matches!(
            self.answer,
            Answer::Learned | Answer::Ended { learned: true }
        );
        let result = if app_status != 0 || protocol_status != 0 || self.noisy || !learned {
            self.judge(app_status, protocol_status, learned, shared)
        } else {
            Ok((shared.learned_status, shared.learned_length))
        };
        match result {
            Ok((status, length)) => {
                let stats = &mut shared.stats;
                stats.completed += 1;
                stats.body_in += length;
                if let Some(count) = stats.statuses.get_mut(usize::from(status)) {
                    *count += 1;
                }
                let took = shared.now.saturating_sub(self.due).max(1);
                stats.latency.saturating_record(took);
            }
            Err((kind, text)) => shared.stats.fail(kind, 1, || text),
        }
    }

    fn judge(
        &mut self,
        app_status: u32,
        protocol_status: u8,
        learned: bool,
        shared: &mut Shared,
    ) -> Result<(u16, u64), Wrong> {
        let kind = match protocol_status {
            0 => None,
            1 => Some(Kind::CannotMultiplex),
            2 => Some(Kind::Overloaded),
            _ => Some(Kind::Rejected),
        };
        if let Some(kind) = kind {
            self.clear(&mut shared.held);
            return Err((kind, format!("protocolStatus {protocol_status}")));
        }
        let answer = if learned {
            Ok((shared.learned_status, shared.learned_length))
        } else {
            let check = self.check.get_or_insert_default();
            let result = check.finish(&shared.config.expect);
            if let (Ok((status, length)), Some(only)) = (&result, &mut check.only)
                && !only.is_empty()
                && shared.lessons > 0
            {
                // What varies with every answer is not learned for ever.
                shared.lessons -= 1;
                std::mem::swap(&mut shared.learned, only);
                (shared.learned_status, shared.learned_length) = (*status, *length);
            }
            check.clear(&mut shared.held);
            result
        };
        if app_status != 0 {
            return Err((Kind::AppStatus, format!("appStatus {app_status}")));
        }
        if self.noisy && shared.config.expect.quiet {
            let text = shared.stats.stderr_first.clone();
            return Err((Kind::Stderr, text.unwrap_or_default()));
        }
        answer
    }
}
