//! Lines, records, JSON, filters, secrets.

use afcgi_interop::fake::{Fake, end, response};
use afcgi_interop::raw::{self, kind, record};
use afcgi_interop::tap::Tap;
use tokio::io::AsyncWriteExt;

use crate::{answers, exchange, request};

/// An application that answers by the last letter of the path: that many hundreds are its status.
async fn statuses() -> Fake {
    Fake::start(|mut socket, _| async move {
        let mut status = b'2';
        while let Some(got) = raw::read(&mut socket).await {
            match got.kind {
                kind::PARAMS if !got.content.is_empty() => {
                    status = got.content.last().copied().unwrap_or_default();
                }
                kind::STDIN if got.content.is_empty() => {
                    let head = format!("Status: {}00 x\r\n\r\nbody", char::from(status));
                    let answer = [
                        record(kind::STDOUT, got.id, head.as_bytes()),
                        record(kind::STDOUT, got.id, b""),
                        end(got.id, 0),
                    ];
                    if socket.write_all(&answer.concat()).await.is_err() {
                        return;
                    }
                }
                _ => {}
            }
        }
    })
    .await
}

const GET: (&str, &str) = ("REQUEST_METHOD", "GET");

#[tokio::test]
async fn a_line_for_each_request() {
    let stderr = record(kind::STDERR, 1, b"PHP message: one\ntwo\n");
    let answer = [stderr, record(kind::STDERR, 1, b""), response(1, "body")].concat();
    let app = answers(answer).await;
    let mut tap = Tap::before(app.port(), &[]).await;
    let mut socket = raw::connect(tap.port()).await;
    let params = [
        GET,
        ("REQUEST_URI", "/a?b=c"),
        ("SCRIPT_FILENAME", "/srv/a.php"),
    ];
    exchange(&mut socket, &request(1, &params, b"four")).await;
    drop(socket);
    let (log, code) = tap.end().await;
    assert_eq!(code, 0);
    let line = log
        .lines()
        .find(|line| line.contains("c1.1"))
        .expect("a line");
    let (clock, rest) = line.split_at(12);
    assert!(
        clock
            .chars()
            .all(|c| c.is_ascii_digit() || ":.".contains(c)),
        "{line}"
    );
    assert!(
        rest.starts_with(" c1.1 GET /a?b=c 200 in 4 out 51 first "),
        "{line}"
    );
    assert!(
        rest.contains(" ms total ") && rest.ends_with(" ms /srv/a.php"),
        "{line}"
    );
    assert!(
        log.contains("\n  stderr: PHP message: one\n  stderr: two\n"),
        "{log}"
    );
    assert!(
        log.contains("1 request on 1 connection, at most 1 at a time on one\n"),
        "{log}"
    );
    assert!(
        log.contains("no violations\n") && log.contains("median "),
        "{log}"
    );
}

/// What is special about a request stands in brackets.
#[tokio::test]
async fn what_is_special() {
    let app = Fake::start(|mut socket, number| async move {
        while let Some(got) = raw::read(&mut socket).await {
            let answer = match (got.kind, number) {
                (kind::ABORT_REQUEST, _) => record(kind::END_REQUEST, 1, &[0, 0, 0, 7, 0, 0, 0, 0]),
                (kind::STDIN, 1) => end(1, 2),
                (kind::STDIN, 2) => return,
                _ => continue,
            };
            socket.write_all(&answer).await.expect("written");
        }
    })
    .await;
    let mut tap = Tap::before(app.port(), &["--check"]).await;
    let mut socket = raw::connect(tap.port()).await;
    let mut aborted = request(1, &[GET], b"");
    aborted.extend(record(kind::ABORT_REQUEST, 1, b""));
    exchange(&mut socket, &aborted).await;
    let mut refused = raw::connect(tap.port()).await;
    exchange(&mut refused, &request(1, &[GET], b"")).await;
    let mut lost = raw::connect(tap.port()).await;
    lost.write_all(&request(1, &[GET], b""))
        .await
        .expect("written");
    assert_eq!(raw::read(&mut lost).await, None);
    let mut left = raw::connect(tap.port()).await;
    left.write_all(&raw::begin(1)).await.expect("written");
    drop(left);
    tap.says("[the web server closed the connection]").await;
    let (log, code) = tap.end().await;
    for words in [
        "[aborted after ",
        "; appStatus 7]",
        "[refused: OVERLOADED]",
        "R-52 by app: the connection was closed without END_REQUEST",
        "[the application closed the connection; R-52 by app]",
        "2 requests without END_REQUEST",
        "1 violation:\n  R-52 by app: 1 time,",
    ] {
        assert!(log.contains(words), "{words} in:\n{log}");
    }
    assert_eq!(code, 3, "{log}");
}

