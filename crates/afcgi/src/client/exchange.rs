//! One attempt at a request: parameters and body go out, until the head of the response has come.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use afcgi_proto::cgi::{Head, HeadLimits};
use afcgi_proto::inbox::Read;
use afcgi_proto::pool::Why;
use afcgi_proto::web::{Input, Output};
use afcgi_proto::{Gone, ProtocolStatus, Role};
use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Response, StatusCode};
use tokio::time::Sleep;

use super::body::ResponseBody;
use super::cgi::answer::{self, Answer};
use super::cgi::params::Encoded;
use super::error::{Awaited, Error};
use super::linger::linger;
use super::place::Place;
use super::shared::Begin;
use super::stderr::{OnStderr, Stderr};
use super::streams::Streams;
use super::trace::Trace;
use super::upgrade::Upgraded;

/// Most bytes that are read at a time until the head is complete. What comes behind it is held by whoever has the response, and
/// may not be read for long: of most responses it is all.
const PIECE: usize = 16 << 10;

/// A request, as it is sent and perhaps sent again.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: Box<str>,
    pub(super) role: Role,
    pub(super) encoded: Encoded,
    pub(super) streams: Streams,
    pub(super) on_interim: Option<OnInterim>,
    pub(super) on_stderr: Option<OnStderr>,
    pub(super) trace: Option<Trace>,
}

/// Is given interim responses (status 1xx, such as 103 Early Hints) before the response itself.
/// Among the extensions of a request; without it they are dropped.
#[derive(Clone)]
pub struct OnInterim(pub Arc<dyn Fn(Response<()>) + Send + Sync>);

impl std::fmt::Debug for OnInterim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OnInterim").finish_non_exhaustive()
    }
}

/// What came of an attempt.
pub(super) enum Outcome {
    Response(Response<ResponseBody>),
    /// The request is to go to another path of the application (RFC 3875 section 6.2.2).
    Redirect(http::Uri),
}

/// Why an attempt failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether the application is sure not to have worked on the request.
    pub(super) unprocessed: bool,
    /// Whether a shared connection turned out closed, which others had used before, and nothing came.
    pub(super) stale: bool,
}

impl Call {
    /// Sends the request at a place, and returns when its response has a head.
    pub(super) async fn attempt(
        &mut self,
        place: Place,
        redirects: bool,
    ) -> Result<Outcome, Failure> {
        let config = Arc::clone(&place.pool.config);
        let begin = Begin {
            role: self.role,
            params: self.encoded.plain(),
            with_upgrade: self.encoded.with_upgrade().filter(|_| config.upgrades),
            bodiless: self.streams.stdin.is_empty(),
        };
        let begun = place.shared.begin(place.handle, &begin);
        let Ok(begun) = begun else {
            return Err(failure(&place, gone(&place), false));
        };
        let mut exchange = Exchange {
            stderr: Stderr::new(&self.path, self.on_stderr.clone(), config.stderr_bytes),
            params: begun.params,
            bodiless: begin.bodiless,
            tunnel: begun.offered,
            uploaded: self.streams.is_empty(),
            streams: &mut self.streams,
            on_interim: self.on_interim.as_ref(),
            limits: config.head,
            head: BytesMut::new(),
            follows: redirects,
            redirect: None,
            answered: false,
            timer: None,
            awaited: None,
            place,
        };
        let answer = match poll_fn(|cx| exchange.poll(cx)).await {
            Ok(answer) => answer,
            Err(error) => {
                let answered = exchange.answered;
                if let Error::Timeout(_) = error {
                    let place = &exchange.place;
                    place.pool.counters.timeouts();
                    place.shared.doubt(place.began, config.patience.shared);
                }
                return Err(failure(&exchange.place, error, answered));
            }
        };
        exchange.finish(answer, &self.method)
    }
}

fn gone(place: &Place) -> Error {
    match place.shared.ended(place.handle) {
        Err(error) => error,
        Ok(_) => Error::Closed,
    }
}

