//! A source: where a status page is, and how it is asked for.

use std::time::{Duration, Instant};

use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::IgnoredAny;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::page::Answer;
use super::shape::clean;
use crate::request::{self, Fetched};

/// Bytes that an answer may have.
pub(super) const MOST: u64 = 1024 * 1024;

/// Where a status page is.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// As it was written.
    pub(super) label: String,
    place: Place,
    /// How long an answer is waited for.
    timeout: Duration,
}

#[derive(Clone, Debug)]
enum Place {
    /// By HTTP, with the name of the host and the target of the request.
    Http {
        to: Socket,
        host: String,
        path: String,
    },
    /// By FastCGI.
    FastCgi { target: String, page: request::Page },
}

#[derive(Clone, Debug)]
enum Socket {
    Tcp(String, u16),
    Unix(String),
}

/// An answer, or why there is none, and how long that took.
#[derive(Debug)]
pub(super) struct Poll {
    pub(super) answer: Result<Answer, String>,
    pub(super) took: Duration,
    pub(super) at: Instant,
}

impl Source {
    /// `status_path` is what PHP-FPM is asked for where an address does not say it.
    pub(super) fn parse(text: &str, status_path: &str, timeout: Duration) -> Result<Self, String> {
        let place = match text.split_once("://") {
            Some(("http", rest)) => http(text, rest)?,
            Some(("https", _)) => {
                return Err(format!(
                    "{}: HTTPS is not spoken here: ask the gateway's admin address, or nginx on a local port, by http://",
                    text.escape_debug()
                ));
            }
            Some((scheme, _)) => {
                return Err(format!(
                    "`{}://` is not known: expected http://HOST:PORT/PATH, HOST:PORT or unix:SOCKET",
                    scheme.escape_debug()
                ));
            }
            None => {
                request::check(text)?;
                Place::FastCgi {
                    target: text.to_owned(),
                    page: request::Page {
                        path: status_path.to_owned(),
                        query: "json&full",
                    },
                }
            }
        };
        Ok(Self {
            label: clean(text),
            place,
            timeout,
        })
    }

    /// Whether it is asked by FastCGI.
    pub(super) fn is_fastcgi(&self) -> bool {
        matches!(self.place, Place::FastCgi { .. })
    }

    /// Asks for the page once.
    pub(super) async fn poll(&self) -> Poll {
        let start = Instant::now();
        let body = match &self.place {
            Place::FastCgi { target, page } => self.by_fastcgi(target, page).await,
            Place::Http { to, host, path } => {
                let ask = by_http(to, host, path);
                match tokio::time::timeout(self.timeout, ask).await {
                    Ok(body) => body,
                    Err(_) => Err(format!(
                        "no answer within {}",
                        humantime::format_duration(self.timeout)
                    )),
                }
            }
        };
        let at = Instant::now();
        Poll {
            answer: body.and_then(|body| Answer::read(&body)),
            took: at - start,
            at,
        }
    }

    /// Where the page with the processes is no JSON it is asked for without them: some versions of PHP-FPM write what clients send as
    /// it came, and what clients send must not hide the pool.
    async fn by_fastcgi(&self, target: &str, page: &request::Page) -> Result<Vec<u8>, String> {
        let body = self.ask_fastcgi(target, page).await?;
        let is_json = |body: &[u8]| serde_json::from_slice::<IgnoredAny>(body).is_ok();
        if !body.starts_with(b"{") || target.contains('?') || is_json(&body) {
            return Ok(body);
        }
        let mut page = page.clone();
        page.query = "json";
        self.ask_fastcgi(target, &page).await
    }

    async fn ask_fastcgi(&self, target: &str, page: &request::Page) -> Result<Vec<u8>, String> {
        let fetched = request::fetch(target, page, self.timeout, MOST).await;
        let fetched = fetched.map_err(|why| explain(&why, target))?;
        refuse(&fetched)?;
        Ok(fetched.body)
    }
}

