//! TLS, HTTP/2, and WebSocket by an extended CONNECT.

use std::process::Command;

use afcgi_interop::app::App;
use afcgi_interop::own::certificate;
use afcgi_interop::wait::SOON;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::Rig;

fn curl(dir: &TempDir, arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--noproxy",
            "*",
            "--cacert",
            "cert.pem",
        ])
        .args(arguments)
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

#[tokio::test]
async fn both_versions() {
    let app = App::afcgitest(&[]).await;
    let dir = certificate();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let socket = dir.path().join("https.sock");
    let flags = [
        "--tls-cert",
        cert.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
        "--listen",
        socket.to_str().unwrap(),
    ];
    let app = format!("127.0.0.1:{}", app.port());
    let rig = Rig::flags(&[&[&*app][..], &flags].concat()).await;
    rig.logs(&["listening on https://"]).await;
    let url = rig.url("/env").replace("http:", "https:");
    for (flag, version) in [("--http2", "HTTP/2.0"), ("--http1.1", "HTTP/1.1")] {
        let body = curl(&dir, &[flag, &url]);
        for line in [
            &format!("SERVER_PROTOCOL={version}"),
            "HTTPS=on",
            "REQUEST_SCHEME=https",
        ] {
            assert!(body.lines().any(|found| found == line), "{line}: {body}");
        }
        assert!(
            body.contains(&format!("HTTP_HOST=127.0.0.1:{}\n", rig.port)),
            "{body}"
        );
        let echo = url.replace("/env", "/echo");
        assert_eq!(
            curl(&dir, &[flag, "--data-binary", "some text", &echo]),
            "some text"
        );
        let events = url.replace("/env", "/events?n=3&ms=20");
        assert_eq!(curl(&dir, &[flag, &events]).matches("data:").count(), 3);
        let unix = ["--unix-socket", "https.sock"];
        let body = curl(&dir, &[&[flag, &*url][..], &unix].concat());
        for line in [&*format!("SERVER_PROTOCOL={version}"), "REMOTE_ADDR=unix:"] {
            assert!(body.lines().any(|found| found == line), "{line}: {body}");
        }
    }
}

/// SIGHUP takes a new certificate, and keeps the old one where that is none.
#[tokio::test]
async fn a_new_certificate() {
    let app = App::afcgitest(&[]).await;
    let (dir, other) = (certificate(), certificate());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (at("cert.pem"), at("key.pem"));
    let app = format!("127.0.0.1:{}", app.port());
    let rig = Rig::flags(&[&app, "--tls-cert", &cert, "--tls-key", &key]).await;
    let url = rig.url("/").replace("http:", "https:");
    let old = tempfile::tempdir().unwrap();
    std::fs::copy(&cert, old.path().join("cert.pem")).unwrap();
    std::fs::write(&cert, "nonsense").unwrap();
    rig.signal(Signal::HUP);
    rig.logs(&["ERROR", "stays as it was", "cert.pem"]).await;
    assert_eq!(curl(&old, &[&url]), "Hello world\n");
    for name in ["cert.pem", "key.pem"] {
        std::fs::copy(other.path().join(name), at(name)).unwrap();
    }
    rig.signal(Signal::HUP);
    rig.logs(&["was read again"]).await;
    assert_eq!(curl(&other, &[&url]), "Hello world\n");
}

/// What tells the protocols apart may come in pieces.
#[tokio::test]
async fn beginnings_in_pieces() {
    let app = App::afcgitest(&[]).await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", app.port())]).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let request = b"PRIVATE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    // The settings of the server: a frame of type 4 on stream 0.
    for (bytes, answer, at) in [
        (&preface[..], &b"\x04\0\0\0\0\0"[..], 3),
        (request, b"HTTP/1.1 200 OK", 0),
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        for piece in bytes.chunks(3) {
            for byte in piece {
                socket.write_all(&[*byte]).await.unwrap();
            }
            // So that pieces are seen as such; it is right without that too.
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let mut buffer = vec![0; at + answer.len()];
        let reading = socket.read_exact(&mut buffer);
        tokio::time::timeout(SOON, reading).await.unwrap().unwrap();
        assert_eq!(&buffer[at..], answer);
    }
}
