//! What is shown: text, JSON and a page, on a terminal and elsewhere, and what Ctrl-C leaves of a run.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::Stdio;

use afcgi_interop::fake::{end, response};
use afcgi_interop::raw::{kind, record};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::task::spawn_blocking;

use crate::rig::{answers, at, bench, command, hello};

#[tokio::test]
async fn text() {
    let app = hello().await;
    let pid = std::process::id().to_string();
    let ran = bench(&["-n", "500", "--pid", &pid, "--children", &at(&app)]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    for words in [
        "1 connection × 64 requests at once, 1 thread, closed loop",
        "requests    500 answered, 0 failed",
        "200: 500",
        "  99.99 %",
        "µs a request",
        "at most",
    ] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
    // Into a pipe goes no colour and nothing that moves the cursor, and no line is too long.
    assert!(!ran.out.contains(['\u{1b}', '\r']), "{:?}", ran.out);
    for line in ran.out.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

/// What an application says stands in the page as text.
#[tokio::test]
async fn a_page() {
    let app = answers(|id| {
        let noise = record(kind::STDERR, id, b"</script><img src=x>");
        [noise, record(kind::STDOUT, id, b"no field\n\n"), end(id, 0)].concat()
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let name = folder.path().join("page.html");
    let name = name.to_str().expect("a name");
    let ran = bench(&["-n", "20", "--html", name, &at(&app)]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    let page = std::fs::read_to_string(name).expect("the page");
    assert!(page.starts_with("<!doctype html>"));
    assert!(page.trim_end().ends_with("</html>"));
    assert_eq!(page.matches("</script>").count(), 1);
    // Nothing comes from elsewhere.
    for place in ["src=\"", "href=", "url(", "@import", "https:"] {
        assert!(!page.contains(place), "{place}");
    }
    let figures = page.split_once("const R = ").expect("figures").1;
    let figures = figures.split_once(";\n").expect("their end").0;
    let figures: serde_json::Value = serde_json::from_str(figures).expect("JSON");
    assert_eq!(figures["errors"][0]["kind"], "head");
    assert_eq!(figures["stderr_first"], "</script><img src=x>");
}

/// The line that shows how it goes is on a terminal only, and leaves nothing behind.
#[tokio::test]
async fn progress() {
    let app = hello().await;
    for (flags, shown) in [(&[][..], true), (&["-q"], false)] {
        let mut command = command(&[flags, &["-d", "700ms", &at(&app)]].concat());
        command
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            .stdout(Stdio::piped());
        let run = move || {
            let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
            let terminal = terminal.expect("a terminal");
            grantpt(&terminal).expect("grantpt");
            unlockpt(&terminal).expect("unlockpt");
            let name = ptsname(&terminal, Vec::new()).expect("its name");
            let name = name.to_str().expect("a name");
            let tty = OpenOptions::new()
                .write(true)
                .open(name)
                .expect("its other end");
            let mut child = command.stderr(tty).spawn().expect("afcgi");
            drop(command);
            let mut written = Vec::new();
            // A terminal that nobody has open any more gives an error, not an end.
            _ = File::from(terminal).read_to_end(&mut written);
            let output = report(&mut child);
            (String::from_utf8_lossy(&written).into_owned(), output)
        };
        let (written, report) = spawn_blocking(run).await.expect("a thread");
        assert_eq!(written.contains("requests/s"), shown, "{written:?}");
        assert!(!written.contains("\u{1b}[3"), "{written:?}");
        assert!(report.contains("answered"), "{report}");
    }
}

/// The standard output up to the end.
fn report(child: &mut std::process::Child) -> String {
    let mut text = String::new();
    let out = child.stdout.as_mut().expect("a pipe");
    out.read_to_string(&mut text).expect("text");
    child.wait().expect("its end");
    text
}

/// Ctrl-C: the report of what there was until then, and an exit status that says so.
#[tokio::test]
async fn interrupted() {
    let app = answers(|id| response(id, "Hello\n")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let name = folder.path().join("page.html");
    let name = name.to_str().expect("a name").to_owned();
    let arguments = ["-d", "10m", "--json", "--html", &name, &at(&app)];
    let child = command(&arguments).stdout(Stdio::piped()).spawn();
    let child = child.expect("afcgi");
    // It has begun when the second connection has come: the first is to ask.
    while app.connections() < 2 {
        tokio::task::yield_now().await;
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::INT).expect("a signal");
    let output = spawn_blocking(|| child.wait_with_output()).await;
    let output = output.expect("a thread").expect("its end");
    assert_eq!(output.status.code(), Some(130));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["interrupted"], true);
    assert_eq!(json["exit_status"], 130);
    assert!(std::fs::metadata(&name).expect("the page").len() > 1000);
}
