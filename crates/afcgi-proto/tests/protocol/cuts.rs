//! no boundary has a meaning. Whole conversations, cut at every byte, give the same events,
//! the same output and the same content.

use std::fmt::Debug;

use afcgi_proto::app::{self, Input};
use afcgi_proto::inbox::Read;
use afcgi_proto::{RequestId, web};
use afcgi_testkit::record::{self, code};

use crate::support::{App, Web};

/// Everything that a web server could send: all roles, padding, management records in between,
/// aborts, refusals, failures, late records, and reused ids.
fn requests() -> Vec<u8> {
    let get_values = record::padded(code::GET_VALUES, 0, b"\x0f\x00FCGI_MPXS_CONNS", &[1; 3]);
    let long = "v".repeat(130);
    let params = record::pairs(&[("SCRIPT_NAME", "/x"), ("", ""), ("LONG", &long)]);
    [
        get_values.clone(),
        record::begin(1, 1, 1),
        record::begin(0x0203, 3, 1),
        record::stream(code::PARAMS, 1, &params, 7),
        record::params(0x0203, &[("A", "b")]),
        get_values,
        record::padded(code::STDIN, 1, b"first", &[9; 11]),
        record::record(code::STDIN, 0x0203, b"other"),
        record::stream(code::STDIN, 1, b"second", 2),
        record::record(77, 0, b"what is this"),
        record::record(77, 1, b"and this"),
        record::stream(code::STDIN, 0x0203, b"", 1),
        record::stream(code::DATA, 0x0203, b"the file", 3),
        // Refused by role, failed by its parameters, given up, and late records for each.
        record::begin(4, 9, 1),
        record::stream(code::PARAMS, 4, &params, 50),
        record::begin(5, 1, 1),
        record::stream(code::PARAMS, 5, b"\x7f\x7fx", 2),
        record::stream(code::STDIN, 5, b"late", 4),
        record::begin(6, 1, 1),
        record::record(code::PARAMS, 6, b"\x01"),
        record::record(code::ABORT, 6, b""),
        record::record(code::PARAMS, 6, b"\x01"),
        record::request(6, &[("AGAIN", "yes")], b"again"),
        record::request(7, &[], b"x"),
        record::record(code::ABORT, 7, b""),
        record::request(7, &[], b"y"),
    ]
    .concat()
}

/// What a web server is told.
fn responses() -> Vec<u8> {
    [
        record::record(code::GET_VALUES_RESULT, 0, b"\x0f\x01FCGI_MPXS_CONNS1"),
        record::padded(code::STDOUT, 1, b"Status: 200", &[5; 9]),
        record::record(code::STDOUT, 3, b"three"),
        record::record(code::STDERR, 1, b"log"),
        record::stream(code::STDOUT, 1, b" OK\r\n\r\nbody", 4),
        record::record(code::GET_VALUES_RESULT, 0, b""),
        record::record(88, 2, b"unknown"),
        record::padded(code::END, 2, &[0, 0, 0, 0, 2, 0, 0, 0], &[1; 7]),
        record::stream(code::STDERR, 1, b"", 1),
        record::end(1, 7, 0),
        record::end(1, 8, 0),
        record::record(code::STDOUT, 1, b"late"),
        record::stream(code::STDOUT, 4, b"dropped", 3),
        record::end(4, 0, 0),
        record::stream(code::STDOUT, 3, b"!", 1),
    ]
    .concat()
}

/// Both runs in the same way, whatever the pieces.
fn same<T: PartialEq + Debug>(bytes: &[u8], run: impl Fn(&[&[u8]]) -> T) {
    let whole = run(&[bytes]);
    for cut in 0..=bytes.len() {
        let (a, b) = bytes.split_at(cut);
        assert_eq!(run(&[a, b]), whole, "cut at {cut}");
    }
    for size in [1, 2, 3, 7, 8, 9, 100] {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        assert_eq!(run(&pieces), whole, "pieces of {size}");
    }
}

/// Takes all that can be read, and how it ends.
fn drain(mut read: impl FnMut() -> Read) -> (Vec<u8>, Read) {
    let mut bytes = Vec::new();
    loop {
        match read() {
            Read::Content(content) => bytes.extend(content),
            end => return (bytes, end),
        }
    }
}

