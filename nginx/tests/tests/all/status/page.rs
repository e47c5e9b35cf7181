//! The page of `fastcgi_multiplex_status`.

use afcgi_interop::app::App;
use afcgi_interop::fake::{Fake, end, next_request, response, values, write};
use afcgi_interop::http::{client, get, get_ok};
use afcgi_interop::raw::{self, kind, record};
use afcgi_interop::wait::{SOON, eventually};
use afcgi_nginx_tests::nginx::{Nginx, check};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::*;

/// It does not know flow control, and answers two requests at once, the first with 13 MB.
async fn large_then_small() -> Fake {
    Fake::start(async |mut socket, _| {
        next_request(&mut socket, Some(&values(true))).await;
        let Some(second) = next_request(&mut socket, None).await else {
            return;
        };
        let mut bytes = record(kind::STDOUT, 1, b"Content-Type: text/plain\r\n\r\n");
        for _ in 0..400 {
            bytes.extend(record(kind::STDOUT, 1, &[b'x'; 32768]));
        }
        bytes.extend(response(second, "late"));
        write(&mut socket, &bytes).await;
        while raw::read(&mut socket).await.is_some() {}
    })
    .await
}

/// A client that sends a request and reads nothing.
async fn slow_client(nginx: &Nginx) -> TcpStream {
    let mut slow = TcpStream::connect(("127.0.0.1", nginx.port()))
        .await
        .expect("nginx");
    let request = b"GET /tight/slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    slow.write_all(request).await.expect("a request");
    slow
}

/// A response that nobody reads is given up, and the other request of the connection goes on, though the client of the first stays.
#[tokio::test]
async fn a_slow_reader_is_told_of() {
    let app = large_then_small().await;
    let nginx = watched(1, app.port(), "").await;
    let client = client();
    let slow = slow_client(&nginx).await;
    shows(&client, &nginx, &[("active", 1)]).await;
    let url = nginx.url("/tight/other");
    let (body, found) = tokio::join!(
        get_ok(&client, &url),
        shows(&client, &nginx, &[("active", 2), ("stalls", 1)])
    );
    assert_eq!(body, "late");
    assert_eq!(found["flow_control"], false);
    shows(&client, &nginx, &[("stall_aborts", 1), ("aborts", 1)]).await;
    drop(slow);
    let [.., aborted, stalled] = logged(&nginx, "/tight/slow").await;
    assert_eq!(aborted, "1");
    assert!((4.0..25.0).contains(&seconds(&stalled)), "{stalled}");
    let [.., aborted, stalled] = logged(&nginx, "/tight/other").await;
    assert_eq!((&*aborted, &*stalled), ("0", "0.000"));
}

/// The other request goes on at once when the client leaves that has read nothing.
#[tokio::test]
async fn a_slow_reader_leaves() {
    let app = large_then_small().await;
    let nginx = watched(1, app.port(), "").await;
    let client = client();
    let slow = slow_client(&nginx).await;
    shows(&client, &nginx, &[("active", 1)]).await;
    let url = nginx.url("/tight/other");
    let (body, ()) = tokio::join!(get_ok(&client, &url), async {
        shows(&client, &nginx, &[("active", 2), ("stalls", 1)]).await;
        drop(slow);
    });
    assert_eq!(body, "late");
    let [.., aborted, stalled] = logged(&nginx, "/tight/slow").await;
    assert_eq!(aborted, "1");
    assert!(seconds(&stalled) < 5.0, "{stalled}");
    shows(&client, &nginx, &[("stall_aborts", 0), ("aborts", 1)]).await;
}

#[tokio::test]
async fn numbers_of_two_workers() {
    let app = App::afcgitest(&[]).await;
    let nginx = watched(2, app.port(), "").await;
    let client = client();
    // Until each worker has a connection.
    eventually("both workers have served", SOON, || async {
        // With connections of its own, which the kernel spreads.
        let client = afcgi_interop::http::client();
        join_all((0..20).map(async |_| get_ok(&client, &nginx.url("/delay?ms=20")).await)).await;
        match &numbers(&client, &nginx).await["connections"] {
            found if *found == 2 => Ok(()),
            found => Err(found.to_string()),
        }
    })
    .await;
    let before = numbers(&client, &nginx).await;
    assert_eq!(before["address"], format!("127.0.0.1:{}", app.port()));
    assert_eq!(before["connects"], 2);
    assert_eq!(before["multiplexes"], true);
    assert_eq!(before["flow_control"], true);
    let held = join_all((0..30).map(async |_| get_ok(&client, &nginx.url("/delay?ms=3000")).await));
    let (_, found) = tokio::join!(held, shows(&client, &nginx, &[("active", 30)]));
    assert_eq!(found["connections"], 2);
    let done = [
        ("active", 0),
        ("draining", 0),
        ("waiting", 0),
        ("connections", 2),
    ];
    let after = shows(&client, &nginx, &done).await;
    let begun = |page: &Value| page["requests"].as_u64().expect("a number");
    assert_eq!(begun(&after), begun(&before) + 30);
    for key in [
        "aborts",
        "stalls",
        "stall_aborts",
        "refusals",
        "connect_failures",
        "retired",
    ] {
        assert_eq!(after[key], 0, "{key}");
    }
}

