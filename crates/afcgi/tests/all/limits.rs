//! Every limit of a server is reached here, and its orderly stop.

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{Client, PATIENCE, eventually, patient, serve};
use afcgi::{Config, Listener, Request, Server, native};
use afcgi_proto::params::encode_pair;
use afcgi_proto::web::{Event, Output};
use afcgi_proto::{ProtocolStatus, Role};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

async fn wait_for(gate: Arc<Semaphore>, request: Request) -> std::io::Result<()> {
    gate.acquire()
        .await
        .map_err(std::io::Error::other)?
        .forget();
    Ok(request.stdout().write(b"\r\n\r\ndone").await?)
}

type Answered = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

/// An application whose requests wait for permits.
fn gated() -> (
    Arc<Semaphore>,
    impl Fn(Request) -> Answered + Clone + Send + Sync + 'static,
) {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let app = move |request| -> Answered { Box::pin(wait_for(Arc::clone(&held), request)) };
    (gate, app)
}

#[tokio::test]
async fn connections_are_limited() {
    let config = {
        let mut config = Config::default();
        config.max_connections = 2;
        config
    };
    let (gate, app) = gated();
    let server = serve(config, native(app));
    let (mut first, mut second) = (server.client().await, server.client().await);
    for client in [&mut first, &mut second] {
        client.get("/");
        client.flush().await;
    }
    eventually("both are busy", || server.stats.snapshot().active == 2).await;
    let mut third = server.client().await;
    assert_eq!(third.until_closed().await, b"");
    assert_eq!(server.stats.snapshot().turned_away, 1);
    drop(first);
    eventually("one is out", || server.stats.snapshot().connections == 1).await;
    let mut fourth = server.client().await;
    fourth.connection.probe();
    fourth.flush().await;
    assert!(fourth.fill().await);
    drop(gate);
}

#[tokio::test]
async fn r51_requests_are_limited_over_all_connections() {
    let config = {
        let mut config = Config::default();
        config.max_requests = 3;
        config
    };
    let (gate, app) = gated();
    let server = serve(config, native(app));
    let (mut a, mut b) = (server.client().await, server.client().await);
    let held = [a.get("/"), a.get("/")];
    a.flush().await;
    eventually("two are active", || server.stats.snapshot().active == 2).await;
    let third = b.get("/");
    b.flush().await;
    eventually("three are active", || server.stats.snapshot().active == 3).await;
    for client in [&mut a, &mut b] {
        let fourth = client.get("/");
        let end = client.answer(fourth).await.end;
        assert_eq!(end.protocol_status, ProtocolStatus::Overloaded);
    }
    gate.add_permits(10);
    for request in held {
        assert_eq!(a.answer(request).await.body(), b"done");
    }
    assert_eq!(b.answer(third).await.body(), b"done");
    let again = b.get("/");
    assert_eq!(b.answer(again).await.body(), b"done");
    assert_eq!(server.stats.snapshot().refused, 2);
}

#[tokio::test]
async fn r40_values_are_the_limits() {
    let mut config = Config::default();
    config.max_connections = 12;
    config.max_requests = 34;
    let (_gate, app) = gated();
    let server = serve(config, native(app));
    let mut client = server.client().await;
    // in the middle of a request, too.
    client.get("/");
    client.connection.probe();
    client.flush().await;
    let values = loop {
        assert!(client.fill().await);
        if let Some(Event::Values(values)) = client.connection.poll_event() {
            break values;
        }
    };
    assert_eq!(values.max_conns, Some(12));
    assert_eq!(values.max_reqs, Some(34));
    assert_eq!(values.mpxs_conns, Some(true));
}

