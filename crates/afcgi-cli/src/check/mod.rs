//! `afcgi check`: a conformance suite for FastCGI, as h2spec is one for HTTP/2.
//!
//! It speaks FastCGI by hand, since it has to say what no library would. A case is a few lines in the file of its section; each has
//! connections of its own, a time limit, and a transcript that is shown when it fails. The peer may be hostile: what is read and kept
//! of it is bounded, and no case waits for ever.

mod application;
mod arguments;
mod ask;
mod case;
mod learn;
mod link;
mod probe;
mod raw;
mod report;
mod run;
mod suite;
mod transcript;
pub mod web;

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
        let unknown = match self.web_server {
            true => selection.unknown(web::SECTIONS),
            false => selection.unknown(SECTIONS),
        };
        if let Some(word) = unknown {
            let word = word.escape_debug();
            return Err(format!(
                "`{word}` names no case, section, rule or level; --list shows them"
            ));
        }
        if self.list {
            print(&report::list(SECTIONS));
            print("\nWith --web-server:\n");
            print(&report::list(web::SECTIONS));
            return Ok(0);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let code = runtime.block_on(async {
            match self.web_server {
                true => self.web_server(&selection).await,
                false => self.application(&selection).await,
            }
        });
        // Nothing that a case began is waited for.
        runtime.shutdown_background();
        code
    }

    async fn application(&self, selection: &Selection) -> Result<u8, String> {
        let settings = self.settings()?;
        let peer = settings.address.to_string();
        let suite = Suite::prepare(settings).await;
        let suite =
            suite.map_err(|came| format!("{peer} does not answer a plain request: {came}"))?;
        let mut show = Show::new(self, peer, suite.about());
        run(&Arc::new(suite), selection, |done| show.tell(&done)).await;
        show.finish()
    }

    async fn web_server(&self, selection: &Selection) -> Result<u8, String> {
        let (address, url) = (
            self.target.as_deref().unwrap_or_default(),
            self.url.as_deref().unwrap_or_default(),
        );
        let (host, path) = match url {
            "" => Default::default(),
            url => web::parse_url(url)?,
        };
        let listener = tokio::net::TcpListener::bind(address).await;
        let listener = listener
            .map_err(|error| format!("cannot listen at {}: {error}", address.escape_debug()))?;
        let place = Arc::new(web::Place {
            listener,
            host,
            path,
            limit: match url {
                // Somebody has to type.
                "" => self.timeout.max(web::TYPING),
                _ => self.timeout,
            },
        });
        let mut show = Show::new(
            self,
            url.to_owned(),
            format!("before an application at {address}"),
        );
        web::run(&place, selection, |done| show.tell(&done)).await;
        show.finish()
    }
}

/// What is shown of a run.
struct Show<'a> {
    arguments: &'a Arguments,
    peer: String,
    about: String,
    palette: Palette,
    title: &'static str,
    summary: Summary,
    cases: Vec<serde_json::Value>,
    junit: Junit,
}

impl<'a> Show<'a> {
    fn new(arguments: &'a Arguments, peer: String, about: String) -> Self {
        let out = io::stdout();
        let colours =
            out.is_terminal() && anstream::AutoStream::choice(&out) != anstream::ColorChoice::Never;
        if !arguments.json {
            print(&format!("{peer} {about}\n"));
        }
        Self {
            arguments,
            peer,
            about,
            palette: Palette::new(colours),
            title: "",
            summary: Summary::default(),
            cases: Vec::new(),
            junit: Junit::new(arguments.strict),
        }
    }

    fn tell<P>(&mut self, done: &Done<P>) {
        self.summary.add(done.case.level, &done.outcome);
        self.junit.add(done);
        if self.arguments.json {
            self.cases.push(report::json_case(done));
            return;
        }
        if self.title != done.section.title {
            self.title = done.section.title;
            print(&format!("\n{}\n", self.title));
        }
        print(&report::lines(done, self.palette, self.arguments.verbose));
    }

    /// The exit status.
    fn finish(self) -> Result<u8, String> {
        match self.arguments.json {
            true => print(&report::json(
                &self.peer,
                &self.about,
                &self.cases,
                self.summary,
            )),
            false => print(&format!("\n{}\n", self.summary.line())),
        }
        if let Some(path) = &self.arguments.junit {
            let written = std::fs::write(path, self.junit.finish(&self.peer));
            written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        Ok(self.summary.code(self.arguments.strict))
    }
}

/// Whoever closes the pipe knows enough.
fn print(text: &str) {
    let mut out = io::stdout();
    _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
