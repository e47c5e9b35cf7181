//! The line that shows how it goes, on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::outcome::Point;
use super::plan::Plan;
use super::report::units::{grouped, time};

#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    requests: bool,
}

impl Progress {
    /// Nothing is shown where STDERR is no terminal.
    pub(super) fn new(plan: &Plan, quiet: bool) -> Self {
        let target = match quiet {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr_with_hz(5),
        };
        let requests = plan.hold.or(plan.requests);
        let length = requests.unwrap_or_else(|| {
            let millis = plan.duration.unwrap_or_default().as_millis();
            u64::try_from(millis).unwrap_or(u64::MAX)
        });
        let bar = ProgressBar::with_draw_target(Some(length), target);
        let style = ProgressStyle::with_template("{bar:14} {msg}").expect("a constant");
        bar.set_style(style.progress_chars("━━ "));
        Self {
            bar,
            requests: requests.is_some(),
        }
    }

    /// Says what is done, before there are figures.
    pub(super) fn say(&self, text: &'static str) {
        self.bar.set_message(text);
    }

    /// How it goes.
    pub(super) fn show(&self, took: Duration, done: u64, failed: u64, point: Point) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.bar
            .set_position(if self.requests { done } else { millis });
        let rate = point.completed as f64 / point.seconds.max(1e-9);
        let latency = point.latency.map_or(String::new(), |latency| {
            format!(", 99 % {}", time(latency.p99))
        });
        self.bar.set_message(format!(
            "{:.1} s, {} requests/s{latency}, {} failed",
            took.as_secs_f64(),
            grouped(rate as u64),
            grouped(failed)
        ));
    }

    /// Leaves nothing behind.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
