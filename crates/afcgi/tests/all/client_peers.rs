//! The client against applications made by hand, as odd and hostile as applications are.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use crate::common::peer::{Link, Peer, ask, body, client, get, post, text};
use crate::common::{eventually, patient};
use afcgi::client::{Awaited, Client, Config, Error, Lost};
use afcgi_proto::ProtocolStatus;
use afcgi_proto::cgi::HeadError;
use afcgi_testkit::record::{code, end, pairs, record, stream};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;

const HELLO: &str = "Content-Type: text/plain\r\n\r\nhello";

/// What a client makes of one response, whose bytes are made for its request id; then the
/// connection is closed.
async fn make(response: impl FnOnce(u16) -> Vec<u8> + Send + 'static) -> Result<String, Error> {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| config.retries = 0);
    tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        let (id, _) = link.request().await.unwrap();
        link.say(&response(id)).await;
        drop(link);
        // Later connections hang.
        std::future::pending::<()>().await;
        drop(peer);
    });
    let body = body(ask(&client, get("/")).await?).await?;
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

fn stdout(id: u16, content: &str) -> Vec<u8> {
    record(code::STDOUT, id, content.as_bytes())
}

#[tokio::test]
async fn r52_only_a_whole_response_is_a_success() {
    let whole = |id| [stdout(id, HELLO), end(id, 0, 0)].concat();
    assert_eq!(make(whole).await.unwrap(), "hello");
    // No END_REQUEST.
    let cut = make(|id| stdout(id, HELLO)).await.unwrap_err();
    assert!(matches!(cut, Error::Lost(Lost::Closed)), "{cut:?}");
    // Its STDOUT has ended, and nothing else.
    let cut = make(|id| stream(code::STDOUT, id, HELLO.as_bytes(), 100)).await;
    assert!(matches!(cut, Err(Error::Lost(Lost::Closed))), "{cut:?}");
    // Inside a record.
    let cut = make(move |id| whole(id)[..30].to_vec()).await.unwrap_err();
    assert!(matches!(cut, Error::Lost(Lost::Protocol(_))), "{cut:?}");
    assert_eq!(cut.status(), 502);
    // The status of the program.
    let failed = make(|id| [stdout(id, HELLO), end(id, 3, 0)].concat()).await;
    assert!(matches!(failed, Err(Error::AppStatus(3))), "{failed:?}");
}

/// What a client makes of an application that has read the parameters and said "hel" when it reads no more: the rest of
/// what it does is done while the client looks at no socket, so that writing the body is what finds out first.
async fn stop_reading(
    last: impl FnOnce(UnixStream) -> Option<UnixStream> + Send + 'static,
) -> Result<Bytes, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut config = Config::default();
    config.send_timeout = Duration::from_millis(300);
    let client = Client::builder()
        .address(path.to_str().unwrap())
        .config(config)
        .build()
        .unwrap();
    let (go_on, told_to) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel();
    let application = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        assert_ne!(socket.read(&mut buffer).unwrap(), 0);
        let values = pairs(&[("FCGI_MPXS_CONNS", "1"), ("FCGI_FLOW_CONTROL", "65536")]);
        let values = record(code::GET_VALUES_RESULT, 0, &values);
        socket.write_all(&values).unwrap();
        assert_ne!(socket.read(&mut buffer).unwrap(), 0);
        let begun = stdout(1, HELLO.strip_suffix("lo").unwrap());
        socket.write_all(&begun).unwrap();
        told_to.recv().unwrap();
        let kept = last(socket);
        done.send(()).unwrap();
        kept
    });
    let (upload, chunks) = tokio::sync::mpsc::channel(1);
    let chunks = stream::unfold(chunks, async |mut chunks| {
        let chunk = chunks.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(chunk)), chunks))
    });
    let request = http::Request::post("/").body(StreamBody::new(Box::pin(chunks)));
    let response = patient(client.request(request.unwrap())).await.unwrap();
    go_on.send(()).unwrap();
    is_done.recv().unwrap();
    upload.try_send(Bytes::from_static(b"more")).unwrap();
    let whole = body(response).await;
    drop(application.join().unwrap());
    whole
}

