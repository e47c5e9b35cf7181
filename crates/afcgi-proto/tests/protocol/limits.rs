//! Each limit of both configurations, reached.

use std::time::Duration;

use afcgi_proto::app::{self, Event, Refusal};
use afcgi_proto::inbox::Broken;
use afcgi_proto::{BeginError, RequestError, RequestId, web};
use afcgi_testkit::record::{self, code};

use crate::support::{App, Web, content};

const SECOND: Duration = Duration::from_secs(1);

fn refused(id: u16, why: Refusal) -> Event {
    let id = RequestId::new(id).unwrap();
    Event::Refused { id, why }
}

#[test]
fn app_requests() {
    let mut app = App::with(app::Config {
        requests: 2,
        ..app::Config::default()
    });
    app.feed(record::request(1, &[], b""));
    app.feed(record::begin(2, 1, 1));
    app.feed(record::request(3, &[], b"body"));
    let events = app.events();
    assert_eq!(events[1..], [refused(3, Refusal::Overloaded)]);
    assert_eq!(app.output(), record::end(3, 0, 2));
    let Event::Request { handle, .. } = events[0] else {
        panic!("{events:?}");
    };
    app.conn.finish(handle, 0).unwrap();
    app.feed(record::request(3, &[], b""));
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn app_drain_refuses_what_is_new() {
    let mut app = App::new();
    app.feed(record::request(1, &[], b""));
    app.feed(record::begin(2, 1, 1));
    app.conn.drain();
    app.feed(record::begin(3, 1, 1));
    assert_eq!(app.output(), record::end(3, 0, 2));
    app.feed(record::params(2, &[]));
    for event in app.events() {
        if let Event::Request { handle, .. } = event {
            assert!(!app.conn.is_finished());
            app.conn.finish(handle, 0).unwrap();
        }
    }
    app.output();
    assert!(app.conn.is_finished());
}

/// A web server that has just connected is about to send a request, which it may not be able to send again.
#[test]
fn app_drain_waits_for_the_first_request_of_a_new_connection() {
    let mut app = App::new();
    app.conn.drain();
    assert!(!app.conn.is_finished());
    app.feed(record::request(1, &[], b""));
    let handle = app.requests()[0];
    app.feed(record::begin(2, 1, 1));
    assert_eq!(app.events(), [refused(2, Refusal::Overloaded)]);
    assert_eq!(app.output(), record::end(2, 0, 2));
    assert!(!app.conn.is_finished());
    app.conn.finish(handle, 0).unwrap();
    app.output();
    assert!(app.conn.is_finished());
}

#[test]
fn app_drain_does_not_wait_long() {
    let half_a_second = Duration::from_millis(500);
    let mut app = App::new();
    app.conn.drain();
    assert_eq!(app.conn.deadline(app.now), Some(app.now + half_a_second));
    app.conn.handle_timeout(app.now + half_a_second);
    assert!(app.conn.is_finished());
    // Nor for one that had the time before, or had a request, or whose web server is gone.
    let mut app = App::new();
    app.conn.handle_timeout(app.now + half_a_second);
    app.conn.drain();
    assert!(app.conn.is_finished());
    let mut app = App::new();
    app.feed(record::request(1, &[], b""));
    let handle = app.requests()[0];
    app.conn.finish(handle, 0).unwrap();
    app.output();
    app.conn.drain();
    assert!(app.conn.is_finished());
    let mut app = App::new();
    app.conn.drain();
    app.conn.end_of_input(app.now).unwrap();
    assert!(app.conn.is_finished());
}

#[test]
fn r22_app_params_bytes() {
    let mut app = App::with(app::Config {
        params_bytes: 100,
        ..app::Config::default()
    });
    let exact = record::pairs(&[("A", &"x".repeat(91))]);
    assert_eq!(exact.len(), 100);
    app.feed(record::begin(1, 1, 1));
    app.feed(record::stream(code::PARAMS, 1, &exact, 33));
    assert_eq!(app.requests().len(), 1);
    app.feed(record::begin(2, 1, 1));
    app.feed(record::stream(code::PARAMS, 2, &[0; 101], 33));
    let why = Refusal::Failed(RequestError::ParamsTooLong);
    assert_eq!(app.events(), [refused(2, why)]);
    let ends = record::content(&app.output(), code::END, 2);
    assert_eq!(ends, [0, 0, 0, 1, 0, 0, 0, 0], "once");
}

#[test]
fn app_params_pairs() {
    let mut app = App::with(app::Config {
        params_pairs: 3,
        ..app::Config::default()
    });
    app.feed(record::request(
        1,
        &[("A", "1"), ("B", "2"), ("C", "3")],
        b"",
    ));
    assert_eq!(app.requests().len(), 1);
    app.feed(record::begin(2, 1, 1));
    app.feed(record::stream(code::PARAMS, 2, &[0; 8], 9));
    let why = Refusal::Failed(RequestError::TooManyParams);
    assert_eq!(app.events(), [refused(2, why)]);
}

#[test]
fn app_params_timeout() {
    let mut app = App::new();
    app.feed(record::begin(1, 1, 1));
    app.pass(10 * SECOND);
    app.feed(record::begin(2, 1, 1));
    app.feed(record::request(3, &[], b""));
    let whole = app.requests();
    // Bytes that trickle in do not help.
    let mut ended = Vec::new();
    for _ in 0..50 {
        app.feed(record::record(code::PARAMS, 1, b"\x7f"));
        let due = app.conn.deadline(app.now);
        assert!(due.is_none_or(|at| at > app.now), "due for ever");
        app.pass(SECOND);
        for event in app.events() {
            ended.push((event, app.now));
        }
    }
    let why = Refusal::Failed(RequestError::ParamsTimeout);
    let [(first, first_at), (second, second_at)] = &ended[..] else {
        panic!("{ended:?}");
    };
    assert_eq!([first, second], [&refused(1, why), &refused(2, why)]);
    assert!(*second_at - *first_at <= 20 * SECOND);
    assert_eq!(app.conn.active(), 1);
    app.conn.finish(whole[0], 0).unwrap();
}

#[test]
fn app_incomplete_bytes() {
    let config = app::Config {
        incomplete_bytes: 1000,
        ..app::Config::default()
    };
    let mut app = App::with(config);
    // What is complete does not count, however much it was.
    for id in 1..100 {
        app.feed(record::request(id, &[("A", &"x".repeat(500))], b""));
    }
    assert_eq!(app.requests().len(), 99);
    app.feed(record::begin(200, 1, 1));
    app.feed(record::record(code::PARAMS, 200, &[0x7f; 600]));
    app.feed(record::begin(201, 1, 1));
    app.feed(record::record(code::PARAMS, 201, &[0x7f; 400]));
    assert_eq!(app.events(), []);
    app.feed(record::record(code::PARAMS, 201, b"\x7f"));
    assert_eq!(app.events(), [refused(201, Refusal::Overloaded)]);
    assert_eq!(app.output(), record::end(201, 0, 2));
    // Whatever way a request goes, it takes its bytes along.
    for round in 0..50 {
        app.feed(record::begin(201, 1, 1));
        app.feed(record::record(code::PARAMS, 201, &[0x7f; 400]));
        match round % 3 {
            0 => app.feed(record::record(code::ABORT, 201, b"")),
            1 => app.feed(record::record(code::PARAMS, 201, b"")),
            _ => {
                app.feed(record::record(code::STDIN, 201, b""));
                app.feed(record::record(code::ABORT, 201, b""));
            }
        }
        let events = app.events();
        assert!(!events.contains(&refused(201, Refusal::Overloaded)));
        assert_eq!(events.len(), 1, "{events:?}");
    }
}

#[test]
fn app_stdin_before_params_are_complete_counts_as_incomplete() {
    let mut app = App::with(app::Config {
        incomplete_bytes: 100_000,
        stdin_buffer: 1000,
        ..app::Config::default()
    });
    // One request alone may not fill more than its buffer, and nobody waits for it.
    app.feed(record::begin(1, 1, 1));
    app.feed(record::record(code::STDIN, 1, &[0; 1000]));
    assert_eq!(app.events(), []);
    app.feed(record::record(code::STDIN, 1, b"x"));
    assert_eq!(app.events(), [refused(1, Refusal::Overloaded)]);
    assert!(!app.conn.is_blocked());
    // All together no more than the limit.
    for id in 1..=1000 {
        app.feed(record::begin(id, 3, 1));
        app.feed(record::record(code::STDIN, id, &[0; 900]));
        app.feed(record::record(code::DATA, id, &[0; 100]));
    }
    assert_eq!(app.conn.active(), 100);
    // What has come is there when PARAMS is complete, and counts no more.
    app.events();
    app.feed(record::params(7, &[]));
    let handle = app.requests()[0];
    assert_eq!(app.stdin(handle), content([0; 900]));
    app.feed(record::begin(2000, 1, 1));
    app.feed(record::record(code::STDIN, 2000, &[0; 1000]));
    assert_eq!(app.events(), []);
    app.feed(record::record(code::PARAMS, 2000, b"x"));
    assert_eq!(app.events(), [refused(2000, Refusal::Overloaded)]);
}

#[test]
fn app_idle_timeout() {
    let mut app = App::new();
    let idle = app::Config::default().idle_timeout;
    assert_eq!(app.conn.deadline(app.now), Some(app.now + idle));
    app.pass(idle - SECOND);
    // A request that came and went between two looks at the clock counts.
    app.feed(record::request(1, &[], b""));
    let handle = app.requests()[0];
    app.conn.finish(handle, 0).unwrap();
    app.output();
    app.pass(2 * SECOND);
    assert!(!app.conn.is_finished());
    let due = app.conn.deadline(app.now).unwrap();
    assert!(due >= app.now + idle - SECOND, "{:?}", due - app.now);
    app.pass(idle);
    assert!(app.conn.is_finished());
}

#[test]
fn app_idle_timeout_gives_up_output_that_nobody_reads() {
    let mut app = App::new();
    app.feed(record::request(1, &[], b""));
    let handle = app.requests()[0];
    app.stdout(handle, b"unread");
    app.conn.finish(handle, 0).unwrap();
    app.pass(Duration::ZERO);
    app.pass(app::Config::default().idle_timeout);
    assert!(app.conn.is_finished());
    // A request that comes at the last moment is served.
    app.feed(record::request(1, &[], b""));
    assert!(!app.conn.is_finished());
    let handle = app.requests()[0];
    app.conn.finish(handle, 0).unwrap();
    assert!(!app.conn.is_finished());
}

#[test]
fn app_half_closed_connections_are_looked_after() {
    let mut app = App::new();
    app.feed(record::request(1, &[], b""));
    app.conn.end_of_input(app.now).unwrap();
    let mut probes = 0;
    for _ in 0..60 {
        let due = app.conn.deadline(app.now).unwrap();
        let wait = due.saturating_duration_since(app.now);
        app.pass(wait);
        let out = app.output();
        probes += record::parse(&out).len();
        assert!(out.is_empty() || out == record::record(code::GET_VALUES_RESULT, 0, b""));
        assert!(app.conn.deadline(app.now).unwrap() > app.now);
    }
    assert!(probes >= 50, "{probes}");
}

#[test]
fn r40_a_get_values_of_any_length_has_one_short_answer() {
    let many: Vec<u8> = (0..2500)
        .flat_map(|n| record::pairs(&[(&format!("FCGI_NAME_{n}"), "")]))
        .collect();
    let asked = record::pairs(&[("FCGI_MPXS_CONNS", "")]);
    let again = asked.repeat(2500);
    let answer = record::record(code::GET_VALUES_RESULT, 0, b"\x0f\x01FCGI_MPXS_CONNS1");
    for question in [
        [&many[..], &asked].concat(),
        again,
        [&asked[..], &[0; 65_500]].concat(),
        // What is malformed ends the question.
        [&asked[..], &[0xff; 65_500]].concat(),
    ] {
        assert!(question.len() > 4096);
        let mut app = App::new();
        app.feed(record::record(code::GET_VALUES, 0, &question));
        assert_eq!(app.output(), answer);
        // The same in pieces; and the connection goes on.
        for part in record::record(code::GET_VALUES, 0, &question).chunks(1000) {
            app.feed(part);
        }
        assert_eq!(app.output(), answer);
        app.feed(record::request(1, &[], b""));
        assert_eq!(app.requests().len(), 1);
    }
}

#[test]
fn r22_app_params_as_long_as_web_servers_send_them() {
    let mut app = App::new();
    let most = app::Config::default().params_bytes;
    assert_eq!(most, 256 * 1024);
    // Two lengths of four bytes each, and a name of one.
    for (id, length, expected) in [(1, most - 9, true), (2, most - 8, false)] {
        let params = record::pairs(&[("A", &"x".repeat(length))]);
        app.feed(record::begin(id, 1, 1));
        app.feed(record::stream(code::PARAMS, id, &params, 65_535));
        let is_announced = matches!(app.events()[..], [Event::Request { .. }]);
        assert_eq!(is_announced, expected, "{length}");
    }
    for (id, count, expected) in [(3, 4096, true), (4, 4097, false)] {
        app.feed(record::begin(id, 1, 1));
        app.feed(record::stream(
            code::PARAMS,
            id,
            &record::pairs(&[("HTTP_A", "b")]).repeat(count),
            65_535,
        ));
        let is_announced = matches!(app.events()[..], [Event::Request { .. }]);
        assert_eq!(is_announced, expected, "{count}");
    }
}

#[test]
fn app_output_buffer_and_turn() {
    let mut app = App::with(app::Config {
        output_buffer: 1000,
        output_turn: 300,
        ..app::Config::default()
    });
    for id in 1..=10 {
        app.feed(record::request(id, &[], b""));
    }
    let sent: Vec<usize> = (app.requests().into_iter())
        .map(|handle| app.stdout(handle, &[0; 5000]))
        .collect();
    assert_eq!(sent, [300, 300, 300, 300, 0, 0, 0, 0, 0, 0]);
    assert!(app.conn.transmit().len() < 1000 + 300 + 8);
}

#[test]
fn app_a_turn_fits_a_record() {
    let mut app = App::with(app::Config {
        output_buffer: usize::MAX,
        output_turn: usize::MAX,
        ..app::Config::default()
    });
    app.feed(record::request(1, &[], b""));
    let handle = app.requests()[0];
    assert_eq!(app.stdout(handle, &vec![0; 100_000]), 65_535);
    assert_eq!(record::parse(&app.output()).len(), 1);
}

#[test]
fn web_requests() {
    let mut web = Web::with(web::Config {
        requests: 2,
        ..web::Config::default()
    });
    let first = web.conn.open().unwrap();
    web.request();
    assert_eq!(web.conn.open(), Err(BeginError::Full));
    web.close(first);
    assert_eq!(web.events(), [web::Event::Released]);
    assert!(web.conn.has_room());
    web.conn.retire();
    assert_eq!(web.conn.open(), Err(BeginError::Closed));
    assert!(!web.conn.is_finished());
    web.feed(record::end(2, 0, 0));
    assert!(web.conn.is_finished());
}

#[test]
fn web_requests_are_lowered_to_what_the_application_takes() {
    let mut web = Web::new();
    let first = web.conn.open().unwrap();
    let second = web.conn.open().unwrap();
    web.conn.limit_requests(2);
    assert_eq!(web.conn.open(), Err(BeginError::Full));
    web.conn.limit_requests(3);
    assert_eq!(web.conn.open(), Err(BeginError::Full), "never raised");
    web.close(first);
    web.close(second);
    assert!(web.conn.open().is_ok());
    assert!(!web.conn.is_retired());
    web.conn.retire();
    assert!(web.conn.is_retired());
}

#[test]
fn web_requests_that_ended_and_are_not_closed_count_too() {
    let mut web = Web::with(web::Config {
        requests: 2,
        ..web::Config::default()
    });
    let mut ended = Vec::new();
    for _ in 0..4 {
        let handle = web.request();
        web.feed(record::response(1, &[0; 1000]));
        ended.push(handle);
    }
    assert_eq!(
        (web.conn.active(), web.conn.open()),
        (0, Err(BeginError::Full))
    );
    web.events();
    web.close(ended[2]);
    assert_eq!(web.events(), [web::Event::Released]);
    assert!(web.conn.has_room());
    web.request();
    assert_eq!(web.stdout(ended[0]), content([0; 1000]));
}

#[test]
fn web_receive_buffer() {
    let mut web = Web::with(web::Config {
        receive_buffer: 1000,
        ..web::Config::default()
    });
    let handle = web.request();
    let bytes = [
        record::record(code::STDERR, 1, &[1; 400]),
        record::record(code::STDOUT, 1, &[2; 700]),
    ]
    .concat();
    assert_eq!(web.conn.receive(web.now, &bytes), Ok(bytes.len() - 100));
    assert!(web.conn.is_blocked());
    let waiting = [web::Input::Stdout, web::Input::Stderr]
        .map(|input| web.conn.readable(handle, input).unwrap());
    assert_eq!(waiting, [600, 400]);
}

#[test]
fn web_drain_timeout_retires_the_connection() {
    let mut web = Web::new();
    let [first, second] = [web.request(), web.request()];
    web.close(first);
    let timeout = web::Config::default().drain_timeout;
    web.output();
    let due = web.conn.deadline(web.now).unwrap();
    assert!(due <= web.now + timeout);
    web.pass(timeout - SECOND);
    assert_eq!(web.conn.draining(), 1);
    assert!(web.conn.has_room());
    web.pass(SECOND);
    assert_eq!((web.conn.draining(), web.conn.active()), (0, 1));
    assert_eq!(web.conn.open(), Err(BeginError::Closed));
    assert!(!web.conn.is_finished());
    web.feed(record::response(2, b"unharmed"));
    assert_eq!(web.stdout(second), content("unharmed"));
    assert!(web.conn.is_finished());
}

#[test]
fn web_a_thousand_aborted_requests_are_not_looked_at_a_thousand_times() {
    let mut web = Web::new();
    let handles: Vec<_> = (0..1000).map(|_| web.request()).collect();
    for handle in handles {
        web.close(handle);
        web.now += Duration::from_millis(1);
    }
    web.output();
    let mut looks = 0;
    while web.conn.draining() > 0 {
        let due = web.conn.deadline(web.now).unwrap();
        assert!(due > web.now);
        web.pass(due - web.now);
        looks += 1;
    }
    assert!(looks <= 4, "{looks}");
}

#[test]
fn web_unread_output_is_bounded() {
    let config = web::Config {
        requests: 10,
        output_buffer: 1000,
        output_turn: 100,
        ..web::Config::default()
    };
    let mut web = Web::with(config);
    let mut most = 0;
    // The application answers each request and reads none.
    for _ in 0..1000 {
        let Ok(handle) = web.conn.open() else { break };
        let id = handle.id().get();
        web.conn
            .begin(handle, afcgi_proto::Role::Responder)
            .unwrap();
        web.conn
            .write(handle, web::Output::Params, &[0; 500])
            .unwrap();
        web.feed(record::end(id, 0, 0));
        web.close(handle);
        most = most.max(web.conn.transmit().len());
    }
    assert!(most <= 1000 + 100 + 128 * 10, "{most}");
    assert_eq!(web.conn.open(), Err(BeginError::Full));
    web.events();
    web.output();
    assert_eq!(web.events(), [web::Event::Released]);
    assert!(web.conn.has_room());
}

#[test]
fn web_a_connection_is_retired_when_half_of_its_ids_were_given_up() {
    let mut web = Web::new();
    let mut seen = vec![false; 65_536];
    let mut count = 0;
    while let Ok(handle) = web.conn.open() {
        web.conn
            .begin(handle, afcgi_proto::Role::Responder)
            .unwrap();
        let id = handle.id().get();
        assert!(!std::mem::replace(&mut seen[usize::from(id)], true));
        web.close(handle);
        web.feed(record::end(id, 0, 0));
        web.output();
        web.events();
        count += 1;
    }
    assert_eq!(count, 32_767);
    assert!(web.conn.is_finished());
}

#[test]
fn web_lost_requests_are_told_whatever_they_wait_for() {
    let mut web = Web::new();
    let reader = web.request();
    let reserved = web.conn.open().unwrap();
    let aborted = web.request();
    web.close(aborted);
    web.stdout(reader);
    web.conn.lost();
    assert_eq!(web.events(), [web::Event::Readable(reader)]);
    for handle in [reader, reserved] {
        assert_eq!(web.conn.ended(handle), Err(Broken::Truncated));
        web.close(handle);
    }
    assert_eq!((web.conn.active(), web.conn.draining()), (0, 0));
    assert!(web.conn.is_finished());
}
