//! `afcgi request` with applications that are not ours: PHP-FPM, Go's net/http/fcgi, libfcgi and Perl's FCGI.

use std::process::{Command, Output};

use afcgi_interop::app::{App, afcgi};
use afcgi_interop::php::Php;

fn request(arguments: &[&str]) -> Output {
    let mut command = Command::new(afcgi());
    command.arg("request").args(arguments);
    command.output().expect("afcgi request")
}

/// Runs it, and expects an exit status, words on the standard output and words on STDERR.
fn expect(arguments: &[&str], code: i32, out: &str, err: &str) {
    let output = request(arguments);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let all = format!("{arguments:?}: {}\n{stdout}\n{stderr}", output.status);
    assert_eq!(output.status.code(), Some(code), "{all}");
    assert!(stdout.contains(out), "{out:?} in {all}");
    assert!(stderr.contains(err), "{err:?} in {all}");
}

const JOB: &str = r#"<?php
header('X-Job: done');
error_log('a line for the log');
echo $_SERVER['SCRIPT_NAME'], ' ', $_SERVER['REQUEST_URI'], ' ', $_SERVER['DOCUMENT_ROOT'], ' ', json_encode($_GET + $_POST), "\n";
foreach ($_FILES as $file) { echo $file['name'], ' ', $file['size'], "\n"; }
"#;

/// The pages of a pool, and scripts, over a unix socket as most pools have one.
#[tokio::test]
async fn php_fpm() {
    let files = [("app/job.php", JOB), ("app/notes.txt", "notes")];
    let settings = "[own]\nlisten = DIR/own.sock\nuser = root\ngroup = root\npm = static\npm.max_children = 2\n\
        pm.status_path = /status\nping.path = /ping\n";
    let fpm = Php::start_with(1, settings, &files).await;
    let socket = fpm.socket_named("own").await;
    let script = format!("{}/app/job.php", fpm.root());
    let notes = format!("{}/app/notes.txt", fpm.root());
    let none = format!("{}/app/none.php", fpm.root());

    let status = format!("unix:{socket}/status?full&json");
    let output = request(&[&status]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the status");
    assert_eq!(
        (&json["pool"], &json["total processes"]),
        (&"own".into(), &2.into())
    );
    expect(&[&format!("{socket}/ping")], 0, "pong", "");
    expect(
        &["-sf", "--max-time", "20", &format!("unix:{socket}/ping")],
        0,
        "pong",
        "",
    );

    let at = format!("unix:{socket}");
    let root = format!("{}/app", fpm.root());
    let line = format!("/job.php /job.php {root} []\n");
    expect(&[&at, "--script", &script], 0, &line, "a line for the log");
    let line = format!("/job.php /blog/?a=1 {root} {{\"a\":\"1\",\"b\":\"2\"}}\n");
    expect(
        &[&format!("{at}/blog/?a=1"), "--script", &script, "-d", "b=2"],
        0,
        &line,
        "",
    );
    expect(
        &[&at, "--script", &script, "-F", &format!("f=@{notes}")],
        0,
        "notes.txt 5\n",
        "",
    );
    expect(
        &["-I", &at, "--script", &script],
        0,
        "Status: 200 OK\r\nX-Job: done\r\n",
        "",
    );

    // What goes wrong, and what it means.
    expect(
        &[&at, "--script", &none],
        0,
        "File not found.",
        "There is no such file on this machine either",
    );
    expect(&["-f", &at, "--script", &none], 22, "", "which was");
    expect(
        &[&format!("{at}/stat")],
        0,
        "File not found.",
        "pm.status_path or ping.path has to be /stat",
    );
    expect(
        &[&at, "--script", &notes],
        0,
        "Access denied.",
        "security.limit_extensions of the pool",
    );
    expect(&["--values", &at], 0, "multiplexing no", "");
    let repeat = [
        "--repeat",
        "40",
        "--concurrent",
        "2",
        &at,
        "--script",
        &script,
    ];
    expect(&repeat, 0, "40 answered and 0 failed", "a line for the log");

    // Nothing of that has made the pool's own numbers wrong: it counts a kept connection that is closed for ever.
    let fresh = Php::start_with(1, &settings.replace("own", "fresh"), &files).await;
    let at = format!("unix:{}", fresh.socket_named("fresh").await);
    for _ in 0..5 {
        expect(&[&format!("{at}/ping")], 0, "pong", "");
    }
    let output = request(&[&format!("{at}/status?json")]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the status");
    assert_eq!(json["active processes"], 1, "{json}");
    assert_eq!(json["total processes"], 2, "{json}");
}

#[tokio::test]
async fn go() {
    let app = App::go().await;
    all_routes(app.port(), 0, "multiplexing yes");
}

#[tokio::test]
async fn libfcgi() {
    let app = App::libfcgi().await;
    all_routes(app.port(), 28, "does not answer GET_VALUES");
}

#[tokio::test]
async fn perl() {
    let app = App::perl().await;
    all_routes(app.port(), 28, "does not answer GET_VALUES");
}

/// What all of them have.
fn all_routes(port: u16, values: i32, words: &str) {
    let at = |path: &str| format!("127.0.0.1:{port}{path}");
    expect(&[&at("/")], 0, "Hello world\n", "");
    expect(&["--no-keep-conn", &at("/")], 0, "Hello world\n", "");
    expect(&["--data-binary", "a\nb", &at("/echo")], 0, "a\nb", "");
    expect(&["-i", &at("/status?code=404")], 0, "Status: 404", "");
    expect(&["-f", &at("/status?code=404")], 22, "", "404");
    expect(
        &["-v", &at("/")],
        0,
        "Hello",
        "appStatus 0, REQUEST_COMPLETE",
    );
    expect(&["--values", &at("")], values, words, "");
    expect(
        &["--repeat", "40", "--concurrent", "4", &at("/")],
        0,
        "40 answered and 0 failed",
        "",
    );
    expect(
        &[
            "--abort-after",
            "200ms",
            "--timeout",
            "20s",
            &at("/delay?ms=600"),
        ],
        0,
        "",
        "aborted",
    );
}
