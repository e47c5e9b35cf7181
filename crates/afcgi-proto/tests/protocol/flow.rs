//! Flow control (`docs/flow-control.md`): what one request's consumer does not take holds that
//! request back, and nothing else.

use afcgi_proto::inbox::{Broken, Read};
use afcgi_proto::record::{FLOW_CONTROL, KEEP_CONN};
use afcgi_proto::{Handle, Role, Values, app, web};
use afcgi_testkit::pair::Pair;
use afcgi_testkit::record::{self, code};

use crate::support::{App, Web};

const WINDOW: usize = 1000;

/// A connection on which flow control was agreed on, with small windows.
fn agreed() -> Pair {
    agreed_with(WINDOW)
}

fn agreed_with(most: usize) -> Pair {
    let mut pair = Pair::new(
        web::Config {
            window: WINDOW,
            window_most: most,
            ..web::Config::default()
        },
        app::Config {
            stdin_buffer: WINDOW,
            window_most: most,
            ..app::Config::default()
        },
    );
    pair.web.probe();
    pair.settle().unwrap();
    let Some(web::Event::Values(values)) = pair.web.poll_event() else {
        panic!("no answer");
    };
    assert_eq!(values.flow_control, Some(WINDOW as u32));
    pair
}

/// Begins a request; gives the handles of both sides.
fn begin(pair: &mut Pair) -> (Handle, Handle) {
    let web = pair.web.open().unwrap();
    pair.web.begin(web, Role::Responder).unwrap();
    pair.web.end(web, web::Output::Params).unwrap();
    pair.settle().unwrap();
    while let Some(event) = pair.app.poll_event() {
        if let app::Event::Request { handle, .. } = event {
            return (web, handle);
        }
    }
    panic!("no request");
}

fn write(pair: &mut Pair, handle: Handle, count: usize) -> usize {
    let written = pair
        .app
        .write(handle, app::Output::Stdout, &vec![1; count])
        .unwrap();
    pair.settle().unwrap();
    written
}

fn read(pair: &mut Pair, handle: Handle, most: usize) -> usize {
    let read = pair.web.read(handle, web::Input::Stdout, most).unwrap();
    pair.settle().unwrap();
    match read {
        Read::Content(content) => content.len(),
        _ => 0,
    }
}

fn upload(pair: &mut Pair, handle: Handle, count: usize) -> usize {
    let written = pair
        .web
        .write(handle, web::Output::Stdin, &vec![1; count])
        .unwrap();
    pair.settle().unwrap();
    written
}

fn app_events(pair: &mut Pair) -> Vec<app::Event> {
    std::iter::from_fn(|| pair.app.poll_event()).collect()
}

fn web_events(pair: &mut Pair) -> Vec<web::Event> {
    std::iter::from_fn(|| pair.web.poll_event()).collect()
}

#[test]
fn a_response_that_is_not_read_waits_and_the_others_do_not() {
    let mut pair = agreed();
    let (slow_web, slow_app) = begin(&mut pair);
    assert_eq!(write(&mut pair, slow_app, 5000), WINDOW);
    assert_eq!(write(&mut pair, slow_app, 4000), 0);
    let (quick_web, quick_app) = begin(&mut pair);
    assert_eq!(write(&mut pair, quick_app, 500), 500);
    pair.app.finish(quick_app, 0).unwrap();
    pair.settle().unwrap();
    assert_eq!(read(&mut pair, quick_web, 9999), 500);
    assert!(!pair.web.is_blocked());

    // Less than half a window is not told of; half of it is.
    app_events(&mut pair);
    assert_eq!(read(&mut pair, slow_web, WINDOW / 2 - 1), WINDOW / 2 - 1);
    assert_eq!(app_events(&mut pair), []);
    assert_eq!(read(&mut pair, slow_web, 1), 1);
    assert_eq!(app_events(&mut pair), [app::Event::Writable(slow_app)]);
    assert_eq!(write(&mut pair, slow_app, 4000), WINDOW / 2);
}

