//! A request by HTTP/2 and what goes back: interim responses, the response, and its body as the client reads it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Body;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::tunnel::Tunnel;
use crate::front::budget::{Piece, Ticket};
use crate::front::incoming::BoxError;
use crate::front::io::Hints;

/// A request that is being answered.
pub(super) struct Exchange {
    pub(super) respond: SendResponse<Piece>,
    pub(super) hints: Arc<Hints>,
    pub(super) is_head: bool,
    /// What becomes a tunnel if the answer is a success.
    pub(super) opening: Option<(oneshot::Sender<Tunnel>, h2::RecvStream)>,
    pub(super) send_timeout: Duration,
    pub(super) ticket: Ticket,
}

impl Exchange {
    /// Waits for the response, and sends it as the client reads it.
    pub(super) async fn run<F, B>(mut self, answer: F)
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
