//! Routes: hosts and prefixes, parameters and header rules, an authorizer, and files in place of responses.

use afcgi::{Listener, Server};
use afcgi_interop::app::App;
use afcgi_interop::http::{client, get};
use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::any;
use reqwest::Response;

use crate::rig::Rig;

/// Runs an application in this process; the port that it listens on.
pub(crate) async fn app(router: Router) -> u16 {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(Server::new().listen(listener).serve(afcgi::http(router)));
    port
}

async fn ask(rig: &Rig, host: &str, path: &str) -> Response {
    let request = client().get(rig.url(path)).header("host", host);
    request.send().await.unwrap()
}

/// Runs an application in this process that answers every request with the same bytes; its port.
pub(crate) async fn native(answer: &'static [u8]) -> u16 {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let app =
        afcgi::native(async move |request: afcgi::Request| request.stdout().write(answer).await);
    tokio::spawn(Server::new().listen(listener).serve(app));
    port
}

#[tokio::test]
async fn by_host_and_path() {
    let backend = App::afcgitest(&[]).await;
    let config = format!(
        r#"
        [upstream.app]
        addresses = ["127.0.0.1:{}"]

        [[route]]
        upstream = "app"
        params = {{ WHICH = "all", REMOTE_ADDR = "set" }}
        server_name = "canonical"
        set_request_headers = {{ X-Added = "yes" }}
        remove_request_headers = ["Cookie"]
        set_response_headers = {{ Strict-Transport-Security = "max-age=1", Content-Type = "text/x" }}
        remove_response_headers = ["Content-Length"]

        [[route]]
        hosts = ["*.example.org"]
        upstream = "app"
        params = {{ WHICH = "below" }}

        [[route]]
        hosts = ["www.example.org"]
        path = "/env/"
        script_name = "/env"
        upstream = "app"
        params = {{ WHICH = "api" }}
        "#,
        backend.port()
    );
    let rig = Rig::config(&config).await;
    for (host, path, which) in [
        ("other.org", "/env", "all"),
        ("example.org", "/env", "all"),
        ("api.example.org:80", "/env", "below"),
        ("API.Example.ORG.", "/env", "below"),
        ("a.b.example.org", "/env", "below"),
        ("www.example.org", "/env", "api"),
        ("www.example.org", "//%65nv", "api"),
    ] {
        let body = ask(&rig, host, path).await.text().await.unwrap();
        assert!(
            body.contains(&format!("\nWHICH={which}\n"))
                || body.ends_with(&format!("WHICH={which}\n")),
            "{host}{path}: {body}"
        );
    }
    let body = ask(&rig, "www.example.org", "/env")
        .await
        .text()
        .await
        .unwrap();
    assert!(
        body.contains(
            "SCRIPT_NAME=/env
"
        ) && !body.contains("PATH_INFO"),
        "{body}"
    );
    let request = client().get(rig.url("/env")).header("cookie", "a=b");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["strict-transport-security"], "max-age=1");
    assert_eq!(response.headers()["content-type"], "text/x");
    let body = response.text().await.unwrap();
    for line in [
        "HTTP_X_ADDED=yes",
        "SERVER_NAME=canonical",
        "REMOTE_ADDR=set",
    ] {
        assert!(body.lines().any(|found| found == line), "{line}: {body}");
    }
    assert!(
        !body.contains("HTTP_COOKIE") && !body.contains("SERVER_NAME=127"),
        "{body}"
    );
}

#[tokio::test]
async fn nothing_for_other_hosts() {
    let backend = App::afcgitest(&[]).await;
    let config = format!(
        "[upstream.a]\naddresses = [\"127.0.0.1:{}\"]\n[[route]]\nupstream = \"a\"\nhosts = [\"a.org\"]",
        backend.port()
    );
    let rig = Rig::config(&config).await;
    assert_eq!(ask(&rig, "a.org", "/").await.status(), 200);
    assert_eq!(ask(&rig, "b.org", "/").await.status(), 404);
}

