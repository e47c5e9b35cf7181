//! What tokio itself costs: a reader per connection with a minimal parser, a task per request, a writer fed by one
//! channel that turns whatever is waiting into one write. Params are stepped over; no limits, no stdin, no abort: a
//! yardstick, not a server. Only a request to be held (QUERY_STRING `ms=N`) is looked at, and keeps its params.

use std::collections::HashMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const STDOUT: &[u8] =
    b"Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n";

fn main() -> std::io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .expect("usage: peer-bare-tokio HOST:PORT");
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async move {
            let listener = TcpListener::bind(address).await?;
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tokio::spawn(connection(stream));
            }
        })
}

async fn connection(stream: TcpStream) {
    let (mut reader, mut writer) = stream.into_split();
    let (replies, mut waiting) = mpsc::unbounded_channel::<u16>();
    tokio::spawn(async move {
        let mut ids = Vec::new();
        let mut output = Vec::new();
        while waiting.recv_many(&mut ids, 4096).await > 0 {
            output.clear();
            for id in ids.drain(..) {
                let [high, low] = id.to_be_bytes();
                output.extend_from_slice(&[1, 6, high, low, 0, STDOUT.len() as u8, 0, 0]);
                output.extend_from_slice(STDOUT);
                output.extend_from_slice(&[1, 6, high, low, 0, 0, 0, 0]);
                output.extend_from_slice(&[1, 3, high, low, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
            if writer.write_all(&output).await.is_err() {
                return;
            }
        }
    });
    let mut held: HashMap<u16, Vec<u8>> = HashMap::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    loop {
        match reader.read(&mut buffer[filled..]).await {
            Ok(got) if got > 0 => filled += got,
            _ => return,
        }
        let mut at = 0;
        while filled - at >= 8 {
            let header = &buffer[at..at + 8];
            let (kind, id) = (header[1], u16::from_be_bytes([header[2], header[3]]));
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            let end = at + 8 + length + usize::from(header[6]);
            if end > filled {
                break;
            }
            let content = &buffer[at + 8..at + 8 + length];
            match kind {
                4 if delay(content).is_some() => {
                    held.insert(id, content.to_vec());
                }
                5 if length == 0 => {
                    let replies = replies.clone();
                    let params = if held.is_empty() {
                        None
                    } else {
                        held.remove(&id)
                    };
                    tokio::spawn(async move {
                        if let Some(millis) = params.as_deref().and_then(delay) {
                            tokio::time::sleep(Duration::from_millis(millis)).await;
                        }
                        let _ = replies.send(id);
                    });
                }
                _ => {}
            }
            at = end;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
    }
}

/// The milliseconds of a QUERY_STRING `ms=N`, where the generator puts it: in front.
fn delay(params: &[u8]) -> Option<u64> {
    let (name, value) = params.get(2..)?.split_first_chunk::<15>()?;
    let digits = value
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    (name == b"QUERY_STRINGms=")
        .then(|| std::str::from_utf8(&value[..digits]).ok()?.parse().ok())?
}
