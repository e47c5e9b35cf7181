//! The program `afcgi`: what it is told, what it says, and how it ends.

use std::process::Command;

use afcgi_interop::http::{client, get, get_ok};
use afcgi_interop::process::Process;
use afcgi_interop::raw::{self, kind, pair, record};
use afcgi_interop::wait::{SOON, eventually, free_port};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn afcgi(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afcgi"));
    command.args(arguments);
    command
}

#[test]
fn bad_arguments() {
    for (arguments, words) in [
        (&[][..], "demo"),
        (&["nonsense"], "nonsense"),
        (&["demo", "--nonsense"], "--nonsense"),
        (&["demo", "--listen", "8888"], "expected HOST:PORT"),
        (&["demo", "--listen", "unix:a"], "expected HOST:PORT"),
        (&["demo", "--behind", "127.0.0.1:0"], "--public <URL>"),
        (&["demo", "--public", "http://127.0.0.1/"], "--behind"),
        (
            &["demo", "--behind", "5000", "--public", "http://a/"],
            "`5000` is no address",
        ),
        (
            &["demo", "--behind", "*:0", "--public", "https://a/"],
            "begins with http://",
        ),
        (
            &[
                "demo",
                "--behind",
                "*:0",
                "--public",
                "http://a/",
                "--listen",
                "a:1",
            ],
            "cannot be used with",
        ),
    ] {
        let output = afcgi(arguments).output().expect("afcgi");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
}

#[test]
fn an_address_in_use() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let arguments = [
        "demo",
        "--behind",
        &address,
        "--public",
        "http://127.0.0.1/",
    ];
    let output = afcgi(&arguments).output().expect("afcgi");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&address) && text.contains("in use"), "{text}");
}

/// Asks the application what it can do: when it says so, it hears signals too.
async fn answers(port: u16) -> Result<(), String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(|error| error.to_string())?;
    let question = record(kind::GET_VALUES, 0, &pair("FCGI_MPXS_CONNS", ""));
    (socket.write_all(&question).await).map_err(|error| error.to_string())?;
    match raw::read(&mut socket).await {
        Some(answer) if answer.kind == kind::GET_VALUES_RESULT => Ok(()),
        _ => Err("no answer".to_owned()),
    }
}

/// Two sockets, one of them in the file system, and nothing left behind.
#[tokio::test]
async fn it_listens_and_ends() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (socket, port) = (folder.path().join("demo.sock"), free_port());
    let behind = format!("127.0.0.1:{port},{}", socket.display());
    let command = afcgi(&[
        "demo",
        "--behind",
        &behind,
        "--public",
        "http://127.0.0.1/demo",
    ]);
    let mut process = Process::start("afcgi demo", &command, &folder.path().join("log"));
    eventually("it answers", SOON, || {
        process.assert_running();
        answers(port)
    })
    .await;
    assert!(socket.exists());
    assert!(process.log().contains("http://127.0.0.1/demo/"));
    assert!(process.stop().success());
    assert!(!socket.exists());
}

/// Web server and application in one process: the page, and a stream of it that is open when it ends.
#[tokio::test]
async fn it_needs_no_web_server() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = format!("127.0.0.1:{}", free_port());
    let command = afcgi(&["demo", "--listen", &address]);
    let mut process = Process::start("afcgi demo", &command, &folder.path().join("log"));
    let (client, url) = (client(), format!("http://{address}/"));
    eventually("the page is there", SOON, || {
        process.assert_running();
        let request = client.get(&url).send();
        async { request.await.map_err(|error| error.to_string()) }
    })
    .await;
    let page = get_ok(&client, &url).await;
    assert!(page.starts_with(b"<!doctype html>"));
    let mut clock = get(&client, &format!("{url}clock")).await;
    for _ in 0..2 {
        let event = clock.chunk().await.expect("an event");
        assert!(event.is_some());
    }
    assert!(process.stop().success());
    // It has ended in order.
    while let Some(_event) = clock.chunk().await.expect("the end of a stream") {}
}

/// A page of the demonstration: what it asks for ends with its stream, which is here.
async fn open_page(client: &reqwest::Client, url: &str) -> (String, reqwest::Response) {
    let mut live = get(client, &format!("{url}live")).await;
    let mut said = String::new();
    loop {
        let chunk = live.chunk().await.expect("a chunk").expect("more of them");
        said += &String::from_utf8_lossy(&chunk);
        let page = said.split_once("\"page\":\"").map(|(_, rest)| rest);
        if let Some((page, _)) = page.and_then(|rest| rest.split_once('"')) {
            return (page.to_owned(), live);
        }
    }
}

