//! Each rule that can be broken, by the bytes that break it.

mod bounds;

use std::collections::BTreeSet;

use super::*;

fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short").to_be_bytes();
    let id = id.to_be_bytes();
    let mut bytes = vec![1, kind, id[0], id[1], length[0], length[1], 0, 0];
    bytes.extend(content);
    bytes
}

fn begin(id: u16, role: u8) -> Vec<u8> {
    record(1, id, &[0, role, 1, 0, 0, 0, 0, 0])
}

fn params(id: u16, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut content = Vec::new();
    for (name, value) in pairs {
        afcgi_proto::params::encode_pair(&mut content, name.as_bytes(), value.as_bytes());
    }
    let first = match content.as_slice() {
        [] => Vec::new(),
        content => record(4, id, content),
    };
    [first, record(4, id, b"")].concat()
}

fn request(id: u16) -> Vec<u8> {
    let pairs = [("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/a?b")];
    [begin(id, 1), params(id, &pairs), record(5, id, b"")].concat()
}

fn end(id: u16, status: u8) -> Vec<u8> {
    record(3, id, &[0, 0, 0, 0, status, 0, 0, 0])
}

fn answer(id: u16) -> Vec<u8> {
    [
        record(6, id, b"A: b\n\nbody"),
        record(6, id, b""),
        end(id, 0),
    ]
    .concat()
}

/// What is said, in order. `None`: that side closes.
enum Say {
    Web(Vec<u8>),
    App(Vec<u8>),
    Close(Side),
}
use Say::{App, Close, Web};

struct Heard {
    faults: Vec<(Fault, Side, u16)>,
    ended: Vec<Ended>,
    blind: usize,
    tracker: Tracker,
    masks: Vec<u8>,
}

fn hear_with(keep: Keep, budget: Budget, says: &[Say], piece: usize) -> Heard {
    let mut tracker = Tracker::new(keep, Rc::new(budget));
    let (mut events, mut masks) = (Vec::new(), Masks::default());
    let mut at = Duration::from_secs(1_000_000_000);
    let mut masked = Vec::new();
    for say in says {
        let (side, bytes) = match say {
            Web(bytes) => (Side::Web, bytes),
            App(bytes) => (Side::App, bytes),
            Close(side) => {
                tracker.close(*side, at, &mut events);
                continue;
            }
        };
        for piece in bytes.chunks(piece) {
            at += Duration::from_millis(1);
            tracker.feed(side, at, piece, &mut masks, &mut events);
            let mut copy = piece.to_vec();
            masks.apply(&mut copy);
            masked.extend(copy);
        }
    }
    let mut heard = Heard {
        faults: Vec::new(),
        ended: Vec::new(),
        blind: 0,
        tracker,
        masks: masked,
    };
    for event in events {
        match event {
            Event::Ended(ended) => heard.ended.push(*ended),
            Event::Fault(fault, side, id) => heard.faults.push((fault, side, id)),
            Event::Blind(_) => heard.blind += 1,
        }
    }
    heard
}

fn hear(says: &[Say], piece: usize) -> Heard {
    hear_with(Keep::default(), Budget::default(), says, piece)
}

