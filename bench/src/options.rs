//! What is to be measured, for how long, and on which cores.

use std::path::PathBuf;
use std::time::Duration;

use afcgi_bench::process;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

/// What to measure, and how long.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Only these sections (default: all)
    #[arg(long, value_enum)]
    section: Vec<Section>,
    /// Leave out a row, by its name; the record says so
    #[arg(long, value_name = "NAME")]
    pub(crate) without: Vec<String>,
    /// Rounds: in each, everything is measured once, one after the other
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Rounds for held requests, which take several seconds each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) held_rounds: u32,
    /// Milliseconds of each measurement
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub(crate) window: u64,
    /// Folder for the dated record (default: bench/records)
    #[arg(long)]
    pub(crate) records: Option<PathBuf>,
    /// Write no record
    #[arg(long)]
    pub(crate) no_record: bool,
    /// Fail when a target is missed
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    Application,
    Held,
    Gateway,
}

/// Which core does what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// The measured process.
    pub(crate) server: usize,
    /// The generator, and what stands behind a gateway.
    pub(crate) load: usize,
}

impl Cores {
    /// The first two that this process may run on.
    pub(crate) fn find() -> Result<Self> {
        match process::cores()?[..] {
            [server, load, ..] => Ok(Self { server, load }),
            _ => bail!("two cores are needed, one for the server and one for the load"),
        }
    }
}

impl Options {
    pub(crate) fn window(&self) -> Duration {
        Duration::from_millis(self.window)
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_millis(self.window / 5)
    }

    pub(crate) fn leaves_out(&self, name: &str) -> bool {
        self.without.iter().any(|without| without == name)
    }

    pub(crate) fn has(&self, section: Section) -> bool {
        self.section.is_empty() || self.section.contains(&section)
    }
}

/// Shows what is being done, without staying in the output.
pub(crate) fn progress(text: &str) {
    eprint!("\r\x1b[K{text}");
}
