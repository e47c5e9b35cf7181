//! Where PARAMS are cut into records: between pairs, since PHP-FPM reads each record by itself.

use afcgi_proto::params::{decode_pair, encode_pair};
use afcgi_proto::web;
use afcgi_testkit::record::{self, code};
use fastrand::Rng;

use crate::support::Web;

/// The contents of the records of PARAMS with content, in order.
pub(crate) fn records(bytes: &[u8], id: u16) -> Vec<Vec<u8>> {
    (record::parse(bytes).into_iter())
        .filter(|record| record.code == code::PARAMS && record.id == id)
        .map(|record| record.content)
        .filter(|content| !content.is_empty())
        .collect()
}

#[track_caller]
pub(crate) fn is_whole_pairs(mut content: &[u8]) -> bool {
    loop {
        match decode_pair(&mut content) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

fn pair(length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A name of one byte, and lengths of one byte or of four.
    let value = length - if length < 131 { 3 } else { 6 };
    assert!(encode_pair(&mut bytes, b"N", &vec![b'v'; value]));
    assert_eq!(bytes.len(), length);
    bytes
}

/// Writes parameters to their end, and returns what was sent.
fn write(web: &mut Web, params: &[u8], pending: usize) -> (u16, Vec<u8>) {
    let handle = web.begin();
    let mut output = Vec::new();
    let mut sent = 0;
    loop {
        sent += (web.conn)
            .write(handle, web::Output::Params, &params[sent..])
            .unwrap();
        assert!(web.conn.transmit().len() <= pending);
        if sent == params.len() {
            break;
        }
        assert_eq!(web.events(), []);
        output.extend(web.output());
        assert_eq!(web.events(), [web::Event::Writable(handle)]);
    }
    web.conn.end(handle, web::Output::Params).unwrap();
    output.extend(web.output());
    (handle.id().get(), output)
}

#[test]
fn records_are_cut_between_pairs() {
    let mut rng = Rng::with_seed(7);
    for _ in 0..200 {
        let config = web::Config {
            output_buffer: rng.usize(1..50_000),
            output_turn: rng.usize(1..40_000),
            ..web::Config::default()
        };
        let most = config.output_buffer + config.output_turn.max(65_535) + 100;
        let mut web = Web::with(config);
        let most_length = [200, 8000, 65_536][rng.usize(0..3)];
        let pairs = (0..rng.usize(1..20)).map(|_| {
            let length = rng.usize(3..most_length);
            pair(if length == 131 || length == 132 || length == 133 {
                134
            } else {
                length
            })
        });
        let params = pairs.collect::<Vec<_>>().concat();
        let (id, output) = write(&mut web, &params, most);
        let records = records(&output, id);
        assert!(records.iter().all(|content| is_whole_pairs(content)));
        assert_eq!(records.concat(), params);
    }
}

#[test]
fn only_a_pair_that_is_longer_than_any_record_is_cut() {
    let mut web = Web::new();
    let params = [pair(100), pair(65_535), pair(10), pair(200_000), pair(20)].concat();
    let (id, output) = write(&mut web, &params, usize::MAX);
    let records = records(&output, id);
    assert_eq!(records.concat(), params);
    assert_eq!(records[0], pair(100));
    assert_eq!(records[1], pair(65_535));
    assert_eq!(records[2], pair(10));
    assert!(!is_whole_pairs(&records[3]));
    // What follows it is whole again.
    assert_eq!(records.last(), Some(&pair(20)));
}

#[test]
fn a_long_pair_waits_for_a_whole_turn_and_the_others_have_theirs() {
    let mut web = Web::with(web::Config {
        output_buffer: 2000,
        output_turn: 1000,
        ..web::Config::default()
    });
    let large = [pair(500), pair(60_000)].concat();
    let first = web.begin();
    let second = web.begin();
    let write = |web: &mut Web, handle, content: &[u8]| {
        (web.conn)
            .write(handle, web::Output::Params, content)
            .unwrap()
    };
    assert_eq!(write(&mut web, first, &large), 500);
    assert_eq!(write(&mut web, first, &large[500..]), 0);
    // It is its own turn that is too short: others have room.
    assert_eq!(write(&mut web, second, &pair(900)), 900);
    web.output();
    assert_eq!(web.events(), [web::Event::Writable(first)]);
    assert_eq!(write(&mut web, first, &large[500..]), 60_000);
    assert_eq!(write(&mut web, second, &pair(900)), 0);
    web.output();
    assert_eq!(web.events(), [web::Event::Writable(second)]);
}
