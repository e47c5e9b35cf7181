//! How it ends, and what it says, when there is no whole answer.

use std::process::Stdio;

use afcgi_interop::fake::{Fake, end, next_request, response, write};
use afcgi_interop::raw::{kind, record};
use afcgi_interop::wait::free_port;
use tokio::io::AsyncReadExt;

use crate::rig::{answers, at, command, request};

/// Runs it with an application that answers with these bytes, and expects an exit status and words on STDERR.
async fn ends(bytes: &[&[u8]], code: i32, words: &str) {
    let app = answers(bytes.concat()).await;
    let ran = request(&[&at(app.port(), "/")]).await;
    assert_eq!(ran.code, code, "{}", ran.err);
    assert!(ran.err.contains(words), "{words}: {}", ran.err);
}

#[tokio::test]
async fn bad_arguments() {
    for (arguments, words) in [
        (&["9000"][..], "expected HOST:PORT"),
        (&["a:1", "-H", "Proxy: x"], "httpoxy"),
        (&["a:1", "--role", "filter"], "--data-file"),
        (&["a:1", "--data-file", "/etc/hosts"], "--role filter"),
        (&["a:1", "--role", "authorizer", "-d", "x"], "no body"),
        (&["a:1", "--repeat", "0"], "0 is not in 1.."),
        (
            &["a:1", "--repeat", "2", "--concurrent", "1001"],
            "1001 is not in 1..",
        ),
        (&["a:1", "--max-time", "0"], "it is 0"),
        (&["a:1", "-d", "x", "-F", "a=b"], "cannot be used with"),
    ] {
        let ran = request(arguments).await;
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(words), "{arguments:?}: {}", ran.err);
    }
}

#[tokio::test]
async fn nobody_there() {
    let ran = request(&[&at(free_port(), "/")]).await;
    assert_eq!(ran.code, 7);
    assert!(ran.err.contains("Nobody listens there"), "{}", ran.err);
    let ran = request(&["unix:/nonexistent/php.sock/status"]).await;
    assert_eq!(ran.code, 7);
    let words = "unix:/nonexistent: there is no such file";
    assert!(ran.err.contains(words), "{}", ran.err);
    let ran = request(&["host.invalid:9000"]).await;
    assert_eq!(ran.code, 6, "{}", ran.err);
    let ran = request(&["-s", &at(free_port(), "/")]).await;
    assert_eq!((ran.code, ran.err.as_str()), (7, ""));
}

#[tokio::test]
async fn refused_requests() {
    for (status, name) in [
        (1, "CANT_MPX_CONN"),
        (2, "OVERLOADED"),
        (3, "UNKNOWN_ROLE"),
        (4, "protocolStatus 4"),
    ] {
        ends(&[&end(1, status)], 100 + i32::from(status), name).await;
    }
}

#[tokio::test]
async fn the_status_of_the_application() {
    for (status, code) in [(0_u32, 0), (7, 7), (255, 255), (256, 255), (u32::MAX, 255)] {
        let mut bytes = response(1, "text");
        let body = bytes.len() - 8;
        bytes[body..body + 4].copy_from_slice(&status.to_be_bytes());
        let app = answers(bytes).await;
        let ran = request(&[&at(app.port(), "/")]).await;
        assert_eq!((ran.code, ran.text()), (code, "text"), "{}", ran.err);
        let said = format!("the application's status is {status} ");
        assert_eq!(ran.err.contains(&said), status != 0, "{}", ran.err);
    }
    // One that failed need not have answered.
    let mut bytes = end(1, 0);
    bytes[8 + 3] = 3;
    ends(&[&bytes], 3, "the application's status is 3").await;
}

#[tokio::test]
async fn answers_that_are_none() {
    let head = record(kind::STDOUT, 1, b"A: b\r\n\r\nbody");
    ends(&[b"HTTP/1.1 400 Bad\r\n\r\n"], 8, "an HTTP server").await;
    ends(
        &[&record(kind::STDOUT, 1, b"no head\n\n"), &end(1, 0)],
        8,
        "--raw",
    )
    .await;
    ends(
        &[&record(kind::STDOUT, 1, b"A: b\r\n"), &end(1, 0)],
        8,
        "no head that ends",
    )
    .await;
    ends(
        &[&record(kind::END_REQUEST, 1, b"short")],
        8,
        "a body of 5 bytes",
    )
    .await;
    ends(&[&record(kind::BEGIN_REQUEST, 1, &[0; 8])], 8, "wrong side").await;
    for (bytes, code, words) in [
        (head.clone(), 18, "before the end of the response"),
        (vec![1, 6, 0], 18, "before the end of the response"),
        (Vec::new(), 52, "without an answer"),
    ] {
        let app = Fake::start(move |mut socket, _| {
            let bytes = bytes.clone();
            async move {
                next_request(&mut socket, None).await;
                write(&mut socket, &bytes).await;
            }
        })
        .await;
        let ran = request(&[&at(app.port(), "/")]).await;
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(ran.err.contains(words), "{}", ran.err);
    }
}

#[tokio::test]
async fn too_late() {
    let silent = Fake::start(|mut socket, _| async move {
        while next_request(&mut socket, None).await.is_some() {}
    })
    .await;
    for limit in ["--timeout", "--max-time"] {
        let ran = request(&[limit, "300ms", &at(silent.port(), "/")]).await;
        assert_eq!(ran.code, 28);
        assert!(ran.err.contains("after 300ms"), "{}", ran.err);
    }
    // One that reads nothing.
    let deaf = Fake::start(|mut socket, _| async move {
        let mut byte = [0];
        _ = socket.read_exact(&mut byte).await;
        std::future::pending::<()>().await;
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("large");
    // It holds no blocks.
    let large = std::fs::File::create(&file).unwrap();
    large.set_len(1 << 30).unwrap();
    let body = format!("@{}", file.display());
    let target = at(deaf.port(), "/");
    let ran = request(&["--timeout", "300ms", "--data-binary", &body, &target]).await;
    assert_eq!(ran.code, 28);
    assert!(ran.err.contains("to read the request"), "{}", ran.err);
}

#[tokio::test]
async fn files() {
    let app = answers(response(1, "text")).await;
    let target = at(app.port(), "/");
    let ran = request(&["-d", "@/nonexistent", &target]).await;
    assert_eq!(ran.code, 26, "{}", ran.err);
    let ran = request(&["-o", "/nonexistent/a", &target]).await;
    assert_eq!(ran.code, 23, "{}", ran.err);
    // A pipe that nobody reads.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = command(&[&target]);
    command.stdout(writer).stderr(Stdio::null());
    let status = tokio::task::spawn_blocking(move || command.status());
    assert_eq!(status.await.unwrap().unwrap().code(), Some(23));
}

/// The application closes a kept connection without a word: it is tried again, once.
#[tokio::test]
async fn a_kept_connection_that_is_closed() {
    let app = Fake::start(|mut socket, _| async move {
        next_request(&mut socket, None).await;
        write(&mut socket, &response(1, "text")).await;
        // It says that it is open still, and closes it with the next request.
        next_request(&mut socket, None).await;
    })
    .await;
    let ran = request(&["--json", "--repeat", "5", &at(app.port(), "/")]).await;
    let json = ran.json();
    assert_eq!(
        (&json["answered"], &json["connections"]),
        (&5.into(), &5.into())
    );
}
