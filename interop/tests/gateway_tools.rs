//! The gateway of this project under the tools that people measure web servers with, `h2load` and `wrk`: of some thousands of requests not
//! one fails.

use std::process::Command;

use afcgi_interop::app::App;
use afcgi_interop::http::noise;
use afcgi_interop::own::{Own, certificate, upstream};

async fn run(name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["60", name]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.expect("no panic").expect("timeout");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
    println!("{name} {arguments:?}:\n{text}");
    text
}

/// All of `count` requests succeed, each with so many bytes.
async fn h2load(options: &[&str], count: usize, length: usize, url: &str) {
    let number = count.to_string();
    let flags = ["-n", &number, "-c", "20", "-t", "1"];
    let text = run("h2load", &[&flags, options, &[url]].concat()).await;
    for line in [
        format!(
            "requests: {count} total, {count} started, {count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout"
        ),
        format!("status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx"),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} in:\n{text}"
        );
    }
    let data = format!(" ({}) data", count * length);
    assert!(text.contains(&data), "{data} in:\n{text}");
}

/// Small responses, large ones and bodies, over one version of HTTP.
async fn every_kind(version: &[&str], url: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let body = dir.path().join("body");
    std::fs::write(&body, noise(30_000, 1)).expect("a body");
    h2load(version, 4000, 12, url).await;
    h2load(version, 100, 1_000_000, &format!("{url}bytes?n=1000000")).await;
    let data = ["-d", body.to_str().expect("a path")];
    h2load(
        &[version, &data].concat(),
        500,
        30_000,
        &format!("{url}echo"),
    )
    .await;
}

#[tokio::test]
async fn http2_in_clear_and_http1() {
    let app = App::afcgitest(&[]).await;
    let gateway = Own::before(app.port(), "").await;
    // Ten requests at a time on each of twenty connections, and one.
    every_kind(&["-p", "h2c", "-m", "10"], &gateway.url("/")).await;
    every_kind(&["--h1"], &gateway.url("/")).await;
    assert_eq!(gateway.upstream("connections_total").await, 1.0);
    gateway.is_idle().await;
    assert!(!gateway.process.log().contains("ERROR"));
}

#[tokio::test]
async fn tls() {
    let app = App::afcgitest(&[]).await;
    let dir = certificate();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let flags = ["--tls-cert", &cert, "--tls-key", &key];
    let gateway = Own::start(&flags, &upstream(app.port(), "")).await;
    let url = gateway.url("/").replace("http:", "https:");
    every_kind(&["-m", "10"], &url).await;
    every_kind(&["--h1"], &url).await;
    gateway.is_idle().await;
    assert!(!gateway.process.log().contains("ERROR"));
}

#[tokio::test]
async fn wrk() {
    let app = App::afcgitest(&[]).await;
    let gateway = Own::before(app.port(), "").await;
    let mut served = 0;
    for (path, least) in [
        ("/", 1000),
        ("/bytes?n=1000000", 20),
        ("/delay?ms=10", 1000),
    ] {
        let flags = ["-t", "1", "-c", "100", "-d", "2s", "--timeout", "30s"];
        let text = run("wrk", &[&flags[..], &[&gateway.url(path)]].concat()).await;
        assert!(
            !text.contains("Socket errors") && !text.contains("Non-2xx"),
            "{text}"
        );
        let (count, _) = text.split_once(" requests in ").expect(&text);
        let count = count.rsplit(['\n', ' ']).next().expect("a number");
        let count: usize = count.parse().expect(count);
        assert!(count >= least, "{text}");
        served += count;
    }
    let counted = gateway.metrics().await["requests_total{code=\"2xx\"}"];
    assert!(counted >= served as f64, "{counted} of {served}");
    gateway.is_idle().await;
    assert!(!gateway.process.log().contains("ERROR"));
}
