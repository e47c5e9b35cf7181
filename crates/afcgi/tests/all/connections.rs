//! How connections end: those whose web server still sends, and those that make room for others.

use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{Client, Served, eventually, patient, serve};
use afcgi::{Config, Listener, Request, Server, native};
use afcgi_testkit::record::{self, code};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, oneshot};

const HOUR: Duration = Duration::from_secs(3600);

/// An answer that fits into the buffer of a socket that nobody reads yet.
const ANSWER: usize = 60_000;

/// Answers without a look at the body.
async fn hasty(request: Request) -> io::Result<()> {
    let mut stdout = request.stdout();
    stdout.write(b"Status: 413\r\n\r\n").await?;
    Ok(stdout.write(&[7; ANSWER]).await?)
}

/// A request of a connection for one alone, with the first `length` bytes of a body.
fn upload(length: usize) -> Vec<u8> {
    let body = vec![9; length];
    let mut bytes = record::begin(1, 1, 0);
    bytes.extend(record::params(1, &[("REQUEST_METHOD", "POST")]));
    for part in body.chunks(65_535) {
        bytes.extend(record::record(code::STDIN, 1, part));
    }
    bytes
}

/// Sends all of a body before it reads, as web servers do.
async fn send_then_read(mut socket: impl AsyncRead + AsyncWrite + Unpin) {
    let bytes = [upload(4 << 20), record::record(code::STDIN, 1, b"")].concat();
    patient(socket.write_all(&bytes)).await.unwrap();
    let mut answer = Vec::new();
    patient(socket.read_to_end(&mut answer)).await.unwrap();
    let stdout = record::content(&answer, code::STDOUT, 1);
    assert_eq!(stdout.len(), "Status: 413\r\n\r\n".len() + ANSWER);
    assert_eq!(record::content(&answer, code::END, 1), [0; 8]);
}

#[tokio::test]
async fn an_answer_arrives_although_the_body_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let tcp = Listener::bind("127.0.0.1:0").unwrap();
    let addr = tcp.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::new()
        .listen(tcp)
        .listen(Listener::bind(&format!("unix:{}", path.display())).unwrap())
        .signals(false)
        .stop_when(async { drop(stopped.await) });
    let serving = tokio::spawn(server.serve(native(hasty)));
    for _ in 0..20 {
        send_then_read(TcpStream::connect(addr).await.unwrap()).await;
        send_then_read(UnixStream::connect(&path).await.unwrap()).await;
    }
    stop.send(()).unwrap();
    patient(serving).await.unwrap().unwrap();
}

/// A server that would wait for an hour, and for a GiB, if nothing else is set.
fn lingering(set: impl FnOnce(&mut Config)) -> Served {
    let mut config = Config::default();
    config.linger_time = HOUR;
    config.linger_bytes = 1 << 30;
    set(&mut config);
    serve(config, native(hasty))
}

/// The connection of a request whose body has only begun, once it was answered.
async fn answered(server: &Served) -> TcpStream {
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    patient(socket.write_all(&upload(100))).await.unwrap();
    patient(socket.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(server.stats.snapshot().connections, 1);
    socket
}

async fn is_closed(server: &Served) {
    eventually("it is closed", || server.stats.snapshot().connections == 0).await;
}

#[tokio::test]
async fn nobody_is_waited_for_who_sends_nothing_more() {
    let server = lingering(|_| {});
    // It has closed.
    drop(answered(&server).await);
    is_closed(&server).await;
    // All has come.
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    let bytes = [upload(100), record::record(code::STDIN, 1, b"")].concat();
    patient(socket.write_all(&bytes)).await.unwrap();
    is_closed(&server).await;
    patient(socket.read_to_end(&mut Vec::new())).await.unwrap();
}

#[tokio::test]
async fn a_web_server_that_sends_on_is_waited_for_within_limits() {
    let server = lingering(|config| config.linger_time = Duration::from_millis(50));
    let _silent = answered(&server).await;
    is_closed(&server).await;

    let server = lingering(|config| config.linger_bytes = 1 << 20);
    let mut endless = answered(&server).await;
    while patient(endless.write_all(&[0; 60_000])).await.is_ok() {}
    is_closed(&server).await;
}

#[tokio::test]
async fn stopping_waits_no_longer_for_those_that_send_on() {
    let mut server = lingering(|config| config.drain_timeout = Duration::from_millis(50));
    let _silent = answered(&server).await;
    server.ask_to_stop();
    server.stopped().await.unwrap();
}

type Answered = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Answers when there is a permit, but at `/` at once.
fn gated(gate: &Arc<Semaphore>) -> impl Fn(Request) -> Answered + Clone + Send + Sync + use<> {
    let gate = Arc::clone(gate);
    move |request: Request| -> Answered {
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            if request.params().get("SCRIPT_NAME") != Some(b"/") {
                gate.acquire().await.map_err(io::Error::other)?.forget();
            }
            Ok(request.stdout().write(b"\r\n\r\ndone").await?)
        })
    }
}

fn of_connections(most: usize, gate: &Arc<Semaphore>) -> Served {
    let mut config = Config::default();
    config.max_connections = most;
    serve(config, native(gated(gate)))
}