/// An application may answer before it has read the body, and close.
#[tokio::test]
async fn r52_an_answer_is_read_though_writing_fails() {
    let whole = stop_reading(|mut socket| {
        let rest = [stdout(1, "lo"), end(1, 0, 0)].concat();
        socket.write_all(&rest).unwrap();
        None
    });
    assert_eq!(whole.await.unwrap(), "hello");
    let silent = stop_reading(|socket| {
        socket.shutdown(std::net::Shutdown::Read).unwrap();
        Some(socket)
    });
    let error = silent.await.unwrap_err();
    assert!(matches!(error, Error::Lost(Lost::Io(_))), "{error:?}");
}

#[tokio::test]
async fn a_length_that_was_announced_is_kept() {
    let say = |length: u32, more: &'static str| {
        make(move |id| {
            let head = format!("Content-Length: {length}\n\nfive!");
            [stdout(id, &head), stdout(id, more), end(id, 0, 0)].concat()
        })
    };
    assert_eq!(say(10, "and 5").await.unwrap(), "five!and 5");
    for (length, more, found) in [(11, "and 5", 10), (4, "", 5), (7, "and 5", 10)] {
        match say(length, more).await {
            Err(Error::Length {
                announced,
                found: n,
            }) => assert_eq!((announced, n), (length.into(), found)),
            other => panic!("{length}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn heads_that_are_none() {
    let no_head = make(|id| [stdout(id, "Content-"), end(id, 0, 0)].concat()).await;
    assert!(matches!(no_head, Err(Error::NoHead)), "{no_head:?}");
    let nothing = make(|id| end(id, 1, 0)).await;
    assert!(matches!(nothing, Err(Error::NoHead)), "{nothing:?}");
    let bad = make(|id| stdout(id, "no head\n\n")).await;
    assert!(matches!(bad, Err(Error::Head(HeadError::Field))), "{bad:?}");
    let long = make(|id| stdout(id, &"x".repeat(65_535)).repeat(2)).await;
    assert!(
        matches!(long, Err(Error::Head(HeadError::TooLong))),
        "{long:?}"
    );
    let unasked = make(|id| stdout(id, "Status: 101\nUpgrade: x\n\n")).await;
    assert!(matches!(unasked, Err(Error::Unasked101)), "{unasked:?}");
    let half = make(|id| stdout(id, "A: b\n")).await;
    assert!(matches!(half, Err(Error::Lost(Lost::Closed))), "{half:?}");
}

#[tokio::test]
async fn garbage_is_named() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |_| {});
    let serving = tokio::spawn(async move {
        loop {
            let mut link = peer.accept().await;
            link.next().await;
            link.say(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = ask(&client, get("/")).await.unwrap_err();
    assert!(matches!(error, Error::Lost(Lost::Protocol(_))), "{error:?}");
    assert!(
        error.to_string().contains("does not speak FastCGI"),
        "{error}"
    );
    serving.abort();
}

#[tokio::test]
async fn r11_records_for_others_and_a_second_end_mean_nothing() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |_| {});
    let serving = tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        // The answer to GET_VALUES comes twice, as Go's does.
        link.say(&record(code::GET_VALUES_RESULT, 0, b"")).await;
        for _ in 0..3 {
            let (id, _) = link.request().await.unwrap();
            let other = id + 7;
            let answer = [
                stdout(other, "Status: 500\n\nnot yours"),
                stdout(id, HELLO),
                end(other, 0, 0),
                end(id, 0, 0),
                end(id, 0, 0),
                stdout(id, "late"),
            ];
            link.say(&answer.concat()).await;
        }
    });
    for _ in 0..3 {
        assert_eq!(text(&client, get("/")).await, "hello");
    }
    patient(serving).await.unwrap();
    assert_eq!(client.stats().opened, 1);
}

