//! `afcgi top` with the sources that it is for: PHP-FPM, the gateway, and nginx with the module.

use std::process::{Child, Command, Stdio};

use afcgi_interop::app::{App, afcgi};
use afcgi_interop::gateway::{Gateway, Kind};
use afcgi_interop::http::{client, get_ok};
use afcgi_interop::own::{Own, upstream};
use afcgi_interop::php::Php;
use afcgi_interop::wait::{SOON, eventually, free_port};
use serde_json::Value;

/// One sample as JSON, and the exit status.
fn once(arguments: &[&str]) -> (Value, Option<i32>) {
    let mut command = Command::new(afcgi());
    command.args(["top", "--once", "--json", "--timeout", "20s"]);
    let output = command.args(arguments).output().expect("afcgi top");
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (json, output.status.code())
}

const POOLS: &str = "[own]\nlisten = DIR/own.sock\nuser = root\ngroup = root\npm = static\npm.max_children = 3\n\
    pm.status_path = /fpm-status\n";

/// A script that runs until a file is there.
const LONG: &str =
    "<?php while (!file_exists(__DIR__ . '/../go')) { usleep(5000); clearstatcache(); }";

/// A process that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[tokio::test]
async fn php_fpm() {
    let fpm = Php::start_with(1, POOLS, &[("long.php", LONG)]).await;
    let socket = fpm.socket_named("own").await;
    let at = format!("unix:{socket}");

    let (json, code) = once(&["--status-path", "/fpm-status", "--interval", "200ms", &at]);
    assert_eq!(code, Some(0), "{json:#}");
    let source = &json["sources"][0];
    assert_eq!(source["kind"], "php-fpm");
    let pool = &source["pools"][0];
    assert_eq!(pool["name"], "own");
    assert_eq!(
        (&pool["processes"], &pool["process_manager"]),
        (&3.into(), &"static".into())
    );
    // The second sample is one request that the pool has accepted since the first.
    assert!(pool["accepted_per_second"].as_f64() > Some(0.0), "{json:#}");
    assert_eq!(source["processes"].as_array().map(Vec::len), Some(3));

    // What runs, and for how long.
    let long = format!("{}/long.php", fpm.root());
    let mut request = Command::new(afcgi());
    request.args(["request", &at, "--script", &long]);
    let request = Ended(
        request
            .stdout(Stdio::null())
            .spawn()
            .expect("afcgi request"),
    );
    let with_path = format!("{at}/fpm-status");
    eventually("the script is shown", SOON, || async {
        let (json, _) = once(&["--interval", "0s", &with_path]);
        let first = &json["sources"][0]["processes"][0];
        let runs = first["script"] == *long && first["running_microseconds"].as_u64() > Some(0);
        runs.then_some(()).ok_or_else(|| json.to_string())
    })
    .await;
    fpm.put("go", "");
    drop(request);

    // A pool without a status page, and one that is not there.
    let (json, code) = once(&["--interval", "0s", &at, &format!("{at}.none"), &with_path]);
    assert_eq!(code, Some(1));
    let error = |n: usize| json["sources"][n]["error"].as_str().unwrap_or_default();
    assert!(
        error(0).contains("set `pm.status_path = /status`"),
        "{json:#}"
    );
    assert!(error(1).contains("there is no such file"), "{json:#}");
    assert_eq!(json["sources"][2]["error"], Value::Null);
}

#[tokio::test]
async fn php_fpm_for_prometheus() {
    let fpm = Php::start_with(1, POOLS, &[]).await;
    let at = format!("unix:{}/fpm-status", fpm.socket_named("own").await);
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(afcgi());
    command.args(["top", "--timeout", "20s", "--export", &address, &at]);
    let _exporter = Ended(command.stderr(Stdio::null()).spawn().expect("afcgi top"));
    let client = client();
    let metrics = || async {
        let response = client.get(format!("http://{address}/metrics")).send().await;
        let response = response.map_err(|error| error.to_string())?;
        response.text().await.map_err(|error| error.to_string())
    };
    let text = eventually("it answers", SOON, metrics).await;
    let labels = format!("{{pool=\"own\",scrape_uri=\"{at}\"}}");
    for line in [
        format!("phpfpm_up{labels} 1\n"),
        format!("phpfpm_accepted_connections{labels} 1\n"),
        format!("phpfpm_total_processes{labels} 3\n"),
        format!("phpfpm_listen_queue{labels} 0\n"),
    ] {
        assert!(text.contains(&line), "{line} in\n{text}");
    }
    // One scrape is one request.
    let text = metrics().await.expect("a second scrape");
    let line = format!("phpfpm_accepted_connections{labels} 2\n");
    assert!(text.contains(&line), "{line} in\n{text}");
    drop(fpm);
    let text = metrics().await.expect("a third scrape");
    assert!(text.contains(&format!("phpfpm_up{labels} 0\n")), "{text}");
    assert!(!text.contains("phpfpm_accepted_connections{"), "{text}");
}

#[tokio::test]
async fn the_gateway() {
    let app = App::afcgitest(&[]).await;
    let gateway = Own::start(&[], &upstream(app.port(), "")).await;
    let client = client();
    for _ in 0..5 {
        get_ok(&client, &gateway.url("/ready")).await;
    }
    let admin = format!("http://127.0.0.1:{}", gateway.admin_port());
    let (json, code) = once(&["--interval", "0s", &admin]);
    assert_eq!(code, Some(0), "{json:#}");
    let source = &json["sources"][0];
    assert_eq!(source["kind"], "gateway");
    let own = &source["gateways"][0];
    assert!(own["requests"].as_u64() >= Some(5), "{json:#}");
    assert!(own["p99_seconds"].as_f64() > Some(0.0), "{json:#}");
    let application = &source["applications"][0];
    assert!(application["requests"].as_u64() >= Some(5), "{json:#}");
    assert_eq!(application["connections"], 1);
    assert_eq!(application["addresses_down"], 0);
}

#[tokio::test]
async fn nginx_with_the_module() {
    let app = App::afcgitest(&[]).await;
    let nginx = Gateway::start(Kind::Module, app.port()).await;
    let client = client();
    for _ in 0..5 {
        get_ok(&client, &nginx.url("/ready")).await;
    }
    let names = ["requests", "bytes_sent", "active", "held", "multiplexes"];
    for query in ["", "?format=prometheus"] {
        let url = nginx.url("/fastcgi-status") + query;
        let (json, code) = once(&["--interval", "0s", &url]);
        assert_eq!(code, Some(0), "{json:#}");
        let source = &json["sources"][0];
        assert_eq!(source["kind"], "module");
        let row = &source["applications"][0];
        assert_eq!(row["name"], format!("127.0.0.1:{}", app.port()));
        assert!(row["requests"].as_u64() >= Some(5), "{json:#}");
        for name in names {
            assert!(!row[name].is_null(), "{name}: {json:#}");
        }
    }
    // A page of the application behind it.
    let (json, _) = once(&["--interval", "0s", &nginx.url("/none")]);
    let error = json["sources"][0]["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("not a status page"), "{json:#}");
}
