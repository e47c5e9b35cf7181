//! Applications that mean harm: what is held of them, and what reaches the terminal.

use afcgi_interop::fake::{Fake, end, next_request};
use afcgi_interop::raw::{self, kind, record};

use crate::rig::{answers, at, command, on_terminal, request};

const CONTROL: &[u8] = b"X-A: b\r\n\r\n\x1b]0;title\x07\x1b[2J\xc2\x9b31m\xff\ttext\n";

/// A terminal is told nothing, by body, head, STDERR or records; a pipe gets every byte.
#[tokio::test]
async fn control_characters() {
    let bytes = [
        record(kind::STDERR, 1, b"bad \x1b[31m thing"),
        record(kind::STDOUT, 1, CONTROL),
        end(1, 0),
    ]
    .concat();
    let app = answers(bytes).await;
    let target = at(app.port(), "/");
    for flags in [&["-i"][..], &["-v"], &["--raw"]] {
        let mut command = command(flags);
        command.arg(&target).env("NO_COLOR", "1");
        let shown = on_terminal(command).await;
        assert!(shown.contains("\\u{1b}]0;title\\u{7}"), "{shown:?}");
        // The body begins a line of its own.
        assert!(shown.contains("bad \\u{1b}[31m thing\r\n"), "{shown:?}");
        let acts = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        assert_eq!(shown.find(acts), None, "{flags:?}: {shown:?}");
    }
    let ran = request(&[&target]).await;
    assert_eq!(ran.out, &CONTROL[10..]);
    // A message that quotes it is for people, wherever it goes.
    let app = answers(b"\x1b[2J".to_vec()).await;
    let ran = request(&[&at(app.port(), "/")]).await;
    assert!(ran.err.contains("`\\u{1b}[2J`"), "{:?}", ran.err);
}

#[tokio::test]
async fn a_head_without_end() {
    let line = [b"A: ".as_slice(), &[b'x'; 60_000], b"\n"].concat();
    for (content, words) in [
        (line, "over the limit of bytes"),
        (b"A: b\n".repeat(300), "over the limit of fields"),
    ] {
        let stdout = record(kind::STDOUT, 1, &content);
        let app = answers([stdout.clone(), stdout, end(1, 0)].concat()).await;
        let ran = request(&[&at(app.port(), "/")]).await;
        assert_eq!(ran.code, 8, "{}", ran.err);
        assert!(ran.err.contains(words), "{}", ran.err);
    }
}

/// What JSON holds of body, STDERR and records has bounds.
#[tokio::test]
async fn floods_in_json() {
    let mut bytes = record(kind::STDOUT, 1, b"A: b\n\n");
    for _ in 0..40 {
        bytes.extend(record(kind::STDOUT, 1, &[b'x'; 60_000]));
        bytes.extend(record(kind::STDERR, 1, &[b'y'; 1000]));
    }
    for _ in 0..2000 {
        bytes.extend(record(99, 0, b"?"));
    }
    bytes.extend(end(1, 0));
    let app = answers(bytes).await;
    let json = request(&["--json", &at(app.port(), "/")]).await.json();
    let length = |value: &serde_json::Value| value.as_str().map(str::len);
    assert_eq!(json["body_bytes"], 40 * 60_000);
    assert_eq!(length(&json["body"]), Some(1024 * 1024));
    assert_eq!(json["stderr_bytes"], 40 * 1000);
    assert_eq!(length(&json["stderr"]), Some(16 * 1024));
    assert_eq!(json["records"].as_array().map(Vec::len), Some(1000));
    assert_eq!(json["records_seen"], 4 + 1 + 80 + 2000 + 1);
}

/// A request that was aborted is not waited for as long as something comes of it.
#[tokio::test]
async fn an_abort_that_is_not_heeded() {
    let app = Fake::start(|mut socket, _| async move {
        next_request(&mut socket, None).await;
        let more = record(kind::STDOUT, 1, &[b'x'; 1000]);
        while tokio::io::AsyncWriteExt::write_all(&mut socket, &more)
            .await
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let target = at(app.port(), "/");
    let arguments = [
        "--raw",
        "--abort-after",
        "100ms",
        "--timeout",
        "500ms",
        "--max-time",
        "20s",
        "-o",
        "/dev/null",
        &target,
    ];
    let ran = request(&arguments).await;
    assert_eq!(ran.code, 28, "{}", ran.err);
    assert!(ran.err.contains("after 500ms"), "{}", ran.err);
}

/// An application that says values for ever does not keep `--values`, and one that answers nothing does not either.
#[tokio::test]
async fn values_without_end() {
    let app = Fake::start(|mut socket, _| async move {
        raw::read(&mut socket).await;
        let noise = record(kind::UNKNOWN_TYPE, 7, &[0; 8]);
        while tokio::io::AsyncWriteExt::write_all(&mut socket, &noise)
            .await
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let ran = request(&["--values", &at(app.port(), "")]).await;
    assert_eq!(ran.code, 28, "{}", ran.err);
}

/// Content that no web server would send in one piece: a record after the end, other ids, padding. Nothing of it is the response.
#[tokio::test]
async fn records_of_others() {
    let mut padded = record(kind::STDOUT, 1, b"A: b\n\nmine");
    padded[6] = 5;
    padded.extend([b'p'; 5]);
    let bytes = [
        record(kind::STDOUT, 2, b"other"),
        padded,
        record(kind::STDOUT, 1, b""),
        record(kind::STDOUT, 1, b"late"),
        end(2, 3),
        end(1, 0),
        end(1, 0),
    ]
    .concat();
    let app = answers(bytes).await;
    let ran = request(&[&at(app.port(), "/")]).await;
    assert_eq!((ran.code, ran.text()), (0, "mine"), "{}", ran.err);
}
