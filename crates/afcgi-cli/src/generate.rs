//! Shell completions and man pages, from the definitions that the command line is read by.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap_complete::Shell;

const COMPLETIONS: &str = "\
Examples:
  bash, for all users, as root:
    afcgi completions bash > /usr/share/bash-completion/completions/afcgi

  zsh, in a folder of your own that is in $fpath:
    afcgi completions zsh > ~/.zfunc/_afcgi

  fish:
    afcgi completions fish > ~/.config/fish/completions/afcgi.fish";

/// Prints the completions for a shell
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = COMPLETIONS)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Prints them, as those of `command`.
    ///
    /// # Errors
    /// If standard output cannot be written to. That nobody reads on is no error.
    pub fn run(self, command: clap::Command) -> io::Result<()> {
        let mut text = Vec::new();
        // Hidden subcommands would be offered.
        let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
        let mut command = clap::Command::new("afcgi")
            .version(env!("CARGO_PKG_VERSION"))
            .subcommands(shown.cloned());
        clap_complete::generate(self.shell, &mut command, "afcgi", &mut text);
        match io::stdout().write_all(&text) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }
}

const MAN: &str = "\
Examples:
  For all users, as root:
    afcgi man /usr/local/share/man/man1

  To read one:
    afcgi man /tmp/man && man /tmp/man/afcgi-request.1";

/// Writes the man pages, one for each subcommand
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = MAN)]
pub struct Man {
    /// The directory, which is made if it does not exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Man {
    /// Writes them, as those of `command`.
    ///
    /// # Errors
    /// If the directory or a page cannot be written.
    pub fn run(self, command: clap::Command) -> io::Result<()> {
        let cannot = |error: io::Error| {
            let directory = self.directory.display();
            io::Error::new(
                error.kind(),
                format!("cannot write man pages to {directory}: {error}"),
            )
        };
        fs::create_dir_all(&self.directory).map_err(cannot)?;
        clap_mangen::generate_to(command, &self.directory).map_err(cannot)
    }
}
