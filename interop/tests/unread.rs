//! A body that the application does not read, on a connection for one request: its answer reaches the client. An application that closed such a
//! connection at once would reset it, and the web server would answer 502 in its place.

use afcgi_interop::app::App;
use afcgi_interop::gateway::{Gateway, Kind};
use afcgi_interop::http::{client, get_ok, noise};
use reqwest::header::CONNECTION;

/// Four MiB, more than the buffers of the sockets in between.
const BODY: usize = 4 << 20;

async fn answers(kind: Kind) {
    let app = App::afcgitest(&[]).await;
    let gateway = Gateway::start(kind, app.port()).await;
    let client = client();
    let body = noise(BODY, 5);
    for round in 0..10 {
        // Neither reads the body.
        for (path, status) in [("/status?code=413", 413), ("/delay?ms=20", 200)] {
            // A web server that has answered before it had all of the body ends the connection.
            let request = client.post(gateway.url(path)).header(CONNECTION, "close");
            let response = request.body(body.clone()).send().await.expect("an answer");
            assert_eq!(response.status(), status, "{path}, round {round}");
            response.bytes().await.expect("all of it");
        }
    }
    get_ok(&client, &gateway.url("/")).await;
}

#[tokio::test]
async fn behind_nginx() {
    answers(Kind::Nginx).await;
}

#[tokio::test]
async fn behind_lighttpd() {
    answers(Kind::Lighttpd).await;
}

#[tokio::test]
async fn behind_apache() {
    answers(Kind::Apache).await;
}

#[tokio::test]
async fn behind_caddy() {
    answers(Kind::Caddy).await;
}
