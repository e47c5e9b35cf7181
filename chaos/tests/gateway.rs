//! The gateway before hundreds of applications, when nothing happens to them.

use std::time::Duration;

use afcgi_chaos::events::Front;
use afcgi_chaos::fleet::Kind;
use afcgi_chaos::run::{Options, run};

/// Hundreds of upstreams in one gateway, slow and fast requests mixed: each answer is from its own, and all connections are gone in the end.
#[tokio::test]
async fn gateway_with_hundreds_of_upstreams() {
    let options = Options {
        program: env!("CARGO_BIN_EXE_chaos").into(),
        seed: 300,
        requests: 6_000,
        duration: Duration::from_secs(60),
        clients: 64,
        kinds: Kind::ALL.to_vec(),
        fronts: vec![Front::Gateway],
        havoc: false,
    };
    let summary = run(&options).await;
    assert!(summary.addresses >= 300, "{} addresses", summary.addresses);
    assert!(summary.is_good(), "{}", summary.text());
}
