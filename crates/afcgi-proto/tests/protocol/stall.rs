//! One request that is not read, and the others on its connection (`docs/flow-control.md`, the
//! second layer).

use std::time::Duration;

use afcgi_proto::inbox::{Broken, Read};
use afcgi_proto::{BeginError, Handle, app, web};
use afcgi_testkit::record::{self, code};

use crate::support::{App, Web, content};

const SECOND: Duration = Duration::from_secs(1);

/// Two requests; the first has filled its buffer of 100 bytes, and 50 more are held back.
fn stalled_web() -> (Web, [Handle; 2], Vec<u8>) {
    let mut web = Web::with(web::Config {
        receive_buffer: 100,
        overflow: 0,
        ..web::Config::default()
    });
    let handles = [web.request(), web.request()];
    let record = record::record(code::STDOUT, 1, &[7; 150]);
    assert_eq!(web.conn.receive(web.now, &record), Ok(108));
    assert!(web.conn.is_blocked());
    web.output();
    (web, handles, record[108..].to_vec())
}

#[test]
fn web_stalled_request_is_aborted_and_the_others_go_on() {
    let (mut web, [slow, fast], rest) = stalled_web();
    assert_eq!(web.conn.deadline(web.now), Some(web.now + 10 * SECOND));
    web.pass(9 * SECOND);
    assert!(web.conn.is_blocked());
    web.pass(SECOND);
    assert!(!web.conn.is_blocked());
    assert_eq!(record::outline(&web.output()), [(code::ABORT, 1, 0)]);
    web.feed(rest);
    web.feed(record::response(2, b"fast"));
    assert_eq!(web.stdout(fast), content("fast"));
    assert_eq!(web.stdout(slow), content([7; 100]));
    assert_eq!(web.stdout(slow), Read::Broken(Broken::Stalled));
    assert_eq!(web.conn.ended(slow), Err(Broken::Stalled));
    // The id is held, whatever the consumer does.
    assert_eq!((web.conn.active(), web.conn.draining()), (1, 1));
    web.close(slow);
    assert_eq!((web.conn.active(), web.conn.draining()), (1, 1));
    web.feed(record::end(1, 0, 0));
    assert_eq!((web.conn.active(), web.conn.draining()), (0, 0));
}

#[test]
fn web_a_slow_drip_does_not_hold_up_the_others_for_ever() {
    let (mut web, [slow, _], mut rest) = stalled_web();
    for _ in 0..10 {
        let byte = web.conn.read(slow, web::Input::Stdout, 1).unwrap();
        assert_eq!(byte, content([7]));
        let taken = web.conn.receive(web.now, &rest).unwrap();
        rest.drain(..taken);
        web.pass(SECOND);
    }
    assert_eq!(record::outline(&web.output()), [(code::ABORT, 1, 0)]);
}

#[test]
fn web_a_consumer_that_drains_by_half_is_not_late() {
    let (mut web, [slow, _], _) = stalled_web();
    let mut backlog = [7; 50].to_vec();
    backlog.extend(record::record(code::STDOUT, 1, &[7; 1000]));
    for _ in 0..10 {
        web.pass(6 * SECOND);
        web.conn.read(slow, web::Input::Stdout, 50).unwrap();
        assert!(!web.conn.is_blocked());
        let taken = web.conn.receive(web.now, &backlog).unwrap();
        backlog.drain(..taken);
        assert!(web.conn.is_blocked());
    }
    assert_eq!(web.output(), b"");
}

#[test]
fn web_read_just_before_the_deadline_is_in_time() {
    let (mut web, [slow, _], rest) = stalled_web();
    web.conn.read(slow, web::Input::Stdout, 60).unwrap();
    assert_eq!(web.conn.deadline(web.now), None);
    web.pass(10 * SECOND);
    assert_eq!(web.output(), b"");
    web.feed(rest);
}

