//! The client's requests to filters: a file follows the body, as DATA.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use crate::common::peer::{Link, Peer, answers_within, ask, body, client, get, post, text};
use crate::common::{eventually, patient, serve};
use afcgi::client::{Awaited, Culprit, Data, Error, MappingError};
use afcgi::{App, Request, Role, native};
use afcgi_proto::ProtocolStatus;
use afcgi_testkit::record::{code, end, response};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};

const HEAD: &[u8] = b"Content-Type: text/plain\r\n\r\n";

/// What is different at each byte, as far as a byte goes.
fn content(length: usize) -> Bytes {
    (0..length)
        .map(|at| (at % 251) as u8 ^ (at >> 16) as u8)
        .collect()
}

fn again(content: &Bytes) -> Data {
    let whole = content.clone();
    Data::new(content.len() as u64, move || Full::new(whole.clone()))
}

fn filtered(data: Data, request: crate::common::peer::Request) -> crate::common::peer::Request {
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(data);
    http::Request::from_parts(parts, body)
}

/// Gives the file back with each byte flipped, behind what came on STDIN.
fn flip() -> impl App + Sync {
    native(async |request: Request| {
        let mut stdout = request.stdout();
        stdout.write(HEAD).await?;
        let mut stdin = request.stdin();
        while let Some(piece) = stdin.read().await? {
            stdout.write(&piece).await?;
        }
        let mut data = request.data();
        while let Some(piece) = data.read().await? {
            let flipped: Vec<u8> = piece.iter().map(|byte| !byte).collect();
            stdout.write(&flipped).await?;
        }
        io::Result::Ok(())
    })
}

/// A source that counts the pieces that were read of it, and knows whether it is still there.
#[derive(Clone, Default)]
struct Watched {
    pieces: Arc<AtomicUsize>,
    gone: Arc<AtomicBool>,
}

struct Source {
    watched: Watched,
    left: usize,
}

impl Watched {
    const PIECE: &[u8] = &[b'x'; 1000];

    /// So many pieces, in a file that is announced to be as long as `length` of them.
    fn data(&self, pieces: usize, length: usize) -> Data {
        let source = Source {
            watched: self.clone(),
            left: pieces,
        };
        Data::once((length * Self::PIECE.len()) as u64, source)
    }

    fn pieces(&self) -> usize {
        self.pieces.load(Ordering::Relaxed)
    }

    async fn is_dropped(&self) {
        let gone = || self.gone.load(Ordering::Relaxed);
        eventually("the source is dropped", gone).await;
    }
}

impl http_body::Body for Source {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.watched.pieces.fetch_add(1, Ordering::Relaxed);
        let piece = Bytes::from_static(Watched::PIECE);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.watched.gone.store(true, Ordering::Relaxed);
    }
}

/// With flow control, without, and on connections that are not shared.
#[tokio::test]
async fn r55_megabytes_pass_byte_by_byte() {
    let server = serve(afcgi::Config::default(), flip());
    let whole = content(5_000_003);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&whole).unwrap();
    for (controlled, multiplex) in [(true, true), (false, true), (false, false)] {
        let client = client(server.addr, |config| {
            config.connection.flow_control = controlled;
            config.multiplex = multiplex;
            answers_within(config, Duration::from_secs(20));
        });
        patient(client.ready()).await.unwrap();
        let in_pieces = {
            let whole = whole.clone();
            Data::new(whole.len() as u64, move || {
                let pieces: Vec<_> = whole.chunks(7001).map(Bytes::copy_from_slice).collect();
                let frames = pieces
                    .into_iter()
                    .map(|piece| Ok::<_, io::Error>(Frame::data(piece)));
                StreamBody::new(futures_util::stream::iter(frames))
            })
        };
        let open = Data::file(file.try_clone().unwrap()).unwrap();
        for data in [again(&whole), in_pieces, open] {
            let request = filtered(data, post("/file", "before it:"));
            let answer = body(ask(&client, request).await.unwrap()).await.unwrap();
            let (before, after) = answer.split_at(10);
            assert_eq!(before, b"before it:");
            assert_eq!(after.len(), whole.len());
            assert!(after.iter().zip(&whole).all(|(out, byte)| *out == !byte));
        }
        assert_eq!(client.stats().aborts, 0);
    }
}

