//! A request to an application: what it is asked, and what its answer becomes.

use std::time::Instant;

use afcgi::client::{ResponseBody, upgraded};
use http::request::Parts;
use http::{Request, Response, StatusCode};

use super::body::RequestBody;
use super::outcome::{Answer, boxed, drain, failed};
use super::upgrade::Offer;
use crate::respond::{Body, Refused, file, refuse};
use crate::route::{Route, Upstream, files, script};
use crate::say::{Entry, escape};

/// Asks an application, and sends a file in place of its response if it wants that.
pub(crate) async fn ask(
    upstream: &Upstream,
    route: &Route,
    mut parts: Box<Parts>,
    body: RequestBody,
    offer: Option<Offer>,
    entry: &mut Entry,
) -> Result<Answer, Refused> {
    entry.goes_to(&upstream.name, &mut parts.extensions);
    let verdict = body.verdict();
    // What a file in place of the response needs to know.
    let asked = (!route.rules.sendfile.is_empty()).then(|| {
        let mut request = Request::new(());
        request.method_mut().clone_from(&parts.method);
        request.headers_mut().clone_from(&parts.headers);
        Box::new(request.into_parts().0)
    });
    let path = parts.uri.path().to_owned();
    let sent = Instant::now();
    let request = Request::from_parts(*parts, body);
    let answered = upstream.client.request(request).await;
    entry.wait = Some(sent.elapsed());
    let mut response = answered.map_err(|error| {
        let status = verdict
            .get()
            .map_or(error.status(), |refusal| refusal.status());
        failed(&error, status, upstream, &path, entry)
    })?;
    let tunnel = upgraded(&mut response).map(Box::new);
    let headers = response.headers();
    let wants_file = headers.contains_key("x-accel-redirect") || headers.contains_key("x-sendfile");
    if let (true, Some(asked)) = (wants_file, &asked) {
        let sent = Box::pin(in_place(response, route, asked, &path));
        return Ok(sent.await?.into());
    }
    match (tunnel, offer) {
        (Some(tunnel), Some(offer)) => {
            offer.accept(&mut response);
            Ok(Answer {
                response: response.map(boxed),
                tunnel: Some((offer, tunnel)),
            })
        }
        (_, Some(offer)) if offer.is_misled_by(response.status()) => {
            tracing::error!(upstream = %upstream.name, path = %path.escape_debug(), status = response.status().as_u16(),
                "the application neither opened nor refused the requested tunnel");
            Err(refuse(StatusCode::BAD_GATEWAY))
        }
        _ => Ok(response.map(boxed).into()),
    }
}

/// The file that an application wants sent in place of its response.
async fn in_place(
    response: Response<ResponseBody>,
    route: &Route,
    asked: &Parts,
    path: &str,
) -> Result<Response<Body>, Refused> {
    let (answered, body) = response.into_parts();
    drain(body);
    let (folders, headers) = (route.rules.sendfile.clone(), answered.headers.clone());
    let found = tokio::task::spawn_blocking(move || files::sendfile(&folders, &headers)).await;
    let Ok(Some(file)) = found else {
        let field = answered
            .headers
            .get("x-accel-redirect")
            .or(answered.headers.get("x-sendfile"));
        let wanted = field.map_or_else(String::new, |value| escape(value.as_bytes()));
        tracing::error!(path = %path.escape_debug(), wanted, "the application asked for a file outside the folders of `sendfile`");
        return Err(refuse(StatusCode::NOT_FOUND));
    };
    if !route.rules.send_scripts && route.scripts.hold_in_a_root(&file) {
        script::refused(&file);
        return Err(refuse(StatusCode::NOT_FOUND));
    }
    Ok(file::in_place(&file, asked, answered.headers).await)
}
