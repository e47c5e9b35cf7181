//! The variables in the access log.

use afcgi_interop::app::App;
use afcgi_interop::http::{client, get, get_ok};
use afcgi_interop::wait::{SOON, eventually};
use afcgi_nginx_tests::nginx::Nginx;
use futures_util::future::join_all;

use super::support::*;

#[tokio::test]
async fn variables_of_ordinary_requests() {
    let app = App::afcgitest(&[]).await;
    let more = "add_header X-Id $fastcgi_multiplex_connection/$fastcgi_multiplex_id;";
    let nginx = watched(1, app.port(), more).await;
    let client = client();
    let response = get(&client, &nginx.url("/first")).await;
    let header = response.headers()["x-id"]
        .to_str()
        .expect("text")
        .to_owned();
    get_ok(&client, &nginx.url("/second")).await;
    let [status, connection, id, waited, aborted, stalled] = logged(&nginx, "/first").await;
    assert_eq!(
        (&*status, &*id, &*aborted, &*stalled),
        ("200", "1", "0", "0.000")
    );
    assert!(
        connection.parse::<u64>().is_ok_and(|number| number > 0),
        "{connection}"
    );
    assert!(seconds(&waited) < 5.0);
    assert_eq!(
        header,
        format!("{connection}/1"),
        "before the end of the request"
    );
    let [_, second, _, waited, ..] = logged(&nginx, "/second").await;
    assert_eq!(second, connection);
    assert_eq!(waited, "0.000");
    // What did not go through the module.
    for path in ["/own/x", "/off/x", "/-/../own/y"] {
        get(&client, &nginx.url(path)).await;
    }
    for path in ["/own/x", "/off/x"] {
        let values = logged(&nginx, path).await;
        assert_eq!(values[1..], ["-", "-", "-", "-", "-"], "{path}");
    }
}

#[tokio::test]
async fn variables_of_concurrent_requests() {
    let app = App::afcgitest(&[]).await;
    let nginx = watched(1, app.port(), "").await;
    let client = client();
    get_ok(&client, &nginx.url("/first")).await;
    let (one, two) = (
        nginx.url("/delay?ms=2000&one"),
        nginx.url("/delay?ms=2000&two"),
    );
    tokio::join!(get_ok(&client, &one), get_ok(&client, &two));
    let one = logged(&nginx, "/delay?ms=2000&one").await;
    let two = logged(&nginx, "/delay?ms=2000&two").await;
    assert_eq!(one[1], two[1], "the same connection");
    let mut ids = [&*one[2], &*two[2]];
    ids.sort_unstable();
    assert_eq!(ids, ["1", "2"]);
}

#[tokio::test]
async fn variables_of_a_request_that_is_given_up() {
    let app = App::afcgitest(&[]).await;
    let nginx = watched(1, app.port(), "").await;
    let client = client();
    gives_up(&client, &nginx.url("/delay?ms=2000")).await;
    let [status, _, id, _, aborted, _] = logged(&nginx, "/delay?ms=2000").await;
    assert_eq!((&*status, &*id, &*aborted), ("499", "1", "1"));
    shows(&client, &nginx, &[("aborts", 1), ("draining", 0)]).await;
}

/// What nginx needs no more of is not aborted if it ends soon.
#[tokio::test]
async fn variables_of_head_requests() {
    let app = App::afcgitest(&[]).await;
    let nginx = watched(1, app.port(), "").await;
    let client = client();
    let head = client.head(nginx.url("/head")).send().await;
    assert_eq!(head.expect("a response").status().as_u16(), 200);
    let [status, _, id, _, aborted, _] = logged(&nginx, "/head").await;
    assert_eq!((&*status, &*id, &*aborted), ("200", "1", "0"));
    shows(
        &client,
        &nginx,
        &[("aborts", 0), ("draining", 0), ("active", 0)],
    )
    .await;
}

