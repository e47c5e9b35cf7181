//! What the live view shows, and what the keyboard does to it. Nothing here knows of a terminal.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::arguments::{LONGEST, SHORTEST};
use super::history::History;
use super::shape::Page;
use super::source::Poll;
use super::table::{Group, Row, compare};

/// Intervals that + and - go through, in milliseconds.
const STEPS: [u64; 11] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 600_000, 3_600_000,
];

/// What is known of a source.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) label: String,
    /// When it was asked, while it has not answered.
    pub(super) asked: Option<Instant>,
    /// How long its last answer took.
    pub(super) took: Duration,
    /// Why the last question had no answer, and since when there is none.
    pub(super) failed: Option<(String, Instant)>,
    /// Its last answer.
    pub(super) page: Option<Page>,
    history: History,
}

/// How a table is sorted, and where one is in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The column; none: by name.
    pub(super) column: Option<usize>,
    pub(super) reverse: bool,
    pub(super) selected: usize,
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct View {
    pub(super) sources: Vec<Watched>,
    pub(super) interval: Duration,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) colours: bool,
    focus: Group,
    places: [Place; 4],
}

/// What a key asks for beyond the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    /// Interval or pause has changed.
    Pace,
    Suspend,
    Quit,
}

/// A row with its source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    pub(super) source: usize,
    pub(super) row: &'a Row,
    /// Whether its source has not answered since.
    pub(super) is_old: bool,
}

impl Watched {
    fn new(label: String) -> Self {
        Self {
            label,
            asked: None,
            took: Duration::ZERO,
            failed: None,
            page: None,
            history: History::default(),
        }
    }

    /// Takes an answer in, or that there is none.
    pub(super) fn take(&mut self, poll: Poll) {
        self.asked = None;
        self.took = poll.took;
        match poll.answer {
            Ok(answer) => {
                let mut page = answer.page(&self.label);
                self.history.apply(&mut page, poll.at);
                self.page = Some(page);
                self.failed = None;
            }
            Err(why) => {
                let since = self.failed.as_ref().map_or(poll.at, |(_, since)| *since);
                self.failed = Some((why, since));
            }
        }
    }
}

impl View {
    pub(super) fn new(labels: Vec<String>, interval: Duration, colours: bool) -> Self {
        Self {
            sources: labels.into_iter().map(Watched::new).collect(),
            interval,
            paused: false,
            help: false,
            colours,
            focus: Group::Applications,
            places: Group::ALL.map(|group| Place {
                column: Some(group.first_sort()),
                reverse: false,
                selected: 0,
            }),
        }
    }

    /// The tables that there are.
    pub(super) fn groups(&self) -> Vec<Group> {
        let has = |group: &Group| {
            let mut pages = self
                .sources
                .iter()
                .filter_map(|source| source.page.as_ref());
            pages.any(|page| page.tables.iter().any(|(has, _)| has == group))
        };
        Group::ALL.into_iter().filter(has).collect()
    }

    /// The table that the keys are for.
    pub(super) fn focus(&self) -> Option<Group> {
        let groups = self.groups();
        let chosen = groups.iter().find(|group| **group == self.focus);
        chosen.or(groups.first()).copied()
    }

    pub(super) fn place(&self, group: Group) -> Place {
        self.places[index(group)]
    }