#[test]
fn web_closed_just_before_the_deadline_is_aborted_once() {
    let (mut web, [slow, _], rest) = stalled_web();
    web.close(slow);
    web.pass(10 * SECOND);
    assert_eq!(record::outline(&web.output()), [(code::ABORT, 1, 0)]);
    assert_eq!(web.conn.draining(), 1);
    web.feed(rest);
    web.feed(record::end(1, 0, 0));
    assert_eq!(web.conn.draining(), 0);
    assert!(!web.conn.is_finished());
    web.conn.retire();
    web.feed(record::response(2, b""));
    assert!(web.conn.is_finished());
}

#[test]
fn web_alone_nobody_is_held_up_and_nobody_comes() {
    let mut web = Web::with(web::Config {
        receive_buffer: 100,
        overflow: 0,
        ..web::Config::default()
    });
    let slow = web.request();
    let record = record::record(code::STDOUT, 1, &[7; 150]);
    assert_eq!(web.conn.receive(web.now, &record), Ok(108));
    web.output();
    assert_eq!(web.conn.deadline(web.now), None);
    assert!(web.conn.is_stalled() && !web.conn.has_room());
    assert_eq!(web.conn.open(), Err(BeginError::Full));
    web.pass(3600 * SECOND);
    assert_eq!(web.output(), b"");
    assert_eq!(web.events(), [web::Event::Stalled(slow)]);
    // Not even when it reads on, since it may stop again.
    web.stdout(slow);
    web.feed(&record[108..]);
    assert!(!web.conn.is_blocked() && !web.conn.has_room());
    web.events();
    web.feed(record::response(1, b""));
    assert!(web.conn.has_room());
    assert!(web.events().contains(&web::Event::Released));
}

#[test]
fn web_an_overflow_reaches_those_behind() {
    let mut web = Web::with(web::Config {
        receive_buffer: 100,
        overflow: 1000,
        ..web::Config::default()
    });
    let [slow, fast] = [web.request(), web.request()];
    web.feed(record::record(code::STDOUT, 1, &[7; 900]));
    assert!(web.conn.is_stalled() && !web.conn.is_blocked());
    assert!(web.conn.is_overflowing() && !web.conn.has_room());
    web.feed(record::response(2, b"fast"));
    assert!(!web.conn.is_overflowing());
    assert_eq!(web.stdout(fast), content("fast"));
    // Nobody is behind it any more: it has its buffer, and no more.
    let more = record::record(code::STDOUT, 1, &[7; 300]);
    assert_eq!(web.conn.receive(web.now, &more), Ok(8));
    assert!(web.conn.is_blocked());
    assert_eq!(web.stdout(slow), content([7; 900]));
    for part in more[8..].chunks(100) {
        web.feed(part);
        assert_eq!(web.stdout(slow), content([7; 100]));
    }
    web.feed(record::response(1, b""));
    assert!(web.conn.has_room());
}

#[test]
fn web_an_overflow_is_bounded_and_for_one() {
    let mut web = Web::with(web::Config {
        receive_buffer: 100,
        overflow: 1000,
        ..web::Config::default()
    });
    let [slow, other] = [web.request(), web.request()];
    let record = record::record(code::STDOUT, 1, &[7; 1500]);
    assert_eq!(web.conn.receive(web.now, &record), Ok(8 + 1100));
    assert!(web.conn.is_blocked());
    web.pass(10 * SECOND);
    assert!(web.output().ends_with(&record::record(code::ABORT, 1, b"")));
    web.feed(&record[8 + 1100..]);
    assert_eq!(web.stdout(slow), content([7; 1100]));
    web.feed(record::end(1, 0, 0));
    // The next one on that connection may, too: it is the first now.
    let third = web.request();
    web.feed(record::record(code::STDOUT, 2, &[8; 1100]));
    let record = record::record(code::STDOUT, 3, &[9; 200]);
    assert_eq!(web.conn.receive(web.now, &record), Ok(8 + 100));
    for handle in [other, third] {
        web.close(handle);
    }
}

