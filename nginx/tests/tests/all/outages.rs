//! The application goes away and comes back; nginx reloads and quits: only the failures that had to be.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use afcgi_interop::app::{App, afcgitest};
use afcgi_interop::fake::{Fake, next_request, response, values, write};
use afcgi_interop::http::{assert_same, client, get, get_ok, noise};
use afcgi_interop::process::Process;
use afcgi_interop::raw::{self, kind};
use afcgi_interop::wait::{SOON, eventually, free_port};
use afcgi_nginx_tests::nginx::Nginx;
use futures_util::future::join_all;
use tokio::net::TcpStream;

/// afcgitest on a port that it keeps over restarts.
async fn start_app(port: u16, log: &std::path::Path) -> Process {
    let mut command = Command::new(afcgitest());
    command.arg(format!("127.0.0.1:{port}"));
    let process = Process::start("afcgitest", &command, log);
    eventually("afcgitest listens", SOON, || async {
        TcpStream::connect(("127.0.0.1", port))
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    })
    .await;
    process
}

#[tokio::test]
async fn the_application_is_killed_and_restarted_under_load() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let port = free_port();
    let log = dir.path().join("app.log");
    let mut app = start_app(port, &log).await;
    let nginx = Nginx::before(port, "").await;
    let done = AtomicBool::new(false);
    let (good, bad) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let load = join_all((0..50_u64).map(async |seed| {
        let client = client();
        let mut n = seed;
        while !done.load(Ordering::Relaxed) {
            n += 50;
            let body = noise((n * 37 % 100_000) as usize, n);
            let request = client.post(nginx.url("/echo")).body(body.clone());
            match request.send().await {
                Ok(response) if response.status() == 200 => match response.bytes().await {
                    Ok(answer) => {
                        assert_same("/echo", &answer, &body);
                        good.fetch_add(1, Ordering::Relaxed);
                    }
                    // It broke off, and shows it.
                    Err(_) => _ = bad.fetch_add(1, Ordering::Relaxed),
                },
                Ok(response) => {
                    let status = response.status().as_u16();
                    assert!(status == 502 || status == 504, "{status}");
                    bad.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("nginx gives no answer: {error:?}"),
            }
        }
    }));
    let outages = async {
        for _ in 0..4 {
            let before = good.load(Ordering::Relaxed);
            eventually("requests succeed", SOON, || async {
                let now = good.load(Ordering::Relaxed);
                if now > before + 200 {
                    Ok(())
                } else {
                    Err(format!("{now}"))
                }
            })
            .await;
            app.kill();
            tokio::time::sleep(Duration::from_millis(100)).await;
            app = start_app(port, &log).await;
        }
        let before = good.load(Ordering::Relaxed);
        eventually("requests succeed again", SOON, || async {
            let now = good.load(Ordering::Relaxed);
            if now > before + 200 {
                Ok(())
            } else {
                Err(format!("{now}"))
            }
        })
        .await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, outages);
    assert!(bad.into_inner() > 0, "the kills were not noticed");
}

/// Requests that are safe to repeat survive the end of a connection that has served before, as with `keepalive`.
#[tokio::test]
async fn a_get_is_tried_again_when_a_used_connection_closes() {
    let app = Fake::start(async |mut socket, _| {
        for _ in 0..3 {
            let Some(id) = next_request(&mut socket, Some(&values(true))).await else {
                return;
            };
            write(&mut socket, &response(id, "served")).await;
        }
        // Takes the fourth, and goes.
        next_request(&mut socket, None).await;
    })
    .await;
    let nginx = Nginx::before(app.port(), "").await;
    let client = client();
    for n in 0..12 {
        assert_eq!(get_ok(&client, &nginx.url("/")).await, "served", "{n}");
    }
}

/// A refused connection has processed nothing: a POST goes to the next server too.
#[tokio::test]
async fn the_next_server_is_asked() {
    let app = App::afcgitest(&[]).await;
    // A socket whose server is gone.
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    for dead in [
        format!("127.0.0.1:{}", free_port()),
        format!("unix:{}", path.display()),
    ] {
        let nginx = Nginx::start(
            1,
            &format!(
                "upstream app {{ server {dead} max_fails=0; server 127.0.0.1:{}; fastcgi_multiplex; }}
                 server {{ listen LISTEN; location / {{ fastcgi_pass app; }} }}",
                app.port()
            ),
        )
        .await;
        let client = client();
        let answers = join_all((0..20).map(async |n| {
            let body = noise(1000, n);
            let request = client.post(nginx.url("/echo")).body(body.clone());
            let response = request.send().await.expect("POST /echo");
            assert_eq!(response.status().as_u16(), 200);
            assert_same("/echo", &response.bytes().await.expect("the body"), &body);
        }));
        answers.await;
        nginx.logs("(111: Connection refused)").await;
    }
}

