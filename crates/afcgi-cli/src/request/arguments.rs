//! The command line of `afcgi request`, and what teaches it.

use std::time::Duration;

use clap::ValueEnum;

/// Requests of one run, and those of them at a time.
const MOST_REPEATS: u32 = 1_000_000;
const MOST_CONCURRENT: u32 = 1000;

const EXAMPLES: &str = "\
Examples:
  The status page and the ping page of PHP-FPM (pm.status_path, ping.path), without a web server:
    afcgi request 'unix:/run/php/php-fpm.sock/status?full&json'
    afcgi request unix:/run/php/php-fpm.sock/ping
  Run a script, with a query; as a front controller for another path:
    afcgi request 127.0.0.1:9000 --script /srv/app/job.php
    afcgi request '127.0.0.1:9000?id=7' --script /srv/app/job.php
    afcgi request 127.0.0.1:9000/blog/2026/ --script /srv/app/public/index.php
  Send a form, a file, JSON:
    afcgi request 127.0.0.1:5000/login -d user=me -d 'password=a b'
    afcgi request 127.0.0.1:5000/upload -F title=Report -F file=@report.pdf
    afcgi request 127.0.0.1:5000/api -H 'Content-Type: application/json' --data-binary @order.json
  See what is said on the wire, and how long it takes:
    afcgi request -v 127.0.0.1:5000/
    afcgi request --time -o /dev/null 127.0.0.1:5000/
  Ask the application what it can do:
    afcgi request --values 127.0.0.1:5000
  A health check for a container:
    afcgi request -sf --max-time 3 -o /dev/null unix:/run/php/php-fpm.sock/ping
  Break off after two seconds, as a client does that leaves:
    afcgi request --abort-after 2s 127.0.0.1:5000/events
  A WebSocket, if the application takes upgrades:
    echo hello | afcgi request --websocket 127.0.0.1:5000/echo
  The same request 50 times, 10 of them at a time:
    afcgi request --repeat 50 --concurrent 10 127.0.0.1:5000/

Addresses:
  HOST:PORT, :PORT, [IPV6]:PORT, unix:SOCKET or a path with a /. Behind it stand the path and the query. A unix socket ends at the
  first part of the path that is a socket: of unix:/run/php/php-fpm.sock/status that is /run/php/php-fpm.sock.

Exit status:
  That of the application (its appStatus; 255 if that is more), and otherwise what curl would say:
    2 bad arguments                       22 a status of 400 or more, with --fail;
                                             no WebSocket
    6 the host is not known               23 the body cannot be written
    7 nobody takes connections            26 a file cannot be read
    8 the answer is no FastCGI, or has    28 something took too long
      no valid head                       52 the connection was closed without an answer
   18 the answer is not whole             56 the connection broke
  The application refused the request: 101 CANT_MPX_CONN, 102 OVERLOADED, 103 UNKNOWN_ROLE, 104 by another status.
  A line on STDERR that begins with `afcgi request:` tells one of these from a status of the application.";

/// Sends a request to a FastCGI application: curl for FastCGI.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "`afcgi request --help` has examples, and what the exit status means.",
    after_long_help = EXAMPLES
)]
pub struct Arguments {
    /// Where the application is, and what to ask for: HOST:PORT/path?query or unix:SOCKET/path?query.
    #[arg(value_name = "ADDR[/PATH][?QUERY]")]
    pub(super) target: String,

