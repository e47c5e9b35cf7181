//! The same requests to the same application with the module and without: an application that does not multiplex must be served as plain
//! nginx serves it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use afcgi_interop::app::App;
use afcgi_interop::http::{client, get, get_ok, noise};
use afcgi_interop::php::Php;
use afcgi_interop::wait::{SOON, eventually};
use afcgi_nginx_tests::nginx::Nginx;
use futures_util::future::join_all;
use reqwest::{Client, Method, Response};
use tempfile::TempDir;

const SCRIPT: &str = r#"<?php
function note($text) { file_put_contents(getenv('NOTES') . '/' . $text, "x\n", FILE_APPEND | LOCK_EX); }
switch ($_GET['do'] ?? '') {
case 'finish':
    // As wp-cron and queues do: the answer is there, and the process goes on working.
    echo 'finished';
    fastcgi_finish_request();
    note('working-' . $_GET['name']);
    $until = microtime(true) + 60;
    while (!file_exists(getenv('NOTES') . '/release-' . $_GET['name']) && microtime(true) < $until) { usleep(2000); clearstatcache(); }
    break;
case 'ask-myself':
    echo 'finished';
    fastcgi_finish_request();
    note('asked-' . $_GET['name'] . '-' . file_get_contents($_GET['url'], false, stream_context_create(['http' => ['timeout' => 20]])));
    break;
case 'crash':
    note('crashed-' . $_GET['name']);
    posix_kill(getmypid(), 9);
    sleep(10);
    break;
case 'pool':
    usleep(1000 * (int) ($_GET['ms'] ?? 0));
    echo getenv('POOL'), ' ', $_GET['tag'];
    break;
case 'status':
    http_response_code((int) $_GET['status']);
    header('X-One: 1');
    setcookie('a', 'b');
    setcookie('c', 'd');
    echo 'status';
    break;
case 'redirect':
    header('Location: /elsewhere');
    break;
case 'large':
    echo str_repeat('0123456789abcdef', 100000);
    break;
case 'nothing':
    break;
default:
    usleep(1000 * (int) ($_GET['ms'] ?? 0));
    header('X-Query: ' . ($_SERVER['QUERY_STRING'] ?? ''));
    header('X-Length: ' . ($_SERVER['CONTENT_LENGTH'] ?? ''));
    header('X-Fields: ' . strlen(($_SERVER['HTTP_X_LONG_1'] ?? '') . ($_SERVER['HTTP_X_LONG_2'] ?? '') . ($_SERVER['HTTP_X_LONG_3'] ?? '')));
    echo $_SERVER['REQUEST_METHOD'], ' ', md5(file_get_contents('php://input'));
}
"#;

/// An application, an nginx with the module and one without before it.
struct Both {
    php: Php,
    notes: TempDir,
    module: Nginx,
    plain: Nginx,
}

impl Both {
    async fn start(workers: u32, children: u32, settings: &str) -> Self {
        let notes = tempfile::tempdir().expect("a temporary folder");
        let settings = format!("env[NOTES] = {}\n{settings}", notes.path().display());
        let php = Php::start_with(children, &settings, &[("index.php", SCRIPT)]).await;
        let (root, port) = (php.root(), php.port());
        let nginx = |flag| {
            format!(
                "fastcgi_multiplex {flag};
                 large_client_header_buffers 8 64k;
                 server {{ listen LISTEN; root {root}; location / {{ fastcgi_pass 127.0.0.1:{port}; }} }}"
            )
        };
        let module = Nginx::start(workers, &nginx("on")).await;
        let plain = Nginx::start(workers, &nginx("off")).await;
        Self {
            php,
            notes,
            module,
            plain,
        }
    }

    fn each(&self) -> [(&'static str, &Nginx); 2] {
        [("module", &self.module), ("plain", &self.plain)]
    }

    fn note(&self, name: &str) -> PathBuf {
        self.notes.path().join(name)
    }
}

/// What one answers is the same in all that a client sees.
async fn same(
    client: &Client,
    both: &Both,
    method: Method,
    query: &str,
    fields: &[(&str, String)],
    body: &[u8],
) {
    let mut seen = Vec::new();
    for (_, nginx) in both.each() {
        let mut request = client.request(method.clone(), nginx.url(&format!("/index.php?{query}")));
        for (name, value) in fields {
            request = request.header(*name, value);
        }
        let response = request.body(body.to_vec()).send().await.expect("an answer");
        seen.push(shape(response).await);
    }
    assert_eq!(
        seen[0], seen[1],
        "{method} {query}: with the module and without"
    );
}

/// Status, fields but for the date, and body.
async fn shape(response: Response) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let status = response.status().as_u16();
    let mut fields: Vec<_> = (response.headers().iter())
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .filter(|(name, _)| name != "date")
        .collect();
    fields.sort();
    let body = response.bytes().await.expect("the body").to_vec();
    (status, fields, body)
}

