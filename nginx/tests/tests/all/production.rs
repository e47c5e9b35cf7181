//! What a connection is kept for, and for how long; what is asked of the next server; what ends early.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use afcgi_interop::app::App;
use afcgi_interop::fake::{Fake, end, next_request, response, values, write};
use afcgi_interop::http::{client, get, get_ok, noise};
use afcgi_interop::raw::{self, kind, record};
use afcgi_interop::wait::{SOON, eventually};
use afcgi_nginx_tests::nginx::Nginx;
use futures_util::future::join_all;
use tokio::sync::mpsc;

/// It multiplexes, and answers each request with the number of its connection. Tells of connections that were closed.
async fn numbers(closed: mpsc::UnboundedSender<usize>) -> Fake {
    Fake::start(move |mut socket, n| {
        let closed = closed.clone();
        async move {
            while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
                write(&mut socket, &response(id, &n.to_string())).await;
            }
            _ = closed.send(n);
        }
    })
    .await
}

async fn with(app: u16, parameters: &str) -> Nginx {
    Nginx::start(
        1,
        &format!(
            "upstream app {{ server 127.0.0.1:{app}; fastcgi_multiplex {parameters}; }}
             server {{ listen LISTEN; location / {{ fastcgi_pass app; }} }}"
        ),
    )
    .await
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let (tell, mut closed) = mpsc::unbounded_channel();
    let app = numbers(tell).await;
    let nginx = with(app.port(), "idle_timeout=200ms").await;
    let client = client();
    assert_eq!(get_ok(&client, &nginx.url("/")).await, "0");
    assert_eq!(closed.recv().await, Some(0));
    assert_eq!(get_ok(&client, &nginx.url("/")).await, "1");
}

/// One that is held is not idle.
#[tokio::test]
async fn a_held_request_keeps_its_connection() {
    let app = App::afcgitest(&[]).await;
    let nginx = with(app.port(), "idle_timeout=50ms").await;
    let body = get_ok(&client(), &nginx.url("/delay?ms=1000")).await;
    assert_eq!(body, "Hello world\n");
}

#[tokio::test]
async fn an_old_connection_gets_no_more_requests() {
    let (tell, mut closed) = mpsc::unbounded_channel();
    let app = numbers(tell).await;
    let nginx = with(app.port(), "lifetime=300ms").await;
    let client = client();
    let mut seen = HashSet::new();
    while seen.len() < 4 {
        seen.insert(get_ok(&client, &nginx.url("/")).await);
    }
    for _ in 0..3 {
        assert!(closed.recv().await.is_some(), "and is closed");
    }
}

#[tokio::test]
async fn a_connection_gets_as_many_requests_as_it_may() {
    let (tell, mut closed) = mpsc::unbounded_channel();
    let app = numbers(tell).await;
    let nginx = with(app.port(), "max_requests=3").await;
    let client = client();
    for n in 0..12 {
        let expected = (n / 3).to_string();
        assert_eq!(get_ok(&client, &nginx.url("/")).await, expected);
    }
    for n in 0..4 {
        assert_eq!(closed.recv().await, Some(n));
    }
}

/// A connection from one local address does not serve requests that are to come from another.
#[tokio::test]
async fn local_addresses_have_connections_of_their_own() {
    let app = Fake::start(async |mut socket, n| {
        let from = socket.peer_addr().expect("an address").ip();
        while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
            write(&mut socket, &response(id, &format!("{n} {from}"))).await;
        }
    })
    .await;
    let nginx = Nginx::start(
        1,
        &format!(
            "upstream app {{ server 127.0.0.1:{}; fastcgi_multiplex; }}
             server {{ listen LISTEN;
                 location /2 {{ fastcgi_bind 127.0.0.2; fastcgi_pass app; }}
                 location /3 {{ fastcgi_bind 127.0.0.3; fastcgi_pass app; }}
                 location / {{ fastcgi_pass app; }} }}",
            app.port()
        ),
    )
    .await;
    let client = client();
    for _ in 0..3 {
        for (path, expected) in [
            ("/2", "0 127.0.0.2"),
            ("/3", "1 127.0.0.3"),
            ("/", "2 127.0.0.1"),
        ] {
            assert_eq!(get_ok(&client, &nginx.url(path)).await, expected);
        }
    }
}

/// Servers in a shared zone: what nginx copies for each request is the same server all the same.
#[tokio::test]
async fn servers_in_a_zone() {
    let (tell, _closed) = mpsc::unbounded_channel();
    let (first, second) = (numbers(tell.clone()).await, numbers(tell).await);
    let nginx = Nginx::start(
        2,
        &format!(
            "upstream app {{ zone app 64k; least_conn; server 127.0.0.1:{}; server 127.0.0.1:{}; fastcgi_multiplex; }}
             server {{ listen LISTEN; location / {{ fastcgi_pass app; }} }}",
            first.port(),
            second.port()
        ),
    )
    .await;
    let client = client();
    let bodies = join_all((0..200).map(async |_| get_ok(&client, &nginx.url("/")).await)).await;
    assert_eq!(bodies.len(), 200);
    for app in [first, second] {
        let found = app.connections();
        assert!((1..=2).contains(&found), "{found} connections, two workers");
    }
}

