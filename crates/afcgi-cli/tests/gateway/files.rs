//! Files: ranges, types, what has not changed, and what is not to be had.

use std::fs::File;
use std::path::Path;

use afcgi_interop::app::App;
use afcgi_interop::http::{client, get};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{Rig, rest};

fn write(root: &Path, name: &str, content: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn site() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("www/index.html", "<p>home"),
        ("www/a.css", "0123456789"),
        ("www/docs/index.html", "<p>docs"),
        ("www/with space.txt", "space"),
        ("www/.env", "secret"),
        ("www/.git/config", "secret"),
        ("www/.well-known/x", "known"),
        ("secret.txt", "secret"),
    ] {
        write(dir.path(), name, content);
    }
    dir
}

#[tokio::test]
async fn are_sent() {
    let dir = site();
    let root = dir.path().join("www");
    let rig = Rig::flags(&["--root", root.to_str().unwrap()]).await;
    let client = client();
    let response = get(&client, &rig.url("/a.css")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/css");
    assert_eq!(response.headers()["content-length"], "10");
    let modified = response.headers()["last-modified"].clone();
    assert_eq!(response.text().await.unwrap(), "0123456789");
    let with = async |name: &'static str, value: &str| {
        let request = client.get(rig.url("/a.css")).header(name, value);
        let response = request.send().await.unwrap();
        let range = response
            .headers()
            .get("content-range")
            .map(|range| range.to_str().unwrap().to_owned());
        (
            response.status().as_u16(),
            range,
            response.text().await.unwrap(),
        )
    };
    assert_eq!(
        with("range", "bytes=2-4").await,
        (206, Some("bytes 2-4/10".into()), "234".into())
    );
    assert_eq!(with("range", "bytes=-2").await.2, "89");
    assert_eq!(with("range", "bytes=99-").await.0, 416);
    assert_eq!(
        with("if-modified-since", modified.to_str().unwrap()).await,
        (304, None, String::new())
    );
    assert_eq!(
        with("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT")
            .await
            .0,
        200
    );
    let head = client.head(rig.url("/a.css")).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["content-length"]),
        (200, &"10".parse().unwrap())
    );
    let post = client.post(rig.url("/a.css")).send().await.unwrap();
    assert_eq!(
        (post.status().as_u16(), &post.headers()["allow"]),
        (405, &"GET, HEAD".parse().unwrap())
    );
    for (path, body) in [
        ("/", "<p>home"),
        ("/docs/", "<p>docs"),
        ("/with%20space.txt", "space"),
        ("//docs//./", "<p>docs"),
        ("/.well-known/x", "known"),
    ] {
        assert_eq!(
            get(&client, &rig.url(path)).await.text().await.unwrap(),
            body,
            "{path}"
        );
    }
    let folder = get(&client, &rig.url("/docs?a=b")).await;
    assert_eq!(
        (folder.status().as_u16(), &folder.headers()["location"]),
        (301, &"/docs/?a=b".parse().unwrap())
    );
}

#[tokio::test]
async fn others_are_not_there() {
    let dir = site();
    let root = dir.path().join("www");
    let rig = Rig::flags(&["--root", root.to_str().unwrap()]).await;
    for path in [
        "/no",
        "/a.css/",
        "/.env",
        "/.git/config",
        "/docs/../../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/..\\secret.txt",
        "/docs/%2e%2e/%2e%2e/secret.txt",
        "/a.css%00.html",
        "//etc/passwd",
        "/%2fetc/passwd",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = rig.raw(request.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 404 ") || answer.starts_with("HTTP/1.1 400 "),
            "{path}: {answer}"
        );
        assert!(
            !answer.contains("secret\n") && !answer.contains("root:"),
            "{path}: {answer}"
        );
    }
    // `//docs` would be another host.
    write(&root, "evil.example/index.html", "");
    let answer = rig
        .raw(b"GET //evil.example HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    assert!(
        answer.contains("\r\nlocation: /evil.example/\r\n"),
        "{answer}"
    );
}

/// An application that has no scripts gets what is no file.
#[tokio::test]
async fn beside_an_application() {
    let dir = site();
    let app = App::afcgitest(&[]).await;
    let config = format!(
        "[upstream.a]\naddresses = [\"127.0.0.1:{}\"]\n\
         [[route]]\nupstream = \"a\"\nroot = \"{}\"\nsplit_path = []\nindex = []\n\
         [[route]]\npath = \"/static\"\nroot = \"{}\"\nstrip = true",
        app.port(),
        dir.path().join("www").display(),
        dir.path().join("www").display(),
    );
    let rig = Rig::config(&config).await;
    let client = client();
    for (path, status, body) in [
        ("/a.css", 200, "0123456789"),
        ("/", 200, "Hello world\n"),
        ("/x/y", 200, "Hello world\n"),
        ("/.env", 200, "Hello world\n"),
        ("/static/a.css", 200, "0123456789"),
        ("/static/", 200, "<p>home"),
        ("/static/no", 404, "404 Not Found\n"),
        ("/static/.env", 404, "404 Not Found\n"),
    ] {
        let response = get(&client, &rig.url(path)).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.text().await.unwrap(), body, "{path}");
    }
}

/// A response is as long as it was announced, or breaks off.
#[tokio::test]
async fn that_are_cut_while_they_are_sent() {
    const LENGTH: u64 = 50 << 20;
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join("large.bin")).unwrap();
    file.set_len(LENGTH).unwrap();
    let rig = Rig::flags(&["--root", dir.path().to_str().unwrap()]).await;
    let mut socket = TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap();
    let request = b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut first = [0; 1000];
    socket.read_exact(&mut first).await.unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200 OK\r\n"));
    file.set_len(1000).unwrap();
    let rest = rest(&mut socket).await;
    assert!((rest.len() as u64) < LENGTH - 2000, "{}", rest.len());
    rig.logs(&["GET /large.bin", " 200 ", "incomplete"]).await;
}

/// To a HEAD nothing more is sent: that is all of it.
#[tokio::test]
async fn heads_are_whole() {
    let dir = site();
    let root = dir.path().join("www");
    let rig = Rig::flags(&["--root", root.to_str().unwrap()]).await;
    for path in ["/a.css", "/no"] {
        client().head(rig.url(path)).send().await.unwrap();
        rig.logs(&[&format!("HEAD {path} ")]).await;
    }
    assert!(!rig.process.log().contains("incomplete"));
}