    /// The rows of a table, sorted.
    pub(super) fn rows(&self, group: Group) -> Vec<Shown<'_>> {
        let mut rows = Vec::new();
        for (source, watched) in self.sources.iter().enumerate() {
            let tables = watched.page.iter().flat_map(|page| &page.tables);
            for (_, table) in tables.filter(|(has, _)| *has == group) {
                let is_old = watched.failed.is_some();
                rows.extend(table.iter().map(|row| Shown {
                    source,
                    row,
                    is_old,
                }));
            }
        }
        let place = self.place(group);
        rows.sort_by(|one, other| {
            let by_name = || (&one.row.name, one.source).cmp(&(&other.row.name, other.source));
            match place.column {
                Some(at) => compare(&one.row.cells[at], &other.row.cells[at], place.reverse)
                    .then_with(by_name),
                None if place.reverse => by_name().reverse(),
                None => by_name(),
            }
        });
        rows
    }

    fn count(&self, group: Group) -> usize {
        let pages = self
            .sources
            .iter()
            .filter_map(|source| source.page.as_ref());
        let tables = pages.flat_map(|page| &page.tables);
        let rows = tables.filter(|(has, _)| *has == group);
        rows.map(|(_, rows)| rows.len()).sum()
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: KeyEvent) -> Act {
        if key.kind == KeyEventKind::Release {
            return Act::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c' | 'd') => Act::Quit,
                KeyCode::Char('z') => Act::Suspend,
                _ => Act::Nothing,
            };
        }
        match key.code {
            KeyCode::Char('q') => return Act::Quit,
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = !self.help,
            KeyCode::Char('p') => {
                self.paused = !self.paused;
                return Act::Pace;
            }
            KeyCode::Char('+' | '=') => return self.step(true),
            KeyCode::Char('-') => return self.step(false),
            KeyCode::Tab => self.next_table(1),
            KeyCode::BackTab => self.next_table(usize::MAX),
            KeyCode::Down | KeyCode::Char('j') => self.go(|at| at.saturating_add(1)),
            KeyCode::Up | KeyCode::Char('k') => self.go(|at| at.saturating_sub(1)),
            KeyCode::PageDown | KeyCode::Char(' ') => self.go(|at| at.saturating_add(10)),
            KeyCode::PageUp => self.go(|at| at.saturating_sub(10)),
            KeyCode::Home | KeyCode::Char('g') => self.go(|_| 0),
            KeyCode::End | KeyCode::Char('G') => self.go(|_| usize::MAX),
            KeyCode::Char('s') | KeyCode::Right => self.sort(true),
            KeyCode::Char('S') | KeyCode::Left => self.sort(false),
            KeyCode::Char('r') => {
                if let Some(group) = self.focus() {
                    let place = &mut self.places[index(group)];
                    place.reverse = !place.reverse;
                }
            }
            _ => {}
        }
        Act::Nothing
    }

    /// The next longer interval, or the next shorter one.
    fn step(&mut self, longer: bool) -> Act {
        let steps = STEPS.map(Duration::from_millis);
        let next = match longer {
            true => steps.iter().find(|step| **step > self.interval),
            false => steps.iter().rfind(|step| **step < self.interval),
        };
        self.interval = next.copied().unwrap_or(self.interval);
        self.interval = self.interval.clamp(SHORTEST, LONGEST);
        Act::Pace
    }

    fn next_table(&mut self, by: usize) {
        let groups = self.groups();
        let now = self.focus();
        let at = groups.iter().position(|group| Some(*group) == now);
        if let Some(at) = at {
            let count = groups.len();
            self.focus = groups[(at + by.min(count - 1)) % count];
        }
    }

    fn go(&mut self, to: impl Fn(usize) -> usize) {
        if let Some(group) = self.focus() {
            let last = self.count(group).saturating_sub(1);
            let place = &mut self.places[index(group)];
            place.selected = to(place.selected.min(last)).min(last);
        }
    }

    /// Sorts by the next column that is shown, or the one before; the name is one of them.
    fn sort(&mut self, next: bool) {
        let Some(group) = self.focus() else { return };
        let columns = group.columns().iter().enumerate();
        let shown = columns.filter(|(_, column)| column.width > 0);
        let all: Vec<Option<usize>> = std::iter::once(None)
            .chain(shown.map(|(at, _)| Some(at)))
            .collect();
        let place = &mut self.places[index(group)];
        let at = all.iter().position(|column| *column == place.column);
        let by = if next { 1 } else { all.len() - 1 };
        place.column = all[(at.unwrap_or_default() + by) % all.len()];
        place.reverse = false;
    }
}

fn index(group: Group) -> usize {
    Group::ALL
        .iter()
        .position(|each| *each == group)
        .unwrap_or_default()
}
