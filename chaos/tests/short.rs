//! A short run: what must be 0 is 0.

use std::time::Duration;

use afcgi_chaos::events::Front;
use afcgi_chaos::fleet::Kind;
use afcgi_chaos::run::{Options, run};

/// All kinds of applications, everything that happens to them, both web servers.
#[tokio::test]
async fn nothing_is_wrong_lost_hung_or_left_over() {
    let options = Options {
        program: env!("CARGO_BIN_EXE_chaos").into(),
        seed: 8,
        requests: 10_000,
        duration: Duration::from_secs(15),
        clients: 48,
        kinds: Kind::ALL.to_vec(),
        fronts: Front::ALL.to_vec(),
        havoc: true,
    };
    let summary = run(&options).await;
    println!("{}", summary.text());
    assert!(summary.is_good(), "{}", summary.text());
}