#[tokio::test]
async fn variables_of_a_request_that_waited() {
    let app = App::afcgitest(&[]).await;
    let port = app.port();
    let nginx = Nginx::start(
        1,
        &format!(
            "{SEEN} upstream app {{ server 127.0.0.1:{port}; fastcgi_multiplex requests=2; }}
             server {{ listen LISTEN; {STATUS} location / {{ fastcgi_pass app; }} }}"
        ),
    )
    .await;
    let client = client();
    get_ok(&client, &nginx.url("/first")).await;
    let held = join_all((0..3).map(async |n| {
        get_ok(&client, &nginx.url(&format!("/delay?ms=2500&n={n}"))).await;
        seconds(&logged(&nginx, &format!("/delay?ms=2500&n={n}")).await[3])
    }));
    let meanwhile = shows(&client, &nginx, &[("active", 2), ("waiting", 1)]);
    let (mut waited, _) = tokio::join!(held, meanwhile);
    waited.sort_by(f64::total_cmp);
    assert!(waited[1] < 1.0, "{waited:?}");
    assert!((1.5..6.0).contains(&waited[2]), "{waited:?}");
    shows(
        &client,
        &nginx,
        &[("active", 0), ("waiting", 0), ("connections", 1)],
    )
    .await;
    // One that leaves the queue had no place.
    let held = join_all((0..2).map(async |_| get_ok(&client, &nginx.url("/delay?ms=5000")).await));
    let meanwhile = async {
        shows(&client, &nginx, &[("active", 2)]).await;
        gives_up(&client, &nginx.url("/leaves")).await;
        let [_, connection, id, waited, aborted, _] = logged(&nginx, "/leaves").await;
        assert_eq!((&*connection, &*id, &*aborted), ("-", "-", "0"));
        assert!(seconds(&waited) > 0.2, "{waited}");
        shows(&client, &nginx, &[("waiting", 0)]).await;
    };
    tokio::join!(held, meanwhile);
}

/// nginx forgets what modules have for a request when it goes on in another location.
#[tokio::test]
async fn variables_after_an_internal_redirect() {
    let app = App::afcgitest(&[]).await;
    let port = app.port();
    let nginx = Nginx::start(
        1,
        &format!(
            "{SEEN} server {{ listen LISTEN; {STATUS}
                 location / {{ fastcgi_intercept_errors on; error_page 404 /own; fastcgi_pass 127.0.0.1:{port}; }}
                 location /own {{ internal; return 404 own; }} }}"
        ),
    )
    .await;
    let response = get(&client(), &nginx.url("/status?code=404")).await;
    assert_eq!(response.status().as_u16(), 404);
    let [status, _, id, _, aborted, _] = logged(&nginx, "/status?code=404").await;
    assert_eq!((&*status, &*id, &*aborted), ("404", "1", "0"));
}

/// Subrequests have values of their own, and the request that they belong to has none of them.
#[tokio::test]
async fn variables_of_subrequests() {
    let app = App::afcgitest(&[]).await;
    let port = app.port();
    let nginx = Nginx::start(
        1,
        &format!(
            "{SEEN} log_subrequest on;
             server {{ listen LISTEN; {STATUS}
                 location / {{ fastcgi_pass 127.0.0.1:{port}; }}
                 location /pages/ {{ root .; ssi on; }} }}"
        ),
    )
    .await;
    let page = nginx.dir().join("pages/two.html");
    std::fs::create_dir(nginx.dir().join("pages")).expect("a folder");
    let text =
        "<!--#include virtual=\"/delay?ms=1000\" --><!--#include virtual=\"/delay?ms=1001\" -->";
    std::fs::write(page, text).expect("a page");
    let body = get_ok(&client(), &nginx.url("/pages/two.html")).await;
    assert_eq!(body, "Hello world\nHello world\n");
    let mut ids = eventually("all three are logged", SOON, || async {
        let log = std::fs::read_to_string(nginx.dir().join("access.log")).unwrap_or_default();
        let ids: Vec<_> = log
            .lines()
            .filter_map(|line| line.split(' ').nth(3))
            .collect();
        <[&str; 3]>::try_from(ids)
            .map(|ids| ids.map(str::to_owned))
            .map_err(|_| log.clone())
    })
    .await;
    ids.sort_unstable();
    assert_eq!(ids, ["-", "1", "2"]);
}
