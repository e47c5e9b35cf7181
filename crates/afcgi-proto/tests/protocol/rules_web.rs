//! The rules, at the web server's side.

use afcgi_proto::inbox::{Broken, Read};
use afcgi_proto::web::{Config, Event, Input, Output};
use afcgi_proto::{BeginError, ConnectionError, Gone, ProtocolStatus, RecordType, Role, Values};
use afcgi_testkit::record::{self, code};

use crate::support::{Web, content};

const EMPTY: [u8; 0] = [];

#[test]
fn r01_golden_bytes_of_a_request() {
    let mut web = Web::new();
    let handle = web.conn.open().unwrap();
    assert_eq!(web.output(), EMPTY, "nothing is sent for a reserved id");
    web.conn.begin(handle, Role::Responder).unwrap();
    web.conn
        .write(handle, Output::Params, b"\x01\x02Abc")
        .unwrap();
    web.conn.end(handle, Output::Params).unwrap();
    web.conn.write(handle, Output::Stdin, b"hi").unwrap();
    web.conn.end(handle, Output::Stdin).unwrap();
    assert_eq!(
        web.output(),
        b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x01\x00\x00\x00\x00\x00\
          \x01\x04\x00\x01\x00\x05\x00\x00\x01\x02Abc\
          \x01\x04\x00\x01\x00\x00\x00\x00\
          \x01\x05\x00\x01\x00\x02\x00\x00hi\
          \x01\x05\x00\x01\x00\x00\x00\x00"
    );
}

#[test]
fn r30_without_keep_conn_a_connection_is_for_one_request() {
    let mut web = Web::with(Config {
        keep_conn: false,
        ..Config::default()
    });
    let unused = web.conn.open().unwrap();
    web.conn.close(unused, web.now);
    let handle = web.conn.open().unwrap();
    web.conn.begin(handle, Role::Responder).unwrap();
    assert_eq!(web.output()[10], 0, "the flags of BEGIN_REQUEST");
    assert_eq!(web.conn.open(), Err(BeginError::Closed));
    assert!(!web.conn.is_finished());
    web.feed(record::end(1, 0, 0));
    assert!(web.conn.is_finished());
}

#[test]
fn r02_another_version_ends_every_request() {
    let mut web = Web::new();
    let handle = web.request();
    let found = b'H';
    let bytes = [record::record(code::STDOUT, 1, b"x"), b"HTTP/1.1".to_vec()].concat();
    assert_eq!(
        web.conn.receive(web.now, &bytes),
        Err(ConnectionError::Version { found })
    );
    web.conn.lost();
    assert_eq!(web.conn.ended(handle), Err(Broken::Truncated));
    assert_eq!(web.conn.open(), Err(BeginError::Closed));
}

#[test]
fn r03_padding_is_skipped_on_every_type() {
    let mut web = Web::new();
    let handle = web.request();
    let padding = [3; 255];
    for (code, id, body) in [
        (code::STDOUT, 1, &b"out"[..]),
        (code::STDERR, 1, b"err"),
        (code::GET_VALUES_RESULT, 0, b"\x0f\x01FCGI_MPXS_CONNS1"),
        (99, 0, b"xyz"),
        (99, 1, b"xyz"),
        (code::STDERR, 1, b""),
        (code::STDOUT, 1, b""),
        (code::END, 1, &[0, 0, 0, 5, 0, 0, 0, 0]),
    ] {
        web.feed(record::padded(code, id, body, &padding));
    }
    assert_eq!(web.stdout(handle), content("out"));
    let stderr = web.conn.read(handle, Input::Stderr, 9).unwrap();
    assert_eq!(stderr, content("err"));
    assert_eq!(web.conn.ended(handle).unwrap().unwrap().app_status, 5);
}

#[test]
fn r06_end_request_has_its_length() {
    for found in [1, 7, 9] {
        let mut web = Web::new();
        web.request();
        let record_type = RecordType::EndRequest;
        let bytes = record::record(code::END, 1, &vec![0; found]);
        let expected = Err(ConnectionError::BodyLength { record_type, found });
        assert_eq!(web.conn.receive(web.now, &bytes), expected);
    }
}