#[tokio::test]
async fn records() {
    let app = answers(response(1, "body")).await;
    let mut tap = Tap::before(app.port(), &["-v"]).await;
    let mut socket = raw::connect(tap.port()).await;
    let params = [GET, ("HTTP_COOKIE", "secret")];
    exchange(&mut socket, &request(1, &params, b"")).await;
    drop(socket);
    tap.says("web closed its half").await;
    let (log, _) = tap.end().await;
    for words in [
        "c1 > 0.0",
        " BEGIN_REQUEST id 1, 8 bytes: responder, keep_conn\n",
        "c1 >   HTTP_COOKIE = ******\n",
        "c1 <   body\n",
        "END_REQUEST id 1, 8 bytes: appStatus 0, REQUEST_COMPLETE\n",
    ] {
        assert!(log.contains(words), "{words} in:\n{log}");
    }
    assert!(!log.contains("secret"), "{log}");
}

#[tokio::test]
async fn json() {
    let head = b"Status: 404 x\r\nSet-Cookie: secret\r\nX-A: b\r\n\r\n";
    let answer = [
        record(kind::STDOUT, 1, head),
        record(kind::STDOUT, 1, b""),
        end(1, 0),
    ];
    let app = answers(answer.concat()).await;
    for shows in [false, true] {
        let flags: &[&str] = match shows {
            true => &["--json", "--show-secrets"],
            false => &["--json"],
        };
        let mut tap = Tap::before(app.port(), flags).await;
        let mut socket = raw::connect(tap.port()).await;
        let params = [
            GET,
            ("REQUEST_URI", "/?token=secret"),
            ("HTTP_AUTHORIZATION", "secret"),
        ];
        exchange(&mut socket, &request(1, &params, b"")).await;
        exchange(&mut socket, &request(1, &params, b"")).await;
        drop(socket);
        let (log, _) = tap.end().await;
        let objects: Vec<serde_json::Value> = log
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(objects.len(), 3, "{log}");
        let [first, _, summary] = objects.as_slice() else {
            panic!("{log}");
        };
        let stars = match shows {
            true => "secret",
            false => "******",
        };
        assert_eq!(first["type"], "request");
        assert_eq!(first["status"], 404);
        assert_eq!(first["uri"], format!("/?token={stars}"));
        assert_eq!(
            first["params"][2],
            serde_json::json!(["HTTP_AUTHORIZATION", stars])
        );
        assert_eq!(first["fields"][0], serde_json::json!(["Set-Cookie", stars]));
        assert_eq!(first["fields"][1], serde_json::json!(["X-A", "b"]));
        assert_eq!(
            (&first["end"], &first["app_status"]),
            (&"complete".into(), &0.into())
        );
        assert!(first["total"].as_f64() >= first["first_byte"].as_f64());
        assert_eq!(
            (&summary["type"], &summary["requests"]),
            (&"summary".into(), &2.into())
        );
        assert_eq!(summary["statuses"]["404"], 2);
        assert_eq!(log.contains("secret"), shows);
    }
}

/// Filters by path, id and status, for lines and records; the summary is of all.
#[tokio::test]
async fn filters() {
    let app = statuses().await;
    for (flags, shown) in [
        (&[][..], &["/a/2", "/a/5", "/b/5", "/b/4"][..]),
        (&["--path", "/a"], &["/a/2", "/a/5"]),
        (
            &["--path", "/*/5", "--path", "/b/4"],
            &["/a/5", "/b/5", "/b/4"],
        ),
        (&["--status", "5xx"], &["/a/5", "/b/5"]),
        (
            &["--status", "400", "--status", "200", "-v"],
            &["/a/2", "/b/4"],
        ),
        (&["--status", "5xx", "--path", "/b"], &["/b/5"]),
        (&["--id", "3"], &["/b/5"]),
        (&["--id", "3", "-v"], &["/b/5"]),
        (&["-q"], &[]),
    ] {
        let mut tap = Tap::before(app.port(), flags).await;
        let mut socket = raw::connect(tap.port()).await;
        for (id, path) in (1..).zip(["/a/2", "/a/5", "/b/5", "/b/4"]) {
            let params = [GET, ("REQUEST_URI", path), ("SCRIPT_NAME", path)];
            exchange(&mut socket, &request(id, &params, b"")).await;
        }
        drop(socket);
        let (log, _) = tap.end().await;
        assert!(log.contains("4 requests on 1 connection"), "{log}");
        for path in ["/a/2", "/a/5", "/b/5", "/b/4"] {
            let expected = shown.contains(&path);
            assert_eq!(
                log.contains(&format!("GET {path} ")),
                expected,
                "{flags:?}: {log}"
            );
            let record = log.contains(&format!("REQUEST_URI = {path}\n"));
            assert_eq!(
                record,
                expected && flags.contains(&"-v"),
                "{flags:?}: {log}"
            );
        }
    }
}

/// A program gets no colours.
#[tokio::test]
async fn no_colours_into_a_pipe() {
    let app = statuses().await;
    let mut tap = Tap::before(app.port(), &[]).await;
    let mut socket = raw::connect(tap.port()).await;
    exchange(&mut socket, &request(1, &[("SCRIPT_NAME", "/5")], b"")).await;
    drop(socket);
    let (log, _) = tap.end().await;
    assert!(
        log.contains(" - /5 500 in 0 out ") && !log.contains('\x1b'),
        "{log:?}"
    );
}