#[tokio::test]
async fn r22_parameters_are_limited() {
    let mut config = Config::default();
    config.connection.params_bytes = 1000;
    config.connection.params_pairs = 10;
    config.connection.params_timeout = Duration::from_millis(100);
    let (gate, app) = gated();
    gate.add_permits(100);
    let server = serve(config, native(app));
    let mut client = server.client().await;
    let long = "x".repeat(1000);
    for (params, text) in [
        (vec![("A", long.as_str())], "limit of bytes"),
        (vec![("A", ""); 11], "limit of pairs"),
    ] {
        let request = client.begin(Role::Responder, &params);
        let answer = client.answer(request).await;
        assert_eq!(answer.end.app_status, 1);
        let stderr = String::from_utf8_lossy(&answer.stderr);
        assert!(stderr.contains(text), "{stderr}");
    }
    // One whose parameters never end.
    let slow = client.connection.open().unwrap();
    client.connection.begin(slow, Role::Responder).unwrap();
    let mut pair = Vec::new();
    encode_pair(&mut pair, b"A", b"b");
    client.put(slow, Output::Params, &pair);
    let answer = client.answer(slow).await;
    assert!(String::from_utf8_lossy(&answer.stderr).contains("in time"));
    let good = client.get("/");
    assert_eq!(client.answer(good).await.body(), b"done");
}

#[tokio::test]
async fn a_body_that_waits_does_not_hold_up_the_others() {
    let mut config = Config::default();
    let (gate, app) = gated();
    // Both bodies are too much for one connection, and for both together.
    config.connection.overflow = 10 << 20;
    config.overflow_total = 15 << 20;
    let server = serve(config, native(app));
    let (mut one, mut other) = (server.client().await, server.client().await);
    let body = vec![7; 8 << 20];
    let slow = one.upload(&body).await;
    let fast = one.get("/");
    one.flush().await;
    // Its handler waits, and the one behind it is there.
    let stats = server.stats.clone();
    eventually("both are active", || stats.snapshot().active == 2).await;
    let also_slow = other.upload(&body[..6 << 20]).await;
    other.get("/");
    other.flush().await;
    eventually("all are active", || stats.snapshot().active == 4).await;
    gate.add_permits(2);
    for request in [slow, fast] {
        assert_eq!(one.answer(request).await.body(), b"done");
    }
    gate.add_permits(2);
    assert_eq!(other.answer(also_slow).await.body(), b"done");
}

#[tokio::test]
async fn what_bodies_that_wait_take_is_bounded() {
    for (overflow, total) in [(1 << 20, 64 << 20), (64 << 20, 1 << 20)] {
        let mut config = Config::default();
        config.connection.overflow = overflow;
        config.overflow_total = total;
        let (gate, app) = gated();
        let server = serve(config, native(app));
        let mut client = server.client().await;
        let body = vec![7; 32 << 20];
        let stats = server.stats.clone();
        let uploading = async {
            let slow = client.upload(&body).await;
            let fast = client.get("/");
            (client.answer(slow).await, client.answer(fast).await)
        };
        // The upload cannot go on before its handler has ended: there is no room for it.
        let opening = async {
            eventually("the first is active", || stats.snapshot().active == 1).await;
            let both = eventually("both are active", || stats.snapshot().active == 2);
            let waited = tokio::time::timeout(Duration::from_millis(300), both).await;
            assert!(waited.is_err());
            gate.add_permits(2);
        };
        let ((slow, fast), ()) = tokio::join!(uploading, opening);
        assert_eq!((slow.body(), fast.body()), (&b"done"[..], &b"done"[..]));
    }
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let mut config = Config::default();
    config.connection.idle_timeout = Duration::from_millis(50);
    let (gate, app) = gated();
    let server = serve(config, native(app));
    let mut idle = server.client().await;
    let mut busy = server.client().await;
    let request = busy.get("/");
    busy.flush().await;
    assert_eq!(idle.until_closed().await, b"");
    gate.add_permits(1);
    assert_eq!(busy.answer(request).await.body(), b"done");
    assert_eq!(busy.until_closed().await, b"");
}

#[tokio::test]
async fn a_web_server_that_reads_nothing_is_given_up() {
    let mut config = Config::default();
    config.send_timeout = Duration::from_millis(100);
    let server = serve(
        config,
        native(|request: Request| async move {
            let mut stdout = request.stdout();
            while stdout.write(&[0; 60_000]).await.is_ok() {}
        }),
    );
    let mut client = server.client().await;
    client.get("/");
    client.flush().await;
    eventually("it is in", || server.stats.snapshot().accepted == 1).await;
    eventually("it is closed", || server.stats.snapshot().connections == 0).await;
}

