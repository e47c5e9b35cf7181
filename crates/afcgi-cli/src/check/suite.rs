//! What is known of the application before the first case: where it is, what it answers, what it says of itself. `learn` finds it out.

use std::collections::BTreeMap;
use std::time::Duration;

use afcgi::Address;

use crate::request::Pairs;

/// Requests that tell more, for those cases that need an application to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Answers with the body of the request.
    Echo,
    /// Answers with a line NAME=VALUE for each parameter.
    Params,
    /// Takes longer than any case to answer.
    Slow,
    /// Answers with 1 MB or more.
    Large,
    /// Writes to STDERR.
    Stderr,
    /// Takes a WebSocket and gives its messages back.
    Websocket,
}

impl Route {
    /// The flag that tells it.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Echo => "--echo",
            Self::Params => "--params",
            Self::Slow => "--slow",
            Self::Large => "--large",
            Self::Stderr => "--stderr",
            Self::Websocket => "--websocket",
        }
    }
}

/// What is to be checked, and how patiently.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) address: Address,
    /// How long the application may take for anything.
    pub limit: Duration,
    /// Cases at a time.
    pub jobs: usize,
    /// The process of the application, for the cases about memory.
    pub pid: Option<u32>,
    pub(crate) base: Pairs,
    pub(crate) routes: Vec<(Route, Pairs)>,
}

/// What the application answers to the plain request.
#[derive(Clone, Debug)]
pub(crate) struct Baseline {
    /// STDOUT, if that is the same each time.
    pub(crate) stdout: Option<Vec<u8>>,
    /// The line that begins with `Status:`, if there is one.
    pub(crate) status: Vec<u8>,
}

impl Baseline {
    pub(super) fn new(first: &[u8], second: &[u8]) -> Self {
        Self {
            stdout: (undated(first) == undated(second)).then(|| first.to_vec()),
            status: status(first),
        }
    }

    /// Whether this is that answer; what is different otherwise.
    pub(crate) fn compare(&self, stdout: &[u8]) -> Result<(), String> {
        let shown = |bytes: &[u8]| {
            let length = bytes.len();
            match length {
                0..=200 => format!("`{}`", crate::wire::escaped(bytes)),
                _ => format!(
                    "`{}`… ({length} bytes)",
                    crate::wire::escaped(&bytes[..200])
                ),
            }
        };
        let same = match &self.stdout {
            Some(expected) => undated(expected) == undated(stdout),
            None => self.status == status(stdout) && !stdout.is_empty(),
        };
        match same {
            true => Ok(()),
            false => Err(shown(stdout)),
        }
    }
}

/// Without the header line that says what time it is.
fn undated(stdout: &[u8]) -> Vec<u8> {
    let mut head = true;
    let mut lines: Vec<&[u8]> = stdout.split_inclusive(|&byte| byte == b'\n').collect();
    lines.retain(|line| {
        head &= !line.trim_ascii().is_empty();
        !(head && line.len() > 5 && line[..5].eq_ignore_ascii_case(b"date:"))
    });
    lines.concat()
}

fn status(stdout: &[u8]) -> Vec<u8> {
    let mut lines = stdout
        .split(|&byte| byte == b'\n')
        .take_while(|line| line.len() > 1);
    let found = lines.find(|line| line.len() > 7 && line[..7].eq_ignore_ascii_case(b"status:"));
    found.unwrap_or_default().trim_ascii().to_vec()
}

/// The settings, and what was found out.
#[derive(Debug)]
pub struct Suite {
    pub(crate) settings: Settings,
    pub(crate) baseline: Baseline,
    /// What it answered to GET_VALUES, if it did.
    pub(crate) values: Option<BTreeMap<String, String>>,
    /// Whether a connection outlives a request with FCGI_KEEP_CONN.
    pub(crate) keeps: bool,
}

impl Suite {
    /// Whether it says that it multiplexes; `None`: it says nothing.
    pub(crate) fn multiplexes(&self) -> Option<bool> {
        match self.value("FCGI_MPXS_CONNS")? {
            "1" => Some(true),
            "0" => Some(false),
            _ => None,
        }
    }

    /// What it says of a name.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        Some(self.values.as_ref()?.get(name)?.as_str())
    }

    /// What it says of itself, in a line.
    pub fn about(&self) -> String {
        let values = match &self.values {
            None => String::from("does not answer GET_VALUES"),
            Some(values) if values.is_empty() => String::from("answers GET_VALUES with nothing"),
            Some(values) => {
                let mut pairs = values.iter().take(8).map(|(name, value)| {
                    let pair = format!("{name}={value}");
                    crate::wire::escaped(&pair.as_bytes()[..pair.len().min(80)])
                });
                let first = pairs.next().unwrap_or_default();
                pairs.fold(first, |all, pair| all + ", " + &pair)
            }
        };
        let keeps = match self.keeps {
            true => "keeps connections",
            false => "keeps no connection",
        };
        format!("{values}; {keeps}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_makes_no_other_response() {
        let baseline = Baseline::new(
            b"Date: now\r\nA: b\r\n\r\nDate: x\n",
            b"Date: then\r\nA: b\r\n\r\nDate: x\n",
        );
        assert_eq!(
            baseline.compare(b"date: later\r\nA: b\r\n\r\nDate: x\n"),
            Ok(())
        );
        assert!(
            baseline
                .compare(b"Date: now\r\nA: b\r\n\r\nDate: y\n")
                .is_err()
        );
        assert!(
            baseline
                .compare(b"Date: now\r\nA: c\r\n\r\nDate: x\n")
                .is_err()
        );
    }

    #[test]
    fn of_a_response_that_changes_the_status_counts() {
        let baseline = Baseline::new(b"Status: 404 Not Found\n\n1", b"Status: 404 Not Found\n\n2");
        assert_eq!(baseline.compare(b"Status: 404 Not Found\n\n3"), Ok(()));
        assert!(baseline.compare(b"A: b\n\n3").is_err());
        assert!(baseline.compare(b"").is_err());
    }
}
