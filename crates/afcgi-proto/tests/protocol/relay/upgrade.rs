//! Tunnels: requests that the application accepts as upgraded (`docs/upgrade.md`).

use std::time::Duration;

use afcgi_proto::inbox::Broken;
use afcgi_proto::relay::{Recv, Relay};
use afcgi_proto::web;
use afcgi_testkit::record::{self, code};

use super::stock::padded;
use crate::support::Web;

const HEAD: &[u8] = b"Status: 101\r\nUpgrade: x\r\n\r\n";
const OFFER: &[u8] = b"\x0c\x01FCGI_UPGRADE1";

/// A connection whose application has answered GET_VALUES so.
fn answered(values: &[(&str, &str)]) -> Web {
    let mut web = Web::new();
    web.conn.probe();
    web.output();
    web.feed(record::record(
        code::GET_VALUES_RESULT,
        0,
        &record::pairs(values),
    ));
    web.events();
    web
}

fn offering() -> Web {
    answered(&[("FCGI_MPXS_CONNS", "1"), ("FCGI_UPGRADE", "1")])
}

/// A request whose client asks for an upgrade, as nginx writes it; and what came of it.
fn ask(web: &mut Web) -> (Relay, Vec<u8>) {
    let mut relay = Relay::new(web.conn.open().unwrap()).with_upgrade();
    let request = [
        record::begin(1, 1, 1),
        padded(code::PARAMS, &record::pairs(&[("A", "b")])),
        record::record(code::PARAMS, 1, b""),
        record::record(code::STDIN, 1, b""),
    ]
    .concat();
    assert_eq!(relay.send(&mut web.conn, &request), Ok(request.len()));
    let output = web.output();
    (relay, output)
}

/// Everything that a read of up to `most` bytes gives.
fn recv(web: &mut Web, relay: &mut Relay, most: usize) -> Vec<u8> {
    let mut out = vec![0; most];
    match relay.recv(&mut web.conn, &mut &mut out[..]) {
        Recv::Bytes(count) => out.truncate(count),
        other => panic!("{other:?}"),
    }
    out
}

/// A tunnel that was accepted.
fn open() -> (Web, Relay) {
    let mut web = offering();
    let (mut relay, _) = ask(&mut web);
    web.feed(record::record(code::STDOUT, 1, HEAD));
    assert_eq!(recv(&mut web, &mut relay, 4096)[8..], *HEAD);
    assert!(relay.accept() && relay.is_open());
    (web, relay)
}

#[test]
fn an_application_that_offers_it_is_told_and_stdin_stays_open() {
    let mut web = offering();
    let (_, output) = ask(&mut web);
    let records = record::parse(&output);
    let params: Vec<_> = (records.iter())
        .filter(|record| record.code == code::PARAMS)
        .flat_map(|record| record.content.clone())
        .collect();
    assert_eq!(params, [OFFER, &record::pairs(&[("A", "b")])].concat());
    let last = records.last().unwrap();
    assert_eq!((last.code, last.content.len()), (code::PARAMS, 0));
}

#[test]
fn others_are_told_nothing_and_stdin_ends() {
    for values in [&[("FCGI_MPXS_CONNS", "1")][..], &[("FCGI_UPGRADE", "0")]] {
        let mut web = answered(values);
        let (mut relay, output) = ask(&mut web);
        assert!(!output.windows(12).any(|part| part == b"FCGI_UPGRADE"));
        assert_eq!(record::parse(&output).last().unwrap().code, code::STDIN);
        assert!(!relay.accept());
        relay.decline(&mut web.conn);
        assert_eq!(web.output(), b"");
    }
}

#[test]
fn declined_stdin_ends_then() {
    let mut web = offering();
    let (mut relay, _) = ask(&mut web);
    web.feed(record::record(code::STDOUT, 1, b"Status: 426\r\n\r\nno"));
    recv(&mut web, &mut relay, 4096);
    relay.decline(&mut web.conn);
    assert_eq!(record::outline(&web.output()), [(code::STDIN, 1, 0)]);
    relay.decline(&mut web.conn);
    assert_eq!(web.output(), b"");
    // From here on it is a request like any other, and its client is told of more.
    assert!(!relay.is_ready(&mut web.conn));
    web.events();
    web.feed(record::record(code::STDOUT, 1, b"a"));
    assert_eq!(web.events(), [web::Event::Readable(relay.handle())]);
    web.feed(record::record(code::STDOUT, 1, b"more"));
    web.feed(record::response(1, b"!"));
    let rest = recv(&mut web, &mut relay, 4096);
    let outline = record::outline(&rest);
    assert_eq!(outline.last(), Some(&(code::END, 1, 8)));
    assert!(!relay.is_open());
}

