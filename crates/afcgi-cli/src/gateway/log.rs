//! The access log: one line for each request when it is over, in the combined format with some more at the end.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{REFERER, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Version};
use time::OffsetDateTime;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};

use super::connection::Busy;
use super::metrics::{Active, Metrics};

/// The status that is logged of a request whose client left before there was a response.
const LEFT: u16 = 499;

/// Where lines go: a thread of its own writes them, and drops them rather than hold requests up.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    to: NonBlocking,
    /// What is left is written when this is dropped.
    _thread: Arc<WorkerGuard>,
}

impl AccessLog {
    /// Appends to a file; `-` is standard output.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
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
            _thread: Arc::new(thread),
        })
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
    /// How long the application took to begin its response.
    pub(crate) wait: Option<Duration>,
    /// Whether the end of the connection may be what ends the response.
    is_old: bool,
    /// Counts it as active as long as it lasts: in all, and on its connection.
    _active: Active,
    busy: Busy,
}

impl Entry {
    pub(crate) fn new(
        request: &Parts,
        log: Option<AccessLog>,
        metrics: Arc<Metrics>,
        (active, busy): (Active, Busy),
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
            wait: None,
            is_old: request.version <= Version::HTTP_10,
            _active: active,
            busy,
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

    /// The response could not be sent as a whole: the application is to blame for that.
    pub(crate) fn broke_off(&self, error: &(dyn std::error::Error + 'static)) {
        if self.is_old {
            self.busy.broke_off();
        }
        let upstream = self.upstream.as_deref().unwrap_or("-");
        tracing::error!(%error, upstream, status = self.status, "a response broke off");
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let status = if self.status == 0 { LEFT } else { self.status };
        self.metrics.ended(status, took, self.bytes);
        let Some(log) = &mut self.log else { return };
        let mut line = String::with_capacity(256);
        let or_dash = |text: &str| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text.to_owned()
            }
        };
        let wait = self.wait.map_or("-".to_owned(), seconds);
        // Writing to a string does not fail.
        let _ = writeln!(
            line,
            "{} - - [{}] \"{}\" {status} {} \"{}\" \"{}\" host={} upstream=\"{}\" wait={wait} took={}{}",
            self.remote,
            date(OffsetDateTime::now_utc()),
            self.line,
            self.bytes,
            or_dash(&self.referer),
            or_dash(&self.agent),
            or_dash(&self.host),
            self.upstream.as_deref().unwrap_or("-"),
            seconds(took),
            if self.is_whole { "" } else { " incomplete" },
        );
        // It never blocks, and drops the line if there are too many.
        let _ = log.to.write_all(line.as_bytes());
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
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
    fn dates() {
        let at = OffsetDateTime::from_unix_timestamp(971_186_136).unwrap();
        assert_eq!(date(at), "10/Oct/2000:13:55:36 +0000");
    }
}
