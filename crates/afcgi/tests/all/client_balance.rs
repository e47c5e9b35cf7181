//! A client of several addresses: load, failure, names.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::peer::{Peer, ask, get, text};
use crate::common::{Served, eventually, patient, serve};
use afcgi::client::{Client, Config, Error, Trace};
use afcgi::{http, native};
use afcgi_testkit::record::end;
use axum::Router;
use tokio::sync::Semaphore;

/// An application that says its name.
fn named(name: &'static str) -> Served {
    let app = Router::new().fallback(async move || name);
    serve(afcgi::Config::default(), http(app))
}

fn config() -> Config {
    let mut config = Config::default();
    config.backoff = Duration::from_millis(200);
    config.backoff_most = Duration::from_millis(200);
    config.retry_pause = Duration::from_millis(1);
    config.resolve_interval = Duration::from_millis(20);
    config
}

fn client(addresses: &[SocketAddr]) -> Client {
    let mut builder = Client::builder().config(config());
    for address in addresses {
        builder = builder.address(address.to_string());
    }
    builder.build().unwrap()
}

/// An address that refuses connections.
fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn each_request_goes_to_the_address_with_the_fewest() {
    let gate = Arc::new(Semaphore::new(0));
    let servers: Vec<_> = (0..3)
        .map(|_| {
            let gate = Arc::clone(&gate);
            let app = move |request: afcgi::Request| {
                let gate = Arc::clone(&gate);
                async move {
                    gate.acquire()
                        .await
                        .map_err(std::io::Error::other)?
                        .forget();
                    request.stdout().write(b"\r\n").await?;
                    std::io::Result::Ok(())
                }
            };
            serve(afcgi::Config::default(), native(app))
        })
        .collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.addr).collect();
    let client = client(&addresses);
    let held: Vec<_> = (0..30)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { text(&client, get("/")).await })
        })
        .collect();
    let active = |server: &Served| server.stats.snapshot().active;
    eventually("all are there", || {
        servers.iter().map(active).sum::<usize>() == 30
    })
    .await;
    for server in &servers {
        assert_eq!(active(server), 10);
    }
    for address in client.addresses() {
        assert_eq!((address.requests, address.is_failing), (10, false));
    }
    gate.add_permits(30);
    for one in held {
        assert_eq!(patient(one).await.unwrap(), "");
    }
    // Those that are answered at once are spread too.
    gate.add_permits(60);
    for _ in 0..60 {
        text(&client, get("/")).await;
    }
    for server in &servers {
        assert_eq!(server.stats.snapshot().served, 30);
    }
}

#[tokio::test]
async fn who_cannot_be_connected_to_is_passed_over_until_it_is_back() {
    let (there, gone) = (named("there"), nobody());
    let client = client(&[there.addr, gone]);
    for _ in 0..50 {
        assert_eq!(text(&client, get("/")).await, "there");
    }
    let stats = client.stats();
    assert_eq!((stats.retries, stats.connect_failures), (1, 1));
    // It is tried again, and no request has to wait for that.
    eventually("it is tried again", || {
        let asking = client.clone();
        tokio::spawn(async move { text(&asking, get("/")).await });
        client.stats().connect_failures > 1
    })
    .await;
    assert_eq!(client.stats().retries, 1);
    let listener = afcgi::Listener::bind(&gone.to_string()).unwrap();
    let back = Router::new().fallback(async || "back");
    tokio::spawn(afcgi::serve(listener, back));
    let mut seen = String::new();
    let end = std::time::Instant::now() + crate::common::PATIENCE;
    while seen != "back" {
        assert!(std::time::Instant::now() < end);
        seen = text(&client, get("/")).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(client.stats().failures, 0);
}

#[tokio::test]
async fn what_one_refuses_another_may_take() {
    let peer = Peer::new().await;
    let there = named("there");
    let client = client(&[peer.addr, there.addr]);
    let refusing = tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        let mut refused = 0;
        while let Some((id, _)) = link.request().await {
            link.say(&end(id, 0, 2)).await;
            refused += 1;
        }
        refused
    });
    for _ in 0..10 {
        assert_eq!(text(&client, get("/")).await, "there");
    }
    let stats = client.stats();
    assert_eq!(stats.retries, stats.refusals);
    drop(client);
    assert_eq!(patient(refusing).await.unwrap(), stats.refusals);
}