#[tokio::test]
async fn r34_only_listed_addresses_connect() {
    let mut config = Config::default();
    config.web_server_addrs = Some(vec!["127.0.0.2".parse().unwrap()]);
    let (gate, app) = gated();
    gate.add_permits(100);
    let server = serve(config, native(app));
    let mut stranger = server.client().await;
    assert_eq!(stranger.until_closed().await, b"");

    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut listed = Client::new(socket.connect(server.addr).await.unwrap());
    let request = listed.get("/");
    assert_eq!(listed.answer(request).await.body(), b"done");
}

#[tokio::test]
async fn stopping_finishes_what_is_active_and_refuses_the_rest() {
    let (gate, app) = gated();
    let mut server = serve(Config::default(), native(app));
    let mut client = server.client().await;
    let active = client.get("/");
    client.flush().await;
    let stats = server.stats.clone();
    eventually("it is active", || stats.snapshot().active == 1).await;
    let addr = server.addr;
    server.ask_to_stop();
    // No new connections.
    let end = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(addr).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
            _ => assert!(Instant::now() < end, "it still listens"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let late = client.get("/");
    let end = client.answer(late).await.end;
    assert_eq!(end.protocol_status, ProtocolStatus::Overloaded);
    gate.add_permits(1);
    assert_eq!(client.answer(active).await.body(), b"done");
    assert!(!client.fill().await);
    server.stopped().await.unwrap();
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let mut config = Config::default();
    config.drain_timeout = Duration::from_millis(50);
    let (_gate, app) = gated();
    let mut server = serve(config, native(app));
    let mut client = server.client().await;
    client.get("/");
    client.flush().await;
    let stats = server.stats.clone();
    eventually("it is active", || stats.snapshot().active == 1).await;
    server.ask_to_stop();
    server.stopped().await.unwrap();
    assert_eq!(client.until_closed().await, b"");
    eventually("it was aborted", || stats.snapshot().aborted == 1).await;
}

#[tokio::test]
async fn unix_sockets_and_their_peers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let (gate, app) = gated();
    gate.add_permits(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut config = Config::default();
    // The server's own user may always connect.
    config.unix_peer_uids = Some(Vec::new());
    let server = Server::new()
        .listen(Listener::bind(&format!("unix:{}", path.display())).unwrap())
        .listen(Listener::bind("127.0.0.1:0").unwrap())
        .config(config)
        .signals(false)
        .stop_when(async {
            let _ = stopped.await;
        });
    let stats = server.stats();
    let task = tokio::spawn(server.serve(native(app)));
    let socket = tokio::net::UnixStream::connect(&path).await.unwrap();
    eventually("it is in", || stats.snapshot().connections == 1).await;
    drop(socket);
    stop.send(()).unwrap();
    patient(task).await.unwrap().unwrap();
    assert!(!path.exists());
}

#[test]
fn connections_are_spread_over_threads() {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = Server::new()
        .listen(listener)
        .signals(false)
        .stop_when(async {
            let _ = stopped.await;
        });
    let app = native(async |request: Request| {
        let name = std::thread::current().name().unwrap_or("").to_owned();
        request
            .stdout()
            .write(format!("\r\n\r\n{name}").as_bytes())
            .await
    });
    let serving = std::thread::spawn(move || server.run(std::num::NonZeroUsize::new(2), app));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut names = runtime.block_on(async {
        let mut names = Vec::new();
        let mut clients = Vec::new();
        for _ in 0..4 {
            let mut client = Client::new(TcpStream::connect(addr).await.unwrap());
            let request = client.get("/");
            names.push(client.answer(request).await.body().to_vec());
            clients.push(client);
        }
        names
    });
    names.sort();
    assert_eq!(names, [b"afcgi-0", b"afcgi-0", b"afcgi-1", b"afcgi-1"]);
    stop.send(()).unwrap();
    serving.join().unwrap().unwrap();
}

#[tokio::test]
async fn nowhere_to_listen_is_an_error() {
    let (_gate, app) = gated();
    let error = Server::new().serve(native(app)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
