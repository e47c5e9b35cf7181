//! `upload`: a body of any size, taken as it comes: counted, hashed and, if asked, kept in a file.
//!
//! What is held of an upload is a piece at a time, whatever its size. PUT or POST the body; GET
//! lists the uploads: how far those under way are, size and SHA-256 of those that are complete, and
//! those that broke off.

mod list;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use afcgi_servers::Listen;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use clap::Parser;
use futures_util::StreamExt;
use list::List;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// Takes uploads of any size, and tells their size and SHA-256.
#[derive(Debug, Parser)]
#[command(name = "upload", version)]
struct Arguments {
    #[command(flatten)]
    listen: Listen,
    /// Where to keep complete uploads, by their SHA-256. Without it they are counted and hashed only
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Site {
    list: List,
    keep: Option<PathBuf>,
}

impl Site {
    async fn take(self, body: Body) -> Response {
        match self.receive(body).await {
            Ok(line) => line.into_response(),
            Err((status, why)) => (status, why + "\n").into_response(),
        }
    }

    /// Receives a body to its end. When the client breaks off, this either sees an error or is
    /// dropped: the entry in the list notes both, and the file goes with its guard.
    async fn receive(&self, body: Body) -> Result<String, (StatusCode, String)> {
        let internal = |error: io::Error| {
            tracing::error!(%error, "cannot keep an upload");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                "cannot keep the upload".to_owned(),
            )
        };
        let mut entry = self.list.begin(body.size_hint().exact());
        let mut file = match &self.keep {
            Some(folder) => Some(temporary(folder).map_err(internal)?),
            None => None,
        };
        let mut hash = Sha256::new();
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
            hash.update(&piece);
            if let Some((_, file)) = &mut file {
                file.write_all(&piece).await.map_err(internal)?;
            }
            entry.received(piece.len());
        }
        let hash = format!("{:x}", hash.finalize());
        if let (Some((name, mut file)), Some(folder)) = (file, &self.keep) {
            file.flush().await.map_err(internal)?;
            name.persist(folder.join(&hash))
                .map_err(|error| internal(error.error))?;
        }
        Ok(entry.complete(&hash))
    }
}

/// A file that is removed again unless it is persisted.
fn temporary(folder: &PathBuf) -> io::Result<(NamedTempFile, File)> {
    let name = NamedTempFile::new_in(folder)?;
    let file = File::from_std(name.reopen()?);
    Ok((name, file))
}

fn run(arguments: Arguments) -> io::Result<()> {
    let server = arguments.listen.server()?;
    let site = Site {
        list: List::default(),
        keep: arguments.keep,
    };
    let list = site.list.clone();
    let take = async move |body: Body| site.take(body).await;
    let app = Router::new()
        .fallback_service(
            get(async move || list.to_string())
                .post(take.clone())
                .put(take),
        )
        .layer(DefaultBodyLimit::disable());
    server.run(None, afcgi::http(app))
}

fn main() -> ExitCode {
    afcgi_servers::main(run)
}