async fn exists(path: &Path) {
    eventually(&format!("{} is there", path.display()), SOON, || async {
        path.exists()
            .then_some(())
            .ok_or_else(|| String::from("it is not"))
    })
    .await;
}

#[tokio::test]
async fn php_answers_are_the_same() {
    let both = Both::start(2, 4, "php_admin_value[enable_post_data_reading] = 0").await;
    let client = client();
    let long = |n: usize| ("x".repeat(7900), format!("x-long-{n}"));
    let fields: Vec<_> = (1..=3).map(long).collect();
    let fields: Vec<(&str, String)> = fields
        .iter()
        .map(|(value, name)| (name.as_str(), value.clone()))
        .collect();
    for _ in 0..2 {
        for query in [
            "",
            "do=status&status=404",
            "do=status&status=503",
            "do=redirect",
            "do=large",
            "do=nothing",
            "ms=20",
        ] {
            for method in [Method::GET, Method::HEAD, Method::POST] {
                same(&client, &both, method, query, &[], b"").await;
            }
        }
        same(&client, &both, Method::POST, "", &[], &noise(3_000_000, 1)).await;
        same(&client, &both, Method::PUT, "", &[], &noise(70_000, 2)).await;
        // PHP-FPM loses the connection when a name-value pair is cut across two records.
        same(&client, &both, Method::GET, &"q".repeat(7900), &fields, b"").await;
        same(
            &client,
            &both,
            Method::POST,
            &"q".repeat(7900),
            &fields,
            b"body",
        )
        .await;
        for length in (32_600..32_800).step_by(7) {
            same(
                &client,
                &both,
                Method::GET,
                &"q".repeat(length / 2 - 1000),
                &[("x-long-1", "y".repeat(length / 2))],
                b"",
            )
            .await;
        }
    }
    both.module.logs("gets one request per connection").await;
}

/// A script that has finished its request and works on keeps nobody waiting.
#[tokio::test]
async fn php_a_process_that_works_on() {
    let both = Both::start(1, 4, "").await;
    let client = client();
    for (name, nginx) in both.each() {
        for turn in 0..3 {
            let name = format!("{name}{turn}");
            let url = nginx.url(&format!("/index.php?do=finish&name={name}"));
            assert_eq!(get_ok(&client, &url).await, "finished");
            exists(&both.note(&format!("working-{name}"))).await;
        }
        // Three of four processes work on until they are released below: the fourth answers all of these.
        for _ in 0..20 {
            get_ok(&client, &nginx.url("/index.php")).await;
        }
        for turn in 0..3 {
            std::fs::write(both.note(&format!("release-{name}{turn}")), "").expect("a file");
        }
    }
}

#[tokio::test]
async fn php_a_script_that_asks_its_own_site() {
    let both = Both::start(1, 2, "").await;
    let client = client();
    for (name, nginx) in both.each() {
        let own = nginx.url("/index.php?do=pool%26tag=me");
        let url = nginx.url(&format!("/index.php?do=ask-myself&name={name}&url={own}"));
        assert_eq!(get_ok(&client, &url).await, "finished");
        exists(&both.note(&format!("asked-{name}- me"))).await;
    }
}

/// `pm.max_requests`: a process leaves after five requests, and none is lost with it.
#[tokio::test]
async fn php_processes_that_leave() {
    let both = Both::start(1, 2, "pm.max_requests = 5").await;
    let client = client();
    for (name, nginx) in both.each() {
        for n in 0..400_u32 {
            let response = client
                .post(nginx.url("/index.php"))
                .body(n.to_string())
                .send()
                .await;
            assert_eq!(
                response.expect("an answer").status().as_u16(),
                200,
                "{name}: POST {n}"
            );
        }
    }
}

/// A reload of PHP-FPM under POST: what plain nginx does not lose the module does not lose.
#[tokio::test]
async fn php_that_is_reloaded() {
    let both = Both::start(1, 4, "").await;
    let client = client();
    for (name, nginx) in both.each() {
        let post = async |clients: usize, each: usize| {
            let failed = join_all((0..clients).map(async |n| {
                let mut failed = 0;
                for turn in 0..each {
                    let body = (n * each + turn).to_string();
                    let response = client.post(nginx.url("/index.php")).body(body).send().await;
                    failed += usize::from(response.expect("an answer").status() != 200);
                }
                failed
            }));
            failed.await.into_iter().sum::<usize>()
        };
        assert_eq!(post(4, 10).await, 0, "{name}");
        let mut lost = 0;
        for _ in 0..8 {
            lost += post(4, 25).await;
            both.php.reload();
            lost += post(4, 25).await;
        }
        assert_eq!(lost, 0, "{name}");
    }
}

