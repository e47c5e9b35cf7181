//! What a request says of the one connection that it came on (RFC 9110 section 7.6.1).

use afcgi_proto::upgrade::Head;
use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};

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