/// Each fault with what leads to it: nothing else is found, whatever the pieces are.
fn cases() -> Vec<(Vec<Say>, Fault, Side, u16)> {
    let both = || [Close(Side::Web), Close(Side::App)];
    let mut cases = Vec::new();
    let mut add = |says: Vec<Say>, fault, side, id| cases.push((says, fault, side, id));
    add(
        vec![App(b"HTTP/1.1 400".to_vec())],
        Fault::Version(b'H'),
        Side::App,
        0,
    );
    add(
        vec![Web(b"\x02\x01".to_vec())],
        Fault::Version(2),
        Side::Web,
        0,
    );
    add(
        vec![Web(vec![1, 9, 0]), Close(Side::Web)],
        Fault::InsideRecord,
        Side::Web,
        0,
    );
    let short = record(1, 1, b"\0\x01\x01");
    add(
        vec![Web(short)],
        Fault::BodyLength(RecordType::BeginRequest, 3),
        Side::Web,
        1,
    );
    let long = vec![
        Web(request(1)),
        App(answer(1)[..26].to_vec()),
        App(record(3, 1, &[0; 9])),
        App(end(1, 0)),
    ];
    add(
        long,
        Fault::BodyLength(RecordType::EndRequest, 9),
        Side::App,
        1,
    );
    add(
        vec![Web(record(6, 1, b"x"))],
        Fault::OtherSide(RecordType::Stdout),
        Side::Web,
        1,
    );
    add(
        vec![App(record(9, 0, b""))],
        Fault::OtherSide(RecordType::GetValues),
        Side::App,
        0,
    );
    add(
        vec![Web(record(99, 1, b"x"))],
        Fault::UnknownRecord(99),
        Side::Web,
        1,
    );
    add(
        vec![App(record(99, 0, b"x"))],
        Fault::UnknownRecord(99),
        Side::App,
        0,
    );
    add(
        vec![Web(begin(0, 1))],
        Fault::NoId(RecordType::BeginRequest),
        Side::Web,
        0,
    );
    add(
        vec![Web(record(9, 1, b""))],
        Fault::Id(RecordType::GetValues),
        Side::Web,
        1,
    );
    add(
        vec![Web(request(1)), Web(begin(1, 1)), App(answer(1))],
        Fault::ActiveId,
        Side::Web,
        1,
    );
    add(
        vec![Web(record(5, 7, b"x"))],
        Fault::NeverBegun(RecordType::Stdin),
        Side::Web,
        7,
    );
    add(
        vec![App(record(6, 7, b"x"))],
        Fault::NeverBegun(RecordType::Stdout),
        Side::App,
        7,
    );
    add(
        vec![Web(request(1)), App(answer(1)), App(end(1, 0))],
        Fault::AfterEnd(RecordType::EndRequest),
        Side::App,
        1,
    );
    add(
        vec![Web(request(1)), App(answer(1)), App(record(7, 1, b"x"))],
        Fault::AfterEnd(RecordType::Stderr),
        Side::App,
        1,
    );
    add(
        vec![Web(request(1)), Web(record(5, 1, b"x")), App(answer(1))],
        Fault::StreamEnded(RecordType::Stdin),
        Side::Web,
        1,
    );
    let late = [
        record(6, 1, b"\n"),
        record(6, 1, b""),
        record(6, 1, b"x"),
        end(1, 0),
    ]
    .concat();
    add(
        vec![Web(request(1)), App(late)],
        Fault::StreamEnded(RecordType::Stdout),
        Side::App,
        1,
    );
    let cut = [begin(1, 1), record(4, 1, b"\x05\x05abc")].concat();
    add(
        vec![
            Web(cut.clone()),
            Web(record(4, 1, b"de12345")),
            Web(record(4, 1, b"")),
        ],
        Fault::CutPair,
        Side::Web,
        1,
    );
    let values = record(9, 0, b"\x05\x05abc");
    add(vec![Web(values)], Fault::Pairs, Side::Web, 0);
    let early = [begin(1, 1), record(5, 1, b"x"), params(1, &[])].concat();
    add(
        vec![Web(early)],
        Fault::BeforeParams(RecordType::Stdin),
        Side::Web,
        1,
    );
    add(
        vec![Web(begin(1, 1)), App(record(6, 1, b"\n"))],
        Fault::BeforeParams(RecordType::Stdout),
        Side::App,
        1,
    );
    let body = [begin(1, 2), params(1, &[]), record(5, 1, b"x")].concat();
    add(vec![Web(body)], Fault::Stdin, Side::Web, 1);
    let data = [request(1), record(8, 1, b"x")].concat();
    add(vec![Web(data)], Fault::Data, Side::Web, 1);
    add(
        vec![Web([begin(1, 3), params(1, &[])].concat())],
        Fault::DataParams,
        Side::Web,
        1,
    );
    let told = [("FCGI_DATA_LENGTH", "5"), ("FCGI_DATA_LAST_MOD", "0")];
    let data = [
        begin(1, 3),
        params(1, &told),
        record(5, 1, b""),
        record(8, 1, b"four"),
        record(8, 1, b""),
    ];
    add(
        vec![Web(data.concat())],
        Fault::DataLength(4, 5),
        Side::Web,
        1,
    );
    add(
        vec![Web(begin(1, 9)), App(end(1, 3))],
        Fault::Role(9),
        Side::Web,
        1,
    );
    add(
        vec![Web(request(1)), App(end(1, 7))],
        Fault::ProtocolStatus(7),
        Side::App,
        1,
    );
    let late = [record(6, 1, b"\n"), end(1, 2)].concat();
    add(
        vec![Web(request(1)), App(late)],
        Fault::RefusedLate,
        Side::App,
        1,
    );
    add(
        vec![Web(request(1)), Close(Side::App)],
        Fault::NoEnd,
        Side::App,
        1,
    );
    add(
        vec![Web(request(1)), Web(record(2, 1, b"")), Close(Side::App)],
        Fault::ClosedForAbort,
        Side::App,
        1,
    );
    let bad = [record(6, 1, b"no head\n\n"), record(6, 1, b""), end(1, 0)].concat();
    add(
        vec![Web(request(1)), App(bad)],
        Fault::Head(afcgi_proto::cgi::HeadError::Field),
        Side::App,
        1,
    );
    add(
        vec![Web(request(1)), App(end(1, 0))],
        Fault::NoHead,
        Side::App,
        1,
    );
    add(
        vec![App(record(10, 0, b"\x01\x01ab"))],
        Fault::Unasked(RecordType::GetValuesResult),
        Side::App,
        0,
    );
    add(
        vec![App(record(11, 0, &[0; 8]))],
        Fault::Unasked(RecordType::UnknownType),
        Side::App,
        0,
    );
    add(
        vec![App(record(10, 0, b""))],
        Fault::EmptyAnswer,
        Side::App,
        0,
    );
    let open = [record(6, 1, b"\n"), end(1, 0)].concat();
    add(
        vec![Web(request(1)), App(open)],
        Fault::Unended(RecordType::Stdout),
        Side::App,
        1,
    );
    let short = [
        begin(1, 1),
        params(1, &[("CONTENT_LENGTH", "9")]),
        record(5, 1, b"four"),
        record(5, 1, b""),
    ];
    add(
        vec![Web(short.concat())],
        Fault::ShortBody(4, 9),
        Side::Web,
        1,
    );
    let told = [begin(1, 2), params(1, &[("SCRIPT_NAME", "/a")])].concat();
    add(vec![Web(told)], Fault::AuthorizerParam, Side::Web, 1);
    add(
        vec![Web(record(9, 0, b"\x01\x01ab"))],
        Fault::Values,
        Side::Web,
        0,
    );
    let mut asked = vec![Web(record(9, 0, b"\x01\x00a"))];
    asked.extend(both());
    add(
        asked,
        Fault::NoAnswer(RecordType::GetValuesResult),
        Side::App,
        0,
    );
    let mut asked = vec![Web(record(77, 0, b""))];
    asked.extend(both());
    add(
        asked,
        Fault::NoAnswer(RecordType::UnknownType),
        Side::App,
        0,
    );
    cases
}

