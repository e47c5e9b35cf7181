//! `--repeat`: the same request many times, and what came of all of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use super::arguments::Arguments;
use super::exchange::Plan;
use super::observer::Observer;
use super::sender::Sender;
use super::values;

/// What came of the requests so far.
#[derive(Debug, Default)]
struct Tally {
    /// In microseconds, of those that were answered: 4 bytes each.
    times: Vec<u32>,
    statuses: BTreeMap<u16, u32>,
    app_statuses: BTreeMap<u32, u32>,
    failures: BTreeMap<u8, (u32, String)>,
    connections: u32,
    /// The first exit status that was not 0.
    code: u8,
}

/// Sends them, and prints the summary; says how the program ends.
pub(super) async fn repeat(arguments: &Arguments, plan: &Plan, count: u32) -> u8 {
    let left = Cell::new(count);
    let tally = RefCell::new(Tally::default());
    let started = Instant::now();
    let workers = arguments.concurrent.min(count);
    let work = (1..=workers).map(|number| {
        let (left, tally) = (&left, &tally);
        async move {
            let number = (workers > 1).then_some(number);
            let mut sender = Sender::new(plan, Observer::new(arguments, number));
            while left.get() > 0 {
                left.set(left.get() - 1);
                let (outcome, response) = sender.send(arguments).await;
                let mut tally = tally.borrow_mut();
                let code = outcome.code();
                if tally.code == 0 {
                    tally.code = code;
                }
                if let Some(head) = &response.head {
                    *tally.statuses.entry(head.status).or_default() += 1;
                }
                match &outcome.result {
                    Ok(end) => {
                        let micros = outcome.timings.total.as_micros();
                        tally.times.push(u32::try_from(micros).unwrap_or(u32::MAX));
                        *tally.app_statuses.entry(end.app_status).or_default() += 1;
                    }
                    Err(failure) => {
                        let entry = tally.failures.entry(code);
                        entry.or_insert_with(|| (0, failure.to_string())).0 += 1;
                    }
                }
            }
            tally.borrow_mut().connections += sender.connections;
        }
    });
    join_all(work).await;
    let mut tally = tally.into_inner();
    tally.times.sort_unstable();
    let text = match arguments.json {
        true => tally.as_json(started.elapsed()),
        false => tally.as_text(workers, started.elapsed()),
    };
    match values::print(&text) {
        Ok(()) => tally.code,
        Err(failure) => failure.code(),
    }
}

impl Tally {
    fn failed(&self) -> u32 {
        self.failures.values().map(|(count, _)| count).sum()
    }

    /// The time in milliseconds that so many percent of the requests did not take longer than.
    fn percentile(&self, percent: usize) -> Option<f64> {
        let rank = (self.times.len() * percent).div_ceil(100).max(1);
        self.times
            .get(rank - 1)
            .map(|&micros| f64::from(micros) / 1000.0)
    }

    fn as_text(&self, workers: u32, took: Duration) -> String {
        let mut out = format!(
            "{} answered and {} failed in {:.3} s, {workers} at a time, on {} connections\n",
            self.times.len(),
            self.failed(),
            took.as_secs_f64(),
            self.connections,
        );
        for (status, count) in &self.statuses {
            _ = writeln!(out, "status {status}: {count}");
        }
        for (status, count) in self.app_statuses.iter().filter(|pair| *pair.0 != 0) {
            _ = writeln!(out, "appStatus {status}: {count}");
        }
        for (code, (count, text)) in &self.failures {
            _ = writeln!(out, "failed with {code}: {count} ({text})");
        }
        let times = [
            ("least", 0),
            ("median", 50),
            ("90 %", 90),
            ("99 %", 99),
            ("most", 100),
        ];
        for (name, percent) in times {
            if let Some(time) = self.percentile(percent) {
                _ = writeln!(out, "{name:<7}{time:>10.3} ms");
            }
        }
        out
    }

    fn as_json(&self, took: Duration) -> String {
        let failures = self.failures.iter().map(
            |(code, (count, text))| json!({ "exit_status": code, "count": count, "error": text }),
        );
        let object = json!({
            "answered": self.times.len(),
            "failed": self.failed(),
            "exit_status": self.code,
            "connections": self.connections,
            "took": took.as_secs_f64(),
            "statuses": self.statuses,
            "app_statuses": self.app_statuses,
            "failures": failures.collect::<Vec<_>>(),
            "milliseconds": {
                "min": self.percentile(0),
                "p50": self.percentile(50),
                "p90": self.percentile(90),
                "p99": self.percentile(99),
                "max": self.percentile(100),
            },
        });
        format!("{object:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let tally = |times: Vec<u32>| Tally {
            times,
            ..Tally::default()
        };
        assert_eq!(tally(vec![]).percentile(50), None);
        assert_eq!(tally(vec![7000]).percentile(0), Some(7.0));
        let hundred = tally((1..=100).map(|n| n * 1000).collect());
        for percent in [1, 50, 99, 100] {
            assert_eq!(hundred.percentile(percent), Some(percent as f64));
        }
    }
}
