//! What the tests of upgrades share: a handshake, and a WebSocket to shake hands with.

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::routing::any;

/// A handshake as a browser makes it; the answer to its key is the one in RFC 6455 section 1.3.
pub const HANDSHAKE: &[(&str, &str)] = &[
    ("REQUEST_METHOD", "GET"),
    ("SCRIPT_NAME", "/echo"),
    ("SERVER_PROTOCOL", "HTTP/1.1"),
    ("HTTP_CONNECTION", "Upgrade"),
    ("HTTP_UPGRADE", "websocket"),
    ("HTTP_SEC_WEBSOCKET_VERSION", "13"),
    ("HTTP_SEC_WEBSOCKET_KEY", "dGhlIHNhbXBsZSBub25jZQ=="),
];
pub const OFFER: (&str, &str) = ("FCGI_UPGRADE", "1");

pub fn offered() -> Vec<(&'static str, &'static str)> {
    [HANDSHAKE, &[OFFER]].concat()
}

/// A WebSocket at `/echo` that gives messages back, and says so when it is closed.
pub fn websocket() -> Router {
    async fn echo(mut socket: WebSocket) {
        while let Some(Ok(message)) = socket.recv().await {
            let answer = match message {
                Message::Text(text) if text == "leave" => Message::Close(Some(CloseFrame {
                    code: 4000,
                    reason: "you asked".into(),
                })),
                Message::Text(_) | Message::Binary(_) => message,
                _ => continue,
            };
            if socket.send(answer).await.is_err() {
                return;
            }
        }
    }
    Router::new().route(
        "/echo",
        any(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo)),
    )
}
