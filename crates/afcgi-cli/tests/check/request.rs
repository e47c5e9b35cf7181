//! Requests of the breakable server, from BEGIN_REQUEST to END_REQUEST.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, spawn_local};

use crate::connection::{Connection, Last, Record, Verdict};
use crate::handlers::handle;
use crate::mutant::Mutant;
use crate::wire::{
    ABORT, BEGIN, Bad, CREDIT, DATA, END, PARAMS, Pairs, STDERR, STDIN, STDOUT, pairs,
};

/// Requests of a connection at a time.
pub(crate) const MOST: usize = 64;
/// Bytes of PARAMS.
const PARAMS_MOST: usize = 1 << 20;
/// The credit that the body of a request begins with.
pub(crate) const WINDOW: i64 = 65_536;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Served { stdin_done: bool },
    Failed,
    Refused,
    Aborted,
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: u16,
    pub(crate) flags: u8,
    pub(crate) params: RefCell<Vec<u8>>,
    cuts: RefCell<Vec<usize>>,
    pub(crate) params_records: Cell<usize>,
    empty_records: Cell<usize>,
    pub(crate) params_done: Cell<bool>,
    pub(crate) pairs: RefCell<Pairs>,
    pub(crate) stdin_done: Cell<bool>,
    stdin: RefCell<Option<mpsc::Sender<Vec<u8>>>>,
    pub(crate) body: RefCell<Option<mpsc::Receiver<Vec<u8>>>>,
    pub(crate) body_bytes: Cell<usize>,
    /// What may still be sent, if it is under flow control.
    pub(crate) credit: Cell<Option<i64>>,
    pub(crate) credits: Cell<usize>,
    pub(crate) more: Notify,
    /// What may still come of its body, if it is under flow control.
    pub(crate) window: Cell<i64>,
    pub(crate) sent: Cell<usize>,
    pub(crate) again: Cell<bool>,
    pub(crate) tunnel: Cell<bool>,
    task: RefCell<Option<AbortHandle>>,
}

impl Request {
    fn new(id: u16, flags: u8, credit: Option<i64>) -> Self {
        let (stdin, body) = mpsc::channel(64);
        Self {
            id,
            flags,
            params: RefCell::default(),
            cuts: RefCell::default(),
            params_records: Cell::default(),
            empty_records: Cell::default(),
            params_done: Cell::default(),
            pairs: RefCell::default(),
            stdin_done: Cell::default(),
            stdin: RefCell::new(Some(stdin)),
            body: RefCell::new(Some(body)),
            body_bytes: Cell::default(),
            credit: Cell::new(credit),
            credits: Cell::default(),
            more: Notify::new(),
            window: Cell::new(WINDOW),
            sent: Cell::default(),
            again: Cell::default(),
            tunnel: Cell::default(),
            task: RefCell::default(),
        }
    }

    pub(crate) fn value(&self, name: &str) -> String {
        let pairs = self.pairs.borrow();
        let found = pairs.iter().find(|pair| pair.0 == name.as_bytes());
        found.map_or_else(String::new, |pair| {
            String::from_utf8_lossy(&pair.1).into_owned()
        })
    }

    pub(crate) fn path(&self) -> String {
        self.value("SCRIPT_NAME")
    }

    pub(crate) fn drop_task(&self) {
        if let Some(task) = self.task.borrow_mut().take() {
            task.abort();
        }
    }

    /// STDIN has ended, or nobody reads it any more.
    pub(crate) fn no_more_stdin(&self) {
        *self.stdin.borrow_mut() = None;
    }
}

