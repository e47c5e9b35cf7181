//! What the fields about a connection become on the way to an application.

mod common;

use afcgi::client::Client;
use afcgi::{Params, http};
use axum::Router;
use axum::extract::Extension;
use axum::routing::any;
use bytes::Bytes;
use common::peer::text;
use common::serve;
use http_body_util::Full;

/// What an application was told, one `NAME=value` on each line.
async fn told(request: ::http::Request<Full<Bytes>>) -> Vec<String> {
    let app = any(async |Extension(params): Extension<Params>| {
        params
            .iter()
            .map(|(name, value)| format!("{}={}\n", name.escape_ascii(), value.escape_ascii()))
            .collect::<String>()
    });
    let app = http(Router::new().fallback_service(app));
    let server = serve(afcgi::Config::default(), app);
    let client = Client::builder().address(server.addr.to_string());
    let text = text(&client.build().unwrap(), request).await;
    text.lines().map(str::to_owned).collect()
}

/// `docs/upgrade.md`, rule 3.
#[tokio::test]
async fn one_rule_says_what_is_offered_an_upgrade() {
    for (method, connection, upgrade, body, offered) in [
        ("GET", "upgrade", &["websocket"][..], "", true),
        ("GET", "keep-alive, Upgrade", &["a/1", "b"], "", true),
        ("POST", "upgrade", &["websocket"], "", false),
        ("GET", "upgrade", &["websocket"], "body", false),
        ("GET", "keep-alive", &["websocket"], "", false),
        ("GET", "upgrade", &["h2c"], "", false),
        ("GET", "upgrade", &["websocket", "H2C"], "", false),
        ("GET", "upgrade", &["web socket"], "", false),
        ("GET", "upgrade", &[], "", false),
    ] {
        let mut request = ::http::Request::builder()
            .method(method)
            .uri("/")
            .header("connection", connection);
        for upgrade in upgrade {
            request = request.header("upgrade", *upgrade);
        }
        let told = told(request.body(Full::from(body)).unwrap()).await;
        let case = format!("{method} {connection} {upgrade:?} {body}: {told:#?}");
        let wanted = format!("HTTP_UPGRADE={}", upgrade.join(", "));
        assert_eq!(
            told.contains(&"FCGI_UPGRADE=1".to_owned()),
            offered,
            "{case}"
        );
        assert_eq!(told.contains(&wanted), offered, "{case}");
        let named = told.iter().any(|line| line.contains("UPGRADE"));
        assert_eq!(named, offered, "{case}");
    }
}