/// An application that takes one request per connection: connections, and requests on each.
async fn one_by_one(peer: Peer) {
    loop {
        let mut link = peer.accept().await;
        tokio::spawn(async move { link.answer_all(HELLO).await });
    }
}

#[tokio::test]
async fn r40_whoever_is_silent_or_closes_gets_a_connection_for_each_request() {
    for closes in [false, true] {
        let peer = Peer::new().await;
        let client = client(peer.addr, |_| {});
        tokio::spawn(async move {
            let mut link = peer.accept().await;
            assert_eq!(link.next().await.unwrap().code, code::GET_VALUES);
            if closes {
                drop(link);
            } else {
                assert!(link.next().await.is_none());
            }
            one_by_one(peer).await;
        });
        for _ in 0..3 {
            assert_eq!(text(&client, get("/")).await, "hello");
        }
        // Nothing is known of how many connections it takes: none is kept.
        assert_eq!(client.stats().opened, 4);
    }
}

#[tokio::test]
async fn r40_whoever_says_no_gets_few_connections_and_they_are_used_again() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.keep_conn = true;
        config.single_idle_timeout = crate::common::PATIENCE;
    });
    tokio::spawn(async move {
        peer.say_no("4").await;
        one_by_one(peer).await;
    });
    let many = (0..50).map(|_| text(&client, post("/", "body")));
    for text in futures_util::future::join_all(many).await {
        assert_eq!(text, "hello");
    }
    // One to ask, four at a time.
    let opened = client.stats().opened;
    assert!((2..=1 + 50 / 2).contains(&opened), "{opened}");
    eventually("two are kept", || client.stats().connections == 2).await;
    assert_eq!(text(&client, get("/")).await, "hello");
    assert_eq!(client.stats().opened, opened);
}

/// An application that refuses so many requests on shared connections, and answers the others.
async fn refuse(link: &mut Link, times: usize, status: u8) {
    for _ in 0..times {
        let (id, _) = link.request().await.unwrap();
        link.say(&end(id, 0, status)).await;
    }
}

#[tokio::test]
async fn r51_what_was_refused_is_sent_again_so_often() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| config.retries = 2);
    let serving = tokio::spawn(async move {
        let mut link = peer.accept_controlled().await;
        refuse(&mut link, 2, 2).await;
        assert_eq!(link.request().await.unwrap().1, 4);
        link.say(&afcgi_testkit::record::response(1, HELLO.as_bytes()))
            .await;
        refuse(&mut link, 3, 2).await;
        link
    });
    // POST too: it was not worked on.
    assert_eq!(text(&client, post("/", "body")).await, "hello");
    assert_eq!(client.stats().retries, 2);
    let error = ask(&client, post("/", "body")).await.unwrap_err();
    assert!(
        matches!(error, Error::Refused(ProtocolStatus::Overloaded)),
        "{error:?}"
    );
    assert_eq!(error.status(), 503);
    assert!(error.is_retryable() && error.retry_after().is_some());
    let stats = client.stats();
    assert_eq!((stats.retries, stats.refusals, stats.failures), (4, 5, 1));
    patient(serving).await.unwrap();
}

#[tokio::test]
async fn r51_whoever_refuses_to_multiplex_gets_a_connection_for_each_request() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |_| {});
    tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        refuse(&mut link, 1, 1).await;
        one_by_one(peer).await;
    });
    assert_eq!(text(&client, get("/")).await, "hello");
    assert_eq!(client.stats().retries, 1);
    assert_eq!(text(&client, get("/")).await, "hello");
    assert_eq!(client.stats().retries, 1);
}

/// A connection that is closed just when the second request is written.
async fn closes_at_the_second(peer: &Peer) {
    let mut link = peer.accept_controlled().await;
    link.answer(HELLO).await.unwrap();
    link.request().await.unwrap();
}

