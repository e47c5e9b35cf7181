//! WebSocket through lighttpd, which tunnels to FastCGI applications from version 1.4.74 on without FCGI_UPGRADE (`docs/upgrade.md`).
//!
//! An older one, such as that of Debian 12, is tested for what it does instead. The environment variable LIGHTTPD names another one.

use afcgi_interop::app::App;
use afcgi_interop::gateway::{Gateway, Kind, lighttpd_tunnels};
use afcgi_interop::http::{client, get_ok};
use afcgi_interop::websocket;
use tokio_tungstenite::tungstenite::Error;

const BY_HEADER: &[&str] = &["--upgrade-by-header"];

/// The example behind lighttpd; `None`, after having seen that it does not tunnel, behind one that is too old.
async fn rig() -> Option<(Gateway, App)> {
    let app = App::websocket(BY_HEADER).await;
    let gateway = Gateway::start(Kind::Lighttpd, app.port()).await;
    if lighttpd_tunnels() {
        return Some((gateway, app));
    }
    // It gives status 101 to the client without `Upgrade`, and the tunnel as a body in pieces.
    let refused = websocket::try_connect(&gateway.url("/echo")).await;
    assert!(matches!(refused, Err(Error::Protocol(_))), "{refused:?}");
    let page = get_ok(&client(), &gateway.url("/")).await;
    assert!(page.starts_with(b"<!doctype html>"));
    None
}

#[tokio::test]
async fn echo() {
    if let Some((gateway, _app)) = rig().await {
        websocket::echoes(&gateway.url("/echo")).await;
    }
}

#[tokio::test]
async fn echo_of_megabytes() {
    if let Some((gateway, _app)) = rig().await {
        websocket::echoes_megabytes(&gateway.url("/echo")).await;
    }
}

#[tokio::test]
async fn closing_from_both_sides() {
    if let Some((gateway, _app)) = rig().await {
        websocket::the_client_closes(&gateway.url("/echo")).await;
        websocket::the_application_closes(&gateway.url("/board")).await;
    }
}

#[tokio::test]
async fn whiteboard() {
    if let Some((gateway, _app)) = rig().await {
        websocket::whiteboard(&gateway.url("/")).await;
    }
}

#[tokio::test]
async fn afcgitest() {
    let app = App::afcgitest(BY_HEADER).await;
    let gateway = Gateway::start(Kind::Lighttpd, app.port()).await;
    let url = gateway.url("/websocket");
    if lighttpd_tunnels() {
        websocket::echoes(&url).await;
    } else {
        assert!(websocket::try_connect(&url).await.is_err());
    }
}

/// Without that setting a request of lighttpd's is not upgraded, and the client is told.
#[tokio::test]
async fn not_by_itself() {
    let app = App::websocket(&[]).await;
    let gateway = Gateway::start(Kind::Lighttpd, app.port()).await;
    let Err(Error::Http(answer)) = websocket::try_connect(&gateway.url("/echo")).await else {
        panic!("no HTTP answer");
    };
    assert_eq!(answer.status(), 426);
}
