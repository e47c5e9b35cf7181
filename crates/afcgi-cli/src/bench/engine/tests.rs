//! The engine against applications that are played by hand.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn record(kind: u8, id: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, kind, 0, id, 0, content.len() as u8, 0, 0];
    bytes.extend_from_slice(content);
    bytes
}

fn good(id: u8) -> Vec<u8> {
    [
        record(6, id, b"Status: 200 OK\r\n\r\nok"),
        record(6, id, b""),
        record(3, id, &[0; 8]),
    ]
    .concat()
}

fn config(port: u16, concurrent: u16) -> Config {
    let params = [(b"A".as_slice(), b"b".as_slice())];
    Config {
        endpoints: vec![Endpoint::Tcp(([127, 0, 0, 1], port).into())],
        connections: 1,
        concurrent,
        template: Template::new(1, true, params.into_iter(), b""),
        keep_conn: true,
        expect: Expect {
            status: ExpectStatus::Is(200),
            body: Some(b"ok".to_vec()),
            quiet: true,
            ..Expect::default()
        },
        timeout: 20 * SECOND,
        patience: 20 * SECOND,
        abort_after: 0,
        aborts: 0.0,
        seed: 1,
        stall: None,
    }
}

/// An application that does so with each connection, in order, and with no other.
fn serve(connections: Vec<Box<dyn FnOnce(TcpStream) + Send>>) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        for connection in connections {
            let (stream, _) = listener.accept().unwrap();
            connection(stream);
        }
    });
    (port, thread)
}

/// Reads a record: its type and its id.
fn read(stream: &mut TcpStream) -> Option<(u8, u8)> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).ok()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]])) + usize::from(header[6]);
    stream.read_exact(&mut vec![0; length]).ok()?;
    Some((header[1], header[3]))
}

/// Reads up to the end of so many requests.
fn requests(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut ids = Vec::new();
    while ids.len() < count {
        match read(stream) {
            Some((5, id)) => ids.push(id),
            Some(_) => {}
            None => break,
        }
    }
    ids
}

fn run(config: Config, requests: u64) -> (Engine, Stop) {
    let mut engine = Engine::new(config, Arc::default()).unwrap();
    engine.supply(Supply::Closed { left: requests });
    let end = Instant::now() + Duration::from_secs(20);
    let stop = engine.run(end, u64::MAX).unwrap();
    (engine, stop)
}

/// Two requests at once, answered by these bytes in pieces of `piece`.
fn play(answer: Vec<u8>, piece: usize) -> Stats {
    let play = move |mut stream: TcpStream| {
        requests(&mut stream, 2);
        for piece in answer.chunks(piece) {
            if stream.write_all(piece).is_err() {
                return;
            }
            thread::yield_now();
        }
        _ = stream.shutdown(std::net::Shutdown::Write);
        _ = stream.read(&mut [0]);
    };
    let (port, thread) = serve(vec![Box::new(play)]);
    let (mut engine, stop) = run(config(port, 2), 2);
    assert_eq!((stop, engine.in_flight()), (Stop::Done, 0));
    let stats = engine.stats().take();
    drop(engine);
    thread.join().unwrap();
    stats
}

#[test]
fn answers_in_any_pieces_and_order_are_taken() {
    for piece in [1, 2, 7, 8, 9, 1000] {
        let stats = play([good(2), good(1)].concat(), piece);
        assert_eq!((stats.completed, stats.failed()), (2, 0), "{piece}");
        assert_eq!((stats.latency.len(), stats.statuses[200]), (2, 2));
        assert_eq!(stats.body_in, 4);
    }
    let cut = [
        record(6, 1, b"X: y\n"),
        record(6, 2, b"A: b\n\no"),
        record(6, 1, b"\nok"),
        record(3, 1, &[0; 8]),
        record(6, 2, b"k"),
        record(3, 2, &[0; 8]),
    ];
    assert_eq!(play(cut.concat(), 1000).completed, 2);
}

