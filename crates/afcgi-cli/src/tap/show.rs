//! A request that is over, as a line or as JSON.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use afcgi_proto::ProtocolStatus;
use serde_json::{Value, json};

use super::exchange::{HeadState, Pair};
use super::faults::Fault;
use super::track::{Ended, How};
use crate::wire::{Palette, Side, escaped, excerpt, protocol_status, role_name};

/// Bytes of a URI or the name of a script that a line has.
const SHOWN: usize = 200;

/// The time of day, in UTC.
pub(crate) fn clock(at: Duration) -> String {
    let text = humantime::format_rfc3339_millis(UNIX_EPOCH + at).to_string();
    // Of a date that has four digits for the year.
    text.get(11..23).unwrap_or(&text).to_owned()
}

fn date(at: Duration) -> String {
    humantime::format_rfc3339_micros(UNIX_EPOCH + at).to_string()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The lines of a request.
pub(crate) fn lines(out: &mut String, connection: u64, ended: &Ended, palette: Palette) {
    let exchange = &ended.exchange;
    let Palette { note, bad, .. } = palette;
    let method = excerpt(&exchange.told.method, 32);
    let uri = excerpt(&exchange.told.uri(), SHOWN);
    let status = exchange.status();
    let style = match status {
        Some(..400) => palette.received,
        _ => bad,
    };
    let status = status.map_or_else(|| String::from("-"), |status| status.to_string());
    _ = write!(
        out,
        "{note}{} c{connection}.{}{note:#} {} {} {style}{status}{style:#} in {} out {}",
        clock(exchange.began),
        ended.id,
        or_dash(&method),
        or_dash(&uri),
        exchange.stdin.bytes + exchange.data.bytes,
        exchange.stdout.bytes,
    );
    let since = |at: Duration| ms(at.saturating_sub(exchange.began));
    if let Some(first) = exchange.first_byte {
        _ = write!(out, " first {:.3} ms", since(first));
    }
    _ = write!(out, " total {:.3} ms", since(ended.at));
    if !exchange.told.script.is_empty() {
        _ = write!(out, " {}", excerpt(&exchange.told.script, SHOWN));
    }
    let notes = notes(ended);
    if !notes.is_empty() {
        _ = write!(out, " {bad}[{}]{bad:#}", notes.join("; "));
    }
    out.push('\n');
    for line in exchange.said.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.is_empty() {
            _ = writeln!(out, "  {note}stderr:{note:#} {}", escaped(line));
        }
    }
    let left_out = exchange.stderr.bytes - exchange.said.len() as u64;
    if left_out > 0 {
        _ = writeln!(out, "  {note}stderr: … {left_out} bytes more{note:#}");
    }
}

fn or_dash(text: &str) -> &str {
    match text {
        "" => "-",
        text => text,
    }
}

/// What is special about it.
fn notes(ended: &Ended) -> Vec<String> {
    let exchange = &ended.exchange;
    let mut notes = Vec::new();
    if !matches!(exchange.role, afcgi_proto::Role::Responder) {
        notes.push(role_name(exchange.role).into_owned());
    }
    if let Some(at) = exchange.aborted {
        let after = ms(at.saturating_sub(exchange.began));
        notes.push(format!("aborted after {after:.3} ms"));
    }
    match ended.how {
        How::End(end) => {
            if end.protocol_status != ProtocolStatus::RequestComplete {
                notes.push(format!("refused: {}", protocol_status(end.protocol_status)));
            }
            if end.app_status != 0 {
                notes.push(format!("appStatus {}", end.app_status));
            }
        }
        How::WebLeft => notes.push(String::from("the web server closed the connection")),
        How::AppLeft => notes.push(String::from("the application closed the connection")),
        How::Unseen => notes.push(String::from("its end was not seen")),
    }
    for (rule, by, minor) in &exchange.faults {
        if !minor {
            notes.push(format!("{rule} by {}", by.name()));
        }
    }
    if exchange.cut {
        notes.push(String::from("not all of it is known here"));
    }
    notes
}

/// The line of a violation.
pub(crate) fn fault(
    out: &mut String,
    at: Duration,
    connection: u64,
    id: u16,
    fault: &Fault,
    by: Side,
    palette: Palette,
) {
    let Palette { note, bad, .. } = palette;
    let id = match id {
        0 => String::new(),
        id => format!(".{id}"),
    };
    let style = match fault.is_minor() {
        true => note,
        false => bad,
    };
    _ = writeln!(
        out,
        "{note}{} c{connection}{id}{note:#} {style}{} by {}:{style:#} {fault}",
        clock(at),
        fault.rule(),
        by.name(),
    );
}

/// The same in JSON.
pub(crate) fn fault_json(at: Duration, connection: u64, id: u16, fault: &Fault, by: Side) -> Value {
    json!({
        "type": "violation",
        "at": date(at),
        "connection": connection,
        "id": (id != 0).then_some(id),
        "rule": fault.rule(),
        "by": by.name(),
        "minor": fault.is_minor(),
        "text": fault.to_string(),
    })
}

/// Something else that is to be told.
pub(crate) fn note_json(at: Duration, connection: u64, text: &str) -> Value {
    json!({ "type": "note", "at": date(at), "connection": connection, "text": text })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pairs(pairs: &[Pair]) -> Vec<[String; 2]> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| [text(name), text(value)])
        .collect()
}

/// A request in JSON.
pub(crate) fn json(connection: u64, ended: &Ended) -> Value {
    let exchange = &ended.exchange;
    let since = |at: Duration| at.saturating_sub(exchange.began).as_secs_f64();
    let (how, end) = match ended.how {
        How::End(end) if end.protocol_status == ProtocolStatus::RequestComplete => {
            ("complete", Some(end))
        }
        How::End(end) => ("refused", Some(end)),
        How::WebLeft => ("web_left", None),
        How::AppLeft => ("app_left", None),
        How::Unseen => ("not_seen", None),
    };
    let faults = |minor: bool| -> Vec<Value> {
        let faults = exchange.faults.iter().filter(|fault| fault.2 == minor);
        let faults = faults.map(|(rule, by, _)| json!({ "rule": rule, "by": by.name() }));
        faults.collect()
    };
    let fields = match &exchange.head {
        HeadState::Known { fields, .. } => pairs(fields),
        HeadState::None | HeadState::Part(_) | HeadState::Bad => Vec::new(),
    };
    json!({
        "type": "request",
        "at": date(exchange.began),
        "connection": connection,
        "id": ended.id,
        "role": role_name(exchange.role),
        "method": text(&exchange.told.method),
        "uri": text(&exchange.told.uri()),
        "script": text(&exchange.told.script),
        "status": exchange.status(),
        "end": how,
        "app_status": end.map(|end| end.app_status),
        "protocol_status": end.map(|end| protocol_status(end.protocol_status)),
        "bytes_in": exchange.stdin.bytes,
        "bytes_data": exchange.data.bytes,
        "bytes_out": exchange.stdout.bytes,
        "first_byte": exchange.first_byte.map(since),
        "aborted": exchange.aborted.map(since),
        "total": since(ended.at),
        "stderr": text(&exchange.said),
        "stderr_bytes": exchange.stderr.bytes,
        "params": pairs(&exchange.told.all),
        "fields": fields,
        "violations": faults(false),
        "minor": faults(true),
        "cut": exchange.cut,
    })
}