#[test]
fn web_is_told_of_each_that_stalls_once() {
    let (mut web, [slow, fast], mut rest) = stalled_web();
    assert_eq!(web.events(), [web::Event::Stalled(slow)]);
    rest.extend(record::record(code::STDOUT, 1, &[7; 300]));
    rest.extend(record::record(code::STDOUT, 2, &[8; 300]));
    let mut stalls = Vec::new();
    for _ in 0..100 {
        for handle in [slow, fast] {
            web.conn.read(handle, web::Input::Stdout, 60).unwrap();
        }
        let taken = web.conn.receive(web.now, &rest).unwrap();
        rest.drain(..taken);
        stalls.extend(web.events());
    }
    stalls.retain(|event| matches!(event, web::Event::Stalled(_)));
    assert_eq!(stalls, [web::Event::Stalled(fast)]);
    // One of the two that ends is not enough.
    web.feed(record::response(1, b""));
    assert!(!web.conn.has_room());
    web.close(fast);
    // What comes of it is discarded, but in front of what comes for others.
    assert!(!web.conn.has_room());
    web.events();
    web.feed(record::end(2, 0, 0));
    assert!(web.conn.has_room());
    assert_eq!(web.events(), [web::Event::Released]);
}

#[test]
fn web_stderr_is_bounded_when_stdout_has_ended() {
    let mut web = Web::with(web::Config {
        receive_buffer: 100,
        overflow: 0,
        ..web::Config::default()
    });
    let handle = web.request();
    web.feed(record::record(code::STDOUT, 1, &[7; 40]));
    web.feed(record::record(code::STDOUT, 1, b""));
    let record = record::record(code::STDERR, 1, &[8; 100]);
    assert_eq!(web.conn.receive(web.now, &record), Ok(68));
    assert!(web.conn.is_blocked());
    assert_eq!(web.conn.readable(handle, web::Input::Stderr), Ok(60));
    web.stdout(handle);
    web.conn.read(handle, web::Input::Stderr, 10).unwrap();
    assert!(!web.conn.is_blocked());
    web.feed(&record[68..]);
}

#[test]
fn web_an_abandoned_wait_wakes_the_writer() {
    let (mut web, [slow, _], _) = stalled_web();
    // Its streams were ended, so another request that writes is stalled here.
    web.close(slow);
    let mut web = Web::with(web::Config {
        receive_buffer: 100,
        overflow: 0,
        ..web::Config::default()
    });
    let slow = web.begin();
    web.request();
    let body = vec![0; 1 << 20];
    let sent = web.conn.write(slow, web::Output::Stdin, &body).unwrap();
    assert!(sent < body.len());
    let record = record::record(code::STDOUT, 1, &[7; 150]);
    assert_eq!(web.conn.receive(web.now, &record), Ok(108));
    web.pass(10 * SECOND);
    let told = [web::Event::Stalled(slow), web::Event::Writable(slow)];
    assert_eq!(web.events(), told);
    let sent = web.conn.write(slow, web::Output::Stdin, &body).unwrap();
    assert_eq!(sent, body.len(), "taken and dropped");
}

/// Two requests; the first does not read its STDIN, its buffer of 100 bytes is full.
fn stalled_app() -> (App, [Handle; 2], Vec<u8>) {
    let mut app = App::with(app::Config {
        stdin_buffer: 100,
        overflow: 0,
        ..app::Config::default()
    });
    app.feed(record::begin(1, 1, 1));
    app.feed(record::params(1, &[]));
    app.feed(record::request(2, &[], b""));
    let handles = app.requests().try_into().unwrap();
    let record = record::record(code::STDIN, 1, &[7; 150]);
    assert_eq!(app.conn.receive(app.now, &record), Ok(108));
    assert!(app.conn.is_blocked());
    (app, handles, record[108..].to_vec())
}

