//! One request on a connection, from BEGIN_REQUEST to END_REQUEST.

use std::time::{Duration, Instant};

use afcgi::Address;
use afcgi_proto::inbox::Read;
use afcgi_proto::web::{Input, Output};
use afcgi_proto::{EndRequest, Handle, ProtocolStatus, Role};

use super::body::{Body, Source};
use super::failure::Failure;
use super::link::{Clock, Link, Turn};
use super::observer::Observer;
use super::params::Params;
use super::response::Response;

/// Bytes that are taken of a stream at a time.
const PIECE: usize = 64 * 1024;

/// What to send, and how long to wait.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) address: Address,
    pub(super) role: Role,
    pub(super) params: Params,
    /// The same, as they are sent.
    pub(super) encoded: Vec<u8>,
    pub(super) body: Option<Body>,
    pub(super) data: Option<Body>,
    pub(super) keep_conn: bool,
    pub(super) timeout: Duration,
    pub(super) max_time: Option<Duration>,
    pub(super) abort_after: Option<Duration>,
}

/// When things happened, since the request began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timings {
    pub(super) connected: Option<Duration>,
    /// All of the request was sent.
    pub(super) sent: Option<Duration>,
    /// The first byte came.
    pub(super) first_byte: Option<Duration>,
    /// ABORT_REQUEST was sent.
    pub(super) aborted: Option<Duration>,
    pub(super) total: Duration,
}

/// A request that is going on.
struct Exchange<'a> {
    link: &'a mut Link,
    handle: Handle,
    stage: Stage<'a>,
    plan: &'a Plan,
}

