//! HTTP/2 (RFC 9113) by the h2 crate itself: hyper's server, which is built on it, sends no interim responses, and browsers heed 103 Early
//! Hints by HTTP/2 alone.

mod budget;
mod content;
mod refusals;
mod tunnel;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::{Builder, SendResponse};
use h2::{Ping, PingPong, Reason, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, timeout};

pub(crate) use budget::Budget;
pub(crate) use content::Content;
pub(crate) use tunnel::{OnTunnel, Tunnel};

use super::body::{BoxError, Incoming};
use super::config::Limits;
use super::interim::Hints;
use budget::{Piece, Share, Ticket};
use refusals::{Accepted, Watched};

/// Requests at a time on a connection.
const STREAMS: u32 = 200;
/// Bytes of bodies that a client may send ahead: of one request, and of all together.
const WINDOW: u32 = 1 << 20;
/// Bytes of a response that wait for a client to read, where all that wait are fewer than may be.
const SEND_BUFFER: usize = 256 << 10;
/// How often a client is asked whether it is still there, and for how long its answer is waited for.
const PING: Duration = Duration::from_secs(30);

/// Is told what was answered to no request: with which status, and as much as there is of its first line.
pub(crate) type Refused<'a> = &'a (dyn Fn(StatusCode, &[u8]) + Sync);

type Io<S> = h2::server::Connection<Watched<S>, Piece>;

/// A connection whose requests a service answers, each in a task of its own.
pub(crate) struct Connection<'a, IO, S> {
    inner: Io<IO>,
    accepted: Arc<Accepted>,
    refused: Refused<'a>,
    service: S,
    pings: Option<PingPong>,
    timer: Pin<Box<Sleep>>,
    /// Whether the answer to a ping is waited for.
    asked: bool,
    send_timeout: Duration,
    share: Arc<Share>,
}

/// Makes the acquaintance of a client. The future takes as long as the client likes.
pub(crate) async fn handshake<'a, IO, S>(
    stream: IO,
    service: S,
    limits: Limits,
    budget: Arc<Budget>,
    refused: Refused<'a>,
) -> Result<Connection<'a, IO, S>, h2::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(limits.header).unwrap_or(u32::MAX));
    let accepted = Arc::new(Accepted::default());
    let stream = Watched::new(stream, Arc::clone(&accepted));
    let mut inner: Io<IO> = builder.handshake(stream).await?;
    let share = Share::new(budget, limits.responses);
    Ok(Connection {
        pings: inner.ping_pong(),
        inner,
        accepted,
        refused,
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
    pub(crate) fn graceful_shutdown(mut self: Pin<&mut Self>)
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
            let hints = Hints::new();
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

/// A request that is being answered.
struct Exchange {
    respond: SendResponse<Piece>,
    hints: Arc<Hints>,
    is_head: bool,
    /// What becomes a tunnel if the answer is a success.
    opening: Option<(oneshot::Sender<Tunnel>, h2::RecvStream)>,
    send_timeout: Duration,
    ticket: Ticket,
}

impl Exchange {
    async fn run<F, B>(mut self, answer: F)
    where
        F: Future<Output = Response<B>>,
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let Some(response) = self.wait(answer).await else {
            return;
        };
        if let Err(error) = self.send(response).await {
            tracing::debug!(%error, "a response by HTTP/2 broke off");
        }
    }

    /// The answer, and before it what hints there are. `None`: the client wants it no more.
    async fn wait<F: Future>(&mut self, answer: F) -> Option<F::Output> {
        let mut answer = std::pin::pin!(answer);
        poll_fn(|cx| {
            if self.respond.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            let polled = answer.as_mut().poll(cx);
            // They come while the answer is polled, and at no other time.
            for hint in self.hints.take() {
                if let Err(error) = self.respond.send_informational(hint) {
                    tracing::debug!(%error, "an interim response cannot be sent");
                }
            }
            polled.map(Some)
        })
        .await
    }

    async fn send<B>(mut self, response: Response<B>) -> Result<(), BoxError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (mut parts, body) = response.into_parts();
        tidy(&mut parts.headers);
        let body = std::pin::pin!(body);
        if let Some((sender, receive)) = self.opening.take()
            && parts.status.is_success()
        {
            let send = self
                .respond
                .send_response(Response::from_parts(parts, ()), false)?;
            // Whoever was to have it may be gone: then it is reset.
            let _ = sender.send(Tunnel::new(send, receive, self.ticket));
            return Ok(());
        }
        let ends = self.is_head || body.is_end_stream();
        if !ends
            && let Some(length) = body.size_hint().exact()
            && !parts.headers.contains_key(CONTENT_LENGTH)
        {
            parts.headers.insert(CONTENT_LENGTH, length.into());
        }
        let stream = self
            .respond
            .send_response(Response::from_parts(parts, ()), ends)?;
        match ends {
            true => Ok(()),
            false => pipe(body, stream, self.send_timeout, self.ticket).await,
        }
    }
}

