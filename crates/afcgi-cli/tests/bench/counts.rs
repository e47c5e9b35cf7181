//! What is sent and counted, and answers that are not as expected.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use afcgi_interop::fake::{Fake, end, next_request, response, values, write};
use afcgi_interop::raw::{self, Record, kind, record};
use afcgi_interop::wait::free_port;

use crate::rig::{answers, at, bench, hello};

#[tokio::test]
async fn every_request_is_counted() {
    let app = hello().await;
    for flags in [
        &["-n", "1000"][..],
        &["-n", "1000", "-m", "1"],
        &["-n", "1000", "-c", "4", "-m", "7", "-t", "3"],
        &["-n", "1000", "-c", "3", "-m", "200", "--force"],
        &["-n", "1000", "-c", "2", "-r", "20k"],
        &["-n", "1000", "--warm-up", "50ms"],
    ] {
        let ran = bench(&[flags, &["--json", &at(&app)]].concat()).await;
        assert_eq!(ran.code, 0, "{flags:?}: {ran:?}");
        for (place, count) in [
            ("/requests/answered", 1000),
            ("/requests/failed", 0),
            ("/requests/not_sent", 0),
            ("/requests/not_answered", 0),
            ("/statuses/200", 1000),
            ("/latency/count", 1000),
            ("/bytes/bodies", 6000),
            ("/exit_status", 0),
        ] {
            assert_eq!(ran.number(place), count, "{place} of {flags:?}");
        }
        // Those of a warm-up, too.
        let connections = ran.number("/settings/connections");
        assert_eq!(ran.number("/connections/opened"), connections);
        let latency = &ran.json()["latency"];
        let names = ["min", "p50", "p75", "p90", "p99", "p99.9", "p99.99", "max"];
        let times = names.map(|name| latency[name].as_f64().expect(name));
        assert!(times.is_sorted() && times[0] > 0.0, "{times:?}");
    }
}

#[tokio::test]
async fn for_a_time() {
    let app = hello().await;
    for flags in [&["-d", "300ms"][..], &["-d", "0.3", "-r", "500"]] {
        let ran = bench(&[flags, &["--json", &at(&app)]].concat()).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let json = ran.json();
        assert!(json["seconds"].as_f64() >= Some(0.3), "{json:#}");
        assert!(ran.number("/requests/answered") > 0);
        let points = json["series"].as_array().expect("a series");
        let sum: u64 = points.iter().filter_map(|p| p["requests"].as_u64()).sum();
        assert!(sum > 0 && sum <= ran.number("/requests/answered"));
    }
}

/// What must be so of every answer, and is not.
#[tokio::test]
async fn expectations() {
    let app = hello().await;
    let hash = "66a045b452102c59d840ec097d59d9467e13a3f34f6494e539ffd32c1bb35f18";
    let right = [
        &["--expect-status", "200"][..],
        &["--expect-length", "6"],
        &["--expect-text", "ello\n"],
        &["--expect-hash", hash],
        &["--expect-quiet"],
    ];
    for flags in right {
        let ran = bench(&[flags, &["-n", "50", &at(&app)]].concat()).await;
        assert_eq!(ran.code, 0, "{flags:?}: {ran:?}");
    }
    let zeros = "0".repeat(64);
    for (flags, kind) in [
        (["--expect-status", "201"], "status"),
        (["--expect-length", "7"], "length"),
        (["--expect-text", "hello"], "content"),
        (["--expect-hash", &zeros], "hash"),
    ] {
        let ran = bench(&[&flags[..], &["-n", "50", "--json", &at(&app)]].concat()).await;
        assert_eq!((ran.code, ran.failed(kind)), (1, 50), "{kind}: {ran:?}");
        assert_eq!(ran.number("/requests/answered"), 0);
    }
    // Of a few among many.
    let count = Arc::new(AtomicUsize::new(0));
    let app = answers(move |id| match count.fetch_add(1, Ordering::Relaxed) % 10 {
        0 => response(id, "Hallo\n"),
        _ => response(id, "Hello\n"),
    })
    .await;
    let text = ["--expect-text", "Hello", "-n", "200", "--json"];
    let ran = bench(&[&text[..], &[&at(&app)]].concat()).await;
    assert_eq!((ran.code, ran.failed("content")), (1, 20), "{ran:?}");
    assert_eq!(ran.number("/requests/answered"), 180);
}