#[test]
fn each_fault_alone() {
    for piece in [1, 3, 10_000] {
        for (says, fault, side, id) in cases() {
            let heard = hear(&says, piece);
            assert_eq!(heard.faults, [(fault, side, id)], "in pieces of {piece}");
        }
    }
}

/// Those that come with others.
#[test]
fn faults_together() {
    let says = [Web([begin(1, 9), params(1, &[])].concat()), App(answer(1))];
    let heard = hear(&says, 100);
    let faults: Vec<_> = heard.faults.into_iter().map(|fault| fault.0).collect();
    assert_eq!(faults, [Fault::Role(9), Fault::RoleTaken(9)]);
    // The end of a record is one of a pair, and then the stream ends there.
    let cut = [begin(1, 1), record(4, 1, b"\x05\x05abc"), record(4, 1, b"")].concat();
    let heard = hear(&[Web(cut)], 100);
    let faults: Vec<_> = heard.faults.into_iter().map(|fault| fault.0).collect();
    assert_eq!(faults, [Fault::CutPair, Fault::Pairs]);
}

/// Every rule that the summary can name is among the tests.
#[test]
fn no_rule_is_left_out() {
    let mut rules: BTreeSet<_> = cases().iter().map(|case| case.1.rule()).collect();
    rules.extend([Fault::RoleTaken(9).rule(), Fault::Pairs.rule()]);
    let expected = [
        "R-01", "R-02", "R-05", "R-06", "R-07", "R-10", "R-12", "R-22", "R-40", "R-41", "R-42",
        "R-50", "R-51", "R-52", "R-53", "R-54", "R-55", "R-56", "R-57", "R-58", "R-59",
    ];
    assert_eq!(rules, expected.into_iter().collect());
    // All are in the protocol's own words.
    let text = include_str!("../../../../../../docs/protocol.md");
    for rule in expected {
        assert!(text.contains(&format!("**{rule}**")), "{rule}");
    }
}

