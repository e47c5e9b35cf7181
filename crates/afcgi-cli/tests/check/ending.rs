//! How requests of the breakable server end, and their credit.

use std::rc::Rc;

use crate::connection::{Connection, Last, Record, Verdict};
use crate::mutant::Mutant;
use crate::request::{Ended, Request};
use crate::wire::{DATA, END, STDOUT, pairs, record};

impl Connection {
    pub(crate) async fn credit(self: &Rc<Self>, record: Record) -> Verdict {
        let Some(request) = self.request(record.id) else {
            let stray = self.ended(record.id).is_none();
            return match self.is(Mutant::ClosesAtStrayCredit) && stray {
                true => Verdict::Close,
                false => Verdict::Go,
            };
        };
        let (Some(left), Some(&more)) = (request.credit.get(), record.content.first_chunk()) else {
            return Verdict::Go;
        };
        request.credits.set(request.credits.get() + 1);
        let ignored = self.is(Mutant::TakesCreditOnce) && request.credits.get() > 1
            || self.is(Mutant::NeverLeavesZero) && request.sent.get() == 0 && left == 0;
        if ignored {
            return Verdict::Go;
        }
        let left = left + i64::from(u32::from_be_bytes(more));
        if left > i64::from(i32::MAX) && !self.is(Mutant::TakesTooMuchCredit) {
            self.fail(&request).await;
            return Verdict::Go;
        }
        request.credit.set(Some(left));
        request.more.notify_one();
        Verdict::Go
    }

    pub(crate) async fn abort(self: &Rc<Self>, record: Record) -> Verdict {
        let is = |mutant| self.is(mutant);
        let id = record.id;
        let Some(request) = self.request(id) else {
            match self.ended(id) {
                None if is(Mutant::AnswersAStrayAbort) && id != 0 => self.stray_end(id).await,
                Some(Ended::Served { .. }) if is(Mutant::EndsAgainIfAbortedLate) => {
                    self.stray_end(id).await
                }
                Some(Ended::Aborted) if is(Mutant::EndsTwiceIfAbortedTwice) => {
                    self.stray_end(id).await
                }
                _ => {}
            }
            return Verdict::Go;
        };
        let alone = self.active.borrow().len() == 1;
        let in_params = !request.params_done.get();
        let begun = request.params_records.get() > 0;
        let (path, waits) = (request.path(), !request.stdin_done.get());
        let params = request.params.borrow().clone();
        let whole = pairs(&params, &[], None).is_ok();
        let blocked = request.credit.get().is_some_and(|left| left <= 0);
        self.aborted.set(self.aborted.get() + 1);
        let ignored = is(Mutant::IgnoresAbortAfterBegin) && !begun && in_params
            || is(Mutant::IgnoresAbortInParams) && in_params && whole && params.len() > 300
            || is(Mutant::IgnoresAbortInAPair) && in_params && !whole
            || is(Mutant::IgnoresAbortInStdin) && !in_params && path == "/" && waits
            || is(Mutant::IgnoresAbortOfAWaitingOne) && path == "/echo" && waits
            || is(Mutant::IgnoresAbortAtWork) && path == "/slow" && alone
            || is(Mutant::IgnoresAbortOfABlockedOne) && blocked
            || is(Mutant::IgnoresAbortOfATunnel) && request.tunnel.get()
            || is(Mutant::IgnoresAbortWithContent) && !record.content.is_empty()
            || is(Mutant::TiresOfAborts) && self.aborted.get() > 50;
        if ignored {
            return Verdict::Go;
        }
        if is(Mutant::ClosesAtAnAbort) && path == "/slow" && !alone {
            return Verdict::Close;
        }
        request.drop_task();
        request.no_more_stdin();
        if is(Mutant::AbortsAll) && in_params {
            self.active.borrow_mut().clear();
        }
        self.active.borrow_mut().remove(&id);
        self.ended.borrow_mut().insert(id, Ended::Aborted);
        if is(Mutant::NeverEndsACutResponse)
            && path == "/large"
            && request.sent.get() > 0
            && request.credit.get().is_none()
        {
            return Verdict::Go;
        }
        let status = u8::from(is(Mutant::EndsAbortedWithAStatus));
        self.send(crate::wire::record(END, id, &[0, 0, 0, 0, status, 0, 0, 0]))
            .await;
        if is(Mutant::WritesBehindTheEnd) && path == "/large" {
            self.send(crate::wire::record(STDOUT, id, b"late")).await;
        }
        if in_params && begun && record.content.is_empty() {
            self.last.set(Last::AbortedInParams(id));
        }
        self.idle.notify_one();
        let closes = request.flags & 1 == 0 && self.active.borrow().is_empty();
        match closes && !is(Mutant::StaysAfterAnAbort) {
            true => Verdict::Close,
            false => Verdict::Go,
        }
    }