#[test]
fn an_upload_that_is_not_read_waits_and_the_others_do_not() {
    let mut pair = agreed();
    let (stuck_web, stuck_app) = begin(&mut pair);
    assert_eq!(upload(&mut pair, stuck_web, 5000), WINDOW);
    assert_eq!(upload(&mut pair, stuck_web, 4000), 0);
    assert!(!pair.app.is_blocked());
    let (other_web, other_app) = begin(&mut pair);
    assert_eq!(upload(&mut pair, other_web, 300), 300);
    let Ok(Read::Content(content)) = pair.app.read(other_app, app::Input::Stdin, 9999) else {
        panic!("nothing came");
    };
    assert_eq!(content.len(), 300);
    web_events(&mut pair);
    pair.app
        .read(stuck_app, app::Input::Stdin, WINDOW / 2)
        .unwrap();
    pair.settle().unwrap();
    assert_eq!(web_events(&mut pair), [web::Event::Writable(stuck_web)]);
    assert_eq!(upload(&mut pair, stuck_web, 4000), WINDOW / 2);
}

#[test]
fn a_window_grows_while_its_consumer_keeps_up() {
    let mut pair = agreed_with(4 * WINDOW);
    let (web, app) = begin(&mut pair);
    let mut largest = 0;
    for _ in 0..20 {
        largest = largest.max(write(&mut pair, app, 100_000));
        read(&mut pair, web, usize::MAX);
    }
    assert_eq!(largest, 4 * WINDOW);
    let (_, slow) = begin(&mut pair);
    assert_eq!(write(&mut pair, slow, 100_000), WINDOW);
}

#[test]
fn params_and_ends_need_no_credit() {
    let mut pair = agreed();
    let (web, app) = begin(&mut pair);
    assert_eq!(upload(&mut pair, web, 5000), WINDOW);
    pair.web.end(web, web::Output::Stdin).unwrap();
    assert_eq!(write(&mut pair, app, 5000), WINDOW);
    pair.app.finish(app, 7).unwrap();
    pair.settle().unwrap();
    assert_eq!(pair.web.ended(web).unwrap().unwrap().app_status, 7);
    let large = pair.web.open().unwrap();
    pair.web.begin(large, Role::Responder).unwrap();
    let content = [0; 5 * WINDOW];
    let written = pair.web.write(large, web::Output::Params, &content);
    assert_eq!(written, Ok(5 * WINDOW));
}

#[test]
fn an_end_frees_a_sender_that_waits_for_credit() {
    let mut pair = agreed();
    let (web, app) = begin(&mut pair);
    assert_eq!(upload(&mut pair, web, 5000), WINDOW);
    web_events(&mut pair);
    pair.app.finish(app, 0).unwrap();
    pair.settle().unwrap();
    assert!(web_events(&mut pair).contains(&web::Event::Writable(web)));
    // The application wants no more of it.
    assert_eq!(upload(&mut pair, web, 4000), 4000);

    let (web, app) = begin(&mut pair);
    assert_eq!(write(&mut pair, app, 5000), WINDOW);
    pair.web.close(web, pair.now);
    pair.settle().unwrap();
    assert!(app_events(&mut pair).contains(&app::Event::Aborted(app)));
    assert_eq!(pair.web.active(), 0);
}

fn query() -> Vec<u8> {
    record::record(code::GET_VALUES, 0, &Values::query())
}

/// BEGIN_REQUEST with a credit of nothing.
fn begin_flagged(id: u16, flags: u8) -> Vec<u8> {
    let body = [0, 1, flags, 0, 0, 0, 0, 0];
    [
        record::record(code::BEGIN, id, &body),
        record::params(id, &[]),
    ]
    .concat()
}

