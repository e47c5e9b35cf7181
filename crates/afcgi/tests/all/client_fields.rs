//! What the fields about a connection become on the way to an application.

use crate::common::peer::text;
use crate::common::serve;
use afcgi::client::{Client, asks_for_upgrade, remove_hop_by_hop};
use afcgi::{Params, http};
use axum::Router;
use axum::extract::Extension;
use axum::routing::any;
use bytes::Bytes;
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

fn values(told: &[String], name: &str) -> Option<String> {
    let start = format!("HTTP_{name}=");
    told.iter()
        .find_map(|line| line.strip_prefix(&start).map(str::to_owned))
}

/// What is added on the way a client cannot take away by naming it.
#[tokio::test]
async fn connection_names_what_the_client_sent_and_no_more() {
    let request = || {
        ::http::Request::get("/")
            .header(
                "connection",
                "X-Operator, keep-alive,x-own , Cookie, host, x-forwarded-for, \"x\"",
            )
            .header("connection", "x-more, x-real-ip, authorization")
            .header("host", "example.org")
            .header("x-own", "1")
            .header("x-more", "1")
            .header("cookie", "a=1")
            .header("authorization", "x")
            .header("x-forwarded-for", "192.0.2.1")
            .header("keep-alive", "1")
            .header("http2-settings", "x")
            .header("upgrade", "websocket")
            .body(Full::default())
            .unwrap()
    };
    let mut consumed = request();
    remove_hop_by_hop(consumed.headers_mut());
    let operator = "operator".parse().unwrap();
    consumed.headers_mut().insert("x-operator", operator);
    let told_then = told(consumed).await;
    // Whoever does not call it gets the client's fields, and none of the operator's is lost.
    let mut as_it_came = request();
    let operator = "operator".parse().unwrap();
    as_it_came.headers_mut().insert("x-operator", operator);
    let told_so = told(as_it_came).await;
    for (told, own) in [(told_then, None), (told_so, Some("1"))] {
        for (name, value) in [
            ("X_OPERATOR", Some("operator")),
            ("X_OWN", own),
            ("X_MORE", own),
            ("COOKIE", Some("a=1")),
            ("AUTHORIZATION", Some("x")),
            ("HOST", Some("example.org")),
            ("X_FORWARDED_FOR", Some("192.0.2.1")),
            ("KEEP_ALIVE", None),
            ("HTTP2_SETTINGS", None),
            ("CONNECTION", None),
            ("UPGRADE", None),
        ] {
            assert_eq!(values(&told, name).as_deref(), value, "{name}: {told:#?}");
        }
    }
}

#[test]
fn who_asks_for_an_upgrade_still_does() {
    for (connection, upgrade, stays) in [
        ("keep-alive, Upgrade", Some("websocket"), true),
        ("upgrade", None, false),
        ("keep-alive", Some("websocket"), false),
    ] {
        let mut request = ::http::Request::get("/").header("connection", connection);
        if let Some(upgrade) = upgrade {
            request = request.header("upgrade", upgrade);
        }
        let mut request = request.body(()).unwrap();
        remove_hop_by_hop(request.headers_mut());
        let left = request.headers();
        match stays {
            true => assert_eq!(
                (&left["connection"], left.len()),
                (&"upgrade".parse().unwrap(), 2)
            ),
            false => assert!(left.is_empty(), "{left:?}"),
        }
        assert_eq!(asks_for_upgrade(&request.into_parts().0, false), stays);
    }
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
