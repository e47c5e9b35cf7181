//! The access log: one line for each request when it is over, in the combined format with some more at the end, or in JSON.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afcgi::client::Trace;
use http::header::{REFERER, USER_AGENT};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, StatusCode};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};

use super::metrics::{Active, Metrics};
use crate::config::LogFormat;

/// The status that is logged of a request whose client left before there was a response.
const LEFT: u16 = 499;

/// Where lines go: a thread of its own writes them, and drops them rather than hold requests up.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    to: NonBlocking,
    format: LogFormat,
    /// What is left is written when this is dropped.
    _thread: Arc<WorkerGuard>,
}

impl AccessLog {
    /// Appends to a file; `-` is standard output.
    pub(crate) fn open(path: &Path, format: LogFormat) -> io::Result<Self> {
        let (to, thread) = match path.as_os_str() == "-" {
            true => tracing_appender::non_blocking(io::stdout()),
            false => {
                let file = std::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)?;
                tracing_appender::non_blocking(file)
            }
        };
        Ok(Self {
            to,
            format,
            _thread: Arc::new(thread),
        })
    }

    fn write(mut self, line: &Line<'_>) {
        let line = match self.format {
            LogFormat::Text => line.text(),
            LogFormat::Json => line.json(),
        };
        // It never blocks, and drops the line if there are too many.
        let _ = self.to.write_all(line.as_bytes());
    }
}

/// What is known of a request. It is logged and counted when this is dropped.
pub(crate) struct Entry {
    began: Instant,
    log: Option<AccessLog>,
    metrics: Arc<Metrics>,
    /// What the client sent, as it is to stand in the line.
    line: String,
    pub(crate) remote: String,
    referer: String,
    agent: String,
    pub(crate) host: String,
    /// 0: there was no response.
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) is_whole: bool,
    pub(crate) upstream: Option<Arc<str>>,
    /// Which address of that it went to, and how often.
    pub(crate) trace: Option<Trace>,
    /// How long the application took to begin its response.
    pub(crate) wait: Option<Duration>,
    /// Counts it as active as long as it lasts.
    _active: Active,
}

impl Entry {
    pub(crate) fn new(
        request: &Parts,
        log: Option<AccessLog>,
        metrics: Arc<Metrics>,
        active: Active,
    ) -> Self {
        let mut entry = Self {
            began: Instant::now(),
            log,
            metrics,
            line: String::new(),
            remote: String::new(),
            referer: String::new(),
            agent: String::new(),
            host: String::new(),
            status: 0,
            bytes: 0,
            is_whole: false,
            upstream: None,
            trace: None,
            wait: None,
            _active: active,
        };
        if entry.log.is_some() {
            entry.line = format!(
                "{} {} {:?}",
                request.method,
                escape(request.uri.to_string().as_bytes()),
                request.version
            );
            entry.referer = field(&request.headers, &REFERER);
            entry.agent = field(&request.headers, &USER_AGENT);
        }
        entry
    }

    /// The request, whose extensions these are, goes to the application with this name from now on.
    pub(crate) fn goes_to(&mut self, upstream: &Arc<str>, extensions: &mut Extensions) {
        self.upstream = Some(Arc::clone(upstream));
        if self.log.is_some() {
            extensions.insert(self.trace.insert(Trace::default()).clone());
        }
    }

    /// The response could not be sent as a whole: the application is to blame for that.
    pub(crate) fn broke_off(&self, error: &(dyn std::error::Error + 'static)) {
        let upstream = self.upstream.as_deref().unwrap_or("-");
        tracing::error!(%error, upstream, status = self.status, "a response broke off");
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let status = if self.status == 0 { LEFT } else { self.status };
        self.metrics.ended(status, took, self.bytes);
        let Some(log) = self.log.take() else { return };
        let trace = self.trace.as_ref();
        let address = trace.and_then(Trace::address);
        let upstream = self.upstream.as_deref();
        let (request, protocol) = self.line.rsplit_once(' ').unwrap_or_default();
        let (method, uri) = request.split_once(' ').unwrap_or_default();
        let line = Line {
            time: OffsetDateTime::now_utc(),
            remote: &self.remote,
            method,
            uri,
            protocol,
            status,
            bytes: self.bytes,
            referer: &self.referer,
            agent: &self.agent,
            host: &self.host,
            upstream: &upstream.map_or_else(String::new, |name| escape(name.as_bytes())),
            address: &address.map_or_else(String::new, |address| escape(address.as_bytes())),
            retries: trace.map(Trace::retries),
            wait: self.wait.map(seconds),
            took: seconds(took),
            complete: self.is_whole,
        };
        log.write(&line);
    }
}

/// Logs and counts what was answered to bytes that are no request.
pub(crate) fn refused(
    log: Option<AccessLog>,
    metrics: &Metrics,
    remote: String,
    (status, line): (StatusCode, &[u8]),
) {
    let status = status.as_u16();
    metrics.ended(status, Duration::ZERO, 0);
    let Some(log) = log else { return };
    let line = escape(line);
    let mut words = line.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let line = Line {
        time: OffsetDateTime::now_utc(),
        remote: &remote,
        method: word(),
        uri: word(),
        protocol: word(),
        status,
        bytes: 0,
        referer: "",
        agent: "",
        host: "",
        upstream: "",
        address: "",
        retries: None,
        wait: None,
        took: 0.0,
        complete: true,
    };
    log.write(&line);
}

/// What a line tells. What clients send is escaped already, in both formats alike; what is not known is empty.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(serialize_with = "as_time")]
    time: OffsetDateTime,
    remote: &'a str,
    method: &'a str,
    uri: &'a str,
    protocol: &'a str,
    status: u16,
    bytes: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    referer: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    agent: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    host: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    upstream: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    /// Seconds, as is `took`.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<f64>,
    took: f64,
    complete: bool,
}

