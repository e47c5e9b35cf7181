//! Looks at a connection, and shows and records what it is asked to. Everything here is of one thread, and waits for nobody.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::budget::{Budget, Share};
use super::exchange::Keep;
use super::filter::Filter;
use super::output::Output;
use super::show;
use super::stats::Stats;
use super::track::{Event, Tracker};
use crate::capture::Stream;
use crate::wire::mask::Masks;
use crate::wire::{Palette, Side, Watcher, write_record};

/// Violations of one connection that are shown; all are counted.
const FAULTS: u32 = 20;
/// Bytes of the records of a request that wait until it is known whether they are shown.
const HELD: usize = 64 * 1024;

/// How requests are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Not at all.
    Nothing,
    Lines,
    /// And each record.
    Records,
    Json,
}

/// What is shown, and where.
pub(crate) struct Tap {
    pub(crate) form: Form,
    pub(crate) palette: Palette,
    pub(crate) filter: Filter,
    pub(crate) secrets: bool,
    pub(crate) stats: RefCell<Stats>,
    pub(crate) shown: RefCell<Shown>,
    pub(crate) file: Option<RefCell<Output>>,
    budget: Rc<Budget>,
    began: (Instant, Duration),
}

/// The standard output: by a thread where traffic goes by, directly where a file is read.
pub(crate) enum Shown {
    Thread(Output),
    Direct(std::io::Result<std::io::BufWriter<std::io::Stdout>>),
}

impl Shown {
    fn push(&mut self, text: String) {
        match self {
            _ if text.is_empty() => {}
            Self::Thread(output) => output.push(text.into_bytes()),
            Self::Direct(out) => {
                if let Ok(writer) = out
                    && let Err(error) = writer.write_all(text.as_bytes())
                {
                    *out = Err(error);
                }
            }
        }
    }
}

impl Tap {
    pub(crate) fn new(
        form: Form,
        palette: Palette,
        filter: Filter,
        secrets: bool,
        shown: Shown,
        file: Option<Output>,
    ) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            form,
            palette,
            filter,
            secrets,
            stats: RefCell::default(),
            shown: RefCell::new(shown),
            file: file.map(RefCell::new),
            budget: Rc::default(),
            began: (Instant::now(), now.unwrap_or_default()),
        }
    }

    /// The time, since 1970. It does not go back.
    pub(crate) fn now(&self) -> Duration {
        self.began.1 + self.began.0.elapsed()
    }

    /// Says something about a connection.
    pub(crate) fn note(&self, at: Duration, connection: u64, text: &str) {
        let line = match self.form {
            Form::Nothing => return,
            Form::Json => format!("{}\n", show::note_json(at, connection, text)),
            Form::Lines | Form::Records => {
                let note = self.palette.note;
                format!("{note}{} c{connection} {text}{note:#}\n", show::clock(at))
            }
        };
        self.shown.borrow_mut().push(line);
    }
}

/// Looks at one connection.
pub(crate) struct Observer {
    tap: Rc<Tap>,
    number: u64,
    began: Duration,
    tracker: Tracker,
    masks: Masks,
    events: Vec<Event>,
    watchers: Option<Box<[Watcher; 2]>>,
    stream: Option<Stream>,
    held: HashMap<u16, (String, Share)>,
    faults: u32,
}

impl Observer {
    /// `addresses`: those of the web server and the application, as the file has them.
    pub(crate) fn new(
        tap: &Rc<Tap>,
        number: u64,
        at: Duration,
        addresses: Option<[SocketAddr; 2]>,
    ) -> Self {
        let records = tap.form == Form::Records;
        let keep = Keep {
            all: tap.form == Form::Json,
            secrets: tap.secrets,
            masks: !tap.secrets && (records || tap.file.is_some()),
        };
        tap.stats.borrow_mut().connections += 1;
        let stream = match (&tap.file, addresses) {
            (Some(file), Some([web, app])) => {
                let mut out = Vec::new();
                let stream = Stream::open(web, app, at, &mut out);
                file.borrow_mut().push(out);
                Some(stream)
            }
            _ => None,
        };
        Self {
            tap: Rc::clone(tap),
            number,
            began: at,
            tracker: Tracker::new(keep, Rc::clone(&tap.budget)),
            masks: Masks::default(),
            events: Vec::new(),
            watchers: records.then(|| Box::new([Watcher::new(Side::Web), Watcher::new(Side::App)])),
            stream,
            held: HashMap::new(),
            faults: 0,
        }
    }

    /// Requests that are active, as far as is known.
    pub(crate) fn is_idle(&self) -> bool {
        self.tracker.active() == 0 && !self.tracker.is_blind()
    }

    /// Bytes that a side sent.
    pub(crate) fn bytes(&mut self, side: Side, at: Duration, bytes: &[u8]) {
        self.tracker
            .feed(side, at, bytes, &mut self.masks, &mut self.events);
        if self.watchers.is_some() || self.stream.is_some() {
            let mut copy = bytes.to_vec();
            self.masks.apply(&mut copy);
            self.watch(side, at, &copy);
            self.record(side, at, &copy);
        }
        self.masks.clear();
        self.tell(at);
    }

