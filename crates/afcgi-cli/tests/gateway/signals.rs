//! SIGHUP has the configuration read again; SIGTERM lets requests finish, for a while.

use std::time::{Duration, Instant};

use afcgi_interop::app::App;
use afcgi_interop::http::{client, get};
use afcgi_interop::wait::{SOON, eventually};
use futures_util::StreamExt;
use rustix::process::Signal;

use crate::rig::Rig;

fn config(port: u16, more: &str) -> String {
    format!(
        "{more}\n[upstream.a]\naddresses = [\"127.0.0.1:{port}\"]\n[[route]]\nupstream = \"a\"\n"
    )
}

#[tokio::test]
async fn reload() {
    let app = App::afcgitest(&[]).await;
    let rig = Rig::config(&config(app.port(), "")).await;
    let client = client();
    let mut events = get(&client, &rig.url("/events?n=100000&ms=20"))
        .await
        .bytes_stream();
    events.next().await.unwrap().unwrap();
    let write = |text: &str| std::fs::write(rig.config_path(), text).unwrap();

    write(&(config(app.port(), "") + "set_response_headers = { X-New = \"1\" }"));
    rig.signal(Signal::HUP);
    rig.logs(&["INFO", "was read again"]).await;
    assert_eq!(get(&client, &rig.url("/")).await.headers()["x-new"], "1");

    write("[[route]]\nupstream = 5\n");
    rig.signal(Signal::HUP);
    rig.logs(&["ERROR", "stays as it was", ":2:12: "]).await;
    assert_eq!(get(&client, &rig.url("/")).await.headers()["x-new"], "1");

    write(&config(
        app.port(),
        "listen = [\"127.0.0.1:1\"]\nadmin = \"127.0.0.1:2\"\n[limits]\nconnections = 5",
    ));
    rig.signal(Signal::HUP);
    rig.logs(&["WARN", "until the next start"]).await;
    eventually("it is without the field", SOON, || async {
        match get(&client, &rig.url("/")).await.headers().get("x-new") {
            None => Ok(()),
            Some(_) => Err("it has it".to_owned()),
        }
    })
    .await;
    // What began before goes on, on the connection that was there.
    for _ in 0..3 {
        events.next().await.unwrap().unwrap();
    }
    let metrics = get(&client, &rig.admin_url("/metrics"))
        .await
        .text()
        .await
        .unwrap();
    for line in [
        "afcgi_gateway_reloads_total{result=\"ok\"} 2",
        "afcgi_gateway_reloads_total{result=\"error\"} 1",
        "afcgi_gateway_upstream_connections_total{upstream=\"a\"} 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}:\n{metrics}"
        );
    }
    // So that the stop does not wait for it.
    drop(events);
    rig.active(0).await;
}

#[tokio::test]
async fn requests_finish() {
    let app = App::afcgitest(&[]).await;
    let mut rig = Rig::config(&config(app.port(), "")).await;
    let client = client();
    assert_eq!(get(&client, &rig.url("/")).await.status(), 200);
    let held = tokio::spawn(client.get(rig.url("/delay?ms=1500")).send());
    rig.active(1).await;
    rig.signal(Signal::TERM);
    rig.logs(&["stopping", "requests=1"]).await;
    eventually("it takes no new connections", SOON, || async {
        match tokio::net::TcpStream::connect(("127.0.0.1", rig.port)).await {
            Ok(_) => Err("it does".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
    let health = get(&client, &rig.admin_url("/health")).await;
    assert_eq!(
        (health.status().as_u16(), &*health.text().await.unwrap()),
        (503, "draining\n")
    );
    let response = held.await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap(), "Hello world\n");
    left(&mut rig).await;
    assert!(
        rig.process.log().contains(" 200 12 "),
        "{}",
        rig.process.log()
    );
}

async fn left(rig: &mut Rig) {
    let process = std::cell::RefCell::new(&mut rig.process);
    let status = eventually("it has left", SOON, || {
        let exited = process.borrow_mut().exited();
        async move { exited.ok_or_else(|| "it runs".to_owned()) }
    })
    .await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn but_not_for_ever() {
    let app = App::afcgitest(&[]).await;
    let mut rig = Rig::config(&config(app.port(), "[limits]\ndrain_timeout = \"500ms\"")).await;
    let mut events = get(&client(), &rig.url("/events?n=100000&ms=20"))
        .await
        .bytes_stream();
    events.next().await.unwrap().unwrap();
    let start = Instant::now();
    rig.signal(Signal::TERM);
    rig.logs(&["WARN", "not over in time", "requests=1"]).await;
    left(&mut rig).await;
    assert!(start.elapsed() >= Duration::from_millis(500));
}

#[tokio::test]
async fn a_second_signal_ends_it() {
    let app = App::afcgitest(&[]).await;
    let mut rig = Rig::config(&config(app.port(), "")).await;
    let mut events = get(&client(), &rig.url("/events?n=100000&ms=20"))
        .await
        .bytes_stream();
    events.next().await.unwrap().unwrap();
    rig.signal(Signal::INT);
    rig.logs(&["stopping"]).await;
    rig.signal(Signal::INT);
    rig.logs(&["WARN", "stopped at once"]).await;
    left(&mut rig).await;
}
