//! The whole comparison: what is measured in which order, what the figures are held against, and the record.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use afcgi_bench::process;
use afcgi_bench::request::REQUEST_BYTES;
use anyhow::{Result, bail};

use crate::options::{Cores, Options, Section, progress};
use crate::peers::{OWN, PEERS, Peer, Places, RAW, ROUTES};
use crate::table::{Table, figure};
use crate::{application, gateways, held, machine};

/// Measures, prints, writes the record.
pub(crate) fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let cores = Cores::find()?;
    let places = Places::find()?;
    let machine = machine::describe(&places.root);
    process::pin(cores.load)?;
    let peers: Vec<Peer> = PEERS
        .into_iter()
        .filter(|peer| !options.leaves_out(peer.name))
        .collect();
    progress("building");
    places.build(
        if options.has(Section::Application) || options.has(Section::Held) {
            &peers
        } else {
            &[RAW, ROUTES]
        },
    )?;
    if options.has(Section::Gateway) {
        places.build_own(&["afcgi"])?;
    }

    let mut sections = Vec::new();
    let mut targets = Vec::new();
    if options.has(Section::Application) {
        let table = application::measure(&places, &peers, cores, options)?;
        targets.extend(application_targets(&table));
        sections.push(table.markdown(Some(OWN)));
    }
    if options.has(Section::Held) {
        let table = held::measure(&places, &peers, cores, options)?;
        targets.extend(held_targets(&table));
        sections.push(table.markdown(Some(OWN)));
    }
    if options.has(Section::Gateway) {
        let table = gateways::measure(&places, cores, options)?;
        targets.extend(gateway_targets(&table));
        sections.push(table.markdown(Some(gateways::KEEPALIVE)));
        let table = gateways::measure_held(&places, cores, options)?;
        sections.push(table.markdown(Some(gateways::KEEPALIVE)));
    }
    eprint!("\r\x1b[K");

    let date = today();
    let text = record(
        &date,
        &machine,
        options,
        &sections,
        &targets,
        start.elapsed(),
    );
    publish(
        &places,
        &text,
        (!options.no_record).then_some(Record {
            folder: options.records.as_deref(),
            name: &date,
        }),
    )?;
    verdict(options.check, &targets)
}

/// Where a record goes.
pub(crate) struct Record<'a> {
    /// The default is bench/records.
    pub(crate) folder: Option<&'a Path>,
    pub(crate) name: &'a str,
}

/// Prints a record, and writes it.
pub(crate) fn publish(places: &Places, text: &str, record: Option<Record<'_>>) -> Result<()> {
    // A failure may name a file. Where this working copy lies is nobody's business.
    let text = text.replace(&format!("{}/", places.root.display()), "");
    print!("{text}");
    if let Some(Record { folder, name }) = record {
        let folder = folder.map_or_else(|| places.root.join("bench/records"), Path::to_owned);
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{name}.md"));
        fs::write(&path, &text)?;
        eprintln!("written to {}", path.display());
    }
    Ok(())
}

/// Whether the targets are met, where that is asked.
pub(crate) fn verdict(check: bool, targets: &[Goal]) -> Result<()> {
    let missed = targets.iter().filter(|target| !target.met).count();
    if check && missed > 0 {
        bail!("{missed} of {} targets missed", targets.len());
    }
    Ok(())
}

/// The date, in UTC.
pub(crate) fn today() -> String {
    let date = time::OffsetDateTime::now_utc().date();
    format!(
        "{:04}-{:02}-{:02}",
        date.year(),
        u8::from(date.month()),
        date.day()
    )
}

/// What a figure is held against.
pub(crate) struct Goal {
    text: String,
    met: bool,
}

pub(crate) fn goal(what: &str, value: Option<f64>, unit: &str, met: impl Fn(f64) -> bool) -> Goal {
    let shown = value.map_or("not measured".to_owned(), |value| {
        format!("{}{unit}", figure(value))
    });
    Goal {
        text: format!("{what}: {shown}"),
        met: value.is_some_and(met),
    }
}

fn application_targets(table: &Table) -> Vec<Goal> {
    let ratio = |name, column| table.ratio(name, OWN, column);
    let (tokio_fastcgi, bare) = ("tokio-fastcgi 1.3.0", "bare tokio");
    vec![
        goal(
            "tokio-fastcgi over afcgitest at 1 × 64, at least 10",
            ratio(tokio_fastcgi, application::AT_64),
            " ×",
            |value| value >= 10.0,
        ),
        goal(
            "bare tokio over afcgitest at 1 × 64, at least 1",
            ratio(bare, application::AT_64),
            " ×",
            |value| value >= 1.0,
        ),
        goal(
            "bare tokio over afcgitest at 1 × 1024, at least 1",
            ratio(bare, application::AT_1024),
            " ×",
            |value| value >= 1.0,
        ),
    ]
}

fn held_targets(table: &Table) -> Vec<Goal> {
    let held = table.find(OWN, 0).and_then(|cell| cell.median());
    vec![goal(
        "kB per request held by afcgitest, below 4.8",
        held,
        " kB",
        |value| value < 4.8,
    )]
}

fn gateway_targets(table: &Table) -> Vec<Goal> {
    let module = table.ratio(gateways::MODULE, gateways::KEEPALIVE, 0);
    let own = table.ratio(gateways::OWN, gateways::CADDY, 0);
    vec![
        goal(
            "nginx with the module over stock keepalive, below 1",
            module,
            " ×",
            |value| value < 1.0,
        ),
        goal("afcgi gateway over Caddy, below 1", own, " ×", |value| {
            value < 1.0
        }),
    ]
}

fn record(
    date: &str,
    machine: &[String],
    options: &Options,
    sections: &[String],
    targets: &[Goal],
    took: Duration,
) -> String {
    let mut text = format!("# {date}\n\n");
    for line in machine {
        text.push_str(&format!("- {line}\n"));
    }
    text.push_str(&format!(
        "- requests of {REQUEST_BYTES} bytes, every answer checked; {} rounds of {} ms for each figure, interleaved; {:.0} s in all\n",
        options.rounds,
        options.window,
        took.as_secs_f64()
    ));
    if !options.without.is_empty() {
        text.push_str(&format!("- left out: {}\n", options.without.join("; ")));
    }
    text.push_str(
        "- compare only inside this record: nothing was done to keep the machine quiet\n",
    );
    for section in sections {
        text.push('\n');
        text.push_str(section);
    }
    text.push_str(&targets_text(targets));
    text
}

/// The last section of a record.
pub(crate) fn targets_text(targets: &[Goal]) -> String {
    let mut text = "\n## Targets\n\n".to_owned();
    for target in targets {
        text.push_str(&format!(
            "- {}: {}\n",
            if target.met { "met" } else { "**missed**" },
            target.text
        ));
    }
    text
}
