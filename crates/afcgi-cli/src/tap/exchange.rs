//! What is known of one request while it is active. What is held of it is bounded, and taken from the budget of all.

use std::time::Duration;

use afcgi_proto::cgi::{Head, HeadError, HeadLimits};
use afcgi_proto::{ProtocolStatus, Role};

use super::budget::Share;
use crate::wire::mask::{self, HeadMask, Kind, Masks};
use crate::wire::{PairSink, Pairs, Side};

/// Bytes of a value that are kept.
const VALUE: usize = 2048;
/// Bytes of all names and values that are kept for JSON.
const PARAMS: usize = 64 * 1024;
/// Bytes of a head that comes in pieces.
const HEAD: usize = 64 * 1024;
/// Bytes of STDERR that are kept.
const STDERR: usize = 4096;
/// Faults of one request that are named.
const FAULTS: usize = 20;

/// A name, or a value, and the other.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// What is kept beside what a line shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keep {
    /// All parameters and header fields.
    pub(crate) all: bool,
    /// Secrets as they are.
    pub(crate) secrets: bool,
    /// Places of secrets.
    pub(crate) masks: bool,
}

/// What the parameters say.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) method: Vec<u8>,
    uri: Vec<u8>,
    name: Vec<u8>,
    query: Vec<u8>,
    pub(crate) script: Vec<u8>,
    pub(crate) content_length: Option<u64>,
    pub(crate) data_length: Option<u64>,
    pub(crate) data_modified: bool,
    /// Whether the body is a form, in which there may be secrets.
    form: bool,
    /// Whether there is a parameter that no authorizer is told.
    pub(crate) not_for_authorizers: bool,
    pub(crate) all: Vec<Pair>,
    all_bytes: usize,
}

impl Told {
    /// What was asked for: path and query.
    pub(crate) fn uri(&self) -> Vec<u8> {
        match (self.uri.as_slice(), self.query.as_slice()) {
            ([], []) => self.name.clone(),
            ([], query) => [&self.name, b"?".as_slice(), query].concat(),
            (uri, _) => uri.to_vec(),
        }
    }
}

/// A stream of the request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stream {
    pub(crate) bytes: u64,
    pub(crate) used: bool,
    pub(crate) ended: bool,
}

/// The head of the response.
#[derive(Debug, Default)]
pub(crate) enum HeadState {
    #[default]
    None,
    Part(Vec<u8>),
    Known {
        status: u16,
        fields: Vec<Pair>,
    },
    Bad,
}

/// A request from BEGIN_REQUEST on.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) keep: Keep,
    pub(crate) share: Share,
    /// Whether something was left out that there was no room for.
    pub(crate) cut: bool,
    pub(crate) role: Role,
    pub(crate) began: Duration,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) aborted: Option<Duration>,
    pub(crate) params: Stream,
    pub(crate) stdin: Stream,
    pub(crate) data: Stream,
    pub(crate) stdout: Stream,
    pub(crate) stderr: Stream,
    pub(crate) said: Vec<u8>,
    pub(crate) head: HeadState,
    pub(crate) told: Told,
    /// Rules that were broken: by whom, and whether it is of no weight.
    pub(crate) faults: Vec<(&'static str, Side, bool)>,
    pairs: Pairs,
    pair: Current,
    head_mask: HeadMask,
    body_mask: mask::Value,
}

/// The pair that is being read.
#[derive(Debug)]
struct Current {
    name: Vec<u8>,
    value: Vec<u8>,
    kind: Kind,
    mask: mask::Value,
    wanted: bool,
    /// Bytes of both that are paid for.
    paid: usize,
}

impl Exchange {
    pub(crate) fn new(keep: Keep, share: Share, role: Role, began: Duration) -> Self {
        Self {
            keep,
            share,
            cut: false,
            role,
            began,
            first_byte: None,
            aborted: None,
            params: Stream::default(),
            stdin: Stream::default(),
            data: Stream::default(),
            stdout: Stream::default(),
            stderr: Stream::default(),
            said: Vec::new(),
            head: HeadState::None,
            told: Told::default(),
            faults: Vec::new(),
            pairs: Pairs::default(),
            pair: Current {
                name: Vec::new(),
                value: Vec::new(),
                kind: Kind::Plain,
                mask: mask::Value::new(Kind::Plain),
                wanted: false,
                paid: 0,
            },
            head_mask: HeadMask::default(),
            body_mask: mask::Value::new(Kind::Plain),
        }
    }