#[test]
fn an_answer_that_begins_like_the_last_one_is_not_taken_for_it() {
    let longer = [
        record(6, 2, b"Status: 200 OK\r\n\r\nok"),
        record(6, 2, b"!"),
        record(3, 2, &[0; 8]),
    ]
    .concat();
    let stats = play([good(1), longer].concat(), 1000);
    assert_eq!(stats.completed, 1);
    assert_eq!(stats.failures(Kind::Content).count, 1);
}

#[test]
fn wrong_answers_are_counted() {
    let stdout = |content: &[u8]| [record(6, 1, content), record(3, 1, &[0; 8])].concat();
    let ended = |body: [u8; 8]| [record(6, 1, b"\nok"), record(3, 1, &body)].concat();
    let cases: [(Kind, u64, Vec<u8>); 15] = [
        (Kind::Content, 1, [stdout(b"\nno"), good(2)].concat()),
        (Kind::Head, 1, [stdout(b"ok"), good(2)].concat()),
        (Kind::Head, 1, [record(3, 1, &[0; 8]), good(2)].concat()),
        (Kind::Head, 1, [stdout(b""), good(2)].concat()),
        (
            Kind::Status,
            1,
            [stdout(b"Status: 500\n\nok"), good(2)].concat(),
        ),
        (
            Kind::AppStatus,
            1,
            [ended([0, 0, 0, 1, 0, 0, 0, 0]), good(2)].concat(),
        ),
        (
            Kind::CannotMultiplex,
            1,
            [ended([0, 0, 0, 0, 1, 0, 0, 0]), good(2)].concat(),
        ),
        (
            Kind::Overloaded,
            1,
            [ended([0, 0, 0, 0, 2, 0, 0, 0]), good(2)].concat(),
        ),
        (
            Kind::Rejected,
            1,
            [ended([0, 0, 0, 0, 3, 0, 0, 0]), good(2)].concat(),
        ),
        (
            Kind::Stderr,
            1,
            [record(7, 1, b"oops"), good(1), good(2)].concat(),
        ),
        // With the connection both fail.
        (Kind::Protocol, 2, record(6, 3, b"\nok")),
        (Kind::Protocol, 2, vec![2, 6, 0, 1, 0, 0, 0, 0]),
        (
            Kind::Protocol,
            2,
            [record(6, 1, b""), record(6, 1, b"\nok")].concat(),
        ),
        (Kind::Protocol, 2, record(4, 1, b"a")),
        (Kind::Closed, 2, record(6, 1, b"\nok")),
    ];
    for (kind, count, answer) in cases {
        for piece in [1, 1000] {
            let stats = play(answer.clone(), piece);
            assert_eq!(
                stats.failures(kind).count,
                count,
                "{kind:?}: {:?}",
                stats.failure()
            );
            assert_eq!(
                (stats.failed(), stats.completed),
                (count, 2 - count),
                "{kind:?}"
            );
        }
    }
    // An end that comes twice costs the one that is still waited for.
    let stats = play([good(1), record(3, 1, &[0; 8])].concat(), 1000);
    assert_eq!(
        (stats.completed, stats.failures(Kind::Protocol).count),
        (1, 1)
    );
}

#[test]
fn silence_is_a_stall() {
    let silent = |mut stream: TcpStream| _ = stream.read_to_end(&mut Vec::new());
    let (port, thread) = serve(vec![Box::new(silent)]);
    let mut config = config(port, 2);
    config.stall = Some(Duration::from_millis(200));
    let (engine, stop) = run(config, 2);
    assert_eq!((stop, engine.in_flight()), (Stop::Stalled, 2));
    drop(engine);
    thread.join().unwrap();
}

