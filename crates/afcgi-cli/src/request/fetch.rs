//! A page of an application for the other commands: held in memory, bounded, and without a word on STDERR.

use std::time::Duration;

use clap::Parser;

use super::arguments::Arguments;
use super::exchange::{Timings, exchange};
use super::failure::Failure;
use super::link::{Clock, Link};
use super::observer::Observer;
use super::response::Response;
use super::target::Target;

/// What an application answered.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// What it wrote to STDERR.
    pub(crate) stderr: Vec<u8>,
}

/// What to ask for where an address does not say it.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) path: String,
    pub(crate) query: &'static str,
}

/// The arguments of `afcgi request`, with all that it takes for granted.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

/// Whether that is an address at all; what is not there now may be there later.
pub(crate) fn check(target: &str) -> Result<(), String> {
    match Target::parse(target) {
        Err(failure @ Failure::Usage(_)) => Err(failure.to_string()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Asks for a page, whose body has so many bytes at most, within a time.
pub(crate) async fn fetch(
    target: &str,
    page: &Page,
    within: Duration,
    most: u64,
) -> Result<Fetched, String> {
    let ask = ask(target, page, within, most);
    match tokio::time::timeout(within, ask).await {
        Ok(fetched) => fetched.map_err(|failure| failure.to_string()),
        Err(_) => Err(Failure::Timeout("no answer", within).to_string()),
    }
}

async fn ask(target: &str, page: &Page, within: Duration, most: u64) -> Result<Fetched, Failure> {
    let mut to = Target::parse(target)?;
    if matches!(to.path.as_str(), "" | "/") {
        to.path.clone_from(&page.path);
    }
    if to.query.is_empty() {
        page.query.clone_into(&mut to.query);
    }
    let line = Line::try_parse_from(["request", "--silent", "--", target]);
    let arguments = line.map_err(|error| Failure::Usage(error.to_string()))?;
    let plan = super::plan(&arguments.arguments, to)?;
    let clock = Clock::start(None);
    let mut observer = Observer::silent(&arguments.arguments);
    let mut response = Response::bounded(most);
    let mut timings = Timings::default();
    let mut link = Link::connect(&plan.address, within, &clock, false).await?;
    exchange(
        &mut link,
        &plan,
        &clock,
        &mut observer,
        &mut response,
        &mut timings,
    )
    .await?;
    let status = response.head.as_ref().map_or(0, |head| head.status);
    Ok(Fetched {
        status,
        body: response.held().to_vec(),
        stderr: observer.stderr,
    })
}
