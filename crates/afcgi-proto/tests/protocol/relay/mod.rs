//! The relay under a model of nginx's stock module: it writes one request with id 1, in pieces of any
//! size, and reads records with id 1 into buffers of any size.

mod params;
mod stock;
mod upgrade;

use afcgi_proto::inbox::Broken;
use afcgi_proto::relay::{Recv, Relay, RelayError};
use afcgi_proto::{ConnectionError, RecordType, app, web};
use afcgi_testkit::Pair;
use afcgi_testkit::record::{self, code};

use crate::support::Web;
use stock::{Stock, body, drive, request};

#[test]
fn golden_bytes_there_and_back() {
    let mut web = Web::new();
    web.conn.open().unwrap();
    let mut relay = Relay::new(web.conn.open().unwrap());
    let sent = b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\
                 \x01\x04\x00\x01\x00\x05\x03\x00\x01\x02Abc\x00\x00\x00\
                 \x01\x04\x00\x01\x00\x00\x00\x00\
                 \x01\x05\x00\x01\x00\x00\x00\x00";
    assert_eq!(relay.send(&mut web.conn, sent), Ok(sent.len()));
    assert_eq!(
        web.output(),
        b"\x01\x01\x00\x02\x00\x08\x00\x00\x00\x01\x01\x00\x00\x00\x00\x00\
          \x01\x04\x00\x02\x00\x05\x00\x00\x01\x02Abc\
          \x01\x04\x00\x02\x00\x00\x00\x00\
          \x01\x05\x00\x02\x00\x00\x00\x00"
    );
    let mut out = [0; 100];
    assert_eq!(relay.recv(&mut web.conn, &mut &mut out[..]), Recv::Pending);
    web.feed(
        b"\x01\x06\x00\x02\x00\x02\x06\x00ok......\
          \x01\x07\x00\x02\x00\x01\x00\x00!\
          \x01\x07\x00\x02\x00\x00\x00\x00\
          \x01\x06\x00\x02\x00\x00\x00\x00\
          \x01\x03\x00\x02\x00\x08\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00",
    );
    let expected = b"\x01\x07\x00\x01\x00\x01\x00\x00!\
          \x01\x06\x00\x01\x00\x02\x00\x00ok\
          \x01\x06\x00\x01\x00\x00\x00\x00\
          \x01\x03\x00\x01\x00\x08\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00";
    assert_eq!(
        relay.recv(&mut web.conn, &mut &mut [0; 0][..]),
        Recv::Pending
    );
    let count = expected.len();
    assert_eq!(
        relay.recv(&mut web.conn, &mut &mut out[..]),
        Recv::Bytes(count)
    );
    assert_eq!(out[..count], expected[..]);
    assert_eq!(relay.recv(&mut web.conn, &mut &mut out[..]), Recv::End);
}

#[test]
fn byte_exact_with_pieces_and_buffers_of_any_size() {
    for size in [1, 2, 7, 8, 9, 15, 16, 17, 100, 4096, 1 << 20] {
        for length in [0, 1, 300, 5000] {
            let mut pair = Pair::new(web::Config::default(), app::Config::default());
            let mut stocks = [Stock::new(&mut pair, request("k", &body(length)))];
            drive(&mut pair, &mut stocks, size, 1000);
            let expected = (body(length), b"k".to_vec());
            let (stdout, stderr, _) = stocks[0].response();
            assert!((stdout, stderr) == expected, "pieces of {size}, {length}");

            let mut stocks = [Stock::new(&mut pair, request("k", &body(length)))];
            drive(&mut pair, &mut stocks, 1000, size);
            let (stdout, stderr, end) = stocks[0].response();
            assert!((stdout, stderr) == expected, "buffers of {size}, {length}");
            assert_eq!(end[..4], (length as u32).to_be_bytes());
        }
    }
}