impl Line<'_> {
    fn text(&self) -> String {
        let mut line = String::with_capacity(256);
        // Writing to a string does not fail.
        let _ = writeln!(
            line,
            "{} - - [{}] \"{} {} {}\" {} {} \"{}\" \"{}\" host={} upstream=\"{}\" address=\"{}\" retries={} wait={} took={}{}",
            self.remote,
            date(self.time),
            or_dash(self.method),
            or_dash(self.uri),
            or_dash(self.protocol),
            self.status,
            self.bytes,
            or_dash(self.referer),
            or_dash(self.agent),
            or_dash(self.host),
            or_dash(self.upstream),
            or_dash(self.address),
            self.retries
                .map_or("-".to_owned(), |times| times.to_string()),
            self.wait
                .map_or("-".to_owned(), |wait| format!("{wait:.3}")),
            format_args!("{:.3}", self.took),
            if self.complete { "" } else { " incomplete" },
        );
        line
    }

    fn json(&self) -> String {
        // Of strings and numbers there is always a text.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

fn as_time<S: Serializer>(time: &OffsetDateTime, to: S) -> Result<S::Ok, S::Error> {
    let (date, clock) = (time.date(), time.time());
    to.collect_str(&format_args!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.millisecond()
    ))
}

/// To the millisecond.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn field(headers: &HeaderMap, name: &HeaderName) -> String {
    headers
        .get(name)
        .map_or_else(String::new, |value| escape(value.as_bytes()))
}

/// What a client sent, so that it ends no field and no line, and moves no cursor.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f..=0xff => {
                let _ = write!(out, "\\x{byte:02x}");
            }
            byte => out.push(byte.into()),
        }
    }
    out
}

/// `10/Oct/2000:13:55:36 +0000`
fn date(now: OffsetDateTime) -> String {
    let month = now.month().to_string();
    format!(
        "{:02}/{}/{}:{:02}:{:02}:{:02} +0000",
        now.day(),
        month.get(..3).unwrap_or_default(),
        now.year(),
        now.hour(),
        now.minute(),
        now.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out_of_its_field() {
        assert_eq!(
            escape("a\"b\\\n\x1b[31m\u{e9}".as_bytes()),
            "a\\x22b\\x5c\\x0a\\x1b[31m\\xc3\\xa9"
        );
    }

    #[test]
    fn a_line_is_as_long_as_what_is_known() {
        let mut line = Line {
            time: OffsetDateTime::from_unix_timestamp(971_186_136).unwrap(),
            remote: "127.0.0.1",
            method: "GET",
            uri: "/a",
            protocol: "HTTP/1.1",
            status: 200,
            bytes: 12,
            referer: "",
            agent: "\\x22",
            host: "",
            upstream: "",
            address: "",
            retries: None,
            wait: None,
            took: seconds(Duration::from_micros(1499)),
            complete: true,
        };
        assert_eq!(
            line.text(),
            "127.0.0.1 - - [10/Oct/2000:13:55:36 +0000] \"GET /a HTTP/1.1\" 200 12 \"-\" \"\\x22\" \
             host=- upstream=\"-\" address=\"-\" retries=- wait=- took=0.001\n"
        );
        assert_eq!(
            line.json(),
            "{\"time\":\"2000-10-10T13:55:36.000Z\",\"remote\":\"127.0.0.1\",\"method\":\"GET\",\"uri\":\"/a\",\
             \"protocol\":\"HTTP/1.1\",\"status\":200,\"bytes\":12,\"agent\":\"\\\\x22\",\"took\":0.001,\"complete\":true}\n"
        );
        line.upstream = "app";
        line.address = "unix:/run/a.sock";
        line.retries = Some(1);
        line.wait = Some(0.5);
        line.complete = false;
        assert!(line.text().ends_with(
            "upstream=\"app\" address=\"unix:/run/a.sock\" retries=1 wait=0.500 took=0.001 incomplete\n"
        ));
    }

    #[test]
    fn dates() {
        let at = OffsetDateTime::from_unix_timestamp(971_186_136).unwrap();
        assert_eq!(date(at), "10/Oct/2000:13:55:36 +0000");
    }
}