/// What helps where there is no answer.
fn explain(why: &str, target: &str) -> String {
    let hint = if why.contains("an HTTP server") {
        let at = target.split(['/', '?']).next().unwrap_or_default();
        match target.starts_with("unix:") || target.starts_with('/') {
            true => String::from(": write http://unix:SOCKET:/PATH"),
            false => format!(": write http://{at}/PATH"),
        }
    } else if why.starts_with("no answer") {
        String::from(
            ". All processes are busy, or it hangs: the status page waits in the queue as any request does \
             (PHP-FPM 8: pm.status_listen gives it an address of its own)",
        )
    } else {
        String::new()
    };
    format!("{why}{hint}")
}

/// Says what to do where an application has no status page.
fn refuse(fetched: &Fetched) -> Result<(), String> {
    let said = String::from_utf8_lossy(&fetched.stderr);
    let body = String::from_utf8_lossy(&fetched.body);
    let missing = said.contains("Primary script unknown") || body.trim() == "File not found.";
    match fetched.status {
        _ if missing => Err(String::from(
            "PHP-FPM has no status page at this path: set `pm.status_path = /status` in the pool, or say the path \
             behind the address or by --status-path",
        )),
        200 => Ok(()),
        403 if body.trim() == "Access denied." => Err(String::from(
            "PHP-FPM denies access: this path is a file to it, not its status page (pm.status_path)",
        )),
        status => Err(format!(
            "the application answers {status}: it has no status page of PHP-FPM at this path"
        )),
    }
}

/// `HOST:PORT/PATH`, or `unix:SOCKET:/PATH` as nginx writes it.
fn http(text: &str, rest: &str) -> Result<Place, String> {
    let wrong = |why: &str| Err(format!("{}: {why}", text.escape_debug()));
    if let Some(rest) = rest.strip_prefix("unix:") {
        let (socket, path) = rest.split_once(':').unwrap_or((rest, "/metrics"));
        if socket.is_empty() || path.parse::<Uri>().is_err() || !path.starts_with('/') {
            return wrong("expected http://unix:SOCKET:/PATH");
        }
        return Ok(Place::Http {
            to: Socket::Unix(socket.to_owned()),
            host: String::from("localhost"),
            path: path.to_owned(),
        });
    }
    let Ok(uri) = text.parse::<Uri>() else {
        return wrong("no URL: expected http://HOST:PORT/PATH");
    };
    let Some(authority) = uri.authority() else {
        return wrong("no URL: expected http://HOST:PORT/PATH");
    };
    if authority.as_str().contains('@') {
        return wrong("a name and password are of no use here: allow this host by its address");
    }
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let path = match uri.path_and_query().map(|path| path.as_str()) {
        None | Some("" | "/") => "/metrics",
        Some(path) => path,
    };
    Ok(Place::Http {
        to: Socket::Tcp(bare.to_owned(), authority.port_u16().unwrap_or(80)),
        host: authority.as_str().to_owned(),
        path: path.to_owned(),
    })
}

async fn by_http(to: &Socket, host: &str, path: &str) -> Result<Vec<u8>, String> {
    match to {
        Socket::Tcp(name, port) => {
            let stream = TcpStream::connect((name.as_str(), *port)).await;
            let stream =
                stream.map_err(|error| unreachable_text(&format!("{name}:{port}"), &error))?;
            exchange(stream, host, path).await
        }
        Socket::Unix(socket) => {
            let stream = UnixStream::connect(socket).await;
            let stream = stream.map_err(|error| unreachable_text(socket, &error))?;
            exchange(stream, host, path).await
        }
    }
}

