//! `afcgi check`: a conformance suite for FastCGI, as h2spec is one for HTTP/2.
//!
//! It speaks FastCGI by hand, since it has to say what no library would. A case is a few lines in the file of its section; each has
//! connections of its own, a time limit, and a transcript that is shown when it fails. The peer may be hostile: what is read and kept
//! of it is bounded, and no case waits for ever.

mod application;
mod arguments;
mod ask;
mod case;
mod link;
mod probe;
mod raw;
mod report;
mod run;
mod suite;
mod transcript;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

pub use application::SECTIONS;
pub use arguments::Arguments;
pub use case::{Case, Done, Failure, Level, Outcome, Section, Selection};
pub use probe::Probe;
pub use report::Summary;
pub use run::run;
pub use suite::{Settings, Suite};

use crate::wire::Palette;
use report::Junit;

impl Arguments {
    /// Runs it, and says how the program ends.
    pub fn run(self) -> u8 {
        match self.check() {
            Ok(code) => code,
            Err(text) => {
                _ = writeln!(io::stderr(), "afcgi check: {text}");
                2
            }
        }
    }

    /// The settings that a command line stands for, for tests that run cases in their own process.
    pub fn parsed(arguments: &[&str]) -> Result<Settings, String> {
        let command = <Self as clap::Args>::augment_args(clap::Command::new("check"));
        let matches = command.try_get_matches_from([&["check"], arguments].concat());
        let parsed =
            matches.and_then(|matches| <Self as clap::FromArgMatches>::from_arg_matches(&matches));
        parsed.map_err(|error| error.to_string())?.settings()
    }

    fn check(&self) -> Result<u8, String> {
        let selection = Selection {
            only: self.only.clone(),
            skip: self.skip.clone(),
        };
        if let Some(word) = selection.unknown(SECTIONS) {
            return Err(format!(
                "`{}` names no case, section, rule or level; --list shows them",
                word.escape_debug()
            ));
        }
        if self.list {
            print(&report::list(SECTIONS));
            return Ok(0);
        }
        let settings = self.settings()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let code = runtime.block_on(self.against(settings, &selection));
        // Nothing that a case began is waited for.
        runtime.shutdown_background();
        code
    }

    async fn against(&self, settings: Settings, selection: &Selection) -> Result<u8, String> {
        let palette = Palette::new(
            io::stdout().is_terminal()
                && !self.json
                && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
        );
        let peer = settings.address.to_string();
        let suite = Suite::prepare(settings).await;
        let suite =
            suite.map_err(|came| format!("{peer} does not answer a plain request: {came}"))?;
        let about = suite.about();
        let (mut summary, mut cases, mut junit) =
            (Summary::default(), Vec::new(), Junit::new(self.strict));
        if !self.json {
            print(&format!("{peer} {about}\n"));
        }
        let mut title = "";
        run(&Arc::new(suite), selection, |done| {
            summary.add(done.case.level, &done.outcome);
            junit.add(&done);
            if self.json {
                cases.push(report::json_case(&done));
                return;
            }
            if title != done.section.title {
                title = done.section.title;
                print(&format!("\n{title}\n"));
            }
            print(&report::lines(&done, palette, self.verbose));
        })
        .await;
        match self.json {
            true => print(&report::json(&peer, &about, &cases, summary)),
            false => print(&format!("\n{}\n", summary.line())),
        }
        if let Some(path) = &self.junit {
            let written = std::fs::write(path, junit.finish(&peer));
            written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        Ok(summary.code(self.strict))
    }
}

/// Whoever closes the pipe knows enough.
fn print(text: &str) {
    let mut out = io::stdout();
    _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
