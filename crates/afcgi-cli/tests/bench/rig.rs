//! Runs of the program, and applications made by hand for it.

use std::process::{Command, Stdio};

use afcgi_interop::fake::{Fake, next_request, response, values, write};
use serde_json::Value;
use tokio::task::spawn_blocking;

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// How many failures of a kind there were.
    pub(crate) fn failed(&self, kind: &str) -> u64 {
        let json = self.json();
        let errors = json["errors"].as_array().expect("errors");
        let found = errors.iter().find(|error| error["kind"] == kind);
        found.map_or(0, |error| error["count"].as_u64().expect("a count"))
    }

    /// A number at a place in the JSON.
    pub(crate) fn number(&self, place: &str) -> u64 {
        let json = self.json();
        let value = json.pointer(place);
        let value = value.unwrap_or_else(|| panic!("{place} in {json:#}"));
        value.as_u64().unwrap_or_else(|| panic!("{place}: {value}"))
    }
}

/// `afcgi bench` with arguments.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afcgi"));
    command.arg("bench").args(arguments).stdin(Stdio::null());
    command
}

/// Runs it. Applications of this process serve meanwhile.
pub(crate) async fn bench(arguments: &[&str]) -> Ran {
    let mut command = command(arguments);
    let output = spawn_blocking(move || command.output()).await;
    let output = output.expect("a thread").expect("afcgi");
    Ran {
        code: output.status.code().expect("an exit status"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// An application that multiplexes, and answers every request with these records for its id.
pub(crate) async fn answers(answer: impl Fn(u16) -> Vec<u8> + Clone + Send + 'static) -> Fake {
    Fake::start(move |mut socket, _| {
        let answer = answer.clone();
        async move {
            while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
                write(&mut socket, &answer(id)).await;
            }
        }
    })
    .await
}

/// One that answers `Hello`.
pub(crate) async fn hello() -> Fake {
    answers(|id| response(id, "Hello\n")).await
}

/// The address of an application.
pub(crate) fn at(app: &Fake) -> String {
    format!("127.0.0.1:{}/", app.port())
}
