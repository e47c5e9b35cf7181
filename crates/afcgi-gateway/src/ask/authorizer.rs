//! An authorizer, which is asked before anything else of a route.

use afcgi::Role;
use afcgi::client::{ExtraParams, OnInterim};
use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};
use http_body_util::Empty;

use super::outcome::{boxed, drain, failed};
use crate::respond::Refused;
use crate::route::Upstream;
use crate::say::Entry;

/// Asks one, whose variables become parameters; what it answers when it refuses is the response.
pub(crate) async fn ask(
    authorizer: &Upstream,
    parts: &Parts,
    params: &mut Vec<(Bytes, Bytes)>,
    entry: &mut Entry,
) -> Result<(), Refused> {
    let mut request = Request::new(Empty::<Bytes>::new());
    request.method_mut().clone_from(&parts.method);
    request.uri_mut().clone_from(&parts.uri);
    *request.version_mut() = parts.version;
    request.headers_mut().clone_from(&parts.headers);
    request.extensions_mut().clone_from(&parts.extensions);
    request.extensions_mut().remove::<OnInterim>();
    request.extensions_mut().insert(Role::Authorizer);
    request.extensions_mut().insert(ExtraParams(params.clone()));
    entry.goes_to(&authorizer.name, request.extensions_mut());
    let answered = authorizer.client.request(request).await;
    let response = answered
        .map_err(|error| failed(&error, error.status(), authorizer, parts.uri.path(), entry))?;
    if response.status() != StatusCode::OK {
        return Err(Box::new(response.map(boxed)));
    }
    // It is not what serves the request.
    (entry.upstream, entry.trace) = (None, None);
    for (name, value) in response.headers() {
        if let Some(name) = name.as_str().strip_prefix("variable-") {
            let name = name.to_ascii_uppercase();
            params.retain(|(other, _)| *other != name.as_bytes());
            params.push((name.into(), Bytes::copy_from_slice(value.as_bytes())));
        }
    }
    drain(response.into_body());
    Ok(())
}