/// Bytes are those on the connection to the application.
#[tokio::test]
async fn bytes_and_refusals() {
    let app = Fake::start(async |mut socket, n| {
        while let Some(found) = raw::read(&mut socket).await {
            match found.kind {
                kind::GET_VALUES => write(&mut socket, &values(true)).await,
                kind::BEGIN_REQUEST if n == 0 => write(&mut socket, &end(found.id, 2)).await,
                _ => {}
            }
        }
    })
    .await;
    let nginx = watched(1, app.port(), "").await;
    let client = client();
    let response = get(&client, &nginx.url("/")).await;
    assert_eq!(response.status().as_u16(), 502);
    let found = shows(&client, &nginx, &[("refusals", 1), ("active", 0)]).await;
    let received = values(true).len() + end(1, 2).len();
    assert_eq!(found["bytes_received"], received);
    assert!(found["bytes_sent"].as_u64() > Some(200), "{found}");
    let [.., id, _, aborted, _] = logged(&nginx, "/").await;
    assert_eq!(
        (&*id, &*aborted),
        ("1", "0"),
        "the application has ended it"
    );
}

#[tokio::test]
async fn an_application_that_is_not_there_or_does_not_multiplex() {
    let single = Fake::start(async |mut socket, _| {
        while let Some(id) = next_request(&mut socket, Some(&values(false))).await {
            tokio::time::sleep(Duration::from_secs(2)).await;
            write(&mut socket, &response(id, "served")).await;
        }
    })
    .await;
    let nginx = watched(1, single.port(), "").await;
    let client = client();
    let held = join_all((0..3).map(async |_| get_ok(&client, &nginx.url("/")).await));
    let (_, found) = tokio::join!(held, shows(&client, &nginx, &[("active", 3)]));
    assert_eq!(found["multiplexes"], false);
    assert_eq!(found["upgrade"], false);
    shows(
        &client,
        &nginx,
        &[
            ("active", 0),
            ("connections", 0),
            ("connects", 4),
            ("aborts", 0),
        ],
    )
    .await;
    drop(nginx);

    let port = afcgi_interop::wait::free_port();
    let nginx = watched(1, port, "").await;
    assert_eq!(get(&client, &nginx.url("/x")).await.status().as_u16(), 502);
    let found = shows(&client, &nginx, &[("connect_failures", 1), ("waiting", 0)]).await;
    assert_eq!(found["multiplexes"], Value::Null);
    assert_eq!(found["requests"], 0);
    let [_, connection, _, _, aborted, _] = logged(&nginx, "/x").await;
    assert_eq!((&*connection, &*aborted), ("-", "0"));
}

/// The samples of a page in the text format of Prometheus, by name and labels: every line is looked at.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let mut family = (String::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a help");
            assert!(help.ends_with('.'), "{line}");
            family = (name.to_owned(), String::new());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert_eq!(name, family.0, "a type follows its help");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            family.1 = kind.to_owned();
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            let name = sample.split_once('{').map_or(sample, |(name, labels)| {
                let label = labels.strip_prefix("address=\"").expect("an address");
                label.strip_suffix("\"}").expect("the end of the label");
                name
            });
            assert_eq!(name, family.0, "a sample follows its type");
            assert!(!family.1.is_empty(), "{line}");
            let value = value.parse().expect("a number");
            assert_eq!(found.insert(sample.to_owned(), value), None, "{line}");
        }
    }
    found
}