#[test]
fn r10_ids_stay_small_and_are_used_again() {
    let mut web = Web::new();
    for _ in 0..100 {
        let handle = web.request();
        assert_eq!(handle.id().get(), 1);
        web.feed(record::response(1, b""));
        web.close(handle);
    }
}

#[test]
fn r11_records_of_inactive_ids_are_ignored() {
    let mut web = Web::new();
    let handle = web.request();
    web.output();
    for code in (1..=255).filter(|&code| code != code::BEGIN) {
        for id in [2, 0xffff] {
            web.feed(record::record(code, id, b"\0\0\0\0\0\0\0\0"));
        }
    }
    assert_eq!((web.output(), web.events()), (vec![], vec![]));
    assert_eq!(web.stdout(handle), Read::Pending);
}

#[test]
fn r11_records_of_the_wrong_side_for_an_active_id_end_the_connection() {
    for code in [
        code::BEGIN,
        code::ABORT,
        code::PARAMS,
        code::STDIN,
        code::DATA,
    ] {
        let mut web = Web::new();
        web.request();
        let record = record::record(code, 1, b"\0\0\0\0\0\0\0\0");
        let wrong = Err(ConnectionError::WrongSide(code.into()));
        assert_eq!(web.conn.receive(web.now, &record), wrong);
    }
}

#[test]
fn r11_late_records_reach_no_reserved_id() {
    let mut web = Web::new();
    let first = web.request();
    web.feed(record::response(1, b"first"));
    let second = web.conn.open().unwrap();
    assert_eq!(first.id(), second.id());
    // The application goes on with the request that it has ended.
    web.feed(record::record(code::STDOUT, 1, b"late"));
    web.feed(record::end(1, 7, 0));
    assert_eq!(web.stdout(second), Read::Pending);
    assert_eq!(web.conn.ended(second), Ok(None));
    assert_eq!(web.stdout(first), content("first"));
}

#[test]
fn r12_an_aborted_id_is_held_until_end_request_and_never_used_again() {
    let mut web = Web::with(Config {
        requests: 2,
        ..Config::default()
    });
    let first = web.request();
    let second = web.request();
    web.output();
    web.close(first);
    assert_eq!(record::outline(&web.output()), [(code::ABORT, 1, 0)]);
    assert_eq!(web.conn.open(), Err(BeginError::Full));
    assert!(!web.conn.has_room());
    // What comes until then is dropped, however much it is.
    for _ in 0..100 {
        web.feed(record::record(code::STDOUT, 1, &[0; 60_000]));
    }
    assert_eq!(web.events(), []);
    web.feed(record::end(1, 0, 0));
    assert_eq!(web.events(), [Event::Released]);
    let third = web.request();
    assert_eq!(third.id().get(), 3);
    // Go's net/http/fcgi writes on after the abort, and ends the request twice.
    web.feed(record::response(1, b"of another user"));
    assert_eq!(web.stdout(third), Read::Pending);
    assert_eq!(web.stdout(second), Read::Pending);
    assert_eq!(web.conn.ended(third), Ok(None));
}

#[test]
fn r13_65535_requests_at_a_time() {
    let mut web = Web::with(Config {
        requests: u16::MAX,
        ..Config::default()
    });
    for id in 1..=u16::MAX {
        assert_eq!(web.begin().id().get(), id);
    }
    assert_eq!(web.conn.open(), Err(BeginError::Full));
    web.output();
    web.feed(record::end(0x1234, 0, 0));
    assert_eq!(web.begin().id().get(), 0x1234);
}