/// Without being told, a status of 400 or more is a failure; STDERR is shown and is none.
#[tokio::test]
async fn statuses_and_stderr() {
    let answer = |id| {
        let head = record(kind::STDOUT, id, b"Status: 404 Not Found\r\n\r\n");
        let noise = record(kind::STDERR, id, b"no \x1b[31m page\n");
        [noise, head, end(id, 0)].concat()
    };
    let app = answers(answer).await;
    let ran = bench(&["-n", "20", "--json", &at(&app)]).await;
    assert_eq!((ran.code, ran.failed("status")), (1, 20), "{ran:?}");
    for status in ["404", "any"] {
        let arguments = ["-n", "20", "--expect-status", status, &at(&app)];
        let ran = bench(&arguments).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.out.contains("404: 20"), "{}", ran.out);
        assert!(ran.out.contains("no \\u{1b}[31m page"), "{}", ran.out);
    }
    let quiet = ["--expect-status", "any", "--expect-quiet"];
    let ran = bench(&[&quiet[..], &["-n", "20", "--json", &at(&app)]].concat()).await;
    assert_eq!((ran.code, ran.failed("stderr")), (1, 20), "{ran:?}");
}

/// Parameters as a web server sets them, and bodies of any length.
#[tokio::test]
async fn what_is_sent() {
    let app = Fake::start(|mut socket, _| async move {
        let mut lengths = vec![0; 65_536];
        let mut params = vec![Vec::new(); 65_536];
        while let Some(Record { kind, id, content }) = raw::read(&mut socket).await {
            let index = usize::from(id);
            match kind {
                kind::GET_VALUES => write(&mut socket, &values(true)).await,
                kind::PARAMS => params[index].extend(content),
                kind::STDIN if !content.is_empty() => lengths[index] += content.len(),
                kind::STDIN => {
                    let text = String::from_utf8_lossy(&params[index]).into_owned();
                    let method = if text.contains("REQUEST_METHODPOST") {
                        "POST"
                    } else {
                        "other"
                    };
                    let body = format!("{method} {}", lengths[index]);
                    write(&mut socket, &response(id, &body)).await;
                    (lengths[index], params[index]) = (0, Vec::new());
                }
                _ => {}
            }
        }
    })
    .await;
    for (flags, text) in [
        (["--body-size", "0"], "POST 0"),
        (["--body-size", "1000"], "POST 1000"),
        (["--body-size", "200k"], "POST 204800"),
        (["--data", "a=b"], "POST 3"),
        (["-X", "PUT"], "other 0"),
    ] {
        let count = ["-n", "30", "-m", "5", "--expect-text", text];
        let ran = bench(&[&flags[..], &count, &[&at(&app)]].concat()).await;
        assert_eq!(ran.code, 0, "{flags:?}: {ran:?}");
    }
}