/// With all sorts of requests open it has nothing to complain of when it ends.
#[tokio::test]
async fn it_ends_without_a_word_of_trouble() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = format!("127.0.0.1:{}", free_port());
    let command = afcgi(&["demo", "--listen", &address]);
    let mut process = Process::start("afcgi demo", &command, &folder.path().join("log"));
    let (client, url) = (client(), format!("http://{address}/"));
    eventually("the page is there", SOON, || {
        process.assert_running();
        let request = client.get(&url).send();
        async { request.await.map_err(|error| error.to_string()) }
    })
    .await;
    let (page, _live) = open_page(&client, &url).await;
    let load = client.post(format!("{url}load?page={page}&n=1000"));
    assert_eq!(load.send().await.expect("an answer").status(), 200);
    let mut download = get(&client, &format!("{url}download?page={page}")).await;
    for _ in 0..100 {
        assert!(download.chunk().await.expect("a chunk").is_some());
    }
    // While some of the thousand are open, and others are being opened.
    let reading = tokio::spawn(async move { while let Ok(Some(_)) = download.chunk().await {} });
    assert!(process.stop().success());
    reading.await.expect("the end of the download");
    let log = process.log();
    for word in ["ERROR", "WARN", "error"] {
        assert!(!log.contains(word), "{log}");
    }
}

/// Where there may be few files open it says so, and what to do.
#[tokio::test]
async fn few_descriptors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 300 && exec \"$@\"", "sh"]);
    command.arg(env!("CARGO_BIN_EXE_afcgi"));
    command.args(["demo", "--listen", &address]);
    let process = Process::start("afcgi demo", &command, &folder.path().join("log"));
    let (client, url) = (client(), format!("http://{address}/"));
    eventually("the page is there", SOON, || {
        let request = client.get(&url).send();
        async { request.await.map_err(|error| error.to_string()) }
    })
    .await;
    assert!(process.log().contains("22 requests at a time"));
    let (page, _live) = open_page(&client, &url).await;
    let load = client.post(format!("{url}load?page={page}&n=1000"));
    let refused = load.send().await.expect("an answer");
    assert_eq!(refused.status(), 400);
    let why = refused.text().await.expect("a reason");
    for words in ["room for 22", "300 files", "ulimit -n", "Raise that limit"] {
        assert!(why.contains(words), "{why}");
    }
    let load = client.post(format!("{url}load?page={page}&n=0"));
    let refused = load.send().await.expect("an answer");
    assert_eq!(
        refused.text().await.expect("a reason"),
        "expected n from 1 to 22\n"
    );
}

/// The names of the subcommands that `--help` lists.
fn subcommands() -> Vec<String> {
    let help = afcgi(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    (help.lines())
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .filter(|name| name != "help")
        .collect()
}

#[test]
fn completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = afcgi(&["completions", shell]).output().unwrap();
        assert!(output.status.success(), "{shell}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for name in subcommands() {
            assert!(text.contains(&name), "{shell} does not know {name}");
        }
    }
    // bash takes what is for it. `spawn-exec` is started by the process manager alone.
    let text = afcgi(&["completions", "bash"]).output().unwrap().stdout;
    let text = String::from_utf8(text).unwrap();
    for (begun, whole) in [("requ", "request"), ("sp", "spawn")] {
        let script = format!(
            "{text}\nCOMP_WORDS=(afcgi {begun}) COMP_CWORD=1; _afcgi afcgi {begun} afcgi; echo \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        let found = String::from_utf8_lossy(&output.stdout);
        assert_eq!(found.trim(), whole, "{output:?}");
    }
}

#[test]
fn man_pages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("man1");
    let output = afcgi(&["man", path.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut wanted = vec!["afcgi.1".to_owned()];
    wanted.extend(subcommands().iter().map(|name| format!("afcgi-{name}.1")));
    wanted.sort();
    let mut found: Vec<_> = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, wanted);
    let page = std::fs::read_to_string(path.join("afcgi-request.1")).unwrap();
    for words in [
        ".TH afcgi-request 1",
        "max\\-time",
        ".SH OPTIONS",
        "Examples:",
    ] {
        assert!(page.contains(words), "{words} is not in {page}");
    }

    let output = afcgi(&["man", "/proc/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("cannot write man pages to /proc/nowhere"),
        "{text}"
    );
}