#[tokio::test]
async fn an_authorizer() {
    let backend = App::afcgitest(&[]).await;
    let guard = app(Router::new().fallback(any(
        async |headers: HeaderMap, uri: Uri| match headers.get("authorization") {
            Some(value) if value == "let me in" => {
                let path = uri.path().to_owned();
                (
                    StatusCode::OK,
                    [
                        ("variable-remote_user", "ada".to_owned()),
                        ("variable-asked", path),
                    ],
                    "",
                )
            }
            _ => (
                StatusCode::UNAUTHORIZED,
                [
                    ("www-authenticate", "Basic".to_owned()),
                    ("x-b", String::new()),
                ],
                "who are you?",
            ),
        },
    )))
    .await;
    let redirects = native(b"Location: /env\r\n\r\n").await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "file").unwrap();
    let config = format!(
        "[upstream.app]\naddresses = [\"127.0.0.1:{}\"]\n[upstream.guard]\naddresses = [\"127.0.0.1:{guard}\"]\n\
         [upstream.gone]\naddresses = [\"127.0.0.1:1\"]\n\
         [upstream.open]\naddresses = [\"127.0.0.1:{redirects}\"]\n\
         [[route]]\npath = \"/open\"\nupstream = \"open\"\n\
         [[route]]\nupstream = \"app\"\nauthorizer = \"guard\"\n\
         [[route]]\npath = \"/files\"\nroot = \"{}\"\nstrip = true\nauthorizer = \"guard\"\n\
         [[route]]\npath = \"/gone\"\nupstream = \"app\"\nauthorizer = \"gone\"",
        backend.port(),
        dir.path().display()
    );
    let rig = Rig::config(&config).await;
    let refused = get(&client(), &rig.url("/env")).await;
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["www-authenticate"], "Basic");
    assert_eq!(refused.text().await.unwrap(), "who are you?");
    assert_eq!(get(&client(), &rig.url("/files/a.txt")).await.status(), 401);
    let with = async |path| {
        let request = client()
            .get(rig.url(path))
            .header("authorization", "let me in");
        request.send().await.unwrap()
    };
    let body = with("/env").await.text().await.unwrap();
    assert!(
        body.contains("REMOTE_USER=ada\n") && body.contains("ASKED=/env\n"),
        "{body}"
    );
    assert_eq!(with("/files/a.txt").await.text().await.unwrap(), "file");
    // A redirect within the application does not lead around it.
    let around = get(&client(), &rig.url("/open")).await;
    assert_eq!(around.status(), 302);
    assert_eq!(around.headers()["location"], "/env");
    // One that cannot be asked lets nobody in.
    assert_eq!(with("/gone/env").await.status(), 502);
}

#[tokio::test]
async fn files_in_place_of_responses() {
    let dir = tempfile::tempdir().unwrap();
    let private = dir.path().join("private");
    std::fs::create_dir(&private).unwrap();
    std::fs::write(private.join("a.txt"), "0123456789").unwrap();
    std::fs::write(dir.path().join("secret.txt"), "secret").unwrap();
    let root = private.canonicalize().unwrap().display().to_string();
    let port = app(Router::new().fallback(any({
        async |uri: Uri| {
            let (name, value) = uri.query().unwrap().split_once('=').unwrap();
            let header = if name == "accel" {
                "x-accel-redirect"
            } else {
                "x-sendfile"
            };
            let mut headers = HeaderMap::new();
            headers.insert(header, value.parse().unwrap());
            headers.insert("content-type", "application/x-mine".parse().unwrap());
            headers.append("set-cookie", "a=1".parse().unwrap());
            headers.append("set-cookie", "b=2".parse().unwrap());
            (headers, "not this")
        }
    })))
    .await;
    let config = format!(
        "[upstream.a]\naddresses = [\"127.0.0.1:{port}\"]\n\
         [[route]]\nupstream = \"a\"\nsendfile = {{ \"/protected/\" = \"{root}\" }}\n\
         [[route]]\npath = \"/plain\"\nupstream = \"a\""
    );
    let rig = Rig::config(&config).await;
    for query in [
        "accel=/protected/a.txt".to_owned(),
        format!("sendfile={root}/a.txt"),
    ] {
        let request = client()
            .get(rig.url(&format!("/?{query}")))
            .header("range", "bytes=2-4");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 206, "{query}");
        assert_eq!(response.headers()["content-type"], "application/x-mine");
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        assert!(
            !response.headers().contains_key("x-sendfile")
                && !response.headers().contains_key("x-accel-redirect")
        );
        assert_eq!(response.text().await.unwrap(), "234");
    }
    for query in [
        "accel=/protected/../secret.txt",
        "accel=/protected/no",
        "sendfile=/etc/passwd",
    ] {
        assert_eq!(
            get(&client(), &rig.url(&format!("/?{query}")))
                .await
                .status(),
            404,
            "{query}"
        );
    }
    rig.logs(&["ERROR", "/etc/passwd", "`sendfile`"]).await;
    // Where no folder is for it the name stays inside.
    let plain = get(&client(), &rig.url("/plain?sendfile=/etc/passwd")).await;
    assert!(!plain.headers().contains_key("x-sendfile"));
    assert_eq!(plain.text().await.unwrap(), "not this");
}

#[tokio::test]
async fn several_addresses() {
    let (one, other) = (App::afcgitest(&[]).await, App::afcgitest(&[]).await);
    let addresses = [&one, &other].map(|app| format!("127.0.0.1:{}", app.port()));
    let rig = Rig::flags(&[&addresses[0], &addresses[1], "127.0.0.1:1"]).await;
    let client = client();
    for _ in 0..20 {
        assert_eq!(get(&client, &rig.url("/")).await.status(), 200);
    }
    let metrics = get(&client, &rig.admin_url("/metrics"))
        .await
        .text()
        .await
        .unwrap();
    for line in [
        "afcgi_gateway_requests_total{code=\"2xx\"} 20",
        "afcgi_gateway_upstream_connections{upstream=\"command-line\"} 2",
        "afcgi_gateway_upstream_up{upstream=\"command-line\",address=\"127.0.0.1:1\"} 0",
        "afcgi_gateway_request_duration_seconds_count 20",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}:\n{metrics}"
        );
    }
    assert_eq!(get(&client, &rig.admin_url("/health")).await.status(), 200);
    assert_eq!(get(&client, &rig.admin_url("/other")).await.status(), 404);
}
