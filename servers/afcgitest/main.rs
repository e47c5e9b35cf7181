//! `afcgitest`, the reference server: every route that a test of a FastCGI web server needs, on the
//! native API. Reborn from the one of 2009.

mod routes;

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use afcgi::{Config, Upgrades};
use afcgi_servers::Listen;
use clap::Parser;

/// An asynchronous FastCGI server to test web servers with.
///
/// Routes, by SCRIPT_NAME and PATH_INFO: /echo gives the body back; /delay?ms=N waits and does not
/// read the body; /bytes?n=N; /env gives every parameter as NAME=VALUE; /status?code=N; /stderr
/// writes to the error log; /events?n=N&ms=M is an event stream; /stats tells the counters as JSON;
/// /websocket gives messages back; everything else answers «Hello world» after --delay.
#[derive(Debug, Parser)]
#[command(name = "afcgitest", version, verbatim_doc_comment)]
struct Arguments {
    #[command(flatten)]
    listen: Listen,
    /// How long to wait before «Hello world», such as 5s or 100ms
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// Threads; 0: one per CPU
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Requests at a time, on all connections together
    #[arg(long, value_name = "N", default_value_t = Config::default().max_requests)]
    max_requests: usize,
    /// Requests at a time on one connection
    #[arg(long, value_name = "N", default_value_t = Config::default().connection.requests)]
    max_connection_requests: usize,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = Config::default().max_connections)]
    max_connections: usize,
    /// Bytes of a request body that are held until they are read
    #[arg(long, value_name = "BYTES", default_value_t = Config::default().connection.stdin_buffer)]
    stdin_buffer: usize,
    /// Bytes of request bodies that a connection without flow control holds beyond that, before they
    /// hold up the requests behind them
    #[arg(long, value_name = "BYTES", default_value_t = Config::default().connection.overflow)]
    overflow: usize,
    /// How long the parameters of a request may take to come
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    params_timeout: Duration,
    /// How long a connection may be without a request
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    idle_timeout: Duration,
    /// How long requests may go on after SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    /// Accept WebSockets that the web server passes on without offering to: for lighttpd
    #[arg(long)]
    upgrade_by_header: bool,
}

fn main() -> ExitCode {
    afcgi_servers::main(run)
}

fn run(arguments: Arguments) -> std::io::Result<()> {
    let mut config = Config::default();
    config.max_requests = arguments.max_requests;
    config.max_connections = arguments.max_connections;
    config.drain_timeout = arguments.drain_timeout;
    config.connection.requests = arguments.max_connection_requests;
    config.connection.stdin_buffer = arguments.stdin_buffer;
    config.connection.overflow = arguments.overflow;
    config.connection.params_timeout = arguments.params_timeout;
    config.connection.idle_timeout = arguments.idle_timeout;
    if arguments.upgrade_by_header {
        config.upgrades = Upgrades::ByHeader;
    }
    let server = arguments.listen.server()?.config(config);
    let site = routes::Site::new(arguments.delay, server.stats());
    server.run(NonZeroUsize::new(arguments.threads), site)
}