#[test]
fn app_stalled_request_is_given_up_and_the_others_go_on() {
    let (mut app, [slow, _], rest) = stalled_app();
    let due = app.now + 10 * SECOND;
    assert_eq!(app.conn.deadline(app.now), Some(due));
    app.pass(9 * SECOND);
    assert!(app.conn.is_blocked());
    app.pass(SECOND);
    assert!(!app.conn.is_blocked());
    app.feed(rest);
    app.feed(record::request(3, &[], b""));
    assert_eq!(app.requests().len(), 1);
    assert_eq!(app.stdin(slow), content([7; 100]));
    assert_eq!(app.stdin(slow), Read::Broken(Broken::Stalled));
    app.conn.finish(slow, 0).unwrap();
}

#[test]
fn app_a_slow_drip_does_not_hold_up_the_others_for_ever() {
    let (mut app, [slow, _], mut rest) = stalled_app();
    for _ in 0..10 {
        let byte = app.conn.read(slow, app::Input::Stdin, 1).unwrap();
        assert_eq!(byte, content([7]));
        let taken = app.conn.receive(app.now, &rest).unwrap();
        rest.drain(..taken);
        app.pass(SECOND);
    }
    assert_eq!(app.stdin(slow), content([7; 90]));
    assert_eq!(app.stdin(slow), Read::Broken(Broken::Stalled));
}

#[test]
fn app_alone_a_handler_may_take_its_time() {
    let mut app = App::with(app::Config {
        stdin_buffer: 100,
        overflow: 0,
        ..app::Config::default()
    });
    app.feed(record::begin(1, 1, 1));
    app.feed(record::params(1, &[]));
    let handle = app.requests()[0];
    let record = record::record(code::STDIN, 1, &[7; 150]);
    assert_eq!(app.conn.receive(app.now, &record), Ok(108));
    assert_eq!(app.conn.deadline(app.now), None);
    app.pass(3600 * SECOND);
    assert_eq!(app.stdin(handle), content([7; 100]));
    app.feed(&record[108..]);
    assert_eq!(app.stdin(handle), content([7; 50]));
}

#[test]
fn app_a_filter_is_blocked_by_the_stream_that_is_full() {
    let mut app = App::with(app::Config {
        stdin_buffer: 100,
        overflow: 0,
        ..app::Config::default()
    });
    app.feed(record::begin(1, 3, 1));
    app.feed(record::params(1, &[]));
    app.feed(record::record(code::STDIN, 1, &[1; 100]));
    let record = record::record(code::DATA, 1, &[2; 150]);
    assert_eq!(app.conn.receive(app.now, &record), Ok(108));
    let handle = app.requests()[0];
    // STDIN is as full as DATA, but it is DATA that has to be read.
    let data = app.conn.read(handle, app::Input::Data, usize::MAX);
    assert_eq!(data, Ok(content([2; 100])));
    assert!(!app.conn.is_blocked());
    app.feed(&record[108..]);
}

/// Buffers of 100 bytes, and an overflow of 1000.
fn overflowing_app() -> App {
    App::with(app::Config {
        stdin_buffer: 100,
        overflow: 1000,
        ..app::Config::default()
    })
}

#[test]
fn app_an_overflow_reaches_those_behind() {
    let mut app = overflowing_app();
    app.feed(record::begin(1, 1, 1));
    app.feed(record::params(1, &[]));
    let slow = app.requests()[0];
    app.feed(record::stream(code::STDIN, 1, &[7; 1100], 300));
    assert!(!app.conn.is_blocked());
    app.feed(record::request(2, &[], b"fast"));
    let fast = app.requests()[0];
    assert_eq!(app.stdin(fast), content("fast"));
    app.conn.finish(fast, 0).unwrap();
    // All of it is there, and nothing was given up.
    app.pass(100 * SECOND);
    assert_eq!(app.stdin(slow), content([7; 1100]));
    assert_eq!(app.stdin(slow), Read::End);
}

