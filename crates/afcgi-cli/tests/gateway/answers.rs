//! What becomes of an application's answers: redirects, reason phrases, and the fields beside a file in place of a response.

use afcgi_interop::http::client;
use axum::Router;
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::routing::any;

use crate::rig::Rig;
use crate::routes::{app, native};

/// All of the answer to `GET /`.
async fn raw(answer: &'static [u8]) -> String {
    let port = native(answer).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{port}")]).await;
    rig.raw(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
}

#[tokio::test]
async fn a_redirect_takes_along_what_is_beside_it() {
    let login = raw(b"Location: /welcome\r\nSet-Cookie: session=1\r\n\r\n").await;
    assert!(login.starts_with("HTTP/1.1 302 Found\r\n"), "{login}");
    assert!(login.contains("\r\nlocation: /welcome\r\n"), "{login}");
    assert!(login.contains("\r\nset-cookie: session=1\r\n"), "{login}");
    let body = raw(b"Location: /welcome\r\n\r\nmoved").await;
    assert!(body.starts_with("HTTP/1.1 302 Found\r\n"), "{body}");
    assert!(body.contains("moved"), "{body}");
    let fragment = raw(b"Location: /page#part\r\n\r\n").await;
    assert!(
        fragment.contains("\r\nlocation: /page#part\r\n"),
        "{fragment}"
    );
    // The application redirects for ever.
    let local = raw(b"Location: /welcome\r\n\r\n").await;
    assert!(local.starts_with("HTTP/1.1 50"), "{local}");
}

#[tokio::test]
async fn a_reason_is_kept() {
    for (answer, line) in [
        (
            &b"Status: 404 Gone Fishing\r\n\r\n"[..],
            "HTTP/1.1 404 Gone Fishing\r\n",
        ),
        (b"Status: 404\r\n\r\n", "HTTP/1.1 404 Not Found\r\n"),
        (b"Status: 599\r\n\r\n", "HTTP/1.1 599 \r\n"),
        (b"Status: 599 Mine\r\n\r\n", "HTTP/1.1 599 Mine\r\n"),
    ] {
        let answer = raw(answer).await;
        assert!(answer.starts_with(line), "{answer}");
    }
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::config(&format!(
        "[[route]]\nroot = \"{}\"\ntry_files = [\"=599\"]",
        dir.path().display()
    ))
    .await;
    let own = rig
        .raw(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    assert!(own.starts_with("HTTP/1.1 599 Error\r\n"), "{own}");
}

/// What the application says of its file is said of the file alone, and not of a text that is sent instead.
#[tokio::test]
async fn fields_beside_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::fs::write(root.join("a.bin"), "0123456789").unwrap();
    let port = app(Router::new().fallback(any(async |uri: Uri| {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-accel-redirect", "/protected/a.bin"),
            ("content-type", "application/pdf"),
            ("content-disposition", "attachment"),
            ("cache-control", "private"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if uri.path() == "/gzip" {
            headers.insert("content-encoding", HeaderValue::from_static("x-mine"));
        }
        headers
    })))
    .await;
    let rig = Rig::config(&format!(
        "[upstream.a]\naddresses = [\"127.0.0.1:{port}\"]\n\
         [[route]]\nupstream = \"a\"\nsendfile = {{ \"/protected/\" = \"{}\" }}",
        root.display()
    ))
    .await;
    let client = client();
    let ask = async |path: &str, name: &'static str, value: &'static str| {
        let request = client.get(rig.url(path)).header(name, value);
        request.send().await.unwrap()
    };
    let field = |response: &reqwest::Response, name: &str| {
        let value = response.headers().get(name);
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    let several = ask("/", "range", "bytes=0-1,4-5").await;
    assert_eq!(several.status(), 206);
    let kind = field(&several, "content-type").unwrap();
    assert!(
        kind.starts_with("multipart/byteranges; boundary="),
        "{kind}"
    );
    let body = several.text().await.unwrap();
    assert!(body.contains("Content-Type: application/pdf\r\n"), "{body}");
    for (name, value, status) in [("range", "bytes=99-", 416), ("if-match", "\"x\"", 412)] {
        let response = ask("/", name, value).await;
        assert_eq!(response.status(), status);
        let kind = field(&response, "content-type");
        assert_eq!(kind.as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(field(&response, "content-disposition"), None);
        let cache = field(&response, "cache-control");
        assert_eq!(cache.as_deref(), Some("private"));
    }
    let same = ask("/", "if-none-match", "*").await;
    assert_eq!(same.status(), 304);
    assert!(field(&same, "etag").is_some());
    // The coding would be taken for that of all parts together.
    let coded = ask("/gzip", "range", "bytes=0-1,4-5").await;
    assert_eq!(coded.status(), 200);
    assert_eq!(field(&coded, "content-encoding").as_deref(), Some("x-mine"));
    assert_eq!(coded.text().await.unwrap(), "0123456789");
    assert_eq!(ask("/gzip", "range", "bytes=0-1").await.status(), 206);
}
