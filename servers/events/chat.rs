//! The chat: the last messages, and those who wait for the next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use afcgi::Stopping;
use axum::extract::{FromRequest, Json, Query, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Messages that are kept.
const KEPT: usize = 100;
/// Characters of a name.
const NAME: usize = 24;
/// Characters of a message.
const TEXT: usize = 500;
/// How long a poll waits: less than the 60 s after which web servers lose patience.
const PATIENCE: Duration = Duration::from_secs(25);

#[derive(Clone, Debug, Serialize)]
struct Message {
    id: u64,
    /// Milliseconds since 1970.
    time: u128,
    name: String,
    text: String,
}

#[derive(Debug, Deserialize)]
struct Said {
    #[serde(default)]
    name: String,
    text: String,
}

#[derive(Debug, Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

/// The messages of everybody; a clone is the same chat.
#[derive(Clone, Debug)]
pub(crate) struct Chat(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    messages: Mutex<VecDeque<Message>>,
    /// The id of the last message.
    last: watch::Sender<u64>,
}

impl Default for Chat {
    fn default() -> Self {
        Self(Arc::new(Inner {
            messages: Mutex::default(),
            last: watch::Sender::new(0),
        }))
    }
}

impl Chat {
    /// The messages after the one with this id, as soon as there are any; none if that takes long.
    pub(crate) async fn wait(&self, request: Request, stopping: &Stopping) -> Response {
        let Ok(Query(After { mut after })) = Query::try_from_uri(request.uri()) else {
            return (StatusCode::BAD_REQUEST, "expected ?after=ID\n").into_response();
        };
        let mut last = self.0.last.subscribe();
        if after > *last.borrow() {
            // From before a restart: that chat is gone.
            after = 0;
        }
        tokio::select! {
            _ = last.wait_for(|last| *last > after) => {}
            () = tokio::time::sleep(PATIENCE) => {}
            () = stopping.wait() => {}
        }
        let messages = self
            .0
            .messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let new: Vec<_> = messages
            .iter()
            .filter(|message| message.id > after)
            .cloned()
            .collect();
        drop(messages);
        Json(new).into_response()
    }

    /// Takes a message, and tells those who wait.
    pub(crate) async fn say(&self, request: Request) -> Response {
        let said = match Json::<Said>::from_request(request, &()).await {
            Ok(Json(said)) => said,
            Err(rejection) => return rejection.into_response(),
        };
        let (name, text) = (said.name.trim(), said.text.trim());
        if text.is_empty() || text.chars().count() > TEXT || name.chars().count() > NAME {
            let limits = format!("a message has 1 to {TEXT} characters, a name up to {NAME}\n");
            return (StatusCode::UNPROCESSABLE_ENTITY, limits).into_response();
        }
        let name = if name.is_empty() { "anonymous" } else { name };
        let time = SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_millis();
        let mut messages = self
            .0
            .messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let id = *self.0.last.borrow() + 1;
        if messages.len() == KEPT {
            messages.pop_front();
        }
        messages.push_back(Message {
            id,
            time,
            name: name.to_owned(),
            text: text.to_owned(),
        });
        self.0.last.send_replace(id);
        StatusCode::NO_CONTENT.into_response()
    }
}
