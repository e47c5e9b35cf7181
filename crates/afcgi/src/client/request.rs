//! A request from its head to that of its response: over several attempts, if it must be, and over
//! redirects within the application.

use std::future::Future;
use std::sync::Arc;

use afcgi_proto::pool::Wants;
use afcgi_proto::{ProtocolStatus, Role};
use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE,
};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body;

use super::balance::Balance;
use super::body::ResponseBody;
use super::cgi::params::{self, About};
use super::data::Data;
use super::error::Error;
use super::exchange::{Call, Failure, OnInterim, Outcome};
use super::mapping::MappingError;
use super::pool::Pool;
use super::stderr::OnStderr;
use super::streams::Streams;
use super::trace::Trace;
use super::upload::Upload;
use super::{BoxError, Config};

/// See [`Client::request`](super::Client::request).
///
/// Thousands of these futures wait at a time: they hold the head of the request in one place, and once.
pub(super) fn send<B>(
    balance: &Arc<Balance>,
    request: Request<B>,
) -> impl Future<Output = Result<Response<ResponseBody>, Error>> + Send + use<'_, B>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let parts = Box::new(parts);
    let role = match (
        parts.extensions.get::<Role>(),
        parts.extensions.get::<Data>(),
    ) {
        (Some(role), _) => *role,
        (None, Some(_)) => Role::Filter,
        (None, None) => Role::Responder,
    };
    let has_body = !body.is_end_stream() && role != Role::Authorizer;
    let stated = parts.headers.get(CONTENT_LENGTH).map(|value| {
        let text = value.to_str().ok().filter(|_| has_body);
        text.and_then(|text| text.parse().ok())
    });
    let length = match (has_body, stated, body.size_hint().exact()) {
        (true, Some(Some(stated)), _) => Some(stated),
        (true, None | Some(None), exact) => exact,
        // A body that is none may be announced as such.
        (false, Some(_), _) => Some(0),
        (false, None, _) => None,
    };
    let upload = match has_body {
        true => Upload::new(body, length, balance.config.replay_buffer),
        false => Upload::none(),
    };
    async move {
        balance.counters.requests();
        let sent = follow(balance, parts, role, length, upload).await;
        if sent.is_err() {
            balance.counters.failures();
        }
        sent
    }
}

/// Sends a request, having read its body if that has to be to know its length, and where the
/// application redirects within itself, the one that follows.
async fn follow(
    balance: &Arc<Balance>,
    mut parts: Box<Parts>,
    role: Role,
    mut length: Option<u64>,
    mut upload: Upload,
) -> Result<Response<ResponseBody>, Error> {
    let most = balance.config.collect_body;
    if length.is_none() && most > 0 && !upload.is_empty() {
        length = upload.collect(most).await?;
    }
    let most = balance.config.local_redirects;
    let mut call = make(&balance.config, &parts, role, length, upload)?;
    // That of an authorizer refuses: what it leads to might allow.
    let follows = most > 0 && !call.streams.is_filtered() && role != Role::Authorizer;
    let mut redirects = 0;
    loop {
        match attempts(balance, &mut call, follows).await? {
            Outcome::Response(response) => return Ok(response),
            Outcome::Redirect(_) if redirects == most => return Err(Error::Redirects),
            Outcome::Redirect(uri) => {
                redirects += 1;
                redirect(&mut parts, uri);
                call = make(&balance.config, &parts, role, None, Upload::none())?;
            }
        }
    }
}

/// What a request becomes that is redirected within the application (RFC 3875 section 6.2.2).
fn redirect(parts: &mut Parts, uri: http::Uri) {
    let mut next = std::mem::take(&mut parts.uri).into_parts();
    next.path_and_query = uri.into_parts().path_and_query;
    parts.uri = http::Uri::from_parts(next).unwrap_or_default();
    if parts.method != Method::HEAD {
        parts.method = Method::GET;
    }
    // What tells of a body that there is none of (RFC 9110 section 15.4).
    for name in [
        CONTENT_ENCODING,
        CONTENT_LANGUAGE,
        CONTENT_LENGTH,
        CONTENT_LOCATION,
        CONTENT_TYPE,
    ] {
        parts.headers.remove(name);
    }
    parts.extensions.remove::<super::Script>();
}