#[test]
fn app_an_overflow_is_bounded_and_for_all_requests_together() {
    let mut app = overflowing_app();
    for id in [1, 2, 3] {
        app.feed(record::begin(id, 1, 1));
        app.feed(record::params(id, &[]));
    }
    let handles = app.requests();
    app.feed(record::record(code::STDIN, 1, &[1; 700]));
    let record = record::record(code::STDIN, 2, &[2; 900]);
    assert_eq!(app.conn.receive(app.now, &record), Ok(8 + 500));
    assert!(app.conn.is_blocked());
    // It does not matter who makes room.
    app.conn.read(handles[0], app::Input::Stdin, 49).unwrap();
    assert!(app.conn.is_blocked());
    app.conn.read(handles[0], app::Input::Stdin, 1).unwrap();
    assert!(!app.conn.is_blocked());
    let record = &record[8 + 500..];
    assert_eq!(app.conn.receive(app.now, record), Ok(50));
    app.conn.finish(handles[0], 0).unwrap();
    app.feed(&record[50..]);
    assert_eq!(app.stdin(handles[1]), content([2; 900]));
    // What is given up at last is what is behind all that.
    app.feed(record::record(code::STDIN, 3, &[3; 1100]));
    let more = record::record(code::STDIN, 3, &[3; 10]);
    assert_eq!(app.conn.receive(app.now, &more), Ok(8));
    app.pass(10 * SECOND);
    app.feed(&more[8..]);
    assert_eq!(app.stdin(handles[2]), content([3; 1100]));
    assert_eq!(app.stdin(handles[2]), Read::Broken(Broken::Stalled));
}

#[test]
fn app_a_connection_for_one_request_has_no_overflow() {
    let mut app = overflowing_app();
    app.feed(record::begin(1, 1, 0));
    app.feed(record::params(1, &[]));
    let record = record::record(code::STDIN, 1, &[7; 150]);
    assert_eq!(app.conn.receive(app.now, &record), Ok(108));
    assert!(app.conn.is_blocked());
    assert_eq!(app.conn.deadline(app.now), None);
}

#[test]
fn app_connections_share_a_total() {
    let total = app::OverflowTotal::new(1500);
    let mut apps = [(); 2].map(|()| overflowing_app());
    for app in &mut apps {
        app.conn.share_overflow(total.clone());
        app.feed(record::begin(1, 1, 1));
        app.feed(record::params(1, &[]));
    }
    let record = record::record(code::STDIN, 1, &[7; 2000]);
    let [a, b] = &mut apps;
    let handle = b.requests()[0];
    assert_eq!(a.conn.receive(a.now, &record), Ok(8 + 100 + 1000));
    assert_eq!(b.conn.receive(b.now, &record), Ok(8 + 100 + 500));
    assert_eq!(total.used(), 1500);
    // One that is lost gives back what it had.
    let [a, b] = apps;
    drop(a);
    assert_eq!(total.used(), 500);
    let mut b = b;
    assert_eq!(b.conn.receive(b.now, &record[608..]), Ok(500));
    b.conn.finish(handle, 0).unwrap();
    assert_eq!(total.used(), 0);
}

#[test]
fn app_a_peer_that_reads_no_answers_is_not_read() {
    let mut app = App::new();
    let query = record::record(
        code::GET_VALUES,
        0,
        &record::pairs(&[("FCGI_MPXS_CONNS", "")]),
    );
    let flood = query.repeat(100_000);
    let config = app::Config::default();
    let taken = app.conn.receive(app.now, &flood).unwrap();
    assert!(taken < flood.len() && app.conn.is_blocked());
    let bound = 2 * (config.output_buffer + config.output_turn) + 100;
    assert!(app.conn.transmit().len() <= bound);
    assert_eq!(app.conn.receive(app.now, &flood[taken..]), Ok(0));
    app.output();
    assert!(!app.conn.is_blocked());
    assert!(app.conn.receive(app.now, &flood[taken..]).unwrap() > 0);
}