#[tokio::test]
async fn prometheus_and_methods() {
    let app = App::afcgitest(&[]).await;
    let port = app.port();
    let nginx = Nginx::start(
        1,
        &format!(
            "fastcgi_multiplex on; charset utf-8; charset_types application/json text/plain;
             server {{ listen LISTEN; location / {{ fastcgi_pass 127.0.0.1:{port}; }}
                 location =/json {{ fastcgi_multiplex_status json; }}
                 location =/metrics {{ fastcgi_multiplex_status prometheus; }} }}"
        ),
    )
    .await;
    let client = client();
    for _ in 0..3 {
        get_ok(&client, &nginx.url("/")).await;
    }
    let text = get_ok(&client, &nginx.url("/metrics")).await;
    let text = String::from_utf8(text.to_vec()).expect("UTF-8");
    let found = samples(&text);
    let value =
        |name: &str| found[&format!("fastcgi_multiplex_{name}{{address=\"127.0.0.1:{port}\"}}")];
    assert_eq!(value("requests_total"), 3.0);
    assert_eq!(value("connections"), 1.0);
    assert_eq!(value("requests_active"), 0.0);
    assert_eq!(value("application_multiplexes"), 1.0);
    assert_eq!(found["fastcgi_multiplex_status_entries_used"], 1.0);
    assert_eq!(found.len(), 4 + 12 + 3 + 2);

    const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
    for (path, content_type) in [
        ("/metrics", PROMETHEUS),
        ("/json?format=prometheus", PROMETHEUS),
        ("/metrics?format=json", "application/json"),
        ("/json", "application/json"),
    ] {
        let whole = get(&client, &nginx.url(path)).await;
        let head = client
            .head(nginx.url(path))
            .send()
            .await
            .expect("a response");
        for response in [&whole, &head] {
            assert_eq!(response.status().as_u16(), 200, "{path}");
            let headers = response.headers();
            let found = headers["content-type"].to_str().expect("text");
            assert!(found.starts_with(content_type), "{path}: {found}");
            assert_eq!(headers["cache-control"], "no-store", "{path}");
        }
        let length = head.headers()["content-length"]
            .to_str()
            .expect("text")
            .to_owned();
        let body = whole.bytes().await.expect("a body");
        assert_eq!(length, body.len().to_string(), "{path}");
        assert_eq!(body.starts_with(b"{"), content_type == "application/json");
        assert!(head.bytes().await.expect("none").is_empty());
    }
    for (method, path, status) in [
        (Method::POST, "/json", 405),
        (Method::PUT, "/metrics", 405),
        (Method::DELETE, "/json", 405),
        (Method::GET, "/json?format=xml", 400),
    ] {
        let request = client.request(method, nginx.url(path)).body("x");
        let response = request.send().await.expect("a response");
        assert_eq!(response.status().as_u16(), status, "{path}");
    }
}

#[tokio::test]
async fn totals_survive_a_reload_and_a_kill() {
    let app = App::afcgitest(&[]).await;
    let mut nginx = watched(2, app.port(), "").await;
    let idle = [("active", 0), ("draining", 0), ("waiting", 0)];
    // A client of each time: its connections keep old workers from leaving.
    let serve = async |nginx: &Nginx| {
        let client = client();
        join_all((0..20).map(async |_| get_ok(&client, &nginx.url("/delay?ms=20")).await)).await;
    };
    serve(&nginx).await;
    let before = shows(&client(), &nginx, &idle).await;
    assert_eq!(before["requests"], 20);
    for round in 2..=4_u64 {
        nginx.reload().await;
        nginx.has_workers(2).await;
        serve(&nginx).await;
        let expected = [("requests", 20 * round)];
        shows(&client(), &nginx, &[&idle[..], &expected].concat()).await;
    }
    let page = page(&client(), &nginx).await;
    assert!(
        page["entries_used"].as_u64() <= Some(4),
        "they are used again: {page}"
    );

    let workers = nginx.started_workers().await;
    let url = nginx.url("/delay?ms=20000");
    let held = tokio::spawn(async move { client().get(url).send().await.is_err() });
    shows(&client(), &nginx, &[("active", 1)]).await;
    for worker in workers {
        nginx.kill_worker(worker);
    }
    assert!(
        held.await.expect("no panic"),
        "the worker of the request is dead"
    );
    nginx.has_workers(2).await;
    let gone = [("connections", 0), ("requests", 81)];
    shows(&client(), &nginx, &[&idle[..], &gone].concat()).await;
    serve(&nginx).await;
    shows(
        &client(),
        &nginx,
        &[&idle[..], &[("requests", 101)]].concat(),
    )
    .await;
}