    /// Run this file: SCRIPT_FILENAME, SCRIPT_NAME and DOCUMENT_ROOT follow from it.
    #[arg(long, value_name = "FILE", help_heading = "What is asked for")]
    pub(super) script: Option<String>,
    /// The folder of the scripts (DOCUMENT_ROOT).
    #[arg(long, value_name = "DIR", help_heading = "What is asked for")]
    pub(super) root: Option<String>,
    /// The method.
    #[arg(
        short = 'X',
        long = "request",
        value_name = "METHOD",
        help_heading = "What is asked for"
    )]
    pub(super) method: Option<String>,
    /// A header field, as HTTP_NAME; `NAME:` takes one away, `NAME;` sends it empty.
    #[arg(
        short = 'H',
        long = "header",
        value_name = "NAME: VALUE",
        help_heading = "What is asked for"
    )]
    pub(super) headers: Vec<String>,
    /// Ask for the head only (HEAD), and show it.
    #[arg(short = 'I', long, conflicts_with_all = ["data", "data_binary", "form"], help_heading = "What is asked for")]
    pub(super) head: bool,
    /// A parameter, in place of the one of that name.
    #[arg(long, value_name = "NAME=VALUE", help_heading = "What is asked for")]
    pub(super) param: Vec<String>,
    /// Leave a parameter out.
    #[arg(long, value_name = "NAME", help_heading = "What is asked for")]
    pub(super) no_param: Vec<String>,
    /// What the application is asked to be.
    #[arg(long, value_enum, default_value_t = RoleName::Responder, help_heading = "What is asked for")]
    pub(super) role: RoleName,
    /// Ask what the application can do (GET_VALUES) in place of sending it a request.
    #[arg(long, conflicts_with_all = ["script", "data", "data_binary", "form", "data_file", "abort_after", "repeat", "output", "include", "head", "raw"], help_heading = "What is asked for")]
    pub(super) values: bool,

    /// Open a WebSocket: lines of the standard input are messages, and messages are lines.
    #[arg(long, conflicts_with_all = ["values", "data", "data_binary", "form", "data_file", "abort_after", "repeat", "output", "include", "head", "raw", "json", "time", "fail", "keep_conn"], help_heading = "What is asked for")]
    pub(super) websocket: bool,

    /// A body, as a form; @FILE without the ends of its lines, @- the standard input. Several are joined by `&`.
    #[arg(
        short = 'd',
        long,
        value_name = "DATA|@FILE",
        help_heading = "What is sent"
    )]
    pub(super) data: Vec<String>,
    /// The same, as it is.
    #[arg(
        long,
        value_name = "DATA|@FILE",
        conflicts_with = "data",
        help_heading = "What is sent"
    )]
    pub(super) data_binary: Vec<String>,
    /// A field of a form with files: NAME=VALUE, NAME=@FILE, NAME=<FILE, with ;type= and ;filename= behind the file.
    #[arg(short = 'F', long, value_name = "NAME=VALUE|NAME=@FILE", conflicts_with_all = ["data", "data_binary"], help_heading = "What is sent")]
    pub(super) form: Vec<String>,
    /// The file that a filter is given as DATA.
    #[arg(long, value_name = "FILE", help_heading = "What is sent")]
    pub(super) data_file: Option<String>,
    /// Ask for the connection to be kept (FCGI_KEEP_CONN), as --repeat does.
    #[arg(long, conflicts_with = "no_keep_conn", help_heading = "What is sent")]
    pub(super) keep_conn: bool,
    /// Do not ask for that with --repeat either: each request has a connection of its own.
    #[arg(long, help_heading = "What is sent")]
    pub(super) no_keep_conn: bool,
    /// Abort the request (ABORT_REQUEST) after this time.
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "What is sent")]
    pub(super) abort_after: Option<Duration>,
    /// Send the request so many times, and print a summary in place of the bodies.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_REPEATS)), conflicts_with_all = ["output", "include", "head", "raw"], help_heading = "What is sent")]
    pub(super) repeat: Option<u32>,
    /// So many of them at a time, each on a connection of its own.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CONCURRENT)), requires = "repeat", help_heading = "What is sent")]
    pub(super) concurrent: u32,

    /// How long to wait for the connection, and for anything to come or go: 2s, 500ms, or seconds.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration, help_heading = "Limits")]
    pub(super) timeout: Duration,
    /// How long all of it may take.
    #[arg(short = 'm', long, value_name = "TIME", value_parser = duration, help_heading = "Limits")]
    pub(super) max_time: Option<Duration>,
    /// Exit with 22 and without the body for a status of 400 or more.
    #[arg(short = 'f', long, help_heading = "Limits")]
    pub(super) fail: bool,

    /// Show the head of the response before its body.
    #[arg(short = 'i', long, help_heading = "What is shown")]
    pub(super) include: bool,
    /// Show the records both ways, on STDERR.
    #[arg(short = 'v', long, help_heading = "What is shown")]
    pub(super) verbose: bool,
    /// Write the body to a file.
    #[arg(short = 'o', long, value_name = "FILE", help_heading = "What is shown")]
    pub(super) output: Option<String>,
    /// Say nothing but what the application says.
    #[arg(short = 's', long, help_heading = "What is shown")]
    pub(super) silent: bool,
    /// Show STDOUT as it comes: no head is looked for.
    #[arg(long, conflicts_with_all = ["include", "head", "fail"], help_heading = "What is shown")]
    pub(super) raw: bool,
    /// Show how long each step took, on STDERR.
    #[arg(long, help_heading = "What is shown")]
    pub(super) time: bool,
    /// One JSON object in place of the body: status, fields, body, timings, records.
    #[arg(long, conflicts_with_all = ["include", "raw"], help_heading = "What is shown")]
    pub(super) json: bool,
}

/// The roles that FastCGI knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RoleName {
    /// Answers the request.
    Responder,
    /// Allows or denies it.
    Authorizer,
    /// Transforms the file of --data-file.
    Filter,
}

impl From<RoleName> for afcgi_proto::Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Responder => Self::Responder,
            RoleName::Authorizer => Self::Authorizer,
            RoleName::Filter => Self::Filter,
        }
    }
}

/// A time with its unit, or in seconds as for curl.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::try_from_secs_f64);
    let duration = match seconds {
        Some(seconds) => seconds.map_err(|error| error.to_string())?,
        None => humantime::parse_duration(text)
            .map_err(|error| format!("{error} (expected 2s, 500ms, or seconds)"))?,
    };
    let most = Duration::from_secs(365 * 24 * 3600);
    match duration {
        Duration::ZERO => Err(String::from("it is 0")),
        longer if longer > most => Err(String::from("it is more than a year")),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        for text in ["", "0", "-1", "NaN", "inf", "1e300", "99999999999", "x"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
