//! Redirects within the application (RFC 3875 section 6.2.2): what is one, and what is a response for the client.

use std::time::Duration;

use crate::common::patient;
use crate::common::peer::{Link, Peer, ask, body, client, get, post, text};
use crate::common::upgrade::OFFER;
use afcgi::client::{Awaited, Client, Error, Lost, ResponseBody};
use afcgi_testkit::record::{code, end, record, response};
use http::Response;
use hyper::ext::ReasonPhrase;

const HELLO: &str = "Content-Type: text/plain\r\n\r\nhello";

/// How long a response may pause: longer than a busy machine does.
const READ: Duration = Duration::from_secs(2);

fn stdout(id: u16, content: &str) -> Vec<u8> {
    record(code::STDOUT, id, content.as_bytes())
}

/// A client of an application that sends these pieces, each on its own, in answer to `GET /a`, and then greets everybody.
async fn make(pieces: impl FnOnce(u16) -> Vec<Vec<u8>> + Send + 'static) -> Client {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| config.read_timeout = Some(READ));
    tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        let (id, _) = link.request().await.unwrap();
        for piece in pieces(id) {
            link.say(&piece).await;
            // So that they are not read together, as a rule.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        link.answer_all(HELLO).await;
    });
    client
}

async fn answered(stdout: &'static str) -> Response<ResponseBody> {
    let client = make(|id| vec![response(id, stdout.as_bytes())]).await;
    ask(&client, get("/a")).await.unwrap()
}

#[tokio::test]
async fn what_is_more_than_a_path_is_for_the_client() {
    let followed = answered("Location: /b\n\n").await;
    assert_eq!(followed.status(), 200);
    let cookie = answered("Location: /b\nSet-Cookie: session=1\n\n").await;
    assert_eq!(cookie.status(), 302);
    assert_eq!(cookie.headers()["location"], "/b");
    assert_eq!(cookie.headers()["set-cookie"], "session=1");
    let fragment = answered("Location: /b#top\n\n").await;
    assert_eq!(fragment.status(), 302);
    assert_eq!(fragment.headers()["location"], "/b#top");
    let with_body = answered("Location: /b\n\nmoved").await;
    assert_eq!(with_body.status(), 302);
    assert_eq!(body(with_body).await.unwrap(), "moved");
}

/// Nothing is decided before it has come.
#[tokio::test]
async fn a_body_may_come_later() {
    let late = make(|id| {
        vec![
            stdout(id, "Location: /b\n"),
            stdout(id, "\n"),
            stdout(id, "mo"),
            stdout(id, "ved"),
            end(id, 0, 0),
        ]
    });
    let response = ask(&late.await, get("/a")).await.unwrap();
    assert_eq!(response.status(), 302);
    assert_eq!(body(response).await.unwrap(), "moved");
    let none = make(|id| vec![stdout(id, "Location: /b\n\n"), end(id, 0, 0)]);
    assert_eq!(text(&none.await, get("/a")).await, "hello");
}

#[tokio::test]
async fn one_that_is_not_whole_is_an_error() {
    let failed = make(|id| vec![stdout(id, "Location: /b\n\n"), end(id, 3, 0)]);
    let error = ask(&failed.await, get("/a")).await.unwrap_err();
    assert!(matches!(error, Error::AppStatus(3)), "{error:?}");
    let silent = make(|id| vec![stdout(id, "Location: /b\n\n")]);
    let error = ask(&silent.await, get("/a")).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(Awaited::Read)), "{error:?}");
    let peer = Peer::new().await;
    let client = client(peer.addr, |_| {});
    tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        let (id, _) = link.request().await.unwrap();
        link.say(&stdout(id, "Location: /b\n\n")).await;
        drop(link);
        // It is not sent again: the application has worked on it.
        peer.accept_shared().await.answer_all(HELLO).await;
    });
    let error = ask(&client, get("/a")).await.unwrap_err();
    assert!(matches!(error, Error::Lost(Lost::Closed)), "{error:?}");
}

