//! What a client sends cannot pass for anything else: not for a parameter, not for another client, not for another request.

use std::collections::BTreeMap;

use afcgi::Params;
use afcgi_interop::app::App;
use afcgi_interop::http::{client, get_ok};
use afcgi_interop::wait::{SOON, eventually};
use axum::Router;
use axum::extract::Extension;
use axum::routing::any;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::rig::Rig;
use crate::routes;

/// The parameters that the application sees of a request with these header lines.
async fn env(rig: &Rig, path: &str, lines: &str) -> BTreeMap<String, String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n");
    let answer = rig.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let pairs = body.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[tokio::test]
async fn no_field_forges_a_parameter() {
    let app = App::afcgitest(&[]).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await;
    let lines = "Proxy: http://evil/\r\n\
        X_Real_IP: 6.6.6.6\r\n\
        X.Dot: 1\r\n\
        REMOTE_ADDR: 6.6.6.6\r\n\
        REMOTE-ADDR: 6.6.6.6\r\n\
        FCGI_ROLE: 6\r\n\
        FCGI-UPGRADE: 1\r\n\
        SCRIPT-FILENAME: /etc/passwd\r\n\
        X-Forwarded-For: 6.6.6.6\r\n\
        X-Forwarded-Proto: https\r\n\
        X-Real-IP: 6.6.6.6\r\n\
        Forwarded: for=6.6.6.6\r\n\
        Keep-Alive: 1\r\n\
        TE: trailers\r\n\
        Proxy-Authorization: x\r\n\
        X-Good: yes\r\n\
        X-Good: also\r\n";
    let env = env(&rig, "/env?a=b", lines).await;
    for (name, value) in &env {
        assert!(
            !value.contains("6.6.6.6") || ["HTTP_REMOTE_ADDR"].contains(&&**name),
            "{name}={value}"
        );
    }
    assert_eq!(env["REMOTE_ADDR"], "127.0.0.1");
    assert_eq!(env["HTTP_X_GOOD"], "yes, also");
    assert_eq!(env["REQUEST_SCHEME"], "http");
    assert_eq!(env["SERVER_PORT"], rig.port.to_string());
    for name in [
        "HTTP_PROXY",
        "HTTP_X_REAL_IP",
        "HTTP_X_DOT",
        "FCGI_ROLE",
        "FCGI_UPGRADE",
        "SCRIPT_FILENAME",
        "HTTPS",
        "HTTP_X_FORWARDED_FOR",
        "HTTP_KEEP_ALIVE",
        "HTTP_TE",
        "HTTP_PROXY_AUTHORIZATION",
        "HTTP_CONNECTION",
        "HTTP_FCGI_ROLE",
    ] {
        assert!(!env.contains_key(name), "{name}={}", env[name]);
    }
    // They arrive as what they are: fields of a client.
    assert_eq!(env["HTTP_SCRIPT_FILENAME"], "/etc/passwd");
    assert_eq!(env["HTTP_FCGI_UPGRADE"], "1");
}

/// A client cannot take away what the operator adds, and an application cannot either.
#[tokio::test]
async fn connection_names_no_field_of_the_operator() {
    let port = routes::app(Router::new().fallback(any(
        async |Extension(params): Extension<Params>| {
            let told = params
                .iter()
                .map(|(name, value)| format!("{}={}\n", name.escape_ascii(), value.escape_ascii()));
            let fields = [
                ("connection", "x-guard, x-own"),
                ("x-own", "1"),
                ("keep-alive", "x"),
            ];
            (fields, told.collect::<String>())
        },
    )))
    .await;
    let config = format!(
        "[upstream.a]\naddresses = [\"127.0.0.1:{port}\"]\n[[route]]\nupstream = \"a\"\nparams = {{ HTTP_X_PARAM = \"param\" }}\n\
         set_request_headers = {{ X-Gateway-Secret = \"s3cret\", X-Forwarded-Host = \"h\" }}\nset_response_headers = {{ X-Guard = \"on\" }}"
    );
    let rig = Rig::config(&config).await;
    let lines = "Connection: X-Gateway-Secret, x-guard, x-param, X-Own, x-forwarded-host, cookie, host\r\n\
        X-Gateway-Secret: mine\r\nX-Own: 1\r\nCookie: a=1\r\n";
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n");
    let answer = rig.raw(request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    for line in [
        "HTTP_X_GATEWAY_SECRET=s3cret",
        "HTTP_X_FORWARDED_HOST=h",
        "HTTP_X_PARAM=param",
        "HTTP_COOKIE=a=1",
        "HTTP_HOST=x",
    ] {
        assert!(body.lines().any(|found| found == line), "{line}: {answer}");
    }
    assert!(
        !body.contains("X_OWN") && !body.contains("mine"),
        "{answer}"
    );
    assert!(head.contains("\r\nx-guard: on"), "{answer}");
    assert!(
        !head.contains("keep-alive") && !head.contains("connection: x-guard"),
        "{answer}"
    );
}

#[tokio::test]
async fn proxies_are_believed_if_they_are_trusted() {
    let app = App::afcgitest(&[]).await;
    let app = format!("127.0.0.1:{}", app.port());
    let rig = Rig::flags(&[&app, "--trusted-proxy", "127.0.0.0/8"]).await;
    let lines = "X-Forwarded-For: 9.9.9.9, 1.2.3.4\r\nX-Forwarded-Proto: https\r\n";
    let env = env(&rig, "/env", lines).await;
    assert_eq!(env["REMOTE_ADDR"], "1.2.3.4");
    assert_eq!(env["HTTPS"], "on");
    assert_eq!(env["HTTP_X_FORWARDED_FOR"], "9.9.9.9, 1.2.3.4");
    rig.logs(&["1.2.3.4 - - [", "\"GET /env HTTP/1.1\" 200"])
        .await;
}

/// A request that could be two is none: nothing of what it hides is answered.
#[tokio::test]
async fn no_request_hides_behind_another() {
    let app = App::afcgitest(&[]).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await;
    let hidden = "GET /env?smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let length = hidden.len();
    for head in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n".to_owned(),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n"),
        format!("Content-Length: {length}, 0\r\n\r\n"),
        "Content-Length: +0\r\n\r\n".to_owned(),
        "Content-Length: 0x0\r\n\r\n".to_owned(),
        "Content-Length: -1\r\n\r\n".to_owned(),
        "Content-Length : 0\r\n\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "X: a\r\n b: c\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n0;\nx\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n-0\r\n\r\n".to_owned(),
        "Host: y\r\n\r\n".to_owned(),
        "X: a\0b\r\n\r\n".to_owned(),
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: x\r\n{head}{hidden}");
        let answer = rig.raw(request.as_bytes()).await;
        assert!(!answer.contains("smuggled"), "{request}\n---\n{answer}");
        assert!(
            answer.starts_with("HTTP/1.1 4") || answer.is_empty(),
            "{request}\n---\n{answer}"
        );
    }
    // What is right is answered: both, one after the other.
    let request = format!(
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n{hidden}"
    );
    let answer = rig.raw(request.as_bytes()).await;
    assert!(
        answer.contains("hi") && answer.contains("smuggled"),
        "{answer}"
    );
}

