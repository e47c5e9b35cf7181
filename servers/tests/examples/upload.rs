//! `upload`, directly and behind nginx.

use std::convert::Infallible;
use std::path::Path;

use afcgi_interop::http::{client, get_ok, noise};
use afcgi_interop::wait::{SOON, eventually};
use afcgi_proto::Role;
use bytes::Bytes;
use futures_util::stream;
use reqwest::{Body, Client};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::client::{Output, params};
use crate::common::{Server, Web};

const UPLOAD: &str = env!("CARGO_BIN_EXE_upload");
const MIB: usize = 1024 * 1024;

async fn behind_nginx(server: &Server) -> Web {
    let socket = server.socket();
    let pass = "fastcgi_request_buffering off; fastcgi_pass";
    Web::nginx(&format!(
        "location / {{ {pass} unix:{}; }}",
        socket.display()
    ))
    .await
}

fn line(body: &[u8]) -> String {
    format!("{} bytes, sha256 {:x}", body.len(), Sha256::digest(body))
}

/// Waits until the list of uploads holds a text.
async fn lists(client: &Client, web: &Web, text: &str) {
    eventually(&format!("{text:?} is listed"), SOON, || async {
        let list = get_ok(client, &web.url("/")).await;
        let list = String::from_utf8_lossy(&list).into_owned();
        if list.contains(text) {
            Ok(())
        } else {
            Err(list)
        }
    })
    .await;
}

fn files(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("a folder");
    files
        .map(|file| {
            file.expect("a file")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect()
}

#[tokio::test]
async fn size_and_checksum_are_told() {
    let server = Server::start(UPLOAD, &[]).await;
    let (web, client) = (behind_nginx(&server).await, client());
    for (number, length) in [0, 1, 65_536, 3_000_001].into_iter().enumerate() {
        let body = noise(length, length as u64);
        let request = client
            .post(web.url("/any/path"))
            .header("Content-Length", length)
            .body(body.clone());
        let answer = request
            .send()
            .await
            .expect("POST")
            .text()
            .await
            .expect("text");
        assert_eq!(answer, line(&body) + "\n");
        lists(&client, &web, &format!("{}: {}", number + 1, line(&body))).await;
    }
    let put = client
        .put(web.url("/"))
        .body("x")
        .send()
        .await
        .expect("PUT");
    assert_eq!(put.text().await.expect("text"), line(b"x") + "\n");
}

#[tokio::test]
async fn what_is_held_does_not_grow_with_the_upload() {
    let mut server = Server::start(UPLOAD, &[]).await;
    let (web, client) = (behind_nginx(&server).await, client());
    let piece = Bytes::from(noise(MIB, 1));
    let upload = async |pieces: usize| {
        let body = stream::iter(std::iter::repeat_n(
            Ok::<_, Infallible>(piece.clone()),
            pieces,
        ));
        let request = client
            .post(web.url("/"))
            .header("Content-Length", pieces * MIB);
        let answer = request
            .body(Body::wrap_stream(body))
            .send()
            .await
            .expect("POST");
        let answer = answer.text().await.expect("text");
        assert!(
            answer.starts_with(&format!("{} bytes", pieces * MIB)),
            "{answer}"
        );
    };
    upload(4).await;
    let before = server.process.resident();
    upload(200).await;
    let after = server.process.resident();
    assert!(
        after < before + 8 * MIB as u64,
        "{before} bytes before, {after} after"
    );
}

#[tokio::test]
async fn complete_uploads_are_kept_and_others_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let keep = ["--keep", folder.path().to_str().expect("a path")];
    let server = Server::start(UPLOAD, &keep).await;
    let (web, client) = (behind_nginx(&server).await, client());
    let body = noise(5_000_000, 7);
    let hash = format!("{:x}", Sha256::digest(&body));
    client
        .post(web.url("/"))
        .body(body.clone())
        .send()
        .await
        .expect("POST");
    assert_eq!(files(folder.path()), [&*hash]);
    assert!(std::fs::read(folder.path().join(&hash)).expect("the file") == body);

    let mut socket = broken_off(&web).await;
    lists(
        &client,
        &web,
        "2: under way, 100000 of 1000000 bytes (10 %)",
    )
    .await;
    assert_eq!(files(folder.path()).len(), 2);
    socket.shutdown().await.expect("the end");
    drop(socket);
    lists(
        &client,
        &web,
        "2: broke off after 100000 of 1000000 bytes (10 %)",
    )
    .await;
    assert_eq!(files(folder.path()), [&*hash]);
    assert!(
        server.process.log().contains("broke off"),
        "{}",
        server.process.log()
    );
}

/// A client that sends a tenth of a body.
async fn broken_off(web: &Web) -> TcpStream {
    let host = web.url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(host).await.expect("a connection");
    let head = format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n");
    socket.write_all(head.as_bytes()).await.expect("the head");
    socket.write_all(&noise(100_000, 1)).await.expect("a part");
    socket
}

#[tokio::test]
async fn r57_r59_each_way_of_breaking_off_is_noticed() {
    let server = Server::start(UPLOAD, &[]).await;
    let mut client = server.client().await;
    let mut post = params("POST", "/");
    post.push(("CONTENT_LENGTH".into(), "10".into()));
    // STDIN ends early.
    let short = client.begin(Role::Responder, &post).await;
    client.send(short, Output::Stdin, b"short").await;
    let answer = client.finish(short).await;
    assert_eq!(
        (answer.status, answer.text()),
        (
            400,
            "the client broke off, 5 bytes before the end of the body\n"
        )
    );
    // The web server gives the request up.
    let aborted = client.begin(Role::Responder, &post).await;
    client.send_part(aborted, Output::Stdin, b"abor").await;
    wait_for(&server, "under way, 4 of 10").await;
    client.abort(aborted).await;
    wait_for(&server, "2: broke off after 4 of 10 bytes (40 %)").await;
    // The connection is lost.
    let lost = client.begin(Role::Responder, &post).await;
    client.send_part(lost, Output::Stdin, b"gone").await;
    wait_for(&server, "3: under way, 4 of 10").await;
    drop(client);
    wait_for(&server, "3: broke off after 4 of 10 bytes (40 %)").await;
    assert!(
        server
            .client()
            .await
            .get("/")
            .await
            .text()
            .starts_with("1: broke off after 5 of 10 bytes (50 %)\n")
    );
}

/// Waits until the list of uploads holds a text.
async fn wait_for(server: &Server, text: &str) {
    eventually(&format!("{text:?} is listed"), SOON, || async {
        let list = server.client().await.get("/").await.text().to_owned();
        if list.contains(text) {
            Ok(())
        } else {
            Err(list)
        }
    })
    .await;
}