#[tokio::test]
async fn r55_many_files_share_a_connection() {
    let server = serve(afcgi::Config::default(), flip());
    let client = client(server.addr, |config| {
        answers_within(config, Duration::from_secs(20));
    });
    patient(client.ready()).await.unwrap();
    let files = (0..20_usize).map(|number| {
        let whole = content(300_000 + number);
        let request = filtered(again(&whole), get("/file"));
        let client = client.clone();
        async move {
            let answer = body(ask(&client, request).await.unwrap()).await.unwrap();
            answer.len() == whole.len()
                && answer.iter().zip(&whole).all(|(out, byte)| *out == !byte)
        }
    });
    assert!(
        futures_util::future::join_all(files)
            .await
            .into_iter()
            .all(|same| same)
    );
    assert_eq!(client.stats().opened, 1);
}

/// What the application is told, and in which order.
#[tokio::test]
async fn r55_parameters_stdin_and_data_come_in_this_order() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.multiplex = false;
        config.single_idle = 0;
    });
    let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_999);
    for (data, stdin) in [
        ("content", "stdin"),
        ("", "stdin"),
        ("content", ""),
        ("", ""),
    ] {
        let request = ::http::Request::post("/file")
            .extension(again(&Bytes::from(data)).modified(modified))
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .body(Full::from(stdin))
            .unwrap();
        let sent = {
            let client = client.clone();
            tokio::spawn(async move { ask(&client, request).await })
        };
        let mut link = peer.accept().await;
        let (mut role, mut params, mut order, mut id) = (0, Vec::new(), Vec::new(), 0);
        while let Some(record) = link.next().await {
            id = record.id;
            match record.code {
                code::BEGIN => role = record.content[1],
                code::PARAMS => params.extend_from_slice(&record.content),
                _ => {
                    let text = String::from_utf8(record.content).unwrap();
                    let is_end = record.code == code::DATA && text.is_empty();
                    order.push((record.code, text));
                    if is_end {
                        break;
                    }
                }
            }
        }
        assert_eq!(role, 3);
        let params = params.escape_ascii().to_string();
        assert!(params.contains("FCGI_DATA_LAST_MOD1000000000"), "{params}");
        let length = format!("FCGI_DATA_LENGTH{}", data.len());
        assert!(params.contains(&length), "{params}");
        assert!(!params.contains("UPGRADE"), "{params}");
        let mut expected = Vec::new();
        for (code, text) in [(code::STDIN, stdin), (code::DATA, data)] {
            if !text.is_empty() {
                expected.push((code, text.to_owned()));
            }
            expected.push((code, String::new()));
        }
        assert_eq!(order, expected);
        link.say(&response(id, b"Status: 200\r\n\r\n")).await;
        assert_eq!(
            body(patient(sent).await.unwrap().unwrap()).await.unwrap(),
            ""
        );
    }
}

#[tokio::test]
async fn r55_a_filter_needs_a_file_and_others_get_none() {
    let app = native(async |request: Request| {
        let told = request.params().get("FCGI_DATA_LENGTH").is_some();
        let answer = format!("{:?} {told}", request.role());
        request
            .stdout()
            .write(&[HEAD, answer.as_bytes()].concat())
            .await
    });
    let server = serve(afcgi::Config::default(), app);
    let client = client(server.addr, |_| ());
    let none = ::http::Request::get("/").extension(Role::Filter);
    let error = ask(&client, none.body(Full::default()).unwrap()).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, Error::Request(MappingError::NoData)),
        "{error:?}"
    );
    let data = again(&Bytes::from("file"));
    for (role, answer) in [
        (Role::Responder, "Responder false"),
        (Role::Authorizer, "Authorizer false"),
        (Role::Filter, "Filter true"),
    ] {
        let mut request = filtered(data.clone(), get("/"));
        request.extensions_mut().insert(role);
        assert_eq!(text(&client, request).await, answer);
    }
}

