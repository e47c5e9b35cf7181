//! The chat: the last messages, and streams that bring them and the next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use axum::extract::{FromRequest, Json, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Messages that are kept.
const KEPT: usize = 100;
/// Characters of a name.
const NAME: usize = 24;
/// Characters of a message.
const TEXT: usize = 500;

/// What somebody said.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Message {
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

/// The messages of everybody; a clone is the same chat.
#[derive(Clone, Debug)]
pub(super) struct Chat(Arc<Inner>);

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
    /// The messages that there are, and those to come. Who reads slowly misses the oldest.
    pub(super) fn messages(&self) -> impl Stream<Item = Message> + use<> {
        let receiver = self.0.last.subscribe();
        stream::unfold((self.clone(), receiver, 0), |state| async move {
            let (chat, mut receiver, after) = state;
            receiver.wait_for(|last| *last > after).await.ok()?;
            let new: Vec<_> = chat
                .lock()
                .iter()
                .filter(|message| message.id > after)
                .cloned()
                .collect();
            let after = new.last().map_or(after, |message| message.id);
            Some((stream::iter(new), (chat, receiver, after)))
        })
        .flatten()
    }

    /// Takes a message, and tells those who wait.
    pub(super) async fn say(&self, request: Request) -> Response {
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
        let time = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut messages = self.lock();
        let id = *self.0.last.borrow() + 1;
        if messages.len() == KEPT {
            messages.pop_front();
        }
        messages.push_back(Message {
            id,
            time: time.as_millis(),
            name: name.to_owned(),
            text: text.to_owned(),
        });
        self.0.last.send_replace(id);
        StatusCode::NO_CONTENT.into_response()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Message>> {
        (self.0.messages)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
