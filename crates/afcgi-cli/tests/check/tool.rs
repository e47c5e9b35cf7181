//! The program: what it prints, how it ends, and that no application holds it up.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use afcgi_interop::fake::{Fake, next_request, response, write};
use tokio::io::AsyncReadExt;
use tokio::task::LocalSet;

use crate::mutant::Mutant;

/// Runs the program with a server of this process that has a fault, or none, at `ADDR`.
fn ran(fault: Option<Mutant>, arguments: &[&str]) -> Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let address = crate::server::start(fault);
        run(&address, arguments).await
    })
}

async fn run(address: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afcgi"));
    command.arg("check").arg(address).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    output.expect("a thread").expect("afcgi")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn what_passes_ends_with_0() {
    let output = ran(
        None,
        &["--only", "records,R-57", "--skip", "3.3/2", "--slow=/slow"],
    );
    let out = text(&output.stdout);
    assert_eq!(code(&output), Some(0), "{out}");
    for line in [
        "FCGI_MPXS_CONNS=1",
        "\n3.3 Records\n  ✓ 3.3/1         must    a request that comes byte by byte is answered as in one piece\n",
        "\n5.4 ABORT_REQUEST\n",
        "(--echo is not given)\n",
        " passed, 0 failed, ",
    ] {
        assert!(out.contains(line), "{line:?} in\n{out}");
    }
    assert!(!out.contains("3.3/2 ") && !out.contains("memory"), "{out}");
}

#[test]
fn what_fails_is_shown_with_its_records_and_ends_with_1() {
    let output = ran(Some(Mutant::NamesAnotherType), &["--only", "4/10"]);
    let out = text(&output.stdout);
    assert_eq!(code(&output), Some(1), "{out}");
    for line in [
        "  ✗ 4/10          must    a management record of an unknown type",
        "      rule      R-42\n",
        "      expected  UNKNOWN_TYPE of type 200, with id 0\n",
        "      came      01 0b 00 00 00 08 00 00 c9 00 00 00 00 00 00 00\n",
        "          01 c8 00 00 00 00 00 00\n",
        "UNKNOWN_TYPE id 0, 8 bytes: does not know type 201\n",
        "\n0 passed, 1 failed, 0 skipped\n",
    ] {
        assert!(out.contains(line), "{line:?} in\n{out}");
    }
}

#[test]
fn what_should_be_counts_with_strict() {
    let fault = Some(Mutant::SetsTheReservedByte);
    for (flags, expected) in [(&[][..], 0), (&["--strict"][..], 1)] {
        let output = ran(fault, &[&["--only", "3.3/12"], flags].concat());
        assert_eq!(code(&output), Some(expected), "{}", text(&output.stdout));
        assert!(text(&output.stdout).contains("1 failed (1 of them should, not must)"));
    }
}

#[test]
fn json_and_junit_say_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("report.xml");
    let junit = format!("--junit={}", path.display());
    let output = ran(
        Some(Mutant::NamesAnotherType),
        &["--only", "4", "--json", &junit],
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((code(&output), &report["failed"]), (Some(1), &1.into()));
    let cases = report["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 17);
    let failed = cases
        .iter()
        .find(|case| case["outcome"] == "fail")
        .expect("one");
    assert_eq!(
        (&failed["id"], &failed["rules"][0]),
        (&"4/10".into(), &"R-42".into())
    );
    assert!(failed["transcript"].as_array().expect("lines").len() >= 4);
    let xml = std::fs::read_to_string(&path).expect("a report");
    assert!(
        xml.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite "),
        "{xml}"
    );
    assert_eq!(xml.matches("<testcase ").count(), 17);
    assert_eq!(xml.matches("<failure ").count(), 1);
    assert!(
        xml.contains(" tests=\"17\" failures=\"1\" errors=\"0\" skipped=\"0\""),
        "{xml}"
    );
    // Whoever else reads XML agrees.
    let script = "import sys, xml.dom.minidom as m; print(len(m.parse(sys.argv[1]).getElementsByTagName('testcase')))";
    let parsed = Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .output()
        .expect("python3");
    assert_eq!(
        text(&parsed.stdout).trim(),
        "17",
        "{}",
        text(&parsed.stderr)
    );
}

#[test]
fn the_list_has_every_case() {
    let output = Command::new(env!("CARGO_BIN_EXE_afcgi"))
        .args(["check", "--list"])
        .output();
    let output = output.expect("afcgi");
    let out = text(&output.stdout);
    for known in crate::mutant::ALL {
        let begin = format!("  {} ", known.case);
        assert!(
            out.lines().any(|line| line.starts_with(&begin)),
            "{}",
            known.case
        );
    }
    let count = crate::mutant::ALL.len();
    assert!(
        out.contains(&format!("\n{count} cases\n\nWith --web-server:\n")),
        "{out}"
    );
    assert!(out.ends_with("\n36 cases\n"), "{out}");
}

#[test]
fn what_cannot_be_run_ends_with_2() {
    for (arguments, words) in [
        (
            &["127.0.0.1:1"][..],
            "does not answer a plain request: cannot connect",
        ),
        (
            &["127.0.0.1:1", "--only", "nonsense"],
            "`nonsense` names no case",
        ),
        (&["nowhere"], "nowhere"),
        (&["127.0.0.1:1", "--param", "x"], "expected NAME=VALUE"),
        (&["127.0.0.1:0", "--web-server", "--url", "x"], "is no URL"),
        (
            &["192.0.2.1:1", "--web-server", "--url", "http://a/"],
            "cannot listen at 192.0.2.1:1",
        ),
        (&[], "required"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_afcgi"))
            .arg("check")
            .args(arguments)
            .output();
        let output = output.expect("afcgi");
        let error = text(&output.stderr);
        assert!(
            code(&output) == Some(2) && error.contains(words),
            "{arguments:?}: {error}"
        );
    }
}

/// All cases against an application that answers the plain request at first and then does what `serve` does.
async fn turns<F>(
    serve: impl Fn(tokio::net::TcpStream) -> F + Send + Sync + Clone + 'static,
) -> Output
where
    F: Future<Output = ()> + Send + 'static,
{
    let fake = Fake::start(move |mut socket, number| {
        let serve = serve.clone();
        async move {
            if number > 0 {
                return serve(socket).await;
            }
            while let Some(id) = next_request(&mut socket, None).await {
                write(&mut socket, &response(id, "hello")).await;
            }
        }
    })
    .await;
    let started = Instant::now();
    let address = format!("127.0.0.1:{}", fake.port());
    let output = run(&address, &["--timeout", "200ms", "--jobs", "16", "--json"]).await;
    assert!(started.elapsed() < Duration::from_secs(120));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(code(&output), Some(1));
    assert!(
        report["failed"].as_u64().expect("a number") > 50,
        "{report}"
    );
    output
}

#[tokio::test]
async fn one_who_says_nothing_holds_up_nothing() {
    turns(async |mut socket| {
        while socket
            .read(&mut [0; 4096])
            .await
            .is_ok_and(|count| count > 0)
        {}
    })
    .await;
}

#[tokio::test]
async fn one_who_closes_at_once_holds_up_nothing() {
    turns(async |socket| drop(socket)).await;
}

#[tokio::test]
async fn one_who_sends_garbage_holds_up_nothing() {
    let output = turns(async |mut socket| {
        write(&mut socket, b"\x1b[2J\x07 this is \xff no FastCGI").await;
        while socket
            .read(&mut [0; 4096])
            .await
            .is_ok_and(|count| count > 0)
        {}
    })
    .await;
    assert!(!output.stdout.contains(&0x1b) && !output.stdout.contains(&7));
}

/// 64 MiB at most are taken in a case.
async fn is_cut_off(content: usize, only: &str, count: u64) {
    let fake = Fake::start(move |mut socket, number| async move {
        if number == 0 {
            while let Some(id) = next_request(&mut socket, None).await {
                write(&mut socket, &response(id, "hello")).await;
            }
            return;
        }
        let record = afcgi_interop::raw::record(6, 999, &vec![b'x'; content]);
        let stdout = record.repeat(100);
        while tokio::io::AsyncWriteExt::write_all(&mut socket, &stdout)
            .await
            .is_ok()
        {}
    })
    .await;
    let address = format!("127.0.0.1:{}", fake.port());
    let output = run(&address, &["--timeout", "60s", "--only", only, "--json"]).await;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["failed"], count, "{report}");
    assert!(
        text(&output.stdout).contains("more than 67108864 bytes"),
        "{report}"
    );
}

#[tokio::test]
async fn one_who_never_stops_holds_up_nothing() {
    is_cut_off(60_000, "3.3/1,3.3/13,4/10", 3).await;
}

/// Each takes memory by itself.
#[tokio::test]
async fn empty_records_count_as_well() {
    is_cut_off(0, "4/10", 1).await;
}

/// Whoever is told to ask is a web server for this test.
#[tokio::test]
async fn without_a_url_it_says_when_to_ask() {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_afcgi"));
    command.args([
        "check",
        "--web-server",
        "127.0.0.1:0",
        "--only",
        "web/4,web/9,web/31",
        "--json",
    ]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("afcgi");
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(
        child.stderr.take().expect("STDERR"),
    ));
    while let Some(line) = lines.next_line().await.expect("text") {
        let (_, address) = line
            .rsplit_once(" passes on to ")
            .unwrap_or_else(|| panic!("{line}"));
        let mut socket = tokio::net::TcpStream::connect(address)
            .await
            .expect("the tool listens");
        write(&mut socket, &afcgi_interop::raw::request(1, "/", "")).await;
        _ = socket.read_to_end(&mut Vec::new()).await;
    }
    let output = child.wait_with_output().await.expect("its end");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&report["passed"], &report["failed"], &report["skipped"]),
        (&1.into(), &0.into(), &2.into()),
        "{report}"
    );
}