/// The application answers, and reads nothing of the file: the response is whole, and nothing more is read
/// than was on its way.
#[tokio::test]
async fn r53_an_early_answer_needs_no_file() {
    for controlled in [true, false] {
        let app = native(async |request: Request| {
            request.stdout().write(&[HEAD, b"early"].concat()).await
        });
        let server = serve(afcgi::Config::default(), app);
        let client = client(server.addr, |config| {
            config.connection.flow_control = controlled;
            answers_within(config, Duration::from_secs(20));
        });
        let watched = Watched::default();
        // A gigabyte.
        let request = filtered(watched.data(1_000_000, 1_000_000), get("/"));
        assert_eq!(text(&client, request).await, "early");
        watched.is_dropped().await;
        assert!(watched.pieces() < 100_000, "{}", watched.pieces());
        // The connection goes on.
        let request = filtered(again(&Bytes::from("abc")), get("/"));
        assert_eq!(text(&client, request).await, "early");
        assert_eq!(client.stats().aborts, 0);
    }
}

/// The file is sent on while the response is read.
#[tokio::test]
async fn r53_a_file_goes_on_behind_the_head() {
    let server = serve(afcgi::Config::default(), flip());
    let client = client(server.addr, |_| ());
    let (sender, receiver) = tokio::sync::mpsc::channel::<io::Result<Frame<Bytes>>>(1);
    let source = stream_of(receiver);
    let request = filtered(Data::once(6, source), get("/"));
    let response = ask(&client, request).await.unwrap();
    let mut body = response.into_body();
    for piece in [b"abc", b"def"] {
        let frame = Frame::data(Bytes::from_static(piece));
        patient(sender.send(Ok(frame))).await.unwrap();
        let flipped: Vec<u8> = piece.iter().map(|byte| !byte).collect();
        let got = patient(body.frame()).await.unwrap().unwrap();
        assert_eq!(got.into_data().unwrap(), flipped);
    }
    drop(sender);
    assert!(patient(body.frame()).await.is_none());
}

fn stream_of(
    mut receiver: tokio::sync::mpsc::Receiver<io::Result<Frame<Bytes>>>,
) -> StreamBody<impl futures_util::Stream<Item = io::Result<Frame<Bytes>>>> {
    StreamBody::new(futures_util::stream::poll_fn(move |cx| {
        receiver.poll_recv(cx)
    }))
}

#[tokio::test]
async fn r57_a_request_that_is_given_up_is_aborted() {
    for controlled in [true, false] {
        let server = serve(afcgi::Config::default(), flip());
        let client = client(server.addr, |config| {
            config.connection.flow_control = controlled;
        });
        let watched = Watched::default();
        let request = filtered(watched.data(1_000_000, 1_000_000), get("/"));
        let mut answer = ask(&client, request).await.unwrap().into_body();
        for _ in 0..10 {
            patient(answer.frame()).await.unwrap().unwrap();
        }
        drop(answer);
        watched.is_dropped().await;
        assert!(watched.pieces() < 100_000, "{}", watched.pieces());
        let stats = server.stats.clone();
        eventually("the application is told", || stats.snapshot().active == 0).await;
        eventually("it is counted", || client.stats().active == 0).await;
    }
}

