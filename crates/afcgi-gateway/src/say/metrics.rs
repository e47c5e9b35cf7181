//! What is counted, in Prometheus's text format, and whether all is well: for the admin address.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use afcgi::client::Client;

/// Upper ends of the classes of durations, in seconds.
const BUCKETS: [f64; 11] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0,
];

/// Counters of the whole program.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    active: AtomicUsize,
    connections: AtomicUsize,
    accepted: AtomicU64,
    /// By the first digit of the status.
    requests: [AtomicU64; 10],
    bytes: AtomicU64,
    overloaded: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
    milliseconds: AtomicU64,
    pub(crate) reloads: AtomicU64,
    pub(crate) failed_reloads: AtomicU64,
}

/// A request that is counted as active.
#[derive(Debug)]
pub(crate) struct Active(Arc<Metrics>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection of a client that is counted as open.
#[derive(Debug)]
pub(crate) struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request in; whether it is one too many is told beside it.
    pub(crate) fn begin(self: &Arc<Self>, most: usize) -> (Active, bool) {
        let before = self.active.fetch_add(1, Ordering::Relaxed);
        if before >= most {
            self.overloaded.fetch_add(1, Ordering::Relaxed);
        }
        (Active(Arc::clone(self)), before >= most)
    }

    pub(crate) fn open(self: &Arc<Self>) -> Open {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    pub(crate) fn ended(&self, status: u16, took: Duration, bytes: u64) {
        let class = self.requests.get(usize::from(status / 100));
        if let Some(class) = class {
            class.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.milliseconds.fetch_add(milliseconds, Ordering::Relaxed);
        let fits = BUCKETS.iter().position(|&most| took.as_secs_f64() <= most);
        if let Some(bucket) = fits.and_then(|at| self.buckets.get(at)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All numbers as text, with those of the applications by their names.
    ///
    /// `waiting`: bytes of responses that clients of HTTP/2 have not read.
    pub(crate) fn render<'a>(
        &self,
        waiting: usize,
        clients: impl Iterator<Item = (&'a str, &'a Client)> + Clone,
    ) -> String {
        let mut out = String::new();
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        family(
            &mut out,
            "requests_active",
            "gauge",
            "Requests that are being answered, tunnels included.",
        );
        line(&mut out, "requests_active", "", self.active());
        family(
            &mut out,
            "connections_active",
            "gauge",
            "Connections of clients.",
        );
        line(
            &mut out,
            "connections_active",
            "",
            self.connections.load(Ordering::Relaxed),
        );
        family(
            &mut out,
            "connections_total",
            "counter",
            "Connections of clients accepted.",
        );
        line(&mut out, "connections_total", "", number(&self.accepted));
        family(
            &mut out,
            "requests_total",
            "counter",
            "Requests that have ended, by the class of their status.",
        );
        let mut total = 0;
        for (class, counter) in self.requests.iter().enumerate().skip(1) {
            total += number(counter);
            if class < 6 || number(counter) > 0 {
                line(
                    &mut out,
                    "requests_total",
                    &format!("code=\"{class}xx\""),
                    number(counter),
                );
            }
        }
        family(
            &mut out,
            "overloaded_total",
            "counter",
            "Requests refused because there were too many.",
        );
        line(&mut out, "overloaded_total", "", number(&self.overloaded));
        family(
            &mut out,
            "response_bytes_total",
            "counter",
            "Bytes of response bodies.",
        );
        line(&mut out, "response_bytes_total", "", number(&self.bytes));
        family(
            &mut out,
            "responses_waiting_bytes",
            "gauge",
            "Bytes of responses that wait for clients of HTTP/2 to read.",
        );
        line(&mut out, "responses_waiting_bytes", "", waiting);
        family(
            &mut out,
            "request_duration_seconds",
            "histogram",
            "How long requests took, to the end of their responses.",
        );
        let mut sum = 0;
        for (most, counter) in BUCKETS.iter().zip(&self.buckets) {
            sum += number(counter);
            line(
                &mut out,
                "request_duration_seconds_bucket",
                &format!("le=\"{most}\""),
                sum,
            );
        }
        line(
            &mut out,
            "request_duration_seconds_bucket",
            "le=\"+Inf\"",
            total,
        );
        line(
            &mut out,
            "request_duration_seconds_sum",
            "",
            number(&self.milliseconds) as f64 / 1000.0,
        );
        line(&mut out, "request_duration_seconds_count", "", total);
        family(
            &mut out,
            "reloads_total",
            "counter",
            "How often the configuration was read again.",
        );
        line(
            &mut out,
            "reloads_total",
            "result=\"ok\"",
            number(&self.reloads),
        );
        line(
            &mut out,
            "reloads_total",
            "result=\"error\"",
            number(&self.failed_reloads),
        );
        upstreams(&mut out, clients);
        out
    }
}

fn upstreams<'a>(out: &mut String, clients: impl Iterator<Item = (&'a str, &'a Client)> + Clone) {
    let all: Vec<_> = (clients.clone())
        .map(|(name, client)| (label(name), client.stats()))
        .collect();
    macro_rules! each {
        ($($field:ident $name:literal $kind:literal $help:literal;)*) => {$(
            family(out, $name, $kind, $help);
            for (name, stats) in &all {
                line(out, $name, &format!("upstream=\"{name}\""), stats.$field);
            }
        )*};
    }
    each! {
        connections "upstream_connections" "gauge" "Connections to applications.";
        active "upstream_requests_active" "gauge" "Requests that have a place on a connection.";
        waiting "upstream_requests_waiting" "gauge" "Requests that wait for a connection.";
        opened "upstream_connections_total" "counter" "Connections that were opened.";
        connect_failures "upstream_connect_failures_total" "counter" "Connections that could not be opened.";
        requests "upstream_requests_total" "counter" "Requests to applications.";
        retries "upstream_retries_total" "counter" "How often a request was sent again.";
        refusals "upstream_refusals_total" "counter" "How often an application refused a request.";
        timeouts "upstream_timeouts_total" "counter" "How often an application was too slow.";
        failures "upstream_failures_total" "counter" "Requests that ended with an error before their response began.";
        aborts "upstream_aborts_total" "counter" "Requests that were given up while the application worked on them.";
        stalls "upstream_stalls_total" "counter" "Requests that kept a connection from being read.";
        upgrades "upstream_upgrades_total" "counter" "Requests that became tunnels.";
    }
    family(
        out,
        "upstream_up",
        "gauge",
        "Whether the last attempt to connect to an address succeeded.",
    );
    for (name, client) in clients {
        for state in client.addresses() {
            let labels = format!(
                "upstream=\"{}\",address=\"{}\"",
                label(name),
                label(&state.address)
            );
            line(out, "upstream_up", &labels, u8::from(!state.is_failing));
        }
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "# HELP afcgi_gateway_{name} {help}\n# TYPE afcgi_gateway_{name} {kind}"
    );
}

fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = match labels.is_empty() {
        true => writeln!(out, "afcgi_gateway_{name} {value}"),
        false => writeln!(out, "afcgi_gateway_{name}{{{labels}}} {value}"),
    };
}

/// The value of a label.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
