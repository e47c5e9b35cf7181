//! Many requests at a time on one connection, and large ones.

use std::time::{Duration, Instant};

use afcgi_interop::app::App;
use afcgi_interop::http::{assert_same, client, get_ok, noise};
use afcgi_interop::wait::{SOON, eventually};
use afcgi_nginx_tests::nginx::Nginx;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use reqwest::Client;

async fn stat(client: &Client, nginx: &Nginx, name: &str) -> u64 {
    let stats = get_ok(client, &nginx.url("/stats")).await;
    let stats: serde_json::Value = serde_json::from_slice(&stats).expect("/stats is JSON");
    stats[name].as_u64().expect("a number")
}

/// So many requests that are held, all at once.
async fn held(count: usize, connections: u64) -> Duration {
    let app = App::afcgitest(&[]).await;
    let nginx = Nginx::before(app.port(), "fastcgi_read_timeout 60s;").await;
    let client = client();
    let start = Instant::now();
    let held =
        join_all((0..count).map(async |_| get_ok(&client, &nginx.url("/delay?ms=5000")).await));
    let meanwhile = eventually("all are active at once", SOON, || async {
        match stat(&client, &nginx, "active").await {
            active if active > count as u64 => Ok(stat(&client, &nginx, "connections").await),
            active => Err(format!("{active} are active")),
        }
    });
    let (bodies, found) = tokio::join!(held, meanwhile);
    let took = start.elapsed();
    assert!(bodies.iter().all(|body| body == "Hello world\n"));
    assert_eq!(found, connections, "connections to the application");
    took
}

#[tokio::test]
async fn two_hundred_held_requests_share_one_connection() {
    let took = held(200, 1).await;
    assert!(took < Duration::from_secs(7), "{took:?}");
}

#[tokio::test]
async fn five_thousand_held_requests_share_one_connection() {
    held(5000, 1).await;
}

/// 50 MB up and back, ten at a time.
async fn echoes_large_bodies(more: &str) {
    const LENGTH: usize = 50_000_000;
    let app = App::afcgitest(&[]).await;
    let nginx = Nginx::before(app.port(), more).await;
    let client = client();
    join_all((0..10).map(async |seed| {
        let body = noise(LENGTH, seed);
        let request = client.post(nginx.url("/echo")).timeout(4 * SOON);
        let response = request.body(body.clone()).send().await.expect("POST /echo");
        assert_eq!(response.status().as_u16(), 200);
        assert_same("/echo", &response.bytes().await.expect("the body"), &body);
    }))
    .await;
    assert_eq!(stat(&client, &nginx, "connections").await, 1);
}

#[tokio::test]
async fn large_bodies_buffered() {
    echoes_large_bodies("").await;
}

#[tokio::test]
async fn large_bodies_unbuffered() {
    echoes_large_bodies("fastcgi_buffering off; fastcgi_request_buffering off;").await;
}

#[tokio::test]
async fn large_responses() {
    const LENGTH: usize = 50_000_000;
    let app = App::afcgitest(&[]).await;
    let nginx = Nginx::start(
        1,
        &format!(
            "fastcgi_multiplex on;
             server {{ listen LISTEN;
                 location / {{ fastcgi_pass 127.0.0.1:{0}; }}
                 location /off {{ fastcgi_buffering off; fastcgi_param SCRIPT_NAME /bytes; {1} fastcgi_pass 127.0.0.1:{0}; }} }}",
            app.port(),
            "fastcgi_param QUERY_STRING $query_string; fastcgi_param REQUEST_METHOD $request_method;"
        ),
    )
    .await;
    let client = client();
    let expected: Vec<u8> = (0..=250).cycle().take(LENGTH).collect();
    join_all((0..10).map(async |n| {
        let path = if n % 2 == 0 { "bytes" } else { "off" };
        let body = get_ok(&client, &nginx.url(&format!("/{path}?n={LENGTH}"))).await;
        assert_same(path, &body, &expected);
    }))
    .await;
    assert_eq!(stat(&client, &nginx, "connections").await, 1);
}

