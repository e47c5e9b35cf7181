//! `afcgi-bench run` measures this project beside its peers and writes a dated record (`make bench`);
//! `afcgi-bench isolation` whether one request can hurt the others (`make isolation`);
//! `afcgi-bench http` is the generator for HTTP by itself; that for FastCGI is `afcgi bench`.

#![forbid(unsafe_code)]

mod application;
mod gateways;
mod held;
mod isolation;
mod machine;
mod options;
mod peers;
mod suite;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use afcgi_bench::http;
use afcgi_bench::load::{Expect, Limit, Stats, Target};
use afcgi_bench::process;
use anyhow::Result;
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure everything, peers included, and write a record
    Run(options::Options),
    /// Measure whether one request can hurt the others on a shared connection, and write a record
    Isolation(isolation::Options),
    /// Load a web server with HTTP/1.1 keep-alive clients
    Http(Http),
}

#[derive(Args)]
struct Bounds {
    /// Seconds to run for
    #[arg(long, default_value_t = 5.0)]
    time: f64,
    /// Requests after which to stop earlier
    #[arg(long)]
    requests: Option<u64>,
    /// The body that each answer must have; without it any will do. `\n` is a newline
    #[arg(long)]
    body: Option<String>,
    /// Process whose CPU time is to be measured
    #[arg(long)]
    pid: Option<u32>,
    /// Core to run on
    #[arg(long)]
    core: Option<usize>,
}

#[derive(Args)]
struct Http {
    /// ADDRESS:PORT or unix:PATH
    target: Target,
    /// Clients
    #[arg(short, long, default_value_t = 64)]
    clients: usize,
    /// Path and query to ask for
    #[arg(long, default_value = "/")]
    path: String,
    #[command(flatten)]
    bounds: Bounds,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(options) => suite::run(&options),
        Command::Isolation(options) => isolation::run(&options),
        Command::Http(options) => load_http(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("afcgi-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load_http(options: Http) -> Result<()> {
    let (limit, expect) = options.bounds.prepare()?;
    let mut load = http::Load::connect(http::Config {
        target: options.target,
        clients: options.clients,
        path: options.path,
        expect,
        stall: Duration::from_secs(10),
    })?;
    let before = options.bounds.cpu()?;
    load.run(limit)?;
    load.drain(Duration::from_secs(10))?;
    options.bounds.report(before, load.stats())
}

impl Bounds {
    fn prepare(&self) -> Result<(Limit, Expect)> {
        if let Some(core) = self.core {
            process::pin(core)?;
        }
        let limit = Limit {
            time: Duration::try_from_secs_f64(self.time)?,
            requests: self.requests.unwrap_or(u64::MAX),
        };
        let expect = self.body.as_ref().map_or(Expect::Ok, |body| {
            Expect::Body(body.replace("\\n", "\n").into_bytes())
        });
        Ok((limit, expect))
    }

    /// CPU time of the measured process (zero without one) and of this one.
    fn cpu(&self) -> Result<(Duration, Duration, std::time::Instant)> {
        let measured = self.pid.map_or(Ok(Duration::ZERO), process::cpu)?;
        Ok((
            measured,
            process::cpu(std::process::id())?,
            std::time::Instant::now(),
        ))
    }

    fn report(
        &self,
        before: (Duration, Duration, std::time::Instant),
        stats: &Stats,
    ) -> Result<()> {
        let after = self.cpu()?;
        let count = stats.completed.max(1) as f64;
        let seconds = (after.2 - before.2).as_secs_f64();
        println!(
            "{} requests in {seconds:.2} s, {:.0} per second",
            stats.completed,
            count / seconds
        );
        let latency = |quantile| stats.latency.value_at_quantile(quantile) as f64 / 1000.0;
        println!(
            "latency µs: median {:.1}, 99 % {:.1}, 99.9 % {:.1}, largest {:.1}",
            latency(0.5),
            latency(0.99),
            latency(0.999),
            stats.latency.max() as f64 / 1000.0
        );
        println!(
            "per read {:.1} answers, per write {:.1} requests",
            count / stats.reads.max(1) as f64,
            count / stats.writes.max(1) as f64
        );
        println!(
            "CPU µs per request: generator {:.3}",
            (after.1 - before.1).as_secs_f64() * 1e6 / count
        );
        if self.pid.is_some() {
            println!(
                "CPU µs per request: server {:.3}",
                (after.0 - before.0).as_secs_f64() * 1e6 / count
            );
        }
        Ok(())
    }
}