/// What is not answered in time fails, its id is not used again, and its place is given to another.
#[test]
fn late_answers() {
    let late = |mut stream: TcpStream| {
        assert_eq!(requests(&mut stream, 2), [1, 2]);
        stream.write_all(&good(2)).unwrap();
        // The next one takes the id that has become free.
        assert_eq!(requests(&mut stream, 1), [2]);
        // Both that wait are aborted; the last request, which begins meanwhile, has a new id.
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let (kind, id) = read(&mut stream).unwrap();
            if kind == 2 || kind == 5 {
                seen.push((kind, id));
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [(2, 1), (2, 2), (5, 3)]);
        let late = [
            record(6, 1, b"late"),
            record(3, 1, &[0; 8]),
            good(2),
            good(3),
        ];
        stream.write_all(&late.concat()).unwrap();
        _ = stream.read(&mut [0]);
    };
    let (port, thread) = serve(vec![Box::new(late)]);
    let mut config = config(port, 2);
    (config.timeout, config.patience) = (SECOND, SECOND);
    let (mut engine, stop) = run(config, 4);
    let stats = engine.stats();
    assert_eq!((stop, stats.completed), (Stop::Done, 2));
    assert_eq!(stats.failures(Kind::TimedOut).count, 2);
    drop(engine);
    thread.join().unwrap();
}

#[test]
fn aborts() {
    let heeds = |mut stream: TcpStream| {
        for id in 1..=3 {
            assert_eq!(requests(&mut stream, 1), [id]);
            assert_eq!(read(&mut stream), Some((2, id)));
            // Go says it twice.
            let end = record(3, id, &[0; 8]);
            stream
                .write_all(&[record(6, id, b"x"), end.clone(), end].concat())
                .unwrap();
        }
        // One of a single request may be closed for it.
        assert_eq!(requests(&mut stream, 1), [4]);
        assert_eq!(read(&mut stream), Some((2, 4)));
    };
    let (port, thread) = serve(vec![Box::new(heeds)]);
    let mut config = config(port, 1);
    config.aborts = 1.0;
    config.abort_after = SECOND / 100;
    // The connection goes on as for several, but with one at a time.
    config.concurrent = 2;
    let mut engine = Engine::new(config, Arc::default()).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    for _ in 1..=4 {
        engine.supply(Supply::Closed { left: 1 });
        assert_eq!(engine.run(end, u64::MAX).unwrap(), Stop::Done);
    }
    let stats = engine.stats();
    assert_eq!(
        (stats.aborted, stats.aborted_by_close, stats.failed()),
        (4, 1, 0)
    );
    assert_eq!((stats.completed, stats.latency.len()), (0, 0));
    assert_eq!(
        stats.abort_latency.as_ref().map(|times| times.len()),
        Some(3)
    );
    drop(engine);
    thread.join().unwrap();
}

/// A request that goes to a kept connection which is being closed is sent again; one whose answer has begun is not.
#[test]
fn kept_connections_that_are_closed() {
    let answer = |stream: &mut TcpStream| {
        let ids = requests(stream, 1);
        stream.write_all(&good(ids[0])).unwrap();
    };
    let closes = move |mut stream: TcpStream| {
        answer(&mut stream);
        answer(&mut stream);
        requests(&mut stream, 1);
    };
    let breaks_off = move |mut stream: TcpStream| {
        answer(&mut stream);
        let ids = requests(&mut stream, 1);
        stream.write_all(&record(6, ids[0], b"\no")).unwrap();
    };
    let (port, thread) = serve(vec![Box::new(closes), Box::new(breaks_off)]);
    let (mut engine, stop) = run(config(port, 1), 4);
    let stats = engine.stats();
    assert_eq!((stop, stats.completed, stats.resent), (Stop::Done, 3, 1));
    assert_eq!(stats.failures(Kind::Closed).count, 1);
    assert_eq!(
        (stats.begun, stats.connections, stats.reconnects),
        (4, 2, 1)
    );
    drop(engine);
    thread.join().unwrap();
}

