//! What `-v`, `--json`, `--time` and the help show.

use afcgi_interop::fake::end;
use afcgi_interop::raw::{kind, record};

use crate::rig::{answers, at, command, on_terminal, request};

fn application() -> Vec<u8> {
    [
        record(kind::STDERR, 1, b"a warning"),
        record(kind::STDOUT, 1, b"Status: 201\r\nX-A: b\r\n\r\nbody"),
        record(kind::STDOUT, 1, b""),
        end(1, 0),
    ]
    .concat()
}

#[tokio::test]
async fn records() {
    let app = answers(application()).await;
    let ran = request(&["-v", "--keep-conn", &at(app.port(), "/x"), "-d", "a=1"]).await;
    assert_eq!((ran.code, ran.text()), (0, "body"));
    // Without the times, which are the second word.
    let lines = ran.err.lines().map(|line| {
        let mut words = line.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some(mark), Some(at), Some(rest)) if at.parse::<f64>().is_ok() => {
                format!("{mark} {rest}")
            }
            _ => line.to_owned(),
        }
    });
    let lines: Vec<_> = lines.collect();
    let has = |expected: &[&str]| {
        let found = lines
            .windows(expected.len())
            .any(|window| window == expected);
        assert!(found, "{expected:#?} in {lines:#?}");
    };
    has(&["> BEGIN_REQUEST id 1, 8 bytes: responder, keep_conn"]);
    has(&[">   SCRIPT_NAME = /x"]);
    has(&[
        "> PARAMS id 1, 0 bytes: end of the stream",
        "> STDIN id 1, 3 bytes",
        ">   a=1",
        "> STDIN id 1, 0 bytes: end of the stream",
        "< STDERR id 1, 9 bytes",
    ]);
    has(&[
        "< STDOUT id 1, 27 bytes",
        "<   Status: 201",
        "<   X-A: b",
        "<   ",
        "<   body",
        "< STDOUT id 1, 0 bytes: end of the stream",
        "< END_REQUEST id 1, 8 bytes: appStatus 0, REQUEST_COMPLETE",
    ]);
    assert!(ran.err.ends_with("a warning\n"), "{}", ran.err);
}

#[tokio::test]
async fn colours_are_for_terminals() {
    let app = answers(application()).await;
    let target = at(app.port(), "/");
    let ran = request(&["-v", &target]).await;
    assert!(!ran.err.contains('\x1b'), "{:?}", ran.err);
    let shown = on_terminal(command(&["-v", &target])).await;
    assert!(shown.contains("\x1b[36m> "), "{shown:?}");
    let mut plain = command(&["-v", &target]);
    plain.env("NO_COLOR", "1");
    let shown = on_terminal(plain).await;
    assert!(!shown.contains('\x1b'), "{shown:?}");
}

#[tokio::test]
async fn as_json() {
    let app = answers(application()).await;
    let ran = request(&["--json", &at(app.port(), "/x?y")]).await;
    let json = ran.json();
    assert_eq!(json["status"], 201);
    assert_eq!(json["reason"], "Created");
    assert_eq!(json["fields"], serde_json::json!([["X-A", "b"]]));
    assert_eq!(
        (&json["body"], &json["stderr"]),
        (&"body".into(), &"a warning".into())
    );
    assert_eq!(json["app_status"], 0);
    assert_eq!(json["protocol_status"], "REQUEST_COMPLETE");
    assert_eq!(json["records"][0]["type"], "BEGIN_REQUEST");
    assert_eq!(json["records"][0]["says"], "responder");
    let times = &json["timings"];
    let order = ["connected", "sent", "first_byte", "head", "total"];
    let order = order.map(|name| times[name].as_f64().expect(name));
    assert!(order.is_sorted(), "{times}");
    let app = answers(end(1, 2)).await;
    let ran = request(&["--json", &at(app.port(), "/")]).await;
    assert_eq!((ran.code, &ran.json()["exit_status"]), (102, &102.into()));
    assert_eq!(ran.json()["protocol_status"], "OVERLOADED");
}

#[tokio::test]
async fn times() {
    let app = answers(application()).await;
    let ran = request(&["--time", &at(app.port(), "/")]).await;
    for name in ["connected", "request sent", "first byte", "head", "total"] {
        let line = ran.err.lines().find(|line| line.starts_with(name));
        assert!(
            line.is_some_and(|line| line.ends_with(" ms")),
            "{}",
            ran.err
        );
    }
}

#[tokio::test]
async fn help() {
    let short = request(&["-h"]).await;
    let long = request(&["--help"]).await;
    assert!(!short.text().contains("Examples:"));
    for words in ["Examples:", "Exit status:", "status?full&json"] {
        assert!(long.text().contains(words), "{words}");
    }
}
