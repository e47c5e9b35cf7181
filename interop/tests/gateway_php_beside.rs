//! The gateway of this project before PHP-FPM, which does not multiplex: nothing is worse there than behind plain nginx.

use std::process::Command;

use afcgi_interop::http::{client, get, get_ok};
use afcgi_interop::own::Own;
use afcgi_interop::php::{Php, PlainNginx};
use afcgi_interop::wait::{SOON, eventually};
use futures_util::StreamExt;
use futures_util::stream;

const INDEX: &str = r#"<?php
$dir = dirname(__DIR__);
switch ($_GET['do'] ?? '') {
case 'work on':
    echo 'answered';
    fastcgi_finish_request();
    for ($n = 0; $n < 6000 && !file_exists("$dir/go"); $n++) { usleep(10000); clearstatcache(); }
    file_put_contents("$dir/over", 'over');
    exit;
case 'ask itself':
    echo 'answered';
    fastcgi_finish_request();
    file_put_contents("$dir/over", file_get_contents($_GET['url']));
    exit;
case 'crash':
    file_put_contents("$dir/runs", 'x', FILE_APPEND);
    posix_kill(getmypid(), 9);
    exit;
case 'lengths':
    echo strlen($_SERVER['REQUEST_URI']), ' ', strlen($_SERVER['HTTP_COOKIE'] ?? '');
    for ($n = 0; isset($_SERVER["HTTP_X_$n"]); $n++) { echo ' ', strlen($_SERVER["HTTP_X_$n"]); }
    exit;
}
echo 'hello ', file_get_contents('php://input');
"#;

async fn start(children: u32, settings: &str, keys: &str) -> (Own, Php) {
    let fpm = Php::start_with(children, settings, &[("index.php", INDEX)]).await;
    let config = format!(
        "[upstream.app]\naddresses = [\"127.0.0.1:{}\"]\n{keys}\n[[route]]\nupstream = \"app\"\nroot = \"{}\"\n",
        fpm.port(),
        fpm.root()
    );
    (Own::start(&[], &config).await, fpm)
}

/// A script may go on after its response has ended, as queues and wp-cron do: its process is not free for the next request.
#[tokio::test]
async fn a_script_that_works_on_holds_up_nobody() {
    let (gateway, fpm) = start(4, "", "").await;
    let client = client();
    let answer = get_ok(&client, &gateway.url("/?do=work+on")).await;
    assert_eq!(answer, "answered");
    for _ in 0..20 {
        assert_eq!(get_ok(&client, &gateway.url("/")).await, "hello ");
    }
    assert_eq!(fpm.file("over"), "", "it has ended before");
    fpm.put("go", "");
    eventually("it ends", SOON, || async {
        match fpm.file("over").as_str() {
            "over" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_script_that_works_on_may_ask_its_own_site() {
    for children in [2, 4] {
        let (gateway, fpm) = start(children, "", "").await;
        let path = format!("/?do=ask+itself&url={}", gateway.url("/"));
        assert_eq!(get_ok(&client(), &gateway.url(&path)).await, "answered");
        eventually("its own site answers", SOON, || async {
            match fpm.file("over").as_str() {
                "hello " => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await;
    }
}

/// Requests with bodies, so many at a time; how many were answered with another status than 200.
async fn posts(url: &str, count: usize, at_a_time: usize, mut each: impl FnMut(usize)) -> usize {
    let client = client();
    let mut answers = stream::iter(0..count)
        .map(|n| {
            let request = client.post(url).body(n.to_string());
            async move {
                let response = request.send().await.expect("an answer");
                let status = response.status();
                let body = response.text().await.expect("the body");
                if status == 200 {
                    assert_eq!(body, format!("hello {n}"));
                }
                status
            }
        })
        .buffer_unordered(at_a_time);
    let (mut failed, mut seen) = (0, 0);
    while let Some(status) = answers.next().await {
        assert!(status == 200 || status == 502, "{status}");
        failed += usize::from(status != 200);
        seen += 1;
        each(seen);
    }
    failed
}

/// A process ends after five requests, and answers none that comes on a connection of its.
#[tokio::test]
async fn processes_that_end_after_some_requests_lose_none() {
    let (gateway, _fpm) = start(4, "pm.max_requests = 5", "").await;
    assert_eq!(posts(&gateway.url("/"), 400, 1, |_| {}).await, 0);
    assert_eq!(posts(&gateway.url("/"), 400, 4, |_| {}).await, 0);
}

#[tokio::test]
async fn a_reload_loses_no_more_than_behind_plain_nginx() {
    let (gateway, fpm) = start(4, "", "").await;
    let nginx = PlainNginx::before(&fpm).await;
    let mut lost = Vec::new();
    for url in [nginx.url("/"), gateway.url("/")] {
        let failed = posts(&url, 1600, 4, |seen| {
            if seen % 400 == 200 {
                fpm.reload();
            }
        });
        lost.push(failed.await);
    }
    assert!(lost[1] <= lost[0], "{lost:?}");
}

#[tokio::test]
async fn a_script_that_crashes_runs_once() {
    for keys in ["", "keep_conn = true"] {
        let (gateway, fpm) = start(2, "", keys).await;
        let client = client();
        // A connection may be there from before.
        assert_eq!(get_ok(&client, &gateway.url("/")).await, "hello ");
        let response = get(&client, &gateway.url("/?do=crash")).await;
        assert_eq!(response.status().as_u16(), 502);
        assert_eq!(fpm.file("runs"), "x", "{keys}");
        assert_eq!(get_ok(&client, &gateway.url("/")).await, "hello ");
    }
}

/// PHP-FPM reads each record of PARAMS by itself: none is to end inside a parameter.
#[tokio::test]
async fn long_urls_and_fields() {
    let (gateway, _fpm) = start(2, "", "").await;
    for (url, cookie, fields) in [
        (7900, 0, &[7900, 7900, 7900][..]),
        (60_000, 0, &[]),
        (100, 60_000, &[]),
        (20_000, 20_000, &[20_000]),
        (100, 100, &[600; 80]),
    ] {
        let start = "/?do=lengths&fill=";
        let path = format!("{start}{}", "x".repeat(url - start.len()));
        let mut headers = Vec::new();
        let mut expected = format!("{url} {cookie}");
        if cookie > 0 {
            headers.push((String::from("cookie"), "c".repeat(cookie)));
        }
        for (n, &length) in fields.iter().enumerate() {
            headers.push((format!("x-{n}"), "f".repeat(length)));
            expected += &format!(" {length}");
        }
        let mut request = client().get(gateway.url(&path));
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let found = response.text().await.expect("the body");
        assert_eq!((status, &found), (200, &expected));
        // By HTTP/2.
        let mut command = Command::new("nghttp");
        for (name, value) in &headers {
            command.arg("-H").arg(format!("{name}: {value}"));
        }
        let output = command.arg(gateway.url(&path)).output();
        let output = output.expect("nghttp (package nghttp2-client)");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}
