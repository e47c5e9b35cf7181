//! Once and for Prometheus, with sources of all kinds.

use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use afcgi_interop::fake::{Fake, next_request, response, write};
use afcgi_interop::raw::{kind, record};
use afcgi_interop::wait::{SOON, eventually, free_port};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::web::{MODULE, Web};

fn top() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afcgi"));
    command.arg("top").stdin(Stdio::null());
    command
}

async fn once(arguments: &[&str]) -> Output {
    let mut command = top();
    command.arg("--once").args(arguments);
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    tokio::time::timeout(SOON, run).await.unwrap().unwrap()
}

async fn once_json(arguments: &[&str]) -> (Value, Option<i32>) {
    let output = once(&[&["--json"], arguments].concat()).await;
    let json = serde_json::from_slice(&output.stdout);
    (
        json.unwrap_or_else(|_| panic!("{output:?}")),
        output.status.code(),
    )
}

#[tokio::test]
async fn a_table_and_json() {
    let web = Web::with(MODULE).await;
    let output = once(&["--interval", "100ms", &web.url()]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with(&format!("{}: nginx module, ", web.url())),
        "{text}"
    );
    assert_eq!(
        lines[1..],
        [
            "APPLICATION    CONN ACTIVE HELD WAIT REQ/S  IN/S OUT/S ABORT STALL FAIL",
            "127.0.0.1:5000    2    130    3    0     0     0     0    17     4    0",
        ]
    );
    assert_eq!(web.asked.load(Ordering::SeqCst), 2);
    let (json, code) = once_json(&["--interval", "0s", &web.url()]).await;
    assert_eq!(code, Some(0));
    assert_eq!(web.asked.load(Ordering::SeqCst), 3);
    let source = &json["sources"][0];
    assert_eq!(source["kind"], "module");
    let row = &source["applications"][0];
    assert_eq!(row["name"], "127.0.0.1:5000");
    assert_eq!(
        (&row["active"], &row["multiplexes"]),
        (&130.into(), &true.into())
    );
    assert_eq!(row["requests_per_second"], Value::Null);
}

#[tokio::test]
async fn what_a_source_does_wrong_is_said() {
    let ok = Web::with(MODULE).await;
    let endless = Web::raw(
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
            vec![b'a'; 3 << 20],
        ]
        .concat(),
        9,
    )
    .await;
    let silent = Web::raw(Vec::new(), 0).await;
    let broken = Web::with("{\"addresses\":[{\"address\":\"a\"}").await;
    let many = Web::with(&format!(
        "{{\"addresses\":[{}]}}",
        vec!["{}"; 100_000].join(",")
    ))
    .await;
    let missing = Web::raw(
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        9,
    )
    .await;
    let ssh = Web::raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), 9).await;
    let nobody = format!("http://127.0.0.1:{}/", free_port());
    let urls = [
        (ok.url(), ""),
        (endless.url(), "longer than 1048576 bytes"),
        (silent.url(), "no answer within 500ms"),
        (broken.url(), "no valid JSON"),
        (many.url(), ""),
        (missing.url(), "404 Not Found"),
        (ssh.url(), "speaks no HTTP"),
        (nobody, "Nobody listens there"),
        // A web server that is taken for an application, and an application without a page.
        (format!("127.0.0.1:{}", ok.port), "no answer"),
    ];
    let mut arguments = vec!["--interval", "0s", "--timeout", "500ms"];
    arguments.extend(urls.iter().map(|(url, _)| url.as_str()));
    let (json, code) = once_json(&arguments).await;
    assert_eq!(code, Some(1));
    for (source, (url, words)) in json["sources"].as_array().unwrap().iter().zip(&urls) {
        match (*words, &source["error"]) {
            ("", error) => assert_eq!(error, &Value::Null, "{url}"),
            (words, error) => {
                let error = error.as_str().unwrap_or_default();
                assert!(error.contains(words), "{url}: {error}");
            }
        }
    }
    let many = &json["sources"][4];
    assert_eq!(many["applications"].as_array().unwrap().len(), 4096);
    assert_eq!(many["left_out"], 100_000 - 4096);
}

/// Some versions of PHP-FPM write into the list of processes what clients sent, as it came.
#[tokio::test]
async fn processes_that_are_no_json_do_not_hide_the_pool() {
    let pool = "{\"pool\":\"www\",\"process manager\":\"static\",\"listen queue\":7";
    let fpm = Fake::start(move |mut socket, n| async move {
        let body = match n {
            0 => format!("{pool},\"processes\":[{{\"request uri\":\"/a\"b\"}}]}}"),
            _ => format!("{pool}}}"),
        };
        if let Some(id) = next_request(&mut socket, None).await {
            write(&mut socket, &response(id, &body)).await;
        }
    })
    .await;
    let (json, code) = once_json(&["--interval", "0s", &format!("127.0.0.1:{}", fpm.port())]).await;
    assert_eq!(code, Some(0), "{json}");
    assert_eq!(json["sources"][0]["pools"][0]["queue"], 7);
    assert_eq!(fpm.connections(), 2);
}

