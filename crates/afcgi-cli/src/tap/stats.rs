//! The summary: what went by, all in all.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::faults::Fault;
use super::track::{Ended, How};
use crate::wire::Side;

/// The longest time that is told from longer ones: a day.
const LONGEST: u64 = 24 * 3600 * 1_000_000;

/// Counts.
#[derive(Debug)]
pub(crate) struct Stats {
    pub(crate) connections: u64,
    /// Connections to the application that failed.
    pub(crate) unconnected: u64,
    pub(crate) blind: u64,
    pub(crate) records: u64,
    pub(crate) peak: usize,
    requests: u64,
    not_ended: u64,
    aborted: u64,
    failed: u64,
    cut: u64,
    bytes_in: u64,
    bytes_out: u64,
    statuses: BTreeMap<u16, u64>,
    faults: BTreeMap<(bool, &'static str, Side, String), u64>,
    /// In microseconds.
    first: Option<Histogram<u64>>,
    total: Option<Histogram<u64>>,
}

impl Default for Stats {
    fn default() -> Self {
        // Of these bounds it can be made.
        let histogram = || Histogram::new_with_bounds(1, LONGEST, 3).ok();
        Self {
            connections: 0,
            unconnected: 0,
            blind: 0,
            records: 0,
            peak: 0,
            requests: 0,
            not_ended: 0,
            aborted: 0,
            failed: 0,
            cut: 0,
            bytes_in: 0,
            bytes_out: 0,
            statuses: BTreeMap::new(),
            faults: BTreeMap::new(),
            first: histogram(),
            total: histogram(),
        }
    }
}

const PERCENTILES: [(&str, f64); 5] = [
    ("least", 0.0),
    ("median", 50.0),
    ("90 %", 90.0),
    ("99 %", 99.0),
    ("most", 100.0),
];

impl Stats {
    /// A request is over.
    pub(crate) fn ended(&mut self, ended: &Ended) {
        let exchange = &ended.exchange;
        self.requests += 1;
        self.bytes_in += exchange.stdin.bytes;
        self.bytes_out += exchange.stdout.bytes;
        self.aborted += u64::from(exchange.aborted.is_some());
        self.cut += u64::from(exchange.cut);
        if let Some(status) = exchange.status() {
            *self.statuses.entry(status).or_default() += 1;
        }
        let since = |at: Duration| at.saturating_sub(exchange.began);
        match ended.how {
            How::End(end) => {
                self.failed += u64::from(end.app_status != 0);
                record(&mut self.total, since(ended.at));
            }
            How::WebLeft | How::AppLeft | How::Unseen => self.not_ended += 1,
        }
        if let Some(at) = exchange.first_byte {
            record(&mut self.first, since(at));
        }
    }

    /// A rule was broken.
    pub(crate) fn fault(&mut self, fault: &Fault, by: Side) {
        let key = (fault.is_minor(), fault.rule(), by, fault.kind());
        *self.faults.entry(key).or_default() += 1;
    }

    /// Rules that were broken in a way that matters.
    pub(crate) fn violations(&self) -> u64 {
        let faults = self.faults.iter().filter(|(key, _)| !key.0);
        faults.map(|(_, count)| count).sum()
    }

    pub(crate) fn as_text(&self) -> String {
        let mut out = format!(
            "{} on {}, at most {} at a time on one\n",
            count(self.requests, "request"),
            count(self.connections, "connection"),
            self.peak,
        );
        for (number, text) in [
            (
                self.unconnected,
                "connections that the application did not take",
            ),
            (
                self.blind,
                "connections that were not looked at to their end",
            ),
            (self.not_ended, "requests without END_REQUEST"),
            (self.aborted, "requests that were aborted"),
            (self.failed, "requests with an appStatus other than 0"),
            (self.cut, "requests of which something was left out here"),
        ] {
            if number > 0 {
                _ = writeln!(out, "{number} {text}");
            }
        }
        for (status, number) in &self.statuses {
            _ = writeln!(out, "status {status}: {number}");
        }
        _ = writeln!(
            out,
            "{} records, {} bytes of STDIN, {} bytes of STDOUT",
            self.records, self.bytes_in, self.bytes_out
        );
        if self.total.as_ref().is_some_and(|times| !times.is_empty()) {
            _ = writeln!(out, "{:<7}{:>14}{:>14}", "", "first byte", "total");
            for (name, percent) in PERCENTILES {
                let [first, total] = [&self.first, &self.total].map(|times| {
                    let time = percentile(times, percent);
                    time.map_or_else(|| String::from("-"), |ms| format!("{ms:.3} ms"))
                });
                _ = writeln!(out, "{name:<7}{first:>14}{total:>14}");
            }
        }
        let of = |minor| self.faults.iter().filter(move |(key, _)| key.0 == minor);
        match self.violations() {
            0 => out += "no violations\n",
            sum => _ = writeln!(out, "{}:", count(sum, "violation")),
        }
        for ((_, rule, by, text), number) in of(false) {
            _ = writeln!(
                out,
                "  {rule} by {}: {}, {text}",
                by.name(),
                count(*number, "time")
            );
        }
        if of(true).next().is_some() {
            out += "of no weight to peers that are known:\n";
            for ((_, rule, by, text), number) in of(true) {
                _ = writeln!(
                    out,
                    "  {rule} by {}: {}, {text}",
                    by.name(),
                    count(*number, "time")
                );
            }
        }
        out
    }

    pub(crate) fn as_json(&self) -> Value {
        let times = |times: &Option<Histogram<u64>>| {
            json!({
                "min": percentile(times, 0.0),
                "p50": percentile(times, 50.0),
                "p90": percentile(times, 90.0),
                "p99": percentile(times, 99.0),
                "max": percentile(times, 100.0),
            })
        };
        let faults = |minor: bool| -> Vec<Value> {
            let faults = self.faults.iter().filter(|(key, _)| key.0 == minor);
            let faults = faults.map(|((_, rule, by, text), number)| {
                json!({ "rule": rule, "by": by.name(), "text": text, "count": number })
            });
            faults.collect()
        };
        json!({
            "type": "summary",
            "connections": self.connections,
            "unconnected": self.unconnected,
            "not_seen": self.blind,
            "most_at_a_time": self.peak,
            "requests": self.requests,
            "not_ended": self.not_ended,
            "aborted": self.aborted,
            "app_status_not_0": self.failed,
            "cut": self.cut,
            "records": self.records,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "statuses": self.statuses,
            "first_byte_milliseconds": times(&self.first),
            "total_milliseconds": times(&self.total),
            "violations": faults(false),
            "minor": faults(true),
        })
    }
}

/// A number with its noun.
pub(crate) fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

fn record(times: &mut Option<Histogram<u64>>, time: Duration) {
    if let Some(times) = times {
        times.saturating_record(u64::try_from(time.as_micros()).unwrap_or(LONGEST).max(1));
    }
}

/// In milliseconds.
fn percentile(times: &Option<Histogram<u64>>, percent: f64) -> Option<f64> {
    let times = times.as_ref().filter(|times| !times.is_empty())?;
    let micros = match percent {
        0.0 => times.min(),
        100.0 => times.max(),
        percent => times.value_at_percentile(percent),
    };
    Some(micros as f64 / 1000.0)
}
