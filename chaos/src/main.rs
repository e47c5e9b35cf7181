//! `chaos run`, and the applications that it starts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use afcgi_chaos::app::{self, Named};
use afcgi_chaos::events::Front;
use afcgi_chaos::fleet::Kind;
use afcgi_chaos::run::{Options, run};
use afcgi_chaos::tally::Summary;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs chaos; status 0 if nothing came of it that must not
    Run {
        /// From which all but the times follows [default: any]
        #[arg(long)]
        seed: Option<u64>,
        /// Requests
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
        requests: u64,
        /// After that no request begins
        #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
        duration: Duration,
        /// Clients at a time
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=2000))]
        clients: u16,
        /// Kinds of applications: own, plain, afcgitest, go, php, libfcgi, bad [default: all]
        #[arg(long, value_delimiter = ',', value_parser = kind)]
        kinds: Vec<Kind>,
        /// Web servers: nginx, gateway [default: both]
        #[arg(long, value_delimiter = ',', value_parser = front)]
        fronts: Vec<Front>,
        /// Kill, stop and reload nothing
        #[arg(long)]
        calm: bool,
        /// A file for a record in Markdown
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
    },
    /// An application on the library of this project
    #[command(hide = true)]
    Own {
        /// Without flow control
        #[arg(long)]
        plain: bool,
        apps: Vec<Named>,
    },
    /// An application that behaves badly
    #[command(hide = true)]
    Bad { apps: Vec<Named> },
}

fn kind(text: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| "expected own, plain, afcgitest, go, php, libfcgi or bad".to_owned())
}

fn front(text: &str) -> Result<Front, String> {
    match text {
        "nginx" => Ok(Front::Nginx),
        "gateway" => Ok(Front::Gateway),
        _ => Err("expected nginx or gateway".to_owned()),
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Own { plain, apps } => app::own::serve(&apps, plain).map(|()| true),
        Command::Bad { apps } => app::bad::serve(&apps).map(|()| true),
        Command::Run {
            seed,
            requests,
            duration,
            clients,
            kinds,
            fronts,
            calm,
            record,
        } => {
            let or_all = |kinds: Vec<Kind>| match kinds.is_empty() {
                true => Kind::ALL.to_vec(),
                false => kinds,
            };
            let options = std::env::current_exe().map(|program| Options {
                program,
                seed: seed.unwrap_or_else(|| fastrand::u64(1..1_000_000_000)),
                requests,
                duration,
                clients: usize::from(clients),
                kinds: or_all(kinds),
                fronts: if fronts.is_empty() {
                    Front::ALL.to_vec()
                } else {
                    fronts
                },
                havoc: !calm,
            });
            options.and_then(|options| chaos(&options, record.as_deref()))
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

fn chaos(options: &Options, record: Option<&Path>) -> std::io::Result<bool> {
    println!("SEED={}", options.seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let summary = runtime.block_on(run(options));
    println!("{}", summary.text());
    if let Some(path) = record {
        write_record(path, &summary)?;
    }
    let good = summary.is_good();
    println!(
        "{}",
        if good {
            "All is as it must be."
        } else {
            "NOT as it must be: see above."
        }
    );
    Ok(good)
}

fn write_record(path: &Path, summary: &Summary) -> std::io::Result<()> {
    let today = time::OffsetDateTime::now_utc().date();
    let date = format!(
        "{:04}-{:02}-{:02}",
        today.year(),
        u8::from(today.month()),
        today.day()
    );
    let text = format!(
        "# {date}: chaos\n\nWhat is counted is told in [bench/README.md](../README.md).\n\n{}",
        summary.text()
    );
    std::fs::write(path, text)
}
