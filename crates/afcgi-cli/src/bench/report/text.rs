//! The report for people, no wider than 80 columns where that is possible.

use std::fmt::Write;

use super::super::engine::Kind;
use super::super::outcome::{Outcome, PERCENTILES, millis};
use super::units::{bytes, digits, grouped, time};

/// Columns of a line of text.
const WIDTH: usize = 80;

pub(in super::super) fn text(outcome: &Outcome) -> String {
    let mut text = Text(String::new());
    let plan = outcome.plan;
    let seconds = outcome.took.as_secs_f64();
    text.line(&format!("{} for {}", plan.target, time(seconds * 1000.0)));
    text.wrapped("", &plan.to_string());
    text.line("");
    requests(outcome, &mut text);
    latencies(outcome, &mut text);
    process(outcome, &mut text);
    errors(outcome, &mut text);
    for note in outcome.notes() {
        text.line("");
        text.wrapped("", &note);
    }
    text.0
}

struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn row(&mut self, name: &str, value: &str) {
        _ = writeln!(self.0, "{name:<12}{value}");
    }

    /// Words on lines that are not too long, each with the same space before it.
    fn wrapped(&mut self, indent: &str, words: &str) {
        self.0.push_str(indent);
        let mut width = indent.len();
        for (at, word) in words.split(' ').enumerate() {
            let length = word.chars().count();
            if at > 0 && width + 1 + length > WIDTH {
                self.0.push('\n');
                self.0.push_str(indent);
                width = indent.len();
            } else if at > 0 {
                self.0.push(' ');
                width += 1;
            }
            self.0.push_str(word);
            width += length;
        }
        self.0.push('\n');
    }
}

fn requests(outcome: &Outcome, text: &mut Text) {
    let (stats, seconds) = (&outcome.stats, outcome.took.as_secs_f64().max(1e-9));
    if let Some(held) = outcome.held {
        text.row(
            "held",
            &format!(
                "{} open after {}, {} at the end",
                grouped(held.open),
                time(held.opening * 1000.0),
                grouped(held.left)
            ),
        );
    } else {
        text.row("requests/s", &grouped(outcome.rate().round() as u64));
    }
    let mut parts = vec![format!("{} answered", grouped(stats.completed))];
    if stats.aborted > 0 {
        parts.push(format!("{} aborted", grouped(stats.aborted)));
    }
    parts.push(format!("{} failed", grouped(stats.failed())));
    if outcome.unsent > 0 {
        parts.push(format!("{} not sent", grouped(outcome.unsent)));
    }
    if outcome.unanswered > 0 {
        parts.push(format!("{} not answered", grouped(outcome.unanswered)));
    }
    if stats.resent > 0 {
        parts.push(format!("{} sent again", grouped(stats.resent)));
    }
    text.row("requests", &parts.join(", "));
    let statuses = stats.statuses.iter().enumerate();
    let statuses = statuses.filter(|(_, count)| **count > 0);
    let statuses: Vec<_> = statuses
        .take(8)
        .map(|(status, count)| format!("{status}: {}", grouped(*count)))
        .collect();
    if !statuses.is_empty() {
        text.row("statuses", &statuses.join(", "));
    }
    for (name, count) in [("received", stats.bytes_in), ("sent", stats.bytes_out)] {
        let rate = bytes(count as f64 / seconds);
        text.row(name, &format!("{}, {rate}/s", bytes(count as f64)));
    }
    let mut parts = vec![format!("{} opened", grouped(stats.connections))];
    if stats.reconnects > 0 {
        parts.push(format!("{} again", grouped(stats.reconnects)));
    }
    if stats.put_off > 0 {
        parts.push(format!("{} put off after failures", grouped(stats.put_off)));
    }
    if stats.queue_full > 0 {
        let times = grouped(stats.queue_full);
        parts.push(format!("queue full {times} times"));
    }
    text.row("connections", &parts.join(", "));
    if stats.stderr > 0 {
        text.row("STDERR", &bytes(stats.stderr as f64));
        let first = stats.stderr_first.as_deref().unwrap_or_default();
        text.wrapped("            ", first);
    }
}

fn latencies(outcome: &Outcome, text: &mut Text) {
    let times = &outcome.stats.latency;
    if times.is_empty() {
        return;
    }
    text.line("");
    text.line(match outcome.plan.rate {
        Some(_) => "latency     from when each request was to be sent (corrected for omission)",
        None => "latency     from sending to END_REQUEST",
    });
    let mut row = |name: &str, value: f64| text.line(&format!("{name:>9}{:>12}", time(value)));
    row("least", millis(times.min()));
    row("mean", times.mean() / 1e6);
    row("± ", times.stdev() / 1e6);
    for percentile in PERCENTILES {
        let value = times.value_at_percentile(percentile);
        row(&format!("{percentile} %"), millis(value));
    }
    row("most", millis(times.max()));
    if let Some(times) = &outcome.stats.abort_latency {
        let at = |percentile| time(millis(times.value_at_percentile(percentile)));
        text.line("");
        text.row(
            "aborts",
            &format!("ended after {} (median), {} (99 %)", at(50.0), at(99.0)),
        );
    }
}

fn process(outcome: &Outcome, text: &mut Text) {
    if outcome.process.is_some() || outcome.in_time > 0 {
        text.line("");
    }
    if let Some(process) = &outcome.process {
        let children = match process.after.processes.saturating_sub(1) {
            0 => String::new(),
            children => format!(" and {children} children"),
        };
        let seconds = outcome.took.as_secs_f64().max(1e-9);
        let cores = digits(process.cpu().as_secs_f64() / seconds);
        let each = outcome.process_micros();
        let each = each.map_or(String::new(), |each| {
            format!(", {} µs a request", digits(each))
        });
        text.row(
            "process",
            &format!("{} ({}){children}", process.pid, process.name),
        );
        text.row("  CPU", &format!("{cores} cores{each}"));
        text.row(
            "  memory",
            &format!(
                "{} before, {} at most, {} after",
                bytes(process.before.memory as f64),
                bytes(process.peak as f64),
                bytes(process.after.memory as f64)
            ),
        );
        if let Some(held) = outcome.bytes_held() {
            text.row("  each held", &bytes(held));
        }
    }
    if let Some(micros) = outcome.generator_micros() {
        let busy = outcome.busiest * 100.0;
        text.row(
            "generator",
            &format!("{} µs a request, {busy:.0} % of a core", digits(micros)),
        );
    }
}

fn errors(outcome: &Outcome, text: &mut Text) {
    if outcome.stats.failed() == 0 {
        return;
    }
    text.line("");
    text.line("failed");
    for kind in Kind::ALL {
        let failures = outcome.stats.failures(kind);
        if failures.count > 0 {
            let count = grouped(failures.count);
            let first = failures.first.as_deref().unwrap_or_default();
            text.wrapped("  ", &format!("{count} {}: {first}", kind.text()));
        }
    }
}
