//! Attacks on `afcgitest`: everyone else is served meanwhile, memory stays bounded, and the log tells.

use std::cell::Cell;
use std::future::Future;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::app::App;
use crate::raw::{self, kind, request};
use crate::wait::{SOON, eventually};

const MB: u64 = 1 << 20;

/// What one attacker may cost in memory, at most, while it lasts.
const BOUND: u64 = 64 * MB;

/// Runs `attack` while others are served: requests on connections of their own, one after the other, and one that was there before on a
/// multiplexed connection and is held until after. Then compares the memory.
pub async fn others_are_served<T>(app: &mut App, attack: impl Future<Output = T>) -> T {
    let port = app.port();
    assert_hello(port).await;
    let before = app.process.resident();
    let mut held = raw::connect(port).await;
    held.write_all(&request(1, "/events", "n=100000&ms=20"))
        .await
        .expect("a request that is held");
    next_event(&mut held).await;

    // Joined and not raced: a race would cut off the reading of a record in the middle.
    let over = Cell::new(false);
    let attack = async {
        let result = attack.await;
        over.set(true);
        result
    };
    let others = async {
        while !over.get() {
            assert_hello(port).await;
            next_event(&mut held).await;
        }
    };
    let (result, ()) = tokio::join!(attack, others);
    assert_hello(port).await;
    next_event(&mut held).await;
    let peak = app.process.peak();
    assert!(
        peak < before + BOUND,
        "memory went from {before} to {peak} bytes"
    );
    result
}

/// Waits for STDOUT content on a connection that carries one request.
pub async fn next_event(socket: &mut TcpStream) {
    let next = tokio::time::timeout(SOON, raw::read(socket))
        .await
        .expect("an event in time");
    assert_eq!(next.expect("an open connection").kind, kind::STDOUT);
}

/// A request on a connection of its own is answered.
pub async fn assert_hello(port: u16) {
    let response = tokio::time::timeout(SOON, raw::get(port, "/", ""))
        .await
        .expect("an answer in time");
    assert!(
        response.ends_with(b"\r\n\r\nHello world\n"),
        "{}",
        String::from_utf8_lossy(&response)
    );
}

/// Waits for a line of the log that holds all of `words`; it must be new if `from` is the length of the log before.
pub async fn logged(app: &App, from: usize, words: &[&str]) {
    eventually("a line in the log", SOON, || async {
        let log = app.process.log();
        let new = log.get(from..).unwrap_or("");
        if new
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
        {
            Ok(())
        } else {
            Err(format!("no line with {words:?} in:\n{new}"))
        }
    })
    .await;
}

/// One number of `/stats`.
pub async fn stat(port: u16, name: &str) -> u64 {
    let response = String::from_utf8(raw::get(port, "/stats", "").await).expect("text");
    let (_, body) = response.split_once("\r\n\r\n").expect("a head and a body");
    let stats: serde_json::Value = serde_json::from_str(body).expect("JSON");
    stats
        .get(name)
        .and_then(serde_json::Value::as_u64)
        .unwrap_or_else(|| panic!("no number {name:?} in {stats}"))
}

/// Waits until a number of `/stats` is at most `most`.
pub async fn settles(port: u16, name: &str, most: u64) {
    eventually(&format!("{name} is at most {most}"), SOON, || async {
        match stat(port, name).await {
            value if value <= most => Ok(()),
            value => Err(format!("it is {value}")),
        }
    })
    .await;
}
