//! `afcgi spawn` as a process: where it listens, what its workers are, and how they and it end.

mod crashes;
mod ends;
mod logs;
mod ready;
mod rolls;
mod sockets;
mod users;

use std::process::Command;

use afcgi_interop::app::afcgi;
use afcgi_interop::raw::{self, kind, pair, record};
use afcgi_interop::wait::{SOON, eventually};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// `afcgi spawn`
fn spawn() -> Command {
    let mut command = Command::new(afcgi());
    command.arg("spawn");
    command
}

/// Asks an application what it can do, and waits for the answer.
async fn answers(socket: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), String> {
    let question = record(kind::GET_VALUES, 0, &pair("FCGI_MPXS_CONNS", ""));
    (socket.write_all(&question).await).map_err(|error| error.to_string())?;
    match raw::read(socket).await {
        Some(answer) if answer.kind == kind::GET_VALUES_RESULT => Ok(()),
        _ => Err("no answer".to_owned()),
    }
}

async fn answers_at_port(port: u16) -> Result<(), String> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await;
    answers(&mut socket.map_err(|error| error.to_string())?).await
}

async fn answers_at_path(path: &std::path::Path) -> Result<(), String> {
    let socket = UnixStream::connect(path).await;
    answers(&mut socket.map_err(|error| error.to_string())?).await
}

/// Waits until there is no such process.
async fn is_gone(pid: i32) {
    eventually("the process is gone", SOON, || async {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        match stat {
            Err(_) => Ok(()),
            // Nobody has waited for it yet.
            Ok(stat) if stat.contains(") Z ") => Ok(()),
            Ok(stat) => Err(stat),
        }
    })
    .await;
}
