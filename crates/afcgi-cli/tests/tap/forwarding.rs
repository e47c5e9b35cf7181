//! Bytes, ends of halves and resets, as they would be without the tap.

use std::time::Duration;

use afcgi_interop::fake::{Fake, response};
use afcgi_interop::http::noise;
use afcgi_interop::raw;
use afcgi_interop::tap::Tap;
use afcgi_interop::wait::{SOON, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use crate::answers;

/// What is no FastCGI passes as well, in both directions at a time, and each half ends by itself.
#[tokio::test]
async fn anything_passes_and_halves_end_by_themselves() {
    let app = Fake::start(|mut socket, _| async move {
        let (mut reader, mut writer) = socket.split();
        tokio::io::copy(&mut reader, &mut writer)
            .await
            .expect("copied");
        // Its half is open when the other has ended.
        writer.write_all(b"and the end").await.expect("written");
    })
    .await;
    let mut tap = Tap::before(app.port(), &[]).await;
    let mut socket = raw::connect(tap.port()).await;
    let sent = noise(3_000_000, 1);
    let (mut reader, mut writer) = socket.split();
    let mut received = Vec::new();
    let write = async {
        writer.write_all(&sent).await.expect("written");
        writer.shutdown().await.expect("shut down");
    };
    let (_, read) = tokio::join!(write, reader.read_to_end(&mut received));
    read.expect("read");
    assert!(
        received.strip_suffix(b"and the end") == Some(&sent),
        "other bytes"
    );
    let (log, code) = tap.end().await;
    assert_eq!(code, 0, "{log}");
    // It is said once that nothing is known of this.
    assert_eq!(
        log.matches("nothing more is seen of this connection")
            .count(),
        1,
        "{log}"
    );
    assert!(log.contains("R-02 by web: the version is"), "{log}");
    assert!(
        log.contains("1 connections that were not looked at to their end"),
        "{log}"
    );
}

#[tokio::test]
async fn unix_sockets_on_both_sides() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("app.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            while raw::read(&mut socket)
                .await
                .is_some_and(|r| r.kind != 5 || !r.content.is_empty())
            {}
            socket
                .write_all(&response(1, "by a socket"))
                .await
                .expect("written");
        }
    });
    let connect = format!("unix:{}", path.display());
    let flags = ["--socket-mode", "600", "-w", "DIR/file"];
    let mut tap = Tap::at_socket("tap.sock", &connect, &flags).await;
    let mode = std::fs::metadata(tap.file("tap.sock"))
        .expect("the socket")
        .permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
    let mut socket = UnixStream::connect(tap.file("tap.sock"))
        .await
        .expect("connected");
    socket
        .write_all(&raw::request(1, "/path", ""))
        .await
        .expect("written");
    let mut all = Vec::new();
    socket.read_to_end(&mut all).await.expect("read");
    assert_eq!(all, response(1, "by a socket"));
    let (log, code) = tap.end().await;
    assert!(
        code == 0 && log.contains(" GET /path 200 in 0 out "),
        "{log}"
    );
    assert!(!tap.file("tap.sock").exists());
}

/// A reset comes as one, from either side.
#[tokio::test]
async fn resets_are_passed_on() {
    let (sender, mut ends) = unbounded_channel();
    let app = Fake::start(move |mut socket, number| {
        let sender = sender.clone();
        async move {
            let mut byte = [0];
            socket.read_exact(&mut byte).await.expect("a byte");
            if number == 0 {
                socket.set_zero_linger().expect("lingers not");
                return;
            }
            sender.send(socket.read(&mut byte).await).expect("told");
        }
    })
    .await;
    let tap = Tap::before(app.port(), &[]).await;
    let mut socket = raw::connect(tap.port()).await;
    socket.write_all(b"\x01").await.expect("written");
    let end = timeout(SOON, socket.read(&mut [0])).await.expect("an end");
    assert_eq!(
        end.expect_err("no reset").kind(),
        std::io::ErrorKind::ConnectionReset
    );
    let mut socket = raw::connect(tap.port()).await;
    socket.write_all(b"\x01").await.expect("written");
    socket.set_zero_linger().expect("lingers not");
    drop(socket);
    let end = timeout(SOON, ends.recv())
        .await
        .expect("an end")
        .expect("an end");
    assert_eq!(
        end.expect_err("no reset").kind(),
        std::io::ErrorKind::ConnectionReset
    );
}

