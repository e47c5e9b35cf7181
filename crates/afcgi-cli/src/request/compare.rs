//! Whether an answer is the one that was recorded.

use afcgi_proto::EndRequest;
use afcgi_proto::cgi::{Head, HeadLimits};

use crate::wire::mask::{field, is_masked};
use crate::wire::{excerpt, protocol_status};

/// Fields that are not compared: they differ each time.
pub(super) const IGNORED: [&str; 6] = [
    "date",
    "age",
    "expires",
    "server-timing",
    "x-request-id",
    "x-runtime",
];

/// Bytes of a value, or of a body where it differs, that are shown.
const SHOWN: usize = 60;

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) end: EndRequest,
    pub(super) stdout: &'a [u8],
}

/// What is different, each in a line; none: nothing is.
pub(super) fn compare(was: Answer<'_>, is: Answer<'_>, ignored: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    if was.end.protocol_status != is.end.protocol_status {
        let (is, was) = (is.end.protocol_status, was.end.protocol_status);
        let (is, was) = (protocol_status(is), protocol_status(was));
        found.push(format!("{is}, was {was}"));
    }
    if was.end.app_status != is.end.app_status {
        let (is, was) = (is.end.app_status, was.end.app_status);
        found.push(format!("appStatus {is}, was {was}"));
    }
    let heads = [was.stdout, is.stdout].map(|stdout| {
        let head = Head::parse(stdout, HeadLimits::default());
        head.ok().flatten()
    });
    let [was_head, is_head] = &heads;
    match (was_head, is_head) {
        (Some(was), Some(is)) => {
            if was.status != is.status {
                found.push(format!("status {}, was {}", is.status, was.status));
            }
            fields(was, is, ignored, &mut found);
        }
        (None, Some(_)) => found.push(String::from("a head, was none")),
        (Some(_), None) => found.push(String::from("no head, was one")),
        (None, None) => {}
    }
    let body = |stdout, head: &Option<Head<'_>>| {
        let length = head.as_ref().map_or(0, |head| head.length);
        <[u8]>::get(stdout, length..).unwrap_or_default()
    };
    bodies(
        body(was.stdout, was_head),
        body(is.stdout, is_head),
        &mut found,
    );
    found
}

fn fields(was: &Head<'_>, is: &Head<'_>, ignored: &[String], found: &mut Vec<String>) {
    let mut names: Vec<&[u8]> = Vec::new();
    for (name, _) in was.fields.iter().chain(&is.fields) {
        if !names.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            names.push(name);
        }
    }
    for name in names {
        let known = IGNORED
            .into_iter()
            .chain(ignored.iter().map(String::as_str));
        if known
            .map(str::as_bytes)
            .any(|other| other.eq_ignore_ascii_case(name))
        {
            continue;
        }
        let values = |head: &Head<'_>| -> Vec<Vec<u8>> {
            let fields = head.fields.iter();
            let same = fields.filter(|field| field.0.eq_ignore_ascii_case(name));
            same.map(|field| field.1.to_vec()).collect()
        };
        let (was, is) = (values(was), values(is));
        // Of a secret it is known that there was one.
        let masked = was.iter().any(|value| is_masked(field(name), value));
        let same = match masked {
            true => was.len() == is.len(),
            false => was == is,
        };
        if !same {
            let list = |values: &[Vec<u8>]| match values {
                [] => String::from("none"),
                values => format!("`{}`", excerpt(&values.join(&b", "[..]), SHOWN)),
            };
            let name = excerpt(name, SHOWN);
            found.push(format!("{name}: {}, was {}", list(&is), list(&was)));
        }
    }
}

fn bodies(was: &[u8], is: &[u8], found: &mut Vec<String>) {
    if was == is {
        return;
    }
    let same = was.iter().zip(is).take_while(|(was, is)| was == is).count();
    let from = |body: &[u8]| match body.get(same..) {
        None | Some([]) => String::from("its end"),
        Some(rest) => format!("`{}`", excerpt(rest, SHOWN)),
    };
    found.push(format!(
        "the body has {} bytes, was {}; from byte {same} on: {}, was {}",
        is.len(),
        was.len(),
        from(is),
        from(was)
    ));
}

#[cfg(test)]
mod tests {
    use afcgi_proto::ProtocolStatus;

    use super::*;

    fn found(was: &str, is: &str, ignored: &[&str]) -> Vec<String> {
        let end = EndRequest {
            app_status: 0,
            protocol_status: ProtocolStatus::RequestComplete,
        };
        let answer = |text: &'static str| Answer {
            end,
            stdout: text.as_bytes(),
        };
        let leak = |text: &str| -> &'static str { String::from(text).leak() };
        let ignored: Vec<String> = ignored.iter().map(|name| (*name).to_owned()).collect();
        compare(answer(leak(was)), answer(leak(is)), &ignored)
    }

    #[test]
    fn answers() {
        let was = "Status: 200 OK\nDate: 1\nX-A: b\nSet-Cookie: ***\n\nbody";
        let same = "Date: 2\nx-a: b\nSet-Cookie: abcdef\n\nbody";
        assert_eq!(found(was, same, &[]), [""; 0]);
        let different = "Status: 404\nX-A: c\nX-B: d\n\nbolt";
        assert_eq!(
            found(was, different, &["x-b"]),
            [
                "status 404, was 200",
                "X-A: `c`, was `b`",
                "Set-Cookie: none, was `***`",
                "the body has 4 bytes, was 4; from byte 2 on: `lt`, was `dy`",
            ]
        );
        let longer = "Date: 2\nX-A: b\nSet-Cookie: a\n\nbody\x1b";
        assert_eq!(
            found(was, longer, &[]),
            ["the body has 5 bytes, was 4; from byte 4 on: `\\u{1b}`, was its end"]
        );
        assert_eq!(found("none", "A: b\n\nnone", &[]), ["a head, was none"]);
        let mut end = EndRequest::parse(&[0; 8]);
        let was = Answer { end, stdout: b"" };
        end.app_status = 3;
        end.protocol_status = ProtocolStatus::Overloaded;
        let is = Answer { end, stdout: b"" };
        let expected = ["OVERLOADED, was REQUEST_COMPLETE", "appStatus 3, was 0"];
        assert_eq!(compare(was, is, &[]), expected);
    }
}
