//! The gateway of this project before applications that do not say whether they multiplex, or hold one of few processes while they are
//! asked: no request waits for that, as none does behind plain nginx.

use std::time::{Duration, Instant};

use afcgi_interop::app::App;
use afcgi_interop::http::{client, get_ok};
use afcgi_interop::own::Own;

/// What nobody is to wait for by far: that an application is asked took 3 s, again and again.
const LONG: Duration = Duration::from_millis(1500);

/// Requests one after the other, for longer than it takes until the application is asked again.
async fn nobody_waits(app: App) {
    let gateway = Own::before(app.port(), "").await;
    let client = client();
    let mut slow = Vec::new();
    for n in 0..246 {
        let began = Instant::now();
        assert_eq!(get_ok(&client, &gateway.url("/")).await, "Hello world\n");
        if began.elapsed() > LONG {
            slow.push((n, began.elapsed()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(slow, []);
    assert_eq!(gateway.upstream("retries_total").await, 0.0);
}

#[tokio::test]
async fn a_request_waits_as_long_as_it_is_told() {
    let app = App::libfcgi_with(2).await;
    // It asks when it starts, and a request that comes meanwhile waits for the rest of the time.
    let began = Instant::now();
    let gateway = Own::before(app.port(), "probe_timeout = \"400ms\"").await;
    assert_eq!(get_ok(&client(), &gateway.url("/")).await, "Hello world\n");
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(390), "{waited:?}");
}

#[tokio::test]
async fn libfcgi_with_one_two_and_eight_threads() {
    for threads in [1, 2, 8] {
        nobody_waits(App::libfcgi_with(threads).await).await;
    }
}

#[tokio::test]
async fn perl() {
    nobody_waits(App::perl().await).await;
}

#[tokio::test]
async fn flup() {
    nobody_waits(App::flup().await).await;
}