    /// A rule was broken.
    pub(crate) fn fault(&mut self, rule: &'static str, by: Side, minor: bool) {
        let fault = (rule, by, minor);
        if self.faults.len() < FAULTS && !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Whether the parameters so far are whole pairs.
    pub(crate) fn pairs_are_whole(&self) -> bool {
        self.pairs.at_boundary()
    }

    /// Content of PARAMS, which begins at `at` of the bytes that came.
    pub(crate) fn take_params(&mut self, at: usize, content: &[u8], masks: &mut Masks) {
        let mut sink = ParamSink {
            at,
            keep: self.keep,
            share: &mut self.share,
            cut: &mut self.cut,
            told: &mut self.told,
            pair: &mut self.pair,
            masks,
        };
        self.pairs.feed(content, &mut sink);
    }

    /// Nothing more comes of PARAMS.
    pub(crate) fn end_params(&mut self) {
        (self.pair.name, self.pair.value) = (Vec::new(), Vec::new());
        if self.told.form {
            self.body_mask = mask::Value::new(Kind::Query);
        }
    }

    /// Content of STDIN.
    pub(crate) fn take_stdin(&mut self, at: usize, content: &[u8], masks: &mut Masks) {
        if self.keep.masks {
            self.body_mask.feed(at, content, masks);
        }
    }

    /// Content of STDERR.
    pub(crate) fn take_stderr(&mut self, content: &[u8]) {
        let room = STDERR.saturating_sub(self.said.len());
        let piece = &content[..content.len().min(room)];
        if self.share.take(piece.len()) {
            self.said.extend_from_slice(piece);
        } else {
            self.cut = true;
        }
    }

    /// Content of STDOUT; what is wrong with the head, if something is.
    pub(crate) fn take_stdout(
        &mut self,
        at: usize,
        content: &[u8],
        masks: &mut Masks,
    ) -> Result<(), HeadError> {
        if self.keep.masks && !self.head_mask.done {
            self.head_mask.feed(at, content, masks);
        }
        let held;
        let part: &[u8] = match &mut self.head {
            HeadState::Known { .. } | HeadState::Bad => return Ok(()),
            HeadState::None => content,
            HeadState::Part(part) => {
                let room = HEAD.saturating_sub(part.len());
                let piece = &content[..content.len().min(room)];
                if !self.share.take(piece.len()) {
                    self.cut = true;
                    self.head = HeadState::Bad;
                    return Ok(());
                }
                part.extend_from_slice(piece);
                // A head is complete with the end of a line. To look at it more often would cost the square of its length.
                if !piece.contains(&b'\n') && part.len() < HEAD {
                    return Ok(());
                }
                held = std::mem::take(part);
                &held
            }
        };
        match Head::parse(part, HeadLimits::default()) {
            Ok(Some(head)) => {
                let fields = match self.keep.all && self.share.take(head.length) {
                    true => head.fields.iter().map(|pair| self.field(*pair)).collect(),
                    false => Vec::new(),
                };
                self.head = HeadState::Known {
                    status: head.status,
                    fields,
                };
                Ok(())
            }
            Ok(None) => {
                // A first piece is not paid for yet.
                let is_first = matches!(self.head, HeadState::None);
                let part = part[..part.len().min(HEAD)].to_vec();
                self.head = match !is_first || self.share.take(part.len()) {
                    true => HeadState::Part(part),
                    false => HeadState::Bad,
                };
                Ok(())
            }
            Err(error) => {
                self.head = HeadState::Bad;
                Err(error)
            }
        }
    }

    fn field(&self, (name, value): (&[u8], &[u8])) -> Pair {
        let value = match self.keep.secrets {
            true => value.to_vec(),
            false => mask::masked(mask::field(name), value),
        };
        (name.to_vec(), value)
    }

    /// The HTTP status, once it is known.
    pub(crate) fn status(&self) -> Option<u16> {
        match &self.head {
            HeadState::Known { status, .. } => Some(*status),
            HeadState::None | HeadState::Part(_) | HeadState::Bad => None,
        }
    }

    /// Whether a role was asked for that is refused.
    pub(crate) fn must_be_refused(&self, status: ProtocolStatus) -> Option<u16> {
        match (self.role, status) {
            (Role::Other(code), ProtocolStatus::RequestComplete) => Some(code),
            _ => None,
        }
    }
}

struct ParamSink<'a> {
    at: usize,
    keep: Keep,
    share: &'a mut Share,
    cut: &'a mut bool,
    told: &'a mut Told,
    pair: &'a mut Current,
    masks: &'a mut Masks,
}