#[tokio::test]
async fn nobody_is_there() {
    let nginx = Nginx::before(free_port(), "").await;
    let client = client();
    for response in join_all((0..20).map(async |_| get(&client, &nginx.url("/")).await)).await {
        assert_eq!(response.status().as_u16(), 502);
    }
}

/// Five reloads while requests run: none fails, and old workers leave.
#[tokio::test]
async fn reload_under_load() {
    let app = App::afcgitest(&[]).await;
    let nginx = Nginx::start(
        2,
        &format!(
            "fastcgi_multiplex on;
             server {{ listen LISTEN; location / {{ fastcgi_pass 127.0.0.1:{}; }} }}",
            app.port()
        ),
    )
    .await;
    let done = AtomicBool::new(false);
    let good = AtomicUsize::new(0);
    let load = join_all((0..50_u64).map(async |seed| {
        let mut n = seed;
        while !done.load(Ordering::Relaxed) {
            n += 50;
            // A client of its own each time: a worker that leaves closes its idle HTTP connections, which is a race that clients know.
            let client = client();
            if n % 3 == 0 {
                let path = format!("/delay?ms={}", n % 400);
                assert_eq!(get_ok(&client, &nginx.url(&path)).await, "Hello world\n");
            } else {
                let body = noise((n * 37 % 50_000) as usize, n);
                let request = client.post(nginx.url("/echo")).body(body.clone());
                let response = request.send().await.expect("POST /echo");
                assert_eq!(response.status().as_u16(), 200);
                assert_same("/echo", &response.bytes().await.expect("the body"), &body);
            }
            good.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let reloads = async {
        for _ in 0..5 {
            let before = good.load(Ordering::Relaxed);
            nginx.reload().await;
            eventually("requests succeed", SOON, || async {
                let now = good.load(Ordering::Relaxed);
                if now > before + 200 {
                    Ok(())
                } else {
                    Err(format!("{now}"))
                }
            })
            .await;
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, reloads);
    nginx.has_workers(2).await;
}

/// Asked to quit, nginx finishes what runs.
#[tokio::test]
async fn quit_with_held_requests() {
    let app = App::afcgitest(&[]).await;
    let mut nginx = Nginx::before(app.port(), "").await;
    let client = client();
    let held = join_all((0..50).map(async |_| get_ok(&client, &nginx.url("/delay?ms=2000")).await));
    let quit = async {
        eventually("they are held", SOON, || async {
            let stats = get_ok(&client, &nginx.url("/stats")).await;
            let stats: serde_json::Value = serde_json::from_slice(&stats).expect("JSON");
            match stats["active"].as_u64() {
                Some(51) => Ok(()),
                active => Err(format!("{active:?}")),
            }
        })
        .await;
        nginx.quit();
    };
    let (bodies, ()) = tokio::join!(held, quit);
    assert!(bodies.iter().all(|body| body == "Hello world\n"));
    nginx.has_left().await;
}

/// Aborted requests that the application does not end keep nobody, and leave nothing open (nginx would log an alert).
#[tokio::test]
async fn quit_with_aborted_requests() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let app = Fake::start(move |mut socket, _| {
        let tell = tell.clone();
        async move {
            while let Some(record) = raw::read(&mut socket).await {
                match record.kind {
                    kind::GET_VALUES => write(&mut socket, &values(true)).await,
                    kind::ABORT_REQUEST => _ = tell.send(record.id),
                    _ => {}
                }
            }
        }
    })
    .await;
    let mut nginx = Nginx::before(app.port(), "").await;
    let client = client();
    let given_up = join_all((0..20).map(|_| {
        let request = client.get(nginx.url("/"));
        request.timeout(Duration::from_millis(500)).send()
    }));
    assert!(given_up.await.iter().all(Result::is_err));
    let mut ids = Vec::new();
    while ids.len() < 20 {
        ids.extend(told.recv().await);
    }
    ids.sort_unstable();
    assert!(ids.into_iter().eq(1..=20));
    drop(client);
    nginx.quit();
    nginx.has_left().await;
}
