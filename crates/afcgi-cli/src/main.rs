//! `afcgi`: the list of its subcommands. What they do is in the modules of the library.

use std::process::ExitCode;

use afcgi_cli::logging::{self, LogFormat};
use afcgi_cli::{bench, check, demo, gateway, generate, request, spawn, tap, top};
use clap::{CommandFactory, Parser, Subcommand};

/// What thousands of clients had in memory goes back to the system when they have left. The allocator of glibc keeps it: it frees
/// from the end of its heaps, and something always stays there.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// FastCGI for long-lived connections.
#[derive(Debug, Parser)]
#[command(name = "afcgi", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Arguments),
    Check(check::Arguments),
    Demo(demo::Arguments),
    Gateway(gateway::Arguments),
    Request(request::Arguments),
    Spawn(spawn::Arguments),
    SpawnExec(spawn::Exec),
    Tap(tap::Arguments),
    Top(top::Arguments),
    Completions(generate::Completions),
    Man(generate::Man),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (name, result) = match arguments.command {
        Command::Bench(arguments) => return ExitCode::from(arguments.run()),
        Command::Check(arguments) => return ExitCode::from(arguments.run()),
        Command::Demo(arguments) => {
            logging::init(LogFormat::Text);
            ("demo", arguments.run(Some(gateway::embedded)))
        }
        Command::Gateway(arguments) => ("gateway", arguments.run()),
        // How it ends says what became of the request.
        Command::Request(arguments) => return ExitCode::from(arguments.run()),
        Command::Spawn(arguments) => return arguments.run(),
        Command::SpawnExec(exec) => return exec.run(),
        Command::Tap(arguments) => return ExitCode::from(arguments.run()),
        Command::Top(arguments) => return arguments.run(),
        Command::Completions(arguments) => ("completions", arguments.run(Arguments::command())),
        Command::Man(arguments) => ("man", arguments.run(Arguments::command())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::fail(name, &error);
            ExitCode::FAILURE
        }
    }
}
