//! `--export`: the numbers of all sources for Prometheus, at `/metrics`.
//!
//! A scrape asks all sources once; scrapes that come in the meantime get the same answer.

use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use afcgi::{Address, UnixOptions};
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::page::{Answer, module_name};
use super::prometheus::Numbers;
use super::shape::clean;
use super::source::{Poll, Source};
use crate::terminal::{Ending, Terminal};

/// Connections of scrapers at a time; others wait until one closes.
const CONNECTIONS: usize = 64;
/// How long a scraper may take to send its request, or another one.
const REQUEST: Duration = Duration::from_secs(30);
/// How long a connection may last: one that reads nothing does not hold its place for ever.
const CONNECTION: Duration = Duration::from_secs(300);
/// After an error of accepting, such as having no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// What is served.
struct Exporter {
    sources: Vec<Source>,
    /// What is known of each.
    known: Mutex<Vec<Known>>,
    /// The scrape that goes on.
    flight: Mutex<Option<watch::Receiver<Option<Bytes>>>>,
}

/// What is known of a source from the scrapes before.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The pool, as it said last: it labels failures.
    pool: String,
    /// How often it did not answer.
    failures: u64,
    /// Why it did not answer last: that is said once.
    why: Option<String>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Serves until it is told to end.
pub(super) fn run(address: &Address, sources: Vec<Source>) -> io::Result<bool> {
    // Before any signal handler.
    let terminal = Terminal::of_this_process();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let mut ending = Ending::new(terminal)?;
        // Removes the file of a unix socket at the end.
        let bound = afcgi::Listener::bind_with(address, UnixOptions::default())?;
        let socket = bound.as_fd().try_clone_to_owned()?;
        let listener = match address {
            Address::Tcp { .. } => {
                let socket = std::net::TcpListener::from(socket);
                socket.set_nonblocking(true)?;
                super::said::say(&format!(
                    "listening on http://{}/metrics",
                    socket.local_addr()?
                ));
                Listener::Tcp(TcpListener::from_std(socket)?)
            }
            Address::Unix(path) => {
                let socket = std::os::unix::net::UnixListener::from(socket);
                socket.set_nonblocking(true)?;
                super::said::say(&format!(
                    "listening on http://unix:{}:/metrics",
                    path.display()
                ));
                Listener::Unix(UnixListener::from_std(socket)?)
            }
        };
        let exporter = Arc::new(Exporter {
            known: Mutex::new(vec![Known::default(); sources.len()]),
            sources,
            flight: Mutex::new(None),
        });
        tokio::select! {
            () = accept(&exporter, &listener) => {}
            () = ending.wait() => {}
        }
        Ok(true)
    });
    runtime.shutdown_background();
    result
}

