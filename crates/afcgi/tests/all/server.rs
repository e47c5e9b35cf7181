//! The server over real sockets: multiplexing, aborts, errors of one request, back pressure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Client, eventually, patient, serve};
use afcgi::{AppStatus, Config, ReadError, Request, native};
use afcgi_proto::web::{Input, Output};
use afcgi_proto::{ProtocolStatus, Role};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, Semaphore, mpsc};

const OK: &[u8] = b"Content-Type: text/plain\r\n\r\n";

fn script(request: &Request) -> String {
    String::from_utf8_lossy(request.params().get("SCRIPT_NAME").unwrap()).into_owned()
}

async fn hello(request: Request) -> std::io::Result<()> {
    let mut stdout = request.stdout();
    stdout.write(OK).await?;
    stdout.write(script(&request).as_bytes()).await?;
    Ok(())
}

#[tokio::test]
async fn r53_a_responder_answers() {
    let server = serve(Config::default(), native(hello));
    let mut client = server.client().await;
    let request = client.get("/a");
    let answer = client.answer(request).await;
    assert_eq!(answer.body(), b"/a");
    assert_eq!(answer.end.app_status, 0);
    assert_eq!(answer.end.protocol_status, ProtocolStatus::RequestComplete);
}

#[tokio::test]
async fn many_requests_wait_on_one_connection_and_others_pass_them() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let server = serve(
        Config::default(),
        native(move |request| {
            let held = Arc::clone(&held);
            async move {
                if script(&request) == "/held" {
                    held.acquire().await.unwrap().forget();
                }
                hello(request).await
            }
        }),
    );
    let mut client = server.client().await;
    let held: Vec<_> = (0..1000).map(|_| client.get("/held")).collect();
    let quick = client.get("/quick");
    assert_eq!(client.answer(quick).await.body(), b"/quick");
    assert_eq!(server.stats.snapshot().active, 1000);
    assert_eq!(server.stats.snapshot().connections, 1);
    gate.add_permits(1000);
    for request in held {
        assert_eq!(client.answer(request).await.body(), b"/held");
    }
    eventually("all are counted", || server.stats.snapshot().served == 1001).await;
}

async fn echo(request: Request) -> Result<AppStatus, std::io::Error> {
    let mut stdout = request.stdout();
    stdout.write(OK).await?;
    let mut stdin = request.stdin();
    while let Some(content) = stdin.read().await? {
        stdout.write(&content).await?;
    }
    Ok(AppStatus::SUCCESS)
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let server = serve(Config::default(), native(echo));
    let mut client = server.client().await;
    let request = client.begin(Role::Responder, &[]);
    client.put(request, Output::Stdin, b"one");
    let first = client.stdout(request, OK.len() + 3).await;
    assert_eq!(&first[OK.len()..], b"one");
    client.put(request, Output::Stdin, b"two");
    assert_eq!(client.stdout(request, 3).await, b"two");
    client.connection.end(request, Output::Stdin).unwrap();
    assert_eq!(client.answer(request).await.stdout, "");
}

