//! What is wrong is said clearly: flags, configuration, ports, and applications that are not there, slow or broken.

use std::time::{Duration, Instant};

use afcgi_interop::app::App;
use afcgi_interop::http::{client, get};
use afcgi_interop::wait::{SOON, eventually, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::rig::{Rig, run};

fn assert_refused(arguments: &[&str], words: &[&str]) {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{arguments:?}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

#[test]
fn bad_flags() {
    assert_refused(&["gateway"], &["nothing to serve", "127.0.0.1:5000"]);
    assert_refused(&["gateway", "5000"], &["`5000`", "HOST:PORT"]);
    assert_refused(
        &["gateway", ":1", "--root", "/no/such"],
        &["--root", "/no/such", "folder"],
    );
    assert_refused(&["gateway", ":1", "--tls-cert", "a"], &["--tls-key"]);
    assert_refused(&["gateway", ":1", "--trusted-proxy", "x"], &["10.0.0.0/8"]);
    assert_refused(
        &["gateway", ":1", "--listen", "unix:/no/such/folder/x"],
        &["cannot listen", "unix:/no/such/folder/x"],
    );
    assert_refused(&["gateway", ":1", "--socket-mode", "rw"], &["octal", "660"]);
    assert_refused(
        &["gateway", ":1", "--tls-cert", "/no/c", "--tls-key", "/no/k"],
        &["/no/c", "certificate", "PEM"],
    );
    // This one is found out after the gateway has begun to listen: anywhere, not on the default port.
    let anywhere = ["gateway", ":1", "--listen", "127.0.0.1:0"];
    assert_refused(
        &[&anywhere[..], &["--access-log", "/no/such/log"]].concat(),
        &["/no/such/log"],
    );
}

#[test]
fn a_bad_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    let path = path.to_str().unwrap();
    for (toml, words) in [
        (
            "lisen = []",
            &[":1:1: ", "unknown field `lisen`", "`listen`"][..],
        ),
        ("\n[limits]\n  body = \"1 potato\"\n", &[":3:10: ", "100M"]),
        (
            "[[route]]\nupstream = \"x\"",
            &[":2:12: ", "no upstream `x`"],
        ),
    ] {
        std::fs::write(path, toml).unwrap();
        let place = format!("{path}{}", words[0]);
        assert_refused(&["gateway", "--config", path], &[&place]);
        assert_refused(&["gateway", "--config", path, "--check"], words);
    }
    assert_refused(
        &["gateway", "--config", "/no/such.toml"],
        &["/no/such.toml", "No such file"],
    );
    std::fs::write(path, "[[route]]\nroot = \"/tmp\"").unwrap();
    assert_refused(
        &["gateway", ":1", "--config", path],
        &["every path already"],
    );
    assert!(
        run(&["gateway", "--config", path, "--check"])
            .status
            .success()
    );
}

#[test]
fn a_port_in_use() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    assert_refused(
        &["gateway", ":1", "--listen", &address],
        &["cannot listen", &address, "in use", "--listen"],
    );
}

#[tokio::test]
async fn an_application_that_is_not_there() {
    let port = free_port();
    let rig = Rig::flags(&[&format!("127.0.0.1:{port}")]).await;
    rig.logs(&["cannot be reached yet", "upstream=command-line"])
        .await;
    let response = get(&client(), &rig.url("/a")).await;
    assert_eq!(response.status(), 502);
    assert_eq!(response.text().await.unwrap(), "502 Bad Gateway\n");
    rig.logs(&[
        "ERROR",
        "status=502",
        "path=/a",
        "cannot connect",
        &port.to_string(),
    ])
    .await;
    rig.logs(&["\"GET /a HTTP/1.1\" 502"]).await;
    let health = get(&client(), &rig.admin_url("/health")).await;
    assert_eq!(health.status(), 503);
    assert!(
        health
            .text()
            .await
            .unwrap()
            .contains("`command-line` cannot be reached")
    );
}

