//! `afcgi check` against the servers of this project, which pass, and against applications on other libraries, which deviate exactly as
//! `docs/conformance.md` says.

use std::collections::BTreeSet;
use std::process::Command;

use afcgi_interop::app::{App, afcgi, workspace};
use afcgi_interop::fake::{Fake, next_request, response, values, write};
use afcgi_interop::gateway::{Gateway, Kind};
use afcgi_interop::php::Php;
use afcgi_interop::wait::{SOON, eventually, free_port};
use serde_json::Value;

/// How long those may take for anything that are never late, since this machine may be busy; and those that are.
const PATIENT: &str = "--timeout=8s";
const BRIEF: &str = "--timeout=3s";

/// Runs the tool; its report.
async fn check(arguments: &[&str]) -> Value {
    let mut command = Command::new(afcgi());
    command.args(["check", "--json"]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("a thread").expect("afcgi");
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

/// The ids of cases with an outcome.
fn ids(report: &Value, outcome: &str) -> BTreeSet<String> {
    let cases = report["cases"].as_array().expect("cases");
    let cases = cases.iter().filter(|case| case["outcome"] == outcome);
    cases
        .map(|case| case["id"].as_str().expect("an id").to_owned())
        .collect()
}

/// The deviations that `docs/conformance.md` has below a heading: the ids that begin the rows of its table. The second are those that are
/// not always found, as it says.
fn documented(heading: &str) -> [BTreeSet<String>; 2] {
    let path = workspace().join("docs/conformance.md");
    let text = std::fs::read_to_string(&path).expect("docs/conformance.md");
    let sections = text.split("\n### ").skip(1);
    let section = sections
        .filter(|section| section.starts_with(heading))
        .collect::<Vec<_>>();
    let [section] = section.as_slice() else {
        panic!("{} sections begin with {heading}", section.len());
    };
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let (mut always, mut sometimes) = (BTreeSet::new(), BTreeSet::new());
    for row in rows {
        let (ids, text) = row.split_once(" | ").expect(row);
        let to = match text.starts_with("Sometimes:") {
            true => &mut sometimes,
            false => &mut always,
        };
        to.extend(ids.split(", ").map(|id| id.trim_matches('`').to_owned()));
    }
    [always, sometimes]
}

/// Fails the test with what failed and is not documented, or the other way round.
fn deviates(report: &Value, [expected, sometimes]: &[BTreeSet<String>; 2]) {
    let failed: BTreeSet<String> = ids(report, "fail").difference(sometimes).cloned().collect();
    if failed == *expected {
        return;
    }
    let cases = report["cases"].as_array().expect("cases");
    let said = |id: &String| match cases.iter().find(|case| case["id"] == **id) {
        Some(case) => format!(
            "{id} {}: {} (expected {})",
            case["name"], case["came"], case["expected"]
        ),
        None => format!("{id} is no case"),
    };
    let more: Vec<String> = failed.difference(expected).map(said).collect();
    let less: Vec<String> = expected.difference(&failed).map(said).collect();
    panic!(
        "not documented:\n{}\ndocumented, and not so:\n{}",
        more.join("\n"),
        less.join("\n")
    );
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}/")
}

/// The paths of afcgitest and of those programs that have the same.
const PATHS: [&str; 3] = ["--echo=/echo", "--params=/env", "--slow=/delay?ms=60000"];

#[tokio::test]
async fn afcgitest_passes() {
    let app = App::afcgitest(&[]).await;
    let (at, pid) = (at(app.port()), format!("--pid={}", app.process.id()));
    let more = [
        &at,
        "--large=/bytes?n=20000000",
        "--stderr=/stderr",
        "--websocket=/websocket",
        &pid,
    ];
    let report = check(&[&[PATIENT], &more[..], &PATHS].concat()).await;
    deviates(&report, &Default::default());
    // FCGI_MAX_REQS is more than there are ids.
    assert_eq!(ids(&report, "skip"), BTreeSet::from(["mpx/11".to_owned()]));
}

#[tokio::test]
async fn axum_app_passes() {
    let app = App::example("axum-app").await;
    let pid = format!("--pid={}", app.process.id());
    let report = check(&[&at(app.port()), PATIENT, "--slow=/countdown/250", &pid]).await;
    deviates(&report, &Default::default());
}

#[tokio::test]
async fn hello_passes() {
    let app = App::example("hello").await;
    let report = check(&[&at(app.port()), PATIENT]).await;
    deviates(&report, &Default::default());
}

/// On the native API, and another role.
#[tokio::test]
async fn filter_passes() {
    let app = App::filter().await;
    let report = check(&[&at(app.port()), PATIENT]).await;
    deviates(&report, &Default::default());
}

#[tokio::test]
async fn go_deviates_as_documented() {
    let app = App::go().await;
    let report = check(
        &[
            &[BRIEF, &*at(app.port()), "--large=/bytes?n=20000000"],
            &PATHS[..],
        ]
        .concat(),
    )
    .await;
    deviates(&report, &documented("Go"));
}

#[tokio::test]
async fn libfcgi_deviates_as_documented() {
    let app = App::libfcgi().await;
    let report =
        check(&[&[BRIEF, &*at(app.port()), "--stderr=/stderr"], &PATHS[..]].concat()).await;
    deviates(&report, &documented("libfcgi"));
}

#[tokio::test]
async fn perl_deviates_as_documented() {
    let app = App::perl().await;
    let report =
        check(&[&[BRIEF, &*at(app.port()), "--stderr=/stderr"], &PATHS[..]].concat()).await;
    deviates(&report, &documented("Perl"));
}

#[tokio::test]
async fn flup_deviates_as_documented() {
    let app = App::flup().await;
    let report =
        check(&[&[BRIEF, &*at(app.port()), "--stderr=/stderr"], &PATHS[..]].concat()).await;
    deviates(&report, &documented("flup"));
}

#[tokio::test]
async fn php_fpm_deviates_as_documented() {
    let php = Php::start_with(8, "catch_workers_output = yes", &[("index.php", PHP)]).await;
    let script = format!("--script={}/index.php", php.root());
    let paths = [
        "--echo=/echo",
        "--params=/env",
        "--slow=/slow",
        "--large=/large",
        "--stderr=/stderr",
    ];
    let report = check(&[&[BRIEF, &*at(php.port()), &*script], &paths[..]].concat()).await;
    deviates(&report, &documented("PHP-FPM"));
}

/// The tool behind a web server, and before it.
async fn web_server(kind: Kind) -> Value {
    let app = free_port();
    // The web server is ready when it has been answered.
    let ready = Fake::start_at(([127, 0, 0, 1], app), async |mut socket, _| {
        if let Some(id) = next_request(&mut socket, Some(&values(false))).await {
            write(&mut socket, &response(id, "ready")).await;
        }
    });
    let ready = ready.await;
    let gateway = Gateway::start(kind, app).await;
    drop(ready);
    eventually("the port is free", SOON, || async {
        let bound = std::net::TcpListener::bind(("127.0.0.1", app));
        bound.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let (at, url) = (format!("127.0.0.1:{app}"), gateway.url("/check"));
    check(&["--web-server", &at, "--url", &url, "--timeout=6s"]).await
}

macro_rules! web_servers {
    ($($name:ident = $kind:ident, $heading:literal;)*) => {$(
        #[tokio::test]
        async fn $name() {
            let report = web_server(Kind::$kind).await;
            deviates(&report, &documented($heading));
        }
    )*};
}

web_servers! {
    nginx_deviates_as_documented = Nginx, "nginx";
    haproxy_deviates_as_documented = Haproxy, "HAProxy";
    lighttpd_deviates_as_documented = Lighttpd, "lighttpd";
    apache_deviates_as_documented = Apache, "Apache";
    caddy_deviates_as_documented = Caddy, "Caddy";
    the_gateway_deviates_as_documented = Afcgi, "afcgi gateway";
}

/// The same routes in PHP.
const PHP: &str = r#"<?php
header('Content-Type: text/plain');
switch (strtok($_SERVER['REQUEST_URI'], '?')) {
    case '/echo':
        readfile('php://input');
        break;
    case '/env':
        foreach ($_SERVER as $name => $value)
            if (is_string($value))
                echo "$name=$value\n";
        break;
    case '/slow':
        sleep(20);
        break;
    case '/large':
        for ($n = 0; $n < 2000; $n++)
            echo str_repeat('x', 10000);
        break;
    case '/stderr':
        error_log('written by /stderr');
        echo "hello\n";
        break;
    default:
        echo "hello\n";
}
"#;
