//! An nginx whose numbers are looked at, and how they are.

use afcgi_interop::http::get_ok;
use afcgi_interop::wait::{SOON, eventually};
use afcgi_nginx_tests::nginx::Nginx;
use reqwest::Client;
use serde_json::Value;
use std::time::Duration;

/// An access log of the variables, and where the numbers are shown.
pub(crate) const SEEN: &str = "
    log_format seen '$request_uri $status $fastcgi_multiplex_connection $fastcgi_multiplex_id '
        '$fastcgi_multiplex_waited $fastcgi_multiplex_aborted $fastcgi_multiplex_stalled';
    fastcgi_multiplex on;
";
pub(crate) const STATUS: &str =
    "access_log access.log seen; location /-/ { access_log off; fastcgi_multiplex_status; }";

/// An nginx that passes everything to an application on a port, but for the page at `/-/`.
pub(crate) async fn watched(workers: u32, app: u16, more: &str) -> Nginx {
    let server = format!(
        "upstream tight {{ server 127.0.0.1:{app}; fastcgi_multiplex overflow=0; }}
        server {{ listen LISTEN reuseport; {STATUS}
            location /tight/ {{ fastcgi_buffering off; fastcgi_pass tight; }}
            location / {{ {more} fastcgi_pass 127.0.0.1:{app}; }}
            location /own/ {{ root /nowhere; }}
            location /off/ {{ fastcgi_multiplex off; fastcgi_pass 127.0.0.1:{app}; }} }}"
    );
    Nginx::start(workers, &format!("{SEEN} {server}")).await
}

/// The values in the access log for a path: status, connection, id, waited, aborted, stalled.
pub(crate) async fn logged(nginx: &Nginx, path: &str) -> [String; 6] {
    let file = nginx.dir().join("access.log");
    eventually(&format!("{path} is logged"), SOON, || async {
        let log = std::fs::read_to_string(&file).unwrap_or_default();
        let line = log
            .lines()
            .find(|line| line.starts_with(&format!("{path} ")));
        let words: Vec<_> = line.unwrap_or_default().split(' ').skip(1).collect();
        <[&str; 6]>::try_from(words)
            .map(|words| words.map(str::to_owned))
            .map_err(|_| log.clone())
    })
    .await
}

pub(crate) fn seconds(text: &str) -> f64 {
    let (_, fraction) = text.split_once('.').expect("a point");
    assert_eq!(fraction.len(), 3, "milliseconds in {text}");
    text.parse().expect("a number")
}

/// The page as JSON.
pub(crate) async fn page(client: &Client, nginx: &Nginx) -> Value {
    let body = get_ok(client, &nginx.url("/-/?format=json")).await;
    serde_json::from_slice(&body).expect("JSON")
}

/// The numbers of the only address.
pub(crate) async fn numbers(client: &Client, nginx: &Nginx) -> Value {
    let page = page(client, nginx).await;
    let addresses = page["addresses"].as_array().expect("an array");
    assert_eq!(addresses.len(), 1, "{page}");
    addresses[0].clone()
}

/// Waits until the only address has such numbers.
pub(crate) async fn shows(client: &Client, nginx: &Nginx, expected: &[(&str, u64)]) -> Value {
    eventually(&format!("{expected:?}"), SOON, || async {
        let page = page(client, nginx).await;
        let found = page["addresses"][0].clone();
        let right = expected.iter().all(|(key, value)| found[key] == *value);
        if right {
            Ok(found)
        } else {
            Err(page.to_string())
        }
    })
    .await
}

pub(crate) async fn gives_up(client: &Client, url: &str) {
    let request = client.get(url).timeout(Duration::from_millis(300));
    assert!(request.send().await.is_err());
}
