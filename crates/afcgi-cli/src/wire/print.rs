//! The lines that show a record.

use std::borrow::Cow;
use std::fmt::Write;

use afcgi_proto::params::decode_pair;
use afcgi_proto::record::{FLOW_CONTROL, KEEP_CONN};
use afcgi_proto::{ProtocolStatus, RecordType, Role};
use anstyle::{AnsiColor, Style};

use super::text::{escaped, excerpt};
use super::{Seen, Side};

/// Bytes of a name or value that are shown.
const VALUE: usize = 512;
/// Pairs of a record that are shown.
const PAIRS: usize = 300;
/// Lines of text that are shown of a record.
const LINES: usize = 12;
/// Bytes of a row of binary content.
const ROW: usize = 16;
/// Rows of binary content that are shown of a record.
const ROWS: usize = 4;

/// The colours of what is printed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Palette {
    pub(crate) sent: Style,
    pub(crate) received: Style,
    pub(crate) note: Style,
    pub(crate) bad: Style,
}

impl Palette {
    /// With colours, or without any.
    pub(crate) fn new(colours: bool) -> Self {
        if !colours {
            return Self::default();
        }
        Self {
            sent: AnsiColor::Cyan.on_default(),
            received: AnsiColor::Green.on_default(),
            note: Style::new().dimmed(),
            bad: AnsiColor::Red.on_default().bold(),
        }
    }
}

/// The name of a type in the specification.
pub(crate) fn record_name(record_type: RecordType) -> Cow<'static, str> {
    Cow::Borrowed(match record_type {
        RecordType::BeginRequest => "BEGIN_REQUEST",
        RecordType::AbortRequest => "ABORT_REQUEST",
        RecordType::EndRequest => "END_REQUEST",
        RecordType::Params => "PARAMS",
        RecordType::Stdin => "STDIN",
        RecordType::Stdout => "STDOUT",
        RecordType::Stderr => "STDERR",
        RecordType::Data => "DATA",
        RecordType::GetValues => "GET_VALUES",
        RecordType::GetValuesResult => "GET_VALUES_RESULT",
        RecordType::UnknownType => "UNKNOWN_TYPE",
        RecordType::Credit => "CREDIT",
        RecordType::Other(code) => return Cow::Owned(format!("type {code}")),
    })
}

/// The name of a role.
pub(crate) fn role_name(role: Role) -> Cow<'static, str> {
    Cow::Borrowed(match role {
        Role::Responder => "responder",
        Role::Authorizer => "authorizer",
        Role::Filter => "filter",
        Role::Other(code) => return Cow::Owned(format!("role {code}")),
    })
}

/// The name of a protocol status in the specification.
pub(crate) fn protocol_status(status: ProtocolStatus) -> Cow<'static, str> {
    Cow::Borrowed(match status {
        ProtocolStatus::RequestComplete => "REQUEST_COMPLETE",
        ProtocolStatus::CantMpxConn => "CANT_MPX_CONN",
        ProtocolStatus::Overloaded => "OVERLOADED",
        ProtocolStatus::UnknownRole => "UNKNOWN_ROLE",
        ProtocolStatus::Other(code) => return Cow::Owned(format!("protocolStatus {code}")),
    })
}

/// What a record says, beside its streams' content and its pairs; empty: nothing.
pub(crate) fn describe(seen: &Seen) -> String {
    if let Some(begin) = seen.begin() {
        let mut out = role_name(begin.role).into_owned();
        if begin.flags & KEEP_CONN != 0 {
            out += ", keep_conn";
        }
        if begin.flags & FLOW_CONTROL != 0 {
            _ = write!(out, ", flow_control, credit {}", begin.credit);
        }
        let other = begin.flags & !(KEEP_CONN | FLOW_CONTROL);
        if other != 0 {
            _ = write!(out, ", other flags {other:#04x}");
        }
        return out;
    }
    if let Some(end) = seen.end() {
        return format!(
            "appStatus {}, {}",
            end.app_status,
            protocol_status(end.protocol_status)
        );
    }
    match (seen.header.record_type, seen.content.as_slice()) {
        (RecordType::UnknownType, &[code, ..]) => {
            format!("does not know {}", record_name(code.into()))
        }
        (RecordType::Credit, &[a, b, c, d, ..]) => {
            format!("{} bytes more", u32::from_be_bytes([a, b, c, d]))
        }
        (
            RecordType::Params
            | RecordType::Stdin
            | RecordType::Stdout
            | RecordType::Stderr
            | RecordType::Data,
            [],
        ) => String::from("end of the stream"),
        _ => String::new(),
    }
}

