//! The gateway of this project under load while clients leave, the application is killed, its configuration is read again, and it is told
//! to stop.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use afcgi_interop::app::App;
use afcgi_interop::http::{assert_same, client, get, get_ok, noise};
use afcgi_interop::own::{Own, upstream};
use afcgi_interop::process::Signal;
use afcgi_interop::wait::{SOON, eventually};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use reqwest::{Client, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

async fn start() -> (Own, App) {
    let app = App::afcgitest(&[]).await;
    (Own::before(app.port(), "").await, app)
}

async fn stat(client: &Client, gateway: &Own, name: &str) -> u64 {
    let stats = get_ok(client, &gateway.url("/stats")).await;
    let stats: serde_json::Value = serde_json::from_slice(&stats).expect("/stats is JSON");
    stats[name].as_u64().expect("a number")
}

/// The bytes of a body are these, compared as they come.
async fn assert_body(what: &str, response: Response, expected: &[u8]) {
    assert_eq!(response.status().as_u16(), 200, "{what}");
    let (mut pieces, mut left) = (response.bytes_stream(), expected);
    while let Some(piece) = pieces.next().await {
        let piece = piece.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let (now, rest) = left.split_at_checked(piece.len()).expect(what);
        assert_same(what, &piece, now);
        left = rest;
    }
    assert!(left.is_empty(), "{what}: {} bytes are missing", left.len());
}

async fn echo(client: &Client, gateway: &Own, body: Vec<u8>) {
    let request = client.post(gateway.url("/echo")).body(body.clone());
    let response = request.send().await.expect("POST /echo");
    assert_body("/echo", response, &body).await;
}

/// Two hundred of curl at a time.
#[tokio::test]
async fn curl_by_xargs() {
    let (gateway, _app) = start().await;
    let mut shell = Command::new("sh");
    let url = gateway.url("/delay?ms=2000");
    shell.arg("-c").arg(format!(
        "seq 200 | xargs -P 200 -I NUMBER curl --silent --show-error --max-time 60 --noproxy '*' '{url}' | sort | uniq -c"
    ));
    let output = tokio::task::spawn_blocking(move || shell.output());
    let output = output.await.expect("no panic").expect("sh");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.trim(), "200 Hello world", "{output:?}");
    assert_eq!(gateway.upstream("connections_total").await, 1.0);
    gateway.is_idle().await;
}

/// 50 MB up and back, ten at a time, on one connection and in little memory.
#[tokio::test]
async fn large_bodies() {
    const LENGTH: usize = 50_000_000;
    let (mut gateway, _app) = start().await;
    let all = Bytes::from(noise(LENGTH + 10_000, 1));
    let client = client();
    join_all((0..10).map(async |n| {
        // Each is another one.
        let body = all.slice(1000 * n..1000 * n + LENGTH);
        let request = client.post(gateway.url("/echo")).timeout(4 * SOON);
        let response = request.body(body.clone()).send().await.expect("POST /echo");
        assert_body("/echo", response, &body).await;
    }))
    .await;
    assert_eq!(gateway.upstream("connections_total").await, 1.0);
    drop(client);
    gateway.is_idle().await;
    let peak = gateway.process.peak();
    assert!(peak < 100 << 20, "{peak} bytes of memory");
}

/// Everything at a time, and a fifth is given up in the middle.
#[tokio::test]
async fn a_fifth_is_aborted_and_no_byte_is_wrong() {
    const ALL: u64 = 500;
    let (mut gateway, _app) = start().await;
    let client = client();
    let (mut before, mut aborted_before) = (0, 0);
    for round in 1..=2 {
        stream::iter(0..ALL)
            .for_each_concurrent(100, async |n| mixed(&client, &gateway, n).await)
            .await;
        eventually("the aborted ones have ended", SOON, || async {
            match stat(&client, &gateway, "active").await {
                1 => Ok(()),
                active => Err(format!("{active} are active")),
            }
        })
        .await;
        // Half of them leave when they have got something, half after a while, when a busy machine may not have begun with them.
        let aborted = stat(&client, &gateway, "aborted").await;
        assert!(
            (ALL / 10..=ALL / 5).contains(&(aborted - aborted_before)),
            "{aborted}"
        );
        aborted_before = aborted;
        gateway.active(0).await;
        // The second round needs what the first one left.
        let now = gateway.process.resident();
        assert!(
            round == 1 || now < before + (16 << 20),
            "{before} bytes, then {now}"
        );
        before = now;
    }
    assert_eq!(stat(&client, &gateway, "connections").await, 1);
    drop(client);
    gateway.is_idle().await;
    assert!(!gateway.process.log().contains("ERROR"));
}

