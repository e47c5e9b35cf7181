//! Samples, one a round, and the tables made of them: Markdown that reads well on a terminal too.

use std::fmt::Write as _;

/// The measurements of one thing, in the order of rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) samples: Vec<f64>,
    /// Why there are none, or no more.
    pub(crate) note: Option<String>,
}

impl Cell {
    pub(crate) fn median(&self) -> Option<f64> {
        if self.note.is_some() {
            return None;
        }
        median(self.samples.clone())
    }

    fn show(&self) -> String {
        let Some(median) = self.median() else {
            return self
                .note
                .clone()
                .unwrap_or_else(|| "not measured".to_owned());
        };
        let smallest = self.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = self.samples.iter().copied().fold(0.0, f64::max);
        format!(
            "{} ({}–{})",
            figure(median),
            figure(smallest),
            figure(largest)
        )
    }
}

/// Rows of cells under names.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<(String, Vec<Cell>)>,
    /// What went wrong, in full.
    failures: Vec<String>,
}

impl Table {
    pub(crate) fn new(
        title: &str,
        columns: Vec<String>,
        rows: impl IntoIterator<Item = String>,
    ) -> Self {
        let rows = rows
            .into_iter()
            .map(|name| (name, vec![Cell::default(); columns.len()]))
            .collect();
        Self {
            title: title.to_owned(),
            columns,
            rows,
            failures: Vec::new(),
        }
    }

    /// Says why there will be no sample.
    pub(crate) fn close(&mut self, row: usize, column: usize, note: &str) {
        self.rows[row].1[column].note = Some(note.to_owned());
    }

    /// Adds a sample, or ends the cell with the reason why there is none.
    pub(crate) fn add(&mut self, row: usize, column: usize, result: anyhow::Result<f64>) {
        let cell = &mut self.rows[row].1[column];
        match result {
            Ok(sample) => cell.samples.push(sample),
            Err(error) => {
                cell.note = Some("fails".to_owned());
                let failure = format!("{}, {}: {error:#}", self.rows[row].0, self.columns[column]);
                eprintln!("\r\x1b[K{failure}");
                self.failures.push(failure);
            }
        }
    }

    /// Whether there is no need for another sample.
    pub(crate) fn is_closed(&self, row: usize, column: usize) -> bool {
        self.rows[row].1[column].note.is_some()
    }

    pub(crate) fn find(&self, name: &str, column: usize) -> Option<&Cell> {
        self.rows.iter().find(|row| row.0 == name)?.1.get(column)
    }

    /// How many times the figure of `base` that of `name` is: the median of the rounds' ratios.
    pub(crate) fn ratio(&self, name: &str, base: &str, column: usize) -> Option<f64> {
        let (other, base) = (self.find(name, column)?, self.find(base, column)?);
        if other.note.is_some() || base.note.is_some() {
            return None;
        }
        median(
            other
                .samples
                .iter()
                .zip(&base.samples)
                .filter(|(_, base)| **base > 0.0)
                .map(|(other, base)| other / base)
                .collect(),
        )
    }

    /// The table, and below it each row as a multiple of `base`.
    pub(crate) fn markdown(&self, base: Option<&str>) -> String {
        let mut text = format!("## {}\n\n{}", self.title, self.body());
        let Some(base) = base.filter(|base| self.rows.iter().any(|row| row.0 == *base)) else {
            return text;
        };
        let ratios = self.rows.iter().map(|(name, _)| {
            let ratio = |column| {
                self.ratio(name, base, column)
                    .map_or("–".to_owned(), |ratio| format!("{} ×", figure(ratio)))
            };
            (name.clone(), (0..self.columns.len()).map(ratio).collect())
        });
        text.push('\n');
        text.push_str(&grid(
            &self.columns,
            &format!("as a multiple of {base}"),
            ratios.collect(),
        ));
        text
    }
}

impl Table {
    /// The table without its title, and what went wrong.
    pub(crate) fn body(&self) -> String {
        let lines = self
            .rows
            .iter()
            .map(|(name, cells)| (name.clone(), cells.iter().map(Cell::show).collect()));
        let mut text = grid(&self.columns, "median (smallest–largest)", lines.collect());
        for failure in &self.failures {
            let failure = failure.lines().next().unwrap_or_default();
            let _ = write!(text, "\n- fails: {failure}\n");
        }
        text
    }
}

fn grid(columns: &[String], corner: &str, lines: Vec<(String, Vec<String>)>) -> String {
    let mut all = vec![(corner.to_owned(), columns.to_vec())];
    all.extend(lines);
    let width = |column: usize| {
        all.iter()
            .map(|(name, cells)| {
                if column == 0 {
                    name
                } else {
                    &cells[column - 1]
                }
                .chars()
                .count()
            })
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..=columns.len()).map(width).collect();
    let mut text = String::new();
    for (line, (name, cells)) in all.iter().enumerate() {
        let _ = write!(text, "| {name:<0$} |", widths[0]);
        for (cell, width) in cells.iter().zip(&widths[1..]) {
            let _ = write!(text, " {cell:>width$} |");
        }
        text.push('\n');
        if line == 0 {
            let _ = write!(text, "|{}|", "-".repeat(widths[0] + 2));
            for width in &widths[1..] {
                let _ = write!(text, "{}:|", "-".repeat(width + 1));
            }
            text.push('\n');
        }
    }
    text
}

/// About three digits that mean something.
pub(crate) fn figure(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 1.0 => format!("{value:.3}"),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn median(mut samples: Vec<f64>) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    let upper = *samples.get(middle)?;
    Some(if samples.len() % 2 == 1 {
        upper
    } else {
        (upper + samples[middle - 1]) / 2.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table = Table::new(
            "Times",
            vec!["1 × 1".into()],
            ["ours".into(), "theirs".into(), "other".into()],
        );
        for (ours, theirs) in [(2.0, 20.0), (1.0, 20.0), (4.0, 20.0)] {
            table.add(0, 0, Ok(ours));
            table.add(1, 0, Ok(theirs));
        }
        table.add(2, 0, Err(anyhow::anyhow!("no luck")));
        table
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        assert_eq!(example().ratio("theirs", "ours", 0), Some(10.0));
        assert_eq!(example().ratio("other", "ours", 0), None);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn the_table_is_aligned() {
        let text = example().markdown(Some("ours"));
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(
            lines[2].trim_end(),
            "| ours                      | 2.00 (1.00–4.00) |"
        );
        assert!(text.contains("- fails: other, 1 × 1: no luck"), "{text}");
        assert_eq!(lines.len(), 10);
        assert!(
            lines[8].contains("10.0 ×") && lines[9].contains('–'),
            "{text}"
        );
    }
}
