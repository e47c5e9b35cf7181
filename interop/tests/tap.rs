//! `afcgi tap` between web servers and applications that are not ours: all works as without it, and what it says of them is right.

use std::process::Command;

use afcgi_interop::app::{App, afcgi};
use afcgi_interop::gateway::{Gateway, Kind};
use afcgi_interop::http::{assert_same, client, get, get_ok, noise};
use afcgi_interop::php::Php;
use afcgi_interop::tap::Tap;
use futures_util::future::join_all;

/// All the servers, before one application that multiplexes, and one that does not. HAProxy, which is told to multiplex here, gets no answers
/// of libfcgi without the tap either.
macro_rules! between {
    ($($name:ident = $kind:ident $app:ident;)*) => {$(
        #[tokio::test]
        async fn $name() {
            between(Kind::$kind, App::$app().await).await;
        }
    )*};
}

between! {
    nginx_and_go = Nginx go;
    nginx_and_libfcgi = Nginx libfcgi;
    nginx_and_perl = Nginx perl;
    nginx_and_flup = Nginx flup;
    lighttpd_and_go = Lighttpd go;
    lighttpd_and_libfcgi = Lighttpd libfcgi;
    haproxy_and_go = Haproxy go;
    apache_and_go = Apache go;
    apache_and_libfcgi = Apache libfcgi;
    caddy_and_go = Caddy go;
    caddy_and_libfcgi = Caddy libfcgi;
    afcgi_and_go = Afcgi go;
}

async fn between(kind: Kind, app: App) {
    let mut tap = Tap::before(app.port(), &["-w", "DIR/a.pcapng"]).await;
    let gateway = Gateway::start(kind, tap.port()).await;
    let client = client();
    assert_eq!(get_ok(&client, &gateway.url("/")).await, "Hello world\n");
    let body = noise(700_000, 7);
    let post = client.post(gateway.url("/echo?token=secret"));
    let post = post.header("Cookie", "a=secret").body(body.clone());
    let response = post.send().await.expect("POST /echo");
    assert_same("/echo", &response.bytes().await.expect("the body"), &body);
    assert_eq!(
        get(&client, &gateway.url("/status?code=404"))
            .await
            .status()
            .as_u16(),
        404
    );
    let held = (0..10).map(async |n| {
        let bytes = get_ok(&client, &gateway.url(&format!("/delay?ms={}", n * 10))).await;
        assert_eq!(bytes, "Hello world\n");
    });
    join_all(held).await;
    tap.says_times("/delay?ms=", 10).await;
    drop(gateway);
    let (log, code) = tap.end().await;
    assert_eq!(code, 0, "{log}");
    for words in [
        " GET / 200 in 0 out ",
        " POST /echo?token=****** 200 in 700000 out 700",
        " GET /status?code=404 404 in 0 out ",
        "no violations\n",
        "status 404: 1\n",
    ] {
        assert!(log.contains(words), "{words:?} in:\n{log}");
    }
    assert_eq!(log.matches(" /delay?ms=").count(), 10, "{log}");
    // Multiplexing is seen where there is some.
    let file = tap.file("a.pcapng").display().to_string();
    let read = Command::new(afcgi()).args(["tap", "-r", &file]).output();
    let read = read.expect("afcgi tap");
    let lines = String::from_utf8_lossy(&read.stdout);
    assert_eq!(lines.matches(" /delay?ms=").count(), 10, "{lines}");
    assert!(
        !lines.contains("secret") && !log.contains("secret"),
        "{lines}"
    );
}

/// PHP-FPM by a unix socket behind nginx and its neighbours: what scripts say on STDERR, and what they do wrong.
#[tokio::test]
async fn php_fpm() {
    let script = r#"<?php
header('X-Path: ' . $_SERVER['REQUEST_URI']);
if (isset($_GET['log'])) { error_log('a line for the log'); }
if (isset($_GET['fail'])) { nothing(); }
setcookie('session', 'secret');
echo strlen(file_get_contents('php://input')), $_COOKIE['a'] ?? '';
"#;
    let settings = "[own]\nlisten = DIR/own.sock\nuser = root\ngroup = root\npm = static\npm.max_children = 2\n\
        catch_workers_output = yes\nphp_admin_value[log_errors] = 1\nping.path = /ping\n";
    let php = Php::start_with(1, settings, &[("index.php", script)]).await;
    let socket = format!("unix:{}", php.socket_named("own").await);
    let mut tap = Tap::to(&socket, &["-w", "DIR/a.pcapng", "--show-secrets"]).await;
    let file = format!("{}/index.php", php.root());
    let at = format!("127.0.0.1:{}", tap.port());
    let ask = |query: &str, more: &[&str]| {
        let target = format!("{at}/page?{query}");
        let mut command = Command::new(afcgi());
        command
            .args(["request", &target, "--script", &file])
            .args(more);
        let output = command.output().expect("afcgi request");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(ask("a", &[]), "0");
    assert_eq!(ask("log", &["-d", "12345", "-H", "Cookie: a=x"]), "5x");
    ask("fail", &[]);
    let (log, code) = tap.end().await;
    assert_eq!(code, 0, "{log}");
    for words in [
        " GET /page?a 200 in 0 out ".to_owned(),
        format!(" ms {file}\n"),
        " POST /page?log 200 in 5 out ".to_owned(),
        "  stderr: PHP message: a line for the log".to_owned(),
        " GET /page?fail 500 in 0 out ".to_owned(),
        "Uncaught Error: Call to undefined function nothing()".to_owned(),
        "no violations\n".to_owned(),
        // It never does, and no web server minds.
        "R-53 by app: 3 times, STDOUT was not ended by an empty record\n".to_owned(),
    ] {
        assert!(log.contains(&words), "{words:?} in:\n{log}");
    }
    // Once more, to the same pool without the tap.
    let file = tap.file("a.pcapng").display().to_string();
    let replay = ["request", "--replay", &file, &socket];
    let output = Command::new(afcgi())
        .args(replay)
        .output()
        .expect("afcgi request");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.ends_with("3 sent again: 3 answered as before, 0 differently, 0 failed\n"),
        "{text}"
    );
}

/// A web server that leaves a request, by closing the connection or by ABORT_REQUEST, is told from an application that does.
#[tokio::test]
async fn clients_that_leave() {
    for (kind, words) in [
        (Kind::Nginx, "[the web server closed the connection"),
        (Kind::Afcgi, "[aborted after "),
    ] {
        let app = App::go().await;
        let tap = Tap::before(app.port(), &[]).await;
        let gateway = Gateway::start(kind, tap.port()).await;
        let client = client();
        let mut response = get(&client, &gateway.url("/events?n=1000&ms=10")).await;
        response.chunk().await.expect("an event");
        drop(response);
        drop(client);
        tap.says(words).await;
        // nginx closes the connection at once; what is left of that request is not the application's fault.
        assert!(
            !tap.process.log().contains("by app"),
            "{}",
            tap.process.log()
        );
    }
}
