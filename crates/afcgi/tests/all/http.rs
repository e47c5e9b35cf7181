//! An axum application over FastCGI: the request that it sees, and the response that it gives.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{Served, eventually, serve};
use afcgi::{Body, Config, Over, Params, RemoteAddr, http};
use afcgi_proto::Role;
use afcgi_proto::params::encode_pair;
use afcgi_proto::web::Output;
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::{AppendHeaders, IntoResponse};
use axum::routing::{any, get, post};
use axum::{Extension, Router};
use http_body_util::{BodyExt, StreamBody};
use hyper::ext::ReasonPhrase;
use tokio::sync::Notify;

/// What a web server such as nginx passes.
const USUAL: &[(&str, &str)] = &[
    ("SCRIPT_NAME", "/decoded path"),
    ("REQUEST_URI", "/show%20me?a=1&b=%2F"),
    ("QUERY_STRING", "a=1&b=%2F"),
    ("REQUEST_METHOD", "POST"),
    ("SERVER_PROTOCOL", "HTTP/1.0"),
    ("CONTENT_TYPE", "text/plain"),
    ("CONTENT_LENGTH", "4"),
    ("HTTP_CONTENT_LENGTH", "4"),
    ("REMOTE_ADDR", "192.0.2.7"),
    ("REMOTE_PORT", "1234"),
    ("HTTP_HOST", "example.org"),
    ("HTTP_X_FORWARDED_FOR", "198.51.100.1"),
    ("HTTP_COOKIE", "a=1"),
    ("HTTP_COOKIE", "b=2"),
    ("HTTP_PROXY", "http://evil.example"),
    ("HTTP_TRANSFER_ENCODING", "chunked"),
    ("HTTP_BAD NAME", "x"),
    ("HTTP_X_BAD_VALUE", "x\ny"),
];

async fn show(request: Request) -> String {
    let (parts, _) = request.into_parts();
    let mut lines = vec![
        format!("{} {} {:?}", parts.method, parts.uri, parts.version),
        format!("remote {}", parts.extensions.get::<RemoteAddr>().unwrap()),
        format!("params {}", parts.extensions.get::<Params>().unwrap().len()),
        format!("over {}", parts.extensions.get::<Over>().unwrap().is_over()),
    ];
    let mut headers: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    headers.sort();
    lines.extend(headers);
    lines.join("\n")
}

fn serve_router(router: Router) -> Served {
    serve(Config::default(), http(router))
}

async fn ask(server: &Served, params: &[(&str, &str)], body: &[u8]) -> String {
    let mut client = server.client().await;
    let request = client.begin(Role::Responder, params);
    client.put(request, Output::Stdin, body);
    client.connection.end(request, Output::Stdin).unwrap();
    client.answer(request).await.text()
}

#[tokio::test]
async fn the_request_is_what_the_client_sent() {
    let server = serve_router(Router::new().fallback(any(show)));
    let answer = ask(&server, USUAL, b"body").await;
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(
        body.lines().collect::<Vec<_>>(),
        [
            "POST /show%20me?a=1&b=%2F HTTP/1.0",
            "remote 192.0.2.7:1234",
            "params 18",
            "over false",
            "content-length: 4",
            "content-type: text/plain",
            "cookie: a=1",
            "cookie: b=2",
            "host: example.org",
            "x-forwarded-for: 198.51.100.1",
        ]
    );
}

#[tokio::test]
async fn without_request_uri_the_path_is_encoded_again() {
    let server = serve_router(Router::new().fallback(any(|request: Request| async move {
        request.uri().to_string()
    })));
    let params = [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", "/a b"),
        ("PATH_INFO", "/c?d%"),
        ("QUERY_STRING", "q=%20"),
    ];
    let answer = ask(&server, &params, b"").await;
    assert!(
        answer.ends_with("\r\n\r\n/a%20b/c%3Fd%25?q=%20"),
        "{answer}"
    );
    let answer = ask(&server, &[], b"").await;
    assert!(answer.ends_with("\r\n\r\n/"), "{answer}");
}

#[tokio::test]
async fn what_no_uri_may_hold_is_encoded() {
    let server = serve_router(Router::new().fallback(any(|request: Request| async move {
        request.uri().to_string()
    })));
    for (name, value, expected) in [
        (
            "REQUEST_URI",
            "/\"<a>`?\"<b>`",
            "/%22%3Ca%3E%60?%22%3Cb%3E%60",
        ),
        ("REQUEST_URI", "/a b?c d", "/a%20b?c%20d"),
        ("REQUEST_URI", "/süß?ö=€", "/s%C3%BC%C3%9F?%C3%B6=%E2%82%AC"),
        // What is encoded stays as it is, and so does what only looks like it.
        ("REQUEST_URI", "/%22%zz%?%", "/%22%zz%?%"),
        (
            "REQUEST_URI",
            "/[a]{b}|^\\?[a]{b}|^\\",
            "/[a]{b}|^\\?[a]{b}|^\\",
        ),
        ("QUERY_STRING", "\"ö\"", "/?%22%C3%B6%22"),
    ] {
        let answer = ask(&server, &[(name, value)], b"").await;
        let (_, uri) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(uri, expected);
    }
}

