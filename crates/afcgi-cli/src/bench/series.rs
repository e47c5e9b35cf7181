//! The run as a series of short times: tenths of a second at first, longer ones when there are many, so that there are never too many.

use super::engine::Stats;
use super::outcome::{Latency, Point};

/// The first length in seconds, and how many of one length there are.
const FIRST: f64 = 0.1;
const SAME: f64 = 600.0;

#[derive(Debug, Default)]
pub(super) struct Series {
    points: Vec<Point>,
    /// What was counted since the last.
    open: Stats,
    begun: f64,
}

impl Series {
    /// What was counted since the last point.
    pub(super) fn add(&mut self, stats: &Stats) {
        self.open.add(stats);
    }

    /// Whether a point ends at a time.
    pub(super) fn is_due(&self, at: f64) -> bool {
        at - self.begun >= length(self.begun) * 0.95
    }

    /// Ends a point. What is much shorter than it should be becomes a part of the one before.
    pub(super) fn close(
        &mut self,
        at: f64,
        in_flight: u64,
        process: Option<(f64, u64)>,
    ) -> Option<Point> {
        let seconds = at - self.begun;
        if seconds <= 0.0 {
            return None;
        }
        let stats = self.open.take();
        if let Some(last) = self.points.last_mut()
            && seconds < length(self.begun) / 2.0
        {
            last.seconds += seconds;
            last.at = at;
            last.completed += stats.completed + stats.aborted;
            last.failed += stats.failed();
            last.in_flight = in_flight;
            last.process = process.or(last.process);
            self.begun = at;
            return Some(*last);
        }
        let point = Point {
            at,
            seconds,
            completed: stats.completed + stats.aborted,
            failed: stats.failed(),
            in_flight,
            latency: Latency::of(&stats.latency),
            process,
        };
        self.points.push(point);
        self.begun = at;
        Some(point)
    }

    pub(super) fn into_points(self) -> Vec<Point> {
        self.points
    }
}

/// How long the point is that begins at a time.
fn length(begun: f64) -> f64 {
    let mut length = FIRST;
    while begun >= length * SAME {
        length *= 10.0;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_point_is_not_a_sliver() {
        let mut series = Series::default();
        for at in [0.1, 0.2, 0.201] {
            series.open.completed += 5;
            series.close(at, 0, None);
        }
        let points = series.into_points();
        let shown = points.iter().map(|point| (point.at, point.completed));
        assert_eq!(shown.collect::<Vec<_>>(), [(0.1, 5), (0.201, 10)]);
    }

    #[test]
    fn long_runs_have_no_more_points_than_can_be_shown() {
        let mut series = Series::default();
        let (mut at, mut answers) = (0.0, 0);
        while at < 7.0 * 86_400.0 {
            at += length(at);
            answers += 2;
            series.open.completed += 2;
            assert!(series.is_due(at));
            series.close(at, 0, None);
        }
        let points = series.into_points();
        assert!(points.len() < 4000, "{} points", points.len());
        let sum: u64 = points.iter().map(|point| point.completed).sum();
        assert_eq!(sum, answers);
    }
}
