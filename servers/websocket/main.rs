//! `websocket`: WebSocket over FastCGI, by axum's own extractor, with a page to draw on together.
//!
//! `echo` gives every message back, up to 16 MiB; `board` is the whiteboard; `state` tells by plain
//! HTTP how much is on it; everything else is the page. Only the last segment of the path counts, so
//! that it runs wherever a web server mounts it.

mod board;
mod line;

use std::process::ExitCode;

use afcgi::{Config, Stopping, Upgrades};
use afcgi_servers::Listen;
use axum::Router;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use board::Board;
use clap::Parser;
use line::Line;

/// A WebSocket echo, and a whiteboard that browsers share.
#[derive(Debug, Parser)]
#[command(name = "websocket", version)]
struct Arguments {
    #[command(flatten)]
    listen: Listen,
    /// Accept WebSockets that the web server passes on without offering to: for lighttpd
    #[arg(long)]
    upgrade_by_header: bool,
}

/// A page without anything from elsewhere, and with nothing but its own script.
const PAGE: &str = include_str!("page.html");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";

/// Bytes that a WebSocket reads at a time. It holds as many while it is open, 128 KiB if nothing is
/// said.
const BUFFER: usize = 4096;

/// Bytes of a message that `echo` gives back; it holds one at a time, there and back.
const ECHO: usize = 16 << 20;

#[derive(Clone, Debug)]
struct Site {
    board: Board,
    stopping: Stopping,
}

impl Site {
    async fn answer(self, request: Request) -> Response {
        let path = request.uri().path();
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut response = match (name, request.method()) {
            ("echo", _) => {
                let stopping = self.stopping;
                upgrade(request, ECHO, |socket| echo(Line::new(socket, stopping))).await
            }
            ("board", _) => {
                let (board, stopping) = (self.board, self.stopping);
                upgrade(request, board::MESSAGE, async |socket| {
                    board.join(Line::new(socket, stopping)).await;
                })
                .await
            }
            ("state", &Method::GET) => self.board.state(),
            (_, &Method::GET | &Method::HEAD) => page(),
            _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Makes a request a WebSocket, with messages of up to `most` bytes.
async fn upgrade<F, Fut>(request: Request, most: usize, run: F) -> Response
where
    F: FnOnce(WebSocket) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (mut parts, _) = request.into_parts();
    if !is_of_this_site(&parts.headers) {
        return (StatusCode::FORBIDDEN, "this is for pages of this site\n").into_response();
    }
    match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade
            .max_message_size(most)
            .max_frame_size(most)
            .read_buffer_size(BUFFER)
            .on_upgrade(run),
        Err(rejection) => rejection.into_response(),
    }
}

/// Browsers let any page open a WebSocket to any site, and say in `Origin` whose page it is.
fn is_of_this_site(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let origin: Option<Uri> = origin.to_str().ok().and_then(|text| text.parse().ok());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match (origin.as_ref().and_then(Uri::authority), host) {
        (Some(origin), Some(host)) => origin.as_str().eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// Gives every message back, one after the other.
async fn echo(mut line: Line) {
    while let Some(message) = line.next().await {
        if !line.send(message).await {
            break;
        }
    }
}

fn page() -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    (headers, Html(PAGE)).into_response()
}

fn run(arguments: Arguments) -> std::io::Result<()> {
    let mut config = Config::default();
    if arguments.upgrade_by_header {
        config.upgrades = Upgrades::ByHeader;
    }
    let server = arguments.listen.server()?.config(config);
    let site = Site {
        board: Board::default(),
        stopping: server.stopping(),
    };
    let app =
        Router::new().fallback(async move |request: Request| site.clone().answer(request).await);
    server.run(None, afcgi::http(app))
}

fn main() -> ExitCode {
    afcgi_servers::main(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_are_kept_out() {
        for (origin, host, expected) in [
            (None, Some("example.org"), true),
            (Some("https://example.org"), Some("Example.org"), true),
            (Some("http://[::1]:8888"), Some("[::1]:8888"), true),
            (Some("https://evil.example"), Some("example.org"), false),
            (Some("https://example.org:444"), Some("example.org"), false),
            (Some("null"), Some("example.org"), false),
            (Some("https://example.org"), None, false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(ORIGIN, origin), (HOST, host)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            assert_eq!(is_of_this_site(&headers), expected, "{origin:?} {host:?}");
        }
    }
}
