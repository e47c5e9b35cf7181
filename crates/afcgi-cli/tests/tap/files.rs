//! Recordings: written as traffic goes by, read again, and by Wireshark's tshark.

use std::path::Path;
use std::process::Command;

use afcgi_interop::fake::{end, response};
use afcgi_interop::raw::{self, kind, record};
use afcgi_interop::tap::Tap;
use afcgi_interop::wait::{SOON, eventually};

use crate::{afcgi_with, answers, exchange, request, texts};

const PARAMS: [(&str, &str); 4] = [
    ("REQUEST_METHOD", "POST"),
    ("REQUEST_URI", "/a?token=secret1"),
    ("HTTP_COOKIE", "secret2"),
    ("CONTENT_TYPE", "application/x-www-form-urlencoded"),
];

fn answer() -> Vec<u8> {
    let head = b"Set-Cookie: secret3\r\n\r\n";
    [
        record(kind::STDOUT, 1, head),
        record(kind::STDOUT, 1, &[b'b'; 60_000]),
        record(kind::STDOUT, 1, &[b'b'; 60_000]),
        record(kind::STDOUT, 1, b""),
        end(1, 0),
    ]
    .concat()
}

/// Fields of the packets of a file, as tshark finds them.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> String {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args([
        "-o",
        "tcp.check_checksum:TRUE",
        "-o",
        "ip.check_checksum:TRUE",
    ]);
    command.args(["-Y", filter, "-T", "fields"]);
    command.args(fields.iter().flat_map(|field| ["-e", field]));
    let output = command.output().expect("tshark (package tshark)");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Two requests, the second on a connection that is cut off; recorded with flags.
async fn recorded(flags: &[&str]) -> (Tap, u16, String) {
    let app = answers(answer()).await;
    let mut tap = Tap::before(app.port(), &[&["-w", "DIR/a.pcapng"], flags].concat()).await;
    for reset in [false, true] {
        let mut socket = raw::connect(tap.port()).await;
        exchange(&mut socket, &request(1, &PARAMS, b"a=b&pwd=secret4")).await;
        if reset {
            socket.set_zero_linger().expect("lingers not");
        }
    }
    let (log, code) = tap.end().await;
    assert_eq!(code, 0, "{log}");
    (tap, app.port(), log)
}

/// What tshark finds is what was sent: no packet is bad, each record is there, and each connection is whole.
#[tokio::test]
async fn tshark_reads_it() {
    let (tap, port, _) = recorded(&[]).await;
    let file = tap.file("a.pcapng");
    let bad = tshark(
        &file,
        "tcp.analysis.flags || tcp.checksum.status == 0 || ip.checksum.status == 0 || _ws.malformed",
        &["frame.number", "_ws.col.Info"],
    );
    assert_eq!(bad, "");
    let mut command = Command::new("tshark");
    command
        .arg("-r")
        .arg(&file)
        .args(["-d", &format!("tcp.port=={port},fcgi")]);
    command.args([
        "-Y",
        "fcgi",
        "-T",
        "fields",
        "-e",
        "fcgi.type",
        "-e",
        "tcp.stream",
    ]);
    let output = command.output().expect("tshark (package tshark)");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut types: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let (kinds, stream) = line.split_once('\t').expect("two fields");
        types.extend(
            kinds
                .split(',')
                .map(|kind| (stream.to_owned(), kind.to_owned())),
        );
    }
    for stream in ["0", "1"] {
        let of = types
            .iter()
            .filter(|pair| pair.0 == stream)
            .map(|pair| pair.1.as_str());
        let mut of: Vec<&str> = of.collect();
        of.sort_unstable();
        // BEGIN_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT.
        assert_eq!(
            of,
            ["1", "3", "4", "4", "5", "5", "6", "6", "6", "6"],
            "{text}"
        );
    }
    assert_eq!(
        tshark(
            &file,
            "tcp.flags.fin == 1 && tcp.stream == 0",
            &["tcp.srcport"]
        )
        .lines()
        .count(),
        2
    );
    assert_ne!(
        tshark(
            &file,
            "tcp.flags.reset == 1 && tcp.stream == 1",
            &["tcp.srcport"]
        ),
        ""
    );
}

