//! A WebSocket client on a FastCGI connection of its own.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use afcgi_interop::wait::SOON;
use afcgi_proto::cgi::Head;
use afcgi_proto::inbox::Read;
use afcgi_proto::web::{Input, Output};
use afcgi_proto::{Handle, Role};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, protocol};

use super::client::{Client, params};

/// What a browser and a web server that tunnels say of a WebSocket.
pub(crate) const HANDSHAKE: [(&str, &str); 5] = [
    ("FCGI_UPGRADE", "1"),
    ("HTTP_CONNECTION", "Upgrade"),
    ("HTTP_UPGRADE", "websocket"),
    ("HTTP_SEC_WEBSOCKET_VERSION", "13"),
    ("HTTP_SEC_WEBSOCKET_KEY", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A request whose STDIN and STDOUT are the two directions.
pub(crate) struct Tunnel {
    client: Client,
    handle: Handle,
}

/// A WebSocket whose handshake is done.
pub(crate) struct Socket(WebSocketStream<Tunnel>);

impl Socket {
    /// Opens a WebSocket with these parameters beside those that every request has; the error is
    /// the status of another answer than 101.
    pub(crate) async fn open(
        mut client: Client,
        uri: &str,
        more: &[(&str, &str)],
    ) -> Result<Self, u16> {
        let mut params = params("GET", uri);
        params.extend(
            more.iter()
                .map(|&(name, value)| (name.into(), value.into())),
        );
        let handle = client.begin(Role::Responder, &params).await;
        let stdout = client.read_until(handle, "\r\n\r\n").await;
        let head = Head::parse(&stdout, Default::default()).expect("a response head");
        let head = head.expect("a whole one");
        if head.status != 101 {
            return Err(head.status);
        }
        let first = stdout[head.length..].to_vec();
        let (tunnel, role) = (Tunnel { client, handle }, protocol::Role::Client);
        let socket = WebSocketStream::from_partially_read(tunnel, first, role, None);
        Ok(Self(socket.await))
    }

    pub(crate) async fn send(&mut self, message: impl Into<Message>) {
        let sent = tokio::time::timeout(SOON, self.0.send(message.into())).await;
        sent.expect("in time").expect("sent");
    }

    /// Sends bytes as they are.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        let sent = tokio::time::timeout(SOON, self.0.get_mut().write_all(bytes)).await;
        sent.expect("in time").expect("sent");
    }

    /// The next message that is no ping; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            let next = tokio::time::timeout(SOON, self.0.next()).await;
            match next.expect("in time")?.ok()? {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return Some(message),
            }
        }
    }

    /// The code with which the other side closes, whatever it sends before.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.next().await.expect("a Close") {
                return frame.expect("a code").code.into();
            }
        }
    }

    pub(crate) async fn close(&mut self) {
        self.send(Message::Close(None)).await;
        while self.next().await.is_some() {}
    }
}

impl Tunnel {
    /// Moves bytes while there are any to move.
    fn pump(&mut self, cx: &mut Context<'_>) {
        while !self.client.is_closed() && self.client.poll_turn(cx).is_ready() {}
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.pump(cx);
        let handle = self.handle;
        let connection = &mut self.client.connection;
        match connection.read(handle, Input::Stdout, buf.remaining()) {
            Ok(Read::Content(content)) => buf.put_slice(&content),
            Ok(Read::Pending) => return Poll::Pending,
            _ => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        content: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pump(cx);
        let handle = self.handle;
        let connection = &mut self.client.connection;
        match connection.write(handle, Output::Stdin, content)? {
            0 if !content.is_empty() => Poll::Pending,
            count => {
                self.pump(cx);
                Poll::Ready(Ok(count))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pump(cx);
        if self.client.connection.transmit().is_empty() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let handle = self.handle;
        self.client.connection.end(handle, Output::Stdin)?;
        self.poll_flush(cx)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.client.connection.close(self.handle, Instant::now());
    }
}
