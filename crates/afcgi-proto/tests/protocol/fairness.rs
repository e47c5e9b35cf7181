//! Turns, and that nobody waits for an event that never comes.

use afcgi_proto::inbox::{Broken, Read};
use afcgi_proto::{app, web};
use afcgi_testkit::record::{self, code};

use crate::support::{App, Web};

#[test]
fn a_request_that_used_its_turn_goes_on_when_all_was_transmitted() {
    let mut app = App::new();
    app.feed(record::request(1, &[], b""));
    let handle = app.requests()[0];
    let turn = app::Config::default().output_turn;
    assert_eq!(app.stdout(handle, &vec![0; turn]), turn);
    app.output();
    // Nothing is pending, so no transmission would come to wake it.
    assert_eq!(app.stdout(handle, b"more"), 4);
}

#[test]
fn whoever_waits_is_told_when_there_is_room() {
    let mut app = App::new();
    app.feed(record::request(1, &[], b""));
    let handle = app.requests()[0];
    let content = vec![0; 1 << 20];
    let mut sent = 0;
    for _ in 0..1000 {
        sent += app.stdout(handle, &content[sent..]);
        if sent == content.len() {
            return;
        }
        assert_eq!(app.events(), []);
        app.output();
        assert_eq!(app.events(), [app::Event::Writable(handle)]);
    }
    panic!("{sent} bytes were sent");
}

#[test]
fn small_responses_pass_a_large_one() {
    let mut app = App::new();
    app.feed(record::request(1, &[], b""));
    app.feed(record::request(2, &[], b""));
    let handles = app.requests();
    app.stdout(handles[0], &vec![0; 10 << 20]);
    assert_eq!(app.stdout(handles[1], b"small"), 5);
    app.conn.finish(handles[1], 0).unwrap();
    let config = app::Config::default();
    let records = record::parse(&app.output());
    let before: usize = (records.iter())
        .take_while(|record| record.id == 1)
        .map(|record| record.content.len())
        .sum();
    assert!(before <= config.output_turn, "{before}");
}

#[test]
fn the_end_of_a_stream_is_told_before_end_request() {
    let mut web = Web::new();
    let handle = web.request();
    assert_eq!(web.stdout(handle), Read::Pending);
    web.feed(record::record(code::STDOUT, 1, b""));
    assert_eq!(web.events(), [web::Event::Readable(handle)]);
    assert_eq!(web.stdout(handle), Read::End);
    let stderr = web.conn.read(handle, web::Input::Stderr, 1).unwrap();
    assert_eq!(stderr, Read::Pending);
    web.feed(record::record(code::STDERR, 1, b""));
    assert_eq!(web.events(), [web::Event::Readable(handle)]);
}

#[test]
fn end_request_is_told_after_the_end_of_the_streams() {
    let mut web = Web::new();
    let handle = web.request();
    web.feed(record::stream(code::STDOUT, 1, b"", 1));
    assert_eq!(web.stdout(handle), Read::End);
    assert_eq!(web.conn.ended(handle), Ok(None));
    web.feed(record::end(1, 0, 0));
    let events = [web::Event::Readable(handle), web::Event::Released];
    assert_eq!(web.events(), events);
    assert_eq!(web.stdout(handle), Read::End);
}

/// A writer that waits for its turn, with the buffer full.
fn waiting_writer() -> (Web, afcgi_proto::Handle) {
    let mut web = Web::new();
    let handle = web.begin();
    web.conn.end(handle, web::Output::Params).unwrap();
    let content = vec![0; 1 << 20];
    let sent = (web.conn)
        .write(handle, web::Output::Stdin, &content)
        .unwrap();
    assert!(sent < content.len());
    (web, handle)
}

#[test]
fn a_writer_is_told_that_the_connection_is_lost() {
    let (mut web, handle) = waiting_writer();
    web.conn.lost();
    assert_eq!(web.events(), [web::Event::Writable(handle)]);
    let sent = web.conn.write(handle, web::Output::Stdin, b"rest").unwrap();
    assert_eq!(sent, 4);
    assert_eq!(web.conn.ended(handle), Err(Broken::Truncated));
    assert_eq!(web.conn.transmit(), b"");
}

#[test]
fn a_writer_is_told_that_the_request_has_ended() {
    let (mut web, handle) = waiting_writer();
    web.feed(record::response(1, b"no"));
    let events = web.events();
    assert!(events.contains(&web::Event::Writable(handle)), "{events:?}");
    web.output();
    assert_eq!(web.events(), [], "told once");
}

#[test]
fn ended_requests_leave_no_wait_behind() {
    let mut app = App::new();
    for _ in 0..100 {
        app.feed(record::request(1, &[], b""));
        let handle = app.requests()[0];
        app.stdout(handle, &vec![0; 1 << 20]);
        app.feed(record::record(code::ABORT, 1, b""));
        assert_eq!(app.events(), [app::Event::Aborted(handle)]);
    }
    app.feed(record::request(1, &[], b""));
    let handle = app.requests()[0];
    let content = vec![0; 1 << 20];
    let sent = app.stdout(handle, &content);
    assert!(sent < content.len());
    while !app.conn.transmit().is_empty() {
        app.output();
    }
    assert_eq!(app.events(), [app::Event::Writable(handle)]);
}
