//! Peers that mean harm, and the mistakes of other implementations.

use std::time::Instant;

use afcgi_proto::app::{self, Event, Input};
use afcgi_proto::inbox::Read;
use afcgi_proto::web;
use afcgi_testkit::record::{self, code};

use crate::support::{App, Web, content};

#[test]
fn content_that_looks_like_records_stays_content() {
    // Lengths are added up without wrapping: 65,535 + 255 bytes belong to one record.
    let inner = [record::record(code::ABORT, 1, b""), record::begin(2, 1, 1)].concat();
    let body: Vec<u8> = inner.iter().copied().cycle().take(65_535).collect();
    let padding = &inner.repeat(20)[..255];
    let mut app = App::with(app::Config {
        stdin_buffer: 100_000,
        ..app::Config::default()
    });
    app.feed(record::begin(1, 1, 1));
    app.feed(record::params(1, &[]));
    app.feed(record::padded(code::STDIN, 1, &body, padding));
    app.feed(record::padded(code::STDIN, 1, b"", padding));
    let handle = app.requests()[0];
    assert_eq!(app.stdin(handle), content(&body));
    assert_eq!(app.stdin(handle), Read::End);
    assert_eq!(app.conn.active(), 1);

    let inner = [record::end(1, 0, 0), record::end(2, 0, 0)].concat();
    let body: Vec<u8> = inner.iter().copied().cycle().take(65_535).collect();
    let padding = &inner.repeat(20)[..255];
    let mut web = Web::new();
    let handle = web.request();
    web.feed(record::padded(code::STDOUT, 1, &body, padding));
    assert_eq!(web.stdout(handle), content(&body));
    assert_eq!(web.conn.ended(handle), Ok(None));
}

#[test]
fn a_hundred_thousand_requests_that_are_never_completed() {
    let mut app = App::new();
    let config = app::Config::default();
    let mut refused = 0;
    let mut most = 0;
    for round in 0..2 {
        for id in 1..=50_000 {
            if round == 1 && id <= 16_384 {
                continue;
            }
            // Nobody reads the answers of a while.
            let begin = record::begin(id, 1, 1);
            while app.conn.receive(app.now, &begin) == Ok(0) {
                most = most.max(app.conn.transmit().len());
                assert!(app.conn.is_blocked());
                app.output();
            }
            refused += app.events().len();
        }
    }
    assert_eq!(app.conn.active(), config.requests);
    assert_eq!(refused, 2 * (50_000 - 16_384));
    assert!(most <= 2 * (config.output_buffer + config.output_turn) + 16);
    // Time ends them all.
    app.pass(config.params_timeout + config.params_timeout / 4);
    assert_eq!(
        (app.conn.active(), app.events().len()),
        (0, config.requests)
    );
}

#[test]
fn a_byte_in_each_record_costs_no_more_than_its_time() {
    let mut app = App::new();
    app.feed(record::begin(1, 1, 1));
    app.feed(record::params(1, &[]));
    let handle = app.requests()[0];
    let begin = Instant::now();
    let records = record::record(code::STDIN, 1, b"x").repeat(1000);
    let mut total = 0;
    for _ in 0..200 {
        app.feed(&records);
        while let Read::Content(content) = app.stdin(handle) {
            total += content.len();
        }
        app.events();
    }
    assert_eq!(total, 200_000);
    // Far more than it takes; what is quadratic takes minutes.
    assert!(begin.elapsed().as_secs() < 10);
}

#[test]
fn announced_lengths_are_not_believed() {
    // 2 GiB of name, 2 GiB of value, in each of many requests.
    let mut app = App::new();
    for id in 1..=10_000 {
        app.feed(record::begin(id, 1, 1));
        app.feed(record::record(code::PARAMS, id, &[0xff; 16]));
    }
    assert_eq!(app.conn.active(), 10_000);
    for id in 1..=10_000 {
        app.feed(record::record(code::PARAMS, id, b""));
        app.output();
    }
    assert_eq!((app.conn.active(), app.events().len()), (0, 10_000));
    // A record that announces the most and never comes.
    let mut app = App::new();
    app.feed(record::begin(1, 1, 1));
    app.feed([1, code::PARAMS, 0, 1, 0xff, 0xff, 0xff, 0]);
    app.feed(b"x");
    app.conn.lost();
}

#[test]
fn a_handler_starts_before_the_body_has_come() {
    let mut app = App::new();
    app.feed(record::begin(1, 1, 1));
    app.feed(record::params(1, &[("CONTENT_LENGTH", "1000000000")]));
    let handle = app.requests()[0];
    assert_eq!(app.stdin(handle), Read::Pending);
    app.feed(&record::record(code::STDIN, 1, &[1; 60_000])[..20]);
    assert_eq!(app.events(), [Event::Readable(handle)]);
    assert_eq!(app.stdin(handle), content([1; 12]));
}

#[test]
fn each_request_reads_its_own_bytes() {
    let mut app = App::new();
    for id in [1, 2] {
        app.feed(record::begin(id, 3, 1));
        app.feed(record::params(id, &[]));
    }
    let handles = app.requests();
    for _ in 0..3 {
        app.feed(record::record(code::STDIN, 1, b"1"));
        app.feed(record::record(code::STDIN, 2, b"2"));
        app.feed(record::record(code::DATA, 2, b"two"));
        app.feed(record::record(code::DATA, 1, b"one"));
    }
    assert_eq!(app.stdin(handles[0]), content("111"));
    assert_eq!(app.stdin(handles[1]), content("222"));
    for (handle, expected) in handles.into_iter().zip(["oneoneone", "twotwotwo"]) {
        let data = app.conn.read(handle, Input::Data, 99).unwrap();
        assert_eq!(data, content(expected));
    }
}

#[test]
fn an_application_that_ends_what_was_never_asked_for() {
    let mut web = Web::new();
    let handle = web.request();
    let reserved = web.conn.open().unwrap();
    for id in 2..=u16::MAX {
        web.feed(record::end(id, 0, 0));
    }
    assert_eq!(web.events(), []);
    assert_eq!(web.conn.active(), 2);
    assert_eq!(web.conn.ended(handle), Ok(None));
    assert_eq!(web.conn.ended(reserved), Ok(None));
}

#[test]
fn an_application_that_answers_get_values_with_anything() {
    for answer in [
        &b""[..],
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x0f\x80FCGI_MPXS_CONNS",
        b"\x0f\x14FCGI_MPXS_CONNS99999999999999999999",
        &[0; 65_535],
    ] {
        let mut web = Web::new();
        web.conn.probe();
        web.feed(record::record(code::GET_VALUES_RESULT, 0, answer));
        let values = afcgi_proto::Values::default();
        assert_eq!(web.events(), [web::Event::Values(values)]);
    }
}
