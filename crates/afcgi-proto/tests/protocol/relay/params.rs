//! PARAMS through the relay: a record leaves as it came, whatever turns and pieces are.

use afcgi_proto::relay::Relay;
use afcgi_proto::{app, web};
use afcgi_testkit::Pair;
use afcgi_testkit::record::{self, code};

use super::stock::{Stock, drive, padded};
use crate::params::records;
use crate::support::Web;

/// A request of nginx with such fields, and the one record of its PARAMS.
fn request(key: &str, fields: &[usize]) -> (Vec<u8>, Vec<u8>) {
    let values = Vec::from_iter(fields.iter().map(|&length| "x".repeat(length)));
    let mut pairs = vec![("KEY", key)];
    pairs.extend(values.iter().map(|value| ("HTTP_X", value.as_str())));
    let params = record::pairs(&pairs);
    let mut bytes = record::begin(1, 1, 1);
    bytes.extend(padded(code::PARAMS, &params));
    bytes.extend(record::record(code::PARAMS, 1, b""));
    bytes.extend(record::record(code::STDIN, 1, b""));
    (bytes, params)
}

const FIELDS: &[&[usize]] = &[
    &[],
    &[7900, 7900, 7900, 7900],
    &[100; 300],
    &[60_000],
    &[65_508],
];

#[test]
fn a_record_leaves_as_it_came() {
    for fields in FIELDS {
        let (bytes, params) = request("k", fields);
        for size in [1, 7, 1000, 40_000, 1 << 20] {
            let mut web = Web::new();
            let mut relay = Relay::new(web.conn.open().unwrap());
            for piece in bytes.chunks(size) {
                assert_eq!(relay.send(&mut web.conn, piece), Ok(piece.len()));
            }
            let output = web.output();
            let found = records(&output, 1);
            assert_eq!(found.concat(), params, "{fields:?}, {size}");
            assert_eq!(found.len(), 1, "{fields:?}, {size}");
        }
    }
}

#[test]
fn records_of_many_at_once_leave_whole_and_within_bounds() {
    let config = web::Config {
        output_buffer: 3000,
        output_turn: 500,
        ..web::Config::default()
    };
    let app_config = app::Config {
        params_bytes: 1 << 20,
        ..app::Config::default()
    };
    for piece in [700, 1 << 20] {
        let mut pair = Pair::new(config.clone(), app_config.clone());
        pair.to_app.capacity = 1234;
        let mut stocks = Vec::new();
        let mut sent = Vec::new();
        for n in 0..40 {
            let (bytes, params) = request(&n.to_string(), FIELDS[n % FIELDS.len()]);
            stocks.push(Stock::new(&mut pair, bytes));
            sent.push(params);
        }
        drive(&mut pair, &mut stocks, piece, 1000);
        for (n, stock) in stocks.iter().enumerate() {
            assert_eq!(stock.response().1, n.to_string().into_bytes());
            let id = stock.relay.handle().id().get();
            assert_eq!(records(&pair.to_app.log, id), [sent[n].clone()]);
        }
    }
}

#[test]
fn a_record_waits_with_its_client_and_not_in_the_relay() {
    let mut web = Web::new();
    let (bytes, params) = request("k", &[60_000]);
    let mut first = Relay::new(web.conn.open().unwrap());
    let mut second = Relay::new(web.conn.open().unwrap());
    let mut third = Relay::new(web.conn.open().unwrap());
    // Whatever the sizes of turn and buffer, what is pending is bounded by both and one record.
    for relay in [&mut first, &mut second] {
        assert_eq!(relay.send(&mut web.conn, &bytes), Ok(bytes.len()));
    }
    let config = web::Config::default();
    let (filler, _) = request("f", &[60_000]);
    assert_eq!(third.send(&mut web.conn, &filler), Ok(filler.len()));
    let mut fourth = Relay::new(web.conn.open().unwrap());
    let taken = fourth.send(&mut web.conn, &bytes).unwrap();
    // BEGIN_REQUEST and the header.
    assert_eq!(taken, 24);
    assert!(web.conn.transmit().len() <= config.output_buffer + 65_535 + 400);
    web.output();
    assert_eq!(web.events(), [web::Event::Writable(fourth.handle())]);
    let rest = &bytes[taken..];
    assert_eq!(fourth.send(&mut web.conn, rest), Ok(rest.len()));
    assert_eq!(records(&web.output(), 4), [params]);
}
