//! The command line of `afcgi check`.

use std::path::PathBuf;
use std::time::Duration;

use super::suite::{Route, Settings};
use crate::request::{duration, parameters};

const EXAMPLES: &str = "\
Examples:
  What can be judged of any application:
    afcgi check 127.0.0.1:5000
  A script of PHP-FPM:
    afcgi check unix:/run/php/php-fpm.sock --script /srv/app/index.php
  More, of an application that has paths for it:
    afcgi check 127.0.0.1:5000 --echo /echo --params /env --slow '/delay?ms=60000' --large '/bytes?n=2000000'
  Some cases: a section, a rule of docs/protocol.md, a case; by name or by number:
    afcgi check 127.0.0.1:5000 --only abort,R-30,3.3/6
  What there is:
    afcgi check --list
  A web server that passes http://127.0.0.1:8080/ on to an application at 127.0.0.1:5000, which is not running:
    afcgi check --web-server 127.0.0.1:5000 --url http://127.0.0.1:8080/
  In CI:
    afcgi check 127.0.0.1:5000 --strict --junit report.xml

Levels:
  must    the specification demands it, or peers cannot work together without it
  should  the specification recommends it, or peers count on it; counts with --strict only
  robust  what a hostile or broken peer does must hurt nobody else

Exit status:
  0  no case failed (one that was skipped has not)
  1  a case failed
  2  bad arguments, or the application does not answer a plain request";

/// Checks whether an application keeps to FastCGI: a conformance suite.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "`afcgi check --help` has examples, and what the levels and the exit status mean.",
    after_long_help = EXAMPLES
)]
pub struct Arguments {
    /// Where the application is, and what plain request it answers: HOST:PORT/path?query or unix:SOCKET/path?query.
    /// With --web-server: where the tool listens.
    #[arg(value_name = "ADDR[/PATH][?QUERY]", required_unless_present = "list")]
    pub(super) target: Option<String>,

    /// Run this file: SCRIPT_FILENAME, SCRIPT_NAME and DOCUMENT_ROOT follow from it.
    #[arg(long, value_name = "FILE", help_heading = "What is asked for")]
    pub(super) script: Option<String>,
    /// The folder of the scripts (DOCUMENT_ROOT).
    #[arg(long, value_name = "DIR", help_heading = "What is asked for")]
    pub(super) root: Option<String>,
    /// A parameter of every request, in place of the one of that name.
    #[arg(long, value_name = "NAME=VALUE", help_heading = "What is asked for")]
    pub(super) param: Vec<String>,
    /// Answers with the body of the request.
    #[arg(long, value_name = "PATH", help_heading = "Paths for more cases")]
    pub(super) echo: Option<String>,
    /// Answers with a line NAME=VALUE for each parameter.
    #[arg(long, value_name = "PATH", help_heading = "Paths for more cases")]
    pub(super) params: Option<String>,
    /// Takes a minute or so to answer.
    #[arg(long, value_name = "PATH", help_heading = "Paths for more cases")]
    pub(super) slow: Option<String>,
    /// Answers with a body of 1 MB to 60 MB.
    #[arg(long, value_name = "PATH", help_heading = "Paths for more cases")]
    pub(super) large: Option<String>,
    /// Writes to STDERR.
    #[arg(long, value_name = "PATH", help_heading = "Paths for more cases")]
    pub(super) stderr: Option<String>,
    /// Takes a WebSocket, and sends its messages back.
    #[arg(long, value_name = "PATH", help_heading = "Paths for more cases")]
    pub(super) websocket: Option<String>,
    /// The process of the application: its memory is looked at.
    #[arg(long, help_heading = "Paths for more cases")]
    pub(super) pid: Option<u32>,

    /// Check a web server: play the application behind it, at ADDR, and the client before it.
    #[arg(long, conflicts_with_all = ["script", "root", "param", "echo", "params", "slow", "large", "stderr", "websocket", "pid", "jobs"], help_heading = "Web servers")]
    pub(super) web_server: bool,
    /// What the web server passes on to ADDR: http://HOST:PORT/PATH. Without it you are told when to ask, and what clients get is not judged.
    #[arg(long, requires = "web_server", help_heading = "Web servers")]
    pub(super) url: Option<String>,

    /// Only these: ids, sections, rules, levels.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        help_heading = "Which cases"
    )]
    pub(super) only: Vec<String>,
    /// Not these.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        help_heading = "Which cases"
    )]
    pub(super) skip: Vec<String>,
    /// Say which cases there are, and run none.
    #[arg(long, help_heading = "Which cases")]
    pub(super) list: bool,
    /// Cases of the level `should` count, too.
    #[arg(long, help_heading = "Which cases")]
    pub(super) strict: bool,

    /// How long the application may take for anything.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s", help_heading = "Limits")]
    pub(super) timeout: Duration,
    /// Cases at a time. An application that takes one connection at a time needs 1.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Limits")]
    pub(super) jobs: u16,

    /// One JSON object in place of lines.
    #[arg(long, conflicts_with = "list", help_heading = "What is shown")]
    pub(super) json: bool,
    /// Write a report in the XML of JUnit, too.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "list",
        help_heading = "What is shown"
    )]
    pub(super) junit: Option<PathBuf>,
    /// Show what was sent and came for every case, not only for those that fail.
    #[arg(short = 'v', long, help_heading = "What is shown")]
    pub(super) verbose: bool,
}

impl Arguments {
    /// What is checked, and how. The error says what is wrong.
    pub(super) fn settings(&self) -> Result<Settings, String> {
        let target = self.target.as_deref().unwrap_or_default();
        let of = |path: Option<&str>| {
            let asked = parameters(
                target,
                path,
                self.script.as_deref(),
                self.root.as_deref(),
                &self.param,
            );
            asked.map_err(|failure| failure.to_string())
        };
        let (address, base) = of(None)?;
        let mut routes = Vec::new();
        for (route, path) in [
            (Route::Echo, &self.echo),
            (Route::Params, &self.params),
            (Route::Slow, &self.slow),
            (Route::Large, &self.large),
            (Route::Stderr, &self.stderr),
            (Route::Websocket, &self.websocket),
        ] {
            if let Some(path) = path {
                routes.push((route, of(Some(path))?.1));
            }
        }
        Ok(Settings {
            address,
            limit: self.timeout,
            jobs: self.jobs.into(),
            pid: self.pid,
            base,
            routes,
        })
    }
}
