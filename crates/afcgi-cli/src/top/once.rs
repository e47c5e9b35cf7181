//! `--once`: a table or a JSON object, and the end.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::history::History;
use super::shape::Page;
use super::source::Source;
use super::table::{Column, Group, Row, compare};

/// What came of a source.
#[derive(Debug)]
struct Sample {
    page: Result<Page, String>,
    took: Duration,
}

/// Asks, prints, and says whether all sources answered.
pub(super) fn run(sources: Vec<Source>, interval: Duration, as_json: bool) -> io::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let samples = runtime.block_on(async {
        let samples = sources.iter().map(|source| sample(source, interval));
        join_all(samples).await
    });
    // A name that is looked up would be waited for.
    runtime.shutdown_background();
    let all = samples.iter().all(|sample| sample.page.is_ok());
    let text = match as_json {
        true => format!("{:#}\n", object(&sources, &samples, interval)),
        false => table(&sources, &samples),
    };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads it has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(all),
    }
}

/// Two samples, an interval apart; one where that is nothing.
async fn sample(source: &Source, interval: Duration) -> Sample {
    let mut history = History::default();
    if !interval.is_zero() {
        let first = source.poll().await;
        if let Ok(answer) = first.answer {
            history.apply(&mut answer.page(&source.label), first.at);
        }
        tokio::time::sleep(interval).await;
    }
    let poll = source.poll().await;
    let page = poll.answer.map(|answer| {
        let mut page = answer.page(&source.label);
        history.apply(&mut page, poll.at);
        page
    });
    Sample {
        page,
        took: poll.took,
    }
}

fn object(sources: &[Source], samples: &[Sample], interval: Duration) -> Value {
    let at = SystemTime::now().duration_since(UNIX_EPOCH);
    let sources = sources.iter().zip(samples).map(|(source, sample)| {
        let mut object = Map::new();
        object.insert("source".into(), source.label.as_str().into());
        object.insert("took_seconds".into(), sample.took.as_secs_f64().into());
        match &sample.page {
            Ok(page) => {
                object.insert("kind".into(), page.kind.key().into());
                object.insert("error".into(), Value::Null);
                object.insert("left_out".into(), page.left_out.into());
                for (group, rows) in &page.tables {
                    let rows = sorted(*group, rows).map(|row| row.json(*group));
                    object.insert(group.key().into(), rows.collect());
                }
            }
            Err(why) => {
                object.insert("kind".into(), Value::Null);
                object.insert("error".into(), why.as_str().into());
            }
        }
        Value::Object(object)
    });
    json!({
        "at": at.unwrap_or_default().as_secs(),
        "interval_seconds": interval.as_secs_f64(),
        "sources": sources.collect::<Vec<_>>(),
    })
}

fn sorted(group: Group, rows: &[Row]) -> impl Iterator<Item = &Row> {
    let by = group.first_sort();
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by(|one, other| {
        let order = compare(&one.cells[by], &other.cells[by], false);
        order.then_with(|| one.name.cmp(&other.name))
    });
    rows.into_iter()
}

fn table(sources: &[Source], samples: &[Sample]) -> String {
    let mut out = String::new();
    for (n, (source, sample)) in sources.iter().zip(samples).enumerate() {
        let gap = if n == 0 { "" } else { "\n" };
        let label = &source.label;
        match &sample.page {
            Err(why) => _ = writeln!(out, "{gap}{label}: {why}"),
            Ok(page) => {
                let took = super::table::time(sample.took.as_secs_f64());
                _ = writeln!(out, "{gap}{label}: {}, {took}", page.kind.name());
                for (group, rows) in &page.tables {
                    rows_as_text(&mut out, *group, rows);
                }
                if page.left_out > 0 {
                    _ = writeln!(out, "{} more are not shown", page.left_out);
                }
            }
        }
    }
    out
}

fn rows_as_text(out: &mut String, group: Group, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    let columns: Vec<(usize, &Column)> = group
        .columns()
        .iter()
        .enumerate()
        .filter(|(_, column)| column.width > 0)
        .collect();
    let names = rows.iter().map(|row| row.name.chars().count());
    // What a process does is written behind its numbers, as long as it is.
    let is_last = !group.keeps_end();
    let width = names.max().unwrap_or_default().max(group.title().len());
    if !is_last {
        _ = write!(out, "{:width$}", group.title());
    }
    for (_, column) in &columns {
        _ = write!(out, " {:>1$}", column.title, column.width);
    }
    out.push_str(if is_last { "  " } else { "\n" });
    if is_last {
        _ = writeln!(out, "{}", group.title());
    }
    for row in sorted(group, rows) {
        if !is_last {
            _ = write!(out, "{:width$}", row.name);
        }
        for (at, column) in &columns {
            let cell = row.cells[*at].shown(column.show, column.width);
            _ = write!(out, " {cell:>0$}", column.width);
        }
        match is_last {
            true => _ = writeln!(out, "  {}", row.name),
            false => out.push('\n'),
        }
    }
}
