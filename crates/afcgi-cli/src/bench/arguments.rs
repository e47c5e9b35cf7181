//! The command line of `afcgi bench`, and what teaches it.

use std::time::Duration;

use clap::value_parser;

use super::engine::ExpectStatus;
use crate::request::arguments::{Asked, RoleName, duration};

/// Connections, and threads, of a run.
const MOST_CONNECTIONS: u64 = 1_000_000;
const MOST_THREADS: u64 = 256;
/// Bytes of a body.
const MOST_BODY: u64 = 64 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  Ten seconds, 64 requests at once on one connection:
    afcgi bench 127.0.0.1:5000/
  A script of PHP-FPM, which takes one request at a time on a connection; CPU and memory of the pool:
    afcgi bench -c 8 --script /srv/app/job.php --pid \"$(cat /run/php-fpm.pid)\" --children unix:/run/php-fpm.sock
  5,000 requests a second for a minute, after a warm-up, with a page of charts:
    afcgi bench -c 4 -m 256 -r 5000 -d 1m --warm-up 5s --html report.html 127.0.0.1:5000/
  Exactly 100,000 uploads of 64 KiB, each of which must be answered by 201:
    afcgi bench -n 100000 --body-size 64k --expect-status 201 127.0.0.1:5000/upload
  50,000 requests that wait, and what one of them costs the application:
    afcgi bench --hold 50000 --pid \"$(pidof app)\" 127.0.0.1:5000/events
  Every tenth client leaves after 20 ms:
    afcgi bench --aborts 10 --abort-after 20ms '127.0.0.1:5000/delay?ms=50'
  In a script: fails when an answer is wrong, and keeps the figures:
    afcgi bench -n 10000 --expect-text Hello --json 127.0.0.1:5000/ > figures.json

Addresses:
  HOST:PORT, :PORT, [IPV6]:PORT, unix:SOCKET or a path with a /. Behind it stand the path and the query. A unix socket ends at the
  first part of the path that is a socket.

Closed and open loop:
  Without --rate each answer makes room for the next request: this finds out how much the application can do. With --rate requests
  are sent by the clock, and latencies count from the time at which a request was to be sent, whether there was a place for it or
  not: this finds out how long clients wait who do not wait for each other.

Exit status:
    0 every request was answered as expected
    1 some were not: the report says how many, and why
    2 bad arguments
    6 the host is not known
    7 nobody takes connections
   23 the report cannot be written
   26 a file cannot be read
  130 ended by Ctrl-C; the report is about what there was until then";

/// Loads a FastCGI application, and measures it: h2load and wrk2 for FastCGI.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "`afcgi bench --help` has examples, and what the exit status means.",
    after_long_help = EXAMPLES
)]
pub struct Arguments {
    /// Where the application is, and what to ask for: HOST:PORT/path?query or unix:SOCKET/path?query.
    #[arg(value_name = "ADDR[/PATH][?QUERY]")]
    pub(super) target: String,

