//! Workers that are to end, and still have requests, and what those know that come after them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use afcgi_interop::fake::{Fake, next_request, response, values, write};
use afcgi_interop::http::{client, get_ok};
use afcgi_interop::raw::{self, kind};
use afcgi_interop::wait::{SOON, eventually};
use afcgi_nginx_tests::nginx::Nginx;

/// Requests wait for an application's answer to GET_VALUES while nginx reloads: the connection that asks stays, and is the only one. (It was
/// closed as idle, and opened again at once, thousands of times, until the application's queue was full and the requests failed.)
#[tokio::test]
async fn requests_wait_for_an_answer_while_nginx_reloads() {
    let app = Fake::start(async |mut socket, number| {
        if number == 0 {
            // So that it is known to multiplex, and worth waiting for.
            if let Some(id) = next_request(&mut socket, Some(&values(true))).await {
                write(&mut socket, &response(id, "first")).await;
            }
            return;
        }
        while let Some(record) = raw::read(&mut socket).await {
            match record.kind {
                kind::GET_VALUES => {
                    tokio::time::sleep(Duration::from_millis(1500)).await;
                    write(&mut socket, &values(true)).await;
                }
                kind::STDIN if record.content.is_empty() => {
                    write(&mut socket, &response(record.id, "second")).await;
                }
                _ => {}
            }
        }
    })
    .await;
    let nginx = Nginx::before(app.port(), "").await;
    let http = client();
    assert_eq!(get_ok(&http, &nginx.url("/")).await, "first");
    let url = nginx.url("/");
    let (answer, ()) = tokio::join!(get_ok(&http, &url), async {
        eventually("the application is asked again", SOON, || async {
            match app.connections() {
                2 => Ok(()),
                count => Err(format!("{count} connections")),
            }
        })
        .await;
        nginx.reload().await;
    });
    assert_eq!(answer, "second");
    assert_eq!(app.connections(), 2);
    drop(http);
    nginx.has_workers(1).await;
}

/// What one worker has found out serves all of them, and outlives a reload: an application that says that it does not multiplex is asked by
/// the first worker alone.
#[tokio::test]
async fn what_is_known_outlives_a_reload() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let app = Fake::start(move |mut socket, _| {
        let count = count.clone();
        async move {
            while let Some(record) = raw::read(&mut socket).await {
                match record.kind {
                    kind::GET_VALUES => {
                        count.fetch_add(1, Ordering::Relaxed);
                        write(&mut socket, &values(false)).await;
                    }
                    kind::STDIN if record.content.is_empty() => {
                        write(&mut socket, &response(record.id, "served")).await;
                        return;
                    }
                    _ => {}
                }
            }
        }
    })
    .await;
    let port = app.port();
    let nginx = Nginx::start(
        4,
        &format!(
            "fastcgi_multiplex on;
             server {{ listen LISTEN reuseport; location / {{ fastcgi_pass 127.0.0.1:{port}; }} }}"
        ),
    )
    .await;
    assert_eq!(get_ok(&client(), &nginx.url("/")).await, "served");
    for _ in 0..2 {
        // By clients of their own, so that all workers have some.
        for _ in 0..40 {
            assert_eq!(get_ok(&client(), &nginx.url("/")).await, "served");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        nginx.reload().await;
    }
}
