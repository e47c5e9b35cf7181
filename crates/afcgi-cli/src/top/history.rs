//! What a source said before: rates, and totals that outlive its restarts.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::shape::{Page, ROWS};
use super::table::{Cell, Column, Group, Row, Show};

/// Two samples that are closer than this say nothing of a rate.
const LEAST: Duration = Duration::from_millis(1);

/// The samples before the one that comes.
#[derive(Debug, Default)]
pub(super) struct History {
    /// When the source was started, as it says.
    started: Option<u64>,
    rows: HashMap<(Group, String), Past>,
}

/// What was said of a row.
#[derive(Debug)]
struct Past {
    at: Instant,
    totals: Vec<Total>,
    buckets: Vec<(f64, u64)>,
}

/// A total as the source said it, and what it had counted before it was started again.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    last: u64,
    before: u64,
}

impl History {
    /// Fills in what follows from the samples before, and keeps this one.
    pub(super) fn apply(&mut self, page: &mut Page, at: Instant) {
        let restarted = self.started.is_some() && page.started != self.started;
        self.started = page.started;
        if self.rows.len() > ROWS {
            self.rows.clear();
        }
        for (group, rows) in &mut page.tables {
            // A process is looked at for what it does now.
            if *group == Group::Processes {
                continue;
            }
            for row in rows {
                let key = (*group, row.name.clone());
                let past = self.rows.remove(&key);
                let past = fill(row, group.columns(), past, restarted, at);
                self.rows.insert(key, past);
            }
        }
    }
}

/// Fills in what follows from the past of a row, and returns the new one.
fn fill(
    row: &mut Row,
    columns: &[Column],
    past: Option<Past>,
    restarted: bool,
    at: Instant,
) -> Past {
    let elapsed = past.as_ref().map(|past| at.duration_since(past.at));
    let elapsed = elapsed.filter(|elapsed| *elapsed >= LEAST);
    let mut totals = vec![Total::default(); columns.len()];
    let mut grown = vec![None; columns.len()];
    for (n, column) in columns.iter().enumerate() {
        if column.show != Show::Total {
            continue;
        }
        let known = past
            .as_ref()
            .and_then(|past| past.totals.get(n))
            .copied()
            .unwrap_or_default();
        let Some(now) = row.cells[n].count() else {
            totals[n] = known;
            continue;
        };
        // One that goes backwards has begun from 0.
        let anew = past.is_some() && (restarted || now < known.last);
        let before = match anew {
            true => known.before.saturating_add(known.last),
            false => known.before,
        };
        totals[n] = Total { last: now, before };
        grown[n] = Some(if anew { now } else { now - known.last });
        row.cells[n] = Cell::Count(before.saturating_add(now));
    }
    let buckets = past.map_or(Vec::new(), |past| past.buckets);
    let since = difference(&row.buckets, &buckets, restarted);
    for (n, column) in columns.iter().enumerate() {
        match column.show {
            Show::Rate(of) | Show::ByteRate(of) => {
                let of = columns.iter().position(|column| column.key == of);
                if let (Some(elapsed), Some(grown)) = (elapsed, of.and_then(|of| grown[of])) {
                    row.cells[n] = Cell::Real(grown as f64 / elapsed.as_secs_f64());
                }
            }
            Show::Percentile(part) => {
                if let Some(seconds) = percentile(&since, part) {
                    row.cells[n] = Cell::Real(seconds);
                }
            }
            _ => {}
        }
    }
    Past {
        at,
        totals,
        buckets: row.buckets.clone(),
    }
}

/// The requests since the sample before.
fn difference(now: &[(f64, u64)], before: &[(f64, u64)], restarted: bool) -> Vec<(f64, u64)> {
    let same = now.len() == before.len()
        && now
            .iter()
            .zip(before)
            .all(|(now, before)| now.0 == before.0 && now.1 >= before.1);
    if !same || restarted {
        return now.to_vec();
    }
    let pairs = now.iter().zip(before);
    pairs
        .map(|(now, before)| (now.0, now.1 - before.1))
        .collect()
}