/// Makes a head one of HTTP/2 (RFC 9113 section 8.2.2).
fn tidy(headers: &mut HeaderMap) {
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    if !headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        headers.insert(DATE, date);
    }
}

/// Sends a body as the client reads it: a piece is taken of it when there is room for some.
async fn pipe<B>(
    mut body: Pin<&mut B>,
    mut stream: SendStream<Piece>,
    send_timeout: Duration,
    mut ticket: Ticket,
) -> Result<(), BoxError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let share = Arc::clone(ticket.share());
    loop {
        let there_is = match timeout(send_timeout, room(&mut stream)).await {
            Ok(there_is) => there_is,
            Err(_) => Err("the client does not read".into()),
        };
        let there_is = match there_is {
            Ok(()) => turn(&mut stream, &mut ticket, send_timeout).await,
            Err(error) => Err(error),
        };
        if let Err(error) = there_is {
            stream.send_reset(Reason::CANCEL);
            return Err(error);
        }
        let piece = poll_fn(|cx| {
            if let Poll::Ready(reset) = stream.poll_reset(cx) {
                return Poll::Ready(Err(reset.map_or_else(|error| error, h2::Error::from)));
            }
            // Others may have taken it while the application was silent.
            if !share.has_room() {
                return Poll::Ready(Ok(Taken::Nothing));
            }
            let polled = body.as_mut().poll_frame(cx);
            let taken = polled.map(|frame| match frame {
                None => Taken::End,
                Some(Err(error)) => Taken::Error(error.into()),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Taken::Piece(share.hold(&data)),
                    // There are no trailers.
                    Err(_) => Taken::Nothing,
                },
            });
            share.pass_on();
            taken.map(Ok)
        });
        match piece.await? {
            Taken::Nothing => {}
            Taken::End => {
                stream.send_data(Piece::default(), true)?;
                return Ok(());
            }
            Taken::Piece(piece) => {
                let ends = body.is_end_stream();
                stream.send_data(piece, ends)?;
                if ends {
                    return Ok(());
                }
            }
            Taken::Error(error) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Err(error);
            }
        }
    }
}

/// What was taken of a body.
enum Taken {
    Piece(Piece),
    End,
    Nothing,
    Error(BoxError),
}

/// Waits until the connection may hold a piece more. As long as its client takes something that may last.
async fn turn(
    stream: &mut SendStream<Piece>,
    ticket: &mut Ticket,
    send_timeout: Duration,
) -> Result<(), BoxError> {
    loop {
        let before = ticket.share().released();
        let turn = poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(reset) => {
                Poll::Ready(Err(reset.map_or_else(|error| error, h2::Error::from)))
            }
            Poll::Pending => ticket.poll_room(cx).map(Ok),
        });
        match timeout(send_timeout, turn).await {
            Ok(turn) => return Ok(turn?),
            Err(_) if ticket.share().released() != before => {}
            Err(_) => return Err("the client does not read any response".into()),
        }
    }
}

/// Waits until the client lets a byte be sent.
async fn room(stream: &mut SendStream<Piece>) -> Result<(), BoxError> {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(grown) => grown?,
            None => return Err("the client wants no more of it".into()),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::body::text;

    type Service = fn(Request<Incoming>) -> std::future::Ready<Response<crate::body::Body>>;

    const SERVICE: Service = |_| std::future::ready(text(http::StatusCode::OK));

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
        let handshake = handshake(
            server,
            SERVICE,
            Limits::default(),
            Arc::default(),
            &|_, _| (),
        );
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