/// What the application does not read is not read from the web server, and the answer comes all the same.
#[tokio::test]
async fn a_side_that_does_not_read_stops_the_other() {
    let app = Fake::start(|mut socket, _| async move {
        socket
            .write_all(&response(1, "early"))
            .await
            .expect("written");
        std::future::pending::<()>().await;
        drop(socket);
    })
    .await;
    let mut tap = Tap::before(app.port(), &["-w", "DIR/file"]).await;
    let before = tap.process.resident();
    let mut socket = raw::connect(tap.port()).await;
    let early = response(1, "early");
    let mut bytes = vec![0; early.len()];
    socket.read_exact(&mut bytes).await.expect("the answer");
    assert_eq!(bytes, early);
    let piece = raw::record(5, 1, &[b'x'; 60_000]);
    let mut sent = 0;
    // Sockets hold some megabytes each.
    while let Ok(written) = timeout(Duration::from_secs(2), socket.write(&piece)).await {
        sent += written.expect("written");
        assert!(sent < 64 << 20, "{sent} bytes are somewhere");
    }
    let more = tap.process.resident().saturating_sub(before);
    assert!(more < 24 << 20, "{more} bytes more");
}

#[tokio::test]
async fn nobody_is_there() {
    let mut tap = Tap::before(free_port(), &[]).await;
    let mut socket = raw::connect(tap.port()).await;
    let end = timeout(SOON, socket.read(&mut [0])).await.expect("an end");
    assert_eq!(
        end.expect_err("no reset").kind(),
        std::io::ErrorKind::ConnectionReset
    );
    tap.says("c1 cannot connect to 127.0.0.1:").await;
    let (log, code) = tap.end().await;
    assert_eq!(code, 0);
    assert!(
        log.contains("1 connections that the application did not take"),
        "{log}"
    );
}

/// As many connections as are allowed; one more waits for one of them.
#[tokio::test]
async fn connections_are_bounded() {
    let app = answers(response(1, "x")).await;
    let tap = Tap::before(app.port(), &["--max-connections", "2"]).await;
    let ask = |mut socket: TcpStream| async move {
        crate::exchange(&mut socket, &raw::request(1, "/", "")).await;
        socket
    };
    let first = ask(raw::connect(tap.port()).await).await;
    let _second = ask(raw::connect(tap.port()).await).await;
    tap.says("as many connections as --max-connections says")
        .await;
    let mut third = raw::connect(tap.port()).await;
    third
        .write_all(&raw::request(1, "/", ""))
        .await
        .expect("written");
    assert!(
        timeout(Duration::from_millis(300), raw::read(&mut third))
            .await
            .is_err()
    );
    drop(first);
    let record = timeout(SOON, raw::read(&mut third))
        .await
        .expect("an answer");
    assert!(record.is_some());
}

/// An application whose queue is full is waited for, as others do that connect to it, unless the tap is to end.
#[tokio::test]
async fn a_full_queue() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("app.sock");
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
    let listener = listener.expect("a socket");
    let address = socket2::SockAddr::unix(&path).expect("an address");
    listener.bind(&address).expect("bound");
    listener.listen(0).expect("it listens");
    let _first = std::os::unix::net::UnixStream::connect(&path).expect("there is room for one");
    let connect = format!("unix:{}", path.display());
    let mut ending = Tap::to(&connect, &[]).await;
    let mut given_up = raw::connect(ending.port()).await;
    given_up
        .write_all(&raw::request(1, "/", ""))
        .await
        .expect("written");
    let tap = Tap::to(&connect, &[]).await;
    let mut socket = raw::connect(tap.port()).await;
    socket
        .write_all(&raw::request(1, "/", ""))
        .await
        .expect("written");
    let read = timeout(Duration::from_millis(300), raw::read(&mut socket)).await;
    assert!(read.is_err(), "{read:?}");
    let (log, code) = timeout(SOON / 3, ending.end())
        .await
        .expect("it ends at once");
    assert_eq!(code, 0, "{log}");
    let listener = std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(listener));
    listener.set_nonblocking(true).expect("it does not block");
    let listener = UnixListener::from_std(listener).expect("a listener");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                while raw::read(&mut socket).await.is_some_and(|r| r.kind != 5) {}
                _ = socket.write_all(&response(1, "late")).await;
            });
        }
    });
    let record = timeout(SOON, raw::read(&mut socket))
        .await
        .expect("an answer");
    assert!(record.is_some());
}