fn unreachable_text(at: &str, error: &std::io::Error) -> String {
    let hint = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => ". Nobody listens there",
        _ => "",
    };
    format!("cannot connect to {}: {error}{hint}", clean(at))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
) -> Result<Vec<u8>, String> {
    let failed = |error: hyper::Error| {
        let hint = match error.is_parse() {
            true => ": what answers there speaks no HTTP",
            false => "",
        };
        format!("{error}{hint}")
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(failed)?;
    let request = Request::get(path)
        .header(HOST, host)
        .header(
            ACCEPT,
            "application/json, text/plain;version=0.0.4, */*;q=0.1",
        )
        .header(USER_AGENT, concat!("afcgi/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(failed)?;
        let location = response.headers().get(LOCATION);
        let location = location.map(|to| clean(&String::from_utf8_lossy(to.as_bytes())));
        accept(response.status(), location.as_deref())?;
        let most = usize::try_from(MOST).unwrap_or(usize::MAX);
        let body = Limited::new(response.into_body(), most).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => format!("the answer is longer than {MOST} bytes"),
            false => format!("the answer broke off: {error}"),
        })?;
        Ok(body.to_bytes().to_vec())
    };
    // The connection moves the bytes, and goes with the answer.
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        body = &mut answer => body,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(failed(error)),
        },
    }
}

fn accept(status: StatusCode, location: Option<&str>) -> Result<(), String> {
    let hint = match (status.as_u16(), location) {
        (200, _) => return Ok(()),
        (300..=399, Some(to)) => format!(": ask {to}"),
        (401 | 403, _) => String::from(": allow this host there (nginx: `allow`)"),
        (404, _) => String::from(
            ": the page is at another path (nginx: the location with `fastcgi_multiplex_status`; gateway: /metrics of --admin)",
        ),
        _ => String::new(),
    };
    Err(format!("the server answers {status}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Source, String> {
        Source::parse(text, "/status", Duration::from_secs(1))
    }

    #[test]
    fn urls() {
        for (text, expected) in [
            ("http://127.0.0.1:8889/a?b", "127.0.0.1 8889 /a?b"),
            ("http://[::1]:81", "::1 81 /metrics"),
            ("http://host/", "host 80 /metrics"),
            ("http://unix:/run/a.sock:/status?x", "/run/a.sock /status?x"),
            ("http://unix:/run/a.sock", "/run/a.sock /metrics"),
        ] {
            let found = match parse(text).expect(text).place {
                Place::Http { to, path, .. } => match to {
                    Socket::Tcp(host, port) => format!("{host} {port} {path}"),
                    Socket::Unix(socket) => format!("{socket} {path}"),
                },
                Place::FastCgi { target, .. } => target,
            };
            assert_eq!(found, expected);
        }
        for (text, words) in [
            ("https://a", "HTTPS"),
            ("ftp://a", "`ftp://` is not known"),
            ("http://", "no URL"),
            ("http://me:pw@a/", "password"),
            ("http://unix::/x", "http://unix:SOCKET:/PATH"),
            ("localhost", "localhost"),
            ("", ""),
        ] {
            let why = parse(text).map(drop).expect_err(text);
            assert!(why.contains(words), "{text}: {why}");
        }
        assert!(
            parse("127.0.0.1:9000/status")
                .expect("FastCGI")
                .is_fastcgi()
        );
        assert!(parse("unix:/none/a.sock").expect("FastCGI").is_fastcgi());
    }

    #[test]
    fn what_to_do_without_a_page() {
        let answer = |status, body: &str, stderr: &str| {
            let fetched = Fetched {
                status,
                body: body.into(),
                stderr: stderr.into(),
            };
            refuse(&fetched).err().unwrap_or_default()
        };
        let missing = answer(404, "File not found.\n", "Primary script unknown\n");
        assert!(missing.contains("pm.status_path = /status"), "{missing}");
        assert!(answer(403, "Access denied.\n", "").contains("pm.status_path"));
        assert!(answer(502, "", "").contains("502"));
        assert_eq!(answer(200, "{}", ""), "");
        let web = explain("what came begins: an HTTP server, not", "127.0.0.1:80/x");
        assert!(web.ends_with("write http://127.0.0.1:80/PATH"), "{web}");
        assert!(explain("no answer after 3s", "a:1").contains("pm.status_listen"));
        let at = accept(StatusCode::FOUND, Some("/login")).expect_err("a redirect");
        assert_eq!(at, "the server answers 302 Found: ask /login");
        assert!(accept(StatusCode::NOT_FOUND, None).is_err());
    }
}