impl Connection {
    pub(crate) async fn record(self: &Rc<Self>, record: Record) -> Verdict {
        let last = self.last.replace(Last::Other);
        let (kind, id) = (record.kind, record.id);
        if id != 0 && self.ended(id).is_none() && self.request(id).is_none() && kind != BEGIN {
            self.strays.set(self.strays.get() + 1);
            if self.strays.get() > 4000 && self.is(Mutant::HangsAtManyStrays) {
                return Verdict::Hang;
            }
        }
        match kind {
            BEGIN if id != 0 || self.is(Mutant::ServesId0) => self.begin(record, last).await,
            PARAMS if id != 0 || self.is(Mutant::ServesId0) => self.params(record).await,
            STDIN if id != 0 || self.is(Mutant::ServesId0) => self.stdin(record).await,
            DATA => match (self.request(id), self.ended(id)) {
                (None, None) if self.is(Mutant::ClosesAtStrayData) => Verdict::Close,
                (Some(_), _) if self.is(Mutant::HangsAtData) => Verdict::Hang,
                _ => Verdict::Go,
            },
            ABORT => self.abort(record).await,
            STDOUT if self.is(Mutant::HangsAtStdout) => Verdict::Hang,
            END if self.is(Mutant::HangsAtEnd) => Verdict::Hang,
            STDOUT | STDERR | END => Verdict::Close,
            CREDIT if id != 0 && self.flow.get() => self.credit(record).await,
            BEGIN | PARAMS | STDIN => Verdict::Go,
            _ if id == 0 => self.management(record).await,
            crate::wire::GET_VALUES if self.is(Mutant::HangsAtValuesWithAnId) => Verdict::Hang,
            _ => match self.request(id).map(|request| request.params_done.get()) {
                Some(false) if self.is(Mutant::ClosesAtAnUnknownType) => Verdict::Close,
                Some(true) if self.is(Mutant::ClosesAtAnUnknownTypeInABody) => Verdict::Close,
                _ => Verdict::Go,
            },
        }
    }

    async fn begin(self: &Rc<Self>, record: Record, last: Last) -> Verdict {
        let is = |mutant| self.is(mutant);
        let id = record.id;
        let mut body = record.content;
        match body.len() {
            7 if is(Mutant::TakesAShortBody) => body.push(0),
            9 if is(Mutant::TakesALongBody) => body.truncate(8),
            0 if is(Mutant::TakesAnEmptyBody) => body = vec![0, 1, 1, 0, 0, 0, 0, 0],
            _ => {}
        }
        let Ok([role1, role0, flags, a, b, c, d, e]) = <[u8; 8]>::try_from(body) else {
            return Verdict::Close;
        };
        if let Some(request) = self.request(id) {
            if !is(Mutant::AnswersTwice) {
                return Verdict::Close;
            }
            request.again.set(true);
            return Verdict::Go;
        }
        let fell = || self.ended.borrow().keys().any(|&ended| ended > id);
        let behind_values = matches!(last, Last::FirstValues(read) if read != self.reads.get() && !self.flow.get() && self.records.get() == 2);
        if is(Mutant::RefusesOtherFlags) && flags & 0xfc != 0
            || is(Mutant::MindsReservedBytes) && flags & 2 == 0 && [a, b, c, d, e] != [0; 5]
            || is(Mutant::WantsRisingIds) && fell()
            || is(Mutant::ClosesAfterARefusal) && last == Last::Refused
            || is(Mutant::ClosesAfterAnAbort)
                && matches!(last, Last::AbortedInParams(other) if other != id)
            || is(Mutant::ClosesAfterValues) && behind_values
        {
            return Verdict::Close;
        }
        let served = matches!(self.ended(id), Some(Ended::Served { .. }));
        if is(Mutant::RefusesAnIdAgain) && served
            || is(Mutant::BurnsAbortedIds) && self.ended(id) == Some(Ended::Aborted)
            || is(Mutant::LosesRoundIds) && id.is_multiple_of(256)
        {
            return Verdict::Go;
        }
        self.begun.set(self.begun.get() + 1);
        if self.begun.get() == 1000 && is(Mutant::DiesOfManyRequests) {
            self.shared.poison_for_a_while();
        }
        self.first_flags.set(self.first_flags.get().or(Some(flags)));
        let role = match (role1, role0) {
            (1.., 1) if is(Mutant::ReadsOneByteOfTheRole) => 1,
            (0, 9) if is(Mutant::ServesRole9) => 1,
            (0, 0) if is(Mutant::ServesRole0) => 1,
            _ => u16::from_be_bytes([role1, role0]),
        };
        let others = self.active.borrow().len();
        if role != 1 {
            if role == 2 && is(Mutant::IgnoresAuthorizers)
                || role == 3 && is(Mutant::IgnoresFilters)
            {
                return Verdict::Go;
            }
            self.ended.borrow_mut().insert(id, Ended::Refused);
            self.send(crate::wire::record(END, id, &[0, 0, 0, 0, 3, 0, 0, 0]))
                .await;
            self.last.set(Last::Refused);
            let closes = flags & 1 == 0 || is(Mutant::ClosesAtARefusal) && others > 0;
            return if closes { Verdict::Close } else { Verdict::Go };
        }
        let most = if is(Mutant::RefusesTheTenth) { 9 } else { MOST };
        if others >= most {
            if !is(Mutant::KnowsNoBound) {
                self.ended.borrow_mut().insert(id, Ended::Refused);
                self.send(crate::wire::record(END, id, &[0, 0, 0, 0, 2, 0, 0, 0]))
                    .await;
            }
            return Verdict::Go;
        }
        let agreed = self.flow.get() || is(Mutant::HoldsBackWithoutAgreement);
        let controlled = flags & 2 != 0 && agreed;
        let credit = controlled.then(|| i64::from(u32::from_be_bytes([a, b, c, d])));
        let request = Request::new(id, flags, credit);
        self.active.borrow_mut().insert(id, Rc::new(request));
        self.ended.borrow_mut().remove(&id);
        Verdict::Go
    }