#[test]
fn a_large_body_there_and_back_with_and_without_flow_control() {
    for flow in [false, true] {
        let mut pair = Pair::new(web::Config::default(), app::Config::default());
        if flow {
            pair.web.probe();
            pair.settle().unwrap();
        }
        let large = body(3 << 20);
        let mut stocks =
            Vec::from_iter((0..3).map(|n| Stock::new(&mut pair, request(&n.to_string(), &large))));
        drive(&mut pair, &mut stocks, 50_000, 70_000);
        for stock in stocks {
            assert!(stock.response().0 == large);
            stock.relay.close(&mut pair.web, pair.now);
        }
        assert_eq!((pair.web.active(), pair.app.active()), (0, 0));
        // Nothing of it came as an abort.
        let records = record::parse(&pair.to_app.log);
        assert!(records.iter().all(|record| record.code != code::ABORT));
    }
}

#[test]
fn many_at_once_with_small_buffers_everywhere() {
    let web_config = web::Config {
        receive_buffer: 500,
        output_buffer: 300,
        output_turn: 100,
        ..web::Config::default()
    };
    let app_config = app::Config {
        stdin_buffer: 400,
        output_buffer: 300,
        output_turn: 100,
        ..app::Config::default()
    };
    let mut pair = Pair::new(web_config, app_config);
    pair.to_app.capacity = 37;
    pair.to_web.capacity = 41;
    let mut stocks = Vec::from_iter((0..50).map(|n| {
        let key = n.to_string();
        Stock::new(&mut pair, request(&key, key.repeat(n * 40).as_bytes()))
    }));
    drive(&mut pair, &mut stocks, 333, 77);
    for (n, stock) in stocks.iter().enumerate() {
        let key = n.to_string();
        let (stdout, stderr, _) = stock.response();
        assert_eq!(
            (stdout, stderr),
            (key.repeat(n * 40).into_bytes(), key.into_bytes())
        );
    }
}

#[test]
fn breaking_off_anywhere_wedges_nobody() {
    let whole = request("broken", &body(60));
    for cut in 0..whole.len() {
        let mut pair = Pair::new(web::Config::default(), app::Config::default());
        let mut neighbour = [Stock::new(&mut pair, request("fine", b"neighbour"))];
        let mut broken = Stock::new(&mut pair, whole[..cut].to_vec());
        broken.send(&mut pair, usize::MAX);
        broken.relay.close(&mut pair.web, pair.now);
        drive(&mut pair, &mut neighbour, 10, 10);
        let (stdout, stderr, _) = neighbour[0].response();
        assert_eq!(
            (&stdout[..], &stderr[..]),
            (&b"neighbour"[..], &b"fine"[..])
        );
        // Whole records only, and the broken one's end has come.
        record::parse(&pair.to_app.log);
        assert_eq!(
            (pair.web.active(), pair.app.active()),
            (0, 0),
            "cut at {cut}"
        );
    }
}

#[test]
fn a_client_that_goes_away_in_the_middle_of_a_response() {
    let mut pair = Pair::new(web::Config::default(), app::Config::default());
    let mut gone = Stock::new(&mut pair, request("k", b"body"));
    gone.send(&mut pair, usize::MAX);
    pair.settle().unwrap();
    let Some(app::Event::Request { handle, .. }) = pair.app.poll_event() else {
        panic!("no request");
    };
    pair.app
        .write(handle, app::Output::Stdout, b"half")
        .unwrap();
    pair.settle().unwrap();
    gone.recv(&mut pair, 10);
    assert_eq!(gone.received.len(), 10);
    gone.relay.close(&mut pair.web, pair.now);
    pair.settle().unwrap();
    let events = std::iter::from_fn(|| pair.app.poll_event());
    assert_eq!(events.last(), Some(app::Event::Aborted(handle)));
    assert_eq!(pair.web.active(), 0);
}