#[tokio::test]
async fn a_uri_that_is_too_long_is_answered_414() {
    let server = serve_router(Router::new());
    let long = format!("/{}", "ü".repeat(11_000));
    let answer = ask(&server, &[("REQUEST_URI", &long)], b"").await;
    assert!(answer.starts_with("Status: 414 "), "{answer}");
}

#[tokio::test]
async fn more_fields_than_http_has_room_for_are_answered_431() {
    let mut config = Config::default();
    config.connection.params_bytes = 1 << 20;
    config.connection.params_pairs = 100_000;
    let server = serve(config, http(Router::new()));
    let mut client = server.client().await;
    let names: Vec<String> = (0..40_000).map(|n| format!("HTTP_X{n}")).collect();
    for pairs in [&names[..], &vec!["HTTP_A".to_owned(); 40_000]] {
        let handle = client.connection.open().unwrap();
        client.connection.begin(handle, Role::Responder).unwrap();
        for some in pairs.chunks(1000) {
            let mut encoded = Vec::new();
            for name in some {
                encode_pair(&mut encoded, name.as_bytes(), b"");
            }
            client.put(handle, Output::Params, &encoded);
            client.flush().await;
        }
        client.connection.end(handle, Output::Params).unwrap();
        client.connection.end(handle, Output::Stdin).unwrap();
        let answer = client.answer(handle).await;
        assert!(answer.text().starts_with("Status: 431 "), "{answer:?}");
    }
}

#[tokio::test]
async fn bad_parameters_are_answered_400() {
    let server = serve_router(Router::new());
    for (name, value, text) in [
        ("REQUEST_METHOD", "GET IT", "REQUEST_METHOD is no method"),
        ("REQUEST_URI", "/a\nb", "REQUEST_URI is no URI"),
        ("REQUEST_URI", "/a\0", "REQUEST_URI is no URI"),
        ("REQUEST_URI", "a b/c", "REQUEST_URI is no URI"),
        ("QUERY_STRING", "a\rb", "REQUEST_URI is no URI"),
        ("CONTENT_LENGTH", "ten", "CONTENT_LENGTH is no number"),
        ("CONTENT_LENGTH", "-1", "CONTENT_LENGTH is no number"),
    ] {
        let answer = ask(&server, &[(name, value)], b"").await;
        assert!(
            answer.starts_with("Status: 400 Bad Request\r\n"),
            "{answer}"
        );
        assert!(answer.contains(text), "{answer}");
    }
}

