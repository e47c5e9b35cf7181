//! The application: its routes, and its limits.
//!
//! | route | |
//! |---|---|
//! | `GET live` | the event stream of a page ([`super::live`]) |
//! | `GET clock` | the time every second, as an event stream |
//! | `GET ping` | an answer at once |
//! | `GET echo` | the WebSocket |
//! | `GET download?page=ID` | 200 MB |
//! | `POST load?page=ID&n=COUNT` | opens clients for a page, `POST close?page=ID` ends them |
//! | `POST message` | says something in the chat |
//!
//! Everything else is the page. Only the last segment of the path counts, so that it runs wherever a
//! web server mounts it.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use afcgi::{Stats, Stopping};
use axum::Router;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Json, Query, Request};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::sse::{Event, Sse};
use axum::response::{Html, IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};

use super::chat::Chat;
use super::live;
use super::load::Load;
use super::pages::{Page, Pages};
use super::public::Public;
use super::room::{Place, Room};
use super::site::{Rooms, Site};
use super::{download, echo};

/// A page without anything from elsewhere, and with nothing but its own script.
static PAGE: LazyLock<String> =
    LazyLock::new(|| include_str!("page.html").replace("/* page.js */\n", include_str!("page.js")));
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'";

/// Bytes of a message as it is posted.
const MESSAGE: usize = 8 * 1024;
/// Bytes that a WebSocket reads at a time.
const BUFFER: usize = 4096;

/// nginx passes each event on as it comes, and leaves a download that is not read where it is.
const UNBUFFERED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);

/// The limits of the demonstration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Clients that pages have asked for, at a time, all pages together. Default: 5000.
    pub most_clients: usize,
    /// The number of open files that a process may have, if that is why there are fewer clients. Default: none.
    pub descriptors: Option<u64>,
    /// How long such a client lasts. Default: 5 minutes.
    pub longest: Duration,
    /// Pages that are open at a time; a further one gets 503 for its event stream. Default: 64.
    pub pages: usize,
    /// Event streams of the clock at a time, whoever asks for them; a further one gets 503. Default:
    /// 20,000.
    pub clocks: usize,
    /// WebSockets at a time; a further one gets 503. Default: 256.
    pub sockets: usize,
    /// Downloads at a time; a further one gets 503. Default: 16.
    pub downloads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            most_clients: 5000,
            descriptors: None,
            longest: Duration::from_secs(300),
            pages: 64,
            clocks: 20_000,
            sockets: 256,
            downloads: 16,
        }
    }
}

/// The application, that shows the numbers of a server, ends its streams when that is stopping, and has
/// its page at a URL.
///
/// It is a service as any other: [`afcgi::http`] makes an application of it that a
/// [`Server`](afcgi::Server) serves.
pub fn app(config: Config, public: Public, stats: Stats, stopping: Stopping) -> Router {
    let site = Site {
        stats,
        stopping,
        chat: Chat::default(),
        pages: Pages::default(),
        load: Load::new(public, config.most_clients, config.longest),
        descriptors: config.descriptors,
        rooms: Rooms {
            pages: Room::new(config.pages),
            clocks: Room::new(config.clocks),
            sockets: Room::new(config.sockets),
            downloads: Room::new(config.downloads),
        },
        run: fastrand::u64(..),
    };
    Router::new()
        .fallback(async move |request: Request| site.clone().answer(request).await)
        .layer(DefaultBodyLimit::max(MESSAGE))
}

/// What a page asks for.
#[derive(Debug, Deserialize)]
struct Asked {
    page: String,
    #[serde(default)]
    n: usize,
}

/// How many clients are being opened.
#[derive(Debug, Serialize)]
struct Opening {
    opening: usize,
}