#[tokio::test]
async fn an_application_that_comes_back() {
    let mut app = App::afcgitest(&[]).await;
    let config = format!(
        "[upstream.a]\naddresses = [\"127.0.0.1:{}\"]\n[[route]]\nupstream = \"a\"",
        app.port()
    );
    let rig = Rig::config(&config).await;
    let client = client();
    assert_eq!(get(&client, &rig.url("/")).await.status(), 200);
    // In the middle of a response it is cut off, not ended.
    let events = get(&client, &rig.url("/events?n=1000&ms=20")).await;
    assert_eq!(events.status(), 200);
    app.process.kill();
    assert!(events.bytes().await.is_err());
    rig.logs(&["ERROR", "broke off", "upstream=\"a\""]).await;
    assert_eq!(get(&client, &rig.url("/")).await.status(), 502);
    let again = TcpListener::bind(("127.0.0.1", app.port())).await.unwrap();
    drop(again);
    rig.logs(&[" incomplete"]).await;
}

/// Accepts connections, and answers what comes with the same bytes.
async fn fake(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(1..) = socket.read(&mut buffer).await {
                    if socket.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn an_application_that_speaks_something_else() {
    let port = fake(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{port}")]).await;
    assert_eq!(get(&client(), &rig.url("/")).await.status(), 502);
    rig.logs(&["ERROR", "status=502"]).await;
}

#[tokio::test]
async fn an_application_that_is_slow() {
    let app = App::afcgitest(&[]).await;
    let config = format!(
        "[upstream.a]\naddresses = [\"127.0.0.1:{}\"]\nfirst_byte_timeout = \"200ms\"\n[[route]]\nupstream = \"a\"",
        app.port()
    );
    let rig = Rig::config(&config).await;
    let start = Instant::now();
    let response = get(&client(), &rig.url("/delay?ms=20000")).await;
    assert_eq!(response.status(), 504);
    assert!(start.elapsed() < Duration::from_secs(10));
    rig.logs(&["ERROR", "status=504", "in time"]).await;
}

#[tokio::test]
async fn too_many_requests() {
    let app = App::afcgitest(&[]).await;
    let config = format!(
        "[limits]\nrequests = 2\n[upstream.a]\naddresses = [\"127.0.0.1:{}\"]\n[[route]]\nupstream = \"a\"",
        app.port()
    );
    let rig = Rig::config(&config).await;
    let client = client();
    let held = tokio::spawn({
        let requests = [0, 1].map(|_| client.get(rig.url("/delay?ms=2000")).send());
        async move {
            for request in requests.map(tokio::spawn) {
                assert_eq!(request.await.unwrap().unwrap().status(), 200);
            }
        }
    });
    rig.active(2).await;
    eventually("one is refused", SOON, || async {
        let response = get(&client, &rig.url("/")).await;
        match response.status().as_u16() {
            503 => {
                assert_eq!(response.headers()["retry-after"], "1");
                Ok(())
            }
            other => Err(other.to_string()),
        }
    })
    .await;
    held.await.unwrap();
    rig.logs(&["WARN", "too many requests", "requests=2"]).await;
    assert_eq!(get(&client, &rig.url("/")).await.status(), 200);
}

#[tokio::test]
async fn an_application_with_too_few_connections() {
    let app = App::afcgitest(&[]).await;
    let config = format!(
        "[upstream.a]\naddresses = [\"127.0.0.1:{}\"]\nmultiplex = false\nsingle_connections = 1\nqueue = 1\nqueue_timeout = \"300ms\"\n\
         [[route]]\nupstream = \"a\"",
        app.port()
    );
    let rig = Rig::config(&config).await;
    let client = client();
    let requests: Vec<_> = (0..4)
        .map(|_| tokio::spawn(client.get(rig.url("/delay?ms=1500")).send()))
        .collect();
    let mut statuses = Vec::new();
    for request in requests {
        let response = request.await.unwrap().unwrap();
        let status = response.status().as_u16();
        assert_eq!(
            response.headers().contains_key("retry-after"),
            status == 503
        );
        statuses.push(status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503, 503, 503]);
    rig.logs(&["ERROR", "status=503", "overloaded"]).await;
}

/// What `docs/` shows can be used.
#[test]
fn the_examples_of_the_documentation() {
    let dir = tempfile::tempdir().unwrap();
    let srv = dir.path().display();
    for folder in ["static", "blog", "app", "private", "log"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let path = dir.path().join("a.toml");
    for text in [
        include_str!("../../../../docs/gateway.md"),
        include_str!("../../../../docs/php.md"),
    ] {
        let (_, rest) = text.split_once("```toml\n").unwrap();
        let (toml, _) = rest.split_once("```").unwrap();
        std::fs::write(&path, toml.replace("\"/srv", &format!("\"{srv}"))).unwrap();
        let output = run(&["gateway", "--config", path.to_str().unwrap(), "--check"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}
