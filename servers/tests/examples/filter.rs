//! `filter`, by a client that plays the web server. Behind the gateway it is tested with that.

use afcgi_proto::{Handle, Role};

use crate::common::Server;
use crate::common::client::{Client, Output, params};

const FILTER: &str = env!("CARGO_BIN_EXE_filter");
const MODIFIED: &str = "Sun, 09 Sep 2001 01:46:40 GMT";

async fn begin(client: &mut Client, length: &str, more: &[(&str, &str)]) -> Handle {
    let mut params = params("GET", "/file.txt");
    let data = [
        ("FCGI_DATA_LAST_MOD", "1000000000"),
        ("FCGI_DATA_LENGTH", length),
    ];
    params.extend(
        data.iter()
            .chain(more)
            .map(|&(name, value)| (name.to_owned(), value.to_owned())),
    );
    client.begin(Role::Filter, &params).await
}

#[tokio::test]
async fn r55_a_file_comes_back_in_upper_case() {
    let server = Server::start(FILTER, &[]).await;
    let mut client = server.client().await;
    let request = begin(&mut client, "16", &[("CONTENT_LENGTH", "4")]).await;
    client.send(request, Output::Stdin, b"body").await;
    client
        .send(request, Output::Data, "two\nl\u{ef}nes, 1 ae".as_bytes())
        .await;
    let answer = client.finish(request).await;
    assert_eq!(answer.text(), "TWO\nL\u{ef}NES, 1 AE");
    assert_eq!(answer.field("content-length"), Some("16"));
    assert_eq!(answer.field("last-modified"), Some(MODIFIED));
    assert_eq!(answer.end.app_status, 0);
}

#[tokio::test]
async fn r55_a_large_file_passes_through() {
    let server = Server::start(FILTER, &[]).await;
    let mut client = server.client().await;
    let file = b"All of it. ".repeat(500_000);
    let request = begin(&mut client, &file.len().to_string(), &[]).await;
    client.send(request, Output::Stdin, b"").await;
    client.send(request, Output::Data, &file).await;
    let answer = client.finish(request).await;
    assert_eq!(answer.end.app_status, 0);
    assert!(answer.body == file.to_ascii_uppercase());
}

#[tokio::test]
async fn r55_what_was_not_modified_is_not_sent() {
    let server = Server::start(FILTER, &[]).await;
    let mut client = server.client().await;
    for (since, status) in [
        (MODIFIED, 304),
        ("Mon, 10 Sep 2001 01:46:40 GMT", 304),
        ("Sat, 08 Sep 2001 01:46:40 GMT", 200),
        ("yesterday", 200),
    ] {
        let request = begin(&mut client, "1", &[("HTTP_IF_MODIFIED_SINCE", since)]).await;
        client.send(request, Output::Stdin, b"").await;
        client.send(request, Output::Data, b"x").await;
        assert_eq!(client.finish(request).await.status, status, "{since}");
    }
}

#[tokio::test]
async fn r59_a_file_that_ends_early_is_a_failure() {
    let server = Server::start(FILTER, &[]).await;
    let mut client = server.client().await;
    let request = begin(&mut client, "100", &[]).await;
    client.send(request, Output::Stdin, b"").await;
    client.send(request, Output::Data, b"short").await;
    let answer = client.finish(request).await;
    assert_eq!((answer.text(), answer.end.app_status), ("SHORT", 1));
}

#[tokio::test]
async fn other_roles_are_answered() {
    let server = Server::start(FILTER, &[]).await;
    assert_eq!(server.client().await.get("/").await.status, 501);
}