    /// Connections.
    #[arg(short, long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u64).range(1..=MOST_CONNECTIONS), help_heading = "How much")]
    pub(super) connections: u64,
    /// Requests at once on each connection: 64, or 1 if the application does not multiplex, which it is asked at the start.
    #[arg(short = 'm', long, value_name = "COUNT", value_parser = value_parser!(u16).range(1..=65_534), help_heading = "How much")]
    pub(super) concurrent: Option<u16>,
    /// Do as --concurrent says, whatever the application says.
    #[arg(long, requires = "concurrent", help_heading = "How much")]
    pub(super) force: bool,
    /// End after so many requests.
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = value_parser!(u64).range(1..), help_heading = "How much")]
    pub(super) requests: Option<u64>,
    /// End after this time: 10 s, unless --requests is given.
    #[arg(short, long, value_name = "TIME", value_parser = duration, help_heading = "How much")]
    pub(super) duration: Option<Duration>,
    /// Threads that send; each has its share of the connections.
    #[arg(short, long, value_name = "COUNT", default_value_t = 1, value_parser = value_parser!(u64).range(1..=MOST_THREADS), help_heading = "How much")]
    pub(super) threads: u64,
    /// Send so many requests a second, by the clock: 500, 20k, 0.5.
    #[arg(short, long, value_name = "RATE", value_parser = rate, help_heading = "How much")]
    pub(super) rate: Option<f64>,
    /// Send for so long before it counts.
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "How much")]
    pub(super) warm_up: Option<Duration>,
    /// Open so many requests that wait, hold them for --duration (5 s), and abort them.
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u64).range(1..=10_000_000), conflicts_with_all = ["requests", "rate", "warm_up", "abort_after", "aborts", "no_keep_conn"], help_heading = "How much")]
    pub(super) hold: Option<u64>,

    #[command(flatten)]
    pub(super) asked: Asked,
    /// What the application is asked to be: responder or authorizer.
    #[arg(long, value_enum, default_value_t = RoleName::Responder, help_heading = "What is asked for")]
    pub(super) role: RoleName,

    /// A body, as a form; @FILE without the ends of its lines. Several are joined by `&`.
    #[arg(long, value_name = "DATA|@FILE", help_heading = "What is sent")]
    pub(super) data: Vec<String>,
    /// The same, as it is.
    #[arg(
        long,
        value_name = "DATA|@FILE",
        conflicts_with = "data",
        help_heading = "What is sent"
    )]
    pub(super) data_binary: Vec<String>,
    /// A body of so many bytes: 1000, 64k, 1M.
    #[arg(long, value_name = "SIZE", value_parser = body_size, conflicts_with_all = ["data", "data_binary"], help_heading = "What is sent")]
    pub(super) body_size: Option<u64>,
    /// A connection for each request, which the application is to close (without FCGI_KEEP_CONN).
    #[arg(long, conflicts_with = "concurrent", help_heading = "What is sent")]
    pub(super) no_keep_conn: bool,
    /// Abort requests (ABORT_REQUEST) that are not answered after this time, to within a millisecond.
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "What is sent")]
    pub(super) abort_after: Option<Duration>,
    /// That many of them: all, unless this is given.
    #[arg(long, value_name = "PERCENT", value_parser = percent, requires = "abort_after", help_heading = "What is sent")]
    pub(super) aborts: Option<f64>,
    /// What chooses those; the report says which it was.
    #[arg(
        long,
        value_name = "NUMBER",
        requires = "aborts",
        help_heading = "What is sent"
    )]
    pub(super) seed: Option<u64>,

    /// The status of every answer, or `any`: below 400, unless this is given.
    #[arg(long, value_name = "STATUS", value_parser = status, help_heading = "What is expected")]
    pub(super) expect_status: Option<ExpectStatus>,
    /// The length of every body, in bytes.
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "What is expected")]
    pub(super) expect_length: Option<u64>,
    /// A text in every body.
    #[arg(long, value_name = "TEXT", help_heading = "What is expected")]
    pub(super) expect_text: Option<String>,
    /// The SHA-256 of every body, in hex.
    #[arg(long, value_name = "HEX", value_parser = hash, help_heading = "What is expected")]
    pub(super) expect_hash: Option<Hash>,
    /// Nothing on STDERR.
    #[arg(long, help_heading = "What is expected")]
    pub(super) expect_quiet: bool,
    /// How long a connection, an answer, and the end of an aborted request may take.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, help_heading = "What is expected")]
    pub(super) timeout: Duration,

    /// Measure CPU time and memory of this process.
    #[arg(long, value_name = "PID", value_parser = value_parser!(u32).range(1..), help_heading = "What is shown")]
    pub(super) pid: Option<u32>,
    /// And of its children, and theirs.
    #[arg(long, requires = "pid", help_heading = "What is shown")]
    pub(super) children: bool,
    /// One JSON object in place of the text.
    #[arg(long, help_heading = "What is shown")]
    pub(super) json: bool,
    /// Write a page with charts, too: one file that needs no other.
    #[arg(long, value_name = "FILE", help_heading = "What is shown")]
    pub(super) html: Option<String>,
    /// Show no progress. It is shown on a terminal only.
    #[arg(short, long, help_heading = "What is shown")]
    pub(super) quiet: bool,
}

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// A number with k, M or G behind it, which stand for powers of `unit`.
fn number(text: &str, unit: f64) -> Option<f64> {
    let (digits, factor) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], unit),
        (at, 'm' | 'M') => (&text[..at], unit * unit),
        (at, 'g' | 'G') => (&text[..at], unit * unit * unit),
        _ => (text, 1.0),
    };
    let plain = |c: char| c.is_ascii_digit() || c == '.';
    let number: f64 = digits.chars().all(plain).then(|| digits.parse().ok())??;
    Some(number * factor)
}