/// Lengths are what they were, and secrets are stars, unless they are asked for.
#[tokio::test]
async fn secrets_in_a_file() {
    let (tap, _, _) = recorded(&[]).await;
    let masked = std::fs::read(tap.file("a.pcapng")).expect("the file");
    let (tap, _, _) = recorded(&["--show-secrets"]).await;
    let plain = std::fs::read(tap.file("a.pcapng")).expect("the file");
    let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    for number in 1..=4 {
        let secret = format!("secret{number}");
        assert!(has(&plain, &secret) && !has(&masked, &secret), "{secret}");
    }
    assert!(has(&masked, "a=b&pwd=*******") && has(&masked, "Set-Cookie: *******\r\n"));
    assert!(has(&masked, "secrets are overwritten with *"));
    // What others may read is not what goes by here.
    let mode = std::fs::metadata(tap.file("a.pcapng"))
        .expect("the file")
        .permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
}

/// What is read again is what was shown.
#[tokio::test]
async fn read_again() {
    let (tap, _, live) = recorded(&[]).await;
    let file = tap.file("a.pcapng").display().to_string();
    let (code, out, err) = texts(&afcgi_with(&["tap", "-r", &file]).await);
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = live
        .lines()
        .filter(|line| line.contains(" c"))
        .take(2)
        .collect();
    assert_eq!(out.lines().collect::<Vec<_>>(), lines);
    assert!(
        err.contains("2 requests on 2 connections") && err.contains("no violations"),
        "{err}"
    );
    let (_, out, _) = texts(&afcgi_with(&["tap", "-r", &file, "-v", "--id", "1"]).await);
    assert!(out.contains("HTTP_COOKIE = *******\n"), "{out}");
    let (_, out, _) = texts(&afcgi_with(&["tap", "-r", &file, "--json", "--status", "404"]).await);
    assert_eq!(out.lines().count(), 1, "the summary alone: {out}");
    let (code, ..) = texts(&afcgi_with(&["tap", "-r", &file, "-q", "--check"]).await);
    assert_eq!(code, 0);
}

/// A tap that is killed leaves a file that can be read; so does one whose last packet is cut.
#[tokio::test]
async fn a_tap_that_is_killed() {
    let app = answers(response(1, "body")).await;
    let mut tap = Tap::before(app.port(), &["-w", "DIR/a.pcapng"]).await;
    let mut socket = raw::connect(tap.port()).await;
    exchange(&mut socket, &raw::request(1, "/a", "")).await;
    let file = tap.file("a.pcapng");
    eventually("it is in the file", SOON, || async {
        let bytes = std::fs::read(&file).expect("the file");
        match bytes.windows(4).any(|window| window == b"body") {
            true => Ok(()),
            false => Err(format!("{} bytes", bytes.len())),
        }
    })
    .await;
    tap.process.kill();
    let name = file.display().to_string();
    let (code, out, err) = texts(&afcgi_with(&["tap", "-r", &name]).await);
    assert!(code == 0 && out.contains("GET /a 200"), "{out}{err}");
    assert_ne!(tshark(&file, "tcp.len > 0", &["frame.number"]), "");
    let bytes = std::fs::read(&file).expect("the file");
    std::fs::write(&file, &bytes[..bytes.len() - 9]).expect("written");
    let (code, out, err) = texts(&afcgi_with(&["tap", "-r", &name]).await);
    assert_eq!(code, 0);
    assert!(err.contains("ends in the middle of a packet"), "{out}{err}");
    assert!(
        out.contains("GET /a - in 0") && out.contains("[its end was not seen]"),
        "{out}"
    );
}

/// Into a pipe, for Wireshark as it happens.
#[tokio::test]
async fn to_the_standard_output() {
    let app = answers(response(1, "body")).await;
    let mut tap = Tap::before(app.port(), &["-w", "-"]).await;
    let mut socket = raw::connect(tap.port()).await;
    exchange(&mut socket, &raw::request(1, "/a", "")).await;
    drop(socket);
    tap.end().await;
    // Between what it said there too.
    let log = std::fs::read(tap.file("log")).expect("the log");
    let begin = log
        .windows(4)
        .position(|window| window == b"\x0a\x0d\x0d\x0a")
        .expect("a section");
    assert!(log[begin..].windows(4).any(|window| window == b"body"));
}