fn make(
    config: &Config,
    parts: &Parts,
    role: Role,
    length: Option<u64>,
    upload: Upload,
) -> Result<Call, Error> {
    let data = parts
        .extensions
        .get::<Data>()
        .filter(|_| role == Role::Filter);
    if role == Role::Filter && data.is_none() {
        return Err(Error::Request(MappingError::NoData));
    }
    let about = About {
        mapping: &config.mapping,
        role,
        length,
        body: !upload.is_empty(),
        data: data.map(Data::params),
        most: config.params_bytes,
    };
    let encoded = params::encode(parts, about).map_err(Error::Request)?;
    let data = data.map(Data::open).transpose()?;
    let data = data.map(|file| Upload::data(file, config.replay_buffer));
    Ok(Call {
        method: parts.method.clone(),
        path: parts.uri.path().into(),
        role,
        encoded,
        streams: Streams::new(upload, data),
        on_interim: parts.extensions.get::<OnInterim>().cloned(),
        on_stderr: parts.extensions.get::<OnStderr>().cloned(),
        trace: parts.extensions.get::<Trace>().cloned(),
    })
}

/// Sends a request until there is an answer, or no reason to send it again.
async fn attempts(
    balance: &Arc<Balance>,
    call: &mut Call,
    redirects: bool,
) -> Result<Outcome, Error> {
    let mut pools = balance.pools().await?;
    let wants = Wants {
        body: !call.streams.is_empty(),
        single: false,
    };
    let mut tried: Vec<Arc<Pool>> = Vec::new();
    let mut pool = balance.choose(&pools, &[]).ok_or(Error::Closed)?;
    let mut attempt = 0;
    loop {
        if let Some(trace) = &call.trace {
            trace.goes_to(&pool.name, attempt > 0);
        }
        let failure = match pool.acquire(wants).await {
            Ok(place) => match call.attempt(place, redirects).await {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failure,
            },
            Err(error) => Failure {
                unprocessed: error.is_retryable(),
                stale: false,
                error,
            },
        };
        let again = failure.unprocessed || (failure.stale && is_idempotent(&call.method));
        if !again || attempt == balance.config.retries || !call.streams.rewind() {
            return Err(failure.error);
        }
        attempt += 1;
        // Where a connection was closed another one will do; otherwise another address is asked first.
        if !matches!(failure.error, Error::Lost(_)) {
            tried.push(Arc::clone(&pool));
            pools = balance.known();
            match (balance.choose(&pools, &tried), &failure.error) {
                (Some(other), _) => pool = other,
                (None, Error::Refused(ProtocolStatus::CantMpxConn)) => {}
                (None, Error::Refused(_)) => {
                    tokio::time::sleep(balance.config.retry_pause.saturating_mul(attempt)).await;
                }
                // It was waited for long enough, or fails at once.
                (None, _) => return Err(failure.error),
            }
        }
        balance.counters.retries();
        tracing::debug!(error = %failure.error, attempt, "a request is sent again");
    }
}

/// Whether a request may be sent twice (RFC 9110 section 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// See [`Client::ready`](super::Client::ready).
pub(super) async fn ready(balance: &Arc<Balance>) -> Result<(), Error> {
    let pools = balance.pools().await?;
    let mut failure = Error::Request(MappingError::NoScript);
    let mut tried = Vec::new();
    while let Some(pool) = balance.choose(&pools, &tried) {
        match pool.ready().await {
            Ok(()) => return Ok(()),
            Err(error) => failure = error,
        }
        tried.push(pool);
    }
    Err(failure)
}