#[test]
fn until_the_head_is_read_no_read_crosses_the_end_of_a_record() {
    for most in [1, 5, 8, 9, 20, 4096] {
        let mut web = offering();
        let (mut relay, _) = ask(&mut web);
        web.feed(record::record(code::STDERR, 1, b"note"));
        // The head in two records, and the first bytes of the tunnel behind it in the second.
        let first = record::padded(code::STDOUT, 1, &HEAD[..7], &[9; 5]);
        web.feed(&first);
        web.feed(record::padded(
            code::STDOUT,
            1,
            &[&HEAD[7..], b"first"].concat(),
            &[9; 3],
        ));
        web.feed(record::record(code::STDOUT, 1, b" second"));
        let lengths = [8 + 4, 8 + 7 + HEAD.len() - 7 + 12];
        let mut seen = Vec::new();
        // Content that has come in several records may be one record for the client.
        while !seen.ends_with(b"Upgrade: x\r\n\r\nfirst second") {
            assert!(relay.is_ready(&mut web.conn));
            let part = recv(&mut web, &mut relay, most);
            let before = seen.len();
            seen.extend(part);
            assert!(before >= lengths[0] || seen.len() <= lengths[0], "{most}");
            assert!(seen.len() <= lengths[0] + lengths[1]);
        }
        assert!(relay.accept());
        web.feed(record::record(code::STDOUT, 1, b" third"));
        assert_eq!(recv(&mut web, &mut relay, 4096), b" third");
        assert!(!relay.is_ready(&mut web.conn));
        web.events();
        web.feed(record::record(code::STDOUT, 1, b" fourth"));
        assert_eq!(web.events(), [web::Event::Readable(relay.handle())]);
    }
}

#[test]
fn what_was_announced_and_not_read_follows_as_it_is() {
    let mut web = offering();
    let (mut relay, _) = ask(&mut web);
    let payload: Vec<u8> = (0..=255).cycle().take(50_000).collect();
    web.feed(record::record(code::STDOUT, 1, &[HEAD, &payload].concat()));
    let mut got = recv(&mut web, &mut relay, 8 + HEAD.len() + 100)[8 + HEAD.len()..].to_vec();
    assert!(relay.accept());
    while got.len() < payload.len() {
        assert!(relay.is_ready(&mut web.conn));
        got.extend(recv(&mut web, &mut relay, 4096));
    }
    assert_eq!(got, payload);
}

#[test]
fn plain_bytes_both_ways() {
    let (mut web, mut relay) = open();
    assert_eq!(relay.send(&mut web.conn, b"up"), Ok(2));
    assert_eq!(
        record::parse(&web.output())[0].content,
        b"up",
        "as STDIN, whatever they look like"
    );
    let begin = record::begin(1, 1, 1);
    assert_eq!(relay.send(&mut web.conn, &begin), Ok(begin.len()));
    let output = web.output();
    assert_eq!(record::outline(&output), [(code::STDIN, 1, begin.len())]);
    web.feed(record::record(code::STDOUT, 1, b"down"));
    web.feed(record::record(code::STDERR, 1, b"for the log"));
    let mut text = [0; 100];
    assert_eq!(relay.read_stderr(&mut web.conn, &mut text), 11);
    assert_eq!(recv(&mut web, &mut relay, 100), b"down");
    assert_eq!(relay.recv(&mut web.conn, &mut &mut text[..]), Recv::Pending);
}

#[test]
fn the_end_of_stdout_is_the_end() {
    for whole in [false, true] {
        let (mut web, mut relay) = open();
        web.feed(record::record(code::STDOUT, 1, b"last"));
        web.feed(record::record(code::STDOUT, 1, b""));
        if whole {
            web.feed(record::end(1, 0, 0));
        }
        assert_eq!(recv(&mut web, &mut relay, 100), b"last");
        assert!(relay.is_ready(&mut web.conn));
        assert_eq!(relay.recv(&mut web.conn, &mut &mut [0; 9][..]), Recv::End);
    }
    let (mut web, mut relay) = open();
    web.conn.lost();
    let broken = relay.recv(&mut web.conn, &mut &mut [0; 9][..]);
    assert_eq!(broken, Recv::Broken(Broken::Truncated));
}

#[test]
fn a_client_that_leaves_ends_stdin_and_aborts_later() {
    let (mut web, mut relay) = open();
    relay.send(&mut web.conn, b"bye").unwrap();
    relay.close(&mut web.conn, web.now);
    assert_eq!(
        record::outline(&web.output()),
        [(code::STDIN, 1, 3), (code::STDIN, 1, 0)]
    );
    web.pass(Duration::from_secs(1));
    assert_eq!(record::outline(&web.output()), [(code::ABORT, 1, 0)]);

    let (mut web, relay) = open();
    relay.close(&mut web.conn, web.now);
    web.output();
    web.feed(record::response(1, b"bye"));
    web.pass(Duration::from_secs(2));
    assert_eq!(web.output(), b"");
    assert_eq!(web.conn.active(), 0);
}