/// An application that takes one request at a time on a connection gets no more, unless that is forced.
#[tokio::test]
async fn one_at_a_time() {
    let one = || {
        Fake::start(|mut socket, _| async move {
            while let Some(id) = next_request(&mut socket, Some(&values(false))).await {
                let answer = match id {
                    1 => response(id, "Hello\n"),
                    _ => end(id, 1),
                };
                write(&mut socket, &answer).await;
            }
        })
    };
    let app = one().await;
    let ran = bench(&["-n", "50", "-m", "8", "-c", "2", "--json", &at(&app)]).await;
    assert_eq!((ran.code, ran.number("/settings/concurrent")), (0, 1));
    assert_eq!(
        ran.json()["application"]["multiplexing"],
        "one request at a time"
    );
    assert_eq!(ran.number("/requests/answered"), 50);
    let note = ran.json()["notes"][0].to_string();
    assert!(note.contains("one request at a time"), "{note}");
    let app = one().await;
    let ran = bench(&["-n", "50", "-m", "8", "--force", "--json", &at(&app)]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.failed("cannot_multiplex") > 0, "{ran:?}");
    // Those that do not know the question, or close the connection for it.
    let silent = Fake::start(|mut socket, _| async move {
        while let Some(id) = next_request(&mut socket, None).await {
            write(&mut socket, &response(id, "Hello\n")).await;
        }
    })
    .await;
    let ran = bench(&["-n", "50", "--json", &at(&silent)]).await;
    assert_eq!((ran.code, ran.number("/settings/concurrent")), (0, 1));
    assert_eq!(ran.json()["application"]["multiplexing"], "silent");
}

/// A connection for each request.
#[tokio::test]
async fn connections_that_are_not_kept() {
    let app = Fake::start(|mut socket, _| async move {
        if let Some(id) = next_request(&mut socket, Some(&values(false))).await {
            write(&mut socket, &response(id, "Hello\n")).await;
        }
    })
    .await;
    let flags = ["-n", "40", "-c", "4", "--json"];
    let ran = bench(&[&flags[..], &["--no-keep-conn", &at(&app)]].concat()).await;
    assert_eq!(
        (ran.code, ran.number("/requests/answered")),
        (0, 40),
        "{ran:?}"
    );
    assert_eq!(ran.number("/requests/sent_again"), 0);
    assert!(ran.number("/connections/opened") >= 40);
    // The same of one that is asked to keep them and does not.
    let ran = bench(&[&flags[..], &["-m", "1", &at(&app)]].concat()).await;
    assert_eq!(
        (ran.code, ran.number("/requests/answered")),
        (0, 40),
        "{ran:?}"
    );
    assert_eq!(ran.json()["application"]["closes_kept_connections"], true);
}

#[tokio::test]
async fn aborts() {
    // Heeds ABORT_REQUEST, and answers nothing else.
    let app = Fake::start(|mut socket, _| async move {
        while let Some(Record { kind, id, .. }) = raw::read(&mut socket).await {
            match kind {
                kind::GET_VALUES => write(&mut socket, &values(true)).await,
                kind::ABORT_REQUEST => write(&mut socket, &end(id, 0)).await,
                _ => {}
            }
        }
    })
    .await;
    let flags = ["-n", "60", "-m", "10", "--abort-after", "5ms", "--json"];
    let ran = bench(&[&flags[..], &[&at(&app)]].concat()).await;
    assert_eq!(
        (ran.code, ran.number("/requests/aborted")),
        (0, 60),
        "{ran:?}"
    );
    assert_eq!(ran.number("/abort_latency/count"), 60);

    // Some of them, chosen by the seed. All have been sent long before the first is answered.
    let app = Fake::start(|mut socket, _| async move {
        let mut ids = Vec::new();
        while let Some(Record { kind, id, .. }) = raw::read(&mut socket).await {
            match kind {
                kind::GET_VALUES => write(&mut socket, &values(true)).await,
                kind::STDIN => ids.push(id),
                _ => {}
            }
            if ids.len() == 20 {
                tokio::time::sleep(Duration::from_millis(700)).await;
                for id in ids.drain(..) {
                    write(&mut socket, &response(id, "Hello\n")).await;
                }
            }
        }
    })
    .await;
    let flags = [
        "-n",
        "20",
        "-m",
        "20",
        "--abort-after",
        "2ms",
        "--aborts",
        "30%",
        "--seed",
        "7",
    ];
    let target = at(&app);
    let arguments = [&flags[..], &["--json", &target]].concat();
    let ran = bench(&arguments).await;
    let aborted = ran.number("/requests/aborted");
    assert!(ran.code == 0 && (1..20).contains(&aborted), "{ran:?}");
    assert_eq!(ran.number("/requests/answered"), 20 - aborted);
    assert_eq!(bench(&arguments).await.number("/requests/aborted"), aborted);
}

