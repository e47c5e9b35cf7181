//! A CGI response head to an [`http::Response`] (R-58, RFC 3875 section 6).

use afcgi_proto::cgi::{Head, HeadError};
use http::header::{CONTENT_LENGTH, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use hyper::ext::ReasonPhrase;

/// What a response head says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// What stands behind the status by HTTP/1.1, where that is not what always does.
    pub(crate) reason: Option<ReasonPhrase>,
    pub(crate) headers: HeaderMap,
    /// Bytes of the body, if announced.
    pub(crate) length: Option<u64>,
    /// The path to which the request is redirected within the application (RFC 3875 section 6.2.2), provided that
    /// no body follows.
    pub(crate) redirect: Option<Uri>,
}

/// Reads what stands on STDOUT before the body. `stdout` begins with the head.
pub(crate) fn from_head(head: &Head<'_>, stdout: &[u8]) -> Result<Answer, HeadError> {
    let status = StatusCode::from_u16(head.status).map_err(|_| HeadError::Status)?;
    let tunnel = status == StatusCode::SWITCHING_PROTOCOLS;
    let mut headers = HeaderMap::with_capacity(head.fields.len());
    let mut length = None;
    for &(name, value) in &head.fields {
        let name = HeaderName::from_bytes(name).map_err(|_| HeadError::Field)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| HeadError::Field)?;
        if name == CONTENT_LENGTH {
            let found = number(value.as_bytes()).ok_or(HeadError::Field)?;
            if length.is_some_and(|length| length != found) {
                return Err(HeadError::Field);
            }
            if length.replace(found).is_some() {
                continue;
            }
        } else if super::hop::is_hop_by_hop(&name) && !(tunnel && name == UPGRADE) {
            continue;
        }
        headers.append(name, value);
    }
    let redirect = local(head, stdout);
    Ok(Answer {
        status,
        reason: reason(status, head.reason),
        headers,
        length,
        redirect,
    })
}

/// The path of a head that is nothing but a `Location` with one. With any field beside it, such as a cookie, the head is for
/// the client, who would not get that otherwise; and nobody but the client knows what to do with a fragment.
fn local(head: &Head<'_>, stdout: &[u8]) -> Option<Uri> {
    let &[(name, location)] = head.fields.as_slice() else {
        return None;
    };
    // `//host/` is another host.
    let is_local = name.eq_ignore_ascii_case(b"location")
        && location.starts_with(b"/")
        && !location.starts_with(b"//")
        && !location.contains(&b'#')
        && !has_status(stdout, head.length);
    is_local.then(|| Uri::try_from(location).ok()).flatten()
}

/// The reason phrase of a response, if HTTP/1.1 has another one for its status, or none.
fn reason(status: StatusCode, reason: &[u8]) -> Option<ReasonPhrase> {
    match status.canonical_reason() {
        Some(canonical) if reason.is_empty() || reason == canonical.as_bytes() => None,
        // It may be empty, as RFC 9112 section 4 has it.
        _ => ReasonPhrase::try_from(reason).ok(),
    }
}

/// Whether the head says which status it has.
fn has_status(stdout: &[u8], length: usize) -> bool {
    let head = stdout.get(..length).unwrap_or_default();
    head.split(|&byte| byte == b'\n').any(|line| {
        line.get(..7)
            .is_some_and(|name| name.eq_ignore_ascii_case(b"status:"))
    })
}

fn number(value: &[u8]) -> Option<u64> {
    // `parse` alone would take a sign.
    value.iter().all(u8::is_ascii_digit).then_some(())?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Whether a response has no body, whatever its fields say (RFC 9110 section 6.4.1).
pub(crate) fn is_bodiless(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

#[cfg(test)]
mod tests {
    use super::*;
    use afcgi_proto::cgi::HeadLimits;
    use http::header::LOCATION;

    fn answer(stdout: &str) -> Result<Answer, HeadError> {
        let head = Head::parse(stdout.as_bytes(), HeadLimits::default())?.unwrap();
        from_head(&head, stdout.as_bytes())
    }

    #[test]
    fn r58_fields_are_kept_and_those_of_a_connection_are_not() {
        let answer = answer(
            "Set-Cookie: a=1\nSet-Cookie: b=2\nConnection: close\nTransfer-Encoding: chunked\n\
             Upgrade: x\nContent-Length: 3\nContent-Length: 3\n\n",
        )
        .unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.length, Some(3));
        let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert_eq!(answer.headers.len(), 3);
    }

    #[test]
    fn a_length_that_is_none_or_two_is_an_error() {
        for bad in [
            "-1",
            "+1",
            "x",
            "1, 1",
            "99999999999999999999",
            "1\nContent-Length: 2",
        ] {
            let stdout = format!("Content-Length: {bad}\n\n");
            assert_eq!(answer(&stdout).unwrap_err(), HeadError::Field, "{bad}");
        }
    }

    #[test]
    fn reasons_are_kept_where_they_are_not_the_usual_ones() {
        for (status, expected) in [
            ("404", None),
            ("404 Not Found", None),
            ("404 Gone Fishing", Some("Gone Fishing")),
            ("599", Some("")),
            ("599 Mine", Some("Mine")),
        ] {
            let reason = answer(&format!("Status: {status}\n\n")).unwrap().reason;
            let expected = expected.map(str::as_bytes);
            assert_eq!(reason.as_ref().map(ReasonPhrase::as_bytes), expected);
        }
        assert_eq!(answer("A: b\n\n").unwrap().reason, None);
    }

    #[test]
    fn local_redirects_are_told_from_others() {
        for (stdout, status, local) in [
            ("Location: /x?y\n\n", 302, Some("/x?y")),
            ("Location: http://example.org/\n\n", 302, None),
            ("Location: //example.org/\n\n", 302, None),
            ("Status: 302 Found\nLocation: /x\n\n", 302, None),
            ("Status: 303\nLocation: /x\n\n", 303, None),
            ("location: /x\n\n", 302, Some("/x")),
            ("Location: /x#top\n\n", 302, None),
            ("Location: /x\nSet-Cookie: a=1\n\n", 302, None),
            ("Location: /x\nContent-Type: text/html\n\n", 302, None),
            ("Location: /x\nConnection: close\n\n", 302, None),
            ("Location: /x\nLocation: /y\n\n", 302, None),
        ] {
            let answer = answer(stdout).unwrap();
            assert_eq!(answer.status, status);
            let redirect = answer.redirect.map(|uri| uri.to_string());
            assert_eq!(redirect.as_deref(), local, "{stdout}");
            assert!(answer.headers.contains_key(LOCATION));
        }
    }
}
