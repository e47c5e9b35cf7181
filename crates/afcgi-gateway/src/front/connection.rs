//! Connections of clients: bounded in time, with TLS or without, HTTP/1.1 or HTTP/2.
//!
//! Thousands of them wait at a time, so what they need rarely is in boxes of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use rustls::ServerConfig;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::incoming::{BoxError, Incoming};
use super::io::{ClientIo, Socket};
use super::terms::Terms;
use super::{http1, http2};

/// What HTTP/2 begins with (RFC 9113 section 3.4), and no request of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI ";
/// How long to wait for the rest of a preface that came in pieces.
const PIECES: Duration = Duration::from_millis(10);

/// The protocol on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Http {
    One,
    Two,
}

impl Http {
    /// Which one a client begins with, on a connection without TLS. Nothing is taken from the socket.
    async fn of(socket: &Socket) -> io::Result<Self> {
        let mut buffer = [0; PREFACE.len()];
        loop {
            let count = socket.peek(&mut buffer).await?;
            let seen = buffer.get(..count).unwrap_or_default();
            if seen.is_empty() || !PREFACE.starts_with(seen) {
                return Ok(Self::One);
            }
            if seen == PREFACE {
                return Ok(Self::Two);
            }
            sleep(PIECES).await;
        }
    }
}

/// Serves a client until it leaves, or is to: by TLS if there is a configuration for that.
pub(crate) async fn serve<S, F, B>(
    socket: Socket,
    tls: Option<Arc<ServerConfig>>,
    service: S,
    terms: Terms<'_>,
) -> Result<(), BoxError>
where
    S: Fn(Request<Incoming>) -> F + Unpin,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let activity = Arc::clone(socket.activity());
    let begin = terms.limits.header_timeout;
    let (io, http) = match tls {
        None => {
            let http = tokio::select! {
                found = timeout(begin, Http::of(&socket)) => match found {
                    Ok(http) => http?,
                    // No request has come.
                    Err(_) => return Ok(()),
                },
                () = terms.stop.cancelled() => return Ok(()),
            };
            (ClientIo::from(socket), http)
        }
        Some(config) => {
            let accepting = TlsAcceptor::from(config).accept(socket);
            let stream = Box::pin(timeout(begin, accepting)).await??;
            let http = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Http::Two,
                _ => Http::One,
            };
            (ClientIo::from(Box::new(stream)), http)
        }
    };
    match http {
        Http::One => Box::pin(http1::serve(io, &activity, service, terms)).await,
        Http::Two => Box::pin(http2::serve(io, &activity, service, terms)).await,
    }
}