    async fn params(self: &Rc<Self>, record: Record) -> Verdict {
        let is = |mutant| self.is(mutant);
        let (id, content) = (record.id, record.content);
        let Some(request) = self.request(id) else {
            match self.ended(id) {
                None if is(Mutant::AnswersStrayParams) => self.stray_end(id).await,
                Some(Ended::Refused) if is(Mutant::EndsARefusedRequestAgain) => {
                    self.stray_end(id).await
                }
                Some(Ended::Aborted) if is(Mutant::AnswersTheRestOfAborted) => {
                    self.stray_end(id).await
                }
                _ => {}
            }
            return Verdict::Go;
        };
        if request.params_done.get() {
            request.empty_records.set(request.empty_records.get() + 1);
            let hangs = is(Mutant::HangsBehindParams) && !content.is_empty()
                || is(Mutant::HangsAtEmptyRecords) && request.empty_records.get() > 500;
            return if hangs { Verdict::Hang } else { Verdict::Go };
        }
        let mut to = request.clone();
        let before = self.last_params.replace(id);
        if is(Mutant::MixesParams)
            && before != id
            && let Some(other) = self.request(before)
            && !other.params_done.get()
            && !other.params.borrow().is_empty()
        {
            to = other;
        }
        if content.is_empty() {
            return self.start(&request).await;
        }
        to.params_records.set(to.params_records.get() + 1);
        let count = to.params_records.get();
        let length = to.params.borrow().len();
        if is(Mutant::RefusesTheLongestRecord)
            && count == 1
            && content.len() > 60_000
            && pairs(&content, &[], None).is_ok()
            || is(Mutant::RefusesManyRecords) && count > 200
        {
            self.fail(&request).await;
            return Verdict::Go;
        }
        if is(Mutant::HoardsParams) {
            self.shared.hoard(content.len());
            return Verdict::Go;
        }
        let whole = || pairs(&to.params.borrow(), &[], None).is_ok();
        if is(Mutant::IgnoresARecordOfWholePairs) && count > 1 && whole() {
            return Verdict::Go;
        }
        if length + content.len() > PARAMS_MOST {
            self.fail(&request).await;
            return Verdict::Go;
        }
        if is(Mutant::AllocatesWhatIsAnnounced) && content.starts_with(b"\x04\xff") {
            self.shared.hoard(4 << 20);
        }
        to.cuts.borrow_mut().push(length);
        to.params.borrow_mut().extend_from_slice(&content);
        Verdict::Go
    }

