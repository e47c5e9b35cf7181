//! The gateway of this project in front of applications that are not ours, as `spawn-fcgi` starts them: the C libfcgi, Perl's FCGI and
//! Python's flup.

use afcgi_interop::app::App;
use afcgi_interop::gateway::Kind;
use afcgi_interop::http::{assert_same, client, get, get_ok, noise};
use afcgi_interop::own::Own;
use afcgi_interop::suite::{self, Rig};
use afcgi_interop::wait::{SOON, eventually};
use futures_util::StreamExt;
use futures_util::future::join_all;

// Each in a gateway and an application of its own, all of them at a time: the first two do not answer GET_VALUES, and are waited for.
macro_rules! behind {
    ($($name:ident)*) => {$(
        #[tokio::test]
        async fn $name() {
            let rig = async || Rig::new(Kind::Afcgi, App::$name().await).await;
            tokio::join!(
                async { suite::says_hello(rig().await).await },
                async { suite::echoes_a_body(rig().await).await },
                async { suite::shows_parameters(rig().await).await },
                async { suite::sets_the_status(rig().await).await },
                async { suite::logs_stderr(rig().await).await },
                async { suite::streams_events(rig().await).await },
                async { describes_requests(App::$name().await).await },
                async { forty_at_a_time(App::$name().await).await },
                async { comes_back(App::$name().await).await },
            );
        }
    )*};
}

behind! { libfcgi perl flup flup_multiplexed }

/// The parameters that every application relies on.
async fn describes_requests(app: App) {
    let gateway = Own::before(app.port(), "").await;
    let request = client()
        .post(gateway.url("/env?a=1&b=%20c"))
        .header("X-Interop-Test", "some value")
        .header("Content-Type", "text/x-test")
        .body("12345");
    let response = request.send().await.expect("POST /env");
    let env = response.text().await.expect("the body");
    let port = gateway.port().to_string();
    for (name, value) in [
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_URI", "/env?a=1&b=%20c"),
        ("QUERY_STRING", "a=1&b=%20c"),
        ("PATH_INFO", "/env"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", "127.0.0.1"),
        ("SERVER_PORT", &port),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("CONTENT_TYPE", "text/x-test"),
        ("CONTENT_LENGTH", "5"),
        ("HTTP_X_INTEROP_TEST", "some value"),
        ("HTTP_HOST", &format!("127.0.0.1:{port}")),
    ] {
        let line = format!("{name}={value}");
        assert!(env.lines().any(|found| found == line), "{line} in:\n{env}");
    }
}

/// Forty at a time, of which each gets what is its own; the connection that is shared by those of one that multiplexes is one.
async fn forty_at_a_time(app: App) {
    let gateway = Own::before(app.port(), "").await;
    let client = client();
    join_all((0..40).map(async |n| {
        let body = noise(100_000 + 1000 * n as usize, n);
        let request = client.post(gateway.url(&format!("/echo?n={n}")));
        let response = request.body(body.clone()).send().await.expect("POST /echo");
        assert_eq!(response.status().as_u16(), 200);
        assert_same("/echo", &response.bytes().await.expect("the body"), &body);
        let path = format!("/delay?ms={}", n % 50);
        assert_eq!(get_ok(&client, &gateway.url(&path)).await, "Hello world\n");
        let env = get_ok(&client, &gateway.url(&format!("/env?own={n}"))).await;
        let env = String::from_utf8_lossy(&env).into_owned();
        let line = format!("QUERY_STRING=own={n}");
        assert!(env.lines().any(|found| found == line), "{line} in:\n{env}");
    }))
    .await;
    drop(client);
    gateway.is_idle().await;
}

/// It is killed in the middle of a response, which does not look complete; as long as it is away the answer is 502; then it is served again.
async fn comes_back(mut app: App) {
    let gateway = Own::before(app.port(), "").await;
    let client = client();
    for _ in 0..2 {
        let response = get(&client, &gateway.url("/events?n=1000&ms=20")).await;
        assert_eq!(response.status().as_u16(), 200);
        let mut events = response.bytes_stream();
        events.next().await.expect("an event").expect("an event");
        app.kill().await;
        let end = loop {
            match events.next().await {
                Some(Ok(_)) => {}
                end => break end,
            }
        };
        assert!(end.is_some_and(|end| end.is_err()), "taken for complete");
        assert_eq!(get(&client, &gateway.url("/")).await.status().as_u16(), 502);
        gateway.logs(&["no response", "status=502"]).await;
        app.start_again().await;
        eventually("it is served", SOON, || async {
            match get(&client, &gateway.url("/")).await.status().as_u16() {
                200 => Ok(()),
                status => Err(status.to_string()),
            }
        })
        .await;
    }
}

/// flup says that it multiplexes, if it is told to say so, and then has all requests on one connection.
#[tokio::test]
async fn flup_shares_one_connection() {
    let app = App::flup_multiplexed().await;
    // It may take its time to answer while other tests run.
    let gateway = Own::before(app.port(), "probe_timeout = \"20s\"").await;
    let client = client();
    let held = (0..40).map(async |_| get_ok(&client, &gateway.url("/delay?ms=300")).await);
    let bodies = join_all(held).await;
    assert!(bodies.iter().all(|body| body == "Hello world\n"));
    assert_eq!(gateway.upstream("connections_total").await, 1.0);
}