async fn mixed(client: &Client, gateway: &Own, n: u64) {
    match n % 10 {
        // Those that leave: each would go on for long.
        0 => {
            let path = ["/events?n=2000&ms=50", "/bytes?n=900000000"][(n / 10 % 2) as usize];
            let mut pieces = get(client, &gateway.url(path)).await.bytes_stream();
            pieces.next().await.expect("a piece").expect("a piece");
        }
        5 if n % 20 == 5 => {
            let path = gateway.url("/delay?ms=100000");
            let given_up = client.get(path).timeout(Duration::from_millis(500));
            assert!(given_up.send().await.is_err());
        }
        5 => {
            let mut socket = TcpStream::connect(("127.0.0.1", gateway.port()))
                .await
                .expect("a connection");
            let head = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
            socket.write_all(head.as_bytes()).await.expect("the head");
            socket
                .write_all(&noise(100_000, n))
                .await
                .expect("a part of the body");
            // A client that leaves at once may never have been noticed.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        1 | 6 => echo(client, gateway, noise((n * 97) as usize, n)).await,
        2 | 7 => {
            let length = 200_000 + n as usize;
            let response = get(client, &gateway.url(&format!("/bytes?n={length}"))).await;
            let expected: Vec<u8> = (0..=250).cycle().take(length).collect();
            assert_body("/bytes", response, &expected).await;
        }
        3 => assert_eq!(
            get_ok(client, &gateway.url(&format!("/delay?ms={n}"))).await,
            "Hello world\n"
        ),
        4 => {
            let events = get_ok(client, &gateway.url("/events?n=10&ms=20")).await;
            let expected: String = (0..10).map(|n| format!("data: {n}\n\n")).collect();
            assert_eq!(events, expected);
        }
        _ => assert_eq!(get_ok(client, &gateway.url("/")).await, "Hello world\n"),
    }
}

/// Waits until so many more have succeeded.
async fn more(good: &AtomicUsize, count: usize) {
    let before = good.load(Ordering::Relaxed);
    eventually("requests succeed", 2 * SOON, || async {
        match good.load(Ordering::Relaxed) - before {
            now if now > count => Ok(()),
            now => Err(format!("{now} did")),
        }
    })
    .await;
}

/// What fails shows that it has failed, and after each restart all is served again.
#[tokio::test]
async fn the_application_is_killed_and_restarted_under_load() {
    let (gateway, mut app) = start().await;
    let done = AtomicBool::new(false);
    let (good, bad) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let load = join_all((0..50_u64).map(async |seed| {
        let client = client();
        let mut n = seed;
        while !done.load(Ordering::Relaxed) {
            n += 50;
            let (request, expected) = match n % 3 {
                0 => {
                    let length = (n * 37 % 300_000) as usize;
                    let path = format!("/bytes?n={length}");
                    (
                        client.get(gateway.url(&path)),
                        (0..=250).cycle().take(length).collect(),
                    )
                }
                _ => {
                    let body = noise((n * 37 % 100_000) as usize, n);
                    (client.post(gateway.url("/echo")).body(body.clone()), body)
                }
            };
            match request.send().await {
                Ok(response) if response.status() == 200 => match response.bytes().await {
                    Ok(answer) => {
                        assert_same("the answer", &answer, &expected);
                        good.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    // It broke off, and shows it.
                    Err(_) => _ = bad.fetch_add(1, Ordering::Relaxed),
                },
                Ok(response) => {
                    assert_eq!(response.status().as_u16(), 502);
                    bad.fetch_add(1, Ordering::Relaxed);
                }
                // It broke off so early that the head was not sent yet.
                Err(error) => {
                    assert!(!error.is_connect() && !error.is_timeout(), "{error:?}");
                    bad.fetch_add(1, Ordering::Relaxed);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }));
    let outages = async {
        for _ in 0..4 {
            more(&good, 200).await;
            app.kill().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            app.start_again().await;
        }
        more(&good, 200).await;
        // All of them, by now.
        let failed = bad.load(Ordering::Relaxed);
        more(&good, 200).await;
        assert_eq!(bad.load(Ordering::Relaxed), failed);
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, outages);
    let (good, bad) = (good.into_inner(), bad.into_inner());
    println!("{good} succeeded and {bad} failed");
    assert!(bad > 0, "the kills were not noticed");
    gateway.is_idle().await;
}

/// Its configuration is read again five times, and not one request fails.
#[tokio::test]
async fn reload_under_load() {
    let (mut gateway, app) = start().await;
    let (port, config) = (gateway.port(), gateway.config_path());
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let done = AtomicBool::new(false);
    let good = AtomicUsize::new(0);
    let load = join_all((0..50_u64).map(async |seed| {
        let client = client();
        let mut n = seed;
        while !done.load(Ordering::Relaxed) {
            n += 50;
            if n % 3 == 0 {
                let path = format!("/delay?ms={}", n % 400);
                assert_eq!(get_ok(&client, &url(&path)).await, "Hello world\n");
            } else {
                let body = noise((n * 37 % 50_000) as usize, n);
                let request = client.post(url("/echo")).body(body.clone());
                let response = request.send().await.expect("POST /echo");
                assert_body("/echo", response, &body).await;
            }
            good.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let reloads = async {
        let client = client();
        for n in 1..=5 {
            let text = upstream(app.port(), "");
            let field = format!("set_response_headers = {{ X-Generation = \"{n}\" }}\n");
            std::fs::write(&config, text + &field).expect("the configuration");
            gateway.signal(Signal::HUP);
            eventually("the configuration is used", SOON, || async {
                let response = get(&client, &url("/")).await;
                match response.headers().get("x-generation") {
                    Some(found) if found == &n.to_string() => Ok(()),
                    found => Err(format!("{found:?}")),
                }
            })
            .await;
            more(&good, 200).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, reloads);
    assert_eq!(gateway.metrics().await["reloads_total{result=\"ok\"}"], 5.0);
    assert_eq!(gateway.upstream("connections_total").await, 1.0);
    assert!(!gateway.process.log().contains("ERROR"));
}

/// Told to stop, it lets finish what runs, takes nothing new, and leaves with status 0.
#[tokio::test]
async fn stops_with_held_requests() {
    let (mut gateway, _app) = start().await;
    let (port, url) = (gateway.port(), gateway.url(""));
    let client = client();
    let held = join_all((0..60).map(async |n| match n % 3 {
        0 => assert_eq!(
            get_ok(&client, &format!("{url}/delay?ms=2000")).await,
            "Hello world\n"
        ),
        1 => {
            let events = get_ok(&client, &format!("{url}/events?n=20&ms=100")).await;
            assert!(events.ends_with(b"data: 19\n\n"), "{events:?}");
        }
        _ => {
            let pieces = stream::iter(0..20).then(|n| async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok::<_, std::io::Error>(noise(1000, n))
            });
            let body = reqwest::Body::wrap_stream(pieces);
            let response = client
                .post(format!("{url}/echo"))
                .body(body)
                .send()
                .await
                .expect("POST /echo");
            let expected: Vec<u8> = (0..20).flat_map(|n| noise(1000, n)).collect();
            assert_body("/echo", response, &expected).await;
        }
    }));
    let stop = async {
        gateway.active(60).await;
        gateway.signal(Signal::TERM);
        gateway.logs(&["stopping", "requests=60"]).await;
        eventually("it takes no new connections", SOON, || async {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(_) => Err(String::from("it does")),
                Err(_) => Ok(()),
            }
        })
        .await;
    };
    tokio::join!(held, stop);
    let process = std::cell::RefCell::new(&mut gateway.process);
    let status = eventually("it has left", SOON, || {
        let exited = process.borrow_mut().exited();
        async move { exited.ok_or_else(|| String::from("it runs")) }
    })
    .await;
    assert!(status.success(), "{status}");
}
