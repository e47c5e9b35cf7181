//! `afcgi request --replay`: what was recorded is sent again, and compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use afcgi_interop::fake::{Fake, end};
use afcgi_interop::raw::{self, kind, record};
use afcgi_interop::tap::Tap;
use tokio::io::AsyncWriteExt;

use crate::{afcgi_with, exchange, request, texts};

/// An application that gives path, cookie and body back, and a number that grows in a field; differently once it is told so.
async fn echoes(different: Arc<AtomicBool>) -> Fake {
    let count = Arc::new(AtomicUsize::new(0));
    Fake::start(move |mut socket, _| {
        let (different, count) = (different.clone(), count.clone());
        async move {
            let mut all = Vec::new();
            while let Some(got) = raw::read(&mut socket).await {
                if matches!(got.kind, kind::PARAMS | kind::STDIN) {
                    all.extend(&got.content);
                }
                if got.kind != kind::STDIN || !got.content.is_empty() {
                    continue;
                }
                let number = count.fetch_add(1, Ordering::Relaxed);
                let mut head = format!("Date: {number}\r\nX-Number: {number}\r\nX-A: b\r\n\r\n");
                if different.load(Ordering::Relaxed) && all.ends_with(b"two") {
                    head = format!("Status: 500 x\r\nX-A: c\r\nX-Number: {number}\r\n\r\noh ");
                }
                let cookie = all
                    .windows(11)
                    .position(|w| w == b"HTTP_COOKIE")
                    .unwrap_or_default();
                let answer = [
                    record(kind::STDOUT, got.id, head.as_bytes()),
                    record(kind::STDOUT, got.id, all.get(cookie..).unwrap_or_default()),
                    record(kind::STDOUT, got.id, b""),
                    end(got.id, 0),
                ];
                all.clear();
                if socket.write_all(&answer.concat()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn the_same_and_different() {
    let different = Arc::new(AtomicBool::new(false));
    let app = echoes(different.clone()).await;
    let mut tap = Tap::before(app.port(), &["-w", "DIR/a.pcapng"]).await;
    let mut socket = raw::connect(tap.port()).await;
    for body in ["one", "two", "three"] {
        let path = format!("/{body}");
        let params = [("REQUEST_METHOD", "POST"), ("REQUEST_URI", path.as_str())];
        exchange(&mut socket, &request(1, &params, body.as_bytes())).await;
    }
    drop(socket);
    tap.end().await;
    let file = tap.file("a.pcapng").display().to_string();
    let at = format!("127.0.0.1:{}", app.port());
    let replay = ["request", "--replay", file.as_str(), at.as_str()];
    let with = |more: &[&'static str]| -> Vec<String> {
        replay
            .iter()
            .chain(more)
            .map(|text| (*text).to_owned())
            .collect()
    };
    let run = async |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        texts(&afcgi_with(&arguments).await)
    };
    // A field that differs each time is left out by name; Date is by itself.
    let (code, out, err) = run(with(&[])).await;
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        out.contains("  X-Number: `3`, was `0`\n") && !out.contains("Date"),
        "{out}"
    );
    for more in [
        &["--ignore-field", "X-Number"][..],
        &[
            "--ignore-field",
            "x-number",
            "--concurrent",
            "3",
            "--keep-conn",
        ],
    ] {
        let (code, out, err) = run(with(more)).await;
        assert_eq!(code, 0, "{out}{err}");
        assert!(
            out.starts_with("same POST /one ") && err.is_empty(),
            "{out}{err}"
        );
        assert!(
            out.ends_with("3 sent again: 3 answered as before, 0 differently, 0 failed\n"),
            "{out}"
        );
    }
    different.store(true, Ordering::Relaxed);
    let (code, out, _) = run(with(&["--ignore-field", "X-Number"])).await;
    assert_eq!(code, 1);
    for words in [
        "different POST /two\n  status 500, was 200\n",
        "  X-A: `c`, was `b`\n",
        "from byte 0 on: `oh ",
        "3 sent again: 2 answered as before, 1 differently, 0 failed\n",
    ] {
        assert!(out.contains(words), "{words} in:\n{out}");
    }
    let (code, out, _) = run(with(&["--ignore-field", "X-Number", "--json"])).await;
    let lines: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(
        (code, lines.len(), &lines[1]["result"]),
        (1, 3, &"different".into())
    );
    let (code, out, _) = run(with(&["-s"])).await;
    assert_eq!((code, out.as_str()), (1, ""));
    drop(app);
    let (code, out, _) = run(with(&[])).await;
    assert!(
        code == 1 && out.contains("failed POST /one\n  cannot connect to "),
        "{out}"
    );
}

/// Secrets were overwritten: that is said, and they can be given again.
#[tokio::test]
async fn masked_secrets() {
    let app = echoes(Arc::default()).await;
    let mut tap = Tap::before(app.port(), &["-w", "DIR/a.pcapng"]).await;
    let mut socket = raw::connect(tap.port()).await;
    let params = [("REQUEST_URI", "/"), ("HTTP_COOKIE", "secret")];
    exchange(&mut socket, &request(1, &params, b"")).await;
    drop(socket);
    tap.end().await;
    let file = tap.file("a.pcapng").display().to_string();
    let at = format!("127.0.0.1:{}", app.port());
    let all = [
        "request",
        "--replay",
        &file,
        "--ignore-field",
        "x-number",
        &at,
    ];
    let (code, out, err) = texts(&afcgi_with(&all).await);
    assert!(code == 1 && out.contains("`******`, was `secret`"), "{out}");
    assert!(err.contains("1 of 1 requests carry secrets that were overwritten when they were recorded (HTTP_COOKIE)"), "{err}");
    let with = [&all[..], &["--param", "HTTP_COOKIE=secret"]].concat();
    let (code, out, err) = texts(&afcgi_with(&with).await);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
}

#[tokio::test]
async fn arguments() {
    for (arguments, code, words) in [
        (
            &["--replay", "/none", "127.0.0.1:1"][..],
            26,
            "cannot read /none",
        ),
        (
            &["--replay", "/none", "127.0.0.1:1/path"],
            2,
            "an address alone",
        ),
        (
            &["--replay", "/etc/passwd", "127.0.0.1:1"],
            26,
            "neither a pcapng nor a pcap file",
        ),
        (
            &["--replay", "/none", "--repeat", "2", "127.0.0.1:1"],
            2,
            "cannot be used with",
        ),
        (&["--concurrent", "2", "127.0.0.1:1"], 2, "--replay"),
        (&["--ignore-field", "x", "127.0.0.1:1"], 2, "--replay"),
    ] {
        let (found, _, err) = texts(&afcgi_with(&[&["request"], arguments].concat()).await);
        assert_eq!(found, code, "{arguments:?}: {err}");
        assert!(err.contains(words), "{arguments:?}: {err}");
    }
}
