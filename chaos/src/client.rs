//! A client: one request after the other, on connections that it keeps, and every byte of the answers compared.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::block::{Digest, Expected, received, request_body};
use crate::events::Front;
use crate::fleet::{App, Kind};
use crate::plan::{Leave, Plan};

/// Requests that a connection carries at most, so that there are new ones all the time.
const PER_CONNECTION: u32 = 50;

type Body = BoxBody<Bytes, Infallible>;

/// What became of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Everything was as it should be.
    Right,
    /// The client left, as it was to; what it had got until then was right.
    Left,
    /// It failed, and showed it: 502, 503, 504, or a response that broke off.
    Failed(String),
    /// The connection was closed before any of the response came.
    Stale(String),
    /// All that came was right, and it ended well before its end, where nothing had told its length.
    Cut(String),
    /// Something came that should not have.
    Wrong(String),
}

struct Connection {
    send: SendRequest<Body>,
    task: JoinHandle<()>,
    used: u32,
    /// When the last response on it had come.
    since: Instant,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Nothing more is read or written: for the other side the client is gone.
        self.task.abort();
    }
}

/// A client of both web servers.
pub struct Client {
    addresses: [SocketAddr; 2],
    kept: [Option<Connection>; 2],
    /// Since when the connection that was used last had been without a request.
    pub since: Instant,
}

impl Client {
    /// Of web servers at these addresses, in the order of [`Front::ALL`].
    pub fn new(addresses: [SocketAddr; 2]) -> Self {
        Self {
            addresses,
            kept: [None, None],
            since: Instant::now(),
        }
    }

    /// Makes a request. `fresh`: on a new connection.
    pub async fn ask(&mut self, plan: &Plan, app: &App, fresh: bool) -> Outcome {
        let at = usize::from(plan.front == Front::Gateway);
        let kept = self.kept[at].take();
        let kept = kept.filter(|kept| !fresh && kept.used < PER_CONNECTION);
        let mut connection = match kept {
            Some(kept) => kept,
            None => match connect(self.addresses[at]).await {
                Ok(connection) => connection,
                // It always listens.
                Err(error) => return Outcome::Wrong(format!("cannot connect: {error}")),
            },
        };
        self.since = connection.since;
        let asked = exchange(&mut connection, plan, app);
        let outcome = match plan.leave {
            Leave::Waiting(ms) => {
                let waited = tokio::time::timeout(Duration::from_millis(ms), asked);
                waited.await.unwrap_or(Outcome::Left)
            }
            Leave::InRequest => {
                // The rest of the body never comes.
                let waited = tokio::time::timeout(Duration::from_millis(50), asked);
                waited.await.unwrap_or(Outcome::Left)
            }
            Leave::Never | Leave::InResponse => asked.await,
        };
        if outcome == Outcome::Right && connection.send.ready().await.is_ok() {
            connection.used += 1;
            connection.since = Instant::now();
            self.kept[at] = Some(connection);
        }
        outcome
    }
}

async fn connect(address: SocketAddr) -> Result<Connection, String> {
    let socket = TcpStream::connect(address).await;
    let socket = socket.map_err(|error| error.to_string())?;
    _ = socket.set_nodelay(true);
    let (send, connection) = handshake(TokioIo::new(socket))
        .await
        .map_err(|error| error.to_string())?;
    let task = tokio::spawn(async move { _ = connection.await });
    Ok(Connection {
        send,
        task,
        used: 0,
        since: Instant::now(),
    })
}

fn body(plan: &Plan) -> Body {
    let bytes = Bytes::from(request_body(plan.token, plan.length));
    if plan.leave == Leave::InRequest {
        let half = bytes.slice(..bytes.len() / 2);
        let first = stream::iter([Ok(Frame::data(half))]);
        return BodyExt::boxed(StreamBody::new(futures_util::StreamExt::chain(
            first,
            stream::pending(),
        )));
    }
    if !plan.post {
        return BodyExt::boxed(Empty::new());
    }
    if !plan.chunked {
        return BodyExt::boxed(Full::new(bytes));
    }
    let pieces = (0..bytes.len())
        .step_by(10_000)
        .map(move |from| bytes.slice(from..bytes.len().min(from + 10_000)));
    BodyExt::boxed(StreamBody::new(stream::iter(
        pieces
            .map(|piece| Ok(Frame::data(piece)))
            .collect::<Vec<_>>(),
    )))
}

async fn exchange(connection: &mut Connection, plan: &Plan, app: &App) -> Outcome {
    let mut request = Request::builder()
        .method(if plan.post { Method::POST } else { Method::GET })
        .uri(plan.path(app))
        .header("Host", "chaos");
    if plan.leave == Leave::InRequest {
        request = request.header("Content-Length", plan.length.max(1));
    }
    let request = match request.body(body(plan)) {
        Ok(request) => request,
        Err(error) => return Outcome::Wrong(format!("the request cannot be made: {error}")),
    };
    let response = match connection.send.send_request(request).await {
        Ok(response) => response,
        Err(error) => {
            let why = format!("no response: {}", words(&error));
            return Outcome::Stale(why);
        }
    };
    check(response, plan, app).await
}

fn words(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

async fn check(response: Response<Incoming>, plan: &Plan, app: &App) -> Outcome {
    match response.status() {
        StatusCode::OK => {}
        status @ (StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT) => return Outcome::Failed(status.to_string()),
        status => {
            let body = response.into_body().collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
            return Outcome::Wrong(format!("status {status}: {text}"));
        }
    }
    let (head, mut body) = response.into_parts();
    let field = |name| {
        let value = head.headers.get(name).map(|value| value.as_bytes());
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    };
    let mut expected = if app.kind == Kind::Afcgitest {
        Expected::echo(plan.token, plan.length)
    } else {
        let bytes = request_body(plan.token, plan.length);
        let received = received(bytes.len(), Digest::of(&bytes));
        for (name, wanted) in [
            ("x-app", &*app.name),
            ("x-token", &*format!("{:016x}", plan.token)),
            ("x-received", &*received),
        ] {
            let found = field(name);
            if found != wanted {
                return Outcome::Wrong(format!("{name}: {found:?} in place of {wanted:?}"));
            }
        }
        Expected::response(&app.name, plan.token, plan.blocks, &received)
    };
    if head.headers.get("content-length").is_none()
        && head.headers.get("transfer-encoding").is_none()
    {
        return Outcome::Wrong(String::from("nothing tells where the response ends"));
    }
    let mut frames = 0;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                let (at, left) = (expected.at(), expected.left());
                let why = words(&error);
                return Outcome::Failed(format!(
                    "it broke off at {at}, {left} before its end: {why}"
                ));
            }
        };
        if let Some(data) = frame.data_ref()
            && let Err(wrong) = expected.check(data)
        {
            return Outcome::Wrong(wrong);
        }
        if plan.leave == Leave::InResponse {
            return Outcome::Left;
        }
        frames += 1;
        if plan.slow && frames < 40 {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
    match expected.left() {
        0 => Outcome::Right,
        left => {
            let whole = expected.at() + left;
            let why = format!("it ends well, {left} bytes before its end of {whole}");
            match plan.announced || app.kind == Kind::Afcgitest {
                true => Outcome::Wrong(why),
                false => Outcome::Cut(why),
            }
        }
    }
}
