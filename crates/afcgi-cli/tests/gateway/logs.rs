//! What is logged: as text, and as JSON of which every line can be read.

use std::collections::BTreeSet;

use afcgi_interop::app::App;
use afcgi_interop::http::{client, get};
use afcgi_interop::wait::{SOON, eventually, free_port};
use serde_json::{Map, Value};

use crate::rig::{Rig, run};

/// The lines of both logs. Each of them has to be an object.
fn lines(log: &str) -> Vec<Map<String, Value>> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The lines of the access log when there are so many.
async fn requests(rig: &Rig, count: usize) -> Vec<Map<String, Value>> {
    eventually("all are logged", SOON, || async {
        // The last line may be there in part.
        let log = rig.process.log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut found = lines(whole);
        found.retain(|line| line.contains_key("took"));
        match found.len() == count {
            true => Ok(found),
            false => Err(log),
        }
    })
    .await
}

#[tokio::test]
async fn json_whatever_clients_send() {
    let app = App::afcgitest(&[]).await;
    let app = format!("127.0.0.1:{}", app.port());
    let rig = Rig::flags(&[&app, "--log-format", "json"]).await;
    for (request, status) in [
        (&b"GET /log?a=%22 HTTP/1.1\r\nHost: a.example:1\r\nUser-Agent: q\"\\\xff\xc3\xa9{\tz\r\nReferer: \"}\r\n"[..], 200),
        (b"GET /\"{}\\ HTTP/1.1\r\nHost: x\r\nUser-Agent: \xf0\x28\x8c\r\n", 200),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n", 200),
        (b"GET /a%0a%00 HTTP/1.1\r\nHost: x\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\"b\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\xffb\r\n", 400),
    ] {
        let answer = rig.raw(&[request, b"Connection: close\r\n\r\n"].concat()).await;
        // What is no request line at all is refused before there is anything to log.
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let found = requests(&rig, 6).await;
    let first = &found[0];
    for (name, value) in [
        ("remote", "127.0.0.1"),
        ("method", "GET"),
        ("uri", "/log?a=%22"),
        ("protocol", "HTTP/1.1"),
        ("agent", "q\\x22\\x5c\\xff\\xc3\\xa9{\\x09z"),
        ("referer", "\\x22}"),
        ("host", "a.example"),
        ("upstream", "command-line"),
        ("address", &*app),
    ] {
        assert_eq!(first[name], value, "{name}");
    }
    assert_eq!(
        (&first["status"], &first["retries"]),
        (&200.into(), &0.into())
    );
    assert_eq!(first["complete"], true);
    assert!(first["wait"].is_number() && first["took"].is_number());
    let time = first["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    assert_eq!(found[1]["uri"], "/\\x22{}\\x5c");
    assert_eq!(found[1]["agent"], "\\xf0(\\x8c");
    assert_eq!(found[2]["uri"], "/\\xc3\\xa9");
    for refused in &found[3..] {
        assert!(!refused.contains_key("address") && !refused.contains_key("wait"));
    }
}

#[tokio::test]
async fn json_of_what_goes_wrong() {
    let config = format!(
        "log_format = \"json\"\n[upstream.a]\naddresses = [\"127.0.0.1:{}\"]\n[[route]]\nupstream = \"a\"",
        free_port()
    );
    let rig = Rig::config(&config).await;
    assert_eq!(get(&client(), &rig.url("/a%22%5Cb")).await.status(), 502);
    let found = requests(&rig, 1).await;
    assert_eq!(found[0]["status"], 502);
    // The one that could not be reached.
    assert!(config.contains(found[0]["address"].as_str().unwrap()));
    let found = lines(&rig.process.log());
    let error = found.iter().find(|line| line["level"] == "ERROR").unwrap();
    assert_eq!(
        (&error["message"], &error["status"]),
        (&"no response".into(), &502.into())
    );
    assert!(error["timestamp"].is_string() && error["error"].is_string());
    // What ends the program is a line of the log too.
    for (flags, words) in [
        (&["gateway", "--log-format", "json"][..], "nothing to serve"),
        (
            &[
                "gateway",
                ":1",
                "--log-format",
                "json",
                "--listen",
                "192.0.2.1:1",
            ],
            "cannot listen",
        ),
    ] {
        let output = run(flags);
        assert_eq!(output.status.code(), Some(1));
        let found = lines(std::str::from_utf8(&output.stderr).unwrap());
        let error = found.last().unwrap()["error"].as_str().unwrap();
        assert!(error.contains(words), "{error}");
    }
}

/// A configuration that is read again does not change what its readers have to understand.
#[tokio::test]
async fn the_format_stays_until_the_next_start() {
    let app = App::afcgitest(&[]).await;
    let config = format!(
        "[upstream.a]\naddresses = [\"127.0.0.1:{}\"]\n[[route]]\nupstream = \"a\"",
        app.port()
    );
    let rig = Rig::config(&config).await;
    std::fs::write(
        rig.config_path(),
        format!("log_format = \"json\"\n{config}"),
    )
    .unwrap();
    rig.signal(rustix::process::Signal::HUP);
    rig.logs(&["WARN", "`log_format`", "until the next start"])
        .await;
    assert_eq!(get(&client(), &rig.url("/")).await.status(), 200);
    rig.logs(&["\"GET / HTTP/1.1\" 200", "retries=0"]).await;
}

#[tokio::test]
async fn the_address_that_served_a_request() {
    let apps = [App::afcgitest(&[]).await, App::afcgitest(&[]).await];
    let addresses = apps
        .each_ref()
        .map(|app| format!("127.0.0.1:{}", app.port()));
    let gone = format!("127.0.0.1:{}", free_port());
    let rig = Rig::flags(&[&addresses[0], &addresses[1], "--log-format", "json"]).await;
    for _ in 0..10 {
        assert_eq!(get(&client(), &rig.url("/")).await.status(), 200);
    }
    let found = requests(&rig, 10).await;
    let found: BTreeSet<_> = found
        .iter()
        .map(|line| line["address"].as_str().unwrap())
        .collect();
    assert_eq!(found, addresses.iter().map(|address| &**address).collect());

    // Those that are not there have served nothing.
    let rig = Rig::flags(&[
        &gone,
        &addresses[0],
        &gone.replace("127.0.0.1", "127.0.0.2"),
    ])
    .await;
    let address = format!("address=\"{}\"", addresses[0]);
    for _ in 0..4 {
        assert_eq!(get(&client(), &rig.url("/")).await.status(), 200);
    }
    eventually("all are logged", SOON, || async {
        let log = rig.process.log();
        match log.matches(&*address).count() {
            4 => Ok(()),
            _ => Err(log),
        }
    })
    .await;
}
