//! Requests that their consumer is done with and that may end by themselves
//! ([`web::Connection::close_gently`]).

use std::time::Duration;

use afcgi_proto::web;
use afcgi_testkit::record::{self, code};

use crate::support::Web;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn one_that_ends_soon_is_not_aborted_and_its_id_serves_again() {
    let mut web = Web::new();
    let handle = web.request();
    web.output();
    web.conn.close_gently(handle, web.now);
    assert_eq!((web.conn.active(), web.conn.draining()), (1, 1));
    web.feed(record::response(1, b"the rest"));
    assert_eq!((web.conn.active(), web.conn.draining()), (0, 0));
    assert_eq!(web.events(), [web::Event::Released]);
    web.pass(2 * SECOND);
    assert_eq!(web.output(), b"");
    assert_eq!(web.conn.aborts(), 0);
    assert_eq!(web.begin().id().get(), 1);
}

#[test]
fn one_that_goes_on_for_too_long_is_aborted() {
    let mut web = Web::new();
    let handle = web.request();
    web.output();
    web.conn.close_gently(handle, web.now);
    assert_eq!(web.conn.deadline(web.now), Some(web.now + SECOND));
    web.pass(SECOND);
    assert_eq!(record::outline(&web.output()), [(code::ABORT, 1, 0)]);
    web.pass(SECOND);
    assert_eq!(web.output(), b"", "once");
    assert_eq!(web.conn.aborts(), 1);
    web.feed(record::response(1, b"late"));
    assert_eq!(web.conn.active(), 0);
    // as that of any other that was aborted, the id is not used again.
    assert_eq!(web.begin().id().get(), 2);
}

#[test]
fn one_that_sends_too_much_is_aborted() {
    let mut web = Web::with(web::Config {
        linger_bytes: 1000,
        ..web::Config::default()
    });
    let handle = web.request();
    web.output();
    web.conn.close_gently(handle, web.now);
    web.feed(record::record(code::STDOUT, 1, &[7; 999]));
    assert_eq!(web.output(), b"");
    web.feed(record::record(code::STDERR, 1, &[7; 5000]));
    assert_eq!(record::outline(&web.output()), [(code::ABORT, 1, 0)]);
    web.feed(record::record(code::STDOUT, 1, &[7; 5000]));
    assert_eq!(web.output(), b"");
}

#[test]
fn its_stdin_is_ended_and_what_was_not_begun_is_aborted() {
    let mut web = Web::new();
    let open = web.begin();
    web.conn.end(open, web::Output::Params).unwrap();
    let incomplete = web.begin();
    web.output();
    web.conn.close_gently(open, web.now);
    assert_eq!(record::outline(&web.output()), [(code::STDIN, 1, 0)]);
    web.conn.close_gently(incomplete, web.now);
    assert_eq!(record::outline(&web.output()), [(code::ABORT, 2, 0)]);
}

#[test]
fn on_a_connection_for_one_request_the_connection_is_kept_if_it_ends() {
    let mut web = Web::with(web::Config {
        requests: 1,
        ..web::Config::default()
    });
    let handle = web.request();
    web.output();
    web.conn.close_gently(handle, web.now);
    assert!(!web.conn.has_room() && !web.conn.is_finished());
    web.feed(record::response(1, b"the rest"));
    assert!(web.conn.has_room());
    let handle = web.request();
    web.output();
    web.conn.close_gently(handle, web.now);
    web.pass(SECOND);
    assert_eq!(web.output(), b"");
    assert!(web.conn.is_finished(), "closing it is the abort");
    assert_eq!(web.conn.aborts(), 1);
}