#[tokio::test]
async fn when_all_are_gone_that_is_said_at_once() {
    let client = client(&[nobody(), nobody()]);
    let error = ask(&client, get("/")).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert_eq!(client.stats().connect_failures, 2);
    let error = ask(&client, get("/")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(client.ready().await.is_err());
}

#[tokio::test]
async fn names_are_looked_up() {
    let server = named("there");
    let client = patient(Client::connect(&format!(
        "localhost:{}",
        server.addr.port()
    )))
    .await
    .unwrap();
    for _ in 0..10 {
        assert_eq!(text(&client, get("/")).await, "there");
    }
    assert_eq!(client.stats().failures, 0);
    let error = Client::connect("no-such-host.invalid:5000").await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Resolve { .. }), "{error:?}");
    assert!(error.to_string().contains("no-such-host.invalid"));
    assert!(Client::balanced([]).is_err());
    assert!(Client::balanced(["nonsense"]).is_err());
}

#[tokio::test]
async fn names_are_looked_up_again_and_requests_are_not_disturbed() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let old = serve(
        afcgi::Config::default(),
        native(move |request: afcgi::Request| {
            let held = Arc::clone(&held);
            async move {
                held.acquire()
                    .await
                    .map_err(std::io::Error::other)?
                    .forget();
                request.stdout().write(b"\r\nold").await?;
                std::io::Result::Ok(())
            }
        }),
    );
    let new = named("new");
    let known = Arc::new(Mutex::new(Ok(vec![old.addr])));
    let names = Arc::clone(&known);
    let client = Client::builder()
        .address("app.test:5000")
        .config(config())
        .resolver(move |host, port| {
            assert_eq!((host.as_str(), port), ("app.test", 5000));
            let known = names.lock().unwrap().clone();
            async move { known.map_err(|()| std::io::Error::other("no answer")) }
        })
        .build()
        .unwrap();
    let asking = tokio::spawn({
        let client = client.clone();
        async move { text(&client, get("/")).await }
    });
    eventually("it is there", || old.stats.snapshot().active == 1).await;
    *known.lock().unwrap() = Ok(vec![new.addr]);
    eventually("the name means another", || {
        let addresses = client.addresses();
        addresses.len() == 1 && *addresses[0].address == *new.addr.to_string()
    })
    .await;
    for _ in 0..10 {
        assert_eq!(text(&client, get("/")).await, "new");
    }
    assert_eq!(old.stats.snapshot().active, 1);
    gate.add_permits(1);
    assert_eq!(patient(asking).await.unwrap(), "old");
    eventually("its connection is closed", || {
        old.stats.snapshot().connections == 0
    })
    .await;
    // A name that is not known for a while means what it meant.
    *known.lock().unwrap() = Err(());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(text(&client, get("/")).await, "new");
    // Its addresses are limited.
    let many = (1..200).map(|port| SocketAddr::from(([127, 0, 0, 2], port)));
    *known.lock().unwrap() = Ok(many.collect());
    eventually("there are many", || client.addresses().len() == 64).await;
}

#[tokio::test]
async fn a_trace_tells_where_a_request_went_and_how_often() {
    let (one, other, gone) = (named("one"), named("other"), nobody());
    let client = client(&[one.addr, gone, other.addr]);
    let mut retries = 0;
    for _ in 0..9 {
        let trace = Trace::default();
        let mut request = get("/");
        request.extensions_mut().insert(trace.clone());
        let answered = text(&client, request).await;
        let address = match &*answered {
            "one" => one.addr,
            _ => other.addr,
        };
        assert_eq!(trace.address().as_deref(), Some(&*address.to_string()));
        retries += u64::from(trace.retries());
    }
    assert_eq!((retries, client.stats().retries), (1, 1));
    // Also of one that has no response.
    let client = self::client(&[gone]);
    let trace = Trace::default();
    assert_eq!(trace.address(), None);
    let mut request = get("/");
    request.extensions_mut().insert(trace.clone());
    ask(&client, request).await.unwrap_err();
    assert_eq!(trace.address().as_deref(), Some(&*gone.to_string()));
    assert_eq!(trace.retries(), 0);
}
