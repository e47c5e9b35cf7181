//! The HTTP side of the tests: a client for many requests at a time, and the contents to send.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, Response, StatusCode};

/// A client that follows no redirect, knows no proxy and gives up after a minute.
pub fn client() -> Client {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
        .build()
        .expect("an HTTP client")
}

/// GET, any status.
pub async fn get(client: &Client, url: &str) -> Response {
    client
        .get(url)
        .send()
        .await
        .unwrap_or_else(|error| panic!("GET {url}: {error:?}"))
}

/// GET, status 200, the whole body.
pub async fn get_ok(client: &Client, url: &str) -> Bytes {
    let response = get(client, url).await;
    let status = response.status();
    let body = response
        .bytes()
        .await
        .unwrap_or_else(|error| panic!("GET {url}: {error:?}"));
    assert_eq!(
        status,
        StatusCode::OK,
        "GET {url}: {}",
        String::from_utf8_lossy(&body)
    );
    body
}

/// Bytes that look random, the same ones for the same seed, so that a misplaced piece is noticed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Fails the test at the first difference, without printing megabytes.
pub fn assert_same(what: &str, actual: &[u8], expected: &[u8]) {
    if let Some(at) = actual
        .iter()
        .zip(expected)
        .position(|(actual, expected)| actual != expected)
    {
        panic!("{what}: byte {at} of {} differs", expected.len());
    }
    assert_eq!(actual.len(), expected.len(), "{what}: length");
}