#[test]
fn where_it_was_not_agreed_on_the_flag_means_nothing() {
    let mut app = App::new();
    app.feed(begin_flagged(1, 0xff));
    let handle = app.requests()[0];
    assert_eq!(app.stdout(handle, b"hello"), 5);
    app.feed(record::record(64, 1, b"not eight bytes"));
    assert_eq!(app.events(), []);

    // The offer was not asked for by its name.
    let mut app = App::new();
    app.feed(record::record(
        code::GET_VALUES,
        0,
        b"\x0f\x00FCGI_MPXS_CONNS",
    ));
    app.feed(begin_flagged(1, FLOW_CONTROL | KEEP_CONN));
    let handle = app.requests()[0];
    assert_eq!(app.stdout(handle, b"hello"), 5);

    let mut web = Web::new();
    web.conn.probe();
    web.feed(record::record(
        code::GET_VALUES_RESULT,
        0,
        b"\x0f\x01FCGI_MPXS_CONNS1",
    ));
    web.output();
    let handle = web.conn.open().unwrap();
    web.conn.begin(handle, Role::Responder).unwrap();
    assert_eq!(web.output()[8..], [0, 1, KEEP_CONN, 0, 0, 0, 0, 0]);
}

#[test]
fn begin_request_carries_the_credit_golden_bytes() {
    let mut pair = agreed();
    let (web, _) = begin(&mut pair);
    let expected = [
        1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 3, 0, 0, 0x03, 0xe8, 0, 1, 4, 0, 1, 0, 0, 0, 0,
    ];
    assert_eq!(web.id().get(), 1);
    assert!(pair.to_app.log.ends_with(&expected));
}

