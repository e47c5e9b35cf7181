//! HTTP over unix sockets: for whoever stands before the gateway on the same machine.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use afcgi_interop::app::App;
use afcgi_interop::http::{client, get};
use afcgi_interop::process::Process;
use afcgi_interop::wait::{SOON, eventually};
use http::Request;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::rig::{Rig, run};

/// A folder, and the path of a socket in it.
fn socket() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock").display().to_string();
    (dir, path)
}

/// What is answered to a request until the connection is closed.
async fn ask(path: &str, request: &str) -> String {
    let mut socket = UnixStream::connect(path).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(SOON, socket.read_to_string(&mut answer));
    read.await.expect("the connection is closed").unwrap();
    answer
}

async fn env(path: &str, lines: &str) -> Vec<String> {
    let request = format!("GET /env HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
    let answer = ask(path, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    answer.lines().map(str::to_owned).collect()
}

fn has(env: &[String], line: &str) -> bool {
    env.iter().any(|found| found == line)
}

fn names(env: &[String], name: &str) -> bool {
    env.iter()
        .any(|found| found.starts_with(&format!("{name}=")))
}

#[tokio::test]
async fn who_is_there_has_no_address() {
    let app = App::afcgitest(&[]).await;
    let (_dir, path) = socket();
    let app = format!("127.0.0.1:{}", app.port());
    let listen = format!("unix:{path}");
    // Whoever trusts all addresses does not trust those that have none.
    let flags = [
        &*app,
        "--listen",
        &listen,
        "--socket-mode",
        "600",
        "--trusted-proxy",
        "0.0.0.0/0",
    ];
    let rig = Rig::flags(&flags).await;
    rig.logs(&["listening on unix:", &path, "(http)"]).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let found = env(&path, "Host: a.example:81\r\nX-Forwarded-For: 6.6.6.6\r\n").await;
    for line in [
        "REMOTE_ADDR=unix:",
        "SERVER_NAME=a.example",
        "SERVER_PORT=81",
    ] {
        assert!(has(&found, line), "{line}: {found:#?}");
    }
    for name in ["REMOTE_PORT", "SERVER_ADDR", "HTTP_X_FORWARDED_FOR"] {
        assert!(!names(&found, name), "{name}: {found:#?}");
    }
    assert!(has(
        &env(&path, "Host: a.example\r\n").await,
        "SERVER_PORT=80"
    ));
    rig.logs(&["unix: - - [", "\"GET /env HTTP/1.1\" 200"])
        .await;
    // Those of TCP are still there.
    assert_eq!(get(&client(), &rig.url("/")).await.status(), 200);
}

#[tokio::test]
async fn a_proxy_there_may_be_trusted() {
    let app = App::afcgitest(&[]).await;
    let (_dir, path) = socket();
    let config = format!(
        "listen = [\"{path}\"]\ntrusted_proxies = [\"unix\", \"10.0.0.0/8\"]\n\
         [upstream.a]\naddresses = [\"127.0.0.1:{}\"]\n\
         [[route]]\nupstream = \"a\"\n[[route]]\nhosts = [\"set\"]\nupstream = \"a\"\nparams = {{ REMOTE_ADDR = \"mine\" }}",
        app.port()
    );
    // Its flags would go before `listen` of the file.
    let rig = Rig::start(&["--listen", &path], Some(&config)).await;
    let lines =
        "Host: x\r\nX-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n";
    let found = env(&path, lines).await;
    for line in [
        "REMOTE_ADDR=1.2.3.4",
        "REMOTE_PORT=0",
        "HTTPS=on",
        "SERVER_PORT=443",
    ] {
        assert!(has(&found, line), "{line}: {found:#?}");
    }
    rig.logs(&["1.2.3.4 - - [", "\"GET /env HTTP/1.1\" 200"])
        .await;
    assert!(has(&env(&path, "Host: x\r\n").await, "REMOTE_ADDR=unix:"));
    let found = env(&path, "Host: set\r\n").await;
    assert!(has(&found, "REMOTE_ADDR=mine") && !has(&found, "REMOTE_ADDR=unix:"));
    // TCP is not trusted by that.
    let answer = rig
        .raw(b"GET /env HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.contains("REMOTE_ADDR=127.0.0.1\n"), "{answer}");
}

#[tokio::test]
async fn http2_with_prior_knowledge() {
    let app = App::afcgitest(&[]).await;
    let (_dir, path) = socket();
    let app = format!("127.0.0.1:{}", app.port());
    let _rig = Rig::flags(&[&app, "--listen", &path]).await;
    let socket = UnixStream::connect(&path).await.unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut responses = Vec::new();
    for _ in 0..20 {
        let request = Request::get("http://a.example/env").body(()).unwrap();
        client = client.ready().await.unwrap();
        responses.push(client.send_request(request, true).unwrap().0);
    }
    for response in responses {
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            text.extend_from_slice(&data);
        }
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("SERVER_PROTOCOL=HTTP/2.0\n") && text.contains("REMOTE_ADDR=unix:\n"),
            "{text}"
        );
    }
    drop(client);
    connection.abort();
    assert!(connection.await.is_err());

    // In pieces, and with nothing behind a beginning that is one of both.
    let mut socket = UnixStream::connect(&path).await.unwrap();
    for piece in [
        &b"P"[..],
        b"RI",
        b" * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0\0\0\x04\0\0\0\0\0",
    ] {
        socket.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut head = [0; 9];
    let read = tokio::time::timeout(SOON, socket.read_exact(&mut head));
    read.await.expect("it answers").unwrap();
    // SETTINGS.
    assert_eq!(head[3], 4, "{head:?}");
    let answer = ask(
        &path,
        "PUT /env HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(UnixStream::connect(&path).await.unwrap());
}

#[tokio::test]
async fn files_of_sockets() {
    let app = App::afcgitest(&[]).await;
    let app = format!("127.0.0.1:{}", app.port());
    let (dir, path) = socket();
    // What nobody listens on is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(Path::new(&path).exists());
    let mut rig = Rig::flags(&[&app, "--listen", &path]).await;
    assert!(has(&env(&path, "Host: x\r\n").await, "REMOTE_ADDR=unix:"));
    // What somebody listens on is not, and what is no socket stays.
    let file = dir.path().join("precious").display().to_string();
    std::fs::write(&file, "precious").unwrap();
    for (taken, words) in [(&path, "another process listens"), (&file, "no socket")] {
        let output = run(&["gateway", &app, "--listen", taken]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words) && said.contains(&**taken), "{said}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    rig.signal(Signal::HUP);
    assert!(has(&env(&path, "Host: x\r\n").await, "REMOTE_ADDR=unix:"));
    // The file goes when no more connections are taken, while a request goes on.
    let held = tokio::spawn({
        let path = path.clone();
        async move {
            ask(
                &path,
                "GET /delay?ms=1000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            )
            .await
        }
    });
    rig.active(1).await;
    rig.signal(Signal::TERM);
    rig.logs(&["stopping"]).await;
    assert!(!Path::new(&path).exists());
    assert!(held.await.unwrap().starts_with("HTTP/1.1 200 "));
    assert!(rig.process.stop().success());
}

/// Nothing but unix sockets: no port at all.
#[tokio::test]
async fn the_admin_address_too() {
    let app = App::afcgitest(&[]).await;
    let (dir, path) = socket();
    let admin = dir.path().join("admin.sock").display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_afcgi"));
    command.args(["gateway", &format!("127.0.0.1:{}", app.port())]);
    command.args(["--listen", &path, "--admin", &format!("unix:{admin}")]);
    let mut process = Process::start("gateway", &command, &dir.path().join("log"));
    eventually("it listens", SOON, || {
        process.assert_running();
        let log = process.log();
        async move { log.contains("listening on ").then_some(()).ok_or(log) }
    })
    .await;
    let answer = ask(
        &path,
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = ask(&admin, request).await;
    assert!(
        answer.contains("afcgi_gateway_requests_total{code=\"2xx\"} 1\n"),
        "{answer}"
    );
    assert!(process.stop().success());
    assert!(!Path::new(&path).exists() && !Path::new(&admin).exists());
}