/// What is being sent.
enum Stage<'a> {
    /// The parameters, from this byte on.
    Params(usize),
    Stdin(Option<Source<'a>>),
    Data(Option<Source<'a>>),
    Done,
}

/// Sends a request, and takes its response. What became of it until it failed is in `timings` and `response`.
pub(super) async fn exchange(
    link: &mut Link,
    plan: &Plan,
    clock: &Clock,
    observer: &mut Observer,
    response: &mut Response,
    timings: &mut Timings,
) -> Result<EndRequest, Failure> {
    link.last_end = None;
    let came_before = link.came;
    // Only a connection that is not to be used again has no room.
    let handle = link.connection.open().map_err(|_| Failure::Empty)?;
    _ = link.connection.begin(handle, plan.role);
    let mut exchange = Exchange {
        link,
        handle,
        stage: Stage::Params(0),
        plan,
    };
    let mut active = Instant::now();
    loop {
        if timings.first_byte.is_none() && exchange.link.came > came_before {
            timings.first_byte = Some(clock.at());
        }
        if timings.aborted.is_none() {
            exchange.feed()?;
            exchange.take(clock, observer, response).await?;
        }
        let link = &mut *exchange.link;
        while link.connection.poll_event().is_some() {}
        let now = Instant::now();
        if timings.sent.is_none()
            && matches!(exchange.stage, Stage::Done)
            && link.connection.transmit().is_empty()
        {
            timings.sent = Some(clock.at());
        }
        if timings.aborted.is_some() {
            if let Some(end) = link.last_end {
                return Ok(end);
            }
            if link.at_end {
                return Err(Failure::Truncated);
            }
        } else {
            match link.connection.ended(handle) {
                Ok(Some(end)) => {
                    link.connection.close(handle, now);
                    response_end(end, clock, response).await?;
                    return Ok(end);
                }
                Ok(None) => {}
                Err(_) if link.came == came_before => return Err(Failure::Empty),
                Err(_) => return Err(Failure::Truncated),
            }
        }
        let idle = active + plan.timeout;
        let abort = plan.abort_after.filter(|_| timings.aborted.is_none());
        let abort = abort.map(|after| now + after.saturating_sub(clock.at()));
        let until = [Some(idle), abort, clock.end()].into_iter().flatten().min();
        match link.turn(until.unwrap_or(idle), clock, observer).await? {
            // What comes of a request that was aborted does not count: it could come for ever.
            Turn::Moved if timings.aborted.is_some() => {}
            Turn::Moved => active = Instant::now(),
            Turn::Due if clock.end().is_some_and(|end| end <= Instant::now()) => {
                return Err(clock.over());
            }
            Turn::Due if idle <= Instant::now() => {
                let what = match link.is_sending() {
                    true => "gave up waiting for the application to read the request",
                    false => "gave up waiting for the application",
                };
                return Err(Failure::Timeout(what, plan.timeout));
            }
            Turn::Due => {
                timings.aborted = Some(clock.at());
                exchange.stage = Stage::Done;
                link.connection.close(handle, Instant::now());
                active = Instant::now();
            }
        }
    }
}

/// The request was ended: whether the response is a whole one.
async fn response_end(
    end: EndRequest,
    clock: &Clock,
    response: &mut Response,
) -> Result<(), Failure> {
    if end.protocol_status != ProtocolStatus::RequestComplete {
        return Err(Failure::Refused(end.protocol_status));
    }
    match response.finish(clock).await {
        // One that failed and says so need not answer as well.
        Err(Failure::NoHead) if end.app_status != 0 => Ok(()),
        result => result,
    }
}

impl<'a> Exchange<'a> {
    /// Sends what there is room for.
    fn feed(&mut self) -> Result<(), Failure> {
        let connection = &mut self.link.connection;
        let handle = self.handle;
        loop {
            // A request that has ended takes everything, and a body may be long.
            if !matches!(connection.ended(handle), Ok(None)) {
                self.stage = Stage::Done;
            }
            match &mut self.stage {
                Stage::Params(from) => {
                    let rest = &self.plan.encoded[*from..];
                    let Ok(count) = connection.write(handle, Output::Params, rest) else {
                        return Ok(());
                    };
                    *from += count;
                    if count < rest.len() {
                        return Ok(());
                    }
                    _ = connection.end(handle, Output::Params);
                    self.stage = Stage::Stdin(self.plan.body.as_ref().map(Body::open));
                }
                Stage::Stdin(source) => {
                    let Some(()) = pour(source, |piece| {
                        connection.write(handle, Output::Stdin, piece).unwrap_or(0)
                    })?
                    else {
                        return Ok(());
                    };
                    _ = connection.end(handle, Output::Stdin);
                    self.stage = match self.plan.role {
                        Role::Filter => Stage::Data(self.plan.data.as_ref().map(Body::open)),
                        _ => Stage::Done,
                    };
                }
                Stage::Data(source) => {
                    let Some(()) = pour(source, |piece| {
                        connection.write(handle, Output::Data, piece).unwrap_or(0)
                    })?
                    else {
                        return Ok(());
                    };
                    _ = connection.end(handle, Output::Data);
                    self.stage = Stage::Done;
                }
                Stage::Done => return Ok(()),
            }
        }
    }

    /// Takes what came.
    async fn take(
        &mut self,
        clock: &Clock,
        observer: &mut Observer,
        response: &mut Response,
    ) -> Result<(), Failure> {
        let connection = &mut self.link.connection;
        while let Ok(Read::Content(bytes)) = connection.read(self.handle, Input::Stderr, PIECE) {
            observer.stderr(&bytes);
        }
        while let Ok(Read::Content(bytes)) = connection.read(self.handle, Input::Stdout, PIECE) {
            observer.make_way();
            response.push(&bytes, clock).await?;
        }
        Ok(())
    }
}

/// Pours a body out, as long as that is taken; `Some` at its end.
fn pour(
    source: &mut Option<Source<'_>>,
    mut write: impl FnMut(&[u8]) -> usize,
) -> Result<Option<()>, Failure> {
    let Some(source) = source else {
        return Ok(Some(()));
    };
    loop {
        let piece = source.next()?;
        let length = piece.len();
        if length == 0 {
            return Ok(Some(()));
        }
        let count = write(piece);
        source.sent(count);
        if count < length {
            return Ok(None);
        }
    }
}
