//! `chaos own`: an axum application over the library of this project, with flow control or without.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use afcgi::{Config, Listener, Server};
use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{Asked, Named};
use crate::block::{BLOCK, Digest, block, received};

/// Blocks that are written at a time.
const PIECE: usize = 256;

/// Serves all addresses until the process is told to stop. `plain`: without flow control, as other libraries are.
///
/// # Errors
/// When an address cannot be used.
pub fn serve(apps: &[Named], plain: bool) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let servers = apps.iter().map(|app| {
            let listener = Listener::bind(&format!("unix:{}", app.path.display()))?;
            let mut config = Config::default();
            config.connection.flow_control = !plain;
            let router = Router::new().fallback(answer).with_state(app.name.clone());
            let server = Server::new().config(config).listen(listener);
            Ok(server.serve(afcgi::http(router)))
        });
        let servers: Vec<_> = servers.collect::<io::Result<_>>()?;
        futures_util::future::try_join_all(servers).await.map(drop)
    })
}

async fn answer(State(name): State<String>, RawQuery(query): RawQuery, body: Body) -> Response {
    let asked = Asked::new(query.as_deref().unwrap_or_default());
    let (mut digest, mut length) = (Digest::default(), 0);
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        // A body that breaks off: the request is as good as aborted.
        let Ok(piece) = piece else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        digest.add(&piece);
        length += piece.len();
    }
    tokio::time::sleep(Duration::from_millis(asked.delay)).await;
    let received = received(length, digest);
    let mut response = Response::builder()
        .header("Content-Type", "text/plain")
        .header("X-App", &name)
        .header("X-Token", format!("{:016x}", asked.token))
        .header("X-Received", &received);
    if asked.announced {
        response = response.header("Content-Length", BLOCK * asked.blocks);
    }
    let body = Body::from_stream(blocks(name, asked, received));
    match response.body(body) {
        Ok(response) => response,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The blocks of a response, with its pause before those of the second half.
fn blocks(
    name: String,
    asked: Asked,
    received: String,
) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    let pieces = (0..asked.blocks).step_by(PIECE);
    let middle = asked.blocks / 2 / PIECE * PIECE;
    stream::iter(pieces).then(move |from| {
        let until = asked.blocks.min(from + PIECE);
        let mut piece = Vec::with_capacity(BLOCK * (until - from));
        for index in from..until {
            let more = if index == 0 { &*received } else { "" };
            piece.extend_from_slice(&block(&name, asked.token, index, more));
        }
        let pause = if from == middle { asked.pause } else { 0 };
        async move {
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            Ok(Bytes::from(piece))
        }
    })
}
