//! A connection by HTTP/2, whose requests are answered side by side.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::Builder;
use h2::{Ping, PingPong};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, timeout};

use super::exchange::Exchange;
use super::tunnel::OnTunnel;
use crate::front::activity::Activity;
use crate::front::budget::{Piece, Share, Ticket};
use crate::front::content::Content;
use crate::front::drive::drive;
use crate::front::incoming::{BoxError, Incoming};
use crate::front::io::{Accepted, ClientIo, Hints, Tidy};
use crate::front::terms::{Refused, Terms};

/// Requests at a time on a connection.
const STREAMS: u32 = 200;
/// Bytes of bodies that a client may send ahead: of one request, and of all together.
const WINDOW: u32 = 1 << 20;
/// Bytes of a response that wait for a client to read, where all that wait are fewer than may be.
const SEND_BUFFER: usize = 256 << 10;
/// How often a client is asked whether it is still there, and for how long its answer is waited for.
const PING: Duration = Duration::from_secs(30);

/// Serves a connection, and ends it when it has been idle for too long.
pub(crate) async fn serve<S, F, B>(
    io: ClientIo,
    activity: &Activity,
    service: S,
    terms: Terms<'_>,
) -> Result<(), BoxError>
where
    S: Fn(Request<Incoming>) -> F + Unpin,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let limits = terms.limits;
    let accepted = Arc::new(Accepted::default());
    let io = io.speaks_http2(Arc::clone(&accepted));
    let handshake = Box::pin(handshake(io, accepted, service, &terms));
    let served = tokio::select! {
        made = timeout(limits.header_timeout, handshake) => made??,
        () = terms.stop.cancelled() => return Ok(()),
    };
    let finish = Connection::graceful_shutdown;
    drive(Box::pin(served), finish, activity, limits, terms.stop).await
}

type Io<S> = h2::server::Connection<S, Piece>;

/// A connection whose requests a service answers, each in a task of its own.
struct Connection<'a, IO, S> {
    inner: Io<IO>,
    accepted: Arc<Accepted>,
    refused: Refused<'a>,
    tidy: Tidy,
    service: S,
    pings: Option<PingPong>,
    timer: Pin<Box<Sleep>>,
    /// Whether the answer to a ping is waited for.
    asked: bool,
    send_timeout: Duration,
    share: Arc<Share>,
}

/// Makes the acquaintance of a client. The future takes as long as the client likes.
async fn handshake<'a, IO, S>(
    io: IO,
    accepted: Arc<Accepted>,
    service: S,
    terms: &Terms<'a>,
) -> Result<Connection<'a, IO, S>, h2::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &terms.limits;
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(limits.header).unwrap_or(u32::MAX));
    let mut inner: Io<IO> = builder.handshake(io).await?;
    let share = Share::new(Arc::clone(&terms.budget), limits.responses);
    Ok(Connection {
        pings: inner.ping_pong(),
        inner,
        accepted,
        refused: terms.refused,
        tidy: terms.tidy,
        service,
        timer: Box::pin(tokio::time::sleep(PING)),
        asked: false,
        send_timeout: limits.send_timeout,
        share,
    })
}

impl<IO, S> Connection<'_, IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// Takes no more requests, and ends when those it has are over.
    fn graceful_shutdown(mut self: Pin<&mut Self>)
    where
        S: Unpin,
    {
        self.inner.graceful_shutdown();
    }

    /// Asks now and then whether the client is there. Ready: it is not.
    fn poll_pings(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pings) = &mut self.pings else {
            return Poll::Pending;
        };
        loop {
            if self.asked && pings.poll_pong(cx).is_ready() {
                self.asked = false;
                self.timer.as_mut().reset(Instant::now() + PING);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.asked || pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.asked = true;
            self.timer.as_mut().reset(Instant::now() + PING);
        }
    }
}

impl<IO, S, F, B> Future for Connection<'_, IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Fn(Request<Incoming>) -> F + Unpin,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = self.as_mut().poll_requests(cx);
        for _ in 0..self.accepted.take_refused() {
            (self.refused)(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, b"");
        }
        ended
    }
}

impl<IO, S, F, B> Connection<'_, IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Fn(Request<Incoming>) -> F + Unpin,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Takes requests as they come, and has them answered.
    fn poll_requests(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let this = &mut *self;
        while let Poll::Ready(accepted) = this.inner.poll_accept(cx) {
            let Some(accepted) = accepted else {
                return Poll::Ready(Ok(()));
            };
            let (request, respond) = accepted?;
            this.accepted.add(respond.stream_id().as_u32());
            let (parts, stream) = request.into_parts();
            let is_head = parts.method == Method::HEAD;
            let asks =
                parts.method == Method::CONNECT && parts.extensions.get::<Protocol>().is_some();
            let mut request = Request::from_parts(parts, ());
            let hints = Hints::new(this.tidy);
            request.extensions_mut().insert(hints.on_interim());
            let (content, opening) = match asks {
                true => {
                    let (sender, on_tunnel) = oneshot::channel();
                    request.extensions_mut().insert(OnTunnel::new(on_tunnel));
                    (Content::none(), Some((sender, stream)))
                }
                false => (Content::new(stream, request.headers()), None),
            };
            let answer = (this.service)(request.map(|()| Incoming::Right(content)));
            let exchange = Exchange {
                respond,
                hints,
                is_head,
                opening,
                send_timeout: this.send_timeout,
                ticket: Ticket::new(Arc::clone(&this.share)),
            };
            tokio::spawn(exchange.run(answer));
        }
        this.poll_pings(cx)
            .map(|()| Err("the client does not answer pings".into()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use http_body_util::Empty;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::Limits;

    type Service = fn(Request<Incoming>) -> std::future::Ready<Response<Empty<Bytes>>>;

    const SERVICE: Service = |_| std::future::ready(Response::new(Empty::new()));

    /// A connection whose client is told apart by whether it reads, and so answers.
    async fn serve(answers: bool, time: Duration) -> Option<Result<(), BoxError>> {
        let (server, mut client) = tokio::io::duplex(1 << 20);
        let client = tokio::spawn(async move {
            if answers {
                let (_requests, connection) = h2::client::handshake(client).await.unwrap();
                let _ = connection.await;
            } else {
                let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
                client.write_all(preface).await.unwrap();
                let mut all = Vec::new();
                let _ = client.read_to_end(&mut all).await;
            }
        });
        let terms = Terms {
            limits: Limits::default(),
            budget: Arc::default(),
            refused: &|_, _| (),
            tidy: |_| (),
            stop: CancellationToken::new(),
        };
        let handshake = handshake(server, Arc::default(), SERVICE, &terms);
        let connection = handshake.await.unwrap();
        let ended = timeout(time, connection).await.ok();
        client.abort();
        ended
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_not_there_any_more() {
        let ended = serve(false, 3 * PING).await;
        assert!(matches!(ended, Some(Err(_))), "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_there_and_idle() {
        assert!(serve(true, 20 * PING).await.is_none());
    }
}
