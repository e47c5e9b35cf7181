//! What the program says on STDERR: as text, or as JSON for programs that read it.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How a log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object on each line.
    Json,
}

impl From<LogFormat> for afcgi_gateway::LogFormat {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

impl From<afcgi_gateway::LogFormat> for LogFormat {
    fn from(format: afcgi_gateway::LogFormat) -> Self {
        match format {
            afcgi_gateway::LogFormat::Text => Self::Text,
            afcgi_gateway::LogFormat::Json => Self::Json,
        }
    }
}

/// How STDERR is written, once that is known.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Logs to STDERR what `RUST_LOG` asks for: `info` if it does not. Only the first call counts.
pub fn init(format: LogFormat) {
    init_to(format, io::stderr);
}

/// The same by another way to STDERR.
pub(crate) fn init_to<W>(format: LogFormat, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    if FORMAT.set(format).is_err() {
        return;
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Says why the program ends: in a line of the log where that is to be read by programs.
pub fn fail(name: &str, error: &(dyn Error + 'static)) {
    match FORMAT.get() {
        Some(LogFormat::Json) => tracing::error!(error, "afcgi {name} cannot go on"),
        // Where there is nobody to hear it, it is not said.
        Some(LogFormat::Text) | None => _ = writeln!(io::stderr(), "afcgi {name}: {error}"),
    }
}
