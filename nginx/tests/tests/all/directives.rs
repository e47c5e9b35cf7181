//! The directives: where they may stand, and what nginx says of wrong ones.

use afcgi_interop::app::App;
use afcgi_interop::http::{client, get, get_ok};
use afcgi_nginx_tests::nginx::{Nginx, check};

fn upstream(directives: &str) -> String {
    format!(
        "upstream app {{ server 127.0.0.1:9; {directives} }}
         server {{ listen 127.0.0.1:9; location / {{ fastcgi_pass app; }} }}"
    )
}

#[test]
fn accepted() {
    for directives in [
        "fastcgi_multiplex;",
        "fastcgi_multiplex connections=2;",
        "fastcgi_multiplex requests=65535;",
        "fastcgi_multiplex requests=1 connections=1024;",
        "fastcgi_multiplex window=64k memory=1m buffer=1g overflow=0 stall_timeout=500ms;",
        "fastcgi_multiplex idle_timeout=1d lifetime=1h30m max_requests=4294967295;",
        "keepalive 4; fastcgi_multiplex;",
        "fastcgi_multiplex; keepalive 4;",
        "least_conn; fastcgi_multiplex;",
        "fastcgi_multiplex; hash $uri consistent;",
        "zone app 64k; random; fastcgi_multiplex;",
    ] {
        let (ok, text) = check(&upstream(directives));
        assert!(ok, "{directives}\n{text}");
    }
    for (outer, inner) in [("on", "off"), ("off", "on")] {
        let (ok, text) = check(&format!(
            "fastcgi_multiplex {outer};
             server {{ listen 127.0.0.1:9; fastcgi_multiplex {outer};
                 location / {{ fastcgi_multiplex {inner}; fastcgi_pass 127.0.0.1:9; }} }}"
        ));
        assert!(ok, "{text}");
    }
}

#[test]
fn refused_with_a_clear_line() {
    for (directives, words) in [
        (
            "fastcgi_multiplex; fastcgi_multiplex;",
            "\"fastcgi_multiplex\" directive is duplicate",
        ),
        (
            "fastcgi_multiplex connections=0;",
            "invalid value in \"connections=0\": it must be a number from 1 to 1024",
        ),
        (
            "fastcgi_multiplex requests=65536;",
            "invalid value in \"requests=65536\": it must be a number from 1 to 65535",
        ),
        (
            "fastcgi_multiplex requests=-1;",
            "invalid value in \"requests=-1\"",
        ),
        (
            "fastcgi_multiplex requests=+1;",
            "invalid value in \"requests=+1\"",
        ),
        (
            "fastcgi_multiplex connections=;",
            "invalid value in \"connections=\"",
        ),
        (
            "fastcgi_multiplex requests=1 requests=2;",
            "duplicate parameter \"requests=2\"",
        ),
        (
            "fastcgi_multiplex on;",
            "invalid parameter \"on\": connections=, requests=, window=",
        ),
        (
            "fastcgi_multiplex window=4095;",
            "invalid value in \"window=4095\": it must be a size from 4k to 1g",
        ),
        (
            "fastcgi_multiplex buffer=lots;",
            "invalid value in \"buffer=lots\": it must be a size from 4k to 1g",
        ),
        (
            "fastcgi_multiplex memory=1023k;",
            "invalid value in \"memory=1023k\": it must be a size from 1m to 64g",
        ),
        (
            "fastcgi_multiplex stall_timeout=0;",
            "invalid value in \"stall_timeout=0\": it must be a time from 1ms to 1d",
        ),
        (
            "fastcgi_multiplex idle_timeout=2d;",
            "invalid value in \"idle_timeout=2d\": it must be a time from 1ms to 1d",
        ),
        (
            "fastcgi_multiplex lifetime=-1s;",
            "invalid value in \"lifetime=-1s\": it must be a time from 1ms to 365d",
        ),
        (
            "fastcgi_multiplex max_requests=0;",
            "invalid value in \"max_requests=0\": it must be a number from 1 to 4294967295",
        ),
    ] {
        let (ok, text) = check(&upstream(directives));
        assert!(!ok, "{directives} was accepted");
        assert!(text.contains(words), "{directives}\n{text}");
        assert!(text.contains("nginx.conf:"), "no line is named:\n{text}");
    }
    for (directive, words) in [
        ("fastcgi_multiplex maybe;", "it must be \"on\" or \"off\""),
        (
            "fastcgi_multiplex;",
            "invalid number of arguments in \"fastcgi_multiplex\"",
        ),
        (
            "fastcgi_multiplex on; fastcgi_multiplex on;",
            "\"fastcgi_multiplex\" directive is duplicate",
        ),
    ] {
        let (ok, text) = check(&format!("{directive} server {{ listen 127.0.0.1:9; }}"));
        assert!(!ok, "{directive} was accepted");
        assert!(text.contains(words), "{directive}\n{text}");
    }
}