/// Asks, unless the connection is closed.
async fn ask(client: &mut Client) -> bool {
    let request = client.get("/");
    let sending = client.socket.write_all(client.connection.transmit());
    if patient(sending).await.is_err() {
        return false;
    }
    let count = client.connection.transmit().len();
    client.connection.transmitted(count);
    loop {
        if let Ok(Some(_)) | Err(_) = client.connection.ended(request) {
            let answered = client.connection.ended(request).is_ok();
            client.connection.close(request, std::time::Instant::now());
            return answered;
        }
        client.fill().await;
    }
}

/// A connection that was let in and has had an answer; where all are young, it is tried again.
async fn let_in(server: &Served) -> Client {
    for _ in 0..1000 {
        let mut client = server.client().await;
        if ask(&mut client).await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody makes room");
}

#[tokio::test]
async fn the_connection_that_was_idle_longest_makes_room() {
    let gate = Arc::new(Semaphore::new(0));
    let server = of_connections(4, &gate);
    let mut busy = server.client().await;
    let request = busy.get("/busy");
    busy.flush().await;
    let stats = server.stats.clone();
    eventually("it is active", || stats.snapshot().active == 1).await;
    let [mut a, mut b, mut c] = [(); 3].map(|()| None);
    for client in [&mut a, &mut b, &mut c] {
        let client = client.insert(server.client().await);
        assert!(ask(client).await);
    }
    let [a, b, c] = [a, b, c].map(Option::unwrap);
    // The first of them is used again, which makes it the last.
    let (mut a, mut b, mut c) = (a, b, c);
    assert!(ask(&mut a).await);
    let mut d = let_in(&server).await;
    assert_eq!(b.until_closed().await, b"");
    assert_eq!(stats.snapshot().made_room, 1);
    let mut e = let_in(&server).await;
    assert_eq!(c.until_closed().await, b"");
    for client in [&mut a, &mut d, &mut e] {
        assert!(ask(client).await);
    }
    // The one that is busy was idle before all of them, and stays.
    gate.add_permits(1);
    assert_eq!(busy.answer(request).await.body(), b"done");
    let snapshot = stats.snapshot();
    assert_eq!((snapshot.made_room, snapshot.connections), (2, 4));
}

#[tokio::test]
async fn a_part_of_a_request_keeps_no_connection() {
    let gate = Arc::new(Semaphore::new(0));
    let begin = record::begin(1, 1, 1);
    let half_params = [&begin[..], &record::record(code::PARAMS, 1, b"\x01\x01A")].concat();
    let half_record = [&begin[..], &record::record(code::PARAMS, 1, &[0; 99])[..50]].concat();
    let half_question = record::record(code::GET_VALUES, 0, &[0; 99])[..50].to_vec();
    let parts = [
        vec![],
        begin[..5].to_vec(),
        begin[..12].to_vec(),
        begin,
        half_params,
        half_record,
        half_question,
    ];
    let server = of_connections(parts.len(), &gate);
    let mut held = Vec::new();
    for part in &parts {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        socket.write_all(part).await.unwrap();
        held.push(socket);
    }
    let stats = server.stats.clone();
    eventually("all are in", || stats.snapshot().connections == parts.len()).await;
    let mut clients = Vec::new();
    for _ in &parts {
        clients.push(let_in(&server).await);
    }
    for mut socket in held {
        let _ = patient(socket.read_to_end(&mut Vec::new())).await;
    }
    for client in &mut clients {
        assert!(ask(client).await);
    }
    assert_eq!(stats.snapshot().made_room, parts.len() as u64);
}

#[tokio::test]
async fn one_whose_body_nobody_wants_makes_room() {
    let server = lingering(|config| config.max_connections = 1);
    let _silent = answered(&server).await;
    let mut client = let_in(&server).await;
    assert!(ask(&mut client).await);
    assert_eq!(server.stats.snapshot().made_room, 1);
}

#[test]
fn many_get_in_where_many_are_idle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let tcp = Listener::bind("127.0.0.1:0").unwrap();
    let addr = tcp.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut config = Config::default();
    config.max_connections = 100;
    let server = Server::new()
        .listen(tcp)
        .listen(Listener::bind(&format!("unix:{}", path.display())).unwrap())
        .config(config)
        .signals(false)
        .stop_when(async { drop(stopped.await) });
    let stats = server.stats();
    let gate = Arc::new(Semaphore::new(0));
    let app = native(gated(&gate));
    let serving = std::thread::spawn(move || server.run(NonZeroUsize::new(2), app));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut held = Vec::new();
        while held.len() < 100 {
            held.push(UnixStream::connect(&path).await.unwrap());
        }
        eventually("they are full", || stats.snapshot().connections == 100).await;
        let mut served = Vec::new();
        while served.len() < 150 {
            let mut client = Client::new(TcpStream::connect(addr).await.unwrap());
            if ask(&mut client).await {
                served.push(client);
            } else {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(stats.snapshot().connections <= 100);
        }
        assert!(stats.snapshot().made_room >= 150);
    });
    stop.send(()).unwrap();
    serving.join().unwrap().unwrap();
}
