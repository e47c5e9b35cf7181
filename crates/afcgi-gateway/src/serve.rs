//! What becomes of a request: checks, its route, an authorizer before it, and then a file or an application.

use std::net::SocketAddr;
use std::sync::Arc;

use afcgi::RemoteAddr;
use afcgi::client::{ExtraParams, LocalAddr, Script, remove_hop_by_hop};
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::header::{HOST, LOCATION, RETRY_AFTER, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio_util::task::TaskTracker;

use super::access::{self, identify};
use super::ask::{Answer, Refused, application, authorize, refuse};
use super::body::{Body, Incoming, Logged, RequestBody, is_whole, linger, text};
use super::connection::Busy;
use super::files::{self, Found};
use super::filter;
use super::heads::Unclear;
use super::log::{Entry, escape};
use super::metrics::Metrics;
use super::outgoing;
use super::path::CleanPath;
use super::send;
use super::site::{Route, Site};
use super::upgrade::Offer;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) site: ArcSwap<Site>,
    pub(crate) tls: ArcSwapOption<rustls::ServerConfig>,
    pub(crate) metrics: Arc<Metrics>,
    /// Connections and tunnels: what a stop waits for.
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn new(site: Site, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        Self {
            site: ArcSwap::from_pointee(site),
            tls: ArcSwapOption::from(tls),
            metrics: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }
}

/// The two ends of the connection that a request came on: `None` on a unix socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) secure: bool,
}

/// Answers a request.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    ends: Ends,
    busy: Busy,
    request: Request<Incoming>,
) -> Response<Logged> {
    let site = shared.site.load_full();
    let most = site.settings.limits.requests;
    let (active, over) = shared.metrics.begin(most);
    let (parts, body) = request.into_parts();
    let is_old = parts.version <= Version::HTTP_11;
    let is_head = parts.method == Method::HEAD;
    let mut entry = Box::new(Entry::new(
        &parts,
        site.log.clone(),
        Arc::clone(&shared.metrics),
        (active, busy),
    ));
    let answer = if over {
        entry.remote = access::name(ends.peer);
        tracing::warn!(
            requests = most,
            "too many requests at a time: one more is refused"
        );
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE);
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
        response.into()
    } else {
        let (mut body, mut route) = (Some(body), None);
        let answered = Exchange {
            site: &site,
            ends,
            entry: &mut entry,
            route: &mut route,
        }
        .answer(Box::new(parts), &mut body)
        .await;
        if let Some(unread) = body {
            linger(unread);
        }
        let is_refused = answered.is_err();
        let mut answer = answered.unwrap_or_else(|refused| Answer::from(*refused));
        let rules = route.map(|route| &route.rules.response_headers);
        outgoing::finish(answer.response.headers_mut(), rules);
        if is_refused && is_old && is_unclear(answer.response.status()) {
            outgoing::close(answer.response.headers_mut());
        }
        answer
    };
    entry.status = answer.response.status().as_u16();
    entry.is_whole = (is_head || is_whole(answer.response.body())) && answer.tunnel.is_none();
    let entry = match answer.tunnel {
        None => Some(entry),
        Some((offer, tunnel)) => {
            // It is logged when the tunnel is closed.
            shared.tasks.spawn(offer.join(*tunnel, entry));
            None
        }
    };
    answer.response.map(|inner| Logged { inner, entry })
}

struct Exchange<'a, 's> {
    site: &'s Site,
    ends: Ends,
    entry: &'a mut Entry,
    /// Where the request went, once that is known.
    route: &'a mut Option<&'s Route>,
}

/// Whether a request was refused since it is not certain what it is.
fn is_unclear(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED
    )
}

