//! The admin address: `/metrics` for Prometheus, `/health` for whoever asks whether the gateway takes requests.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::front::{self, Busy, ClientIo, Incoming, Listener, Socket, Terms, serve_http1};
use crate::shared::Shared;

/// Connections at a time: whoever looks at numbers needs few.
const CONNECTIONS: usize = 256;

/// Answers until the `end`, also while the gateway drains.
pub(crate) async fn run(
    shared: Arc<Shared>,
    listener: Listener,
    draining: CancellationToken,
    end: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let serve = |socket, _, place| {
        let (shared, draining, end) = (Arc::clone(&shared), draining.clone(), end.clone());
        tokio::spawn(connection(shared, socket, place, draining, end));
    };
    front::accept(listener, places, end.clone(), serve).await;
}

async fn connection(
    shared: Arc<Shared>,
    mut socket: Socket,
    _place: OwnedSemaphorePermit,
    draining: CancellationToken,
    end: CancellationToken,
) {
    let limits = shared.site.load().settings.limits;
    socket.set_send_timeout(limits.send_timeout);
    let activity = Arc::clone(socket.activity());
    let service = |request: Request<Incoming>| {
        let _busy = Busy::new(&activity);
        let response = answer(&shared, &request, draining.is_cancelled());
        async { response }
    };
    let terms = Terms {
        limits,
        budget: Arc::clone(&shared.budget),
        refused: &|_, _| (),
        tidy: |_| (),
        // Whoever asks while the gateway drains will ask again.
        stop: end,
    };
    let _ = serve_http1(ClientIo::from(socket), &activity, service, terms).await;
}

fn answer(shared: &Shared, request: &Request<Incoming>, draining: bool) -> Response<Full<Bytes>> {
    let site = shared.site.load();
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let upstreams = site.upstreams.iter();
            let clients = upstreams.map(|(name, upstream)| (&**name, &upstream.client));
            let waiting = shared.budget.held();
            (StatusCode::OK, shared.metrics.render(waiting, clients))
        }
        (&Method::GET | &Method::HEAD, "/health") if draining => {
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/health") => {
            let down = site
                .upstreams
                .values()
                .filter(|upstream| upstream.is_down());
            let down: String = down
                .map(|upstream| format!("the application `{}` cannot be reached\n", upstream.name))
                .collect();
            match down.is_empty() {
                true => (StatusCode::OK, "ok\n".to_owned()),
                false => (StatusCode::SERVICE_UNAVAILABLE, down),
            }
        }
        (_, "/metrics" | "/health") => (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned()),
        _ => (
            StatusCode::NOT_FOUND,
            "there are /metrics and /health\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
