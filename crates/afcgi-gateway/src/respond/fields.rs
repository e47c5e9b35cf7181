//! Fields of responses: what does not leave the gateway, and what the rules of a route say.

use std::sync::Arc;

use afcgi::client::OnInterim;
use http::header::CONNECTION;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};

use crate::config::HeaderRules;

/// Sets and removes fields.
pub(crate) fn apply(rules: &HeaderRules, headers: &mut HeaderMap) {
    for name in &rules.remove {
        headers.remove(name);
    }
    for (name, value) in &rules.set {
        headers.insert(name, value.clone());
    }
}

/// Has the connection closed behind a response by HTTP/1.1: whoever sent the request may mean something else by what follows.
pub(crate) fn close(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Takes fields out that name files, variables and settings of the web server.
pub(crate) fn keep_inside(headers: &mut HeaderMap) {
    let inner: Vec<HeaderName> = (headers.keys())
        .filter(|name| is_inner(name.as_str()))
        .cloned()
        .collect();
    for name in inner {
        headers.remove(name);
    }
}

fn is_inner(name: &str) -> bool {
    ["x-accel-", "x-sendfile", "variable-"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// Has interim responses of a request go without the fields that a route removes. What it sets is for the response.
pub(crate) fn interim(extensions: &mut Extensions, rules: &HeaderRules) {
    if rules.remove.is_empty() {
        return;
    }
    if let Some(OnInterim(pass_on)) = extensions.remove::<OnInterim>() {
        let remove = rules.remove.clone();
        extensions.insert(OnInterim(Arc::new(move |mut response| {
            for name in &remove {
                response.headers_mut().remove(name);
            }
            pass_on(response);
        })));
    }
}
