//! What is said of a request that is over: as text, as JSON, and what a failure most likely means.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use afcgi_proto::EndRequest;
use serde::Serialize;

use super::exchange::{Plan, Timings};
use super::failure::Failure;
use super::observer::{Observer, Record};
use super::response::Response;
use crate::wire::{escaped, protocol_status};

/// A request that is over.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) result: Result<EndRequest, Failure>,
    pub(super) timings: Timings,
}

impl Outcome {
    /// How the program ends: as the application does, unless it failed.
    pub(super) fn code(&self) -> u8 {
        match &self.result {
            Ok(end) => u8::try_from(end.app_status).unwrap_or(u8::MAX),
            Err(failure) => failure.code(),
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    address: String,
    exit_status: u8,
    error: Option<String>,
    status: Option<u16>,
    reason: Option<&'a str>,
    fields: &'a [(String, String)],
    body: Option<&'a str>,
    body_bytes: u64,
    stderr: String,
    stderr_bytes: u64,
    app_status: Option<u32>,
    protocol_status: Option<String>,
    timings: Seconds,
    params: Vec<(String, String)>,
    records: &'a [Record],
    records_seen: u64,
}

#[derive(Serialize)]
struct Seconds {
    connected: Option<f64>,
    sent: Option<f64>,
    first_byte: Option<f64>,
    head: Option<f64>,
    aborted: Option<f64>,
    total: f64,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All of it as one JSON object.
pub(super) fn json(
    plan: &Plan,
    outcome: &Outcome,
    response: &Response,
    observer: &Observer,
) -> String {
    let head = response.head.as_ref();
    let end = match &outcome.result {
        Ok(end) => Some((Some(end.app_status), end.protocol_status)),
        Err(Failure::Refused(status)) => Some((None, *status)),
        Err(_) => None,
    };
    let seconds = |duration: Option<Duration>| duration.map(|d| d.as_secs_f64());
    let timings = &outcome.timings;
    let report = Report {
        address: plan.address.to_string(),
        exit_status: outcome.code(),
        error: outcome.result.as_ref().err().map(ToString::to_string),
        status: head.map(|head| head.status),
        reason: head.map(|head| head.reason.as_str()),
        fields: head.map_or(&[], |head| &head.fields),
        body: response.text(),
        body_bytes: response.length,
        stderr: text(&observer.stderr),
        stderr_bytes: observer.stderr_bytes,
        app_status: end.and_then(|end| end.0),
        protocol_status: end.map(|end| protocol_status(end.1).into_owned()),
        timings: Seconds {
            connected: seconds(timings.connected),
            sent: seconds(timings.sent),
            first_byte: seconds(timings.first_byte),
            head: seconds(response.head_at),
            aborted: seconds(timings.aborted),
            total: timings.total.as_secs_f64(),
        },
        params: (plan.params.iter())
            .map(|(name, value)| (name.to_owned(), text(value)))
            .collect(),
        records: &observer.records,
        records_seen: observer.records_seen,
    };
    // Names and values of this type are all that JSON can hold.
    serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
}

/// `--time`.
pub(super) fn times(outcome: &Outcome, response: &Response) -> String {
    let timings = &outcome.timings;
    let mut out = String::new();
    for (name, at) in [
        ("connected", timings.connected),
        ("request sent", timings.sent),
        ("first byte", timings.first_byte),
        ("head", response.head_at),
        ("aborted", timings.aborted),
        ("total", Some(timings.total)),
    ] {
        if let Some(at) = at {
            _ = writeln!(out, "{name:<13}{:>10.3} ms", at.as_secs_f64() * 1000.0);
        }
    }
    out
}

/// What an answer most likely means that says little by itself.
pub(super) fn explain(plan: &Plan, observer: &Observer, has_script: bool) -> Option<String> {
    let says = |words: &str| {
        let words = words.as_bytes();
        (observer.stderr)
            .windows(words.len())
            .any(|window| window == words)
    };
    let param = |name| plan.params.get(name).unwrap_or_default();
    let file = param("SCRIPT_FILENAME");
    let shown = escaped(file);
    if says("Primary script unknown") {
        let here = match Path::new(&*String::from_utf8_lossy(file)).is_file() {
            true => {
                "The file is there for you: PHP-FPM may have other paths (a container, chroot), or its user may not read the file \
                 or enter its folder"
            }
            false => "There is no such file on this machine either",
        };
        let page = match param("SCRIPT_NAME") {
            [] => String::from(
                ". PHP-FPM finds a page of the pool's own by SCRIPT_NAME, which was left out",
            ),
            _ if has_script => String::new(),
            name => format!(
                ". --script says which file to run. If a page of the pool's own was asked for, pm.status_path or ping.path has to be {}",
                escaped(name)
            ),
        };
        return Some(format!(
            "\"Primary script unknown\" means that PHP-FPM found no file at SCRIPT_FILENAME, which was {shown}. {here}{page}"
        ));
    }
    says("security.limit_extensions").then(|| {
        format!(
            "PHP-FPM runs files with some endings only, as security.limit_extensions of the pool says (.php): SCRIPT_FILENAME was {shown}"
        )
    })
}