/// What a relay gives until there is no more of it.
fn received(web: &mut Web, relay: &mut Relay) -> (Vec<u8>, Recv) {
    let mut all = Vec::new();
    loop {
        let mut buffer = [0; 5];
        match relay.recv(&mut web.conn, &mut &mut buffer[..]) {
            Recv::Bytes(count) => all.extend(&buffer[..count]),
            end => return (all, end),
        }
    }
}

fn sent() -> (Web, Relay) {
    sent_with(web::Config::default())
}

fn sent_with(config: web::Config) -> (Web, Relay) {
    let mut web = Web::with(config);
    let mut relay = Relay::new(web.conn.open().unwrap());
    let bytes = request("k", b"");
    assert_eq!(relay.send(&mut web.conn, &bytes), Ok(bytes.len()));
    web.output();
    (web, relay)
}

#[test]
fn r31_a_lost_connection_breaks_the_response_off_between_records() {
    for part in [&b""[..], b"part of it"] {
        let (mut web, mut relay) = sent();
        if !part.is_empty() {
            web.feed(record::record(code::STDOUT, 1, part));
        }
        // The next record has begun, and some of it is there.
        web.feed(&record::record(code::STDOUT, 1, b"and more")[..11]);
        assert!(web.conn.end_of_input().is_err());
        let (bytes, end) = received(&mut web, &mut relay);
        assert_eq!(end, Recv::Broken(Broken::Truncated));
        let content = record::content(&bytes, code::STDOUT, 1);
        assert_eq!(content, [part, b"and"].concat());
    }
}

#[test]
fn r31_whoever_waits_is_told_that_the_connection_is_lost() {
    let (mut web, mut relay) = sent();
    let (_, pending) = received(&mut web, &mut relay);
    assert_eq!(pending, Recv::Pending);
    web.conn.lost();
    assert_eq!(web.events(), [web::Event::Readable(relay.handle())]);
    let (bytes, end) = received(&mut web, &mut relay);
    assert_eq!((bytes.len(), end), (0, Recv::Broken(Broken::Truncated)));
}

#[test]
fn a_stalled_response_breaks_off() {
    let (mut web, mut relay) = sent_with(web::Config {
        receive_buffer: 100,
        overflow: 0,
        ..web::Config::default()
    });
    web.request();
    let record = record::record(code::STDOUT, 1, &[7; 150]);
    let taken = web.conn.receive(web.now, &record).unwrap();
    assert_eq!(
        web.conn.deadline(web.now),
        Some(web.now + web::Config::default().stall_timeout)
    );
    web.pass(web::Config::default().stall_timeout);
    web.feed(&record[taken..]);
    let (bytes, end) = received(&mut web, &mut relay);
    assert_eq!(record::content(&bytes, code::STDOUT, 1), [7; 100]);
    assert_eq!(end, Recv::Broken(Broken::Stalled));
    web.feed(record::end(1, 0, 0));
    assert_eq!(
        received(&mut web, &mut relay).1,
        Recv::Broken(Broken::Stalled)
    );
    relay.close(&mut web.conn, web.now);
    assert_eq!(web.conn.active(), 1);
}

#[test]
fn r51_refusals_are_relayed() {
    for status in [1, 2, 3, 99] {
        let (mut web, mut relay) = sent();
        web.feed(record::end(1, 7, status));
        let (bytes, end) = received(&mut web, &mut relay);
        assert_eq!(end, Recv::End);
        let expected = [
            record::record(code::STDOUT, 1, b""),
            record::end(1, 7, status),
        ];
        assert_eq!(bytes, expected.concat());
    }
}

#[test]
fn what_is_written_after_the_end_is_taken_and_dropped() {
    let mut web = Web::new();
    let mut relay = Relay::new(web.conn.open().unwrap());
    let bytes = request("k", &body(100_000));
    let (head, rest) = bytes.split_at(1000);
    assert_eq!(relay.send(&mut web.conn, head), Ok(1000));
    web.feed(record::response(1, b"early"));
    web.output();
    assert_eq!(relay.send(&mut web.conn, rest), Ok(rest.len()));
    assert_eq!(web.output(), b"");
    assert_eq!(received(&mut web, &mut relay).1, Recv::End);
}