fn failure(place: &Place, error: Error, answered: bool) -> Failure {
    let lost = matches!(error, Error::Lost(_));
    let written = place.shared.was_written(place.handle);
    if let Error::Refused(status) = error {
        place.pool.counters.refusals();
        if status == ProtocolStatus::CantMpxConn && place.shared.is_multiplexed() {
            place.pool.silent(&place.shared, Why::Refused);
        }
    }
    Failure {
        unprocessed: !answered && (error.is_retryable() || (lost && !written)),
        // Where one request follows another on a connection, the application may have worked on it.
        stale: !answered && lost && place.kept && place.shared.is_multiplexed(),
        error,
    }
}

/// A request between its beginning and the head of its response.
struct Exchange<'a> {
    place: Place,
    stderr: Stderr,
    /// What is left of the parameters.
    params: &'a [u8],
    bodiless: bool,
    /// Whether the application was offered an upgrade: STDIN stays open.
    tunnel: bool,
    /// STDIN and DATA.
    streams: &'a mut Streams,
    on_interim: Option<&'a OnInterim>,
    /// How much there may still be of the head.
    limits: HeadLimits,
    head: BytesMut,
    /// Whether redirects within the application are followed.
    follows: bool,
    /// The head of what is one, if no body follows.
    redirect: Option<Box<Answer>>,
    /// Whether anything has come on STDOUT.
    answered: bool,
    uploaded: bool,
    timer: Option<Pin<Box<Sleep>>>,
    /// What the timer is for.
    awaited: Option<Awaited>,
}