/// The time that this part of the requests took at most, as Prometheus estimates it: evenly within a class.
fn percentile(buckets: &[(f64, u64)], part: f64) -> Option<f64> {
    let all = buckets.last().filter(|last| last.1 > 0)?.1;
    let rank = part * all as f64;
    let (mut bound, mut below) = (0.0, 0);
    for &(most, count) in buckets {
        if count as f64 >= rank && count > below {
            if most.is_infinite() {
                return Some(f64::INFINITY);
            }
            let within = (rank - below as f64) / (count - below) as f64;
            return Some(bound + (most - bound) * within.clamp(0.0, 1.0));
        }
        (bound, below) = (most, count.max(below));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::shape::Kind;
    use super::*;

    fn page(started: Option<u64>, requests: u64, aborts: u64) -> Page {
        let mut row = Row::new(Group::Applications, String::from("a"));
        row.set(Group::Applications, "requests", Cell::Count(requests));
        row.set(Group::Applications, "aborts", Cell::Count(aborts));
        Page {
            kind: Kind::Module,
            started,
            tables: vec![(Group::Applications, vec![row])],
            left_out: 0,
        }
    }

    fn cell(page: &Page, key: &str) -> Cell {
        let (group, rows) = &page.tables[0];
        rows[0].cells[group.position(key).expect(key)].clone()
    }

    #[test]
    fn rates_and_restarts() {
        let mut history = History::default();
        let mut now = Instant::now();
        let mut step = |started, requests, aborts| {
            now += Duration::from_secs(2);
            let mut page = page(started, requests, aborts);
            history.apply(&mut page, now);
            (cell(&page, "requests_per_second"), cell(&page, "aborts"))
        };
        assert_eq!(step(Some(1), 100, 5), (Cell::Unknown, Cell::Count(5)));
        assert_eq!(step(Some(1), 150, 7), (Cell::Real(25.0), Cell::Count(7)));
        // It begins from 0: what it had counted is not lost, and no rate is below 0.
        assert_eq!(step(Some(1), 10, 1), (Cell::Real(5.0), Cell::Count(8)));
        assert_eq!(step(Some(1), 10, 1), (Cell::Real(0.0), Cell::Count(8)));
        // It says that it was started anew, and has counted further than before already.
        assert_eq!(step(Some(9), 20, 3), (Cell::Real(10.0), Cell::Count(11)));
        assert_eq!(step(Some(9), 22, 3), (Cell::Real(1.0), Cell::Count(11)));
    }

    #[test]
    fn two_samples_at_a_time_give_no_rate() {
        let (mut history, now) = (History::default(), Instant::now());
        history.apply(&mut page(None, 1, 0), now);
        let mut second = page(None, 9, 0);
        history.apply(&mut second, now);
        assert_eq!(cell(&second, "requests_per_second"), Cell::Unknown);
    }

    #[test]
    fn names_that_change_all_the_time_are_not_kept() {
        let mut history = History::default();
        for n in 0..3 * ROWS {
            let mut page = page(None, 1, 0);
            page.tables[0].1[0].name = n.to_string();
            history.apply(&mut page, Instant::now());
        }
        assert!(history.rows.len() <= ROWS + 1);
    }

    #[test]
    fn percentiles() {
        let buckets = [(0.1, 50), (0.5, 90), (1.0, 100), (f64::INFINITY, 100)];
        assert_eq!(percentile(&buckets, 0.5), Some(0.1));
        assert!((percentile(&buckets, 0.9).expect("p90") - 0.5).abs() < 1e-9);
        assert!((percentile(&buckets, 0.95).expect("p95") - 0.75).abs() < 1e-9);
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[(1.0, 0), (f64::INFINITY, 0)], 0.5), None);
        let long = [(1.0, 1), (f64::INFINITY, 100)];
        assert_eq!(percentile(&long, 0.9), Some(f64::INFINITY));
        // Classes that do not grow are a mistake of the source.
        assert_eq!(percentile(&[(1.0, 5), (2.0, 3)], 1.0), Some(0.6));
        let since = difference(&[(1.0, 7), (2.0, 9)], &[(1.0, 5), (2.0, 5)], false);
        assert_eq!(since, [(1.0, 2), (2.0, 4)]);
        assert_eq!(
            difference(&[(1.0, 1)], &[(1.0, 5)], false),
            [(1.0, 1)],
            "a restart"
        );
    }
}
