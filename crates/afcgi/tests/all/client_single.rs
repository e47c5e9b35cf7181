//! An application that does not multiplex gets what a web server without multiplexing gives it: a
//! connection for each request, closed after it, and nothing run twice. Finding that out costs nobody
//! anything.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::common::peer::{Link, Peer, answers_within, ask, body, client, get, post, text};
use crate::common::{PATIENCE, eventually, patient};
use afcgi::client::{Client, Config, Error};
use afcgi_testkit::record::{code, end, record, response};

const HELLO: &str = "Content-Type: text/plain\r\n\r\nhello";
/// Far more than a request takes that waits for nothing, and far less than those of `PATIENCE`.
const SOON: Duration = Duration::from_secs(5);

/// Reads a request to its end; its id, and the flags of BEGIN_REQUEST.
async fn begun(link: &mut Link) -> Option<(u16, u8)> {
    let begin = link.next().await?;
    assert_eq!(begin.code, code::BEGIN);
    loop {
        let record = link.next().await?;
        if record.code == code::STDIN && record.content.is_empty() {
            return Some((begin.id, begin.content[2]));
        }
    }
}

#[tokio::test]
async fn r30_a_connection_carries_one_request_and_is_closed_after_it() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |_| {});
    let serving = tokio::spawn(async move {
        peer.say_no("4").await;
        for _ in 0..4 {
            let mut link = peer.accept().await;
            let (id, flags) = begun(&mut link).await.unwrap();
            assert_eq!(flags, 0, "FCGI_KEEP_CONN");
            link.say(&response(id, HELLO.as_bytes())).await;
            // The application leaves it open, as one does that works on.
            assert!(link.next().await.is_none());
        }
    });
    for _ in 0..2 {
        assert_eq!(text(&client, get("/")).await, "hello");
        assert_eq!(text(&client, post("/", "body")).await, "hello");
    }
    patient(serving).await.unwrap();
    assert_eq!(client.stats().opened, 5);
}

#[tokio::test]
async fn r30_connections_are_kept_for_whoever_wants_that() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| config.keep_conn = true);
    let serving = tokio::spawn(async move {
        peer.say_no("4").await;
        let mut link = peer.accept().await;
        for _ in 0..3 {
            let (id, flags) = begun(&mut link).await.unwrap();
            assert_eq!(flags, 1, "FCGI_KEEP_CONN");
            link.say(&response(id, HELLO.as_bytes())).await;
        }
    });
    for _ in 0..3 {
        assert_eq!(text(&client, get("/")).await, "hello");
    }
    patient(serving).await.unwrap();
    assert_eq!(client.stats().opened, 2);
}

/// A GET whose script takes the process with it, on a fresh connection or on one that was kept.
#[tokio::test]
async fn what_may_have_begun_is_not_sent_again() {
    for keep_conn in [false, true] {
        let peer = Peer::new().await;
        let client = client(peer.addr, |config| config.keep_conn = keep_conn);
        let serving = tokio::spawn(async move {
            peer.say_no("4").await;
            let mut link = peer.accept().await;
            link.answer(HELLO).await.unwrap();
            if !keep_conn {
                link = peer.accept().await;
            }
            link.request().await.unwrap();
            drop(link);
            let mut link = peer.accept().await;
            link.answer(HELLO).await.unwrap();
        });
        assert_eq!(text(&client, get("/")).await, "hello");
        let error = ask(&client, get("/")).await.unwrap_err();
        assert!(matches!(error, Error::Lost(_)), "{error:?}");
        assert_eq!(error.status(), 502);
        assert_eq!(client.stats().retries, 0);
        assert_eq!(text(&client, get("/")).await, "hello");
        patient(serving).await.unwrap();
    }
}

#[tokio::test]
async fn r51_what_was_refused_is_sent_again() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |_| {});
    let serving = tokio::spawn(async move {
        peer.say_no("4").await;
        for status in [1, 2] {
            let mut link = peer.accept().await;
            let (id, _) = link.request().await.unwrap();
            link.say(&end(id, 0, status)).await;
        }
        peer.accept().await.answer(HELLO).await.unwrap();
    });
    assert_eq!(text(&client, post("/", "body")).await, "hello");
    assert_eq!(client.stats().retries, 2);
    patient(serving).await.unwrap();
}

