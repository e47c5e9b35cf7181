//! The client against our own server.

mod common;

use afcgi::client::Client;
use afcgi::http;
use axum::Router;
use axum::routing::get;
use common::{Served, patient, serve};
use http_body_util::{BodyExt, Full};

type Request = ::http::Request<Full<bytes::Bytes>>;

fn to(path: &str) -> Request {
    ::http::Request::get(format!("http://host.test{path}"))
        .body(Full::default())
        .unwrap()
}

async fn text(client: &Client, request: Request) -> String {
    let response = patient(client.request(request)).await.unwrap();
    let body = patient(response.into_body().collect()).await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

async fn client_of(server: &Served) -> Client {
    patient(Client::connect(&server.addr.to_string()))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_request_is_answered() {
    let app = Router::new().route("/hello", get(async || "hello"));
    let server = serve(afcgi::Config::default(), http(app));
    let client = client_of(&server).await;
    let response = patient(client.request(to("/hello"))).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; charset=utf-8"
    );
    let body = patient(response.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), "hello");
    for _ in 0..100 {
        assert_eq!(text(&client, to("/hello")).await, "hello");
    }
    let stats = client.stats();
    assert_eq!((stats.requests, stats.opened, stats.active), (101, 1, 0));
    assert_eq!(server.stats.snapshot().served, 101);
}
