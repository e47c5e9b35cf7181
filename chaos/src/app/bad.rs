//! `chaos bad`: an application that multiplexes and behaves badly, in the way that a request asks for.
//!
//! Records are made by hand here. What it does wrong it never does so that the web server could not know it: a record for another
//! request that is on the connection would be that application's lie, which no web server can see.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use afcgi_interop::fake::{end, values};
use afcgi_interop::raw::{self, kind, record};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{Asked, Named};
use crate::block::{BLOCK, Digest, block, received};

/// An id that no web server uses here: they take small ones first.
const STRAY: u16 = 64_001;

/// `FCGI_OVERLOADED`.
const OVERLOADED: u8 = 2;

/// Serves all addresses until the process ends.
///
/// # Errors
/// When an address cannot be used.
pub fn serve(apps: &[Named]) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for app in apps {
            let listener = UnixListener::bind(&app.path)?;
            let name = app.name.clone();
            tokio::spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    tokio::spawn(connection(socket, name.clone()));
                }
            });
        }
        std::future::pending().await
    })
}

/// What is to be done with the connection.
enum Write {
    Bytes(Vec<u8>),
    /// Close it, whatever else is on it.
    Close,
}

#[derive(Default)]
struct Request {
    params: Vec<u8>,
    digest: Digest,
    length: usize,
    task: Option<tokio::task::JoinHandle<()>>,
}

async fn connection(socket: UnixStream, name: String) {
    let (mut from, to) = socket.into_split();
    let (write, mut wanted) = unbounded_channel();
    let reader = tokio::spawn(async move {
        let mut requests: HashMap<u16, Request> = HashMap::new();
        while let Some(record) = raw::read(&mut from).await {
            match record.kind {
                kind::GET_VALUES => _ = write.send(Write::Bytes(values(true))),
                kind::BEGIN_REQUEST => _ = requests.insert(record.id, Request::default()),
                kind::ABORT_REQUEST => {
                    if let Some(task) = requests.remove(&record.id).and_then(|found| found.task) {
                        task.abort();
                    }
                    _ = write.send(Write::Bytes(end(record.id, 0)));
                }
                kind::PARAMS => {
                    if let Some(request) = requests.get_mut(&record.id) {
                        request.params.extend_from_slice(&record.content);
                    }
                }
                kind::STDIN => {
                    let Some(request) = requests.get_mut(&record.id) else {
                        continue;
                    };
                    if !record.content.is_empty() {
                        request.digest.add(&record.content);
                        request.length += record.content.len();
                        continue;
                    }
                    let asked = Asked::new(&query(&request.params));
                    let received = received(request.length, request.digest);
                    let (name, write) = (name.clone(), write.clone());
                    let task = answer(record.id, name, asked, received, write);
                    request.task = Some(tokio::spawn(task));
                }
                _ => {}
            }
        }
        for request in requests.into_values() {
            if let Some(task) = request.task {
                task.abort();
            }
        }
    });
    write_all(to, &mut wanted).await;
    reader.abort();
}

async fn write_all(
    mut to: OwnedWriteHalf,
    wanted: &mut tokio::sync::mpsc::UnboundedReceiver<Write>,
) {
    while let Some(Write::Bytes(bytes)) = wanted.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// The value of QUERY_STRING among name-value pairs.
fn query(mut pairs: &[u8]) -> String {
    fn length(bytes: &mut &[u8]) -> Option<usize> {
        let (first, rest) = bytes.split_first()?;
        if first & 0x80 == 0 {
            *bytes = rest;
            return Some(usize::from(*first));
        }
        let (four, rest) = bytes.split_first_chunk::<4>()?;
        *bytes = rest;
        Some((u32::from_be_bytes(*four) & 0x7fff_ffff) as usize)
    }
    let mut next = || {
        let (name, value) = (length(&mut pairs)?, length(&mut pairs)?);
        let (name, rest) = pairs.split_at_checked(name)?;
        let (value, rest) = rest.split_at_checked(value)?;
        pairs = rest;
        Some((name, value))
    };
    while let Some((name, value)) = next() {
        if name == b"QUERY_STRING" {
            return String::from_utf8_lossy(value).into_owned();
        }
    }
    String::new()
}

async fn answer(
    id: u16,
    name: String,
    asked: Asked,
    received: String,
    write: UnboundedSender<Write>,
) {
    tokio::time::sleep(Duration::from_millis(asked.delay)).await;
    let fault = &*asked.fault;
    if fault == "refuse" {
        _ = write.send(Write::Bytes(end(id, OVERLOADED)));
        return;
    }
    let length = if asked.announced {
        format!("Content-Length: {}\r\n", BLOCK * asked.blocks)
    } else {
        String::new()
    };
    let head = format!(
        "Content-Type: text/plain\r\nX-App: {name}\r\nX-Token: {:016x}\r\nX-Received: {received}\r\n{length}\r\n",
        asked.token
    );
    let mut body = Vec::with_capacity(BLOCK * asked.blocks);
    for index in 0..asked.blocks {
        let more = if index == 0 { &*received } else { "" };
        body.extend_from_slice(&block(&name, asked.token, index, more));
    }
    let (first, second) = body.split_at(body.len() / 2);
    let mut bytes = record(kind::STDOUT, id, head.as_bytes());
    let append = |bytes: &mut Vec<u8>, text: &[u8]| {
        // Records of an odd length, so that they end anywhere.
        for piece in text.chunks(7_001) {
            bytes.extend(record(kind::STDOUT, id, piece));
        }
    };
    append(&mut bytes, first);
    match fault {
        "close" => {
            _ = write.send(Write::Bytes(bytes));
            _ = write.send(Write::Close);
            return;
        }
        "misframe" => {
            // The second half without a header: its text is taken for one.
            bytes.extend_from_slice(second);
            _ = write.send(Write::Bytes(bytes));
            _ = write.send(Write::Close);
            return;
        }
        "stray" => {
            bytes.extend(record(kind::STDOUT, STRAY, &block("stray", 0, 0, "")));
            bytes.extend(record(kind::STDERR, STRAY, b"stray"));
            bytes.extend(end(STRAY, 0));
        }
        _ => {}
    }
    if asked.pause > 0 {
        _ = write.send(Write::Bytes(std::mem::take(&mut bytes)));
        tokio::time::sleep(Duration::from_millis(asked.pause)).await;
    }
    if fault != "short" {
        append(&mut bytes, second);
    }
    bytes.extend(record(kind::STDOUT, id, b""));
    bytes.extend(end(id, 0));
    _ = write.send(Write::Bytes(bytes));
}