#[test]
fn a_full_connection_takes_less_and_tells_when_to_go_on() {
    let mut web = Web::new();
    let mut relay = Relay::new(web.conn.open().unwrap());
    let bytes = request("k", &body(1 << 20));
    let mut sent = relay.send(&mut web.conn, &bytes).unwrap();
    assert!(sent < 100_000);
    assert_eq!(relay.send(&mut web.conn, &bytes[sent..]), Ok(0));
    let mut output = Vec::new();
    while sent < bytes.len() {
        assert_eq!(web.events(), []);
        output.extend(web.output());
        assert_eq!(web.events(), [web::Event::Writable(relay.handle())]);
        sent += relay.send(&mut web.conn, &bytes[sent..]).unwrap();
    }
    output.extend(web.output());
    assert_eq!(record::content(&output, code::STDIN, 1), body(1 << 20));
}

#[test]
fn what_is_no_single_request_is_refused() {
    let begin = record::begin(1, 1, 1);
    let after_begin = |code| [begin.clone(), record::record(code, 1, b"x")].concat();
    let unexpected = |code: u8| Err(RelayError::Unexpected(RecordType::from(code)));
    let cases = [
        (
            b"GET / HTTP/1.1".to_vec(),
            Err(RelayError::Record(ConnectionError::Version { found: b'G' })),
        ),
        (
            record::record(code::PARAMS, 1, b"x"),
            unexpected(code::PARAMS),
        ),
        (record::record(code::STDIN, 1, b""), unexpected(code::STDIN)),
        (
            [begin.clone(), begin.clone()].concat(),
            unexpected(code::BEGIN),
        ),
        (after_begin(code::ABORT), unexpected(code::ABORT)),
        (after_begin(code::STDOUT), unexpected(code::STDOUT)),
        (after_begin(code::GET_VALUES), unexpected(code::GET_VALUES)),
        (
            record::record(code::BEGIN, 1, &[0; 9]),
            Err(RelayError::Record(ConnectionError::BodyLength {
                record_type: RecordType::BeginRequest,
                found: 9,
            })),
        ),
    ];
    for (bytes, expected) in cases {
        for size in [1, 1000] {
            let mut web = Web::new();
            let mut relay = Relay::new(web.conn.open().unwrap());
            let results = bytes
                .chunks(size)
                .map(|piece| relay.send(&mut web.conn, piece));
            let first = results
                .filter(Result::is_err)
                .map(|error| error.map(|_| ()))
                .next();
            assert_eq!(first, Some(expected), "{bytes:?}");
            relay.close(&mut web.conn, web.now);
        }
    }
    let mut web = Web::new();
    let handle = web.conn.open().unwrap();
    let mut relay = Relay::new(handle);
    web.close(handle);
    let gone = relay.send(&mut web.conn, &begin);
    assert_eq!(gone, Err(RelayError::Gone));
    let mut out = [0; 9];
    let broken = Recv::Broken(Broken::Truncated);
    assert_eq!(relay.recv(&mut web.conn, &mut &mut out[..]), broken);
}

#[test]
fn r03_what_has_piled_up_is_given_in_records_of_their_largest_size() {
    let (mut web, mut relay) = sent();
    for _ in 0..2 {
        web.feed(record::record(code::STDOUT, 1, &body(50_000)));
    }
    web.feed(record::response(1, b""));
    let (bytes, end) = received(&mut web, &mut relay);
    assert_eq!(end, Recv::End);
    let outline = record::outline(&bytes);
    assert_eq!(
        outline,
        [
            (code::STDOUT, 1, 65_535),
            (code::STDOUT, 1, 100_000 - 65_535),
            (code::STDOUT, 1, 0),
            (code::END, 1, 8)
        ]
    );
    let expected = [body(50_000), body(50_000)].concat();
    assert_eq!(record::content(&bytes, code::STDOUT, 1), expected);
}
