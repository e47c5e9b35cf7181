//! Files on their way through an application in the role of a filter.
//!
//! Conditions and ranges are for that to look at: what it makes of a file has an age and a length of its own.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use afcgi::client::Data;
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;

/// Makes a request for a file one to a filter, which is told where the file is. The error is the status to
/// answer with.
pub(crate) async fn put(
    file: PathBuf,
    parts: &mut Parts,
    params: &mut Vec<(Bytes, Bytes)>,
) -> Result<(), StatusCode> {
    let translated = Bytes::copy_from_slice(file.as_os_str().as_encoded_bytes());
    let opened = tokio::task::spawn_blocking(move || File::open(file).and_then(Data::file)).await;
    let data = opened
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|error| match error.kind() {
            // As for files that are sent as they are; and it may have become something else by now.
            io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput => StatusCode::NOT_FOUND,
            _ => {
                let file = translated.escape_ascii();
                tracing::error!(%file, %error, "cannot open a file for a filter");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        })?;
    parts.extensions.insert(data);
    if !params.iter().any(|(name, _)| name == "PATH_TRANSLATED") {
        params.push(("PATH_TRANSLATED".into(), translated));
    }
    Ok(())
}
