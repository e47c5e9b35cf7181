//! Whether it is certain what a request is: what others might understand in another way no application is to see.

use http::header::{HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode, Version};

/// The host of a request, in lower case and without its port. The error is the status to refuse it with.
pub(crate) fn host(parts: &Parts) -> Result<String, StatusCode> {
    let bad = StatusCode::BAD_REQUEST;
    let mut fields = parts.headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() || (field.is_none() && parts.version == Version::HTTP_11) {
        return Err(bad);
    }
    let field = match field.map(HeaderValue::as_bytes) {
        None | Some(b"") => None,
        Some(field) => Some(Authority::try_from(field).map_err(|_| bad)?),
    };
    // RFC 9112 section 3.2.2: the authority goes before the field.
    let Some(authority) = parts.uri.authority().or(field.as_ref()) else {
        return Ok(String::new());
    };
    if authority.as_str().contains('@') {
        return Err(bad);
    }
    Ok(authority.host().trim_end_matches('.').to_ascii_lowercase())
}

/// Refuses a body in a transfer coding that nobody here takes off: all but `chunked`, once (RFC 9112 section 6.1).
pub(crate) fn codings(headers: &HeaderMap) -> Result<(), StatusCode> {
    let values = headers.get_all(TRANSFER_ENCODING).into_iter();
    let mut codings = values
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty());
    let is_known = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if is_known(coding) => Ok(()),
        _ => Err(StatusCode::NOT_IMPLEMENTED),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(uri: &str, version: Version, hosts: &[&str]) -> Parts {
        let mut request = Request::builder().uri(uri).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn hosts() {
        let (old, one, two) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        let bad = Err(StatusCode::BAD_REQUEST);
        for (uri, version, fields, expected) in [
            ("/", one, &["Example.ORG:8080"][..], Ok("example.org")),
            ("/", one, &["example.org."], Ok("example.org")),
            ("/", one, &["[::1]:80"], Ok("[::1]")),
            ("/", one, &[""], Ok("")),
            ("/", one, &[], bad),
            ("/", old, &[], Ok("")),
            ("/", one, &["a", "a"], bad),
            ("/", one, &["a b"], bad),
            ("/", one, &["user@a"], bad),
            ("http://b/", one, &["a"], Ok("b")),
            ("https://b/", two, &[], Ok("b")),
            ("http://b/", one, &["a b"], bad),
        ] {
            let found = host(&parts(uri, version, fields));
            assert_eq!(
                found.as_deref(),
                expected.as_ref().copied(),
                "{uri} {fields:?}"
            );
        }
    }

    #[test]
    fn transfer_codings() {
        for (fields, is_known) in [
            (&[][..], true),
            (&["chunked"], true),
            (&["Chunked, "], true),
            (&["gzip"], false),
            (&["gzip, chunked"], false),
            (&["chunked", "chunked"], false),
            (&["chunked;q=1"], false),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(TRANSFER_ENCODING, HeaderValue::from_static(field));
            }
            assert_eq!(codings(&headers).is_ok(), is_known, "{fields:?}");
        }
    }
}
