//! The WebSocket that gives every message back, for the page to measure how long that takes.

use std::time::Duration;

use afcgi::Stopping;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// Bytes of a message.
pub(super) const MESSAGE: usize = 4096;
/// How often a client is asked whether it is there: sooner than web servers lose patience with a
/// connection that is silent (60 s mostly).
const ASK: Duration = Duration::from_secs(25);
/// How long a client may take to read a message.
const SEND: Duration = Duration::from_secs(60);

/// Gives messages back until the client leaves, says nothing, or the server stops.
pub(super) async fn echo(mut socket: WebSocket, stopping: Stopping) {
    let mut ask = interval_at(Instant::now() + ASK, ASK);
    ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = true;
    loop {
        let answer = tokio::select! {
            message = socket.recv() => {
                heard = true;
                match message {
                    Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => message,
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => continue,
                    None | Some(Err(_)) => return,
                }
            }
            _ = ask.tick() => {
                if !std::mem::take(&mut heard) {
                    return;
                }
                Message::Ping("".into())
            }
            () = stopping.wait() => break,
        };
        if !matches!(timeout(SEND, socket.send(answer)).await, Ok(Ok(()))) {
            return;
        }
    }
    let frame = CloseFrame {
        code: close_code::AWAY,
        reason: "the server stops".into(),
    };
    _ = timeout(SEND, socket.send(Message::Close(Some(frame)))).await;
}
