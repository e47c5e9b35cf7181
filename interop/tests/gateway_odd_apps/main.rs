//! The gateway of this project before applications that die, hang or talk nonsense: the client sees a status or a response that breaks off,
//! never a short success, the log has the reason, and nobody else is hurt.

mod records;
mod responses;

use afcgi_interop::http::client;
use afcgi_interop::own::Own;
use afcgi_interop::raw::{kind, record};
use bytes::Bytes;

fn stdout(id: u16, content: &[u8]) -> Vec<u8> {
    record(kind::STDOUT, id, content)
}

/// What the client makes of it: status and body, if that is whole. 0: the connection was closed before the head was sent.
async fn seen(gateway: &Own, path: &str) -> (u16, Option<Bytes>) {
    match client().get(gateway.url(path)).send().await {
        Ok(response) => (response.status().as_u16(), response.bytes().await.ok()),
        Err(_) => (0, None),
    }
}