    /// Ends a request that is not served.
    pub(crate) async fn fail(&self, request: &Rc<Request>) {
        request.drop_task();
        request.no_more_stdin();
        self.active.borrow_mut().remove(&request.id);
        self.ended.borrow_mut().insert(request.id, Ended::Failed);
        self.send(record(END, request.id, &[0, 0, 0, 1, 0, 0, 0, 0]))
            .await;
        self.idle.notify_one();
        if request.flags & 1 == 0 && self.active.borrow().is_empty() {
            self.close();
        }
    }

    /// Ends a request that was served.
    pub(crate) async fn end(&self, request: &Rc<Request>) {
        let is = |mutant| self.is(mutant);
        let mut body = vec![0; 8];
        body[3] = u8::from(is(Mutant::EndsWithAnAppStatus));
        body[4] = u8::from(is(Mutant::EndsWithAProtocolStatus));
        body[7] = u8::from(is(Mutant::FillsEnd));
        if is(Mutant::EndsInFourBytes) {
            body.truncate(4);
        }
        let keeps = request.flags & 1 == 1;
        let id = self.wire_id(request.id);
        let mut end = record(END, id, &body);
        end[7] = u8::from(is(Mutant::SetsTheReservedByte));
        if is(Mutant::SendsData) {
            self.send(record(DATA, id, b"what is this?")).await;
        }
        if is(Mutant::SendsAStrayId) && self.active.borrow().len() > 1 {
            self.send(record(STDOUT, 999, &[])).await;
        }
        self.send(end.clone()).await;
        if is(Mutant::EndsTwice) && !keeps || request.again.get() {
            self.send(end).await;
        }
        if is(Mutant::EndsInsideARecord) && !keeps && self.active.borrow().len() == 1 {
            self.send(vec![1, 6, 0]).await;
        }
        self.active.borrow_mut().remove(&request.id);
        request.no_more_stdin();
        let stdin_done = request.stdin_done.get();
        self.ended
            .borrow_mut()
            .insert(request.id, Ended::Served { stdin_done });
        self.idle.notify_one();
        let flags = match is(Mutant::GoesByTheFirstFlag) {
            true => self.first_flags.get().unwrap_or_default(),
            false => request.flags,
        };
        let count = self.ended.borrow().len();
        let alone = self.active.borrow().is_empty();
        let closes = (flags & 1 == 0
            || is(Mutant::KeepsNothing)
            || is(Mutant::ClosesAfterTen) && count >= 10)
            && alone
            || is(Mutant::ClosesUnderOthers) && !keeps;
        if closes && !(is(Mutant::NeverCloses) && self.begun.get() == 1) {
            match is(Mutant::Resets) {
                true => self.reset(),
                false => self.close(),
            }
        }
    }

    pub(crate) fn wire_id(&self, id: u16) -> u16 {
        match self.is(Mutant::CutsHighIds) && id > 60_000 {
            true => id & 0x7fff,
            false => id,
        }
    }
}
