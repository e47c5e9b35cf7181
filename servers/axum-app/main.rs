//! `axum-app`: an axum application as one writes it for axum's own HTTP server, over FastCGI.
//!
//! JSON, path parameters, a form, state, a body that streams in and one that streams out. Nothing
//! but [`main`] knows of FastCGI.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use afcgi_servers::Listen;
use axum::body::Body;
use axum::extract::{Form, Json, Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{BoxError, Router};
use clap::Parser;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

/// An axum application over FastCGI, to be tried at `/`.
#[derive(Debug, Parser)]
#[command(name = "axum-app", version)]
struct Arguments {
    #[command(flatten)]
    listen: Listen,
}

/// Notes that are kept; the oldest go first.
const NOTES: usize = 1000;

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Note {
    text: String,
}

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<BTreeMap<u64, Note>>>);

#[derive(Deserialize)]
struct Greeting {
    name: String,
    #[serde(default)]
    times: usize,
}

fn app() -> Router {
    Router::new()
        .route("/", get("GET /hello/NAME, POST /greet (a form), GET and POST /notes (JSON), GET /notes/ID, POST /count (any body), GET /countdown/N\n"))
        .route("/hello/{name}", get(async |Path(name): Path<String>| format!("Hello {name}\n")))
        .route("/greet", post(greet))
        .route("/notes", get(list).post(add))
        .route("/notes/{id}", get(show).delete(remove))
        .route("/count", post(count))
        .route("/countdown/{from}", get(countdown))
        .with_state(Notes::default())
}

async fn greet(Form(greeting): Form<Greeting>) -> String {
    format!("Hello {}\n", greeting.name).repeat(greeting.times.clamp(1, 10))
}

impl Notes {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<u64, Note>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn list(State(notes): State<Notes>) -> Json<BTreeMap<u64, Note>> {
    Json(notes.with(|notes| notes.clone()))
}

async fn add(State(notes): State<Notes>, Json(note): Json<Note>) -> impl IntoResponse {
    let id = notes.with(|notes| {
        let id = notes.last_key_value().map_or(1, |(last, _)| last + 1);
        notes.insert(id, note.clone());
        if notes.len() > NOTES {
            notes.pop_first();
        }
        id
    });
    (
        StatusCode::CREATED,
        [(LOCATION, format!("/notes/{id}"))],
        Json(note),
    )
}

async fn show(State(notes): State<Notes>, Path(id): Path<u64>) -> Result<Json<Note>, StatusCode> {
    let note = notes.with(|notes| notes.get(&id).cloned());
    note.map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn remove(State(notes): State<Notes>, Path(id): Path<u64>) -> StatusCode {
    match notes.with(|notes| notes.remove(&id)) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}

/// Counts the bytes and lines of a body of any size as they come.
async fn count(body: Body) -> Result<String, (StatusCode, String)> {
    let mut pieces = body.into_data_stream().map_err(BoxError::from);
    let (mut bytes, mut lines) = (0, 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))?;
        bytes += piece.len();
        lines += piece.iter().filter(|&&byte| byte == b'\n').count();
    }
    Ok(format!("{bytes} bytes, {lines} lines\n"))
}

/// A number every tenth of a second, down to zero.
async fn countdown(Path(from): Path<u8>) -> impl IntoResponse {
    let numbers = stream::iter((0..=from).rev()).then(async |number| {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, Infallible>(format!("{number}\n"))
    });
    // nginx passes each piece on as it comes, instead of a buffer full of them.
    ([("x-accel-buffering", "no")], Body::from_stream(numbers))
}

fn main() -> ExitCode {
    afcgi_servers::main(|arguments: Arguments| {
        arguments.listen.server()?.run(None, afcgi::http(app()))
    })
}
