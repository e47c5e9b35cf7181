//! `authorizer`, directly, as lighttpd's authorizer and as nginx's `auth_request`.
//!
//! The request that follows is `afcgitest`'s, which shows what parameters came with it.

use afcgi_interop::http::client;
use afcgi_proto::Role;
use reqwest::{Response, StatusCode};
use tempfile::NamedTempFile;

use crate::common::client::Output;
use crate::common::{Server, Web, command, left, start};

const AUTHORIZER: &str = env!("CARGO_BIN_EXE_authorizer");
const AFCGITEST: &str = env!("CARGO_BIN_EXE_afcgitest");

/// alice:secret:with colon, mallory:x, alice:wrong
const ALICE: &str = "Basic YWxpY2U6c2VjcmV0OndpdGggY29sb24=";
const MALLORY: &str = "Basic bWFsbG9yeTp4";
const WRONG: &str = "Basic YWxpY2U6d3Jvbmc=";

fn users() -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "alice:secret:with colon\n\nmallory:x\n").expect("users");
    file
}

async fn authorizer(users: &NamedTempFile) -> Server {
    let path = users.path().to_str().expect("a path");
    Server::start(AUTHORIZER, &["--users", path, "--blocked", "mallory"]).await
}

#[tokio::test]
async fn r54_who_is_known_may_pass() {
    let users = users();
    let server = authorizer(&users).await;
    let mut client = server.client().await;
    for (authorization, status, user) in [
        (Some(ALICE), 200, Some("alice")),
        (Some(MALLORY), 403, None),
        (Some(WRONG), 401, None),
        (Some("Basic ????"), 401, None),
        (Some("Bearer YWxpY2U6"), 401, None),
        (None, 401, None),
    ] {
        // What a client says of itself does not count, and of a body there is only the length.
        let mut params = vec![
            ("REQUEST_METHOD", "POST"),
            ("REQUEST_URI", "/x"),
            ("REMOTE_USER", "root"),
            ("CONTENT_LENGTH", "9"),
        ];
        params.extend(authorization.map(|value| ("HTTP_AUTHORIZATION", value)));
        let params: Vec<_> = params
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let request = client.begin(Role::Authorizer, &params).await;
        client.send(request, Output::Stdin, b"").await;
        let answer = client.finish(request).await;
        assert_eq!(answer.status, status, "{authorization:?}");
        assert_eq!(answer.field("variable-remote_user"), user);
        assert_eq!(answer.field("variable-auth_type"), user.map(|_| "Basic"));
        assert_eq!(answer.field("www-authenticate").is_some(), status == 401);
        assert_eq!(answer.end.app_status, 0);
    }
}

#[tokio::test]
async fn users_that_cannot_be_read_are_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("users");
    for (text, expected) in [
        (None, "users: No such file"),
        (
            Some("alice:x\nbob\n"),
            "users, line 2: expected NAME:PASSWORD",
        ),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text).expect("users");
        }
        let mut command = command(AUTHORIZER);
        command.arg("--users").arg(&file).arg("127.0.0.1:0");
        let mut process = start(&command, folder.path());
        assert_eq!(left(&mut process).await.code(), Some(1));
        assert!(process.log().contains(expected), "{}", process.log());
    }
}

async fn get(web: &Web, authorization: Option<&str>) -> Response {
    let mut request = client().get(web.url("/env?x"));
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    request.send().await.expect("GET")
}

async fn guards(web: &Web) {
    let refused = get(web, None).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(refused.headers().contains_key("www-authenticate"));
    assert_eq!(
        get(web, Some(WRONG)).await.status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        get(web, Some(MALLORY)).await.status(),
        StatusCode::FORBIDDEN
    );
    let passed = get(web, Some(ALICE)).await;
    assert_eq!(passed.status(), StatusCode::OK);
    assert!(!passed.headers().contains_key("variable-remote_user"));
    let env = passed.text().await.expect("text");
    let lines: Vec<&str> = env.lines().collect();
    assert!(lines.contains(&"REMOTE_USER=alice"), "{env}");
    assert!(lines.contains(&"QUERY_STRING=x"), "{env}");
}

#[tokio::test]
async fn r54_it_is_an_authorizer_of_lighttpd() {
    let users = users();
    let (mut authorizer, app) = (
        authorizer(&users).await,
        Server::start(AFCGITEST, &[]).await,
    );
    let documents = tempfile::tempdir().expect("a folder");
    std::fs::write(documents.path().join("secret.txt"), "secret").expect("a file");
    // After its authorizer, lighttpd looks for a file before it asks a responder.
    std::fs::write(documents.path().join("env"), "").expect("a file");
    let fastcgi = format!(
        r#"fastcgi.server = (
            "/" => ((
                "socket" => "{}",
                "mode" => "authorizer",
                "check-local" => "disable",
                "docroot" => "{}",
            )),
            "/env" => (( "socket" => "{}" )),
        )"#,
        authorizer.socket().display(),
        documents.path().display(),
        app.socket().display(),
    );
    let web = Web::lighttpd(documents.path(), &fastcgi).await;
    let file = client().get(web.url("/secret.txt"));
    let refused = file
        .try_clone()
        .expect("a request")
        .send()
        .await
        .expect("GET");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let passed = file
        .header("Authorization", ALICE)
        .send()
        .await
        .expect("GET");
    assert_eq!(passed.text().await.expect("text"), "secret");
    guards(&web).await;
    // Without its authorizer it fails closed.
    assert!(authorizer.process.stop().success());
    assert!(get(&web, Some(ALICE)).await.status().is_server_error());
}

#[tokio::test]
async fn it_answers_auth_request_of_nginx() {
    let users = users();
    let (mut authorizer, app) = (
        authorizer(&users).await,
        Server::start(AFCGITEST, &[]).await,
    );
    let web = Web::nginx(&format!(
        "location / {{
            auth_request /authorize;
            auth_request_set $user $upstream_http_variable_remote_user;
            include /etc/nginx/fastcgi_params;
            fastcgi_param REMOTE_USER $user;
            fastcgi_pass unix:{};
        }}
        location = /authorize {{ internal; fastcgi_pass_request_body off; fastcgi_pass unix:{}; }}",
        app.socket().display(),
        authorizer.socket().display(),
    ))
    .await;
    guards(&web).await;
    // Without its authorizer it fails closed.
    assert!(authorizer.process.stop().success());
    assert!(get(&web, Some(ALICE)).await.status().is_server_error());
}
