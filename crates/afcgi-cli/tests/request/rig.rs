//! Runs of the program, and applications made by hand for it.

use std::fs::OpenOptions;
use std::io::Read;
use std::process::{Command, Stdio};

use afcgi_interop::fake::{Fake, next_request, write};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::task::spawn_blocking;

/// A run that is over.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ran {
    /// The standard output as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).expect("JSON")
    }
}

/// `afcgi request` with arguments.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afcgi"));
    command.arg("request").args(arguments).stdin(Stdio::null());
    // What the terminal of whoever runs the tests can do must not matter.
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    command.env_remove("CLICOLOR").env_remove("CLICOLOR_FORCE");
    command
}

/// Runs it. Applications of this process serve meanwhile.
pub(crate) async fn request(arguments: &[&str]) -> Ran {
    let mut command = command(arguments);
    let output = spawn_blocking(move || command.output()).await;
    let output = output.expect("a thread").expect("afcgi");
    Ran {
        code: output.status.code().expect("an exit status"),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs it with a terminal for its output and errors: what was written there.
pub(crate) async fn on_terminal(mut command: Command) -> String {
    let run = move || {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let terminal = terminal.expect("a terminal");
        grantpt(&terminal).expect("grantpt");
        unlockpt(&terminal).expect("unlockpt");
        let name = ptsname(&terminal, Vec::new()).expect("its name");
        let tty = OpenOptions::new()
            .write(true)
            .open(name.to_str().expect("a name"))
            .expect("its other end");
        let again = tty.try_clone().expect("a descriptor");
        let mut child = command.stdout(tty).stderr(again).spawn().expect("afcgi");
        // The other end is open in the program only, from here on.
        drop(command);
        let mut written = Vec::new();
        // A terminal that nobody has open any more gives an error, not an end.
        _ = std::fs::File::from(terminal).read_to_end(&mut written);
        child.wait().expect("its end");
        String::from_utf8_lossy(&written).into_owned()
    };
    spawn_blocking(run).await.expect("a thread")
}

/// An application that answers every request on a connection with these bytes, which are for the id 1.
pub(crate) async fn answers(bytes: Vec<u8>) -> Fake {
    Fake::start(move |mut socket, _| {
        let bytes = bytes.clone();
        async move {
            while next_request(&mut socket, None).await.is_some() {
                write(&mut socket, &bytes).await;
            }
        }
    })
    .await
}

/// The address of an application, with a path and a query.
pub(crate) fn at(port: u16, rest: &str) -> String {
    format!("127.0.0.1:{port}{rest}")
}