/// Neither is a success: not for the client, and not for the application, which sees no end of the file.
#[tokio::test]
async fn r59_a_file_of_another_length_is_an_error() {
    let ended = Arc::new(AtomicBool::new(false));
    let (saw_end, early) = (Arc::clone(&ended), Arc::new(AtomicBool::new(false)));
    let has_head = Arc::clone(&early);
    let app = native(move |request: Request| {
        let (saw_end, has_head) = (Arc::clone(&saw_end), Arc::clone(&has_head));
        async move {
            let mut stdout = request.stdout();
            if has_head.load(Ordering::Relaxed) {
                stdout.write(HEAD).await?;
            }
            let mut data = request.data();
            while let Some(piece) = data.read().await? {
                if has_head.load(Ordering::Relaxed) {
                    stdout.write(&piece).await?;
                }
            }
            saw_end.store(true, Ordering::Relaxed);
            stdout.write(HEAD).await?;
            io::Result::Ok(())
        }
    });
    let server = serve(afcgi::Config::default(), app);
    let client = client(server.addr, |_| ());
    for head in [false, true] {
        early.store(head, Ordering::Relaxed);
        for (pieces, length) in [(0, 1), (1000, 1001), (2000, 1999)] {
            let watched = Watched::default();
            let request = filtered(watched.data(pieces, length), get("/"));
            let error = match ask(&client, request).await {
                Err(error) => error,
                Ok(response) => body(response).await.unwrap_err(),
            };
            assert!(matches!(error, Error::DataLength), "{error:?}");
            assert_eq!(
                (error.status().as_u16(), error.culprit()),
                (500, Culprit::User)
            );
            watched.is_dropped().await;
        }
    }
    let failing = || {
        let frames = [
            Ok(Frame::data(Bytes::from("abc"))),
            Err(io::Error::other("the disk is gone")),
        ];
        StreamBody::new(futures_util::stream::iter(frames))
    };
    let sent = ask(&client, filtered(Data::new(10, failing), get("/"))).await;
    let error = match sent {
        Err(error) => error,
        Ok(response) => body(response).await.unwrap_err(),
    };
    assert!(matches!(error, Error::Data(_)), "{error:?}");
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    eventually("all were aborted", || client.stats().aborts == 7).await;
    let stats = server.stats.clone();
    eventually("all are over", || stats.snapshot().active == 0).await;
    assert!(!ended.load(Ordering::Relaxed));
}

/// A file that is cut while it is sent.
#[tokio::test]
async fn r59_a_file_that_is_cut_is_an_error() {
    let server = serve(afcgi::Config::default(), flip());
    let client = client(server.addr, |_| ());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content(200_000)).unwrap();
    let data = Data::file(file.try_clone().unwrap()).unwrap();
    file.set_len(100_000).unwrap();
    let sent = ask(&client, filtered(data, get("/"))).await;
    let error = match sent {
        Err(error) => error,
        Ok(response) => body(response).await.unwrap_err(),
    };
    assert!(matches!(error, Error::DataLength), "{error:?}");
}

#[tokio::test]
async fn an_application_that_takes_nothing_is_not_waited_for() {
    let app = native(async |request: Request| {
        request.over().wait().await;
        io::Result::Ok(())
    });
    let server = serve(afcgi::Config::default(), app);
    let client = client(server.addr, |config| {
        config.send_timeout = Duration::from_millis(50);
    });
    let watched = Watched::default();
    let request = filtered(watched.data(1_000_000, 1_000_000), get("/"));
    let error = ask(&client, request).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(Awaited::Send)), "{error:?}");
    watched.is_dropped().await;
}