impl Exchange<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Error>> {
        loop {
            if let Poll::Ready(result) = self.poll_send(cx) {
                result?;
            }
            // The driver may be at work on another thread: what came before the end is there to be read once the end was seen.
            let ended = self.place.shared.ended(self.place.handle);
            self.stderr.read(&self.place);
            while let Read::Content(content) = self.read() {
                self.answered = true;
                self.restart();
                if let Some(answer) = self.receive(content)? {
                    return Poll::Ready(Ok(answer));
                }
            }
            if let Some(end) = ended? {
                return Poll::Ready(if end.protocol_status != ProtocolStatus::RequestComplete {
                    Err(Error::Refused(end.protocol_status))
                } else if let Some(answer) = self.redirect.take() {
                    match end.app_status {
                        0 => Ok(*answer),
                        status => Err(Error::AppStatus(status)),
                    }
                } else {
                    Err(Error::NoHead)
                });
            }
            if self.place.shared.wait_to_read(cx, self.place.handle) {
                return self.poll_timer(cx).map(Err);
            }
        }
    }

    fn read(&self) -> Read {
        let Place { shared, handle, .. } = &self.place;
        shared.read(*handle, Input::Stdout, PIECE)
    }

    /// Sends parameters, then the body, then the file of a filter.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Place { shared, handle, .. } = &self.place;
        while !self.params.is_empty() {
            match shared.poll_write(cx, *handle, Output::Params, self.params) {
                Poll::Ready(Ok(count)) => {
                    self.params = self.params.get(count..).unwrap_or_default()
                }
                Poll::Ready(Err(Gone)) => return Poll::Ready(Err(gone(&self.place))),
                Poll::Pending => return Poll::Pending,
            }
            if self.params.is_empty() {
                shared.end(*handle, Output::Params);
                if self.bodiless && !self.tunnel {
                    shared.end(*handle, Output::Stdin);
                }
            }
        }
        if self.uploaded {
            return Poll::Ready(Ok(()));
        }
        let sent = self.streams.poll(cx, shared, *handle);
        if let Poll::Ready(Ok(())) = sent {
            self.uploaded = true;
        }
        sent
    }

    /// Takes content of STDOUT, up to the end of the head; where that may be a redirect within the application, up to what
    /// tells whether it is.
    fn receive(&mut self, content: Bytes) -> Result<Option<Answer>, Error> {
        if let Some(mut answer) = self.redirect.take() {
            // With a body it is a response like any other.
            self.head.extend_from_slice(&content);
            answer.redirect = None;
            return Ok(Some(*answer));
        }
        // A head ends with a line: what holds no line end does not complete it.
        let look = content.contains(&b'\n') || content.len() >= self.limits.bytes;
        self.head.extend_from_slice(&content);
        if !look && self.head.len() < self.limits.bytes {
            return Ok(None);
        }
        loop {
            let parsed = Head::parse(&self.head, self.limits).map_err(Error::Head)?;
            let Some(head) = parsed else {
                return Ok(None);
            };
            let length = head.length;
            let fields = head.fields.len();
            let mut answer = answer::from_head(&head, &self.head).map_err(Error::Head)?;
            self.head.advance(length);
            let interim = answer.status.is_informational()
                && answer.status != StatusCode::SWITCHING_PROTOCOLS;
            if !interim {
                if !self.follows || !self.head.is_empty() {
                    answer.redirect = None;
                }
                if answer.redirect.is_some() {
                    if self.tunnel {
                        // Declined: the application may wait for the end of STDIN before it ends itself.
                        self.place.shared.end(self.place.handle, Output::Stdin);
                    }
                    self.redirect = Some(Box::new(answer));
                    return Ok(None);
                }
                return Ok(Some(answer));
            }
            self.limits.bytes = self.limits.bytes.saturating_sub(length);
            self.limits.fields = self.limits.fields.saturating_sub(fields);
            if let Some(told) = self.on_interim {
                let mut interim = Response::new(());
                *interim.status_mut() = answer.status;
                *interim.headers_mut() = answer.headers;
                (told.0)(interim);
            }
        }
    }

    /// Something has happened: what is waited for next has its own time.
    fn restart(&mut self) {
        self.awaited = None;
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let config = &self.place.pool.config;
        let sending = !self.uploaded || !self.params.is_empty();
        let held = sending && (self.streams.is_held() || !self.params.is_empty());
        let wait: Option<(Awaited, Duration)> = if held {
            Some((Awaited::Send, config.send_timeout))
        } else if sending {
            // It is whoever gives the body that is waited for.
            None
        } else if self.answered {
            config.read_timeout.map(|wait| (Awaited::Read, wait))
        } else {
            config
                .first_byte_timeout
                .map(|wait| (Awaited::FirstByte, wait))
        };
        let Some((awaited, wait)) = wait else {
            self.awaited = None;
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        let taken = self.streams.has_moved();
        if self.awaited != Some(awaited) || taken {
            self.awaited = Some(awaited);
            let now = tokio::time::Instant::now();
            // What cannot be added is never.
            let far = now + Duration::from_secs(86_400 * 365);
            timer.as_mut().reset(now.checked_add(wait).unwrap_or(far));
        }
        timer.as_mut().poll(cx).map(|()| Error::Timeout(awaited))
    }

    /// Makes the response of what the head says.
    fn finish(self, answer: Answer, method: &Method) -> Result<Outcome, Failure> {
        let Self {
            mut place,
            streams,
            head,
            stderr,
            uploaded,
            tunnel,
            ..
        } = self;
        if let Some(uri) = answer.redirect {
            place.gently = true;
            return Ok(Outcome::Redirect(uri));
        }
        let first = head.freeze();
        let mut response = Response::new(ResponseBody::default());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        if let Some(reason) = answer.reason {
            response.extensions_mut().insert(reason);
        }
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            if !tunnel {
                return Err(failure(&place, Error::Unasked101, true));
            }
            place.pool.counters.upgrades();
            let upgraded = Upgraded::new(place, first, stderr);
            upgraded.put(response.extensions_mut());
            return Ok(Outcome::Response(response));
        }
        if tunnel {
            // Declined.
            place.shared.end(place.handle, Output::Stdin);
        }
        streams.forget();
        if answer::is_bodiless(method, answer.status) {
            // What the application has to add is nothing to anybody, but for the log. One that reads on to
            // know what the body would be waits for a file that is not sent.
            place.gently = uploaded || !streams.is_filtered() || *method != Method::HEAD;
            if uploaded {
                linger(place, stderr);
            }
            return Ok(Outcome::Response(response));
        }
        let rest = (!uploaded).then(|| streams.take());
        let body = ResponseBody::new(place, first, answer.length, rest, stderr);
        *response.body_mut() = body.map_err(|(place, error)| failure(&place, error, true))?;
        Ok(Outcome::Response(response))
    }
}
