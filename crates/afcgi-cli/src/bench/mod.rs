//! `afcgi bench`: a load generator for FastCGI, for any application.
//!
//! [`engine`] is the load on one thread, as a library: `make bench` uses it, too. `plan` is what the command line asks for; `worker` is a
//! thread with an engine, `watch` has them all, with the process that is measured and what is shown meanwhile; `report` is what is said
//! at the end.

mod arguments;
pub mod engine;
mod outcome;
mod plan;
mod probe;
mod progress;
mod report;
mod sample;
mod series;
mod watch;
mod worker;

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

pub use arguments::Arguments;
use plan::Plan;
use progress::Progress;
use sample::Target;

use crate::request::failure::Failure;
use crate::request::values::print;

impl Arguments {
    /// Runs it, and says how the program ends.
    pub fn run(self) -> u8 {
        match self.try_run() {
            Ok(code) => code,
            Err(failure) => {
                // STDERR may be closed.
                _ = writeln!(io::stderr(), "afcgi bench: {failure}");
                failure.code()
            }
        }
    }

    fn try_run(&self) -> Result<u8, Failure> {
        let target = self.pid.map(|pid| Target {
            pid,
            children: self.children,
        });
        if let Some(target) = target
            && let Err(error) = target.sample()
        {
            let text = format!("the process {} cannot be measured: {error}", target.pid);
            return Err(Failure::Usage(text));
        }
        let plan = Arc::new(Plan::new(self)?);
        // Whether the page can be written is found out before there is something to write.
        let page = match &self.html {
            Some(name) => Some(File::create(name).map_err(Failure::Write)?),
            None => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::Write)?;
        let progress = Progress::new(&plan, self.quiet);
        let outcome = runtime.block_on(watch::watch(&plan, target, progress));
        runtime.shutdown_background();
        let outcome = outcome.map_err(|error| Failure::Connect(plan.target.clone(), error))?;
        let text = match self.json {
            true => format!("{:#}\n", report::json(&outcome)),
            false => report::text(&outcome),
        };
        print(&text)?;
        if let Some(mut page) = page {
            let html = report::html(&outcome);
            page.write_all(html.as_bytes()).map_err(Failure::Write)?;
        }
        Ok(outcome.code())
    }
}
