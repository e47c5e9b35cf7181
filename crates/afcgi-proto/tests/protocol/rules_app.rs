//! The rules about records, ids and connections, at the application's side.

use afcgi_proto::app::{Config, Event, Output, Refusal};
use afcgi_proto::inbox::Read;
use afcgi_proto::{ConnectionError, Gone, RecordType, RequestId, Role};
use afcgi_testkit::record::{self, code};

use crate::support::{App, content};

fn refused(id: u16, why: Refusal) -> Event {
    let id = RequestId::new(id).unwrap();
    Event::Refused { id, why }
}

#[test]
fn r01_golden_bytes_of_a_conversation() {
    let mut app = App::new();
    app.feed(
        b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x01\x00\x00\x00\x00\x00\
          \x01\x04\x00\x01\x00\x05\x03\x00\x01\x02Abc\xaa\xbb\xcc\
          \x01\x04\x00\x01\x00\x00\x00\x00\
          \x01\x05\x00\x01\x00\x02\x00\x00hi\
          \x01\x05\x00\x01\x00\x00\x00\x00",
    );
    let events = app.events();
    let [
        Event::Request {
            handle,
            begin,
            params,
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((begin.role, begin.keep_conn()), (Role::Responder, true));
    assert_eq!(params.iter().collect::<Vec<_>>(), [(&b"A"[..], &b"bc"[..])]);
    assert_eq!(app.stdin(*handle), content("hi"));
    assert_eq!(app.stdin(*handle), Read::End);
    app.stdout(*handle, b"ok");
    app.conn.finish(*handle, 258).unwrap();
    assert_eq!(
        app.output(),
        b"\x01\x06\x00\x01\x00\x02\x00\x00ok\
          \x01\x06\x00\x01\x00\x00\x00\x00\
          \x01\x03\x00\x01\x00\x08\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00"
    );
}

#[test]
fn r02_another_version_ends_the_connection_without_an_answer() {
    for bad in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01",
        b"\0",
        b"\x02\x01\0\x01",
    ] {
        let mut app = App::new();
        let found = bad[0];
        assert_eq!(
            app.conn.receive(app.now, bad),
            Err(ConnectionError::Version { found })
        );
        assert_eq!((app.output(), app.events()), (vec![], vec![]));
    }
    // In the middle of a conversation too; what came before was understood.
    let mut app = App::new();
    let bytes = [record::request(1, &[], b""), b"\x02".to_vec()].concat();
    let version = Err(ConnectionError::Version { found: 2 });
    assert_eq!(app.conn.receive(app.now, &bytes), version);
    let handle = app.requests()[0];
    app.conn.lost();
    assert_eq!(app.events(), [Event::Aborted(handle)]);
    assert!(app.conn.is_finished());
}

#[test]
fn r03_padding_is_skipped_on_every_type() {
    let mut app = App::new();
    let padding = [1; 255];
    for (code, id, body) in [
        (code::BEGIN, 1, &[0, 1, 1, 0, 0, 0, 0, 0][..]),
        (code::PARAMS, 1, b"\x01\x01Ab"),
        (code::PARAMS, 1, b""),
        (code::STDIN, 1, b"body"),
        (code::STDIN, 1, b""),
        (code::GET_VALUES, 0, b"\x0f\x00FCGI_MPXS_CONNS"),
        (99, 0, b"xyz"),
        (99, 1, b"xyz"),
        (code::ABORT, 2, b""),
    ] {
        app.feed(record::padded(code, id, body, &padding));
    }
    let handle = app.requests()[0];
    assert_eq!(app.stdin(handle), content("body"));
    assert_eq!(app.stdin(handle), Read::End);
    let codes: Vec<_> = record::outline(&app.output());
    assert_eq!(codes[0].0, code::GET_VALUES_RESULT);
    assert_eq!(codes[1].0, code::UNKNOWN_TYPE);
}

#[test]
fn r06_a_discrete_record_has_its_length() {
    for length in [0, 7, 9, 65_535] {
        let mut app = App::new();
        let bytes = record::record(code::BEGIN, 1, &vec![0; length]);
        let result = app.conn.receive(app.now, &bytes);
        if length > 0 {
            let record_type = RecordType::BeginRequest;
            let found = length;
            assert_eq!(
                result,
                Err(ConnectionError::BodyLength { record_type, found })
            );
        } else {
            assert!(result.is_err());
        }
        assert_eq!(app.events(), []);
    }
}

#[test]
fn r06_params_are_cut_anywhere() {
    let content = record::pairs(&[("NAME", "value"), ("", ""), ("N", &"v".repeat(300))]);
    let mut app = App::new();
    app.feed(record::begin(1, 1, 1));
    app.feed(record::stream(code::PARAMS, 1, &content, 1));
    let events = app.events();
    let [Event::Request { params, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(params.as_encoded()[..], content[..]);
    assert_eq!((params.len(), params.get("NAME")), (3, Some(&b"value"[..])));
}

#[test]
fn r10_ids_are_of_the_web_servers_choice() {
    let mut app = App::new();
    // HAProxy: odd ids, ascending; others: always 1, or the largest.
    for id in [1, 3, 5, 0x00ff, 0x0100, 0xffff] {
        app.feed(record::request(id, &[("ID", &id.to_string())], b""));
    }
    for event in app.events() {
        let Event::Request { handle, params, .. } = event else {
            panic!("{event:?}");
        };
        let id = handle.id().get();
        assert_eq!(params.get("ID"), Some(id.to_string().as_bytes()));
        app.conn.finish(handle, 0).unwrap();
    }
    let ends: Vec<u16> = (record::parse(&app.output()).into_iter())
        .filter(|record| record.code == code::END)
        .map(|record| record.id)
        .collect();
    assert_eq!(ends, [1, 3, 5, 0x00ff, 0x0100, 0xffff]);
}

#[test]
fn r11_records_of_inactive_ids_are_ignored() {
    let mut app = App::new();
    app.feed(record::request(1, &[], b""));
    let handle = app.requests()[0];
    app.conn.finish(handle, 0).unwrap();
    app.output();
    for code in (2..=255).filter(|&code| code != code::BEGIN) {
        for id in [1, 2, 0xffff] {
            app.feed(record::record(code, id, b"\0\0\0\0\0\0\0\0"));
            app.feed(record::record(code, id, b""));
        }
    }
    assert_eq!((app.output(), app.events()), (vec![], vec![]));
    app.feed(record::request(1, &[], b"x"));
    let again = app.requests()[0];
    assert_eq!(app.stdin(again), content("x"));
}

#[test]
fn r11_records_of_the_wrong_side_for_an_active_id_end_the_connection() {
    for code in [code::END, code::STDOUT, code::STDERR] {
        let mut app = App::new();
        app.feed(record::request(1, &[], b""));
        let record = record::record(code, 1, b"\0\0\0\0\0\0\0\0");
        let wrong = Err(ConnectionError::WrongSide(code.into()));
        assert_eq!(app.conn.receive(app.now, &record), wrong);
    }
}

#[test]
fn r12_begin_on_an_active_id_ends_the_connection() {
    let id = RequestId::new(1).unwrap();
    for before in [record::begin(1, 1, 1), record::request(1, &[], b"")] {
        let mut app = App::new();
        app.feed(before);
        let again = record::begin(1, 1, 1);
        let in_use = Err(ConnectionError::IdInUse(id));
        assert_eq!(app.conn.receive(app.now, &again), in_use);
    }
}

#[test]
fn r12_an_id_may_come_again_after_its_end_in_the_same_read() {
    let mut app = App::new();
    let abort = record::record(code::ABORT, 1, b"");
    app.feed(
        [
            record::begin(1, 1, 1),
            abort,
            record::request(1, &[], b"new"),
        ]
        .concat(),
    );
    let events = app.events();
    assert_eq!(events[0], refused(1, Refusal::Aborted));
    let Event::Request { handle, .. } = events[1] else {
        panic!("{events:?}");
    };
    assert_eq!(app.stdin(handle), content("new"));
}

#[test]
fn r13_65535_requests_at_a_time() {
    let mut app = App::with(Config {
        requests: 65_535,
        ..Config::default()
    });
    for id in 1..=u16::MAX {
        app.feed(record::request(id, &[], b""));
    }
    let handles = app.requests();
    assert_eq!((handles.len(), app.conn.active()), (65_535, 65_535));
    for handle in handles {
        app.conn.finish(handle, 0).unwrap();
    }
    assert_eq!(app.conn.active(), 0);
    let ends = (record::parse(&app.output()).into_iter()).filter(|record| record.code == code::END);
    assert_eq!(ends.count(), 65_535);
}

#[test]
fn r22_a_bad_length_is_an_error_of_that_request_alone() {
    let mut app = App::new();
    app.feed(record::request(1, &[], b"neighbour"));
    let neighbour = app.requests()[0];
    for bad in [
        &b"\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\x05\x00abc",
        b"\x01",
        b"\x80\0\0",
    ] {
        app.feed(record::begin(2, 1, 1));
        app.feed(record::stream(code::PARAMS, 2, bad, 3));
        let why = Refusal::Failed(afcgi_proto::RequestError::MalformedParams);
        assert_eq!(app.events(), [refused(2, why)]);
        let out = app.output();
        assert_eq!(
            record::content(&out, code::END, 2),
            [0, 0, 0, 1, 0, 0, 0, 0]
        );
        assert!(record::content(&out, code::STDERR, 2).starts_with(b"afcgi: malformed PARAMS"));
        // Its late records find nobody.
        app.feed(record::stream(code::STDIN, 2, b"late", 2));
    }
    assert_eq!(app.stdin(neighbour), content("neighbour"));
}

#[test]
fn r30_the_connection_closes_after_the_last_request_when_one_asked_for_it() {
    let mut app = App::new();
    app.feed(record::request(1, &[], b""));
    app.feed(record::begin(2, 1, 0));
    app.feed(record::params(2, &[]));
    let handles = app.requests();
    app.conn.finish(handles[1], 0).unwrap();
    app.output();
    assert!(!app.conn.is_finished(), "another request is active");
    app.conn.finish(handles[0], 0).unwrap();
    assert!(!app.conn.is_finished(), "the answer is not transmitted");
    app.output();
    assert!(app.conn.is_finished());
}

#[test]
fn r30_keep_conn_leaves_the_connection_open() {
    let mut app = App::new();
    for _ in 0..3 {
        app.feed(record::request(1, &[], b""));
        let handle = app.requests()[0];
        app.conn.finish(handle, 0).unwrap();
        app.output();
        assert!(!app.conn.is_finished());
    }
    // A refused request counts as well.
    app.feed(record::begin(1, 9, 0));
    app.output();
    assert!(app.conn.is_finished());
}

#[test]
fn r31_a_lost_connection_aborts_every_request() {
    let mut app = App::new();
    app.feed(record::request(1, &[], b""));
    app.feed(record::begin(2, 1, 1));
    app.feed(record::request(3, &[], b""));
    let handles = app.requests();
    app.stdout(handles[0], b"unsent");
    app.conn.lost();
    let events = app.events();
    assert_eq!(events.len(), 3);
    for event in [
        Event::Aborted(handles[0]),
        refused(2, Refusal::Aborted),
        Event::Aborted(handles[1]),
    ] {
        assert!(events.contains(&event), "{event:?}");
    }
    assert_eq!(app.conn.write(handles[0], Output::Stdout, b"x"), Err(Gone));
    assert_eq!(app.conn.finish(handles[0], 0), Err(Gone));
    assert_eq!((app.output(), app.conn.active()), (vec![], 0));
    assert!(app.conn.is_finished());
}

#[test]
fn r32_half_close_still_gets_the_whole_response() {
    let mut app = App::new();
    app.feed(record::request(1, &[], b"all"));
    app.feed(record::begin(2, 1, 1));
    assert_eq!(app.conn.end_of_input(app.now), Ok(()));
    let events = app.events();
    let Event::Request { handle, .. } = events[0] else {
        panic!("{events:?}");
    };
    assert_eq!(events[1..], [refused(2, Refusal::Aborted)]);
    assert_eq!(app.stdin(handle), content("all"));
    assert_eq!(app.stdin(handle), Read::End);
    let body = vec![7; 1 << 20];
    let mut sent = 0;
    let mut out = Vec::new();
    while sent < body.len() {
        sent += app.stdout(handle, &body[sent..]);
        assert!(!app.conn.is_finished());
        out.extend(app.output());
    }
    app.conn.finish(handle, 0).unwrap();
    out.extend(app.output());
    assert_eq!(record::content(&out, code::STDOUT, 1), body);
    assert!(app.conn.is_finished());
}

#[test]
fn r32_end_of_input_inside_a_record_is_told() {
    let mut app = App::new();
    app.feed(&record::begin(1, 1, 1)[..11]);
    assert_eq!(
        app.conn.end_of_input(app.now),
        Err(ConnectionError::Truncated)
    );
}