/// Another size begins from 0, and nobody minds.
#[tokio::test]
async fn a_reload_with_another_size() {
    let app = App::afcgitest(&[]).await;
    let nginx = watched(1, app.port(), "").await;
    get_ok(&client(), &nginx.url("/")).await;
    let path = nginx.dir().join("nginx.conf");
    let before = std::fs::read_to_string(&path).expect("nginx.conf");
    for (size, entries) in [("64k", 100..300), ("1m", 2000..5000)] {
        let zone = format!("fastcgi_multiplex_status_zone {size}; fastcgi_multiplex on;");
        let after = before.replace("fastcgi_multiplex on;", &zone);
        std::fs::write(&path, after).expect("nginx.conf");
        nginx.reload().await;
        nginx.has_workers(1).await;
        let client = client();
        get_ok(&client, &nginx.url("/")).await;
        let found = page(&client, &nginx).await;
        assert_eq!(found["addresses"][0]["requests"], 1, "{found}");
        let found = found["entries"].as_u64().expect("a number");
        assert!(entries.contains(&found), "{found}");
    }
    // Without the page there is no zone.
    std::fs::write(
        &path,
        before.replace("fastcgi_multiplex_status;", "return 404;"),
    )
    .expect("nginx.conf");
    nginx.reload().await;
    nginx.has_workers(1).await;
    get_ok(&client(), &nginx.url("/")).await;
}

/// What has no place in the table is served all the same.
#[tokio::test]
async fn a_full_table() {
    let app = App::afcgitest(&[]).await;
    let port = app.port();
    let many: String = (2..=200)
        .map(|n| format!("location =/{n} {{ fastcgi_pass 127.0.0.{n}:{port}; }}"))
        .collect();
    let nginx = Nginx::start(
        1,
        &format!(
            "{SEEN} fastcgi_multiplex_status_zone 32k;
             server {{ listen LISTEN; {STATUS} {many} location / {{ fastcgi_pass 127.0.0.1:{port}; }} }}"
        ),
    )
    .await;
    let client = client();
    for n in 2..=200 {
        let response = get(&client, &nginx.url(&format!("/{n}"))).await;
        assert_eq!(response.status().as_u16(), 502);
    }
    for _ in 0..3 {
        assert_eq!(get_ok(&client, &nginx.url("/")).await, "Hello world\n");
    }
    let found = page(&client, &nginx).await;
    let entries = found["entries"].as_u64().expect("a number");
    assert!((50..150).contains(&entries), "{entries}");
    assert_eq!(found["entries_used"], entries);
    let addresses = found["addresses"].as_array().expect("an array");
    assert_eq!(addresses.len() as u64, entries);
    let lines = nginx
        .log()
        .matches("fastcgi_multiplex_status_zone is too small")
        .count();
    assert_eq!(lines, 1);
}

#[test]
fn directives() {
    let status = |word: &str| {
        format!(
            "server {{ listen 127.0.0.1:9; location / {{ fastcgi_multiplex_status {word}; }} }}"
        )
    };
    for word in ["", "json", "prometheus"] {
        let (ok, text) = check(&status(word));
        assert!(ok, "{word}\n{text}");
    }
    for size in ["32k", "1m", "64m"] {
        // Before and after what asks for the zone.
        let zone = format!("fastcgi_multiplex_status_zone {size};");
        for http in [
            format!("{zone} {}", status("")),
            format!("{} {zone}", status("")),
            zone,
        ] {
            let (ok, text) = check(&http);
            assert!(ok, "{http}\n{text}");
        }
    }
    let zone = |size: &str| format!("fastcgi_multiplex_status_zone {size};");
    for (http, words) in [
        (
            status("xml"),
            "\"fastcgi_multiplex_status\" directive knows json and prometheus",
        ),
        (status("json json"), "invalid number of arguments"),
        (
            String::from("fastcgi_multiplex_status;"),
            "directive is not allowed here",
        ),
        (zone("31k"), "directive must be from 8 pages of memory"),
        (zone("65m"), "directive must be from 8 pages of memory"),
        (zone("much"), "directive must be from 8 pages of memory"),
        (
            zone("1m") + &zone("2m"),
            "conflicts with already declared size",
        ),
    ] {
        let (ok, text) = check(&http);
        assert!(!ok, "{http} was accepted");
        assert!(text.contains(words), "{http}\n{text}");
    }
}
