//! `afcgi spawn` with programs that are not ours: all of their processes are replaced under load, and no request is lost.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use afcgi_interop::app::{afcgitest, libfcgi_peer, workspace};
use afcgi_interop::gateway::{Gateway, Kind};
use afcgi_interop::http::{client, noise};
use afcgi_interop::own::Own;
use afcgi_interop::process::{Process, Signal};
use afcgi_interop::spawn::Spawn;
use afcgi_interop::wait::{SOON, eventually, free_port};
use futures_util::future::join_all;

/// Processes.
const WORKERS: usize = 3;
/// Clients at a time.
const CLIENTS: usize = 8;
const BODY: usize = 100_000;
/// How often all processes are replaced.
const ROLLS: usize = 4;

/// Replaces all processes again and again, while clients ask for what takes no time, takes time, and has a body.
async fn no_request_is_lost(spawn: Spawn, url: impl Fn(&str) -> String) {
    no_request_of_these_is_lost(spawn, &[url("/ready"), url("/delay?ms=30"), url("/echo")]).await;
}

async fn no_request_of_these_is_lost(mut spawn: Spawn, urls: &[String]) {
    let (stop, answers) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            let urls = urls.to_vec();
            let body = noise(BODY, n as u64);
            tokio::spawn(async move {
                let client = client();
                for turn in n.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let url = &urls[turn % urls.len()];
                    let (request, expected) = match url.ends_with("/echo") {
                        true => (client.post(url).body(body.clone()), &body[..]),
                        false => (client.get(url), &b"Hello world\n"[..]),
                    };
                    let response = request.send().await.expect(url);
                    assert_eq!(response.status(), 200, "{url}, answer {answers:?}");
                    assert!(response.bytes().await.expect(url) == expected, "{url}");
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for roll in 1..=ROLLS {
        spawn.process.signal(Signal::HUP);
        spawn.logs(&["all workers were replaced"], roll).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in join_all(clients).await {
        client.expect("a client without a failure");
    }
    let pids: HashSet<_> = spawn.pids().into_iter().collect();
    assert_eq!(pids.len(), WORKERS * (ROLLS + 1));
    let log = spawn.process.log();
    assert!(!log.contains("killed") && !log.contains("ERROR"), "{log}");
    println!("{answers:?} answers");
    assert!(answers.load(Ordering::Relaxed) > 10 * ROLLS);
}

async fn start(flags: &[&str], program: &[&str]) -> Spawn {
    let mut all = vec!["--workers", "3", "--settle", "300ms"];
    all.extend(flags);
    Spawn::start(&all, program).await
}

async fn behind(kind: Kind, spawn: Spawn) {
    let gateway = Gateway::start(kind, spawn.port()).await;
    no_request_is_lost(spawn, |path| gateway.url(path)).await;
}

#[tokio::test]
async fn afcgitest_behind_nginx() {
    let program = afcgitest().display().to_string();
    behind(Kind::Nginx, start(&[], &[&program]).await).await;
}

/// All requests share kept connections, and one may be on its way there when the worker ends: those are sent again that may be.
#[tokio::test]
async fn afcgitest_behind_the_gateway() {
    let program = afcgitest().display().to_string();
    let spawn = start(&[], &[&program]).await;
    let gateway = Own::before(spawn.port(), "").await;
    let urls = ["/", "/delay?ms=30"].map(|path| gateway.url(path));
    no_request_of_these_is_lost(spawn, &urls).await;
}

#[tokio::test]
async fn libfcgi_behind_nginx() {
    let peer = libfcgi_peer().display().to_string();
    let program = ["env", "THREADS=1", &peer];
    behind(
        Kind::Nginx,
        start(&["--stop-signal", "USR1"], &program).await,
    )
    .await;
}

#[tokio::test]
async fn perl_behind_nginx() {
    let script = workspace().join("interop/peers/perl/app.pl");
    let program = ["env", "PROCESSES=1", "perl", &script.display().to_string()];
    behind(
        Kind::Nginx,
        start(&["--stop-signal", "USR1"], &program).await,
    )
    .await;
}

const SCRIPT: &str = r#"<?php
if (isset($_GET['ms'])) { usleep(1000 * (int) $_GET['ms']); }
if ($_SERVER['SCRIPT_NAME'] === '/echo') { readfile('php://input'); exit; }
echo "Hello world\n";
"#;

#[tokio::test]
async fn php_behind_nginx() {
    let spawn = start(&[], &["php-cgi", "-d", "enable_post_data_reading=0"]).await;
    let (dir, port) = (spawn.dir().to_owned(), free_port());
    std::fs::write(dir.join("index.php"), SCRIPT).expect("a script");
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {}/{name};\n", dir.display()))
        .concat();
    let config = format!(
        "daemon off;
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{}}
http {{
    access_log off;
    {temporary}
    client_body_buffer_size 1m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            fastcgi_param SCRIPT_FILENAME {dir}/index.php;
            fastcgi_param SCRIPT_NAME $fastcgi_script_name;
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param CONTENT_TYPE $content_type;
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_buffering off;
            fastcgi_pass 127.0.0.1:{app};
        }}
    }}
}}
",
        dir = dir.display(),
        app = spawn.port(),
    );
    std::fs::write(dir.join("nginx.conf"), config).expect("nginx.conf");
    let mut command = Command::new("nginx");
    command.arg("-e").arg(dir.join("error.log"));
    command.arg("-c").arg(dir.join("nginx.conf"));
    let _nginx = Process::start("nginx", &command, &dir.join("nginx.log"));
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    eventually("nginx answers", SOON, || {
        let request = client().get(url("/ready")).send();
        async { request.await.map(drop).map_err(|error| error.to_string()) }
    })
    .await;
    no_request_is_lost(spawn, url).await;
}