/// An application that closes after each answer is not sent requests that would be lost.
#[test]
fn connections_that_are_never_kept() {
    let once = || {
        let once = |mut stream: TcpStream| {
            let ids = requests(&mut stream, 1);
            stream.write_all(&good(ids[0])).unwrap();
        };
        Box::new(once) as Box<dyn FnOnce(TcpStream) + Send>
    };
    let (port, thread) = serve((0..20).map(|_| once()).collect());
    let (mut engine, stop) = run(config(port, 1), 20);
    assert!(engine.closes());
    let stats = engine.stats();
    assert_eq!((stop, stats.completed, stats.failed()), (Stop::Done, 20, 0));
    assert!(stats.resent <= 3, "{} were sent again", stats.resent);
    assert_eq!(stats.connections, 20);
    drop(engine);
    thread.join().unwrap();
}

/// Bodies of any length, whole, beside each other; an answer that comes before the body was sent ends it.
#[test]
fn long_bodies() {
    let length = 300_000;
    let reads = move |mut stream: TcpStream| {
        let mut bodies = [0, 0];
        let mut ended = 0;
        while ended < 2 {
            let mut header = [0; 8];
            stream.read_exact(&mut header).unwrap();
            let count = usize::from(u16::from_be_bytes([header[4], header[5]]));
            stream.read_exact(&mut vec![0; count]).unwrap();
            if header[1] == 5 {
                bodies[usize::from(header[3]) - 1] += count;
                ended += usize::from(count == 0);
            }
        }
        assert_eq!(bodies, [length, length]);
        stream.write_all(&[good(2), good(1)].concat()).unwrap();
        _ = stream.read_to_end(&mut Vec::new());
    };
    let early = |mut stream: TcpStream| {
        while read(&mut stream).is_some_and(|(kind, _)| kind != 5) {}
        stream.write_all(&good(1)).unwrap();
        _ = stream.read_to_end(&mut Vec::new());
    };
    for (app, concurrent) in [
        (Box::new(reads) as Box<dyn FnOnce(TcpStream) + Send>, 2),
        (Box::new(early), 1),
    ] {
        let (port, thread) = serve(vec![app]);
        let mut config = config(port, concurrent);
        // The second is more than any socket holds.
        let length = if concurrent == 2 { length } else { 64 << 20 };
        config.template = Template::new(1, true, std::iter::empty(), &vec![b'x'; length]);
        let (mut engine, stop) = run(config, u64::from(concurrent));
        let stats = engine.stats();
        assert_eq!((stop, stats.completed), (Stop::Done, u64::from(concurrent)));
        drop(engine);
        thread.join().unwrap();
    }
}

/// In an open loop an answer that is late makes the ones behind it late.
#[test]
fn latency_from_the_time_that_was_intended() {
    let slow = |mut stream: TcpStream| {
        for number in 0..10 {
            let ids = requests(&mut stream, 1);
            if number == 0 {
                thread::sleep(Duration::from_millis(300));
            }
            stream.write_all(&good(ids[0])).unwrap();
        }
        _ = stream.read(&mut [0]);
    };
    let (port, thread) = serve(vec![Box::new(slow)]);
    let mut engine = Engine::new(config(port, 1), Arc::default()).unwrap();
    engine.connect(Duration::from_secs(20)).unwrap();
    let now = Instant::now();
    let supply = Supply::Open {
        start: engine.at(now),
        interval: 20_000_000.0,
        next: 0,
        left: 10,
    };
    engine.supply(supply);
    let end = now + Duration::from_secs(20);
    assert_eq!(engine.run(end, u64::MAX).unwrap(), Stop::Done);
    let stats = engine.stats();
    assert_eq!(stats.completed, 10);
    // Each of those behind it has waited 20 ms less than the one before.
    assert!(stats.latency.max() >= 300_000_000);
    assert!(stats.latency.value_at_quantile(0.5) >= 100_000_000);
    drop(engine);
    thread.join().unwrap();
}
