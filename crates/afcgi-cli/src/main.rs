//! `afcgi`: the list of its subcommands. What they do is in the modules of the library.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use afcgi_cli::{demo, gateway};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// FastCGI for long-lived connections.
#[derive(Debug, Parser)]
#[command(name = "afcgi", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Gateway(gateway::Arguments),
}

/// Logs to STDERR what `RUST_LOG` asks for: `info` if it does not.
fn init_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    init_log();
    let (name, result) = match arguments.command {
        Command::Demo(arguments) => ("demo", arguments.run(Some(gateway::embedded))),
        Command::Gateway(arguments) => ("gateway", arguments.run()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("afcgi {name}: {error}");
            ExitCode::FAILURE
        }
    }
}