#[tokio::test]
async fn idempotent_requests_survive_a_kept_connection_that_is_closed() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |_| {});
    let serving = tokio::spawn(async move {
        for _ in 0..2 {
            closes_at_the_second(&peer).await;
        }
        let mut link = peer.accept_shared().await;
        link.answer(HELLO).await.unwrap();
        (peer, link)
    });
    assert_eq!(text(&client, get("/")).await, "hello");
    // The second is sent on another connection, which answers it.
    assert_eq!(text(&client, get("/")).await, "hello");
    assert_eq!(client.stats().retries, 1);
    // The third may have been worked on.
    let error = ask(&client, post("/", "body")).await.unwrap_err();
    assert!(matches!(error, Error::Lost(_)), "{error:?}");
    assert_eq!(client.stats().retries, 1);
    assert_eq!(text(&client, get("/")).await, "hello");
    patient(serving).await.unwrap();
}

#[tokio::test]
async fn a_fresh_connection_that_is_closed_is_not_tried_again() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |_| {});
    tokio::spawn(async move {
        loop {
            let mut link = peer.accept_shared().await;
            link.request().await;
        }
    });
    let error = ask(&client, get("/")).await.unwrap_err();
    assert!(matches!(error, Error::Lost(Lost::Closed)), "{error:?}");
    assert_eq!(client.stats().retries, 0);
}

/// What a client that gives up says to the application.
async fn sees_abort(link: &mut Link) {
    loop {
        let record = link.next().await.expect("an abort");
        if record.code == code::ABORT {
            link.say(&end(record.id, 0, 0)).await;
            return;
        }
    }
}

#[tokio::test]
async fn r57_who_is_late_is_aborted_and_the_connection_checked() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.first_byte_timeout = Some(Duration::from_millis(80));
        config.read_timeout = Some(Duration::from_millis(80));
    });
    let serving = tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        // Not even a head.
        let (first, _) = link.request().await.unwrap();
        // Something comes meanwhile: the application is there.
        link.say(&stdout(first + 9, "x")).await;
        link.answer_values(&[("FCGI_MPXS_CONNS", "1")]).await;
        sees_abort(&mut link).await;
        // A head, and no more.
        let (id, _) = link.request().await.unwrap();
        link.say(&stdout(id, HELLO)).await;
        // It is asked whether it is there, and does not answer: it gets no more requests.
        assert_eq!(link.next().await.unwrap().code, code::GET_VALUES);
        sees_abort(&mut link).await;
        assert!(link.next().await.is_none());
        let mut link = peer.accept_shared().await;
        link.answer(HELLO).await.unwrap();
    });
    let error = ask(&client, get("/")).await.unwrap_err();
    assert!(
        matches!(error, Error::Timeout(Awaited::FirstByte)),
        "{error:?}"
    );
    assert_eq!(error.status(), 504);
    let error = body(ask(&client, get("/")).await.unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Timeout(Awaited::Read)), "{error:?}");
    eventually("the connection is given up", || {
        client.stats().connections == 0
    })
    .await;
    assert_eq!(text(&client, get("/")).await, "hello");
    let stats = client.stats();
    assert_eq!((stats.timeouts, stats.aborts, stats.opened), (2, 2, 2));
    patient(serving).await.unwrap();
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_is_given_up_at_once() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.first_byte_timeout = Some(Duration::from_millis(50));
    });
    let serving = tokio::spawn(async move {
        let mut dead = peer.accept_shared().await;
        dead.request().await.unwrap();
        let mut link = peer.accept_shared().await;
        link.answer(HELLO).await.unwrap();
        dead
    });
    assert!(ask(&client, get("/")).await.is_err());
    assert_eq!(text(&client, get("/")).await, "hello");
    patient(serving).await.unwrap();
}