impl Site {
    async fn answer(self, request: Request) -> Response {
        let path = request.uri().path();
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut response = match (name, request.method()) {
            ("echo", &Method::GET) | (_, &Method::POST) if !is_of_this_site(request.headers()) => {
                (StatusCode::FORBIDDEN, "this is for pages of this site\n").into_response()
            }
            ("live", &Method::GET) => match self.rooms.pages.enter() {
                Some(place) => events(live::stream(self), place),
                None => full(),
            },
            ("clock", &Method::GET) => match self.rooms.clocks.enter() {
                Some(place) => events(live::clock(&self), place),
                None => full(),
            },
            ("ping", &Method::GET) => "pong\n".into_response(),
            ("echo", &Method::GET) => self.echo(request).await,
            ("download", &Method::GET) => self.download(request.uri()),
            ("load", &Method::POST) => self.open(request.uri()),
            ("close", &Method::POST) => self.close(request.uri()),
            ("message", &Method::POST) => self.chat.say(request).await,
            ("live" | "clock" | "ping" | "echo" | "download" | "load" | "close" | "message", _) => {
                StatusCode::METHOD_NOT_ALLOWED.into_response()
            }
            (_, &Method::GET | &Method::HEAD) => page(),
            _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    async fn echo(self, request: Request) -> Response {
        let (mut parts, _) = request.into_parts();
        let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => upgrade,
            Err(rejection) => return rejection.into_response(),
        };
        let Some(place) = self.rooms.sockets.enter() else {
            return full();
        };
        upgrade
            .max_message_size(echo::MESSAGE)
            .max_frame_size(echo::MESSAGE)
            .read_buffer_size(BUFFER)
            .on_upgrade(async move |socket| {
                let _place = place;
                echo::echo(socket, self.stopping).await;
            })
    }

    fn download(self, uri: &Uri) -> Response {
        let page = match self.page(uri) {
            Ok((page, _)) => page,
            Err(status) => return status.into_response(),
        };
        let Some(place) = self.rooms.downloads.enter() else {
            return full();
        };
        let body = download::body(page.handed.clone(), self.stopping, place);
        let headers = [
            (
                CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            ),
            (CONTENT_LENGTH, HeaderValue::from(download::LENGTH)),
            UNBUFFERED,
        ];
        (headers, Body::from_stream(body)).into_response()
    }

    fn open(self, uri: &Uri) -> Response {
        let (page, count) = match self.page(uri) {
            Ok(found) => found,
            Err(status) => return status.into_response(),
        };
        let most = self.load.most();
        if !(1..=most).contains(&count) {
            let limits = match self.descriptors {
                Some(descriptors) if count > most => format!(
                    "there is room for {most} requests at a time, since {} Raise that limit and start the demonstration again\n",
                    too_few(descriptors)
                ),
                _ => format!("expected n from 1 to {most}\n"),
            };
            return (StatusCode::BAD_REQUEST, limits).into_response();
        }
        match self.load.open(&page.clients, count) {
            0 => {
                let limits = format!("{most} at a time is all there may be\n");
                (StatusCode::TOO_MANY_REQUESTS, limits).into_response()
            }
            opening => Json(Opening { opening }).into_response(),
        }
    }

    fn close(self, uri: &Uri) -> Response {
        match self.page(uri) {
            Ok((page, _)) => {
                page.clients.close();
                StatusCode::NO_CONTENT.into_response()
            }
            Err(status) => status.into_response(),
        }
    }
    /// The page that asks, and for how many; what to answer if there is no such page. It is open for as
    /// long as its event stream is.
    fn page(&self, uri: &Uri) -> Result<(Arc<Page>, usize), StatusCode> {
        let Query(asked) =
            Query::<Asked>::try_from_uri(uri).map_err(|_| StatusCode::BAD_REQUEST)?;
        let page = self.pages.get(&asked.page).ok_or(StatusCode::GONE)?;
        Ok((page, asked.n))
    }
}

fn page() -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    (headers, Html(PAGE.as_str())).into_response()
}

fn full() -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "there are too many of these already\n",
    )
        .into_response()
}

/// An event stream, which has a place while it lasts.
fn events(
    events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
    place: Place,
) -> Response {
    let events = events.inspect(move |_| _ = &place);
    ([UNBUFFERED], Sse::new(events)).into_response()
}

/// Browsers let any page send a POST to any site, and open a WebSocket there, and say in `Origin` whose
/// page it is.
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

/// Why there are fewer clients than there might be, as a sentence.
pub(super) fn too_few(descriptors: u64) -> String {
    format!("this process may have {descriptors} files open (ulimit -n).")
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