/// Requests that wait, more than one connection has at once unless it is told.
#[tokio::test]
async fn held() {
    let waits = || {
        Fake::start(|mut socket, _| async move {
            while let Some(Record { kind, id, .. }) = raw::read(&mut socket).await {
                match kind {
                    kind::GET_VALUES => write(&mut socket, &values(true)).await,
                    kind::ABORT_REQUEST => write(&mut socket, &end(id, 0)).await,
                    _ => {}
                }
            }
        })
    };
    let app = waits().await;
    let pid = std::process::id().to_string();
    for (flags, connections) in [
        (&[][..], 1),
        (&["-m", "100"], 20),
        (&["-c", "3", "-t", "2"], 3),
    ] {
        let hold = ["--hold", "2000", "-d", "300ms", "--pid", &pid, "--json"];
        let ran = bench(&[flags, &hold, &[&at(&app)]].concat()).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(
            (ran.number("/held/open"), ran.number("/held/at_the_end")),
            (2000, 2000)
        );
        assert_eq!(ran.number("/requests/aborted"), 2000);
        assert_eq!(ran.number("/connections/opened"), connections);
        assert!(ran.json()["held"]["bytes_each"].is_number());
        assert!(ran.number("/process/memory_most") > 0);
    }
    // One that answers holds nothing.
    let app = hello().await;
    let ran = bench(&["--hold", "50", "-d", "200ms", "--json", &at(&app)]).await;
    assert_eq!(
        (ran.code, ran.number("/requests/answered")),
        (0, 50),
        "{ran:?}"
    );
    assert_eq!(ran.number("/held/open"), 0);
    assert!(ran.out.contains("Not all requests were open at once"));
}

#[tokio::test]
async fn bad_arguments() {
    let app = hello().await;
    let target = at(&app);
    let folder = tempfile::tempdir().expect("a folder");
    let page = format!("{}/none/page.html", folder.path().display());
    let closed = format!("127.0.0.1:{}/", free_port());
    for (arguments, code, words) in [
        (&["9000"][..], 2, "expected HOST:PORT"),
        (&[&target, "-c", "0"], 2, "not in 1.."),
        (&[&target, "-m", "65535"], 2, "not in 1..=65534"),
        (&[&target, "-t", "2"], 2, "more threads than connections"),
        (&[&target, "-r", "0"], 2, "requests a second"),
        (&[&target, "--body-size", "65M"], 2, "more than 64M"),
        (&[&target, "--aborts", "10"], 2, "--abort-after"),
        (
            &[&target, "--hold", "5", "-n", "5"],
            2,
            "cannot be used with",
        ),
        (&[&target, "--expect-hash", "ab"], 2, "64 digits"),
        (&[&target, "--pid", "4194305"], 2, "cannot be measured"),
        (&[&target, "--role", "filter"], 2, "filter"),
        (
            &[&target, "--no-keep-conn", "-m", "2"],
            2,
            "cannot be used with",
        ),
        (&[&target, "-H", "Proxy: x"], 2, "httpoxy"),
        (&[&target, "-c", "1000000"], 2, "descriptors"),
        (&[&target, "--data", "@/nonexistent"], 26, "/nonexistent"),
        (&[&target, "--html", &page], 23, ""),
        (&["unix:/nonexistent/a.sock/"], 7, "no such file"),
        (&[&closed], 7, "Nobody listens there"),
    ] {
        let ran = bench(arguments).await;
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(words), "{arguments:?}: {ran:?}");
        assert_eq!(ran.out, "");
    }
}
