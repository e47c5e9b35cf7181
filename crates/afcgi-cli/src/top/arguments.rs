//! The command line of `afcgi top`.

use std::time::Duration;

use afcgi::Address;

/// Sources of one run.
const SOURCES: usize = 32;
/// The shortest and the longest time between two questions.
pub(super) const SHORTEST: Duration = Duration::from_millis(100);
pub(super) const LONGEST: Duration = Duration::from_secs(60 * 60);

const EXAMPLES: &str = "\
Examples:

  The pool of PHP-FPM on a socket (pm.status_path = /status), without a web server in between:
    afcgi top unix:/run/php/php-fpm.sock
    afcgi top 127.0.0.1:9000/fpm-status

  The status page of the nginx module, and of a gateway by its --admin address:
    afcgi top http://127.0.0.1/fastcgi-status
    afcgi top http://127.0.0.1:8889

  Several at once:
    afcgi top http://127.0.0.1/fastcgi-status unix:/run/php/www.sock unix:/run/php/shop.sock

  For scripts: two samples a second apart, so that there are rates; one sample:
    afcgi top --once --interval 1s unix:/run/php/php-fpm.sock
    afcgi top --once --json --interval 0s unix:/run/php/php-fpm.sock | jq '.sources[0].pools[0].queue'

  For Prometheus, at http://127.0.0.1:9253/metrics:
    afcgi top --export 127.0.0.1:9253 unix:/run/php/www.sock unix:/run/php/shop.sock

Sources:
  http://HOST:PORT/PATH     a status page by HTTP (without a path: /metrics)
  http://unix:SOCKET:/PATH  the same over a unix socket
  HOST:PORT[/PATH]          PHP-FPM by FastCGI (without a path: that of --status-path)
  unix:SOCKET[/PATH]        the same over a unix socket
  Which page it is shows in the answer: JSON or Prometheus of the module, Prometheus of the gateway, JSON of PHP-FPM.

Keys: q quits, arrows or j k move, Tab goes to the next table, s and S choose the column that sorts, r reverses,
p pauses, + and - change the interval, ? helps.

Exit status: 0 when it was ended by q, Ctrl-C or SIGTERM, and with --once when all sources answered; 1 when one did
not, or there is no terminal, or --export cannot listen; 2 for a command line that is of no use.";

/// Shows what an nginx module, a gateway or PHP-FPM does, live, once, or for Prometheus
///
/// Asks each source for its status page every so often, and shows connections, requests, rates, bytes, aborts and what waits.
/// PHP-FPM is asked by FastCGI, with no web server in between.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "--help has examples, keys and the exit status.")]
pub struct Arguments {
    /// Where status pages are: http://HOST:PORT/PATH, or for PHP-FPM HOST:PORT[/PATH] or unix:SOCKET[/PATH]; 32 at most
    #[arg(value_name = "SOURCE", required = true)]
    pub(super) sources: Vec<String>,
    /// Print a table and leave
    #[arg(long)]
    pub(super) once: bool,
    /// With --once: one JSON object in place of the table
    #[arg(long, requires = "once")]
    pub(super) json: bool,
    /// Serve the numbers for Prometheus at this address, HOST:PORT or unix:PATH, below /metrics
    #[arg(long, value_name = "ADDR", conflicts_with = "once")]
    pub(super) export: Option<Address>,
    /// The time between two questions; with --once that between its two samples, and 0s takes one alone [default: 2s, with
    /// --once 1s]
    #[arg(short, long, value_name = "TIME", value_parser = parse_interval, conflicts_with = "export")]
    pub(super) interval: Option<Duration>,
    /// How long an answer is waited for
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_timeout)]
    pub(super) timeout: Duration,
    /// What PHP-FPM is asked for where the address does not say it: its pm.status_path
    #[arg(long, value_name = "PATH", default_value = "/status", value_parser = parse_path)]
    pub(super) status_path: String,
}

impl Arguments {
    /// Says what makes no sense together.
    pub(super) fn check(&self) -> Result<(), String> {
        let count = self.sources.len();
        if count > SOURCES {
            return Err(format!("{count} sources: {SOURCES} are the most"));
        }
        if self.interval == Some(Duration::ZERO) && !self.once {
            return Err(String::from(
                "--interval 0s is for --once: expected 100ms to 1h",
            ));
        }
        Ok(())
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.is_zero() || (SHORTEST..=LONGEST).contains(&time) => Ok(time),
        Ok(_) => Err("expected 100ms to 1h".to_owned()),
        Err(_) => Err("expected a time, such as 500ms, 2s or 1m".to_owned()),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_interval(text)? {
        Duration::ZERO => Err("expected 100ms to 1h".to_owned()),
        time => Ok(time),
    }
}

fn parse_path(text: &str) -> Result<String, String> {
    match text.starts_with('/') && !text.contains('?') {
        true => Ok(text.to_owned()),
        false => Err("expected a path, such as /status".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(parse_interval("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_interval("100ms"), Ok(SHORTEST));
        assert!(parse_interval("99ms").is_err());
        assert!(parse_interval("2h").is_err());
        assert!(parse_interval("2").unwrap_err().contains("such as"));
        assert!(parse_timeout("0s").is_err());
        assert!(parse_path("status").is_err());
        assert!(parse_path("/status?full").is_err());
    }
}
