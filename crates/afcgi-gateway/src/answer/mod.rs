//! What becomes of a request: stages in order, each of which may refuse it.
//!
//! ```text
//!  identify ──> route ──> authorize ──> find ──> ask ──> finish
//!     │           │           │          │        │         ^
//!     └───────────┴───────────┴──────────┴────────┴─────────┘ refused
//! ```

mod finish;

use std::path::Path;
use std::sync::Arc;

use afcgi::RemoteAddr;
use afcgi::client::{ExtraParams, LocalAddr, remove_hop_by_hop};
use bytes::Bytes;
use http::header::{LOCATION, RETRY_AFTER};
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, Response, StatusCode};

use crate::ask::{Answer, Offer, RequestBody, application, authorizer, filter};
use crate::front::{Busy, Ends, Incoming, Unclear, Unread};
use crate::respond::{Body, Refused, fields, file, refuse, text};
use crate::route::access::{self, Sender};
use crate::route::files::{self, Found};
use crate::route::{CleanPath, Route, Site, check};
use crate::say::{Entry, escape};
use crate::shared::Shared;
use finish::{Logged, Ongoing, finish};

/// Answers a request.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    ends: Ends,
    busy: Busy,
    request: Request<Incoming>,
) -> Response<Logged> {
    let site = shared.site.load_full();
    let most = site.settings.limits.requests;
    let (active, over) = shared.metrics.begin(most);
    let (parts, body) = request.into_parts();
    let metrics = Arc::clone(&shared.metrics);
    let entry = Entry::new(&parts, site.log.clone(), metrics, active);
    let mut ongoing = Box::new(Ongoing::new(&parts, entry, busy));
    if over {
        ongoing.entry.remote = access::name(ends.peer);
        tracing::warn!(requests = most, "too many requests at a time: refused one");
        return finish(Err(too_many()), None, ongoing, &shared.tasks);
    }
    let mut exchange = Exchange {
        site: &site,
        ends,
        entry: &mut ongoing.entry,
        body: Unread::new(body),
        route: None,
    };
    let answered = exchange.stages(Box::new(parts)).await;
    let route = exchange.route;
    drop(exchange);
    let rules = route.map(|route| &route.rules.response_headers);
    finish(answered, rules, ongoing, &shared.tasks)
}

/// A request on its way through the stages.
struct Exchange<'a, 's> {
    site: &'s Site,
    ends: Ends,
    entry: &'a mut Entry,
    /// What no stage takes of it is read for a while, and dropped.
    body: Unread,
    /// Where the request went, once that is known.
    route: Option<&'s Route>,
}

/// What it is certain that a client wants.
struct Identified {
    sender: Sender,
    host: String,
    path: CleanPath,
}

/// A request that a route is for.
struct Routed<'s> {
    route: &'s Route,
    /// The client's end of a tunnel, if it asks for one.
    offer: Option<Offer>,
    /// Parameters beside those of the request.
    params: Vec<(Bytes, Bytes)>,
    /// Bytes that the body may have.
    most: u64,
}