/// It answers one request and then reads nothing more. A request that times out makes nginx ask, and no answer makes it give the
/// connection up.
#[tokio::test]
async fn an_application_that_reads_no_more_is_found_out() {
    let app = Fake::start(async |mut socket, n| {
        let mut count = 0;
        while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
            count += 1;
            if n == 0 && count == 2 {
                // The first is held, the second answered, and that is all.
                write(&mut socket, &response(id, "once")).await;
                std::future::pending::<()>().await;
            } else if n > 0 {
                write(&mut socket, &response(id, "served")).await;
            }
        }
    })
    .await;
    let nginx = Nginx::before(app.port(), "fastcgi_read_timeout 1s;").await;
    let client = client();
    let url = nginx.url("/");
    let (held, answered) = tokio::join!(get(&client, &url), async {
        eventually("it has a connection", SOON, || async {
            match app.connections() {
                0 => Err(String::from("none")),
                _ => Ok(()),
            }
        })
        .await;
        get(&client, &url).await
    });
    // Whichever came first was held.
    let mut statuses = [held.status().as_u16(), answered.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 504]);
    nginx.logs("GET_VALUES is not answered").await;
    assert_eq!(get_ok(&client, &url).await, "served");
}

/// One that still reads is only slow: a request that times out costs nobody else the connection.
#[tokio::test]
async fn a_slow_application_keeps_its_connection() {
    let app = App::afcgitest(&[]).await;
    let nginx = Nginx::before(app.port(), "fastcgi_read_timeout 500ms;").await;
    let client = client();
    let url = nginx.url("/events?n=40&ms=100");
    let held = client.get(url).send().await.expect("an answer");
    assert_eq!(
        get(&client, &nginx.url("/delay?ms=60000")).await.status(),
        504
    );
    let events = held.text().await.expect("all of it");
    assert_eq!(events.matches("data:").count(), 40);
    assert!(!nginx.log().contains("is given up"), "{}", nginx.log());
}

/// An application on each of two ports: the first refuses what it is asked with a protocol status, the second serves. `requests` POST
/// are answered by the second. The log is returned.
async fn refused(status: u8, requests: u64) -> String {
    let refuses = Fake::start(move |mut socket, _| async move {
        while let Some(record) = raw::read(&mut socket).await {
            match record.kind {
                kind::GET_VALUES => write(&mut socket, &values(true)).await,
                // Before the body, which may be of any length.
                kind::BEGIN_REQUEST => write(&mut socket, &end(record.id, status)).await,
                _ => {}
            }
        }
    })
    .await;
    let serves = App::afcgitest(&[]).await;
    let nginx = Nginx::start(
        1,
        &format!(
            "upstream app {{ server 127.0.0.1:{}; server 127.0.0.1:{}; fastcgi_multiplex; }}
             server {{ listen LISTEN; location / {{ fastcgi_pass app; }} }}",
            refuses.port(),
            serves.port()
        ),
    )
    .await;
    let client = client();
    for n in 0..requests {
        // In memory, and in a file.
        let body = noise(if n % 2 == 0 { 300_000 } else { 3000 }, n);
        let request = client.post(nginx.url("/echo")).body(body.clone());
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
        assert!(response.bytes().await.expect("the body") == body);
    }
    nginx.log()
}

/// what was refused was not processed, so another server may have it, also a POST, with all of its body.
#[tokio::test]
async fn what_is_refused_goes_to_the_next_server() {
    let log = refused(2, 20).await;
    // It is not taken for one that fails, so it is asked again each time its turn comes.
    assert!(log.matches("the application refused the request").count() >= 9);
    assert!(!log.contains("temporarily disabled"), "{log}");
}

/// The same if it cannot multiplex after all. From then on it gets one request per connection, as nginx sends them.
#[tokio::test]
async fn what_cannot_be_multiplexed_goes_to_the_next_server() {
    let log = refused(1, 1).await;
    assert!(
        log.contains("the application refused the request: CantMpxConn"),
        "{log}"
    );
    assert!(
        log.contains("it refused a request with CANT_MPX_CONN"),
        "{log}"
    );
    assert!(!log.contains("temporarily disabled"), "{log}");
}

/// Where nginx has not kept the body it cannot send it again.
#[tokio::test]
async fn a_refused_body_that_was_not_kept_is_an_error() {
    let refuses = Fake::start(|mut socket, _| async move {
        while let Some(record) = raw::read(&mut socket).await {
            match record.kind {
                kind::GET_VALUES => write(&mut socket, &values(true)).await,
                kind::STDIN => write(&mut socket, &end(record.id, 2)).await,
                _ => {}
            }
        }
    })
    .await;
    let serves = App::afcgitest(&[]).await;
    let nginx = Nginx::start(
        1,
        &format!(
            "upstream app {{ server 127.0.0.1:{}; server 127.0.0.1:{} backup; fastcgi_multiplex; }}
             server {{ listen LISTEN; location / {{ fastcgi_request_buffering off; fastcgi_pass app; }} }}",
            refuses.port(),
            serves.port()
        ),
    )
    .await;
    let client = client();
    let request = client.post(nginx.url("/echo")).body(vec![7; 100_000]);
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status().as_u16(), 502);
    // One without a body is another matter.
    assert_eq!(get_ok(&client, &nginx.url("/")).await, "Hello world\n");
}