/// Nobody waits for what a filter would say to a HEAD: it is not left to wait for its file.
#[tokio::test]
async fn head_sends_no_more_of_a_file_than_it_needs() {
    let server = serve(afcgi::Config::default(), flip());
    let client = client(server.addr, |config| {
        config.connection.linger_time = Duration::from_secs(3600);
    });
    let watched = Watched::default();
    let mut request = filtered(watched.data(1_000_000, 1_000_000), get("/"));
    *request.method_mut() = ::http::Method::HEAD;
    let response = ask(&client, request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(body(response).await.unwrap(), "");
    watched.is_dropped().await;
    let stats = server.stats.clone();
    eventually("it is over", || stats.snapshot().active == 0).await;
    assert_eq!(client.stats().aborts, 1);
}

/// A redirect within the application names a path, for which there is no file: it is for the client.
#[tokio::test]
async fn a_redirect_is_not_followed() {
    let app =
        native(async |request: Request| request.stdout().write(b"Location: /other\r\n\r\n").await);
    let server = serve(afcgi::Config::default(), app);
    let client = client(server.addr, |_| ());
    let request = filtered(again(&Bytes::from("file")), get("/"));
    let response = ask(&client, request).await.unwrap();
    assert_eq!(response.status(), 302);
    assert_eq!(response.headers()["location"], "/other");
    assert_eq!(server.stats.snapshot().served, 1);
}

/// Reads a request to the end of its file: its id and the file.
async fn file_of(link: &mut Link) -> (u16, Vec<u8>) {
    let mut file = Vec::new();
    loop {
        let record = link.next().await.unwrap();
        match record.code {
            code::DATA if record.content.is_empty() => return (record.id, file),
            code::DATA => file.extend_from_slice(&record.content),
            _ => {}
        }
    }
}

/// A request that was refused when its file had come is sent again with all of it, if that can be had.
#[tokio::test]
async fn r51_a_file_is_begun_again() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        config.multiplex = false;
        config.single_idle = 0;
        config.replay_buffer = 1000;
        config.retries = 1;
    });
    let (large, small) = (content(300_000), content(1000));
    let once = |content: &Bytes| Data::once(content.len() as u64, Full::new(content.clone()));
    for (data, whole, repeated) in [
        (again(&large), &large, true),
        (once(&small), &small, true),
        (once(&large), &large, false),
    ] {
        let sent = {
            let (client, request) = (client.clone(), filtered(data, get("/")));
            tokio::spawn(async move { ask(&client, request).await })
        };
        let mut link = peer.accept().await;
        let (id, file) = file_of(&mut link).await;
        assert!(file == *whole);
        link.say(&end(id, 0, 2)).await;
        if repeated {
            let mut link = peer.accept().await;
            let (id, file) = file_of(&mut link).await;
            assert!(file == *whole);
            link.say(&response(id, b"Status: 200\r\n\r\n")).await;
            let answer = patient(sent).await.unwrap().unwrap();
            assert_eq!(body(answer).await.unwrap(), "");
        } else {
            let error = patient(sent).await.unwrap().unwrap_err();
            assert!(
                matches!(error, Error::Refused(ProtocolStatus::Overloaded)),
                "{error:?}"
            );
        }
    }
    assert_eq!(client.stats().retries, 2);
}

/// An application that multiplexes without flow control gets a file on a connection of its own, as it
/// does a body: it may leave it unread.
#[tokio::test]
async fn a_file_that_cannot_be_held_back_has_a_connection_of_its_own() {
    let peer = Peer::new().await;
    let client = client(peer.addr, |config| {
        answers_within(config, Duration::from_secs(20));
    });
    let sent = {
        let request = filtered(again(&content(100)), get("/"));
        let client = client.clone();
        tokio::spawn(async move { ask(&client, request).await })
    };
    let mut shared = peer.accept_shared().await;
    let mut own = peer.accept().await;
    let (id, file) = file_of(&mut own).await;
    assert!(file == content(100));
    own.say(&response(id, b"Status: 200\r\n\r\n")).await;
    assert_eq!(patient(sent).await.unwrap().unwrap().status(), 200);
    let (answer, id) = tokio::join!(ask(&client, get("/")), shared.answer("Status: 200\r\n\r\n"));
    assert_eq!(answer.unwrap().status(), 200);
    assert!(id.is_some());
    assert_eq!(client.stats().opened, 2);
}