#[tokio::test]
async fn r58_the_response_is_a_cgi_response() {
    let router = Router::new()
        .route("/plain", get(|| async { "hello" }))
        .route(
            "/empty",
            get(|| async { axum::http::StatusCode::NO_CONTENT }),
        )
        .route(
            "/headers",
            get(|| async {
                let headers = [
                    ("set-cookie", "a=1"),
                    ("set-cookie", "b=2"),
                    ("connection", "close"),
                    ("status", "500"),
                    ("transfer-encoding", "chunked"),
                ];
                (
                    axum::http::StatusCode::CREATED,
                    AppendHeaders(headers),
                    "made",
                )
            }),
        )
        .route(
            "/reason",
            get(|| async { Extension(ReasonPhrase::from_static(b"So Be It")) }),
        );
    let server = serve_router(router);
    let get = |method: &'static str, uri: &'static str| {
        [("REQUEST_METHOD", method), ("REQUEST_URI", uri)]
    };
    assert_eq!(
        ask(&server, &get("GET", "/plain"), b"").await,
        "Status: 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 5\r\n\r\nhello"
    );
    let head = ask(&server, &get("HEAD", "/plain"), b"").await;
    assert!(
        head.contains("content-length: 5") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert_eq!(
        ask(&server, &get("GET", "/empty"), b"").await,
        "Status: 204 No Content\r\n\r\n"
    );
    let reason = ask(&server, &get("GET", "/reason"), b"").await;
    assert!(reason.starts_with("Status: 200 So Be It\r\n"), "{reason}");
    let headers = ask(&server, &get("GET", "/headers"), b"").await;
    assert!(headers.starts_with("Status: 201 Created\r\n"), "{headers}");
    assert!(
        headers.contains("set-cookie: a=1\r\nset-cookie: b=2\r\n"),
        "{headers}"
    );
    for gone in ["connection", "\r\nstatus", "transfer-encoding"] {
        assert!(!headers.contains(gone), "{headers}");
    }
    let missing = ask(&server, &get("GET", "/missing"), b"").await;
    assert!(
        missing.starts_with("Status: 404 Not Found\r\n"),
        "{missing}"
    );
}

#[tokio::test]
async fn bodies_stream() {
    let go = Arc::new(Notify::new());
    let gate = Arc::clone(&go);
    let router = Router::new()
        .route(
            "/stream",
            get(move || async move {
                let (sender, receiver) = tokio::sync::mpsc::channel::<&str>(1);
                tokio::spawn(async move {
                    for part in ["one", "two"] {
                        gate.notified().await;
                        sender.send(part).await.unwrap();
                    }
                });
                let stream = futures_stream(receiver);
                axum::body::Body::new(StreamBody::new(stream)).into_response()
            }),
        )
        .route(
            "/count",
            post(|body: Bytes| async move { body.len().to_string() }),
        );
    let server = serve_router(router);
    let mut client = server.client().await;
    let request = client.begin(
        Role::Responder,
        &[("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/stream")],
    );
    client.connection.end(request, Output::Stdin).unwrap();
    // The head does not wait for the body, nor one part of it for the next.
    let head = client.stdout(request, 1).await;
    assert!(head.ends_with(b"\r\n\r\n"), "{}", head.escape_ascii());
    go.notify_one();
    assert_eq!(client.stdout(request, 3).await, b"one");
    go.notify_one();
    assert_eq!(client.answer(request).await.stdout, "two");

    let body = vec![b'x'; 30_000];
    let params = [
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_URI", "/count"),
        ("CONTENT_LENGTH", "30000"),
    ];
    assert!(
        ask(&server, &params, &body)
            .await
            .ends_with("\r\n\r\n30000")
    );
    // No more than was announced is given, and less is an error.
    let longer = [&body[..], b"and more"].concat();
    assert!(
        ask(&server, &params, &longer)
            .await
            .ends_with("\r\n\r\n30000")
    );
    let short = ask(&server, &params, &body[..100]).await;
    assert!(short.starts_with("Status: 400"), "{short}");
    // Of a length that nobody announced.
    assert!(
        ask(&server, &params[..2], &body)
            .await
            .ends_with("\r\n\r\n30000")
    );
}

fn futures_stream(
    mut receiver: tokio::sync::mpsc::Receiver<&'static str>,
) -> impl futures_util::Stream<Item = Result<http_body::Frame<Bytes>, Infallible>> {
    futures_util::stream::poll_fn(move |cx| {
        receiver
            .poll_recv(cx)
            .map(|part| part.map(|part| Ok(http_body::Frame::data(Bytes::from(part)))))
    })
}

#[tokio::test]
async fn r54_a_service_can_be_an_authorizer() {
    let router = Router::new().fallback(any(|request: Request| async move {
        match request.headers().get("authorization") {
            Some(_) => [("Variable-USER", "ada")].into_response(),
            None => axum::http::StatusCode::UNAUTHORIZED.into_response(),
        }
    }));
    let server = serve_router(router);
    let mut client = server.client().await;
    let allowed = client.begin(Role::Authorizer, &[("HTTP_AUTHORIZATION", "x")]);
    let text = client.answer(allowed).await.text();
    assert!(
        text.starts_with("Status: 200 OK\r\nvariable-user: ada\r\n"),
        "{text}"
    );
    let denied = client.begin(Role::Authorizer, &[]);
    let text = client.answer(denied).await.text();
    assert!(text.starts_with("Status: 401 Unauthorized\r\n"), "{text}");
    let filter = client.begin(Role::Filter, &[]);
    client.connection.end(filter, Output::Stdin).unwrap();
    let text = client.answer(filter).await.text();
    assert!(
        text.starts_with("Status: 501 Not Implemented\r\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_service_or_a_body_that_fails_is_answered_500() {
    let service = tower::service_fn(|request: ::http::Request<Body>| async move {
        if request.uri() == "/service" {
            return Err("no database");
        }
        let broken = futures_util::stream::iter([Err::<http_body::Frame<Bytes>, _>("broken")]);
        Ok(::http::Response::new(StreamBody::new(broken)))
    });
    let server = serve(Config::default(), http(service));
    for uri in ["/service", "/body"] {
        let answer = ask(&server, &[("REQUEST_URI", uri)], b"").await;
        assert!(answer.starts_with("Status: 500 "), "{answer}");
        assert!(
            !answer.contains("database"),
            "what failed is for the log: {answer}"
        );
    }
}

#[tokio::test]
async fn over_tells_what_a_handler_set_going() {
    let told = Arc::new(Notify::new());
    let tell = Arc::clone(&told);
    let router = Router::new().fallback(any(move |Extension(over): Extension<Over>| async move {
        tokio::spawn(async move {
            over.wait().await;
            tell.notify_one();
        });
        std::future::pending::<()>().await;
    }));
    let server = serve_router(router);
    let mut client = server.client().await;
    client.get("/");
    client.flush().await;
    eventually("it is active", || server.stats.snapshot().active == 1).await;
    drop(client);
    tokio::time::timeout(Duration::from_secs(20), told.notified())
        .await
        .expect("over is told");
}

#[tokio::test]
async fn a_body_can_be_collected() {
    let service = tower::service_fn(|request: ::http::Request<Body>| async move {
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, afcgi::BodyError>(::http::Response::new(http_body_util::Full::new(body)))
    });
    let server = serve(Config::default(), http(service));
    let answer = ask(&server, &[("CONTENT_LENGTH", "2")], b"hi").await;
    assert!(answer.ends_with("\r\n\r\nhi"), "{answer}");
}
