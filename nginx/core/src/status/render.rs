//! How the numbers are shown: as JSON, and in the text format of Prometheus, version 0.0.4.
//!
//! The names here are an interface: what reads them is written by others.

use std::fmt::Write;

use super::numbers::{Count, Fact, Gauge};
use super::table::Summary;

/// How the numbers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Prometheus,
}

impl Format {
    /// The format of that name.
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"json" => Some(Self::Json),
            b"prometheus" => Some(Self::Prometheus),
            _ => None,
        }
    }
}

/// How one number is called in both formats, and what it is.
struct Names {
    key: &'static str,
    metric: &'static str,
    help: &'static str,
}

const fn names(key: &'static str, metric: &'static str, help: &'static str) -> Names {
    Names { key, metric, help }
}

impl Gauge {
    const fn names(self) -> Names {
        match self {
            Self::Connections => names(
                "connections",
                "connections",
                "Connections that are established.",
            ),
            Self::Active => names("active", "requests_active", "Requests on a connection."),
            Self::Draining => names(
                "draining",
                "requests_draining",
                "Requests that nginx is done with and whose END_REQUEST has not come.",
            ),
            Self::Waiting => names(
                "waiting",
                "requests_waiting",
                "Requests that wait for a place on a connection.",
            ),
        }
    }
}

impl Count {
    const fn names(self) -> Names {
        match self {
            Self::Requests => names(
                "requests",
                "requests_total",
                "Requests that got a place on a connection.",
            ),
            Self::Aside => names(
                "aside",
                "requests_aside_total",
                "Requests that nginx sent by connections of its own, since the application does not multiplex.",
            ),
            Self::BytesSent => names(
                "bytes_sent",
                "sent_bytes_total",
                "Bytes written to connections.",
            ),
            Self::BytesReceived => names(
                "bytes_received",
                "received_bytes_total",
                "Bytes read from connections.",
            ),
            Self::Aborts => names("aborts", "aborts_total", "Requests that were aborted."),
            Self::Stalls => names(
                "stalls",
                "stalls_total",
                "Times that a connection was not read because of one request.",
            ),
            Self::StallAborts => names(
                "stall_aborts",
                "stall_aborts_total",
                "Requests that were aborted because they kept a connection from being read.",
            ),
            Self::Refusals => names(
                "refusals",
                "refusals_total",
                "Requests that the application refused unprocessed.",
            ),
            Self::Connects => names(
                "connects",
                "connects_total",
                "Connections that were established.",
            ),
            Self::ConnectFailures => names(
                "connect_failures",
                "connect_failures_total",
                "Connections that could not be established.",
            ),
            Self::Retired => names(
                "retired",
                "connections_retired_total",
                "Shared connections that took no more requests while they were open.",
            ),
            Self::Astray => names(
                "astray",
                "requests_astray_total",
                "Requests that were kept from a connection to another application; a defect if not 0.",
            ),
        }
    }
}

impl Fact {
    const fn names(self) -> Names {
        match self {
            Self::Multiplexes => names(
                "multiplexes",
                "application_multiplexes",
                "Whether the application takes several requests on a connection.",
            ),
            Self::FlowControl => names(
                "flow_control",
                "application_flow_control",
                "Whether the application knows flow control.",
            ),
            Self::Upgrade => names(
                "upgrade",
                "application_upgrade",
                "Whether the application accepts upgrades.",
            ),
        }
    }
}

/// An object: `entries` of the table, `entries_used` of them, and `addresses`, an array.
pub fn json(summaries: &[Summary], entries: usize, used: usize) -> String {
    let mut out = format!("{{\"entries\":{entries},\"entries_used\":{used},\"addresses\":[");
    for (n, summary) in summaries.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        _ = write!(out, "{comma}\n{{\"address\":");
        string(&mut out, &summary.address);
        for fact in Fact::ALL {
            let value = match summary.fact(fact) {
                Some(true) => "true",
                Some(false) => "false",
                None => "null",
            };
            _ = write!(out, ",\"{}\":{value}", fact.names().key);
        }
        let gauges = Gauge::ALL.map(|gauge| (gauge.names(), summary.gauge(gauge)));
        let counts = Count::ALL.map(|count| (count.names(), summary.count(count)));
        for (names, value) in gauges.into_iter().chain(counts) {
            _ = write!(out, ",\"{}\":{value}", names.key);
        }
        out.push('}');
    }
    out.push_str("\n]}\n");
    out
}