#[test]
fn r30_our_connections_are_kept() {
    let mut web = Web::new();
    web.begin();
    let begin = &record::parse(&web.output())[0];
    assert_eq!(begin.content, [0, 1, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn r31_truncation_is_no_success() {
    for bytes in [
        vec![],
        record::record(code::STDOUT, 1, b"part"),
        record::stream(code::STDOUT, 1, b"part", 9),
    ] {
        let mut web = Web::new();
        let handle = web.request();
        web.feed(&bytes);
        let mut read = web.stdout(handle);
        if !bytes.is_empty() {
            assert_eq!(read, content("part"));
            read = web.stdout(handle);
        }
        assert_eq!(web.conn.ended(handle), Ok(None), "{read:?}");
        assert_eq!(web.conn.end_of_input(), Ok(()));
        assert_eq!(web.events(), [Event::Readable(handle)]);
        // Also where STDOUT was ended: only END_REQUEST tells that all is well.
        assert_eq!(web.conn.ended(handle), Err(Broken::Truncated));
        assert!(web.conn.is_finished());
    }
}

#[test]
fn r31_end_of_input_inside_a_record_is_told() {
    let mut web = Web::new();
    web.request();
    web.feed(&record::end(1, 0, 0)[..12]);
    assert_eq!(web.conn.end_of_input(), Err(ConnectionError::Truncated));
}

#[test]
fn r40_probe_and_its_answers() {
    let mut web = Web::new();
    web.conn.probe();
    let query = record::record(
        code::GET_VALUES,
        0,
        b"\x0e\x00FCGI_MAX_CONNS\x0d\x00FCGI_MAX_REQS\x0f\x00FCGI_MPXS_CONNS\
        \x11\x00FCGI_FLOW_CONTROL\x0c\x00FCGI_UPGRADE",
    );
    assert_eq!(web.output(), query);
    let answer = b"\x0f\x01FCGI_MPXS_CONNS1\x03\x01FOOx";
    web.feed(record::record(code::GET_VALUES_RESULT, 0, answer));
    let values = Values {
        mpxs_conns: Some(true),
        ..Values::default()
    };
    assert_eq!(web.events(), [Event::Values(values)]);
    // Go's net/http/fcgi sends a second answer with nothing in it.
    web.feed(record::record(code::GET_VALUES_RESULT, 0, b""));
    assert_eq!(web.events(), []);
}

#[test]
fn r42_an_application_that_does_not_know_get_values() {
    let mut web = Web::new();
    web.conn.probe();
    web.feed(record::record(
        code::UNKNOWN_TYPE,
        0,
        &[9, 0, 0, 0, 0, 0, 0, 0],
    ));
    assert_eq!(web.events(), [Event::Values(Values::default())]);
    // Management records are never a matter of a request, and never answered here.
    web.output();
    let handle = web.request();
    web.output();
    for code in 1..=255 {
        web.feed(record::record(code, 0, b"\0\0\0\0\0\0\0\0"));
    }
    assert_eq!((web.output(), web.events()), (vec![], vec![]));
    assert_eq!(web.conn.ended(handle), Ok(None));
}

#[test]
fn r51_statuses_come_through() {
    let mut web = Web::new();
    for (code, status) in [
        (0, ProtocolStatus::RequestComplete),
        (1, ProtocolStatus::CantMpxConn),
        (2, ProtocolStatus::Overloaded),
        (3, ProtocolStatus::UnknownRole),
        (200, ProtocolStatus::Other(200)),
    ] {
        let handle = web.request();
        web.feed(record::end(1, 0xfffe_fdfc, code));
        let end = web.conn.ended(handle).unwrap().unwrap();
        assert_eq!((end.app_status, end.protocol_status), (0xfffe_fdfc, status));
        assert_eq!(web.stdout(handle), Read::End);
        web.close(handle);
    }
}

#[test]
fn r52_a_second_end_request_is_ignored() {
    let mut web = Web::new();
    let handle = web.request();
    web.feed([record::end(1, 1, 0), record::end(1, 2, 0)].concat());
    assert_eq!(web.conn.ended(handle).unwrap().unwrap().app_status, 1);
    assert_eq!(web.events(), [Event::Released]);
}

#[test]
fn r53_streams_are_ended_before_an_id_is_used_again() {
    let mut web = Web::new();
    let handle = web.begin();
    web.conn.end(handle, Output::Params).unwrap();
    web.conn.write(handle, Output::Stdin, b"part").unwrap();
    web.output();
    // Go's net/http/fcgi closes the connection if an id comes again whose STDIN was not ended.
    web.feed(record::response(1, b"early"));
    assert_eq!(record::outline(&web.output()), [(code::STDIN, 1, 0)]);
    assert_eq!(web.conn.write(handle, Output::Stdin, b"rest"), Ok(4));
    web.conn.end(handle, Output::Stdin).unwrap();
    assert_eq!(web.output(), EMPTY, "the rest is dropped");
    assert_eq!(web.stdout(handle), content("early"));
}

#[test]
fn r54_r55_all_roles_are_sent() {
    let mut web = Web::new();
    for (role, code) in [
        (Role::Authorizer, 2),
        (Role::Filter, 3),
        (Role::Other(77), 77),
    ] {
        let handle = web.conn.open().unwrap();
        web.conn.begin(handle, role).unwrap();
        assert_eq!(record::parse(&web.output())[0].content[..2], [0, code]);
        assert_eq!(web.conn.begin(handle, role), Err(Gone), "begun twice");
    }
    let filter = web.conn.open().unwrap();
    web.conn.begin(filter, Role::Filter).unwrap();
    web.output();
    web.conn.write(filter, Output::Data, b"file").unwrap();
    web.conn.end(filter, Output::Data).unwrap();
    let id = filter.id().get();
    assert_eq!(web.output(), record::stream(code::DATA, id, b"file", 9));
}

/// As STDIN is: the id is not free before for every application, nor a connection that carries one request.
#[test]
fn r53_r55_a_file_that_was_not_wanted_is_ended() {
    for (requests, role) in [(1, Role::Filter), (2, Role::Filter), (1, Role::Responder)] {
        let mut web = Web::with(Config {
            requests,
            ..Config::default()
        });
        let handle = web.conn.open().unwrap();
        web.conn.begin(handle, role).unwrap();
        web.conn.end(handle, Output::Params).unwrap();
        web.conn.end(handle, Output::Stdin).unwrap();
        assert_eq!(web.conn.write(handle, Output::Data, b"fi"), Ok(2));
        let before = record::outline(&web.output()).len();
        assert_eq!(before, 3 + usize::from(role == Role::Filter));
        web.feed(record::response(1, b"early"));
        let filters = (role == Role::Filter).then_some((code::DATA, 1, 0));
        let ended: Vec<_> = filters.into_iter().collect();
        assert_eq!(record::outline(&web.output()), ended);
        assert_eq!(web.conn.write(handle, Output::Data, b"le"), Ok(2));
        assert_eq!(web.output(), EMPTY, "the rest is dropped");
        let retired = requests == 1 && role == Role::Filter;
        assert_eq!(web.conn.is_retired(), retired);
    }
}

#[test]
fn r57_where_requests_do_not_share_closing_is_the_abort() {
    let mut web = Web::with(Config {
        requests: 1,
        ..Config::default()
    });
    let handle = web.request();
    web.output();
    web.close(handle);
    assert_eq!(web.output(), EMPTY, "PHP-FPM takes ABORT_REQUEST amiss");
    assert!(web.conn.is_finished());
}

#[test]
fn r57_abort_concerns_no_other_request() {
    let mut web = Web::new();
    let [first, second] = [web.request(), web.request()];
    web.output();
    web.close(first);
    web.close(first);
    assert_eq!(record::outline(&web.output()), [(code::ABORT, 1, 0)]);
    assert_eq!((web.conn.active(), web.conn.draining()), (2, 1));
    let bytes = [
        record::record(code::STDOUT, 1, b"dropped"),
        record::record(code::STDOUT, 2, b"kept"),
        record::end(1, 0, 0),
        record::response(2, b"!"),
    ];
    web.feed(bytes.concat());
    assert_eq!(web.stdout(second), content("kept!"));
    assert_eq!((web.conn.active(), web.conn.draining()), (0, 0));
    assert_eq!(web.conn.read(first, Input::Stdout, 1), Err(Gone));
}

#[test]
fn handles_of_closed_requests_reach_nobody() {
    let mut web = Web::new();
    let old = web.request();
    web.feed(record::response(1, b"old"));
    web.close(old);
    let new = web.begin();
    assert_eq!((old.id(), old.slot()), (new.id(), new.slot()));
    web.output();
    assert_eq!(web.conn.write(old, Output::Stdin, b"x"), Err(Gone));
    assert_eq!(web.conn.end(old, Output::Params), Err(Gone));
    assert_eq!(web.conn.room(old, Output::Stdin), Err(Gone));
    assert_eq!(web.conn.wait(old, Output::Stdin), Err(Gone));
    assert_eq!(web.conn.readable(old, Input::Stdout), Err(Gone));
    web.close(old);
    assert_eq!(web.output(), EMPTY);
    assert_eq!(web.conn.ended(new), Ok(None));
}
