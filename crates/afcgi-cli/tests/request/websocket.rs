//! `--websocket` with the example of that name, and with applications that take no upgrade.

use std::io::Write;
use std::process::Stdio;

use afcgi_interop::app::App;
use afcgi_interop::fake::{Fake, response, values, write};
use afcgi_interop::raw::{self, kind, pair, record};
use tokio::task::spawn_blocking;

use crate::rig::{Ran, at, command};

/// Runs it with lines for its input.
async fn websocket(port: u16, path: &str, lines: &[u8]) -> Ran {
    let target = at(port, path);
    let mut command = command(&["--websocket", "--max-time", "30s", &target]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let lines = lines.to_vec();
    let run = move || {
        let mut child = command.spawn().expect("afcgi");
        // It may end before it reads.
        _ = child.stdin.take().expect("its input").write_all(&lines);
        child.wait_with_output().expect("its end")
    };
    let output = spawn_blocking(run).await.expect("a thread");
    Ran {
        code: output.status.code().expect("an exit status"),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[tokio::test]
async fn lines_are_messages() {
    let app = App::websocket(&[]).await;
    let ran = websocket(app.port(), "/echo", b"one\ntwo\n\nlast").await;
    assert_eq!(
        (ran.code, ran.text()),
        (0, "one\ntwo\n\nlast\n"),
        "{}",
        ran.err
    );
}

/// A line that is longer than a message is several; all of it comes back.
#[tokio::test]
async fn long_lines() {
    let app = App::websocket(&[]).await;
    let lines = vec![b'x'; 2_500_000];
    let ran = websocket(app.port(), "/echo", &lines).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lengths: Vec<_> = ran.text().lines().map(str::len).collect();
    let message = 1024 * 1024;
    assert_eq!(lengths, [message, message, 2_500_000 - 2 * message]);
}

#[tokio::test]
async fn no_websocket() {
    let app = App::websocket(&[]).await;
    let ran = websocket(app.port(), "/none", b"").await;
    assert_eq!(ran.code, 22, "{}", ran.err);
    assert!(ran.err.contains("declined the upgrade"), "{}", ran.err);
    for (answer, words) in [
        (values(true), "does not say that it takes upgrades"),
        (
            record(kind::GET_VALUES_RESULT, 0, &pair("FCGI_UPGRADE", "1")),
            "no Sec-WebSocket-Accept that fits",
        ),
    ] {
        let app = Fake::start(move |mut socket, _| {
            let answer = answer.clone();
            async move {
                while let Some(record) = raw::read(&mut socket).await {
                    match record.kind {
                        kind::GET_VALUES => write(&mut socket, &answer).await,
                        kind::PARAMS if record.content.is_empty() => {
                            let head = raw::record(kind::STDOUT, 1, b"Status: 101\r\n\r\n");
                            write(&mut socket, &head).await;
                            write(&mut socket, &response(1, "")).await;
                        }
                        _ => {}
                    }
                }
            }
        })
        .await;
        let ran = websocket(app.port(), "/", b"").await;
        assert_eq!(ran.code, 22, "{}", ran.err);
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
}
