//! An [`http::Response`] to a CGI response.

use std::fmt::Display;
use std::pin::pin;

use afcgi_proto::Gone;
use bytes::{Buf, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::ext::ReasonPhrase;

use crate::server::{AppStatus, OutputStream};

/// Body bytes up to which head and body are written in one record.
const TOGETHER: usize = 16 * 1024;

/// Sends a response, head and body. The status tells whether that went well.
pub(super) async fn send<B>(
    stdout: &mut OutputStream,
    response: Response<B>,
    head_only: bool,
) -> AppStatus
where
    B: http_body::Body,
    B::Error: Display,
{
    let (parts, body) = response.into_parts();
    let mut out = BytesMut::with_capacity(512);
    head(
        &mut out,
        &parts,
        (!head_only).then(|| body.size_hint().exact()).flatten(),
    );
    let mut body = pin!(body);
    if head_only || body.is_end_stream() {
        return stdout.write(&out).await.into();
    }
    // The first of the body goes with the head if it is there already; a body that is still waited
    // for does not hold the head back.
    let mut head_pending = true;
    loop {
        let frame = if head_pending {
            match now_or_never(body.frame()).await {
                Some(frame) => frame,
                None => {
                    if stdout.write(&out).await.is_err() {
                        return AppStatus::FAILURE;
                    }
                    out.clear();
                    head_pending = false;
                    continue;
                }
            }
        } else {
            body.frame().await
        };
        let mut data = match frame {
            None => break,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                // CGI has no trailers.
                Err(_) => continue,
            },
            Some(Err(error)) => {
                tracing::error!(%error, "the response body failed");
                if head_pending {
                    return plain(stdout, 500, "the application failed").await;
                }
                return AppStatus::FAILURE;
            }
        };
        if head_pending {
            head_pending = false;
            if data.remaining() <= TOGETHER {
                out.extend_from_slice(&data.copy_to_bytes(data.remaining()));
            }
            if stdout.write(&out).await.is_err() {
                return AppStatus::FAILURE;
            }
            out.clear();
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            let count = chunk.len();
            if stdout.write(chunk).await.is_err() {
                return AppStatus::FAILURE;
            }
            data.advance(count);
        }
    }
    stdout.write(&out).await.into()
}

/// Sends the head of an answer that makes a request a tunnel; there is no body.
pub(super) async fn switch<B>(stdout: &mut OutputStream, answer: Response<B>) -> Result<(), Gone> {
    let mut out = BytesMut::with_capacity(512);
    head(&mut out, &answer.into_parts().0, None);
    stdout.write(&out).await
}

/// The result of a future that is ready at its first poll.
async fn now_or_never<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// Writes a response head.
fn head(out: &mut BytesMut, parts: &http::response::Parts, length: Option<u64>) {
    out.extend_from_slice(b"Status: ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    let own = parts.extensions.get().map(ReasonPhrase::as_bytes);
    let reason = own.or_else(|| parts.status.canonical_reason().map(str::as_bytes));
    if let Some(reason) = reason {
        out.extend_from_slice(b" ");
        out.extend_from_slice(reason);
    }
    out.extend_from_slice(b"\r\n");
    // A response that cannot have a body has no length either (RFC 9110 section 8.6).
    let bodiless = parts.status.is_informational() || parts.status == StatusCode::NO_CONTENT;
    for (name, value) in &parts.headers {
        if is_of_the_connection(name) || (bodiless && *name == CONTENT_LENGTH) {
            continue;
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if let Some(length) = length
        && !bodiless
        && parts.status != StatusCode::NOT_MODIFIED
        && !parts.headers.contains_key(CONTENT_LENGTH)
    {
        out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Header fields that speak of an HTTP connection, of which there is none here, and the one that
/// would be taken for the CGI status.
fn is_of_the_connection(name: &HeaderName) -> bool {
    *name == CONNECTION
        || *name == TRANSFER_ENCODING
        || matches!(name.as_str(), "keep-alive" | "status")
}

/// Sends a short text.
pub(super) async fn plain(stdout: &mut OutputStream, status: u16, text: &str) -> AppStatus {
    let reason = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("");
    let length = text.len() + 1;
    let response = format!(
        "Status: {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}\n"
    );
    stdout.write(response.as_bytes()).await.into()
}
