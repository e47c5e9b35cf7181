//! What came of a run, before it is shown.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::engine::Stats;
use super::plan::Plan;
use super::sample::Sample;

/// The percentiles that are shown.
pub(super) const PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99];
/// The exit status of a run that was interrupted.
pub(super) const INTERRUPTED: u8 = 130;

/// A run that is over.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    pub(super) plan: &'a Plan,
    /// The command line.
    pub(super) command: Vec<String>,
    /// Of the measured time, with the answers that came after it; failures of the warm-up count.
    pub(super) stats: Stats,
    /// Answers and ended aborts within the measured time.
    pub(super) in_time: u64,
    /// The measured time.
    pub(super) took: Duration,
    pub(super) points: Vec<Point>,
    pub(super) process: Option<Process>,
    pub(super) held: Option<Held>,
    /// Requests that were due, or lost with their connection, and were not sent.
    pub(super) unsent: u64,
    /// Requests in flight at the end.
    pub(super) unanswered: u64,
    pub(super) stalled: bool,
    /// Whether the application closes connections that it was to keep.
    pub(super) closes: bool,
    /// CPU time of the threads that send.
    pub(super) cpu: Duration,
    /// Of the thread that was busiest, 0 to 1.
    pub(super) busiest: f64,
    pub(super) interrupted: bool,
}

/// A short time of the run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Point {
    /// Its end, in seconds since the measured time began.
    pub(super) at: f64,
    /// Its length in seconds.
    pub(super) seconds: f64,
    pub(super) completed: u64,
    pub(super) failed: u64,
    pub(super) in_flight: u64,
    /// Milliseconds; nothing was answered: none.
    pub(super) latency: Option<Latency>,
    /// Cores, and bytes.
    pub(super) process: Option<(f64, u64)>,
}

/// In milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| millis(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Self {
            p50: at(0.5),
            p99: at(0.99),
            max: millis(histogram.max()),
        })
    }
}

/// The application's process, or processes.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) before: Sample,
    /// At the end of the measured time.
    pub(super) after: Sample,
    /// The most memory that was seen.
    pub(super) peak: u64,
    /// Whether it has ended.
    pub(super) gone: bool,
}

/// Requests that were held.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// How many were open when all were.
    pub(super) open: u64,
    /// How long that took to reach, in seconds.
    pub(super) opening: f64,
    /// How many were open at the end.
    pub(super) left: u64,
}

impl Outcome<'_> {
    /// How the program ends.
    pub(super) fn code(&self) -> u8 {
        if self.interrupted {
            return INTERRUPTED;
        }
        u8::from(self.stats.failed() > 0 || self.stalled || self.unanswered > 0)
    }

    /// Answers and ended aborts a second.
    pub(super) fn rate(&self) -> f64 {
        self.in_time as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// CPU time of the generator for a request, in microseconds.
    pub(super) fn generator_micros(&self) -> Option<f64> {
        (self.in_time > 0).then(|| self.cpu.as_secs_f64() * 1e6 / self.in_time as f64)
    }

    /// The same of the process.
    pub(super) fn process_micros(&self) -> Option<f64> {
        let process = self.process.as_ref().filter(|_| self.in_time > 0)?;
        Some(process.cpu().as_secs_f64() * 1e6 / self.in_time as f64)
    }

    /// Bytes of memory for each request that was held.
    pub(super) fn bytes_held(&self) -> Option<f64> {
        let (process, held) = (self.process.as_ref()?, self.held?);
        let grown = process.peak.saturating_sub(process.before.memory);
        (held.open > 0).then(|| grown as f64 / held.open as f64)
    }

    /// What is to be said beside the figures.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = self.plan.notes.clone();
        let mut say = |text: String| notes.push(text);
        if self.closes {
            say(String::from(
                "The application closes connections that it was asked to keep: each request got one of its own.",
            ));
        }
        if self.stalled {
            say(String::from(
                "Given up: nothing was answered for as long as --timeout says.",
            ));
        }
        if self.unsent > 0 && self.plan.rate.is_some() {
            say(format!(
                "{} requests were due and were not sent, because no place was free: the rate is more than the application \
                 does with so many requests at once (-c, -m). Their wait is in no percentile.",
                self.unsent
            ));
        }
        if let Some(held) = self.held
            && held.open < self.plan.hold.unwrap_or(0)
        {
            say(format!(
                "Not all requests were open at once: the application has answered some, or takes no more than {}.",
                held.open
            ));
        }
        if self.unanswered > 0 {
            say(format!("{} requests were not answered.", self.unanswered));
        }
        if self.busiest > 0.9 && self.plan.hold.is_none() {
            say(format!(
                "A thread of this program was busy for {:.0} % of the time: it may be what limits the rate (-t).",
                self.busiest * 100.0
            ));
        }
        if self.process.as_ref().is_some_and(|process| process.gone) {
            say(String::from("The process that was measured has ended."));
        }
        notes
    }
}

impl Process {
    /// CPU time of the measured time.
    pub(super) fn cpu(&self) -> Duration {
        self.after.cpu.saturating_sub(self.before.cpu)
    }
}

/// Nanoseconds in milliseconds.
pub(super) fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}