#[tokio::test]
async fn hosts_and_paths_that_are_none() {
    let app = App::afcgitest(&[]).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await;
    for (line, host) in [
        ("GET / HTTP/1.1", ""),
        ("GET / HTTP/1.1", "Host: a b\r\n"),
        ("GET / HTTP/1.1", "Host: a/b\r\n"),
        ("GET / HTTP/1.1", "Host: user@a\r\n"),
        ("GET http://user@a/ HTTP/1.1", "Host: a\r\n"),
        ("GET /../etc/passwd HTTP/1.1", "Host: x\r\n"),
        ("GET /a/%2e%2e/b HTTP/1.1", "Host: x\r\n"),
        ("GET /a%00 HTTP/1.1", "Host: x\r\n"),
        ("GET /a%0d%0aX:%20y HTTP/1.1", "Host: x\r\n"),
        ("OPTIONS * HTTP/1.1", "Host: x\r\n"),
        ("CONNECT a:80 HTTP/1.1", "Host: a:80\r\n"),
    ] {
        let request = format!("{line}\r\n{host}Connection: close\r\n\r\n");
        let answer = rig.raw(request.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 "),
            "{request}\n---\n{answer}"
        );
    }
    let answer = rig
        .raw(b"GET http://a/ HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Nothing of what a client sends makes a second line of the log, or a field of its own.
#[tokio::test]
async fn the_log_stays_one_line_a_request() {
    let app = App::afcgitest(&[]).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await;
    let request =
        b"GET /log HTTP/1.1\r\nHost: x\r\nUser-Agent: a\" 200 \\\xff\r\nConnection: close\r\n\r\n";
    rig.raw(request).await;
    rig.logs(&["a\\x22 200 \\x5c\\xff\""]).await;
}

/// A client that leaves before there is a response is logged too, and the application is told.
#[tokio::test]
async fn the_log_tells_who_left() {
    let app = App::afcgitest(&[]).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await;
    let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let request = b"GET /delay?ms=60000 HTTP/1.1\r\nHost: x\r\n\r\n";
    socket.write_all(request).await.unwrap();
    // The application has it, beside the request that asks.
    eventually("it waits in the application", SOON, || async {
        let stats = get_ok(&client(), &rig.url("/stats")).await;
        let stats = String::from_utf8_lossy(&stats).into_owned();
        match stats.contains("\"active\":2") {
            true => Ok(()),
            false => Err(stats),
        }
    })
    .await;
    drop(socket);
    // And whom it waited for.
    let address = format!("address=\"127.0.0.1:{}\"", app.port());
    let words = [
        "\"GET /delay?ms=60000 HTTP/1.1\" 499 0 ",
        &address,
        " incomplete",
    ];
    rig.logs(&words).await;
    rig.active(0).await;
    let aborts = "afcgi_gateway_upstream_aborts_total{upstream=\"command-line\"} 1\n";
    let metrics = get_ok(&client(), &rig.admin_url("/metrics")).await;
    let metrics = String::from_utf8_lossy(&metrics);
    assert!(metrics.contains(aborts), "{metrics}");
}
