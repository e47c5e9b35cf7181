//! When the application's side may close a connection: what its web server still sends, and since when
//! nobody has worked for it.

use std::time::Duration;

use afcgi_proto::app::{Config, Event};
use afcgi_testkit::record::{self, code};

use crate::support::App;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_web_server_that_still_sends_is_known() {
    // Without FCGI_KEEP_CONN, so that the connection is to be closed behind the answer.
    let mut app = App::new();
    app.feed(record::begin(1, 1, 0));
    app.feed(record::params(1, &[]));
    app.feed(record::record(code::STDIN, 1, b"a part"));
    let handle = app.requests()[0];
    assert!(!app.conn.is_still_sent());
    app.conn.finish(handle, 0).unwrap();
    app.output();
    assert!(app.conn.is_finished() && app.conn.is_still_sent());
    app.feed(record::record(code::STDIN, 1, b"and the rest"));
    assert!(app.conn.is_still_sent());
    app.feed(record::record(code::STDIN, 1, b""));
    assert!(!app.conn.is_still_sent());
}

#[test]
fn whatever_ends_a_request_its_streams_may_still_come() {
    let stdin_ends = record::record(code::STDIN, 1, b"");
    let params_end = record::record(code::PARAMS, 1, b"");
    let data_ends = record::record(code::DATA, 1, b"");
    for (role, params, streams, still_sent) in [
        (1, true, &[&stdin_ends][..], &[true, false][..]),
        // Refused or failed before it was announced.
        (1, false, &[&params_end, &stdin_ends], &[true, true, false]),
        (9, false, &[&params_end, &stdin_ends], &[true, true, false]),
        (2, false, &[&params_end], &[true, false]),
        // An authorizer has no STDIN, the last of a filter is DATA.
        (2, true, &[], &[false]),
        (3, true, &[&stdin_ends, &data_ends], &[true, true, false]),
        // What was aborted is not sent on, nor what is begun again.
        (
            1,
            true,
            &[&record::record(code::ABORT, 1, b"")],
            &[true, false],
        ),
    ] {
        let mut app = App::with(Config {
            params_bytes: 100,
            ..Config::default()
        });
        app.feed(record::begin(1, role, 1));
        if params {
            app.feed(&params_end);
            let handle = app.requests()[0];
            app.conn.finish(handle, 0).unwrap();
        } else if role != 9 {
            app.feed(record::record(code::PARAMS, 1, &[0; 101]));
            assert_eq!(app.conn.active(), 0);
        }
        let mut seen = vec![app.conn.is_still_sent()];
        for stream in streams {
            app.feed(stream);
            seen.push(app.conn.is_still_sent());
        }
        assert_eq!(seen, still_sent, "{role} {params}");
    }
    let mut app = App::new();
    app.feed(record::begin(1, 9, 1));
    assert!(app.conn.is_still_sent());
    app.feed(record::request(1, &[], b""));
    assert!(!app.conn.is_still_sent());
    app.feed(record::begin(2, 9, 1));
    app.conn.end_of_input(app.now).unwrap();
    assert!(!app.conn.is_still_sent());
}

#[test]
fn a_connection_is_idle_without_a_complete_request() {
    let mut app = App::new();
    let accepted = app.now;
    assert_eq!(app.conn.idle_since(), Some(accepted));
    // Parts of records are no reason to wait.
    app.pass(SECOND);
    app.feed(&record::begin(1, 1, 1)[..12]);
    app.pass(SECOND);
    assert_eq!(app.conn.idle_since(), Some(accepted));
    app.feed(&record::begin(1, 1, 1)[12..]);
    // Nor is PARAMS that does not become complete, whatever else begins.
    let begun = app.now;
    assert_eq!(app.conn.idle_since(), Some(begun));
    app.pass(SECOND);
    app.feed(record::begin(2, 1, 1));
    app.feed(record::record(code::PARAMS, 1, b"\x01"));
    app.feed(record::record(code::STDIN, 1, b"a body"));
    assert_eq!(app.conn.idle_since(), Some(begun));
    // One request that is complete is.
    app.feed(record::params(2, &[]));
    assert_eq!(app.conn.idle_since(), None);
    let [Event::Request { handle, .. }] = app.events()[..] else {
        panic!("a request");
    };
    app.conn.finish(handle, 0).unwrap();
    assert_eq!(app.conn.idle_since(), None, "its answer is not sent");
    app.output();
    assert_eq!(app.conn.idle_since(), Some(begun));
    app.feed(record::record(code::ABORT, 1, b""));
    app.output();
    app.pass(SECOND);
    assert_eq!(app.conn.idle_since(), Some(app.now));
    app.feed(record::begin(3, 1, 1));
    assert_eq!(app.conn.idle_since(), Some(app.now));
}