/// What follows is a GET, which says nothing of a body.
#[tokio::test]
async fn nothing_is_left_of_a_body() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |_| {});
    let serving = tokio::spawn(async move {
        // It has no flow control: a body has a connection for itself.
        let shared = peer.accept_shared().await;
        let mut own = peer.accept().await;
        own.answer("Location: /b\n\n").await.unwrap();
        let mut params = Vec::new();
        let mut links = [shared, own];
        // Either may be what comes next on its own connection.
        loop {
            let [shared, own] = &mut links;
            let (record, link) = tokio::select! {
                record = shared.next() => (record, shared),
                record = own.next() => (record, own),
            };
            match record {
                Some(record) if record.code == code::PARAMS => params.extend(record.content),
                Some(record) if record.code == code::STDIN => {
                    link.say(&response(record.id, HELLO.as_bytes())).await;
                    return String::from_utf8_lossy(&params).into_owned();
                }
                _ => {}
            }
        }
    });
    let mut request = post("/a", "body");
    for (name, value) in [
        ("content-type", "text/x"),
        ("content-encoding", "gzip"),
        ("content-language", "en"),
        ("accept", "*/*"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let _ = patient(client.request(request)).await.unwrap();
    let params = patient(serving).await.unwrap();
    assert!(params.contains("REQUEST_METHODGET"), "{params}");
    assert!(params.contains("HTTP_ACCEPT"), "{params}");
    for gone in [
        "CONTENT_TYPE",
        "CONTENT_ENCODING",
        "CONTENT_LANGUAGE",
        "CONTENT_LENGTH",
    ] {
        assert!(!params.contains(gone), "{gone}: {params}");
    }
}

/// What an authorizer redirects to may well be answered by 200, which would let in whom it did not.
#[tokio::test]
async fn r54_that_of_an_authorizer_refuses() {
    let client = make(|id| vec![response(id, b"Location: /login\n\n")]).await;
    let mut request = get("/secret");
    request.extensions_mut().insert(afcgi::Role::Authorizer);
    let refused = ask(&client, request).await.unwrap();
    assert_eq!(refused.status(), 302);
    assert_eq!(refused.headers()["location"], "/login");
}

/// An application that reads STDIN to its end before it ends itself gets that end, also where it was offered a tunnel.
#[tokio::test]
async fn instead_of_a_tunnel() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| config.read_timeout = Some(READ));
    tokio::spawn(async move {
        let mut link = peer.accept().await;
        link.answer_values(&[("FCGI_MPXS_CONNS", "1"), OFFER]).await;
        let id = async |link: &mut Link, last| loop {
            let record = link.next().await.unwrap();
            if record.code == last && record.content.is_empty() {
                return record.id;
            }
        };
        let redirected = id(&mut link, code::PARAMS).await;
        link.say(&stdout(redirected, "Location: /b\n\n")).await;
        id(&mut link, code::STDIN).await;
        link.say(&end(redirected, 0, 0)).await;
        let next = id(&mut link, code::PARAMS).await;
        link.say(&response(next, HELLO.as_bytes())).await;
    });
    let mut request = get("/a");
    let headers = request.headers_mut();
    headers.insert("upgrade", "websocket".parse().unwrap());
    headers.insert("connection", "upgrade".parse().unwrap());
    assert_eq!(text(&client, request).await, "hello");
}

#[tokio::test]
async fn a_reason_is_kept() {
    let reason = async |head| {
        let response = answered(head).await;
        let found = response.extensions().get::<ReasonPhrase>();
        found.map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned())
    };
    let odd = reason("Status: 404 Gone Fishing\n\n").await;
    assert_eq!(odd.as_deref(), Some("Gone Fishing"));
    assert_eq!(reason("Status: 599\n\n").await.as_deref(), Some(""));
    assert_eq!(reason("Status: 404 Not Found\n\n").await, None);
}
