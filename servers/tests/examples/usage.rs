//! What every server says of itself, and of a command line that is of no use.

use std::path::Path;
use std::process::{Output, Stdio};

use crate::common::command;

const SERVERS: [&str; 8] = [
    env!("CARGO_BIN_EXE_afcgitest"),
    env!("CARGO_BIN_EXE_authorizer"),
    env!("CARGO_BIN_EXE_axum-app"),
    env!("CARGO_BIN_EXE_events"),
    env!("CARGO_BIN_EXE_filter"),
    env!("CARGO_BIN_EXE_hello"),
    env!("CARGO_BIN_EXE_upload"),
    env!("CARGO_BIN_EXE_websocket"),
];

fn name(server: &str) -> &str {
    let name = Path::new(server).file_name().and_then(|name| name.to_str());
    name.expect("a name")
}

fn run(server: &str, arguments: &[&str]) -> Output {
    let mut command = command(server);
    if name(server) == "authorizer" {
        command.args(["--users", "/dev/null"]);
    }
    command.args(arguments).stdin(Stdio::null());
    command.output().expect("a server that starts")
}

#[test]
fn every_server_tells_its_usage() {
    for server in SERVERS {
        let output = run(server, &["--help"]);
        assert!(output.status.success(), "{server}");
        let text = String::from_utf8_lossy(&output.stdout);
        let usage = format!("Usage: {} ", name(server));
        for part in [&usage, "[ADDR]", "unix:PATH", "--help"] {
            assert!(text.contains(part), "{server} {part}: {text}");
        }
        let output = run(server, &["--version"]);
        let version = String::from_utf8_lossy(&output.stdout);
        assert!(version.starts_with(name(server)), "{version}");
    }
}

#[test]
fn a_command_line_of_no_use_is_status_2() {
    for server in SERVERS {
        let mut expected = vec![
            (&["5000"][..], "`5000` is no address: expected HOST:PORT"),
            (&["--sorry", ":0"], "unexpected argument '--sorry'"),
        ];
        expected.push(match name(server) {
            "hello" => (&["127.0.0.1:0", "127.0.0.1:0"], "unexpected argument"),
            _ => (
                &[],
                "descriptor 0 is not a listening socket: name an address",
            ),
        });
        for (arguments, text) in expected {
            let output = run(server, arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{server} {arguments:?}");
            assert!(said.starts_with("error: "), "{said}");
            assert!(said.contains(text), "{server} {arguments:?}: {said}");
            assert!(said.contains("--help"), "{server} {arguments:?}: {said}");
        }
    }
}

#[test]
fn what_fails_later_is_status_1() {
    for server in SERVERS {
        let output = run(server, &["/no/such/folder/app.sock"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{server}");
        let expected = format!(
            "{}: cannot listen at unix:/no/such/folder/app.sock (",
            name(server)
        );
        assert!(said.contains(&expected), "{server}: {said}");
    }
}