/// Appends the lines of a record. `with_content`: those of the content of its stream as well.
pub(crate) fn write_record(out: &mut String, seen: &Seen, palette: Palette, with_content: bool) {
    let (mark, style) = match seen.direction {
        Side::Web => ('>', palette.sent),
        Side::App => ('<', palette.received),
    };
    let header = &seen.header;
    let id = header.request_id.map_or(0, afcgi_proto::RequestId::get);
    _ = write!(
        out,
        "{style}{mark} {:.6} {}{style:#} id {id}, {}",
        seen.at.as_secs_f64(),
        record_name(header.record_type),
        bytes(header.content_length.into()),
    );
    if header.padding_length > 0 {
        _ = write!(out, " + {} padding", header.padding_length);
    }
    let text = describe(seen);
    if !text.is_empty() {
        _ = write!(out, ": {text}");
    }
    out.push('\n');
    let begin = format!("{style}{mark}{style:#}   ");
    if seen.before > 0 {
        let before = bytes(seen.before);
        _ = writeln!(out, "{begin}with {before} of the record before:");
    }
    if seen.has_pairs() {
        pairs(out, &begin, &seen.content);
    } else if with_content && is_stream(header.record_type) {
        content(out, &begin, &seen.content, header.content_length.into());
    }
}

fn is_stream(record_type: RecordType) -> bool {
    matches!(
        record_type,
        RecordType::Stdin
            | RecordType::Stdout
            | RecordType::Stderr
            | RecordType::Data
            | RecordType::Other(_)
    )
}

fn bytes(count: usize) -> String {
    match count {
        1 => String::from("1 byte"),
        _ => format!("{count} bytes"),
    }
}

fn pairs(out: &mut String, begin: &str, mut rest: &[u8]) {
    let mut shown = 0;
    loop {
        let before = rest.len();
        match decode_pair(&mut rest) {
            Ok(None) => return,
            Ok(Some(_)) if shown == PAIRS => {
                _ = writeln!(out, "{begin}… {before} bytes more");
                return;
            }
            Ok(Some((name, value))) => {
                shown += 1;
                let (name, value) = (excerpt(name, VALUE), excerpt(value, VALUE));
                _ = writeln!(out, "{begin}{name} = {value}");
            }
            Err(_) => {
                let left = bytes(before);
                _ = writeln!(out, "{begin}{left} that are no whole pair");
                return;
            }
        }
    }
}

/// The beginning of a stream's content: as lines if it is text, otherwise in hex.
fn content(out: &mut String, begin: &str, kept: &[u8], length: usize) {
    let shown = match as_text(kept, kept.len() < length) {
        Some(text) => {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            let mut shown = 0;
            for line in lines.into_iter().take(LINES) {
                shown += line.len();
                let line = line.strip_suffix('\n').unwrap_or(line);
                let line = line.strip_suffix('\r').unwrap_or(line);
                _ = writeln!(out, "{begin}{}", escaped(line.as_bytes()));
            }
            shown
        }
        None => {
            for (number, row) in kept.chunks(ROW).take(ROWS).enumerate() {
                hex_row(out, begin, number * ROW, row);
            }
            kept.len().min(ROW * ROWS)
        }
    };
    if shown < length {
        _ = writeln!(out, "{begin}… {} more", bytes(length - shown));
    }
}

