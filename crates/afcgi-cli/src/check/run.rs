//! Runs cases, some at a time, and gives them back in their order.

use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::{self, StreamExt};

use super::application::SECTIONS;
use super::case::{Case, Done, Section, Selection, deviation};
use super::probe::Probe;
use super::suite::Suite;

/// Limits of the settings that a whole case may take.
const WHOLE: u32 = 20;

/// Runs the cases of the selection against an application, and tells of each that is over, in the order of the table.
pub async fn run(suite: &Arc<Suite>, selection: &Selection, mut tell: impl FnMut(Done<Probe>)) {
    let all = SECTIONS.iter().flat_map(|section| {
        let cases = section.cases.iter();
        cases.map(move |case| (section, case))
    });
    let chosen = all.filter(|(section, case)| selection.takes(section, case));
    let runs = chosen.map(|(section, case)| one(suite.clone(), section, case));
    let mut done = stream::iter(runs).buffered(suite.settings.jobs.max(1));
    while let Some(done) = done.next().await {
        tell(done);
    }
}

async fn one(
    suite: Arc<Suite>,
    section: &'static Section<Probe>,
    case: &'static Case<Probe>,
) -> Done<Probe> {
    let started = Instant::now();
    let most = suite.settings.limit * WHOLE;
    let probe = Probe::new(suite);
    let outcome = match tokio::time::timeout(most, (case.run)(&probe)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(deviation(
            "the end of the case",
            format!(
                "it was still going on after {}",
                humantime::format_duration(most)
            ),
        )),
    };
    Done {
        section,
        case,
        outcome,
        took: started.elapsed(),
        transcript: probe.take_transcript(),
    }
}