impl Exchange<'_, '_> {
    /// What it does not need of the body it leaves there.
    async fn answer(
        self,
        mut parts: Box<Parts>,
        body: &mut Option<Incoming>,
    ) -> Result<Answer, Refused> {
        let Self {
            site,
            ends,
            entry,
            route: taken,
        } = self;
        let sender = identify(
            &site.settings.trusted,
            ends.peer,
            ends.secure,
            &mut parts.headers,
        );
        entry.remote = access::name(sender.remote);
        if parts.extensions.remove::<Unclear>().is_some() {
            return Err(refuse(StatusCode::BAD_REQUEST));
        }
        check_codings(&parts.headers)?;
        // Once, and before anything is added: a client could name that in Connection.
        remove_hop_by_hop(&mut parts.headers);
        let host = check(&parts)?;
        entry.host = escape(host.as_bytes());
        let path =
            CleanPath::new(parts.uri.path()).ok_or_else(|| refuse(StatusCode::BAD_REQUEST))?;
        let route = site
            .route(&host, &path)
            .ok_or_else(|| refuse(StatusCode::NOT_FOUND))?;
        *taken = Some(route);
        outgoing::interim(&mut parts.extensions, &route.rules.response_headers);
        let most = route.rules.body.unwrap_or(site.settings.limits.body);
        let length = body.as_ref().map_or(0, |body| body.size_hint().lower());
        if length > most {
            return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let has_body = body.as_ref().is_some_and(|body| !body.is_end_stream());
        let offer = Offer::of(&mut parts, has_body).map_err(refuse)?;
        outgoing::apply(&route.rules.request_headers, &mut parts.headers);
        let scheme = if sender.secure {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        parts.extensions.insert(scheme);
        if let Some(local) = ends.local {
            parts.extensions.insert(LocalAddr(local));
        }
        let mut params = route.rules.params.clone();
        if let Some(remote) = sender.remote {
            parts.extensions.insert(RemoteAddr(remote));
        } else if !params.iter().any(|(name, _)| name == "REMOTE_ADDR") {
            params.push(("REMOTE_ADDR".into(), access::UNIX.into()));
        }
        if let Some(files) = &route.files {
            params.push(("DOCUMENT_ROOT".into(), bytes_of(&files.root)));
        }
        if let Some(authorizer) = &route.authorizer {
            Box::pin(authorize(authorizer, &parts, &mut params, entry)).await?;
        }
        let answer = match (find(route, &path).await?, &route.filter) {
            (Found::File(file), Some(upstream)) => {
                Box::pin(filter::put(file, &mut parts, &mut params))
                    .await
                    .map_err(refuse)?;
                parts.extensions.insert(ExtraParams(params));
                if let Some(script) = script_of(route, &path) {
                    parts.extensions.insert(script);
                }
                let body = take(body, site, most)?;
                Box::pin(application(upstream, route, parts, body, offer, entry)).await?
            }
            (Found::File(file), None) => Box::pin(send::file(&file, &parts)).await.into(),
            (Found::Folder, _) => folder(&parts).into(),
            (Found::Status(status), _) => return Err(refuse(status)),
            (found, _) => {
                let upstream = match (&route.upstream, &route.files, &found) {
                    (Some(upstream), _, Found::Script(_)) | (Some(upstream), None, _) => upstream,
                    (Some(upstream), Some(files), _) if files.split_path.is_empty() => upstream,
                    _ => return Err(refuse(StatusCode::NOT_FOUND)),
                };
                let is_script = matches!(found, Found::Script(_));
                if let Found::Script(script) = found {
                    if let Some(files) = route
                        .files
                        .as_ref()
                        .filter(|_| !script.path_info.is_empty())
                    {
                        let translated = [&bytes_of(&files.root)[..], &script.path_info].concat();
                        params.push(("PATH_TRANSLATED".into(), translated.into()));
                    }
                    parts.extensions.insert(script);
                } else if let Some(script) = script_of(route, &path) {
                    parts.extensions.insert(script);
                }
                parts.extensions.insert(ExtraParams(params));
                let announced = body
                    .as_ref()
                    .is_some_and(|body| body.size_hint().exact().is_some());
                let most = match is_script && !announced {
                    // What is not announced a script does not get.
                    true => most.min(upstream.collects()),
                    false => most,
                };
                let body = take(body, site, most)?;
                application(upstream, route, parts, body, offer, entry).await?
            }
        };
        Ok(answer)
    }
}

/// Refuses what no application is to see, and tells the host of the request: in lower case and without its port.
fn check(parts: &Parts) -> Result<String, Refused> {
    let bad = || refuse(StatusCode::BAD_REQUEST);
    let mut fields = parts.headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() || (field.is_none() && parts.version == Version::HTTP_11) {
        return Err(bad());
    }
    let field = match field.map(HeaderValue::as_bytes) {
        None | Some(b"") => None,
        Some(field) => Some(Authority::try_from(field).map_err(|_| bad())?),
    };
    // RFC 9112 section 3.2.2: the authority goes before the field.
    let Some(authority) = parts.uri.authority().or(field.as_ref()) else {
        return Ok(String::new());
    };
    if authority.as_str().contains('@') {
        return Err(bad());
    }
    Ok(authority.host().trim_end_matches('.').to_ascii_lowercase())
}

/// Refuses a body in a transfer coding that nobody here takes off: all but `chunked`, once (RFC 9112 section 6.1).
fn check_codings(headers: &HeaderMap) -> Result<(), Refused> {
    let values = headers.get_all(TRANSFER_ENCODING).into_iter();
    let mut codings = values
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty());
    let is_known = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if is_known(coding) => Ok(()),
        _ => Err(refuse(StatusCode::NOT_IMPLEMENTED)),
    }
}

/// What is the application's name in a path, where that says so.
fn script_of(route: &Route, path: &CleanPath) -> Option<Script> {
    let name = &route.rules.script_name;
    if name.is_empty() {
        return None;
    }
    let (name, info) = path
        .as_bytes()
        .split_at_checked(name.len())
        .unwrap_or_default();
    Some(Script {
        script_name: name.to_vec(),
        path_info: info.to_vec(),
        script_filename: None,
    })
}

fn take(body: &mut Option<Incoming>, site: &Site, most: u64) -> Result<RequestBody, Refused> {
    let body = body
        .take()
        .ok_or_else(|| refuse(StatusCode::INTERNAL_SERVER_ERROR))?;
    let pause = site.settings.limits.body_timeout;
    Ok(RequestBody::new(body, most, pause))
}

fn bytes_of(path: &std::path::Path) -> Bytes {
    Bytes::copy_from_slice(path.as_os_str().as_encoded_bytes())
}

async fn find(route: &Route, path: &CleanPath) -> Result<Found, Refused> {
    let Some(files) = &route.files else {
        return Ok(Found::Nothing);
    };
    let (files, path) = (Arc::clone(files), path.clone());
    let found = tokio::task::spawn_blocking(move || files::find(&files, &path)).await;
    found.map_err(|_| refuse(StatusCode::INTERNAL_SERVER_ERROR))
}

/// To the same path with a `/` at its end.
fn folder(parts: &Parts) -> Response<Body> {
    // `//host` would be another host.
    let mut to = format!("/{}/", parts.uri.path().trim_start_matches('/'));
    if let Some(query) = parts.uri.query() {
        to.push('?');
        to.push_str(query);
    }
    let status = match parts.method == Method::GET || parts.method == Method::HEAD {
        true => StatusCode::MOVED_PERMANENTLY,
        false => StatusCode::PERMANENT_REDIRECT,
    };
    let mut response = text(status);
    if let Ok(to) = HeaderValue::try_from(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}
