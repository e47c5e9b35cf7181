//! The command line of `afcgi tap`, and what teaches it.

use std::io;

use afcgi::Address;
use anstream::{AutoStream, ColorChoice};

use super::filter::{Filter, Statuses};
use super::observe::Form;
use crate::gateway::Mode;
use crate::wire::Palette;

const EXAMPLES: &str = "\
Examples:
  See what nginx and PHP-FPM say: have nginx connect to the tap (fastcgi_pass unix:/run/tap.sock;)
    afcgi tap --listen unix:/run/tap.sock --socket-mode 666 --connect unix:/run/php/php-fpm.sock
  Each record, and secrets as they are:
    afcgi tap -v --show-secrets --listen 127.0.0.1:9001 --connect 127.0.0.1:9000
  Requests that fail, below /api:
    afcgi tap --status 5xx --path /api --listen 127.0.0.1:9001 --connect 127.0.0.1:9000
  Record, read it again, open it in Wireshark, which has to be told where FastCGI is spoken:
    afcgi tap -w app.pcapng --listen 127.0.0.1:9001 --connect 127.0.0.1:9000
    afcgi tap -r app.pcapng --path '*.php'
    tshark -r app.pcapng -d tcp.port==9000,fcgi -Y fcgi
  Wireshark as it happens:
    afcgi tap -w - --listen 127.0.0.1:9001 --connect 127.0.0.1:9000 | wireshark -k -i - -d tcp.port==9000,fcgi
  What tcpdump has recorded, which needs no tap:
    tcpdump -i lo -w lo.pcap port 9000
    afcgi tap -r lo.pcap --port 9000
  For programs; and a test that fails where the protocol is broken:
    afcgi tap --json -r app.pcapng | jq -r 'select(.status == 500).uri'
    afcgi tap -q --check -r app.pcapng
  Send what was recorded again, and compare the answers:
    afcgi request --replay app.pcapng 127.0.0.1:9000

Lines:
  the time of day (UTC), cCONNECTION.ID, method, URI, status, bytes of STDIN (and DATA) and STDOUT, the time from
  BEGIN_REQUEST to the first byte of STDOUT and to END_REQUEST, SCRIPT_FILENAME, and in brackets what is special.
  R-12 and the like are rules of docs/protocol.md.

Signals:
  SIGINT and SIGTERM: no new connections, idle ones are closed, and the rest may end what they do. Again: all end.

Exit status:
  0 when it was stopped, or has read all; 1 when it cannot listen, read or write; 2 for a command line that is
  of no use; 3 with --check when rules were broken.";

/// Shows and records what a web server and a FastCGI application say to each other
///
/// It stands between them: the web server connects to --listen, and it connects to --connect. Bytes pass as they come.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "--help has examples, signals and the exit status.")]
pub struct Arguments {
    /// Where the web server connects to: HOST:PORT, *:PORT, [IPv6]:PORT, unix:PATH or a path with a `/`
    #[arg(
        long,
        value_name = "ADDR",
        required_unless_present = "read",
        requires = "connect"
    )]
    pub(super) listen: Option<Address>,
    /// Where the application is
    #[arg(
        long,
        value_name = "ADDR",
        required_unless_present = "read",
        requires = "listen"
    )]
    pub(super) connect: Option<Address>,
    /// Mode of the unix socket of --listen, in octal, such as 660 [default: what the umask leaves]
    #[arg(long, value_name = "MODE", requires = "listen")]
    pub(super) socket_mode: Option<Mode>,
    /// Connections at a time, 1 to 100000; others wait
    #[arg(long, value_name = "N", default_value = "4096", value_parser = connections)]
    pub(super) max_connections: usize,

    /// Show what a file has: of this program, Wireshark or tcpdump (pcapng or pcap); -: the standard input
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["listen", "connect", "write"])]
    pub(super) read: Option<String>,
    /// In a file of others: the port of the application [default: what looks like FastCGI]
    #[arg(long, value_name = "PORT", requires = "read")]
    pub(super) port: Option<u16>,
    /// Record all in this file (pcapng), whatever is shown; -: the standard output
    #[arg(short, long, value_name = "FILE")]
    pub(super) write: Option<String>,

    /// Show each record
    #[arg(short, long, conflicts_with_all = ["json", "quiet"])]
    pub(super) verbose: bool,
    /// A JSON object on a line for each request, violation and note, and the summary
    #[arg(long, conflicts_with = "quiet")]
    pub(super) json: bool,
    /// Show the summary alone
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Show requests for this path and what is below it; `*` and `?` make it a pattern for the whole path. Several if you like
    #[arg(long, value_name = "PATH|GLOB")]
    pub(super) path: Vec<String>,
    /// Show requests with this id; several if you like
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) id: Vec<u16>,
    /// Show requests with this status, such as 404 or 5xx; several if you like
    #[arg(long, value_name = "STATUS")]
    pub(super) status: Vec<Statuses>,
    /// Leave secrets as they are, in what is shown and in the file: cookies, passwords, tokens
    #[arg(long)]
    pub(super) show_secrets: bool,
    /// Exit with 3 where rules of the protocol were broken
    #[arg(long)]
    pub(super) check: bool,
}

fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=100_000) => Ok(number),
        _ => Err(String::from("expected a number from 1 to 100000")),
    }
}

impl Arguments {
    pub(super) fn form(&self) -> Form {
        match self.write.as_deref() {
            // It is taken.
            Some("-") => Form::Nothing,
            _ if self.quiet => Form::Nothing,
            _ if self.json => Form::Json,
            _ if self.verbose => Form::Records,
            _ => Form::Lines,
        }
    }

    pub(super) fn palette(&self) -> Palette {
        Palette::new(AutoStream::choice(&io::stdout()) != ColorChoice::Never)
    }

    pub(super) fn filter(&self) -> Filter {
        Filter {
            paths: self.path.clone(),
            ids: self.id.clone(),
            statuses: self.status.clone(),
        }
    }
}
