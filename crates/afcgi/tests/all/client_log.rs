//! Whatever the client logs, it holds no lock then: a slow log holds up nobody, and one that asks the client itself does
//! not wait for ever.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::common::peer::{Link, Peer, answers_within, ask, client, get, text};
use crate::common::{PATIENCE, eventually};
use afcgi::client::Client;
use afcgi_testkit::record::{code, end};
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

const HELLO: &str = "Content-Type: text/plain\r\n\r\nhello";

/// Asks the client for all that takes its locks, at each line of the log.
#[derive(Clone, Default)]
struct Curious {
    client: Arc<Mutex<Option<Client>>>,
    lines: Arc<Mutex<Vec<String>>>,
    is_asking: Arc<AtomicBool>,
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl<S: Subscriber> Layer<S> for Curious {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        self.lines.lock().unwrap().push(message.0);
        let client = self.client.lock().unwrap().clone();
        if let Some(client) = client
            && !self.is_asking.swap(true, Ordering::Relaxed)
        {
            // The pools, and by a request that is given up at once their connections.
            client.addresses();
            drop(client.request(get("/")).now_or_never());
            self.is_asking.store(false, Ordering::Relaxed);
        }
    }
}

impl Curious {
    fn has(&self, words: &str) -> bool {
        let lines = self.lines.lock().unwrap();
        lines.iter().any(|line| line.contains(words))
    }

    fn of(&self, client: &Client) {
        *self.client.lock().unwrap() = Some(client.clone());
    }
}

/// Runs a test on a thread of its own, since one that waits for a lock cannot be told to stop.
fn watched<F: Future<Output = ()>>(test: impl FnOnce(Curious) -> F + Send + 'static) {
    let (done, over) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let curious = Curious::default();
        let subscriber = tracing_subscriber::registry().with(curious.clone());
        let _guard = tracing::subscriber::set_default(subscriber);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(curious.clone()));
        // It holds the client that logs to it.
        *curious.client.lock().unwrap() = None;
        let _ = done.send(());
    });
    match over.recv_timeout(PATIENCE * 2) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it waits for a lock that it holds"),
        _ => thread.join().unwrap(),
    }
}

#[test]
fn who_cannot_be_connected_to_and_is_back() {
    watched(async |curious| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let client = client(addr, |config| {
            answers_within(config, PATIENCE);
            config.backoff = Duration::from_millis(10);
            config.backoff_most = Duration::from_millis(10);
        });
        curious.of(&client);
        assert!(ask(&client, get("/")).await.is_err());
        assert!(curious.has("cannot connect"));
        let listener = std::net::TcpListener::bind(addr).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut link = Link::new(socket);
                    link.answer_values(&[("FCGI_MPXS_CONNS", "1")]).await;
                    while link.next().await.is_some() {}
                });
            }
        });
        eventually("it is back", || {
            drop(client.request(get("/")).now_or_never());
            curious.has("can be connected to again") && curious.has("multiplexes, without flow")
        })
        .await;
    });
}

#[test]
fn what_an_application_can() {
    watched(async |curious| {
        let peer = Peer::new().await;
        let client = client(peer.addr, |_| {});
        curious.of(&client);
        tokio::spawn(async move {
            // It closes the connection at GET_VALUES.
            let mut link = peer.accept().await;
            assert_eq!(link.next().await.unwrap().code, code::GET_VALUES);
            drop(link);
            loop {
                let mut link = peer.accept().await;
                tokio::spawn(async move { link.answer_all(HELLO).await });
            }
        });
        assert_eq!(text(&client, get("/")).await, "hello");
        assert!(curious.has("gets one request per connection"));
    });
}

#[test]
fn who_refuses_to_multiplex() {
    watched(async |curious| {
        let peer = Peer::new().await;
        let client = client(peer.addr, |_| {});
        curious.of(&client);
        tokio::spawn(async move {
            let mut link = peer.accept_shared().await;
            tokio::spawn(async move {
                while let Some(record) = link.next().await {
                    if record.code == code::BEGIN {
                        link.say(&end(record.id, 0, 1)).await;
                    }
                }
            });
            loop {
                let mut link = peer.accept().await;
                tokio::spawn(async move { link.answer_all(HELLO).await });
            }
        });
        assert_eq!(text(&client, get("/")).await, "hello");
        assert!(curious.has("gets one request per connection"));
    });
}

#[test]
fn who_is_silent() {
    watched(async |curious| {
        let peer = Peer::new().await;
        let client = client(peer.addr, |config| {
            answers_within(config, PATIENCE);
            config.first_byte_timeout = Some(Duration::from_millis(50));
        });
        curious.of(&client);
        tokio::spawn(async move {
            let mut dead = peer.accept_shared().await;
            while dead.next().await.is_some() {}
        });
        assert!(ask(&client, get("/")).await.is_err());
        assert!(curious.has("nothing came"));
    });
}
