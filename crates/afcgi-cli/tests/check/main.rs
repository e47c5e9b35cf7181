//! `afcgi check`: each case is proven by a server with a fault that this case finds, and no other.
//!
//! The server is made by hand ([`server`]), right unless it is told a fault ([`mutant`]). It runs in this process, and so do the cases.

mod connection;
mod ending;
mod handlers;
mod memory;
mod mutant;
mod request;
mod server;
mod tool;
mod web;
mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use afcgi_cli::check::{Arguments, Failure, SECTIONS, Selection, Suite, run};
use mutant::{ALL, Known, Mutant};
use tokio::task::LocalSet;

/// How long the server may take for anything when a fault is expected. One who is slow for another reason is asked again.
const LIMIT: Duration = Duration::from_millis(500);
/// How long it may take then.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of these cases one takes as long as all others.
const LONG: &[&str] = &["3.3/2"];

/// What came of the cases of a selection: those that failed, with the reason, and those that were skipped.
#[derive(Debug, Default)]
struct Came {
    failed: Vec<(&'static str, String)>,
    skipped: Vec<(&'static str, String)>,
    passed: usize,
}

/// Runs cases against a server with a fault, or without any, in this thread.
fn check(mutant: Option<Mutant>, limit: Duration, selection: &Selection) -> Came {
    local(async {
        let address = server::start(mutant);
        cases(&address, limit, None, selection).await
    })
}

/// Runs cases against the server at an address.
fn against(address: &str, limit: Duration, pid: Option<u32>, selection: &Selection) -> Came {
    local(cases(address, limit, pid, selection))
}

fn local<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let came = LocalSet::new().block_on(&runtime, future);
    runtime.shutdown_background();
    came
}

async fn cases(address: &str, limit: Duration, pid: Option<u32>, selection: &Selection) -> Came {
    let paths = [
        address,
        "--echo=/echo",
        "--params=/params",
        "--slow=/slow",
        "--large=/large",
        "--stderr=/stderr",
        "--websocket=/ws",
    ];
    let mut settings = Arguments::parsed(&paths).expect("settings");
    settings.limit = limit;
    settings.pid = pid;
    let suite = Suite::prepare(settings)
        .await
        .expect("the plain request is answered");
    let mut came = Came::default();
    run(&Arc::new(suite), selection, |done| match done.outcome {
        Ok(()) => came.passed += 1,
        Err(Failure::Skip(reason)) => came.skipped.push((done.case.id, reason)),
        Err(Failure::Deviation {
            expected,
            came: what,
        }) => {
            came.failed
                .push((done.case.id, format!("expected {expected}; came {what}")));
        }
    })
    .await;
    came
}

fn selection(only: &[&str], skip: &[&str]) -> Selection {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    Selection {
        only: words(only),
        skip: words(skip),
    }
}

#[test]
fn a_server_without_a_fault_passes_every_case() {
    let came = check(None, PATIENCE, &selection(&[], &["memory"]));
    assert!(came.failed.is_empty(), "{:#?}", came.failed);
    assert!(came.skipped.is_empty(), "{:#?}", came.skipped);
    assert!(came.passed >= 150, "{}", came.passed);
}

#[test]
fn there_is_a_fault_for_each_case_and_no_other() {
    let cases = SECTIONS.iter().flat_map(|section| section.cases);
    let cases: Vec<&str> = cases.map(|case| case.id).collect();
    let known: Vec<&str> = ALL.iter().map(|known| known.case).collect();
    assert_eq!(cases, known);
    for known in ALL {
        assert_eq!(known.also.is_empty(), known.reason.is_empty(), "{known:?}");
    }
}

/// What is wrong with what the cases say of a fault.
fn judge(known: &Known) -> Result<(), String> {
    let skip: &[&str] = if LONG.contains(&known.case) {
        &["memory"]
    } else {
        &[&["memory"], LONG].concat()
    };
    let came = check(Some(known.mutant), LIMIT, &selection(&[], skip));
    let mut failed: BTreeSet<&str> = came.failed.iter().map(|failed| failed.0).collect();
    // Some faults need the server to be quick.
    let found_alone = || {
        let came = check(Some(known.mutant), LIMIT, &selection(&[known.case], &[]));
        !came.failed.is_empty()
    };
    if !failed.contains(known.case) && !(0..3).any(|_| found_alone()) {
        return Err(format!(
            "{known:?} is not found; skipped: {:?}; failed: {:#?}",
            came.skipped, came.failed
        ));
    }
    let expected = |case: &str| case == known.case || known.also.contains(&case);
    failed.retain(|case| !expected(case));
    if failed.is_empty() {
        return Ok(());
    }
    // Perhaps this machine was busy for longer than the limit.
    let again: Vec<&str> = failed.into_iter().collect();
    let came = check(Some(known.mutant), PATIENCE, &selection(&again, &[]));
    match came.failed.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{known:?} is found by others as well: {:#?}",
            came.failed
        )),
    }
}

#[test]
fn each_fault_is_found_by_its_case_alone() {
    let next = AtomicUsize::new(0);
    // One alone, by its name or its case.
    let only = std::env::var("MUTANT").ok();
    let known: Vec<&Known> = ALL
        .iter()
        .filter(|known| !known.case.starts_with("memory/"))
        .filter(|known| {
            only.as_ref()
                .is_none_or(|only| format!("{:?}", known.mutant) == *only || known.case == only)
        })
        .collect();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let mut wrong = Vec::new();
            while let Some(known) = known.get(next.fetch_add(1, Ordering::Relaxed)) {
                wrong.extend(judge(known).err());
            }
            wrong
        };
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        known.len(),
        wrong.join("\n")
    );
}
