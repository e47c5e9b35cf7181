//! `afcgi tap` as a process: what it passes on, what it shows, what it records, and how it ends.

mod ends;
mod files;
mod forwarding;
mod hostile;
mod replay;
mod shown;

use std::process::{Command, Output};

use afcgi_interop::app::afcgi;
use afcgi_interop::fake::{Fake, next_request, write};
use afcgi_interop::raw::{self, Record, kind, pair, record};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;

/// An application that answers every request with these bytes, which are for the id 1.
async fn answers(bytes: Vec<u8>) -> Fake {
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

/// Runs `afcgi`; applications of this process serve meanwhile.
async fn afcgi_with(arguments: &[&str]) -> Output {
    let mut command = Command::new(afcgi());
    command.args(arguments);
    let output = spawn_blocking(move || command.output()).await;
    output.expect("a thread").expect("afcgi")
}

/// Its exit status, what it printed, and what it said.
fn texts(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("an exit status");
    (code, text(&output.stdout), text(&output.stderr))
}

/// A whole request with parameters of one's choice.
fn request(id: u16, params: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let pairs: Vec<u8> = params.iter().flat_map(|(n, v)| pair(n, v)).collect();
    let mut bytes = [
        raw::begin(id),
        record(kind::PARAMS, id, &pairs),
        record(kind::PARAMS, id, b""),
    ]
    .concat();
    if !body.is_empty() {
        bytes.extend(record(kind::STDIN, id, body));
    }
    bytes.extend(record(kind::STDIN, id, b""));
    bytes
}

/// Sends bytes, and reads records until END_REQUEST.
async fn exchange(socket: &mut TcpStream, bytes: &[u8]) -> Vec<Record> {
    socket.write_all(bytes).await.expect("written");
    let mut records = Vec::new();
    loop {
        let record = raw::read(socket).await.expect("a record");
        let is_end = record.kind == kind::END_REQUEST;
        records.push(record);
        if is_end {
            return records;
        }
    }
}