/// A response that nginx wants no more of, and that ends soon, is not aborted.
#[tokio::test]
async fn head_and_x_accel_redirect_let_the_rest_come() {
    let aborted = Arc::new(Mutex::new(Vec::new()));
    let seen = aborted.clone();
    let app = Fake::start(move |mut socket, _| {
        let aborted = aborted.clone();
        async move {
            while let Some(found) = raw::read(&mut socket).await {
                match found.kind {
                    kind::GET_VALUES => write(&mut socket, &values(true)).await,
                    kind::ABORT_REQUEST => {
                        aborted.lock().expect("no panic").push(found.id);
                        write(&mut socket, &end(found.id, 0)).await;
                    }
                    kind::STDIN if found.content.is_empty() => {
                        let head = format!(
                            "Content-Type: text/plain\r\nX-Accel-Redirect: /file/{}\r\n\r\n",
                            found.id
                        );
                        write(
                            &mut socket,
                            &record(kind::STDOUT, found.id, head.as_bytes()),
                        )
                        .await;
                        // The body comes later, when nginx is done with the request.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        write(&mut socket, &response(found.id, "not to be seen")).await;
                    }
                    _ => {}
                }
            }
        }
    })
    .await;
    let nginx = Nginx::start(
        1,
        &format!(
            "fastcgi_multiplex on;
             server {{ listen LISTEN;
                 location / {{ fastcgi_pass 127.0.0.1:{}; }}
                 location /head {{ fastcgi_ignore_headers X-Accel-Redirect; fastcgi_pass 127.0.0.1:{0}; }}
                 location /file/ {{ internal; return 200 $uri; }} }}",
            app.port()
        ),
    )
    .await;
    let client = client();
    for _ in 0..5 {
        eventually("the id is free again", SOON, || async {
            let file = get_ok(&client, &nginx.url("/")).await;
            if file == "/file/1" {
                Ok(())
            } else {
                Err(format!("{file:?}"))
            }
        })
        .await;
        let head = client.head(nginx.url("/head")).send().await;
        assert_eq!(head.expect("an answer").status().as_u16(), 200);
    }
    assert_eq!(app.connections(), 1);
    assert_eq!(*seen.lock().expect("no panic"), [0_u16; 0], "aborted");
}

/// A mistake in any callback costs the requests that it was about, and no worker.
#[tokio::test]
async fn panics_end_no_worker() {
    let app = App::afcgitest(&[]).await;
    let nginx = Nginx::panicking(app.port()).await;
    let workers = nginx.started_workers().await;
    let client = client();
    let mut failed = 0;
    for round in 0..40_u64 {
        let requests = (0..50).map(async |n| {
            let body = noise(20_000, round * 50 + n);
            let request = client.post(nginx.url("/echo")).body(body.clone());
            let Ok(response) = request.send().await else {
                return false;
            };
            let good = response.status() == 200;
            // What is called complete is complete, and is nobody else's.
            match response.bytes().await {
                Ok(answer) if good => assert!(answer == body, "a wrong body"),
                Ok(_) | Err(_) => return false,
            }
            true
        });
        failed += (join_all(requests).await.iter())
            .filter(|good| !**good)
            .count();
    }
    let panics = nginx.log().matches("injected").count();
    assert!(panics >= 10, "{panics} panics");
    // One that takes the connection with it takes all that are on it.
    assert!(failed <= 50 * panics, "{failed} failed of {panics} panics");
    assert_eq!(nginx.workers(), workers);
}

/// Many requests at once open one connection, not many; and again when that is lost.
#[tokio::test]
async fn connecting_is_done_once_for_all() {
    let app = Fake::start(async |mut socket, n| {
        let mut ids = Vec::new();
        while let Some(id) = next_request(&mut socket, Some(&values(true))).await {
            ids.push(id);
            if n == 1 && ids.len() == 100 {
                // All at once lose their connection.
                return;
            }
            if n != 1 {
                write(&mut socket, &response(id, &n.to_string())).await;
            }
            if n == 0 && ids.len() == 200 {
                return;
            }
        }
    })
    .await;
    let nginx = Nginx::before(app.port(), "").await;
    let client = client();
    let bodies = join_all((0..200).map(async |_| get_ok(&client, &nginx.url("/")).await)).await;
    assert!(bodies.iter().all(|body| body == "0"));
    assert_eq!(app.connections(), 1);
    let responses = join_all((0..100).map(async |_| get(&client, &nginx.url("/")).await)).await;
    assert!(responses.iter().all(|response| response.status() == 502));
    assert_eq!(app.connections(), 2);
    let bodies = join_all((0..200).map(async |_| get_ok(&client, &nginx.url("/")).await)).await;
    assert!(bodies.iter().all(|body| body == "2"));
    assert_eq!(app.connections(), 3);
}