impl<'s> Exchange<'_, 's> {
    /// All stages but the last.
    async fn stages(&mut self, mut parts: Box<Parts>) -> Result<Answer, Refused> {
        let identified = self.identify(&mut parts)?;
        let mut routed = self.route(&identified, &mut parts)?;
        self.authorize(&mut routed, &parts).await?;
        let path = identified.path;
        let found = find(routed.route, &path).await?;
        self.ask(found, &path, routed, parts).await
    }

    /// Tells who sent a request, for which host and path; refuses one that somebody else might understand in another way.
    fn identify(&mut self, parts: &mut Parts) -> Result<Identified, Refused> {
        let Ends { peer, secure, .. } = self.ends;
        let trusted = &self.site.settings.trusted;
        let sender = access::identify(trusted, peer, secure, &mut parts.headers);
        self.entry.remote = access::name(sender.remote);
        if parts.extensions.remove::<Unclear>().is_some() {
            return Err(refuse(StatusCode::BAD_REQUEST));
        }
        check::codings(&parts.headers).map_err(refuse)?;
        // Once, and before anything is added: a client could name that in Connection.
        remove_hop_by_hop(&mut parts.headers);
        let host = check::host(parts).map_err(refuse)?;
        self.entry.host = escape(host.as_bytes());
        let path =
            CleanPath::new(parts.uri.path()).ok_or_else(|| refuse(StatusCode::BAD_REQUEST))?;
        Ok(Identified { sender, host, path })
    }

    /// Finds the route of a request, and makes of that what the route's files and applications get.
    fn route(&mut self, identified: &Identified, parts: &mut Parts) -> Result<Routed<'s>, Refused> {
        let Identified { sender, host, path } = identified;
        let route = (self.site.route(host, path)).ok_or_else(|| refuse(StatusCode::NOT_FOUND))?;
        self.route = Some(route);
        fields::interim(&mut parts.extensions, &route.rules.response_headers);
        let most = route.rules.body.unwrap_or(self.site.settings.limits.body);
        if self.body.size_hint().lower() > most {
            return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let offer = Offer::of(parts, !self.body.is_end_stream()).map_err(refuse)?;
        fields::apply(&route.rules.request_headers, &mut parts.headers);
        parts.extensions.insert(match sender.secure {
            true => Scheme::HTTPS,
            false => Scheme::HTTP,
        });
        if let Some(local) = self.ends.local {
            parts.extensions.insert(LocalAddr(local));
        }
        let mut params = route.rules.params.clone();
        if let Some(remote) = sender.remote {
            parts.extensions.insert(RemoteAddr(remote));
        } else if !params.iter().any(|(name, _)| name == "REMOTE_ADDR") {
            params.push(("REMOTE_ADDR".into(), access::UNIX.into()));
        }
        if let Some(root) = &route.files {
            params.push(("DOCUMENT_ROOT".into(), bytes_of(&root.files.root)));
        }
        Ok(Routed {
            route,
            offer,
            params,
            most,
        })
    }

    /// Asks the authorizer of a route, if there is one.
    async fn authorize(&mut self, routed: &mut Routed<'s>, parts: &Parts) -> Result<(), Refused> {
        let Some(authorizer) = &routed.route.authorizer else {
            return Ok(());
        };
        let asked = authorizer::ask(authorizer, parts, &mut routed.params, self.entry);
        Box::pin(asked).await
    }

    /// Has an application answer, or a file.
    async fn ask(
        &mut self,
        found: Found,
        path: &CleanPath,
        routed: Routed<'s>,
        mut parts: Box<Parts>,
    ) -> Result<Answer, Refused> {
        let Routed {
            route,
            offer,
            mut params,
            mut most,
        } = routed;
        let nothing = || refuse(StatusCode::NOT_FOUND);
        let upstream = match (found, &route.filter) {
            (Found::File(file), Some(filter)) => {
                let put = filter::put(file, &mut parts, &mut params);
                Box::pin(put).await.map_err(refuse)?;
                if let Some(script) = route.script(path) {
                    parts.extensions.insert(script);
                }
                filter
            }
            (Found::File(file), None) => {
                return Ok(Box::pin(file::send(&file, &parts)).await.into());
            }
            (Found::Folder, _) => return Ok(folder(&parts).into()),
            (Found::Status(status), _) => return Err(refuse(status)),
            (Found::Script(script), _) => {
                let upstream = route.upstream.as_ref().ok_or_else(nothing)?;
                if let (Some(root), false) = (&route.files, script.path_info.is_empty()) {
                    let translated = [&bytes_of(&root.files.root)[..], &script.path_info].concat();
                    params.push(("PATH_TRANSLATED".into(), translated.into()));
                }
                parts.extensions.insert(script);
                // A script gets as much of a body as is announced: one of unknown length is collected first.
                if self.body.size_hint().exact().is_none() {
                    most = most.min(upstream.collects());
                }
                upstream
            }
            (Found::Nothing, _) => {
                let upstream = route.for_the_rest().ok_or_else(nothing)?;
                if let Some(script) = route.script(path) {
                    parts.extensions.insert(script);
                }
                upstream
            }
        };
        parts.extensions.insert(ExtraParams(params));
        let pause = self.site.settings.limits.body_timeout;
        let body = RequestBody::new(self.body.take(), most, pause);
        application::ask(upstream, route, parts, body, offer, self.entry).await
    }
}

/// What a path means to a route.
async fn find(route: &Route, path: &CleanPath) -> Result<Found, Refused> {
    let Some(root) = &route.files else {
        return Ok(Found::Nothing);
    };
    let (root, path) = (Arc::clone(root), path.clone());
    let found = tokio::task::spawn_blocking(move || files::find(&root, &path)).await;
    found.map_err(|_| refuse(StatusCode::INTERNAL_SERVER_ERROR))
}

fn too_many() -> Refused {
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
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

fn bytes_of(path: &Path) -> Bytes {
    Bytes::copy_from_slice(path.as_os_str().as_encoded_bytes())
}