#[tokio::test]
async fn r40_what_each_of_several_processes_says_of_itself_limits_nobody() {
    for (connections, requests, multiplexes) in [("1", "1", "0"), ("1", "1", "1"), ("0", "0", "1")]
    {
        let peer = Peer::new().await;
        let client = client(peer.addr, |_| {});
        let serving = tokio::spawn(async move {
            let mut link = peer.accept().await;
            let values = [
                ("FCGI_MPXS_CONNS", multiplexes),
                ("FCGI_MAX_CONNS", connections),
                ("FCGI_MAX_REQS", requests),
            ];
            link.answer_values(&values).await;
            assert!(link.next().await.is_none());
            // All are there before the first is answered.
            let mut links = Vec::new();
            for _ in 0..3 {
                links.push(peer.accept().await);
            }
            for mut link in links {
                link.answer(HELLO).await.unwrap();
            }
        });
        let all = (0..3).map(|_| text(&client, get("/")));
        patient(futures_util::future::join_all(all)).await;
        patient(serving).await.unwrap();
    }
}

/// An application of one process that reads a connection to its end before it takes the next, and does
/// not answer GET_VALUES: libfcgi. How many connections it was asked on is counted.
async fn one_process(peer: Peer, asked: std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    loop {
        let mut link = peer.accept().await;
        while let Some(record) = link.next().await {
            match record.code {
                code::GET_VALUES => {
                    asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                code::STDIN if record.content.is_empty() => {
                    link.say(&response(record.id, HELLO.as_bytes())).await;
                }
                _ => {}
            }
        }
    }
}

/// How long the slowest of so many requests takes, one after the other with such a pause.
async fn slowest(client: &Client, count: usize, pause: Duration) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..count {
        let began = Instant::now();
        assert_eq!(text(client, get("/")).await, "hello");
        slowest = slowest.max(began.elapsed());
        tokio::time::sleep(pause).await;
    }
    slowest
}

#[tokio::test]
async fn where_nothing_is_known_a_request_waits_for_a_short_time() {
    let peer = Peer::new().await;
    let mut config = Config::default();
    assert_eq!(config.patience.unknown, Duration::from_millis(100));
    config.patience.shared = PATIENCE;
    config.patience.silent = PATIENCE;
    let client = Client::builder()
        .address(peer.addr.to_string())
        .config(config)
        .build()
        .unwrap();
    let asked = std::sync::Arc::default();
    tokio::spawn(one_process(peer, std::sync::Arc::clone(&asked)));
    // The process is free when the request comes to it, and not asked again.
    assert!(slowest(&client, 3, Duration::ZERO).await < SOON);
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn who_was_silent_is_asked_again_and_nobody_waits_for_it() {
    for pause in [0, 3, 15] {
        let peer = Peer::new().await;
        let client = client(peer.addr, |config| {
            config.patience.unknown = Duration::from_millis(100);
            config.patience.beside = Duration::from_millis(10);
            config.patience.silent = Duration::from_millis(1);
            config.patience.most = Duration::from_millis(1);
        });
        let asked = std::sync::Arc::default();
        tokio::spawn(one_process(peer, std::sync::Arc::clone(&asked)));
        // The first one waits for the answer.
        assert_eq!(text(&client, get("/")).await, "hello");
        let began = Instant::now();
        slowest(&client, 60, Duration::from_millis(pause)).await;
        let each = began.elapsed() / 60;
        assert!(each < Duration::from_millis(60 + pause), "{each:?}");
        assert!(asked.load(std::sync::atomic::Ordering::Relaxed) > 2);
    }
}

#[tokio::test]
async fn a_request_that_comes_while_the_application_is_asked_ends_that() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        // So long it would be held if no request came.
        config.patience.unknown = PATIENCE * 10;
        config.patience.beside = Duration::from_millis(10);
        config.patience.silent = Duration::from_millis(1);
        config.patience.most = Duration::from_millis(1);
    });
    let asked = std::sync::Arc::default();
    let count = std::sync::Arc::clone(&asked);
    tokio::spawn(async move {
        // At first it closes the connection instead.
        let mut link = peer.accept().await;
        assert_eq!(link.next().await.unwrap().code, code::GET_VALUES);
        drop(link);
        one_process(peer, count).await;
    });
    assert_eq!(text(&client, get("/")).await, "hello");
    assert!(slowest(&client, 20, Duration::from_millis(20)).await < SOON);
    assert!(asked.load(std::sync::atomic::Ordering::Relaxed) > 2);
}

