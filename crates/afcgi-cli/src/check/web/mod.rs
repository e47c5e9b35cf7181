//! The cases for web servers: the tool is the application behind one, and its client.

mod requests;
mod responses;
mod stage;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use stage::{Place, Stage};

use super::case::{Done, Section, Selection, deviation};

/// All of them.
pub const SECTIONS: &[Section<Stage>] = &[
    Section {
        slug: "requests",
        title: "What a web server sends",
        cases: requests::CASES,
    },
    Section {
        slug: "responses",
        title: "What a web server makes of an application",
        cases: responses::CASES,
    },
];

/// How long somebody may take to ask a URL.
pub(crate) const TYPING: Duration = Duration::from_secs(60);

/// Limits of the place that a whole case may take.
const WHOLE: u32 = 10;
/// How long connections of a case before are looked for.
const STALE: Duration = Duration::from_millis(2);

/// `HOST:PORT` and the path of a URL.
pub(crate) fn parse_url(url: &str) -> Result<(String, String), String> {
    let wrong = || {
        format!(
            "`{}` is no URL of the form http://HOST:PORT/PATH",
            url.escape_debug()
        )
    };
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (host, path) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, "/"),
    };
    let strange = |c: char| c.is_whitespace() || c.is_control();
    if host.is_empty() || rest.contains(strange) {
        return Err(wrong());
    }
    let port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let host = if port {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    Ok((host, path.to_owned()))
}

/// Runs the cases of the selection against a web server, one after the other.
pub async fn run(place: &Arc<Place>, selection: &Selection, mut tell: impl FnMut(Done<Stage>)) {
    for section in SECTIONS {
        for case in section
            .cases
            .iter()
            .filter(|case| selection.takes(section, case))
        {
            // Connections that the case before has left behind are not this one's.
            while let Ok(Ok(_)) = tokio::time::timeout(STALE, place.listener.accept()).await {}
            let stage = Stage::new(place.clone());
            let started = Instant::now();
            let most = place.limit * WHOLE;
            let outcome = match tokio::time::timeout(most, (case.run)(&stage)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(deviation(
                    "the end of the case",
                    format!(
                        "it was still going on after {}",
                        humantime::format_duration(most)
                    ),
                )),
            };
            tell(Done {
                section,
                case,
                outcome,
                took: started.elapsed(),
                transcript: stage.take_transcript(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let parsed = |host: &str, path: &str| Ok((host.to_owned(), path.to_owned()));
        assert_eq!(
            parse_url("http://127.0.0.1:8080/a?b"),
            parsed("127.0.0.1:8080", "/a?b")
        );
        assert_eq!(parse_url("http://localhost"), parsed("localhost:80", "/"));
        for url in [
            "",
            "https://a/",
            "http://",
            "http:///x",
            "http://a/ b",
            "http://a/\r\nX: y",
        ] {
            assert!(parse_url(url).is_err(), "{url}");
        }
    }
}
