//! What is counted, and how it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use crate::events::Front;
use crate::fleet::Kind;

/// Stories of requests that are kept: the first ones tell most.
const STORIES: usize = 30;

/// What became of requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Every byte as it should be.
    pub right: u64,
    /// Something else came: must be 0.
    pub wrong: u64,
    /// The client left, as it was to.
    pub left: u64,
    /// Failed, as it had to: it asked for an application's fault.
    pub refused: u64,
    /// Failed, with a cause.
    pub caused: u64,
    /// Failed without a cause: must be 0.
    pub lost: u64,
    /// No end: must be 0.
    pub hung: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.left += other.left;
        self.refused += other.refused;
        self.caused += other.caused;
        self.lost += other.lost;
        self.hung += other.hung;
    }

    /// All of them.
    pub fn all(&self) -> u64 {
        self.right + self.wrong + self.left + self.refused + self.caused + self.lost + self.hung
    }
}

/// What became of all requests so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: BTreeMap<(Kind, Front), Counts>,
    /// The causes of failures.
    pub causes: BTreeMap<&'static str, u64>,
    /// The tokens of requests that were sent again because a reload had closed their connection before they came.
    pub stale: BTreeSet<u64>,
    /// The longest that a request took.
    pub longest: Duration,
    stories: Vec<String>,
}

impl Tally {
    /// The counts of a kind behind a web server.
    pub fn of(&mut self, kind: Kind, front: Front) -> &mut Counts {
        self.counts.entry((kind, front)).or_default()
    }

    /// Tells a story and keeps it, if it is one of the first.
    pub fn tell(&mut self, story: String) {
        if self.stories.len() < STORIES {
            eprintln!("{story}");
            self.stories.push(story);
        }
    }

    /// All kinds and web servers together.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.counts.values() {
            total.add(counts);
        }
        total
    }

    /// One line.
    pub fn line(&self) -> String {
        let Counts {
            right,
            wrong,
            left,
            refused,
            caused,
            lost,
            hung,
        } = self.total();
        format!(
            "{right} right, {wrong} wrong, {left} left by the client, {refused} refused on demand, {caused} failed with a cause, \
             {lost} lost without one, {hung} hung"
        )
    }
}

/// A run that is over.
#[derive(Clone, Debug)]
pub struct Summary {
    /// From which it followed.
    pub seed: u64,
    /// Clients at a time.
    pub clients: usize,
    /// How long requests were made.
    pub took: Duration,
    /// Addresses of applications.
    pub addresses: usize,
    /// Processes of applications.
    pub processes: usize,
    /// What became of the requests.
    pub tally: Tally,
    /// What was done meanwhile.
    pub done: BTreeMap<String, u64>,
    /// What was left in the end: must be nothing.
    pub left_over: Vec<String>,
    /// Panics, and what nginx finds alarming: must be nothing.
    pub complaints: Vec<String>,
}

impl Summary {
    /// Whether nothing is there that must not be.
    pub fn is_good(&self) -> bool {
        let total = self.tally.total();
        total.wrong + total.lost + total.hung == 0
            && self.left_over.is_empty()
            && self.complaints.is_empty()
            && total.right > 0
    }

    /// As Markdown, which can be read as text too.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text cannot fail.
        _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let total = self.tally.total();
        let rate = total.all() as f64 / self.took.as_secs_f64().max(0.001);
        writeln!(
            text,
            "- {} requests by {} clients at a time to {} addresses in {} processes, in {:.0} s ({rate:.0} a second); SEED={}",
            total.all(),
            self.clients,
            self.addresses,
            self.processes,
            self.took.as_secs_f64(),
            self.seed
        )?;
        writeln!(
            text,
            "- the slowest took {:.1} s",
            self.tally.longest.as_secs_f64()
        )?;
        writeln!(
            text,
            "- {} were sent again, since a reload of their web server had closed the connection before it read them",
            self.tally.stale.len()
        )?;
        for (what, count) in &self.done {
            writeln!(text, "- {what}: {count}")?;
        }
        for (cause, count) in &self.tally.causes {
            writeln!(text, "- failed, since {cause}: {count}")?;
        }
        writeln!(
            text,
            "\n| application | web server | right | left by the client | refused on demand | failed with a cause | **wrong** | **lost without a cause** | **hung** |"
        )?;
        writeln!(text, "|---|---|--:|--:|--:|--:|--:|--:|--:|")?;
        for ((kind, front), counts) in &self.tally.counts {
            row(text, kind.name(), front.name(), counts)?;
        }
        row(text, "all", "both", &total)?;
        for (title, lines) in [
            ("Left over at the end", &self.left_over),
            ("In the logs", &self.complaints),
        ] {
            match lines.is_empty() {
                true => writeln!(text, "\n{title}: nothing.")?,
                false => writeln!(text, "\n{title}:\n\n- {}", lines.join("\n- "))?,
            }
        }
        if !self.tally.stories.is_empty() {
            writeln!(
                text,
                "\nThe first that should not be:\n\n- {}",
                self.tally.stories.join("\n- ")
            )?;
        }
        Ok(())
    }
}

fn row(text: &mut String, kind: &str, front: &str, counts: &Counts) -> std::fmt::Result {
    writeln!(
        text,
        "| {kind} | {front} | {} | {} | {} | {} | {} | {} | {} |",
        counts.right,
        counts.left,
        counts.refused,
        counts.caused,
        counts.wrong,
        counts.lost,
        counts.hung
    )
}
