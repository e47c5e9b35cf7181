//! Applications that mean harm, or are broken: failures are counted, and a run ends.

use std::time::{Duration, Instant};

use afcgi_interop::fake::{Fake, end, next_request, response, write};
use afcgi_interop::raw::{self, kind, record};
use tokio::io::AsyncWriteExt;

use crate::rig::{Ran, answers, at, bench};

/// How long a run may take that is to end by itself: far more than any needs.
const LONG: Duration = Duration::from_secs(60);

/// Runs it against an application, for a number of requests and for a time.
async fn both(app: &Fake, more: &[&str]) -> [Ran; 2] {
    let started = Instant::now();
    let target = at(app);
    let common = [
        "-m",
        "4",
        "--force",
        "--timeout",
        "300ms",
        "--json",
        &target,
    ];
    let counted = bench(&[&["-n", "40"], &common[..], more].concat()).await;
    let timed = bench(&[&["-d", "400ms"], &common[..], more].concat()).await;
    assert!(started.elapsed() < LONG);
    for ran in [&counted, &timed] {
        assert_eq!(ran.code, 1, "{ran:?}");
        assert_eq!(ran.number("/requests/answered"), 0, "{ran:?}");
        assert!(ran.number("/requests/failed") > 0, "{ran:?}");
    }
    [counted, timed]
}

#[tokio::test]
async fn closes_at_once() {
    let app = Fake::start(|socket, _| async move { drop(socket) }).await;
    for ran in both(&app, &[]).await {
        assert!(ran.failed("closed") > 0, "{ran:?}");
        // It is not connected to as fast as it closes.
        assert!(ran.number("/connections/put_off") > 0, "{ran:?}");
        assert!(ran.number("/connections/opened") < 200, "{ran:?}");
    }
}

#[tokio::test]
async fn says_nothing() {
    let app =
        Fake::start(|mut socket, _| async move { while raw::read(&mut socket).await.is_some() {} })
            .await;
    for ran in both(&app, &[]).await {
        assert!(ran.failed("timed_out") > 0, "{ran:?}");
    }
}

/// The requests are never taken.
#[tokio::test]
async fn reads_nothing() {
    let app = Fake::start(|socket, _| async move {
        tokio::time::sleep(LONG).await;
        drop(socket);
    })
    .await;
    for ran in both(&app, &["--body-size", "8M"]).await {
        assert!(ran.failed("timed_out") > 0, "{ran:?}");
    }
}

#[tokio::test]
async fn speaks_another_protocol() {
    for noise in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        &[0; 64],
        &[1, 3, 0, 1, 0, 0, 0, 0],
    ] {
        let app = Fake::start(move |mut socket, _| async move {
            raw::read(&mut socket).await;
            write(&mut socket, noise).await;
            while raw::read(&mut socket).await.is_some() {}
        })
        .await;
        for ran in both(&app, &[]).await {
            assert!(ran.failed("protocol") > 0, "{ran:?}");
        }
    }
}

/// STDOUT, STDERR, or records of no request, without end.
#[tokio::test]
async fn floods() {
    for (kind, id, failure) in [
        (kind::STDOUT, 1, "timed_out"),
        (kind::STDERR, 1, "timed_out"),
        (kind::UNKNOWN_TYPE, 0, "timed_out"),
        (kind::STDOUT, 999, "protocol"),
    ] {
        let app = Fake::start(move |mut socket, _| async move {
            if next_request(&mut socket, None).await.is_none() {
                return;
            }
            // The first line of a head, and then a body without end.
            let first = record(kind::STDOUT, 1, b"A: b\n\n");
            let more = record(kind, id, &[b'x'; 30_000]);
            write(&mut socket, &first).await;
            while socket.write_all(&more).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        for ran in both(&app, &[]).await {
            assert!(ran.failed(failure) > 0, "{failure}: {ran:?}");
        }
    }
}

/// END_REQUEST for requests that are not there, and twice for those that are.
#[tokio::test]
async fn ends_what_is_not_there() {
    let app = answers(|_| end(40_000, 0)).await;
    for ran in both(&app, &[]).await {
        assert!(ran.failed("protocol") > 0, "{ran:?}");
    }
    let app = answers(|id| [response(id, "Hello\n"), end(id, 0), end(id, 0)].concat()).await;
    let ran = bench(&["-n", "50", "-m", "2", "--json", &at(&app)]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
}

#[tokio::test]
async fn refuses() {
    for (status, kind) in [
        (1, "cannot_multiplex"),
        (2, "overloaded"),
        (3, "rejected"),
        (9, "rejected"),
    ] {
        let app = answers(move |id| end(id, status)).await;
        let ran = bench(&["-n", "30", "--json", &at(&app)]).await;
        assert_eq!((ran.code, ran.failed(kind)), (1, 30), "{ran:?}");
    }
}

/// A head without end, in small pieces.
#[tokio::test]
async fn a_head_without_end() {
    let app = answers(|id| {
        let line = record(kind::STDOUT, id, &b"A: b\n".repeat(100));
        [line.repeat(200), end(id, 0)].concat()
    })
    .await;
    let ran = bench(&["-n", "10", "--json", &at(&app)]).await;
    assert_eq!((ran.code, ran.failed("head")), (1, 10), "{ran:?}");
}

/// Aborts that are not heeded are failures, and end.
#[tokio::test]
async fn heeds_no_abort() {
    let app =
        Fake::start(|mut socket, _| async move { while raw::read(&mut socket).await.is_some() {} })
            .await;
    for ran in both(&app, &["--abort-after", "20ms"]).await {
        assert!(ran.failed("abort_unheeded") > 0, "{ran:?}");
    }
}

/// An application that goes away in the middle is a matter of failures, not of the end of the run.
#[tokio::test]
async fn goes_away_and_comes_back() {
    let app = Fake::start(|mut socket, number| async move {
        // Every connection but each third breaks off in the middle of an answer.
        let mut answered = 0;
        while let Some(id) = next_request(&mut socket, None).await {
            answered += 1;
            if number % 3 != 0 && answered == 5 {
                return write(&mut socket, &record(kind::STDOUT, id, b"A: b\n\nHe")).await;
            }
            if answered == 50 {
                return;
            }
            write(&mut socket, &response(id, "Hello\n")).await;
        }
    })
    .await;
    let ran = bench(&["-n", "300", "-m", "1", "--json", &at(&app)]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let (answered, failed) = (ran.number("/requests/answered"), ran.failed("closed"));
    assert!(failed > 0 && answered + failed == 300, "{ran:?}");
    assert!(ran.number("/connections/again") > 0);
}