async fn connections(nginx: &Nginx, path: &str) -> u64 {
    let stats = get_ok(&client(), &nginx.url(path)).await;
    let stats: serde_json::Value = serde_json::from_slice(&stats).expect("/stats is JSON");
    stats["connections"].as_u64().expect("a number")
}

/// Where it is off there is a connection for each request, and where it is on there is one for all.
#[tokio::test]
async fn off_in_a_location() {
    let app = App::afcgitest(&[]).await;
    let port = app.port();
    let nginx = Nginx::start(
        1,
        &format!(
            "fastcgi_multiplex on;
             upstream app {{ server 127.0.0.1:{port}; fastcgi_multiplex; }}
             server {{ listen LISTEN;
                 location / {{ fastcgi_pass 127.0.0.1:{port}; }}
                 location /off/ {{ fastcgi_multiplex off; fastcgi_pass 127.0.0.1:{port}; }}
                 location /app/ {{ fastcgi_pass app; }}
                 location /app/off/ {{ fastcgi_multiplex off; fastcgi_pass app; }}
             }}"
        ),
    )
    .await;
    let client = client();
    for path in ["/", "/app/x", "/off/x", "/app/off/x", "/", "/app/x"] {
        assert_eq!(get_ok(&client, &nginx.url(path)).await, "Hello world\n");
    }
    assert_eq!(connections(&nginx, "/stats").await, 1);
}

/// A keepalive directive, wherever it stands, neither gets hold of the shared connection nor keeps it from being shared.
#[tokio::test]
async fn keepalive_beside_it() {
    for directives in [
        "keepalive 4; fastcgi_multiplex;",
        "fastcgi_multiplex; keepalive 4;",
    ] {
        let app = App::afcgitest(&[]).await;
        let port = app.port();
        let nginx = Nginx::start(
            1,
            &format!(
                "upstream app {{ server 127.0.0.1:{port}; {directives} }}
                 server {{ listen LISTEN; location / {{ fastcgi_keep_conn on; fastcgi_pass app; }} }}"
            ),
        )
        .await;
        let client = client();
        let held: Vec<_> = (0..20)
            .map(async |_| get_ok(&client, &nginx.url("/bytes?n=5000")).await)
            .collect();
        for body in futures_util::future::join_all(held).await {
            assert_eq!(body.len(), 5000);
        }
        assert_eq!(connections(&nginx, "/stats").await, 1, "{directives}");
    }
}

/// Other protocols must not be put on a FastCGI connection.
#[tokio::test]
async fn proxy_pass_is_refused() {
    let app = App::afcgitest(&[]).await;
    let port = app.port();
    let nginx = Nginx::start(
        1,
        &format!(
            "fastcgi_multiplex on;
             upstream app {{ server 127.0.0.1:{port}; fastcgi_multiplex; }}
             server {{ listen LISTEN;
                 location / {{ fastcgi_pass app; }}
                 location /proxy {{ proxy_pass http://app; }}
             }}"
        ),
    )
    .await;
    let client = client();
    let response = get(&client, &nginx.url("/proxy")).await;
    assert_eq!(response.status().as_u16(), 500);
    nginx
        .logs("an upstream with fastcgi_multiplex is for fastcgi_pass only")
        .await;
    assert_eq!(get_ok(&client, &nginx.url("/")).await, "Hello world\n");
}

/// A `proxy_pass` to an address that a `fastcgi_pass` names too is left alone.
#[tokio::test]
async fn proxy_pass_to_the_same_address() {
    let app = App::afcgitest(&[]).await;
    let port = app.port();
    let front = Nginx::start(
        1,
        &format!(
            "fastcgi_multiplex on;
             server {{ listen LISTEN; location / {{ fastcgi_pass 127.0.0.1:{port}; }} }}"
        ),
    )
    .await;
    let web = front.port();
    let nginx = Nginx::start(
        1,
        &format!(
            "fastcgi_multiplex on;
             server {{ listen LISTEN;
                 location / {{ proxy_pass http://127.0.0.1:{web}; }}
                 location /never {{ fastcgi_pass 127.0.0.1:{web}; }}
             }}"
        ),
    )
    .await;
    let body = get_ok(&client(), &nginx.url("/bytes?n=100")).await;
    assert_eq!(body.len(), 100);
}
