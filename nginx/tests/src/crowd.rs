//! Many applications at once, each of which tells who it is and where a connection came from.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use afcgi_interop::fake::{Fake, end, values};
use afcgi_interop::raw::{self, Record, kind, record};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Mutex;

/// Applications, of which every third does not multiplex, and none knows flow control. The answer to `/?ms=MS&tag=TAG` comes after MS
/// milliseconds, and is the number of the application, the address that the connection came from, and TAG.
#[derive(Debug)]
pub struct Crowd(Vec<Fake>);

impl Crowd {
    /// Starts so many.
    pub async fn start(count: usize) -> Self {
        let mut apps = Vec::new();
        for number in 0..count {
            apps.push(Fake::start(move |socket, _| serve(socket, number)).await);
        }
        Self(apps)
    }

    /// Where each listens.
    pub fn ports(&self) -> Vec<u16> {
        self.0.iter().map(Fake::port).collect()
    }
}

/// How many connections to the ports of 127.0.0.1 are established, as the system says.
pub fn connections_to(ports: &[u16]) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    let established = |line: &&str| line.split_whitespace().nth(3) == Some("01");
    let remote = |line: &str| {
        let (_, port) = line.split_whitespace().nth(2)?.split_once(':')?;
        u16::from_str_radix(port, 16).ok()
    };
    (table.lines().skip(1).filter(established))
        .filter_map(remote)
        .filter(|port| ports.contains(port))
        .count()
}

async fn serve(socket: TcpStream, number: usize) {
    let Ok(peer) = socket.peer_addr() else {
        return;
    };
    let mut requests = HashMap::<u16, (bool, Vec<u8>)>::new();
    let (mut from, to) = socket.into_split();
    let to = Arc::new(Mutex::new(to));
    while let Some(Record { kind, id, content }) = raw::read(&mut from).await {
        match kind {
            kind::GET_VALUES => write(&to, &values(!number.is_multiple_of(3))).await,
            kind::BEGIN_REQUEST => {
                let keep_conn = content.get(2).is_some_and(|flags| flags & 1 == 1);
                requests.insert(id, (keep_conn, Vec::new()));
            }
            kind::PARAMS => {
                if let Some((_, params)) = requests.get_mut(&id) {
                    params.extend(content);
                }
            }
            kind::STDIN if content.is_empty() => {
                let (keep_conn, params) = requests.remove(&id).unwrap_or_default();
                let answer = answer(id, number, peer, params);
                if keep_conn {
                    let to = to.clone();
                    tokio::spawn(async move { write(&to, &answer.await).await });
                } else {
                    write(&to, &answer.await).await;
                    return;
                }
            }
            _ => {}
        }
    }
}

async fn answer(id: u16, number: usize, peer: SocketAddr, params: Vec<u8>) -> Vec<u8> {
    let params = String::from_utf8_lossy(&params);
    let ms = after(&params, "ms=").parse().unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    let body = format!("{number} {} {}", peer.ip(), after(&params, "tag="));
    let head = format!("Content-Length: {}\r\n\r\n", body.len());
    let answer = [
        record(kind::STDOUT, id, (head + &body).as_bytes()),
        record(kind::STDOUT, id, b""),
        end(id, 0),
    ];
    answer.concat()
}

/// The digits after a text.
fn after<'a>(params: &'a str, name: &str) -> &'a str {
    let (_, rest) = params.split_once(name).unwrap_or_default();
    let end = rest.find(|c: char| !c.is_ascii_digit());
    &rest[..end.unwrap_or(rest.len())]
}

async fn write(to: &Mutex<OwnedWriteHalf>, bytes: &[u8]) {
    _ = to.lock().await.write_all(bytes).await;
}