#[tokio::test]
async fn who_does_not_read_a_body_is_late() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.send_timeout = Duration::from_millis(200);
    });
    let serving = tokio::spawn(async move {
        let mut link = peer.accept().await;
        let values = [("FCGI_MPXS_CONNS", "1"), ("FCGI_FLOW_CONTROL", "1000")];
        link.answer_values(&values).await;
        // The credit is never renewed.
        let mut length = 0;
        loop {
            let record = link.next().await.unwrap();
            match record.code {
                code::STDIN => length += record.content.len(),
                code::ABORT => return length,
                _ => {}
            }
        }
    });
    let error = ask(&client, post("/", vec![0; 5000])).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(Awaited::Send)), "{error:?}");
    assert_eq!(patient(serving).await.unwrap(), 1000);
}

#[tokio::test]
async fn requests_with_bodies_do_not_share_where_there_is_no_flow_control() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |_| {});
    let serving = tokio::spawn(async move {
        let mut shared = peer.accept_shared().await;
        shared.answer(HELLO).await.unwrap();
        let mut single = peer.accept().await;
        // Not asked, and no other request would be on it.
        single.answer(HELLO).await.unwrap();
        shared.answer(HELLO).await.unwrap();
    });
    assert_eq!(text(&client, get("/")).await, "hello");
    assert_eq!(text(&client, post("/", "body")).await, "hello");
    assert_eq!(text(&client, get("/")).await, "hello");
    patient(serving).await.unwrap();
}

#[tokio::test]
async fn who_floods_an_unread_response_hurts_itself_alone() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.connection.receive_buffer = 10_000;
        config.connection.stall_timeout = Duration::from_millis(100);
    });
    tokio::spawn(async move {
        let mut flooded = peer.accept_shared().await;
        let (id, _) = flooded.request().await.unwrap();
        flooded.say(&stdout(id, HELLO)).await;
        flooded.say(&stdout(id, &"x".repeat(60_000))).await;
        // What stalls is not shared any further.
        let mut link = peer.accept_shared().await;
        link.answer_all(HELLO).await;
        drop(flooded);
    });
    let unread = ask(&client, get("/")).await.unwrap();
    eventually("it stalls", || client.stats().stalls == 1).await;
    assert_eq!(text(&client, get("/")).await, "hello");
    assert_eq!(client.stats().opened, 2);
    drop(unread);
}

#[tokio::test]
async fn interim_heads_come_before_the_response() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |_| {});
    tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        let early = "Status: 103 Early Hints\nLink: </a.css>\n\nStatus: 100\n\n";
        link.answer(&format!("{early}Status: 201\n\nmade")).await;
    });
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let to = std::sync::Arc::clone(&seen);
    let mut request = get("/");
    request
        .extensions_mut()
        .insert(afcgi::client::OnInterim(std::sync::Arc::new(
            move |interim| to.lock().unwrap().push(interim),
        )));
    let response = ask(&client, request).await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(body(response).await.unwrap(), "made");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].status(), 103);
    assert_eq!(seen[0].headers()["link"], "</a.css>");
}

#[tokio::test]
async fn local_redirects_are_followed_so_often() {
    let peer = Peer::new().await;
    let client: Client = client(peer.addr, |config| config.local_redirects = 2);
    let serving = tokio::spawn(async move {
        let mut link = peer.accept_shared().await;
        link.answer("Location: /b?c\n\n").await.unwrap();
        let mut params = Vec::new();
        loop {
            let record = link.next().await.unwrap();
            match record.code {
                code::PARAMS => params.extend(record.content),
                code::STDIN => break,
                _ => {}
            }
        }
        link.say(&afcgi_testkit::record::response(1, HELLO.as_bytes()))
            .await;
        for _ in 0..3 {
            link.answer("Location: /again\n\n").await.unwrap();
        }
        String::from_utf8_lossy(&params).into_owned()
    });
    assert_eq!(text(&client, get("/a")).await, "hello");
    let error = ask(&client, get("/loop")).await.unwrap_err();
    assert!(matches!(error, Error::Redirects), "{error:?}");
    let params = patient(serving).await.unwrap();
    assert!(params.contains("REQUEST_URI/b?c"), "{params}");
}