/// A GET whose script crashes is run once.
#[tokio::test]
async fn php_that_crashes() {
    let both = Both::start(2, 2, "").await;
    let client = client();
    for (name, nginx) in both.each() {
        for turn in 0..6 {
            // In between, so that there would be connections to reuse.
            for _ in 0..4 {
                get_ok(&client, &nginx.url("/index.php")).await;
            }
            let crash = format!("{name}{turn}");
            let url = nginx.url(&format!("/index.php?do=crash&name={crash}"));
            assert_eq!(get(&client, &url).await.status().as_u16(), 502);
            let runs = std::fs::read_to_string(both.note(&format!("crashed-{crash}")));
            assert_eq!(
                runs.expect("the script has run").lines().count(),
                1,
                "{crash}: runs"
            );
        }
    }
}

/// More workers and clients than processes: all are served, and one after the other.
#[tokio::test]
async fn php_with_all_processes_busy() {
    let both = Both::start(4, 2, "").await;
    let mut longest = Vec::new();
    for (_, nginx) in both.each() {
        let times = join_all((0..16).map(async |_| {
            let client = client();
            let mut longest = Duration::ZERO;
            for _ in 0..20 {
                let start = Instant::now();
                get_ok(&client, &nginx.url("/index.php?ms=5")).await;
                longest = longest.max(start.elapsed());
            }
            longest
        }));
        longest.push(times.await.into_iter().max().expect("some"));
    }
    // A kept connection of a worker kept all others out for seconds.
    assert!(
        longest[0] < 3 * longest[1] + Duration::from_secs(1),
        "with the module and without: {longest:?}"
    );
}

/// 300 sites in one worker, each with a pool of its own, whose processes come and go.
#[tokio::test]
async fn php_three_hundred_pools() {
    const POOLS: usize = 300;
    let php = Php::start_pools(POOLS, &[("index.php", SCRIPT)]).await;
    let locations: String = (0..POOLS)
        .map(|n| {
            format!(
                "location /{n}/ {{ rewrite ^ /index.php break; fastcgi_pass unix:{}; }}\n",
                php.socket(n)
            )
        })
        .collect();
    let nginx = Nginx::start(
        1,
        &format!(
            "fastcgi_multiplex on; server {{ listen LISTEN; root {}; {locations} }}",
            php.root()
        ),
    )
    .await;
    let nginx = &nginx;
    join_all((0..16_usize).map(async |number| {
        let client = client();
        let mut site = number;
        for n in 0..150 {
            site = (site * 31 + 17 + n) % POOLS;
            let tag = number * 1000 + n;
            let ms = if n % 10 == 0 { 100 } else { 0 };
            let url = nginx.url(&format!("/{site}/?do=pool&ms={ms}&tag={tag}"));
            assert_eq!(get_ok(&client, &url).await, format!("{site} {tag}"));
        }
    }))
    .await;
    // No connection is left in the worker.
    let worker = nginx.started_workers().await[0];
    eventually("the worker's sockets are closed", SOON, || async {
        drop(client());
        let open = sockets_to(worker, &php.root().replace("/www", "/"));
        if open == 0 {
            Ok(())
        } else {
            Err(format!("{open} are open"))
        }
    })
    .await;
}

/// How many sockets of a process lead to unix sockets below a folder.
fn sockets_to(process: u32, folder: &str) -> usize {
    let table = std::fs::read_to_string("/proc/net/unix").expect("/proc/net/unix");
    let accepted = (table.lines())
        .filter(|line| line.contains(folder) && line.contains(" 03 "))
        .count();
    assert!(PathBuf::from(format!("/proc/{process}/fd")).is_dir());
    accepted
}

/// Applications that do not answer GET_VALUES, with one process or few: nobody waits for an answer that does not come.
async fn nobody_waits(app: App) {
    let port = app.port();
    let nginx = |flag| {
        format!(
            "fastcgi_multiplex {flag}; server {{ listen LISTEN; location / {{ fastcgi_pass 127.0.0.1:{port}; }} }}"
        )
    };
    let module = Nginx::start(2, &nginx("on")).await;
    let plain = Nginx::start(2, &nginx("off")).await;
    let client = client();
    for (name, nginx) in [("plain", &plain), ("module", &module)] {
        let start = Instant::now();
        let mut longest = Duration::ZERO;
        while start.elapsed() < Duration::from_secs(5) {
            let request = Instant::now();
            get_ok(&client, &nginx.url("/")).await;
            longest = longest.max(request.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A request waited for 3 s in each worker, again and again.
        assert!(longest < Duration::from_millis(1500), "{name}: {longest:?}");
    }
}

#[tokio::test]
async fn nobody_waits_for_libfcgi_with_one_process() {
    nobody_waits(App::libfcgi_with(1).await).await;
}

#[tokio::test]
async fn nobody_waits_for_libfcgi_with_two() {
    nobody_waits(App::libfcgi_with(2).await).await;
}

#[tokio::test]
async fn nobody_waits_for_libfcgi_with_eight() {
    nobody_waits(App::libfcgi_with(8).await).await;
}

#[tokio::test]
async fn nobody_waits_for_perl() {
    nobody_waits(App::perl().await).await;
}

#[tokio::test]
async fn nobody_waits_for_flup() {
    nobody_waits(App::flup().await).await;
}