#[test]
fn an_application_that_exceeds_its_credit_loses_that_request() {
    let mut pair = agreed();
    let (bad, _) = begin(&mut pair);
    let (good, good_app) = begin(&mut pair);
    let content = record::record(code::STDOUT, bad.id().get(), &[1; WINDOW + 1]);
    assert_eq!(pair.web.receive(pair.now, &content), Ok(content.len()));
    assert_eq!(pair.web.ended(bad), Err(Broken::Violated));
    assert_eq!(pair.web.draining(), 1);
    assert_eq!(write(&mut pair, good_app, 10), 10);
    assert_eq!(read(&mut pair, good, 10), 10);
    assert_eq!(pair.web.draining(), 0, "the application ended it");

    let (bad, _) = begin(&mut pair);
    for _ in 0..2 {
        let credit = record::record(64, bad.id().get(), &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(pair.web.receive(pair.now, &credit), Ok(credit.len()));
    }
    assert_eq!(pair.web.ended(bad), Err(Broken::Violated));
}

#[test]
fn a_web_server_that_exceeds_its_credit_loses_that_request() {
    let credit = |id| record::record(64, id, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    let too_much = |id| record::record(code::STDIN, id, &[1; WINDOW + 1]);
    for violation in [too_much(1), [credit(1), credit(1)].concat()] {
        let mut app = App::with(app::Config {
            stdin_buffer: WINDOW,
            ..app::Config::default()
        });
        app.feed(query());
        app.feed(begin_flagged(1, FLOW_CONTROL | KEEP_CONN));
        app.feed(begin_flagged(2, FLOW_CONTROL | KEEP_CONN));
        let handles = app.requests();
        app.output();
        app.feed(&violation);
        assert_eq!(app.events(), [app::Event::Aborted(handles[0])]);
        let records = record::parse(&app.output());
        assert_eq!(records.last().unwrap().code, code::END);
        assert_eq!(records.last().unwrap().id, 1);
        // Whatever comes for it now is late.
        app.feed(&violation);
        assert_eq!(app.stdout(handles[1], b"x"), 0, "it has no credit yet");
        app.feed(record::record(64, 2, &[0, 0, 0, 1, 0, 0, 0, 0]));
        assert_eq!(app.events(), [app::Event::Writable(handles[1])]);
        assert_eq!(app.stdout(handles[1], b"x"), 1);
    }
}

#[test]
fn the_data_of_a_filter_goes_on_when_its_stdin_has_ended() {
    let mut pair = agreed();
    let web = pair.web.open().unwrap();
    pair.web.begin(web, Role::Filter).unwrap();
    pair.web.end(web, web::Output::Params).unwrap();
    assert_eq!(upload(&mut pair, web, WINDOW), WINDOW);
    pair.web.end(web, web::Output::Stdin).unwrap();
    assert_eq!(pair.web.write(web, web::Output::Data, b"file"), Ok(0));
    pair.settle().unwrap();
    let Some(app::Event::Request { handle, .. }) = pair.app.poll_event() else {
        panic!("no request");
    };
    web_events(&mut pair);
    pair.app.read(handle, app::Input::Stdin, WINDOW).unwrap();
    pair.settle().unwrap();
    assert_eq!(web_events(&mut pair), [web::Event::Writable(web)]);
    assert_eq!(pair.web.write(web, web::Output::Data, b"file"), Ok(4));
}

#[test]
fn what_an_application_says_of_a_failure_keeps_to_its_credit() {
    for (credit, expected) in [(0, 0), (10, 0), (1000, 68)] {
        let mut app = App::new();
        app.feed(query());
        let body = [0, 1, 3, 0, 0, (credit >> 8) as u8, credit as u8, 0];
        app.output();
        app.feed(record::record(code::BEGIN, 1, &body));
        app.feed(record::stream(code::PARAMS, 1, b"\x7f", 1));
        let out = app.output();
        assert_eq!(record::content(&out, code::STDERR, 1).len(), expected);
        assert_eq!(record::parse(&out).last().unwrap().code, code::END);
    }
}

#[test]
fn content_that_is_held_after_the_end_keeps_its_part_of_the_growth() {
    let mut pair = Pair::new(
        web::Config {
            window: WINDOW,
            window_most: 4 * WINDOW,
            windows_total: 16 * WINDOW,
            ..web::Config::default()
        },
        app::Config::default(),
    );
    pair.web.probe();
    pair.settle().unwrap();
    let mut held = Vec::new();
    for _ in 0..5 {
        let (web, app) = begin(&mut pair);
        for _ in 0..5 {
            write(&mut pair, app, 100_000);
            read(&mut pair, web, usize::MAX);
        }
        write(&mut pair, app, 100_000);
        pair.app.finish(app, 0).unwrap();
        pair.settle().unwrap();
        held.push((pair.web.readable(web, web::Input::Stdout).unwrap(), web));
    }
    let total: usize = held.iter().map(|(bytes, _)| bytes).sum();
    // Two have grown, and half is kept for those that begin.
    assert_eq!(total, 2 * 4 * WINDOW + 3 * WINDOW);
    // Given back when its consumer is done.
    pair.web.close(held[0].1, pair.now);
    pair.web.close(held[1].1, pair.now);
    let (web, app) = begin(&mut pair);
    for _ in 0..5 {
        write(&mut pair, app, 100_000);
        read(&mut pair, web, usize::MAX);
    }
    assert_eq!(write(&mut pair, app, 100_000), 4 * WINDOW);
    read(&mut pair, web, usize::MAX);
}

#[test]
fn nobody_is_given_a_credit_of_nothing() {
    let mut pair = Pair::new(
        web::Config {
            window: 0,
            ..web::Config::default()
        },
        app::Config {
            stdin_buffer: 0,
            ..app::Config::default()
        },
    );
    pair.web.probe();
    pair.settle().unwrap();
    let (web, app) = begin(&mut pair);
    for _ in 0..3 {
        assert!(write(&mut pair, app, 100) > 0);
        assert!(read(&mut pair, web, usize::MAX) > 0);
        assert!(upload(&mut pair, web, 100) > 0);
        pair.app.read(app, app::Input::Stdin, usize::MAX).unwrap();
        pair.settle().unwrap();
    }
}

#[test]
fn half_a_credit_for_a_request_that_ended_is_forgotten() {
    let mut app = App::new();
    app.feed(query());
    for id in [1, 2] {
        app.feed(begin_flagged(id, FLOW_CONTROL | KEEP_CONN));
    }
    let handles = app.requests();
    let credit = |id| record::record(code::CREDIT, id, &[0, 0, 0, 5, 0, 0, 0, 0]);
    app.feed(&credit(1)[..12]);
    app.conn.finish(handles[0], 0).unwrap();
    app.feed(&credit(1)[12..]);
    app.feed(&credit(2)[..12]);
    app.feed(&credit(2)[12..]);
    assert_eq!(app.stdout(handles[1], b"five bytes"), 5);
}
