//! Requests to afcgitest and the example `filter`: what goes there and what comes back.

use afcgi_interop::app::App;
use afcgi_interop::fake::{self, Fake};
use afcgi_interop::http::{assert_same, noise};
use afcgi_interop::raw::{self, Record, kind};
use tokio::sync::mpsc::unbounded_channel;

use crate::rig::{at, request};

/// The body alone goes to a pipe, and nothing else is said.
#[tokio::test]
async fn a_body_alone() {
    let app = App::afcgitest(&[]).await;
    let ran = request(&[&at(app.port(), "/")]).await;
    assert_eq!((ran.code, ran.text()), (0, "Hello world\n"), "{}", ran.err);
    assert_eq!(ran.err, "");
}

#[tokio::test]
async fn parameters() {
    let app = App::afcgitest(&[]).await;
    let ran = request(&[
        &at(app.port(), "/env?a=1&b"),
        "-H",
        "X-Test: yes",
        "-H",
        "Cookie: a=b",
        "--param",
        "REMOTE_ADDR=192.0.2.1",
        "--no-param",
        "SERVER_PORT",
        "-X",
        "DELETE",
    ])
    .await;
    let text = ran.text();
    for line in [
        "SCRIPT_NAME=/env",
        "SCRIPT_FILENAME=/env",
        "REQUEST_URI=/env?a=1&b",
        "QUERY_STRING=a=1&b",
        "REQUEST_METHOD=DELETE",
        "HTTP_X_TEST=yes",
        "HTTP_COOKIE=a=b",
        "REMOTE_ADDR=192.0.2.1",
        "GATEWAY_INTERFACE=CGI/1.1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(!text.contains("SERVER_PORT"), "{text}");
}

/// Megabytes of any bytes, from a file and into one.
#[tokio::test]
async fn a_large_body_both_ways() {
    let app = App::afcgitest(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let body = noise(5_000_000, 7);
    std::fs::write(&from, &body).unwrap();
    let ran = request(&[
        &at(app.port(), "/echo"),
        "--data-binary",
        &format!("@{}", from.display()),
        "-o",
        to.to_str().unwrap(),
    ])
    .await;
    assert_eq!((ran.code, ran.out.len()), (0, 0), "{}", ran.err);
    assert_same("the body", &std::fs::read(&to).unwrap(), &body);
}

#[tokio::test]
async fn a_filter() {
    let app = App::filter().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.txt");
    std::fs::write(&file, "small letters").unwrap();
    let file = file.to_str().unwrap();
    let ran = request(&[
        &at(app.port(), "/"),
        "--role",
        "filter",
        "--data-file",
        file,
    ])
    .await;
    assert_eq!((ran.code, ran.text()), (0, "SMALL LETTERS"), "{}", ran.err);
}

#[tokio::test]
async fn a_head() {
    let app = App::afcgitest(&[]).await;
    let ran = request(&["-i", &at(app.port(), "/status?code=404")]).await;
    let text = ran.text();
    assert!(text.starts_with("Status: 404 "), "{text}");
    assert!(text.contains("\r\n\r\n"), "{text}");
    assert_eq!(ran.code, 0);
    let ran = request(&["-I", &at(app.port(), "/")]).await;
    assert!(ran.text().starts_with("Status: 200 OK\r\n"), "{ran:?}");
    assert!(ran.text().ends_with("\r\n\r\n"), "{ran:?}");
}

#[tokio::test]
async fn a_status_that_fails() {
    let app = App::afcgitest(&[]).await;
    for (code, expected) in [(200, 0), (399, 0), (400, 22), (503, 22)] {
        let ran = request(&["-f", &at(app.port(), &format!("/status?code={code}"))]).await;
        assert_eq!(ran.code, expected, "{code}: {}", ran.err);
        assert_eq!(ran.out.is_empty(), expected == 22, "{code}");
    }
    let ran = request(&["-sf", &at(app.port(), "/status?code=500")]).await;
    assert_eq!((ran.code, ran.err.as_str()), (22, ""));
}

#[tokio::test]
async fn many_times() {
    let app = App::afcgitest(&[]).await;
    let target = at(app.port(), "/");
    let ran = request(&["--repeat", "50", "--concurrent", "10", &target]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let begin = "50 answered and 0 failed in ";
    assert!(ran.text().starts_with(begin), "{}", ran.text());
    assert!(ran.text().contains("status 200: 50"), "{}", ran.text());
    let json = request(&["--json", "--repeat", "7", &target]).await.json();
    assert_eq!(json["answered"], 7);
    assert_eq!(json["connections"], 1, "it is kept: {json}");
    let arguments = ["--json", "--repeat", "7", "--no-keep-conn", &target];
    assert_eq!(request(&arguments).await.json()["connections"], 7);
}

/// ABORT_REQUEST, after which the application ends the request.
#[tokio::test]
async fn an_abort() {
    let (tell, mut told) = unbounded_channel();
    let app = Fake::start(move |mut socket, _| {
        let tell = tell.clone();
        async move {
            while let Some(record) = raw::read(&mut socket).await {
                let aborted = record.kind == kind::ABORT_REQUEST;
                _ = tell.send(record);
                if aborted {
                    let mut end = fake::end(1, 0);
                    end[8 + 3] = 9;
                    fake::write(&mut socket, &end).await;
                }
            }
        }
    })
    .await;
    let ran = request(&["--abort-after", "100ms", &at(app.port(), "/")]).await;
    assert_eq!(ran.code, 9, "its appStatus: {}", ran.err);
    assert!(ran.err.contains("the application ended the request"));
    let mut kinds = Vec::new();
    while let Some(Record { kind, .. }) = told.recv().await {
        kinds.push(kind);
        if kind == kind::ABORT_REQUEST {
            break;
        }
    }
    let expected = [
        kind::BEGIN_REQUEST,
        kind::PARAMS,
        kind::PARAMS,
        kind::STDIN,
        kind::ABORT_REQUEST,
    ];
    assert_eq!(kinds, expected);
}

/// What a web server would not send is not sent, whatever the role: an authorizer is given no script.
#[tokio::test]
async fn an_authorizer() {
    let (tell, mut told) = unbounded_channel();
    let app = Fake::start(move |mut socket, _| {
        let tell = tell.clone();
        async move {
            while let Some(record) = raw::read(&mut socket).await {
                let done = record.kind == kind::STDIN;
                _ = tell.send(record);
                if done {
                    fake::write(&mut socket, &fake::response(1, "yes")).await;
                }
            }
        }
    })
    .await;
    let ran = request(&["--role", "authorizer", &at(app.port(), "/a.php/b")]).await;
    assert_eq!((ran.code, ran.text()), (0, "yes"), "{}", ran.err);
    let begin = told.recv().await.expect("BEGIN_REQUEST");
    assert_eq!(begin.content[..3], [0, 2, 0], "no FCGI_KEEP_CONN");
    let params = told.recv().await.expect("PARAMS").content;
    let text = String::from_utf8_lossy(&params);
    assert!(text.contains("REQUEST_METHOD") && !text.contains("SCRIPT_NAME"));
}

#[tokio::test]
async fn what_it_can_do() {
    let app = App::afcgitest(&[]).await;
    let ran = request(&["--values", &at(app.port(), "")]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    for words in ["multiplexing yes", "flow control yes", "upgrades     yes"] {
        assert!(ran.text().contains(words), "{words}: {}", ran.text());
    }
    let json = request(&["--values", "--json", &at(app.port(), "")])
        .await
        .json();
    assert_eq!(json["mpxs_conns"], true);
    // libfcgi, for one, says nothing.
    let silent =
        Fake::start(|mut socket, _| async move { while raw::read(&mut socket).await.is_some() {} })
            .await;
    let ran = request(&["--values", &at(silent.port(), "")]).await;
    assert_eq!(ran.code, 28);
    assert!(ran.text().contains("does not answer GET_VALUES"), "{ran:?}");
    let closing = Fake::start(|mut socket, _| async move {
        raw::read(&mut socket).await;
    })
    .await;
    let ran = request(&["--values", &at(closing.port(), "")]).await;
    assert_eq!(ran.code, 52);
    assert!(ran.text().contains("closes the connection"), "{ran:?}");
}
