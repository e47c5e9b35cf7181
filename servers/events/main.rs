//! `events`: what a web server that multiplexes is for: hundreds of event streams and long polls,
//! held open on one connection, with a page to look at.
//!
//! `clock` is an event stream; `messages?after=ID` waits until somebody says something (or 25 s);
//! a message is said by POST to `messages`; everything else is the page. Only the last segment of
//! the path counts, so that it runs wherever a web server mounts it.

mod chat;

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use afcgi::{Stats, Stopping};
use afcgi_servers::Listen;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{Html, IntoResponse, Response};
use chat::Chat;
use clap::Parser;
use futures_util::{Stream, StreamExt};
use tokio_stream::wrappers::IntervalStream;

/// A clock as an event stream, and a chat by long polls, with a page to look at.
#[derive(Debug, Parser)]
#[command(name = "events", version)]
struct Arguments {
    #[command(flatten)]
    listen: Listen,
}

/// A page without anything from elsewhere, and with nothing but its own script.
const PAGE: &str = include_str!("page.html");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";

/// Bytes of a message as it is posted.
const MESSAGE: usize = 8 * 1024;

#[derive(Clone, Debug)]
struct Site {
    chat: Chat,
    stats: Stats,
    stopping: Stopping,
}

impl Site {
    async fn answer(self, request: Request) -> Response {
        let path = request.uri().path();
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut response = match (name, request.method()) {
            ("clock", &Method::GET) => Sse::new(self.clock()).into_response(),
            ("messages", &Method::GET) => self.chat.wait(request, &self.stopping).await,
            ("messages", &Method::POST) => self.chat.say(request).await,
            (_, &Method::GET | &Method::HEAD) => page(),
            _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // nginx passes each event on as it comes.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    /// The time every second, and how many requests are open on how many connections.
    fn clock(self) -> impl Stream<Item = Result<Event, Infallible>> {
        let stopping = self.stopping;
        let second = tokio::time::interval(Duration::from_secs(1));
        IntervalStream::new(second)
            .map(move |_| {
                let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
                let stats = self.stats.snapshot();
                let (open, connections) = (stats.active, stats.connections);
                let time = now.as_millis();
                let data =
                    format!(r#"{{"time":{time},"open":{open},"connections":{connections}}}"#);
                Ok(Event::default().data(data))
            })
            .take_until(async move { stopping.wait().await })
    }
}

fn page() -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    (headers, Html(PAGE)).into_response()
}

fn run(arguments: Arguments) -> std::io::Result<()> {
    let server = arguments.listen.server()?;
    let site = Site {
        chat: Chat::default(),
        stats: server.stats(),
        stopping: server.stopping(),
    };
    let app = Router::new()
        .fallback(async move |request: Request| site.clone().answer(request).await)
        .layer(DefaultBodyLimit::max(MESSAGE));
    server.run(None, afcgi::http(app))
}

fn main() -> ExitCode {
    afcgi_servers::main(run)
}