    /// PARAMS has ended.
    async fn start(self: &Rc<Self>, request: &Rc<Request>) -> Verdict {
        let is = |mutant| self.is(mutant);
        let shared = &self.shared;
        request.params_done.set(true);
        let alone = self.active.borrow().len() == 1;
        let found = pairs(
            &request.params.borrow(),
            &request.cuts.borrow(),
            shared.mutant,
        );
        match found {
            Ok(found) => *request.pairs.borrow_mut() = found,
            Err(bad) => {
                let huge = |length: usize| length > 1 << 30;
                let dies = alone
                    && match bad {
                        Bad::CutLength => is(Mutant::DiesOfACutLength),
                        Bad::NoValueLength => is(Mutant::DiesOfNoLength),
                        Bad::CutPair(name, value) => match (huge(name), huge(value)) {
                            (false, true) => is(Mutant::DiesOfAValue),
                            (true, false) => is(Mutant::DiesOfAName),
                            (true, true) => is(Mutant::DiesOfASum),
                            (false, false) => is(Mutant::DiesOfACutPair),
                        },
                        Bad::Fault => false,
                    };
                if dies {
                    shared.poisoned.set(true);
                }
                if is(Mutant::ClosesAtBadParams) && !alone {
                    return Verdict::Close;
                }
                self.fail(request).await;
                return Verdict::Go;
            }
        }
        if is(Mutant::IgnoresEmptyParams) && request.pairs.borrow().is_empty() {
            return Verdict::Go;
        }
        let begun_only = self
            .active
            .borrow()
            .values()
            .any(|other| other.params_records.get() == 0);
        if is(Mutant::SwallowsTheSecond)
            && begun_only
            && request.flags & 1 == 1
            && request.path() == "/"
        {
            return Verdict::Go;
        }
        let task = spawn_local(handle(self.clone(), request.clone()));
        *request.task.borrow_mut() = Some(task.abort_handle());
        Verdict::Go
    }

    async fn stdin(self: &Rc<Self>, record: Record) -> Verdict {
        let is = |mutant| self.is(mutant);
        let (id, mut content) = (record.id, record.content);
        let Some(request) = self.request(id) else {
            return match self.ended(id) {
                None if is(Mutant::ClosesAtStrayStdin) && self.begun.get() == 0 => Verdict::Close,
                Some(Ended::Served { stdin_done: true }) if is(Mutant::ClosesAtLateStdin) => {
                    Verdict::Close
                }
                _ => Verdict::Go,
            };
        };
        if request.stdin_done.get() {
            let hangs = is(Mutant::HangsBehindStdin) && !content.is_empty();
            return if hangs { Verdict::Hang } else { Verdict::Go };
        }
        if content.is_empty() {
            request.stdin_done.set(true);
            request.no_more_stdin();
            return self.stdin_ended(&request);
        }
        if is(Mutant::ReadsABodyAsRecords) && content.starts_with(&[1, 2]) {
            return Verdict::Close;
        }
        if is(Mutant::TakesABodyForARequest)
            && content.starts_with(&[1, 1])
            && request.path() == "/"
        {
            return Verdict::Read(content);
        }
        if is(Mutant::HoardsBodies) {
            self.shared.hoard(content.len());
            return Verdict::Go;
        }
        request
            .body_bytes
            .set(request.body_bytes.get() + content.len());
        if request.credit.get().is_some() {
            request
                .window
                .set(request.window.get() - content.len() as i64);
            if request.window.get() < 0 && !is(Mutant::TakesTooLongABody) {
                self.fail(&request).await;
                return Verdict::Go;
            }
        }
        if is(Mutant::LosesRecordsOfAByte) && content.len() == 1 {
            content.clear();
        }
        if is(Mutant::CutsTheLongestRecord) && content.len() == 65_535 {
            content.pop();
        }
        let before = self.last_stdin.replace(id);
        let mut to = request;
        if is(Mutant::MixesBodies)
            && before != id
            && let Some(other) = self.request(before)
            && !other.stdin_done.get()
        {
            to = other;
        }
        let stdin = to.stdin.borrow().clone();
        if let Some(stdin) = stdin {
            _ = stdin.send(content).await;
        }
        Verdict::Go
    }

    fn stdin_ended(&self, request: &Request) -> Verdict {
        let announced = request.value("CONTENT_LENGTH").parse::<usize>().ok();
        let came = request.body_bytes.get();
        if self.is(Mutant::FailsForAShortBody) && announced.is_some_and(|length| came < length) {
            self.shared.poisoned.set(true);
        }
        let long = announced.is_some_and(|length| came > length);
        match self.is(Mutant::HangsAtALongBody) && long {
            true => Verdict::Hang,
            false => Verdict::Go,
        }
    }
}
