//! What a request says of the one connection that it came on (RFC 9110 section 7.6.1).

use afcgi_proto::upgrade::{Head, names_upgrade};
use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

/// Takes out of the head of a request what is about the connection that it came on: the fields that `Connection` names,
/// that field itself, and those such as `Keep-Alive` and `TE`. Who asks for an upgrade still does so afterwards, by
/// `Connection: upgrade` and `Upgrade`.
///
/// To be called once, where a client's head comes in and before anything is added to it. Later it would be too late: a
/// client may name what is added. That is why a [`Client`](crate::client::Client) goes by no name in `Connection`: it
/// leaves the fields out that are always about a connection, and passes all others on.
///
/// `Host`, the length and type of the body, `Cookie`, `Authorization`, and what proxies say of a client
/// (`Via`, `Forwarded`, `X-Forwarded-*`, `X-Real-IP`) stay, whatever `Connection` says.
///
/// ```
/// use afcgi::client::remove_hop_by_hop;
///
/// let mut request = http::Request::get("/")
///     .header("connection", "keep-alive, x-trace, x-secret")
///     .header("x-trace", "1")
///     .body(())?;
/// remove_hop_by_hop(request.headers_mut());
/// assert!(request.headers().is_empty());
/// // The application gets this, although the client has named it.
/// request.headers_mut().insert("x-secret", "from the operator".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let mut asks = false;
    let mut named = Vec::new();
    for connection in values(headers, CONNECTION) {
        asks |= names_upgrade(connection);
        let options = connection.split(|&byte| byte == b',');
        // What is no name is that of no field.
        named.extend(options.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()));
    }
    for name in named {
        if !is_vouched_for(&name) && name != UPGRADE {
            headers.remove(name);
        }
    }
    let own: Vec<_> = (headers.keys())
        .filter(|name| is_hop_by_hop(name) && **name != UPGRADE)
        .cloned()
        .collect();
    for name in own {
        headers.remove(name);
    }
    if !asks {
        headers.remove(UPGRADE);
    } else if headers.contains_key(UPGRADE) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Fields that speak of one HTTP connection, which does not reach to the application (RFC 9110
/// section 7.6.1).
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether a field stays that `Connection` names: without it the application would take the request for another's, or for
/// another one.
fn is_vouched_for(name: &HeaderName) -> bool {
    let text = name.as_str();
    text.starts_with("x-forwarded")
        || matches!(
            text,
            "authorization"
                | "content-length"
                | "content-type"
                | "cookie"
                | "forwarded"
                | "host"
                | "via"
                | "x-real-ip"
        )
}

/// Whether a request is one that an application may be offered an upgrade of, by the rule of `docs/upgrade.md`: a GET of
/// HTTP/1.1 without a body, which asks for it by `Connection` and `Upgrade`, and not for `h2c`.
///
/// A client offers no upgrade of any other request, whatever fields it has.
pub fn asks_for_upgrade(request: &Parts, has_body: bool) -> bool {
    Head {
        method: request.method.as_str().as_bytes(),
        is_http_11: request.version == Version::HTTP_11,
        has_body,
        connection: values(&request.headers, CONNECTION),
        upgrade: values(&request.headers, UPGRADE),
    }
    .asks()
}

fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(name).into_iter();
    values.map(HeaderValue::as_bytes)
}

/// What the request asks to be upgraded to, if it does and may.
pub(crate) fn upgrade(request: &Parts, has_body: bool) -> Option<Vec<u8>> {
    asks_for_upgrade(request, has_body).then(|| {
        values(&request.headers, UPGRADE)
            .collect::<Vec<_>>()
            .join(&b", "[..])
    })
}