#[tokio::test]
async fn content_that_fills_turns_exactly_goes_on() {
    let turn = Config::default().connection.output_turn;
    let server = serve(
        Config::default(),
        native(move |request: Request| async move {
            let mut stdout = request.stdout();
            for _ in 0..20 {
                stdout.write(&vec![1; turn]).await?;
                // The driver sends it all before the next is written.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok::<(), std::io::Error>(())
        }),
    );
    let mut client = server.client().await;
    let request = client.get("/");
    let answer = tokio::time::timeout(Duration::from_secs(10), client.answer(request));
    assert_eq!(
        answer.await.expect("no turn is missed").stdout.len(),
        20 * turn
    );
}

/// Tells when it is dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// An application that waits for ever, and counts those that were cancelled and those that were
/// told by `over`.
fn waiting(
    dropped: &Arc<AtomicUsize>,
    told: &Arc<AtomicUsize>,
) -> impl Fn(Request) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Clone + Send + Sync + 'static
{
    let (dropped, told) = (Arc::clone(dropped), Arc::clone(told));
    move |request| {
        let dropped = Dropped(Arc::clone(&dropped));
        let told = Arc::clone(&told);
        let over = request.over();
        assert!(!over.is_over());
        tokio::spawn(async move {
            over.wait().await;
            told.fetch_add(1, Ordering::SeqCst);
        });
        Box::pin(async move {
            let _dropped = dropped;
            let _ = request.stdout().write(OK).await;
            std::future::pending::<()>().await;
        })
    }
}

#[tokio::test]
async fn r57_abort_cancels_the_handler_and_ends_the_request_once() {
    let (dropped, told) = (Arc::default(), Arc::default());
    let server = serve(Config::default(), native(waiting(&dropped, &told)));
    let mut client = server.client().await;
    let request = client.get("/");
    client.stdout(request, OK.len()).await;
    let id = request.id();
    client.connection.close(request, Instant::now());
    client.flush().await;
    while client.connection.draining() > 0 {
        assert!(client.fill().await);
    }
    eventually("the handler is dropped", || {
        dropped.load(Ordering::SeqCst) == 1
    })
    .await;
    eventually("over is told", || told.load(Ordering::SeqCst) == 1).await;
    // A late abort of the same id means nothing, and nothing more was said of it.
    client
        .raw(&[1, 2, 0, id.get() as u8, 0, 0, 0, 0, 1, 9, 0, 0, 0, 0, 0, 0])
        .await;
    client.connection.probe();
    assert!(client.fill().await);
    eventually("it is counted", || server.stats.snapshot().aborted == 1).await;
    assert_eq!(server.stats.snapshot().active, 0);
}

#[tokio::test]
async fn r31_a_lost_connection_cancels_every_handler() {
    let (dropped, told) = (Arc::default(), Arc::default());
    let server = serve(Config::default(), native(waiting(&dropped, &told)));
    let mut client = server.client().await;
    for _ in 0..50 {
        let request = client.get("/");
        client.stdout(request, OK.len()).await;
    }
    drop(client);
    eventually("the handlers are dropped", || {
        dropped.load(Ordering::SeqCst) == 50
    })
    .await;
    eventually("over is told", || told.load(Ordering::SeqCst) == 50).await;
    eventually("it is counted", || {
        let now = server.stats.snapshot();
        (now.active, now.aborted, now.connections) == (0, 50, 0)
    })
    .await;
}

#[tokio::test]
async fn r32_half_close_still_gets_the_whole_response() {
    let go = Arc::new(Notify::new());
    let gate = Arc::clone(&go);
    let server = serve(
        Config::default(),
        native(move |request: Request| {
            let gate = Arc::clone(&gate);
            async move {
                gate.notified().await;
                request.stdout().write(&[7; 300_000]).await
            }
        }),
    );
    let mut client = server.client().await;
    let request = client.get("/");
    client.flush().await;
    client.socket.shutdown().await.unwrap();
    eventually("it is being worked on", || {
        server.stats.snapshot().active == 1
    })
    .await;
    go.notify_one();
    assert_eq!(client.answer(request).await.stdout.len(), 300_000);
    assert!(!client.fill().await);
}

#[tokio::test]
async fn r59_a_body_that_breaks_off_is_told() {
    let (sender, mut outcomes) = mpsc::unbounded_channel();
    let server = serve(
        Config::default(),
        native(move |request: Request| {
            let sender = sender.clone();
            async move {
                let mut stdin = request.stdin();
                let outcome = loop {
                    match stdin.read().await {
                        Ok(Some(_)) => {}
                        other => break other,
                    }
                };
                sender.send(outcome).unwrap();
            }
        }),
    );
    let mut client = server.client().await;
    let short = client.begin(Role::Responder, &[("CONTENT_LENGTH", "10")]);
    client.put(short, Output::Stdin, b"1234567");
    client.connection.end(short, Output::Stdin).unwrap();
    client.answer(short).await;
    let outcome = patient(outcomes.recv()).await.unwrap();
    assert_eq!(outcome, Err(ReadError::Short { missing: 3 }));

    client.begin(Role::Responder, &[("CONTENT_LENGTH", "10")]);
    client.flush().await;
    client.socket.shutdown().await.unwrap();
    let outcome = patient(outcomes.recv()).await.unwrap();
    assert!(matches!(outcome, Err(ReadError::Broken(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_handler_that_panics_fails_its_request_alone() {
    let server = serve(
        Config::default(),
        native(|request: Request| async move {
            assert_ne!(script(&request), "/panic", "as it is meant to");
            hello(request).await
        }),
    );
    let mut client = server.client().await;
    let bad = client.get("/panic");
    let good = client.get("/good");
    assert_eq!(client.answer(bad).await.end.app_status, 1);
    assert_eq!(client.answer(good).await.body(), b"/good");
}

#[tokio::test]
async fn a_large_response_does_not_hold_the_small_ones_back() {
    const LARGE: usize = 20_000_000;
    let server = serve(
        Config::default(),
        native(|request: Request| async move {
            if script(&request) == "/large" {
                let mut stdout = request.stdout();
                let chunk = vec![1; LARGE / 10];
                for _ in 0..10 {
                    stdout.write(&chunk).await?;
                }
                return Ok(());
            }
            hello(request).await
        }),
    );
    let mut client = server.client().await;
    let large = client.get("/large");
    client.stdout(large, 100_000).await;
    let small = client.get("/small");
    assert_eq!(client.answer(small).await.body(), b"/small");
    let so_far = client.connection.readable(large, Input::Stdout).unwrap();
    assert!(
        so_far < LARGE / 2,
        "{so_far} bytes went before the small response"
    );
    client.answer(large).await;
}

#[tokio::test]
async fn a_web_server_that_does_not_read_holds_the_handler_back() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let server = serve(
        Config::default(),
        native(move |request: Request| {
            let count = Arc::clone(&count);
            async move {
                let mut stdout = request.stdout();
                loop {
                    stdout.write(&[0; 10_000]).await?;
                    count.fetch_add(10_000, Ordering::SeqCst);
                }
                #[allow(unreachable_code, reason = "names the type")]
                Ok::<(), std::io::Error>(())
            }
        }),
    );
    let mut client = server.client().await;
    client.get("/");
    client.flush().await;
    // The sockets' buffers fill up, and then nothing more is written.
    let mut last = usize::MAX;
    while last != written.load(Ordering::SeqCst) || last == 0 {
        last = written.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(
        last < 32 << 20,
        "{last} bytes were written that nobody read"
    );
    drop(client);
    eventually("it is cancelled", || server.stats.snapshot().active == 0).await;
}

#[tokio::test]
async fn a_body_that_is_not_read_holds_the_web_server_back() {
    let go = Arc::new(Notify::new());
    let gate = Arc::clone(&go);
    let server = serve(
        Config::default(),
        native(move |request: Request| {
            let gate = Arc::clone(&gate);
            async move {
                gate.notified().await;
                let mut total = 0;
                let mut stdin = request.stdin();
                while let Some(content) = stdin.read().await? {
                    total += content.len();
                }
                request.stdout().write(total.to_string().as_bytes()).await?;
                Ok::<(), std::io::Error>(())
            }
        }),
    );
    let mut client = server.client().await;
    let request = client.begin(Role::Responder, &[]);
    client.flush().await;
    let mut record = vec![1, 5, 0, request.id().get() as u8, 0x80, 0, 0, 0];
    record.resize(8 + 0x8000, b'x');
    let mut sent = 0_usize;
    // The server stops reading: writing to it makes no progress any more.
    while let Ok(result) = tokio::time::timeout(
        Duration::from_millis(500),
        client.socket.write(&record[sent % record.len()..]),
    )
    .await
    {
        sent += result.unwrap();
        assert!(sent < 64 << 20, "all of {sent} bytes was taken in");
    }
    go.notify_one();
    while !sent.is_multiple_of(record.len()) {
        sent += patient(client.socket.write(&record[sent % record.len()..]))
            .await
            .unwrap();
    }
    client.connection.end(request, Output::Stdin).unwrap();
    let expected = sent / record.len() * 0x8000;
    assert_eq!(client.answer(request).await.stdout, expected.to_string());
}

#[tokio::test]
async fn a_stalled_body_is_given_up_for_the_others() {
    let mut config = Config::default();
    config.connection.stall_timeout = Duration::from_millis(50);
    config.connection.overflow = 0;
    let (sender, mut outcomes) = mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let gate = Arc::clone(&go);
    let server = serve(
        config,
        native(move |request: Request| {
            let (sender, gate) = (sender.clone(), Arc::clone(&gate));
            async move {
                if script(&request) == "/stalled" {
                    gate.notified().await;
                    let mut stdin = request.stdin();
                    while let Ok(Some(_)) = stdin.read().await {}
                    sender.send(stdin.read().await).unwrap();
                }
                hello(request).await
            }
        }),
    );
    let mut client = server.client().await;
    let first = client.get("/first");
    let stalled = client.begin(Role::Responder, &[("SCRIPT_NAME", "/stalled")]);
    for _ in 0..8 {
        client.put(stalled, Output::Stdin, &[0; 16_000]);
        client.flush().await;
    }
    let behind = client.get("/behind");
    assert_eq!(client.answer(first).await.body(), b"/first");
    assert_eq!(client.answer(behind).await.body(), b"/behind");
    go.notify_one();
    let outcome = patient(outcomes.recv()).await.unwrap();
    assert_eq!(
        outcome,
        Err(ReadError::Broken(afcgi_proto::inbox::Broken::Stalled))
    );
    assert_eq!(client.answer(stalled).await.body(), b"/stalled");
}

#[tokio::test]
async fn r30_without_keep_conn_the_connection_is_closed() {
    let server = serve(Config::default(), native(hello));
    let mut client = server.client().await;
    let begin = [1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    client.raw(&begin).await;
    client
        .raw(b"\x01\x04\x00\x01\x00\x0f\x00\x00\x0b\x02SCRIPT_NAME/a\x01\x04\x00\x01\0\0\0\0\x01\x05\x00\x01\0\0\0\0")
        .await;
    let all = client.until_closed().await;
    let end = [1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(all.ends_with(&end), "{all:?}");
}

#[tokio::test]
async fn r02_garbage_is_not_answered_and_hurts_nobody() {
    let server = serve(Config::default(), native(hello));
    let mut other = server.client().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01",
        b"\x02\x01",
    ] {
        let mut client = server.client().await;
        client.raw(garbage).await;
        assert_eq!(client.until_closed().await, b"");
        let request = other.get("/other");
        assert_eq!(other.answer(request).await.body(), b"/other");
    }
}

#[tokio::test]
async fn r54_and_r55_authorizer_and_filter() {
    let server = serve(
        Config::default(),
        native(|request: Request| async move {
            let mut stdout = request.stdout();
            stdout.write(OK).await?;
            let mut stdin = request.stdin();
            while let Some(content) = stdin.read().await? {
                stdout.write(&content).await?;
            }
            let mut data = request.data();
            while let Some(content) = data.read().await? {
                stdout.write(&content.to_ascii_uppercase()).await?;
            }
            Ok::<(), std::io::Error>(())
        }),
    );
    let mut client = server.client().await;
    // An authorizer's STDIN is at its end from the start.
    let request = client.begin(Role::Authorizer, &[("CONTENT_LENGTH", "7")]);
    assert_eq!(client.answer(request).await.body(), b"");
    let request = client.begin(Role::Filter, &[("FCGI_DATA_LENGTH", "4")]);
    client.put(request, Output::Stdin, b"body ");
    client.connection.end(request, Output::Stdin).unwrap();
    client.put(request, Output::Data, b"file");
    client.connection.end(request, Output::Data).unwrap();
    assert_eq!(client.answer(request).await.body(), b"body FILE");
}

#[tokio::test]
async fn r53_stderr_is_ended_if_it_was_used() {
    let server = serve(
        Config::default(),
        native(|request: Request| async move {
            request.stderr().write(b"a warning").await?;
            request.stdout().write(OK).await
        }),
    );
    let mut client = server.client().await;
    let request = client.get("/");
    assert_eq!(client.answer(request).await.stderr, "a warning");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_threads_share_a_connection() {
    let server = serve(Config::default(), native(echo));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..4_u8 {
        let mut client: Client = server.client().await;
        clients.spawn(async move {
            for round in 0..200_u8 {
                let requests: Vec<_> = (0..20)
                    .map(|i| {
                        let request = client.begin(Role::Responder, &[]);
                        client.put(request, Output::Stdin, &[number, round, i]);
                        client.connection.end(request, Output::Stdin).unwrap();
                        (request, [number, round, i])
                    })
                    .collect();
                for (request, body) in requests {
                    assert_eq!(client.answer(request).await.body(), body);
                }
            }
        });
    }
    while let Some(done) = patient(clients.join_next()).await {
        done.unwrap();
    }
}