async fn accept(exporter: &Arc<Exporter>, listener: &Listener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let exporter = Arc::clone(exporter);
        let accepted = match listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(serve(exporter, stream, place));
            }),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                tokio::spawn(serve(exporter, stream, place));
            }),
        };
        if let Err(error) = accepted {
            super::said::say(&format!("cannot accept connections: {error}"));
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn serve(
    exporter: Arc<Exporter>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    _place: OwnedSemaphorePermit,
) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let exporter = Arc::clone(&exporter);
        async move {
            Ok::<_, Infallible>(
                exporter
                    .answer(request.method(), request.uri().path())
                    .await,
            )
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .serve_connection(TokioIo::new(stream), service);
    // What a scraper does wrong is its own matter.
    _ = tokio::time::timeout(CONNECTION, connection).await;
}

impl Exporter {
    async fn answer(self: &Arc<Self>, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, body) = match (method, path) {
            (&Method::GET | &Method::HEAD, "/metrics") => match self.scrape().await {
                Some(body) => (StatusCode::OK, body),
                None => (StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
            },
            (_, "/metrics") => (
                StatusCode::METHOD_NOT_ALLOWED,
                Bytes::from_static(b"GET only\n"),
            ),
            _ => (
                StatusCode::NOT_FOUND,
                Bytes::from_static(b"there is /metrics\n"),
            ),
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }

    /// The numbers: those of the scrape that goes on, or of a new one. That goes on also when whoever began it leaves.
    async fn scrape(self: &Arc<Self>) -> Option<Bytes> {
        let mut flight = {
            let mut current = self.flight.lock().unwrap_or_else(PoisonError::into_inner);
            match &*current {
                Some(flight) => flight.clone(),
                None => {
                    let (tell, flight) = watch::channel(None);
                    *current = Some(flight.clone());
                    let exporter = Arc::clone(self);
                    tokio::spawn(async move {
                        let text = exporter.poll().await;
                        // Whoever comes from now on wants newer ones.
                        let current = &exporter.flight;
                        *current.lock().unwrap_or_else(PoisonError::into_inner) = None;
                        tell.send_replace(Some(Bytes::from(text)));
                    });
                    flight
                }
            }
        };
        let body = flight.wait_for(Option::is_some).await.ok()?;
        body.clone()
    }

    /// Asks all sources, at the same time.
    async fn poll(&self) -> String {
        let polls = join_all(self.sources.iter().map(Source::poll)).await;
        let mut all = Numbers::default();
        all.family(UP, "gauge", "Whether the source answered.");
        all.family(SECONDS, "gauge", "How long the source took to answer.");
        all.family(
            LEFT_OUT,
            "gauge",
            "Rows of the source that are more than are read.",
        );
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for ((source, known), poll) in self.sources.iter().zip(known.iter_mut()).zip(polls) {
            add(&mut all, source, &poll, known);
        }
        all.write()
    }
}

const UP: &str = "afcgi_top_source_up";
const SECONDS: &str = "afcgi_top_source_seconds";
const LEFT_OUT: &str = "afcgi_top_source_left_out";

/// Adds the numbers of a source.
fn add(all: &mut Numbers, source: &Source, poll: &Poll, known: &mut Known) {
    let why = poll.answer.as_ref().err();
    known.failures += u64::from(why.is_some());
    if let Some(why) = why.filter(|why| known.why.as_ref() != Some(*why)) {
        super::said::say(&format!("{}: {why}", source.label));
    }
    known.why = why.cloned();
    let uri = source.label.as_str();
    let labels = [("scrape_uri", uri)];
    let up = f64::from(u8::from(poll.answer.is_ok()));
    all.push(UP, &labels, up);
    all.push(SECONDS, &labels, poll.took.as_secs_f64());
    let left_out = poll
        .answer
        .as_ref()
        .map_or(0, |answer| answer.page(uri).left_out);
    all.push(LEFT_OUT, &labels, left_out as f64);
    let mut is_fpm = source.is_fastcgi();
    match &poll.answer {
        Ok(Answer::Fpm(fpm)) => {
            is_fpm = true;
            fpm.pool().clone_into(&mut known.pool);
            all.take(fpm.numbers(uri), labels[0]);
        }
        Ok(Answer::Prometheus(_, numbers)) => all.take(numbers.clone(), labels[0]),
        Ok(answer @ Answer::Module(..)) => all.take(of_module(answer), labels[0]),
        Err(_) => {}
    }
    if is_fpm {
        let labels = [("pool", known.pool.as_str()), ("scrape_uri", uri)];
        all.family("phpfpm_up", "gauge", "Whether PHP-FPM answered.");
        all.push("phpfpm_up", &labels, up);
        let help = "How often PHP-FPM did not answer.";
        all.family("phpfpm_scrape_failures", "counter", help);
        all.push("phpfpm_scrape_failures", &labels, known.failures as f64);
    }
}

/// The numbers of the module's page in JSON, as that page has them for Prometheus.
fn of_module(answer: &Answer) -> Numbers {
    let mut numbers = Numbers::default();
    let Answer::Module(addresses, _) = answer else {
        return numbers;
    };
    for address in addresses {
        let name = address.get("address").and_then(|name| name.as_str());
        let name = clean(name.unwrap_or_default());
        for (key, value) in address {
            let key = if key == "draining" { "held" } else { key };
            let Some((metric, is_total)) = module_name(key) else {
                continue;
            };
            let value = match value.as_bool() {
                Some(yes) => f64::from(u8::from(yes)),
                None => match value.as_f64() {
                    Some(value) => value,
                    None => continue,
                },
            };
            let kind = if is_total { "counter" } else { "gauge" };
            numbers.family(metric, kind, "");
            numbers.push(metric, &[("address", &name)], value);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn text(label: &str, answers: Vec<Result<&str, String>>) -> String {
        let source = Source::parse(label, "/status", Duration::from_secs(1)).expect("a source");
        let (mut known, mut last) = (Known::default(), String::new());
        for body in answers {
            let poll = Poll {
                answer: body.and_then(|body| Answer::read(body.as_bytes())),
                took: Duration::from_millis(2),
                at: Instant::now(),
            };
            let mut all = Numbers::default();
            add(&mut all, &source, &poll, &mut known);
            last = all.write();
        }
        last
    }

    #[test]
    fn a_pool_that_does_not_answer() {
        let page = include_str!("fpm.json");
        let up = text("127.0.0.1:9000", vec![Ok(page)]);
        assert!(
            up.contains("phpfpm_up{pool=\"www\",scrape_uri=\"127.0.0.1:9000\"} 1\n"),
            "{up}"
        );
        // Each label is there once.
        assert!(
            up.contains(
                "phpfpm_accepted_connections{pool=\"www\",scrape_uri=\"127.0.0.1:9000\"} 7\n"
            ),
            "{up}"
        );
        let down = text("127.0.0.1:9000", vec![Ok(page), Err("gone".to_owned())]);
        for line in [
            "phpfpm_up{pool=\"www\",scrape_uri=\"127.0.0.1:9000\"} 0\n",
            "phpfpm_scrape_failures{pool=\"www\",scrape_uri=\"127.0.0.1:9000\"} 1\n",
            "afcgi_top_source_up{scrape_uri=\"127.0.0.1:9000\"} 0\n",
        ] {
            assert!(down.contains(line), "{line} in\n{down}");
        }
        assert!(!down.contains("phpfpm_accepted"), "{down}");
    }

    #[test]
    fn the_module_by_either_page() {
        let json = "{\"addresses\":[{\"address\":\"a\",\"active\":3,\"draining\":1,\"requests\":9,\"multiplexes\":true,\"upgrade\":null}]}";
        let by_json = text("http://a", vec![Ok(json)]);
        let page = "# TYPE fastcgi_multiplex_requests_active gauge\nfastcgi_multiplex_requests_active{address=\"a\"} 3\n";
        let by_text = text("http://a", vec![Ok(page)]);
        let line = "fastcgi_multiplex_requests_active{address=\"a\",scrape_uri=\"http://a\"} 3\n";
        assert!(by_json.contains(line), "{by_json}");
        assert!(by_text.contains(line), "{by_text}");
        for line in [
            "# TYPE fastcgi_multiplex_requests_total counter\n",
            "fastcgi_multiplex_requests_draining{address=\"a\",scrape_uri=\"http://a\"} 1\n",
            "fastcgi_multiplex_application_multiplexes{address=\"a\",scrape_uri=\"http://a\"} 1\n",
        ] {
            assert!(by_json.contains(line), "{line} in\n{by_json}");
        }
        assert!(!by_json.contains("upgrade"), "{by_json}");
        assert!(!by_json.contains("phpfpm"), "{by_json}");
    }
}
