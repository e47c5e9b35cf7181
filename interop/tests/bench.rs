//! `afcgi bench` with applications of all kinds: `afcgitest`, Go's net/http/fcgi, PHP-FPM, libfcgi and Perl's FCGI.

use std::process::Command;

use afcgi_interop::app::{App, afcgi};
use afcgi_interop::php::Php;
use serde_json::Value;

/// Runs it, and expects an exit status.
fn bench(arguments: &[&str], code: i32) -> Value {
    let mut command = Command::new(afcgi());
    command.args(["bench", "--json"]).args(arguments);
    let output = command.output().expect("afcgi bench");
    let all = format!("{arguments:?}: {output:?}");
    assert_eq!(output.status.code(), Some(code), "{all}");
    serde_json::from_slice(&output.stdout).expect(&all)
}

/// Runs it, and expects so many right answers and nothing else.
fn right(count: u64, arguments: &[&str]) -> Value {
    let number = count.to_string();
    let json = bench(&[&["-n", &number], arguments].concat(), 0);
    assert_eq!(json["requests"]["answered"], count, "{json:#}");
    assert_eq!(json["requests"]["failed"], 0, "{json:#}");
    json
}

/// What all of them have, with so many connections at most.
fn all_routes(port: u16, connections: &str, multiplexing: &str) {
    let at = |path: &str| format!("127.0.0.1:{port}{path}");
    let json = right(
        500,
        &[
            "--expect-text",
            "Hello world\n",
            "--expect-length",
            "12",
            &at("/"),
        ],
    );
    assert_eq!(json["application"]["multiplexing"], multiplexing);
    let many = ["-c", connections, "--expect-length", "12"];
    right(500, &[&many[..], &[&at("/")]].concat());
    right(100, &[&many[..], &["-r", "1000", &at("/")]].concat());
    right(50, &["-c", connections, "--no-keep-conn", &at("/")]);
    right(
        100,
        &[
            "--body-size",
            "10k",
            "--expect-length",
            "10240",
            &at("/echo"),
        ],
    );
    let text = [
        "--data",
        "x=1",
        "--expect-text",
        "x=1",
        "--expect-length",
        "3",
    ];
    right(100, &[&text[..], &[&at("/echo")]].concat());
    right(50, &["--expect-status", "404", &at("/status?code=404")]);
    let json = bench(&["-n", "50", &at("/status?code=404")], 1);
    assert_eq!(json["errors"][0]["kind"], "status", "{json:#}");
    assert_eq!(json["errors"][0]["count"], 50);
}

#[tokio::test]
async fn afcgitest() {
    let app = App::afcgitest(&["--max-connection-requests=4000", "--max-requests=8000"]).await;
    all_routes(app.port(), "8", "multiplexes");
    let pid = app.process.id().to_string();
    let at = |path: &str| format!("127.0.0.1:{}{path}", app.port());
    right(
        20_000,
        &["-c", "2", "-m", "500", "-t", "2", "--pid", &pid, &at("/")],
    );
    // Requests that wait cost memory, and are aborted at the end.
    let hold = ["--hold", "2000", "-d", "500ms", "--pid", &pid];
    let json = bench(&[&hold[..], &[&at("/delay?ms=600000")]].concat(), 0);
    assert_eq!(json["held"]["open"], 2000, "{json:#}");
    assert_eq!(json["requests"]["aborted"], 2000);
    assert!(json["held"]["bytes_each"].as_f64() > Some(0.0), "{json:#}");
    // An abort ends a request that would take far longer.
    let aborts = ["-n", "200", "-m", "20", "--abort-after", "10ms"];
    let json = bench(&[&aborts[..], &[&at("/delay?ms=600000")]].concat(), 0);
    assert_eq!(json["requests"]["aborted"], 200, "{json:#}");
}

#[tokio::test]
async fn go() {
    let app = App::go().await;
    all_routes(app.port(), "8", "multiplexes");
    let at = |path: &str| format!("127.0.0.1:{}{path}", app.port());
    // Go ignores an abort after the end of STDIN, and answers.
    let aborts = ["-n", "60", "-m", "20", "--abort-after", "10ms"];
    let json = bench(&[&aborts[..], &[&at("/delay?ms=50")]].concat(), 0);
    assert_eq!(json["requests"]["aborted"], 60, "{json:#}");
}

#[tokio::test]
async fn libfcgi() {
    let app = App::libfcgi().await;
    all_routes(app.port(), "8", "silent");
}

#[tokio::test]
async fn perl() {
    let app = App::perl().await;
    all_routes(app.port(), "4", "silent");
}

const PAGE: &str =
    "<?php echo 'Hello ', $_GET['n'] ?? '', strlen(file_get_contents('php://input')), \"\\n\";";
const SLOW: &str = "<?php usleep(50000); echo 'slow';";

#[tokio::test]
async fn php_fpm() {
    let files = [("app/page.php", PAGE), ("app/slow.php", SLOW)];
    let settings = "[own]\nlisten = DIR/own.sock\nuser = root\ngroup = root\npm = static\npm.max_children = 4\n\
        pm.max_requests = 50\nping.path = /ping\n";
    let fpm = Php::start_with(1, settings, &files).await;
    let at = format!("unix:{}", fpm.socket_named("own").await);
    let page = format!("{}/app/page.php", fpm.root());
    let slow = format!("{}/app/slow.php", fpm.root());

    let json = right(200, &["--expect-text", "pong", &format!("{at}/ping")]);
    assert_eq!(json["application"]["multiplexing"], "one request at a time");
    assert_eq!(json["settings"]["concurrent"], 1);
    // Processes that end after 50 requests close their connections: nothing is lost.
    let json = right(
        400,
        &[
            "-c",
            "4",
            "--script",
            &page,
            "--expect-text",
            "Hello 0",
            &at,
        ],
    );
    assert!(json["connections"]["again"].as_u64() > Some(0), "{json:#}");
    right(100, &["-c", "4", "--no-keep-conn", "--script", &page, &at]);
    let body = ["--body-size", "100k", "--expect-text", "Hello 7102400"];
    right(
        50,
        &[&body[..], &["--script", &page, &format!("{at}?n=7")]].concat(),
    );
    // Twice as many as there are processes: the others wait in the queue of the socket, and each gets its turn.
    right(60, &["-c", "8", "--no-keep-conn", "--script", &slow, &at]);
    // PHP-FPM closes a connection for an abort, or answers all the same.
    let aborts = [
        "-n",
        "20",
        "-c",
        "2",
        "--abort-after",
        "10ms",
        "--script",
        &slow,
    ];
    let json = bench(&[&aborts[..], &[&at]].concat(), 0);
    assert_eq!(json["requests"]["aborted"], 20, "{json:#}");
    let none = ["-n", "20", "--script", "/none.php", &at];
    let json = bench(&none, 1);
    assert_eq!(json["errors"][0]["kind"], "status", "{json:#}");
    assert_eq!(json["stderr_first"], "Primary script unknown", "{json:#}");
}