impl PairSink for ParamSink<'_> {
    fn name(&mut self, name: &[u8], _: usize) {
        let known = matches!(
            name,
            b"REQUEST_METHOD"
                | b"REQUEST_URI"
                | b"SCRIPT_NAME"
                | b"QUERY_STRING"
                | b"SCRIPT_FILENAME"
                | b"CONTENT_LENGTH"
                | b"CONTENT_TYPE"
                | b"PATH_INFO"
                | b"PATH_TRANSLATED"
                | b"FCGI_DATA_LENGTH"
                | b"FCGI_DATA_LAST_MOD"
        );
        self.pair.wanted = known || self.keep.all;
        if self.pair.wanted {
            self.pair.name.clear();
            self.pair.name.extend_from_slice(name);
            self.pair.value.clear();
        }
        if self.pair.wanted || self.keep.masks {
            self.pair.kind = mask::param(name);
            self.pair.mask = mask::Value::new(self.pair.kind);
        }
    }

    fn value(&mut self, at: usize, piece: &[u8]) {
        if self.keep.masks {
            self.pair.mask.feed(self.at + at, piece, self.masks);
        }
        if self.pair.wanted {
            let room = VALUE.saturating_sub(self.pair.value.len());
            let piece = &piece[..piece.len().min(room)];
            let needed = self.pair.name.len() + self.pair.value.len() + piece.len();
            let more = needed.saturating_sub(self.pair.paid);
            if self.share.take(more) {
                self.pair.paid += more;
                self.pair.value.extend_from_slice(piece);
            } else {
                *self.cut = true;
                self.pair.wanted = false;
            }
        }
    }

    fn end(&mut self) {
        if !std::mem::take(&mut self.pair.wanted) {
            return;
        }
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.trim().parse().ok();
        let told = &mut *self.told;
        let value = &mut self.pair.value;
        let length = value.len();
        if !self.keep.secrets {
            *value = mask::masked(self.pair.kind, value);
        }
        let slot = match self.pair.name.as_slice() {
            b"REQUEST_METHOD" => Some(&mut told.method),
            b"REQUEST_URI" => Some(&mut told.uri),
            b"SCRIPT_NAME" => {
                told.not_for_authorizers = true;
                Some(&mut told.name)
            }
            b"QUERY_STRING" => Some(&mut told.query),
            b"SCRIPT_FILENAME" => Some(&mut told.script),
            b"CONTENT_LENGTH" => {
                told.content_length = number(value);
                told.not_for_authorizers = true;
                None
            }
            b"CONTENT_TYPE" => {
                let form = b"application/x-www-form-urlencoded";
                let begin = value.get(..form.len());
                told.form = begin.is_some_and(|begin| begin.eq_ignore_ascii_case(form));
                None
            }
            b"PATH_INFO" | b"PATH_TRANSLATED" => {
                told.not_for_authorizers = true;
                None
            }
            b"FCGI_DATA_LENGTH" => {
                told.data_length = number(value);
                None
            }
            b"FCGI_DATA_LAST_MOD" => {
                told.data_modified = true;
                None
            }
            _ => None,
        };
        if let Some(slot) = slot {
            // A name may come twice: what was before it is paid for.
            match self.share.take(length) {
                true => slot.clone_from(value),
                false => *self.cut = true,
            }
        }
        let size = self.pair.name.len() + length;
        if !self.keep.all {
            return;
        }
        if told.all_bytes + size <= PARAMS && self.share.take(size) {
            told.all_bytes += size;
            told.all.push((self.pair.name.clone(), value.clone()));
        } else {
            *self.cut = true;
        }
    }
}
