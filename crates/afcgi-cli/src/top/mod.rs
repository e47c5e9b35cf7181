//! `afcgi top`: what the nginx module, a gateway or PHP-FPM does, as a live view, once, or for Prometheus.
//!
//! `source` asks for a status page and `page` recognises it; `history` makes rates of two samples. `once`, `live` and
//! `export` are the three ways to show them. Sources may be hostile: answers are bounded, and so is what is kept of them.

mod arguments;
mod draw;
mod export;
mod fpm;
mod history;
mod live;
mod once;
mod page;
mod prometheus;
mod said;
mod shape;
mod source;
mod table;
mod view;

use std::process::ExitCode;
use std::time::Duration;

pub use arguments::Arguments;

use said::say;
use source::Source;

/// The exit status of a command line that is of no use.
const USAGE: u8 = 2;
/// The time between two questions where none is given.
const INTERVAL: Duration = Duration::from_secs(2);
/// The same between the two samples of `--once`.
const ONCE: Duration = Duration::from_secs(1);

impl Arguments {
    /// Runs it. The exit status is as `--help` says.
    pub fn run(self) -> ExitCode {
        let sources = self.check().and_then(|()| {
            let parse = |text: &String| Source::parse(text, &self.status_path, self.timeout);
            self.sources
                .iter()
                .map(parse)
                .collect::<Result<Vec<_>, _>>()
        });
        let sources = match sources {
            Ok(sources) => sources,
            Err(why) => {
                say(&why);
                return ExitCode::from(USAGE);
            }
        };
        let result = match &self.export {
            Some(address) => export::run(address, sources),
            None if self.once => once::run(sources, self.interval.unwrap_or(ONCE), self.json),
            None => live::run(sources, self.interval.unwrap_or(INTERVAL)),
        };
        match result {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                say(&error.to_string());
                ExitCode::FAILURE
            }
        }
    }
}