#[tokio::test]
async fn an_application_that_writes_for_ever_is_not_read_for_ever() {
    let endless = Fake::start(|mut socket, _| async move {
        let Some(id) = next_request(&mut socket, None).await else {
            return;
        };
        let head = record(kind::STDOUT, id, b"Content-Type: text/plain\r\n\r\n");
        write(&mut socket, &head).await;
        let piece = record(kind::STDOUT, id, &[b'a'; 30_000]);
        while socket.write_all(&piece).await.is_ok() {}
    })
    .await;
    let at = format!("127.0.0.1:{}", endless.port());
    let (json, code) = once_json(&["--interval", "0s", "--timeout", "25s", &at]).await;
    assert_eq!(code, Some(1));
    let error = json["sources"][0]["error"].as_str().unwrap();
    assert_eq!(error, "the answer is longer than 1048576 bytes");
}

#[tokio::test]
async fn command_lines_of_no_use() {
    for arguments in [
        &["--once", "https://a"][..],
        &["--once", "localhost"],
        &["--once", "--interval", "5h", "a:1"],
        &["--json", "a:1"],
        &["--interval", "0s", "a:1"],
        &[],
    ] {
        let output = top().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
    let output = top().arg("--once").args(["a:1"; 33]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = top().arg("127.0.0.1:1").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("needs a terminal: --once"), "{said}");
}

/// An exporter, which ends with this.
struct Exporter {
    child: Child,
    url: String,
}

impl Exporter {
    async fn start(sources: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let child = top()
            .args(["--timeout", "20s", "--export", &address])
            .args(sources)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let exporter = Self {
            child,
            url: format!("http://{address}"),
        };
        eventually("it listens", SOON, || async {
            let url = format!("{}/", exporter.url);
            let response = reqwest::get(url).await.map_err(|error| error.to_string())?;
            assert_eq!(response.status(), 404);
            Ok(())
        })
        .await;
        exporter
    }

    async fn metrics(&self) -> String {
        let response = reqwest::get(format!("{}/metrics", self.url)).await.unwrap();
        assert_eq!(response.status(), 200);
        response.text().await.unwrap()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[tokio::test]
async fn scrapes_that_come_together_ask_once() {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    let web = Web::raw(format!("{head}{MODULE}").into_bytes(), 0).await;
    let exporter = Exporter::start(&[&web.url()]).await;
    let first = exporter.metrics();
    let second = exporter.metrics();
    let third = async {
        // One who leaves takes nothing from the others.
        let mut socket = TcpStream::connect(exporter.url.trim_start_matches("http://"))
            .await
            .unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        socket.write_all(request).await.unwrap();
        eventually("it asks", SOON, || async {
            match web.asked.load(Ordering::SeqCst) {
                0 => Err(String::from("nobody asked")),
                _ => Ok(()),
            }
        })
        .await;
        drop(socket);
        web.may.add_permits(1);
    };
    let (first, second, ()) = tokio::join!(first, second, third);
    assert_eq!(first, second);
    assert!(
        first
            .contains("fastcgi_multiplex_requests_active{address=\"127.0.0.1:5000\",scrape_uri=\""),
        "{first}"
    );
    assert_eq!(web.asked.load(Ordering::SeqCst), 1);
    web.may.add_permits(1);
    exporter.metrics().await;
    assert_eq!(web.asked.load(Ordering::SeqCst), 2);
}

/// A connection that was served once, and is kept.
async fn kept(exporter: &Exporter) -> TcpStream {
    let at = exporter.url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    socket
}

/// Whether something comes within a time.
async fn answered(socket: &mut TcpStream, within: Duration) -> bool {
    let read = tokio::time::timeout(within, socket.read(&mut [0; 1024])).await;
    read.is_ok_and(|read| read.unwrap() > 0)
}

#[tokio::test]
async fn scrapers_are_64_at_a_time() {
    let exporter = Exporter::start(&["127.0.0.1:1"]).await;
    let mut sockets = Vec::new();
    for _ in 0..64 {
        let mut socket = kept(&exporter).await;
        assert!(answered(&mut socket, SOON).await);
        sockets.push(socket);
    }
    let mut next = kept(&exporter).await;
    assert!(!answered(&mut next, Duration::from_millis(300)).await);
    drop(sockets.pop());
    assert!(answered(&mut next, SOON).await);
}

#[tokio::test]
async fn a_pool_that_is_not_there() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let exporter = Exporter::start(&[&nobody]).await;
    let text = exporter.metrics().await;
    let line = format!("phpfpm_up{{pool=\"\",scrape_uri=\"{nobody}\"}} 0\n");
    assert!(text.contains(&line), "{text}");
    let post = reqwest::Client::new().post(format!("{}/metrics", exporter.url));
    assert_eq!(post.send().await.unwrap().status(), 405);
}
