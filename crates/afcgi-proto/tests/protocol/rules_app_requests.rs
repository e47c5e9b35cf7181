//! The rules about management records and requests, at the application's side.

use afcgi_proto::app::{Config, Event, Input, Output, Refusal};
use afcgi_proto::inbox::{Broken, Read};
use afcgi_proto::{Gone, ProtocolStatus, RequestId, Values};
use afcgi_testkit::record::{self, code};

use crate::support::{App, content};

const EMPTY: [u8; 0] = [];

fn refused(id: u16, why: Refusal) -> Event {
    let id = RequestId::new(id).unwrap();
    Event::Refused { id, why }
}

#[test]
fn r40_r41_get_values_is_answered_between_and_during_requests() {
    let mut app = App::with(Config {
        values: Values {
            max_conns: Some(10),
            max_reqs: Some(200),
            mpxs_conns: Some(true),
            ..Values::default()
        },
        ..Config::default()
    });
    let query = record::record(code::GET_VALUES, 0, &Values::query());
    let answer = b"\x0e\x02FCGI_MAX_CONNS10\x0d\x03FCGI_MAX_REQS200\x0f\x01FCGI_MPXS_CONNS1\
        \x11\x05FCGI_FLOW_CONTROL65536";
    let expected = record::record(code::GET_VALUES_RESULT, 0, answer);
    app.feed(&query);
    assert_eq!(app.output(), expected);
    app.feed(record::begin(1, 1, 1));
    app.feed(&query);
    app.feed(record::params(1, &[]));
    app.feed(&query);
    assert_eq!(app.output(), expected.repeat(2));
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn r42_unknown_management_types_are_answered() {
    let mut app = App::new();
    // 11 is itself an answer: two sides that answer each other's answers would never end.
    for code in (12..=255).chain([1, 2, 5, 10]) {
        app.feed(record::record(code, 0, b"abc"));
        assert_eq!(
            app.output(),
            [1, 11, 0, 0, 0, 8, 0, 0, code, 0, 0, 0, 0, 0, 0, 0]
        );
    }
    app.feed(record::record(
        code::UNKNOWN_TYPE,
        0,
        &[5, 0, 0, 0, 0, 0, 0, 0],
    ));
    assert_eq!(app.output(), EMPTY);
    assert_eq!(app.events(), []);
}

#[test]
fn r50_flags_and_reserved_bytes_without_a_meaning_are_ignored() {
    let mut app = App::new();
    app.feed(record::record(
        code::BEGIN,
        1,
        &[0, 1, 0xff, 0, 0, 0, 0, 0xff],
    ));
    app.feed(record::params(1, &[]));
    let handle = app.requests()[0];
    // Without flow control on the connection a credit of 0 means nothing.
    assert_eq!(app.stdout(handle, b"content"), 7);
}

#[test]
fn r52_one_end_request_and_nothing_after_it() {
    let mut app = App::new();
    app.feed(record::request(1, &[], b""));
    let handle = app.requests()[0];
    app.conn.finish(handle, 3).unwrap();
    assert_eq!(app.conn.finish(handle, 4), Err(Gone));
    assert_eq!(
        app.conn.refuse(handle, ProtocolStatus::Overloaded),
        Err(Gone)
    );
    assert_eq!(app.conn.write(handle, Output::Stdout, b"late"), Err(Gone));
    assert_eq!(app.conn.read(handle, Input::Stdin, 9), Err(Gone));
    app.feed(record::record(code::ABORT, 1, b""));
    assert_eq!(
        record::outline(&app.output()),
        [(code::STDOUT, 1, 0), (code::END, 1, 8)]
    );
    assert_eq!(app.events(), []);
}

#[test]
fn r53_a_stream_that_was_ended_early_is_ended_once() {
    let mut app = App::new();
    app.feed(record::begin(1, 1, 1));
    app.feed(record::params(1, &[]));
    let handle = app.requests()[0];
    app.stdout(handle, b"all");
    for output in [Output::Stdout, Output::Stdout, Output::Stderr] {
        assert_eq!(app.conn.end_output(handle, output), Ok(()));
        assert_eq!(app.conn.write(handle, output, b"late"), Err(Gone));
    }
    // The other half is still open.
    app.feed(record::stream(code::STDIN, 1, b"in", 9));
    assert_eq!(app.stdin(handle), content("in"));
    app.conn.finish(handle, 0).unwrap();
    assert_eq!(app.conn.end_output(handle, Output::Stdout), Err(Gone));
    assert_eq!(
        record::outline(&app.output()),
        [
            (code::STDOUT, 1, 3),
            (code::STDOUT, 1, 0),
            (code::STDERR, 1, 0),
            (code::END, 1, 8),
        ]
    );
}

#[test]
fn r53_stdout_before_stdin_is_read_and_stderr_in_between() {
    let mut app = App::new();
    app.feed(record::begin(1, 1, 1));
    app.feed(record::params(1, &[]));
    let handle = app.requests()[0];
    app.stdout(handle, b"a");
    let stderr = app.conn.write(handle, Output::Stderr, b"log");
    assert_eq!(stderr, Ok(3));
    app.stdout(handle, b"");
    app.stdout(handle, b"b");
    app.feed(record::stream(code::STDIN, 1, b"in", 9));
    assert_eq!(app.stdin(handle), content("in"));
    app.conn.finish(handle, 0).unwrap();
    assert_eq!(
        record::outline(&app.output()),
        [
            (code::STDOUT, 1, 1),
            (code::STDERR, 1, 3),
            (code::STDOUT, 1, 1),
            (code::STDERR, 1, 0),
            (code::STDOUT, 1, 0),
            (code::END, 1, 8),
        ]
    );
}

#[test]
fn r54_an_authorizer_has_no_stdin() {
    let mut app = App::new();
    app.feed(record::begin(1, 2, 1));
    app.feed(record::params(1, &[]));
    let handle = app.requests()[0];
    assert_eq!(app.stdin(handle), Read::End);
    app.feed(record::stream(code::STDIN, 1, b"odd", 9));
    assert_eq!(app.stdin(handle), Read::End);
}

#[test]
fn r55_a_filter_has_data() {
    let mut app = App::new();
    app.feed(record::begin(1, 3, 1));
    app.feed(record::params(1, &[("FCGI_DATA_LENGTH", "4")]));
    app.feed(record::stream(code::STDIN, 1, b"in", 9));
    let handle = app.requests()[0];
    let data = app.conn.read(handle, Input::Data, 9).unwrap();
    assert_eq!(data, Read::Pending);
    app.feed(record::stream(code::DATA, 1, b"file", 9));
    assert_eq!(app.events(), [Event::Readable(handle)]);
    assert_eq!(app.stdin(handle), content("in"));
    let data = app.conn.read(handle, Input::Data, 9).unwrap();
    assert_eq!(data, content("file"));
    assert_eq!(app.conn.read(handle, Input::Data, 9), Ok(Read::End));
    // A responder has none.
    app.feed(record::request(2, &[], b""));
    app.feed(record::stream(code::DATA, 2, b"odd", 9));
    let responder = app.requests()[0];
    assert_eq!(app.conn.read(responder, Input::Data, 9), Ok(Read::End));
}

#[test]
fn r56_unknown_roles_are_refused() {
    let mut app = App::new();
    for role in [0, 4, 0x0101, 0xffff] {
        app.feed(record::begin(1, role, 1));
        app.feed(record::params(1, &[("A", "b")]));
        app.feed(record::stream(code::STDIN, 1, b"body", 9));
        assert_eq!(app.output(), record::end(1, 0, 3));
        assert_eq!(app.events(), [refused(1, Refusal::UnknownRole)]);
    }
    assert_eq!(app.conn.active(), 0);
}

#[test]
fn r57_abort_ends_the_request_and_no_other() {
    let mut app = App::new();
    app.feed(record::request(1, &[], b""));
    app.feed(record::begin(2, 1, 1));
    app.feed(record::params(2, &[]));
    let handles = app.requests();
    app.stdout(handles[1], b"begun");
    app.output();
    app.feed(record::record(code::ABORT, 2, b""));
    assert_eq!(app.output(), record::end(2, 0, 0));
    assert_eq!(app.events(), [Event::Aborted(handles[1])]);
    assert_eq!(app.conn.write(handles[1], Output::Stdout, b"x"), Err(Gone));
    app.feed(record::stream(code::STDIN, 2, b"late", 9));
    app.stdout(handles[0], b"other");
    app.conn.finish(handles[0], 0).unwrap();
    assert_eq!(record::content(&app.output(), code::STDOUT, 1), b"other");
    assert!(!app.conn.is_finished());
}

#[test]
fn r57_abort_before_params_are_complete() {
    let mut app = App::new();
    app.feed(record::begin(1, 1, 1));
    app.feed(record::record(code::PARAMS, 1, b"\x01"));
    app.feed(record::record(code::ABORT, 1, b""));
    assert_eq!(app.events(), [refused(1, Refusal::Aborted)]);
    assert_eq!(app.output(), record::end(1, 0, 0));
}

#[test]
fn r59_a_body_that_breaks_off_is_told() {
    let mut app = App::new();
    app.feed(record::begin(1, 1, 1));
    app.feed(record::params(1, &[("CONTENT_LENGTH", "100")]));
    app.feed(record::record(code::STDIN, 1, b"part"));
    let handle = app.requests()[0];
    assert_eq!(app.stdin(handle), content("part"));
    assert_eq!(app.stdin(handle), Read::Pending);
    app.conn.end_of_input(app.now).unwrap();
    assert_eq!(app.events(), [Event::Readable(handle)]);
    assert_eq!(app.stdin(handle), Read::Broken(Broken::Truncated));
    // The answer may still be read.
    app.conn.finish(handle, 0).unwrap();
    assert!(!app.output().is_empty());
}