/// A thousand requests in random order, of which a fifth is given up in the middle.
#[tokio::test]
async fn a_fifth_is_aborted_and_no_byte_is_wrong() {
    for more in ["", "fastcgi_buffering off; fastcgi_request_buffering off;"] {
        let app = App::afcgitest(&[]).await;
        let nginx = Nginx::before(app.port(), more).await;
        let client = client();
        let mut order: Vec<u64> = (0..1000).collect();
        let random = noise(8 * order.len(), 42);
        for (at, bytes) in random.chunks_exact(8).enumerate() {
            let bytes: [u8; 8] = bytes.try_into().expect("eight bytes");
            order.swap(at, (u64::from_le_bytes(bytes) % 1000) as usize);
        }
        stream::iter(order)
            .for_each_concurrent(100, async |n| {
                if n % 5 == 0 {
                    // It would last for 100 s: it can end in one way only.
                    let url = nginx.url("/events?n=2000&ms=50");
                    let response = client.get(url).send().await.expect("/events");
                    assert_eq!(response.status().as_u16(), 200);
                    let mut events = response.bytes_stream();
                    // A stream may come in any pieces.
                    let mut first = Vec::new();
                    while first.len() < b"data: 0\n\n".len() {
                        let piece = events.next().await.expect("an event");
                        first.extend_from_slice(&piece.expect("an event"));
                    }
                    assert!(first.starts_with(b"data: 0\n\n"), "{first:?}");
                } else {
                    let body = noise((n * 97) as usize, n);
                    let request = client.post(nginx.url("/echo")).body(body.clone());
                    let response = request.send().await.expect("/echo");
                    assert_eq!(response.status().as_u16(), 200);
                    assert_same("/echo", &response.bytes().await.expect("the body"), &body);
                }
            })
            .await;
        eventually("the aborted ones have ended", SOON, || async {
            match stat(&client, &nginx, "active").await {
                1 => Ok(()),
                active => Err(format!("{active} are active")),
            }
        })
        .await;
        assert_eq!(stat(&client, &nginx, "aborted").await, 200);
        assert_eq!(stat(&client, &nginx, "connections").await, 1);
    }
}

/// More requests than may be on the connections wait for their turn.
#[tokio::test]
async fn requests_wait_for_a_place() {
    let app = App::afcgitest(&[]).await;
    let nginx = Nginx::start(
        1,
        &format!(
            "upstream app {{ server 127.0.0.1:{}; fastcgi_multiplex connections=2 requests=5; }}
             server {{ listen LISTEN; location / {{ fastcgi_pass app; }} }}",
            app.port()
        ),
    )
    .await;
    let client = client();
    eventually("both connections are there", SOON, || async {
        match stat(&client, &nginx, "connections").await {
            2 => Ok(()),
            found => Err(found.to_string()),
        }
    })
    .await;
    let start = Instant::now();
    let held = join_all((0..20).map(async |_| get_ok(&client, &nginx.url("/delay?ms=500")).await));
    assert!(held.await.iter().all(|body| body == "Hello world\n"));
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(990), "two rounds in {took:?}");
    assert_eq!(stat(&client, &nginx, "connections").await, 2);
    // As many as there are places may wait beside those that have one.
    let responses = join_all((0..40).map(|_| client.get(nginx.url("/delay?ms=500")).send())).await;
    let refused = responses
        .into_iter()
        .filter(|response| response.as_ref().expect("an answer").status() == 502)
        .count();
    assert_eq!(refused, 20);
}

/// Subrequests are requests of their own on the same connection.
#[tokio::test]
async fn ssi_subrequests() {
    let app = App::afcgitest(&[]).await;
    let nginx = Nginx::start(
        1,
        &format!(
            "fastcgi_multiplex on;
             server {{ listen LISTEN;
                 location / {{ fastcgi_pass 127.0.0.1:{}; }}
                 location = /page.html {{ ssi on; root .; }} }}",
            app.port()
        ),
    )
    .await;
    let page: String = (0..20)
        .map(|n| format!("{n}<!--#include virtual=\"/status?code=2{n:02}\" -->\n"))
        .collect();
    std::fs::write(nginx.dir().join("page.html"), page).expect("page.html");
    let client = client();
    let body = get_ok(&client, &nginx.url("/page.html")).await;
    let body = String::from_utf8(body.to_vec()).expect("text");
    for n in 0..20 {
        // 204 has no body, and 206 none that fits.
        if n != 4 && n != 5 {
            assert!(body.contains(&format!("{n}2{n:02}")), "{n} in:\n{body}");
        }
    }
    assert_eq!(stat(&client, &nginx, "connections").await, 1);
}