/// Content that is text; a character at its end may be cut.
fn as_text(kept: &[u8], is_cut: bool) -> Option<&str> {
    let text = match std::str::from_utf8(kept) {
        Ok(text) => text,
        Err(error) if is_cut && error.error_len().is_none() => {
            std::str::from_utf8(&kept[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let is_text = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    text.chars().all(is_text).then_some(text)
}

fn hex_row(out: &mut String, begin: &str, offset: usize, row: &[u8]) {
    _ = write!(out, "{begin}{offset:04x} ");
    for byte in row {
        _ = write!(out, " {byte:02x}");
    }
    let blank = 3 * (ROW - row.len()) + 2;
    _ = write!(out, "{:blank$}|", "");
    for &byte in row {
        let printable = byte.is_ascii_graphic() || byte == b' ';
        out.push(if printable { char::from(byte) } else { '.' });
    }
    out.push_str("|\n");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::Watcher;

    fn printed(bytes: &[u8]) -> String {
        let mut out = String::new();
        let mut watcher = Watcher::new(Side::App);
        watcher.feed(Duration::from_micros(1500), bytes, |seen| {
            write_record(&mut out, &seen, Palette::default(), true);
        });
        out
    }

    #[test]
    fn records() {
        for (bytes, expected) in [
            (
                &b"\x01\x01\0\x07\0\x08\0\0\0\x01\x03\0\0\x10\0\0"[..],
                "< 0.001500 BEGIN_REQUEST id 7, 8 bytes: responder, keep_conn, flow_control, credit 4096\n",
            ),
            (
                b"\x01\x01\0\x07\0\x08\0\0\0\x09\x80\0\0\0\0\0",
                "< 0.001500 BEGIN_REQUEST id 7, 8 bytes: role 9, other flags 0x80\n",
            ),
            (
                b"\x01\x03\0\x07\0\x08\x02\0\0\0\x01\0\x02\0\0\0xx",
                "< 0.001500 END_REQUEST id 7, 8 bytes + 2 padding: appStatus 256, OVERLOADED\n",
            ),
            (
                b"\x01\x04\0\x01\0\x0b\0\0\x01\x02A\x1b.\x01\x00B\x05\x05xx",
                "< 0.001500 PARAMS id 1, 11 bytes\n<   A = \\u{1b}.\n<   B = \n<   3 bytes that are no whole pair\n",
            ),
            (
                b"\x01\x04\0\x01\0\x03\0\0\x01\x02A\x01\x04\0\x01\0\x02\0\0bc",
                "< 0.001500 PARAMS id 1, 3 bytes\n<   3 bytes that are no whole pair\n\
                 < 0.001500 PARAMS id 1, 2 bytes\n<   with 3 bytes of the record before:\n<   A = bc\n",
            ),
            (
                b"\x01\x06\0\x01\0\x06\0\0a\r\nb\tc",
                "< 0.001500 STDOUT id 1, 6 bytes\n<   a\n<   b\\tc\n",
            ),
            (
                b"\x01\x06\0\x01\0\x03\0\0a\0\x1b",
                "< 0.001500 STDOUT id 1, 3 bytes\n<   0000  61 00 1b                                         |a..|\n",
            ),
            (
                b"\x01\x06\0\x01\0\0\0\0",
                "< 0.001500 STDOUT id 1, 0 bytes: end of the stream\n",
            ),
            (
                b"\x01\x0b\0\0\0\x08\0\0\x09\0\0\0\0\0\0\0",
                "< 0.001500 UNKNOWN_TYPE id 0, 8 bytes: does not know GET_VALUES\n",
            ),
            (
                b"\x01\x2a\0\0\0\x01\0\0x",
                "< 0.001500 type 42 id 0, 1 byte\n<   x\n",
            ),
        ] {
            assert_eq!(printed(bytes), expected);
        }
    }

    #[test]
    fn long_content_is_cut() {
        let mut bytes = vec![1, 6, 0, 1, 3, 232, 0, 0];
        bytes.extend([b'\n'; 1000]);
        let text = printed(&bytes);
        assert_eq!(text.lines().count(), 2 + LINES);
        assert!(text.ends_with("… 988 bytes more\n"), "{text}");
        bytes.truncate(8);
        bytes.extend([0; 1000]);
        let text = printed(&bytes);
        assert_eq!(text.lines().count(), 2 + ROWS);
        assert!(text.ends_with("… 936 bytes more\n"), "{text}");
        let mut pairs = vec![1, 4, 0, 1, 0x07, 0xd0, 0, 0];
        pairs.extend([0; 2000]);
        assert_eq!(printed(&pairs).lines().count(), 2 + PAIRS);
    }
}
