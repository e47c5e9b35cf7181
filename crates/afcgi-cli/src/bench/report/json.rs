//! The report for programs. Times are in milliseconds unless their name says otherwise.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::super::engine::{ExpectStatus, Kind};
use super::super::outcome::{Outcome, PERCENTILES, Process, millis};

pub(in super::super) fn json(outcome: &Outcome) -> Value {
    let (plan, stats) = (outcome.plan, &outcome.stats);
    let errors = Kind::ALL.into_iter().filter_map(|kind| {
        let failures = stats.failures(kind);
        let first = failures.first.as_deref().unwrap_or_default();
        (failures.count > 0)
            .then(|| json!({ "kind": kind.name(), "count": failures.count, "first": first }))
    });
    let statuses = stats.statuses.iter().enumerate();
    let statuses = statuses
        .filter(|(_, count)| **count > 0)
        .map(|(status, count)| (status.to_string(), json!(count)));
    let series = outcome.points.iter().map(|point| {
        json!({
            "at": point.at,
            "seconds": point.seconds,
            "requests": point.completed,
            "failed": point.failed,
            "in_flight": point.in_flight,
            "p50": point.latency.map(|latency| latency.p50),
            "p99": point.latency.map(|latency| latency.p99),
            "max": point.latency.map(|latency| latency.max),
            "cores": point.process.map(|(cores, _)| cores),
            "memory": point.process.map(|(_, memory)| memory),
        })
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "command": outcome.command,
        "target": plan.target,
        "settings": {
            "connections": plan.connections,
            "concurrent": plan.concurrent,
            "threads": plan.threads,
            "requests": plan.requests,
            "seconds": plan.duration.map(|duration| duration.as_secs_f64()),
            "warm_up_seconds": plan.warm_up.as_secs_f64(),
            "rate": plan.rate,
            "hold": plan.hold,
            "timeout_seconds": plan.timeout.as_secs_f64(),
            "keep_conn": plan.keep_conn,
            "body": plan.body,
            "request_bytes": plan.template.size(),
            "abort_after": plan.aborts.map(|aborts| aborts.after.as_secs_f64() * 1000.0),
            "aborts_percent": plan.aborts.map(|aborts| aborts.share * 100.0),
            "seed": plan.aborts.map(|aborts| aborts.seed),
            "expect_status": match plan.expect.status {
                ExpectStatus::Success => json!("below 400"),
                ExpectStatus::Is(status) => json!(status),
                ExpectStatus::Any => json!("any"),
            },
        },
        "application": {
            "multiplexing": plan.answer.name(),
            "closes_kept_connections": outcome.closes,
        },
        "seconds": outcome.took.as_secs_f64(),
        "rate": outcome.rate(),
        "requests": {
            "begun": stats.begun,
            "answered": stats.completed,
            "failed": stats.failed(),
            "aborted": stats.aborted,
            "aborted_by_close": stats.aborted_by_close,
            "sent_again": stats.resent,
            "not_sent": outcome.unsent,
            "not_answered": outcome.unanswered,
        },
        "statuses": statuses.collect::<Map<_, _>>(),
        "errors": errors.collect::<Vec<_>>(),
        "connections": {
            "opened": stats.connections,
            "again": stats.reconnects,
            "put_off": stats.put_off,
            "queue_full": stats.queue_full,
        },
        "bytes": {
            "received": stats.bytes_in,
            "sent": stats.bytes_out,
            "bodies": stats.body_in,
            "stderr": stats.stderr,
        },
        "stderr_first": stats.stderr_first,
        "latency": times(Some(&stats.latency)),
        "latency_from": match plan.rate {
            Some(_) => "the time at which each request was to be sent",
            None => "sending",
        },
        "abort_latency": times(stats.abort_latency.as_ref()),
        "connect": times(stats.connect.as_ref()),
        "process": outcome.process.as_ref().map(|process| self::process(outcome, process)),
        "held": outcome.held.map(|held| json!({
            "open": held.open,
            "opening_seconds": held.opening,
            "at_the_end": held.left,
            "bytes_each": outcome.bytes_held(),
        })),
        "generator": {
            "cpu_micros_per_request": outcome.generator_micros(),
            "busy": outcome.busiest,
            "reads": stats.reads,
            "writes": stats.writes,
        },
        "series": series.collect::<Vec<_>>(),
        "notes": outcome.notes(),
        "interrupted": outcome.interrupted,
        "exit_status": outcome.code(),
    })
}

fn process(outcome: &Outcome, process: &Process) -> Value {
    json!({
        "pid": process.pid,
        "name": process.name,
        "processes": process.after.processes,
        "cpu_seconds": process.cpu().as_secs_f64(),
        "cores": process.cpu().as_secs_f64() / outcome.took.as_secs_f64().max(1e-9),
        "cpu_micros_per_request": outcome.process_micros(),
        "memory_before": process.before.memory,
        "memory_most": process.peak,
        "memory_after": process.after.memory,
        "ended": process.gone,
    })
}

fn times(histogram: Option<&Histogram<u64>>) -> Value {
    let Some(times) = histogram.filter(|times| !times.is_empty()) else {
        return Value::Null;
    };
    let mut object = Map::new();
    object.insert("count".into(), json!(times.len()));
    object.insert("min".into(), json!(millis(times.min())));
    object.insert("mean".into(), json!(times.mean() / 1e6));
    object.insert("stdev".into(), json!(times.stdev() / 1e6));
    for percentile in PERCENTILES {
        let value = millis(times.value_at_percentile(percentile));
        object.insert(format!("p{percentile}"), json!(value));
    }
    object.insert("max".into(), json!(millis(times.max())));
    Value::Object(object)
}
