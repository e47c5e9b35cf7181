//! A WebSocket that notices when nobody is there any more, and that ends when the server stops.

use std::time::Duration;

use afcgi::Stopping;
use axum::Error;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

/// How often a client is asked whether it is there: sooner than web servers lose patience with a
/// connection that is silent (60 s mostly).
const ASK: Duration = Duration::from_secs(25);
/// How long a client may take to read a message.
const SEND: Duration = Duration::from_secs(60);
/// How long a client may take to confirm the end.
const PART: Duration = Duration::from_secs(2);

/// See above. To be ended with [`Line::next`] or [`Line::send`], or dropped.
pub(crate) struct Line {
    socket: WebSocket,
    stopping: Stopping,
    ask: Interval,
    /// Whether something came since the client was asked.
    heard: bool,
    over: bool,
}

impl Line {
    pub(crate) fn new(socket: WebSocket, stopping: Stopping) -> Self {
        let mut ask = interval_at(Instant::now() + ASK, ASK);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            socket,
            stopping,
            ask,
            heard: true,
            over: false,
        }
    }

    /// The next message, text or binary; `None` when the WebSocket is closed. Nothing is lost when
    /// this is cancelled.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        while !self.over {
            tokio::select! {
                message = self.socket.recv() => {
                    self.heard = true;
                    match message {
                        Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                            return Some(message);
                        }
                        // The answer to a Close goes out as the next is asked for.
                        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
                        None => self.over = true,
                        Some(Err(error)) => self.broken(&error).await,
                    }
                }
                _ = self.ask.tick() => {
                    if !std::mem::take(&mut self.heard) {
                        tracing::debug!("a client is silent");
                        self.over = true;
                    } else if !self.send(Message::Ping("".into())).await {
                        return None;
                    }
                }
                () = self.stopping.wait() => self.close(close_code::AWAY, "the server stops").await,
            }
        }
        None
    }

    /// Sends a message; `false` when the WebSocket is closed.
    pub(crate) async fn send(&mut self, message: Message) -> bool {
        if !self.over {
            let sent = timeout(SEND, self.socket.send(message)).await;
            self.over = !matches!(sent, Ok(Ok(())));
        }
        !self.over
    }

    /// Closes the WebSocket, and waits for the client to agree.
    pub(crate) async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        if self.send(Message::Close(Some(frame))).await {
            self.over = true;
            let agreed = async { while let Some(Ok(_)) = self.socket.recv().await {} };
            let _ = timeout(PART, agreed).await;
        }
    }

    async fn broken(&mut self, error: &Error) {
        tracing::debug!(%error, "a client broke off");
        // That of a message that is too long can still be told to the client.
        self.close(close_code::SIZE, "too long, or broken").await;
    }
}
