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
/// How long all may take that is asked for again.
const MORE: &str = "--timeout=15s";

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

/// The system whose packages `docs/conformance.md` is about. Other versions may deviate in other cases.
fn is_documented_system() -> bool {
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    system.contains("VERSION_CODENAME=bookworm")
}

/// Runs the tool with arguments, and fails the test if the cases that failed are not those that are documented. Cases that differ are
/// asked once more with more time: this machine may be busy. With other versions than the documented ones what differs is printed, and
/// the cases must all have run.
async fn deviates(arguments: &[&str], more_time: &str, documented: &[BTreeSet<String>; 2]) {
    let [expected, sometimes] = documented;
    let report = check(arguments).await;
    let failed = |report: &Value| -> BTreeSet<String> {
        ids(report, "fail").difference(sometimes).cloned().collect()
    };
    let mut found = failed(&report);
    let different: Vec<String> = found.symmetric_difference(expected).cloned().collect();
    let mut cases = report["cases"].as_array().expect("cases").clone();
    if !different.is_empty() {
        let only = format!("--only={}", different.join(","));
        let mut again: Vec<&str> = (arguments.iter().copied())
            .filter(|argument| !argument.starts_with("--timeout"))
            .collect();
        again.extend([more_time, &only]);
        let again = check(&again).await;
        let now = failed(&again);
        found.retain(|id| !different.contains(id) || now.contains(id));
        found.extend(now);
        cases.extend(again["cases"].as_array().expect("cases").iter().cloned());
    }
    if found == *expected {
        return;
    }
    let said = |id: &String| match cases.iter().rev().find(|case| case["id"] == **id) {
        Some(case) => format!(
            "{id} {}: {} (expected {})",
            case["name"], case["came"], case["expected"]
        ),
        None => format!("{id} is no case"),
    };
    let more: Vec<String> = found.difference(expected).map(said).collect();
    let less: Vec<String> = expected.difference(&found).map(said).collect();
    let text = format!(
        "not documented:\n{}\ndocumented, and not so:\n{}",
        more.join("\n"),
        less.join("\n")
    );
    let ours = expected.is_empty() && sometimes.is_empty();
    assert!(!ours && !is_documented_system(), "{text}");
    eprintln!("{text}");
    let passed = ids(&report, "pass").len();
    assert!(passed > cases.len() / 3, "{passed} of {}", cases.len());
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
    let arguments = [&[PATIENT], &more[..], &PATHS].concat();
    deviates(&arguments, MORE, &Default::default()).await;
    // FCGI_MAX_REQS is more than there are ids.
    let report = check(&[&arguments[..], &["--only=mpx"]].concat()).await;
    assert_eq!(ids(&report, "skip"), BTreeSet::from(["mpx/11".to_owned()]));
}

#[tokio::test]
async fn axum_app_passes() {
    let app = App::example("axum-app").await;
    let pid = format!("--pid={}", app.process.id());
    let at = at(app.port());
    let arguments = [&at, PATIENT, "--slow=/countdown/250", &pid];
    deviates(&arguments, MORE, &Default::default()).await;
}

#[tokio::test]
async fn hello_passes() {
    let app = App::example("hello").await;
    deviates(&[&at(app.port()), PATIENT], MORE, &Default::default()).await;
}

/// On the native API, and another role.
#[tokio::test]
async fn filter_passes() {
    let app = App::filter().await;
    deviates(&[&at(app.port()), PATIENT], MORE, &Default::default()).await;
}

#[tokio::test]
async fn go_deviates_as_documented() {
    let app = App::go().await;
    let at = at(app.port());
    let arguments = [&[BRIEF, &*at, "--large=/bytes?n=20000000"], &PATHS[..]].concat();
    deviates(&arguments, PATIENT, &documented("Go")).await;
}

#[tokio::test]
async fn libfcgi_deviates_as_documented() {
    let app = App::libfcgi().await;
    let at = at(app.port());
    let arguments = [&[BRIEF, &*at, "--stderr=/stderr"], &PATHS[..]].concat();
    deviates(&arguments, PATIENT, &documented("libfcgi")).await;
}

#[tokio::test]
async fn perl_deviates_as_documented() {
    let app = App::perl().await;
    let at = at(app.port());
    let arguments = [&[BRIEF, &*at, "--stderr=/stderr"], &PATHS[..]].concat();
    deviates(&arguments, PATIENT, &documented("Perl")).await;
}

#[tokio::test]
async fn flup_deviates_as_documented() {
    let app = App::flup().await;
    let at = at(app.port());
    let arguments = [&[BRIEF, &*at, "--stderr=/stderr"], &PATHS[..]].concat();
    deviates(&arguments, PATIENT, &documented("flup")).await;
}

#[tokio::test]
async fn php_fpm_deviates_as_documented() {
    let php = Php::start_with(8, "catch_workers_output = yes", &[("index.php", PHP)]).await;
    let script = format!("--script={}/index.php", php.root());
    let at = at(php.port());
    let paths = [
        "--echo=/echo",
        "--params=/env",
        "--slow=/slow",
        "--large=/large",
        "--stderr=/stderr",
    ];
    let arguments = [&[BRIEF, &*at, &*script], &paths[..]].concat();
    deviates(&arguments, PATIENT, &documented("PHP-FPM")).await;
}

/// The tool behind a web server, and before it.
async fn web_server(kind: Kind, documented: &[BTreeSet<String>; 2]) {
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
    let arguments = ["--web-server", &at, "--url", &url, "--timeout=6s"];
    deviates(&arguments, MORE, documented).await;
}

macro_rules! web_servers {
    ($($name:ident = $kind:ident, $heading:literal;)*) => {$(
        #[tokio::test]
        async fn $name() {
            web_server(Kind::$kind, &documented($heading)).await;
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
