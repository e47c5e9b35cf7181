//! The command line of `afcgi spawn`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use afcgi::Address;
use rustix::process::Signal;

use super::user::{Group, Owner, User};
use crate::gateway::Mode;
use crate::logging::LogFormat;

/// Processes that may be asked for.
const WORKERS: u16 = 1024;
/// The longest time that may be asked for.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

const EXAMPLES: &str = "\
Examples:

  One process per CPU, all of which take connections from one socket:
    afcgi spawn --listen 127.0.0.1:9000 -- ./app

  PHP without PHP-FPM, as the user www-data, on a socket for nginx alone:
    afcgi spawn --listen /run/php.sock --socket-owner www-data --socket-mode 600 \\
      --user www-data --workers 8 -- php-cgi

  A program on libfcgi or Perl's FCGI, which ends in order by SIGUSR1:
    afcgi spawn --listen 127.0.0.1:9000 --stop-signal USR1 -- perl app.pl

  A socket for each process, to be listed in the web server's configuration:
    afcgi spawn --listen-each /run/app-%d.sock --workers 4 -- ./app

  While you write it: begin anew when a file changes, with one process:
    afcgi spawn --listen 127.0.0.1:9000 --workers 1 --watch src --watch-ext py -- python3 app.py

  New processes for old ones, one by one; no request is lost behind a web server that keeps no connections:
    kill -HUP PID

Signals: SIGHUP replaces the workers one by one. SIGTERM and SIGINT let them end what they do, for as long
as --grace says; a second one kills them.

Exit status: 0 when it was stopped and all workers have ended in time; 1 when it cannot listen, or gives up
(--give-up); 2 for a command line that is of no use; 3 when it was stopped and had to kill workers; 126 and
127 when the program cannot be run, or is not there, as for a shell.

docs/spawn.md has more, such as units for systemd.";

/// Runs a FastCGI program in several processes on one socket, and keeps them running
///
/// The program can be any that takes its connections from descriptor 0, as all FastCGI libraries do. It is started
/// again when it crashes, replaced one by one on SIGHUP, and stopped in order. What it writes to standard output and error goes
/// to STDERR, with the number of the worker before each line.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "--help has examples, signals and the exit status.")]
pub struct Arguments {
    /// Where to listen: HOST:PORT, *:PORT, [IPv6]:PORT, unix:PATH or a path with a `/`. None: the socket that systemd
    /// passed, or the one that is descriptor 0
    #[arg(long, value_name = "ADDR", conflicts_with = "listen_each")]
    pub(super) listen: Option<Address>,
    /// The same with a socket for each worker: `%d` is the worker's number, from 1
    #[arg(long, value_name = "ADDR", value_parser = parse_pattern)]
    pub(super) listen_each: Option<String>,
    /// Mode of a unix socket, in octal, such as 660 [default: what the umask leaves]
    #[arg(long, value_name = "MODE")]
    pub(super) socket_mode: Option<Mode>,
    /// Owner of a unix socket: USER, USER:GROUP or :GROUP
    #[arg(long, value_name = "OWNER")]
    pub(super) socket_owner: Option<Owner>,
    /// Processes, 1 to 1024 [default: one per CPU]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(WORKERS)))]
    pub(super) workers: Option<u16>,
    /// Run the program as this user, with the groups of that user
    #[arg(short, long, value_name = "USER")]
    pub(super) user: Option<User>,
    /// Run the program with this group
    #[arg(short, long, value_name = "GROUP")]
    pub(super) group: Option<Group>,
    /// Run the program in this folder
    #[arg(long, value_name = "DIR")]
    pub(super) chdir: Option<PathBuf>,
    /// Files that the program may have open
    #[arg(long, value_name = "N")]
    pub(super) limit_nofile: Option<u64>,
    /// The signal that asks the program to end in order: TERM, USR1, USR2, INT, QUIT or HUP
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", value_parser = parse_signal)]
    pub(super) stop_signal: Signal,
    /// How long a worker may take to end before it is killed
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub(super) grace: Duration,
    /// Workers say when they are ready (READY=1 to NOTIFY_SOCKET, as for systemd)
    #[arg(long)]
    pub(super) notify: bool,
    /// How long a worker may take to say so before it is killed
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time, requires = "notify")]
    pub(super) start_timeout: Duration,
    /// How long a worker has to live to count as ready, where it does not say so
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_time, conflicts_with = "notify")]
    pub(super) settle: Duration,
    /// The longest pause before a worker that crashed is started again; the first is 100 ms, each is twice the one before
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub(super) backoff_max: Duration,
    /// A worker that has lived so long is started again without a pause
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    pub(super) healthy_after: Duration,
    /// End when a worker has crashed so many times in a row [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) give_up: Option<u32>,
    /// Replace the workers when a file below this folder changes; several if you like
    #[arg(long, value_name = "DIR")]
    pub(super) watch: Vec<PathBuf>,
    /// Only files whose names have these endings, such as php,twig
    #[arg(long, value_name = "EXT", value_delimiter = ',', requires = "watch")]
    pub(super) watch_ext: Vec<String>,
    /// Read the files every so often, where the system does not tell of changes, as on network drives
    #[arg(long, value_name = "TIME", value_parser = parse_interval, requires = "watch")]
    pub(super) watch_poll: Option<Duration>,
    /// How STDERR is written: lines for people, or a JSON object on each line
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) log_format: LogFormat,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    pub(super) program: Vec<OsString>,
}

fn parse_pattern(text: &str) -> Result<String, String> {
    if !text.contains("%d") {
        return Err("expected `%d` where the worker's number is to be".to_owned());
    }
    match each(text, 1).parse::<Address>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What `--listen-each` says for one worker.
pub(super) fn each(pattern: &str, number: u16) -> String {
    pattern.replace("%d", &number.to_string())
}

fn parse_signal(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "TERM" => Ok(Signal::TERM),
        "USR1" => Ok(Signal::USR1),
        "USR2" => Ok(Signal::USR2),
        "INT" => Ok(Signal::INT),
        "QUIT" => Ok(Signal::QUIT),
        "HUP" => Ok(Signal::HUP),
        _ => Err("expected TERM, USR1, USR2, INT, QUIT or HUP".to_owned()),
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= LONGEST => Ok(time),
        Ok(_) => Err("expected a day at most".to_owned()),
        Err(_) => Err("expected a time, such as 500ms, 30s or 2m".to_owned()),
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    if time.is_zero() {
        return Err("expected more than nothing".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(parse_signal("sigusr1"), Ok(Signal::USR1));
        assert_eq!(parse_signal("TERM"), Ok(Signal::TERM));
        assert!(parse_signal("KILL").is_err());
        assert_eq!(parse_time("1day"), Ok(LONGEST));
        assert!(parse_time("25h").unwrap_err().contains("a day at most"));
        assert!(parse_time("5").unwrap_err().contains("such as"));
        assert!(parse_interval("0s").is_err());
        assert!(parse_pattern("/run/app.sock").is_err());
        assert!(parse_pattern("%d").is_err());
        assert_eq!(each(&parse_pattern("a:500%d").unwrap(), 12), "a:50012");
    }
}