    /// Shows the records.
    fn watch(&mut self, side: Side, at: Duration, bytes: &[u8]) {
        let Some(watchers) = &mut self.watchers else {
            return;
        };
        let tap = &self.tap;
        let since = at.saturating_sub(self.began);
        let (held, number) = (&mut self.held, self.number);
        let mut text = String::new();
        watchers[side as usize].feed(since, bytes, |seen| {
            let id = seen.header.request_id.map_or(0, |id| id.get());
            if !tap.filter.takes_id(id) {
                return;
            }
            let mut record = String::new();
            write_record(&mut record, &seen, tap.palette, true);
            if id == 0 || !tap.filter.waits() {
                label(&mut text, number, &record, tap.palette);
                return;
            }
            let entry = held.entry(id);
            let (lines, share) = entry.or_insert_with(|| (String::new(), tap.budget.share()));
            let room = HELD.saturating_sub(lines.len());
            if record.len() <= room && share.take(record.len()) {
                label(lines, number, &record, tap.palette);
            }
        });
        tap.shown.borrow_mut().push(text);
    }

    /// Writes them to the file.
    fn record(&mut self, side: Side, at: Duration, bytes: &[u8]) {
        if let (Some(file), Some(stream)) = (&self.tap.file, &mut self.stream) {
            let mut out = Vec::new();
            stream.data(side, at, bytes, &mut out);
            file.borrow_mut().push(out);
        }
    }

    /// A side closed its half, or the connection broke.
    pub(crate) fn close(&mut self, side: Side, at: Duration, reset: bool) {
        self.tracker.close(side, at, &mut self.events);
        if let (Some(file), Some(stream)) = (&self.tap.file, &mut self.stream) {
            let mut out = Vec::new();
            stream.close(side, at, reset, &mut out);
            file.borrow_mut().push(out);
        }
        if let Some(watchers) = &self.watchers
            && self.tap.filter.ids.is_empty()
            && !self.tap.filter.waits()
            && watchers[side as usize].garbage().is_none()
        {
            let since = at.saturating_sub(self.began).as_secs_f64();
            let note = self.tap.palette.note;
            let what = match reset {
                true => "reset the connection",
                false => "closed its half of the connection",
            };
            let line = format!("{note}* {since:.6} {} {what}{note:#}\n", side.name());
            let mut text = String::new();
            label(&mut text, self.number, &line, self.tap.palette);
            self.tap.shown.borrow_mut().push(text);
        }
        self.tell(at);
    }

    /// Nothing more is known of the connection.
    pub(crate) fn stop(&mut self, at: Duration) {
        self.tracker.stop(at, &mut self.events);
        self.tell(at);
    }

    /// Bytes are missing.
    pub(crate) fn gap(&mut self, at: Duration) {
        self.stop(at);
        self.tap.stats.borrow_mut().blind += 1;
        let text = "bytes of this connection are missing in the file: nothing more is seen of it";
        self.tap.note(at, self.number, text);
    }

    fn tell(&mut self, at: Duration) {
        if self.events.is_empty() {
            return;
        }
        let tap = Rc::clone(&self.tap);
        let mut text = String::new();
        for event in self.events.drain(..) {
            match event {
                Event::Ended(ended) => {
                    tap.stats.borrow_mut().ended(&ended);
                    let held = self.held.remove(&ended.id);
                    if tap.filter.takes(ended.id, &ended.exchange) {
                        if let Some((lines, _)) = held {
                            text += &lines;
                        }
                        match tap.form {
                            Form::Nothing => {}
                            Form::Lines | Form::Records => {
                                show::lines(&mut text, self.number, &ended, tap.palette);
                            }
                            Form::Json => {
                                text += &format!("{}\n", show::json(self.number, &ended));
                            }
                        }
                    }
                }
                Event::Fault(fault, by, id) => {
                    tap.stats.borrow_mut().fault(&fault, by);
                    let is_shown = match tap.form {
                        Form::Nothing => false,
                        // A request that is shown says which rules were broken.
                        Form::Lines => !fault.is_minor(),
                        Form::Records | Form::Json => true,
                    };
                    if !is_shown || tap.filter.waits() || !(id == 0 || tap.filter.takes_id(id)) {
                        continue;
                    }
                    self.faults = self.faults.saturating_add(1);
                    if self.faults <= FAULTS {
                        match tap.form {
                            Form::Json => {
                                let json = show::fault_json(at, self.number, id, &fault, by);
                                text += &format!("{json}\n");
                            }
                            _ => {
                                show::fault(&mut text, at, self.number, id, &fault, by, tap.palette)
                            }
                        }
                    } else if self.faults == FAULTS + 1 {
                        tap.shown.borrow_mut().push(std::mem::take(&mut text));
                        let more =
                            "further violations of this connection are counted, and not shown";
                        tap.note(at, self.number, more);
                    }
                }
                Event::Blind(what) => {
                    tap.stats.borrow_mut().blind += 1;
                    tap.shown.borrow_mut().push(std::mem::take(&mut text));
                    tap.note(at, self.number, &what);
                    self.held.clear();
                }
            }
        }
        tap.shown.borrow_mut().push(text);
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let mut stats = self.tap.stats.borrow_mut();
        stats.records += self.tracker.records;
        stats.peak = stats.peak.max(self.tracker.peak);
    }
}

/// Puts the connection in front of each line.
fn label(out: &mut String, number: u64, lines: &str, palette: Palette) {
    let note = palette.note;
    for line in lines.split_inclusive('\n') {
        out.push_str(&format!("{note}c{number}{note:#} "));
        out.push_str(line);
    }
}