/// Also where no connection is kept and requests come one by one.
#[tokio::test]
async fn who_said_no_is_asked_again_beside_few_requests() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.patience.said_no = Duration::from_millis(50);
    });
    tokio::spawn(async move {
        peer.say_no("4").await;
        loop {
            let mut link = peer.accept().await;
            tokio::spawn(async move {
                while let Some(record) = link.next().await {
                    let answer = match record.code {
                        code::GET_VALUES => {
                            let pairs = afcgi_testkit::record::pairs(&[("FCGI_MPXS_CONNS", "1")]);
                            afcgi_testkit::record::record(code::GET_VALUES_RESULT, 0, &pairs)
                        }
                        code::STDIN if record.content.is_empty() => {
                            response(record.id, HELLO.as_bytes())
                        }
                        _ => continue,
                    };
                    link.say(&answer).await;
                }
            });
        }
    });
    let end = Instant::now() + PATIENCE;
    // Until one connection serves all.
    loop {
        let before = client.stats().opened;
        assert_eq!(text(&client, get("/")).await, "hello");
        let stats = client.stats();
        if before > 1 && stats.opened == before && stats.connections == 1 {
            break;
        }
        assert!(Instant::now() < end, "{stats:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_refused_connection_makes_the_address_unknown() {
    let peer = Peer::new().await;
    let addr = peer.addr;
    let client = client(addr, |config| {
        answers_within(config, PATIENCE * 10);
        config.patience.unknown = Duration::from_secs(2);
        config.backoff = Duration::from_millis(1);
        config.backoff_most = Duration::from_millis(1);
    });
    let serving = tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        link.answer(HELLO).await.unwrap();
    });
    assert_eq!(text(&client, get("/")).await, "hello");
    patient(serving).await.unwrap();
    eventually("it is gone", || client.stats().connections == 0).await;
    assert!(ask(&client, get("/")).await.is_err());
    // What comes up there is another application, and not worth the patience with the first.
    let listener = std::net::TcpListener::bind(addr).unwrap();
    listener.set_nonblocking(true).unwrap();
    let peer = Peer::from_listener(tokio::net::TcpListener::from_std(listener).unwrap());
    tokio::spawn(one_process(peer, std::sync::Arc::default()));
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(text(&client, get("/")).await, "hello");
}

/// The connection of a stalled response that nobody wants any more is closed, rather than read on.
#[tokio::test]
async fn a_connection_that_is_left_with_a_stalled_response_is_closed() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.connection.receive_buffer = 10_000;
    });
    let serving = tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        let (id, _) = link.request().await.unwrap();
        link.say(&record(code::STDOUT, id, HELLO.as_bytes())).await;
        // It goes on for as long as it is read.
        let flood = record(code::STDOUT, id, &[b'x'; 60_000]);
        let writing = async {
            use tokio::io::AsyncWriteExt;
            while link.socket.write_all(&flood).await.is_ok() {}
        };
        patient(writing).await;
    });
    let unread = ask(&client, get("/")).await.unwrap();
    eventually("it stalls", || client.stats().stalls == 1).await;
    drop(unread);
    eventually("it is closed", || client.stats().connections == 0).await;
    patient(serving).await.unwrap();
}

/// While one response overflows its buffer the connection is read in bursts with pauses, so that an
/// application gets to what others wait for.
#[tokio::test]
async fn an_overflowing_response_is_read_slowly() {
    const LENGTH: usize = 24 << 20;
    let peer = Peer::new().await;
    let client = client(peer.addr, |_| {});
    let serving = tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        let (held, _) = link.request().await.unwrap();
        let (flooded, _) = link.request().await.unwrap();
        link.say(&record(code::STDOUT, flooded, HELLO.as_bytes()))
            .await;
        let mut socket = link.socket.into_std().unwrap();
        socket.set_nonblocking(false).unwrap();
        // On a thread of its own it writes as fast as it is read.
        let flooding = std::thread::spawn(move || {
            let flood = record(code::STDOUT, flooded, &[b'x'; 65_535]).repeat(16);
            let began = Instant::now();
            for _ in 0..LENGTH >> 20 {
                socket.write_all(&flood).unwrap();
            }
            socket.write_all(&response(held, HELLO.as_bytes())).unwrap();
            (began, socket)
        });
        tokio::task::spawn_blocking(|| flooding.join().unwrap())
            .await
            .unwrap()
    });
    let other = tokio::spawn({
        let client = client.clone();
        async move { text(&client, get("/held")).await }
    });
    eventually("the other is there", || client.stats().active == 1).await;
    let unread = ask(&client, get("/")).await.unwrap();
    assert_eq!(patient(other).await.unwrap(), "hello");
    let (began, socket) = patient(serving).await.unwrap();
    let pauses = LENGTH / afcgi_proto::web::OVERFLOW_BURST - 2;
    let least = afcgi_proto::web::OVERFLOW_PAUSE * u32::try_from(pauses).unwrap();
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    drop(socket);
    // What was received is there.
    assert!(body(unread).await.is_err());
}