fn run_app(pieces: &[&[u8]]) -> impl PartialEq + Debug + use<> {
    let mut app = App::new();
    for piece in pieces {
        app.feed(piece);
    }
    let output = app.output();
    let mut log = Vec::new();
    for event in app.events() {
        let mut text = format!("{event:?}");
        if let app::Event::Request { handle, .. } = event {
            for input in [Input::Stdin, Input::Data] {
                if app.conn.is_active(handle) {
                    let (bytes, end) = drain(|| app.conn.read(handle, input, 5).unwrap());
                    text += &format!(" {input:?}: {} {end:?}", bytes.escape_ascii());
                }
            }
        }
        log.push(text);
    }
    (log, output, app.conn.active())
}

#[test]
fn r04_app_conversation_cut_at_every_byte() {
    let bytes = requests();
    same(&bytes, run_app);
    let whole = format!("{:?}", run_app(&[&bytes]));
    for part in ["firstsecond", "the file", "AGAIN", "again", "Failed"] {
        assert!(whole.contains(part), "{part} in {whole}");
    }
    assert!(!whole.contains("late"));
}

#[test]
fn r04_app_error_cut_at_every_byte() {
    let bytes = [requests(), record::begin(1, 1, 1), requests()].concat();
    same(&bytes, |pieces| {
        let mut app = App::new();
        let results = pieces.iter().map(|piece| app.conn.receive(app.now, piece));
        let error = results.filter_map(Result::err).next();
        assert!(error.is_some());
        (error, app.output(), app.events().len())
    });
}

fn run_web(pieces: &[&[u8]]) -> impl PartialEq + Debug + use<> {
    let mut web = Web::new();
    web.conn.probe();
    let handles = [(); 4].map(|()| web.request());
    web.close(handles[3]);
    web.output();
    for piece in pieces {
        web.feed(piece);
    }
    let mut log = vec![format!("{:?} {:?}", web.events(), web.output())];
    for handle in &handles[..3] {
        for input in [web::Input::Stdout, web::Input::Stderr] {
            let (bytes, end) = drain(|| web.conn.read(*handle, input, 4).unwrap());
            log.push(format!("{} {end:?}", bytes.escape_ascii()));
        }
        log.push(format!("{:?}", web.conn.ended(*handle)));
    }
    (log, web.conn.active(), web.conn.draining())
}

#[test]
fn r04_web_conversation_cut_at_every_byte() {
    let bytes = responses();
    same(&bytes, run_web);
    let whole = format!("{:?}", run_web(&[&bytes]));
    for part in [
        "Status: 200 OK",
        "three!",
        "log",
        "Overloaded",
        "app_status: 7",
    ] {
        assert!(whole.contains(part), "{part} in {whole}");
    }
    assert!(!whole.contains("late") && !whole.contains("app_status: 8"));
}

/// An application that answers as soon as it is told: the order of its answers depends on how the
/// input comes, what is answered to each request does not.
#[test]
fn r04_an_application_at_work_cut_at_every_byte() {
    let mut bytes = requests();
    bytes.extend(record::stream(code::STDIN, 0xffff, b"nobody", 1));
    same(&bytes, |pieces| {
        let mut app = App::new();
        let mut output = Vec::new();
        for piece in pieces {
            app.feed(piece);
            let mut ready: Vec<_> = (app.events().into_iter())
                .filter_map(|event| match event {
                    app::Event::Request { handle, .. } | app::Event::Readable(handle) => {
                        Some(handle)
                    }
                    _ => None,
                })
                .collect();
            while let Some(handle) = ready.pop() {
                match app.conn.read(handle, Input::Stdin, usize::MAX) {
                    Ok(Read::Content(content)) => {
                        app.stdout(handle, &content);
                        ready.push(handle);
                    }
                    Ok(Read::End) => app.conn.finish(handle, 0).unwrap(),
                    Ok(Read::Pending) | Err(_) => {}
                    Ok(other) => panic!("{other:?}"),
                }
            }
            output.extend(app.output());
        }
        // Request 7 is aborted as soon as it is begun, and is then ended by whoever is first.
        [1, 0x0203, 4, 5, 6].map(|id: u16| {
            assert!(RequestId::new(id).is_some());
            [code::STDOUT, code::STDERR, code::END].map(|code| record::content(&output, code, id))
        })
    });
}