#[test]
fn what_is_allowed() {
    let says = [
        Web(record(9, 0, b"\x01\x00a")),
        App(record(10, 0, b"\x01\x01a1")),
        Web(record(77, 0, b"")),
        App(record(11, 0, &[77, 0, 0, 0, 0, 0, 0, 0])),
        Web(request(1)),
        Web(request(2)),
        App(answer(2)),
        App([record(7, 1, b"log"), record(7, 1, b""), answer(1)].concat()),
        // It has not heard of the end yet.
        Web(record(2, 1, b"")),
        Web(request(1)),
        Web(record(2, 1, b"")),
        App(end(1, 0)),
        Web(request(3)),
        Close(Side::Web),
        App(answer(3)),
        Close(Side::App),
    ];
    for piece in [1, 5, 10_000] {
        let heard = hear(&says, piece);
        assert_eq!(heard.faults, []);
        let ids: Vec<_> = heard.ended.iter().map(|ended| ended.id).collect();
        assert_eq!(ids, [2, 1, 1, 3]);
        assert_eq!(heard.tracker.peak, 2);
        let first = &heard.ended[1].exchange;
        assert_eq!(first.said, b"log");
        assert_eq!(first.status(), Some(200));
        assert_eq!(first.told.uri(), b"/a?b");
        assert_eq!(
            (first.stdout.bytes, first.told.method.as_slice()),
            (10, &b"GET"[..])
        );
        assert!(heard.ended[2].exchange.aborted.is_some());
    }
}

#[test]
fn what_is_unknown_of_a_connection_that_ends() {
    let heard = hear(&[Web(request(1)), Close(Side::Web), Close(Side::App)], 100);
    assert_eq!((heard.faults.len(), heard.ended[0].how), (0, How::WebLeft));
    let mut heard = hear(&[Web(request(1))], 100);
    let mut events = Vec::new();
    heard.tracker.stop(Duration::ZERO, &mut events);
    assert!(matches!(&events[..], [Event::Ended(ended)] if ended.how == How::Unseen));
    // After garbage it says so once.
    let says = [
        Web(request(1)),
        App(b"GET / HTTP/1.1".to_vec()),
        App(answer(1)),
        Web(request(2)),
        Close(Side::App),
    ];
    let heard = hear(&says, 100);
    assert_eq!(
        (heard.faults.len(), heard.blind, heard.ended.len()),
        (1, 1, 1)
    );
}