/// A string of JSON.
fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => _ = write!(out, "\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A metric for each number, with the address as its label. What an application has not said of itself
/// is left out.
pub fn prometheus(summaries: &[Summary], entries: usize, used: usize) -> String {
    let mut out = String::new();
    let labels: Vec<_> = summaries.iter().map(|sum| label(&sum.address)).collect();
    let mut metric = |names: Names, kind, value: &dyn Fn(&Summary) -> Option<u64>| {
        head(&mut out, &names, kind);
        for (label, summary) in labels.iter().zip(summaries) {
            if let Some(value) = value(summary) {
                let name = names.metric;
                _ = writeln!(
                    out,
                    "fastcgi_multiplex_{name}{{address=\"{label}\"}} {value}"
                );
            }
        }
    };
    for gauge in Gauge::ALL {
        metric(gauge.names(), "gauge", &|sum| Some(sum.gauge(gauge)));
    }
    for count in Count::ALL {
        metric(count.names(), "counter", &|sum| Some(sum.count(count)));
    }
    for fact in Fact::ALL {
        metric(fact.names(), "gauge", &|sum| sum.fact(fact).map(u64::from));
    }
    for (name, help, value) in [
        ("status_entries", "Entries of the table.", entries),
        ("status_entries_used", "Entries in use.", used),
    ] {
        head(&mut out, &names("", name, help), "gauge");
        _ = writeln!(out, "fastcgi_multiplex_{name} {value}");
    }
    out
}

fn head(out: &mut String, names: &Names, kind: &str) {
    let Names { metric, help, .. } = names;
    _ = writeln!(out, "# HELP fastcgi_multiplex_{metric} {help}");
    _ = writeln!(out, "# TYPE fastcgi_multiplex_{metric} {kind}");
}

/// The value of a label.
fn label(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::table;
    use super::super::{Counts, summaries};
    use super::*;

    const ODD: &str = "unix:/a\"b\\c\nd\u{1}ü";

    fn odd() -> Vec<Summary> {
        let entries = table(2);
        let counts = Counts::claim(entries, ODD, 1, |_| true).unwrap();
        counts.add(Count::BytesSent, usize::MAX);
        counts.tell(Fact::FlowControl, Some(true));
        counts.tell(Fact::Upgrade, Some(false));
        std::mem::forget(counts);
        std::mem::forget(Counts::claim(entries, "x", 1, |_| true));
        summaries(entries, |_| true).0
    }

    #[test]
    fn json_is_json() {
        let text = json(&odd(), 9, 2);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["entries"], 9);
        assert_eq!(value["entries_used"], 2);
        let address = &value["addresses"][0];
        assert_eq!(address["address"], ODD);
        assert_eq!(address["bytes_sent"], u64::MAX);
        assert_eq!(address["multiplexes"], serde_json::Value::Null);
        assert_eq!(address["flow_control"], true);
        assert_eq!(address["upgrade"], false);
        assert_eq!(
            address.as_object().expect("an object").len(),
            1 + 3 + 4 + 12
        );
        assert_eq!(value["addresses"].as_array().expect("an array").len(), 2);
        let none: serde_json::Value = serde_json::from_str(&json(&[], 0, 0)).expect("JSON");
        assert_eq!(none["addresses"], serde_json::json!([]));
    }

    #[test]
    fn prometheus_escapes_labels() {
        let text = prometheus(&odd(), 9, 2);
        let line =
            "fastcgi_multiplex_application_upgrade{address=\"unix:/a\\\"b\\\\c\\nd\u{1}ü\"} 0\n";
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("application_multiplexes{"), "{text}");
        assert!(text.contains("\nfastcgi_multiplex_status_entries 9\n"));
        assert!(text.starts_with("# HELP fastcgi_multiplex_connections "));
    }

    #[test]
    fn formats_have_names() {
        assert_eq!(Format::named(b"json"), Some(Format::Json));
        assert_eq!(Format::named(b"prometheus"), Some(Format::Prometheus));
        assert_eq!(Format::named(b"JSON"), None);
        assert_eq!(Format::named(b""), None);
    }
}