fn size(text: &str) -> Result<u64, String> {
    match number(text, 1024.0) {
        Some(bytes) if bytes.fract() == 0.0 && bytes < 1e15 => Ok(bytes as u64),
        _ => Err(String::from("expected a number of bytes, 64k or 1M")),
    }
}

fn body_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes > MOST_BODY => Err(String::from("it is more than 64M")),
        bytes => Ok(bytes),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match number(text, 1000.0) {
        Some(rate) if (0.001..=1e8).contains(&rate) => Ok(rate),
        _ => Err(String::from(
            "expected requests a second, such as 500, 20k or 0.5, up to 100M",
        )),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let digits = text.strip_suffix('%').unwrap_or(text);
    match number(digits, 1.0) {
        Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err(String::from("expected a number above 0, up to 100")),
    }
}

fn status(text: &str) -> Result<ExpectStatus, String> {
    match (text, text.parse()) {
        ("any", _) => Ok(ExpectStatus::Any),
        (_, Ok(status @ 100..=999)) => Ok(ExpectStatus::Is(status)),
        _ => Err(String::from("expected a status, such as 200, or `any`")),
    }
}

fn hash(text: &str) -> Result<Hash, String> {
    let error = || String::from("expected 64 digits in hex, as sha256sum prints them");
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits.ok_or_else(error)?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|two| two[0] << 4 | two[two.len() - 1])
        .collect();
    match (digits.len(), Hash::try_from(bytes)) {
        (64, Ok(hash)) => Ok(hash),
        _ => Err(error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!((size("0"), size("64k")), (Ok(0), Ok(65_536)));
        assert_eq!((size("1.5M"), size("1G")), (Ok(3 << 19), Ok(1 << 30)));
        assert_eq!((rate("20k"), rate("0.5")), (Ok(20_000.0), Ok(0.5)));
        assert_eq!((percent("10"), percent("2.5%")), (Ok(10.0), Ok(2.5)));
        for text in ["", "k", "-1", "1e3", "NaN", "inf", "x", "1.1", "1kk", "é"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(body_size("64M"), Ok(MOST_BODY));
        assert!(body_size("65M").is_err());
        for text in ["0", "200M", "-5"] {
            assert!(rate(text).is_err(), "{text}");
        }
        for text in ["0", "101", "%"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn expectations() {
        assert_eq!(status("any"), Ok(ExpectStatus::Any));
        assert_eq!(status("404"), Ok(ExpectStatus::Is(404)));
        for text in ["", "99", "1000", "ok"] {
            assert!(status(text).is_err(), "{text}");
        }
        let hex = "e3".repeat(32);
        assert_eq!(hash(&hex), Ok([0xe3; 32]));
        for text in [
            "",
            "e3",
            &hex[1..],
            &format!("{hex}0"),
            &hex.replace('e', "x"),
        ] {
            assert!(hash(text).is_err(), "{text}");
        }
    }
}
