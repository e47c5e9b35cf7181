//! The gateway of this project before PHP-FPM with an application as WordPress is one: what its users do all day, many of them at a time.

use std::time::{Duration, Instant};

use afcgi_interop::http::{assert_same, client, get, get_ok, noise};
use afcgi_interop::own::Own;
use afcgi_interop::php::Php;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;

const INDEX: &str = r#"<?php
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if ($path === '/wp-admin/upload/') {
    header('Content-Type: application/octet-stream');
    foreach ($_FILES['files']['name'] as $n => $name) {
        echo "$name ", $_FILES['files']['error'][$n], ' ', $_FILES['files']['size'][$n], "\n";
    }
    echo $_POST['title'], "\n";
    foreach ($_FILES['files']['tmp_name'] as $name) { readfile($name); }
    exit;
}
if ($path === '/wp-login/') { session_start(); $_SESSION['user'] = $_POST['user']; header('Location: /wp-admin/'); exit; }
if ($path === '/wp-admin/') {
    session_start();
    if (!isset($_SESSION['user'])) { http_response_code(403); exit; }
    $_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
    echo $_SESSION['user'], ' ', $_SESSION['visits'];
    exit;
}
if ($path === '/wp-json/echo') { echo file_get_contents('php://input'); exit; }
if (isset($_GET['ms'])) { usleep(1000 * (int) $_GET['ms']); }
echo $_SERVER['SCRIPT_NAME'], ' ', $_SERVER['REQUEST_URI'], ' ', $_SERVER['PATH_INFO'] ?? '-', ' ', getmypid();
"#;

async fn start(keys: &str) -> (Own, Php) {
    let settings =
        "php_admin_value[session.save_path] = DIR\nphp_admin_value[upload_max_filesize] = 32M";
    let info = "<?php echo 'script ', $_SERVER['PATH_INFO'] ?? '-';";
    let files = [("index.php", INDEX), ("wp-cron.php", info)];
    let fpm = Php::start_with(4, settings, &files).await;
    let config = format!(
        "[upstream.app]\naddresses = [\"127.0.0.1:{}\"]\n{keys}\n[[route]]\nupstream = \"app\"\nroot = \"{}\"\n",
        fpm.port(),
        fpm.root()
    );
    (Own::start(&[], &config).await, fpm)
}

async fn text(gateway: &Own, path: &str) -> String {
    String::from_utf8_lossy(&get_ok(&client(), &gateway.url(path)).await).into_owned()
}

/// Pretty links go to the front controller, scripts run by themselves, both with PATH_INFO.
#[tokio::test]
async fn front_controller() {
    let (gateway, _fpm) = start("").await;
    for (path, start) in [
        ("/", "/index.php / - "),
        (
            "/2026/11/a-post/?replytocom=3",
            "/index.php /2026/11/a-post/?replytocom=3 - ",
        ),
        (
            "/index.php/2026/a-post/",
            "/index.php /index.php/2026/a-post/ /2026/a-post/ ",
        ),
        ("/wp-cron.php", "script -"),
        ("/wp-cron.php/a/b", "script /a/b"),
    ] {
        let found = text(&gateway, path).await;
        assert!(found.starts_with(start), "{path}: {found}");
    }
}

/// Several files of a form, one of megabytes and one of nothing, byte by byte.
#[tokio::test]
async fn uploads() {
    let (gateway, _fpm) = start("").await;
    let files = [
        noise(5_000_000, 1),
        noise(300_000, 2),
        Vec::new(),
        noise(1, 3),
    ];
    let mut body =
        b"--b0undary\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nsome title\r\n"
            .to_vec();
    let mut expected = Vec::new();
    for (n, file) in files.iter().enumerate() {
        let part = format!(
            "--b0undary\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"{n}.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(part.as_bytes());
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n");
        expected.extend_from_slice(format!("{n}.bin 0 {}\n", file.len()).as_bytes());
    }
    body.extend_from_slice(b"--b0undary--\r\n");
    expected.extend_from_slice(b"some title\n");
    expected.extend(files.concat());
    let client = client();
    let body = Bytes::from(body);
    join_all((0..6).map(async |_| {
        let request = client
            .post(gateway.url("/wp-admin/upload/"))
            .header("Content-Type", "multipart/form-data; boundary=b0undary");
        let response = request.body(body.clone()).send().await.expect("an upload");
        assert_eq!(response.status().as_u16(), 200);
        assert_same(
            "the files",
            &response.bytes().await.expect("the body"),
            &expected,
        );
    }))
    .await;
}

/// PHP reads as much of a body as CONTENT_LENGTH says, which a client may not say: what is not read for it is refused, and not lost.
#[tokio::test]
async fn bodies_of_unknown_length() {
    let (gateway, _fpm) = start("").await;
    for length in [1, 100_000, 1 << 20, (1 << 20) + 1] {
        let body = noise(length, 4);
        let pieces: Vec<_> = body.chunks(50_000).map(<[u8]>::to_vec).collect();
        let pieces = stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
        let request = client().post(gateway.url("/wp-json/echo"));
        let request = request.body(reqwest::Body::wrap_stream(pieces));
        let response = request.send().await.expect("an answer");
        if length > 1 << 20 {
            assert_eq!(response.status().as_u16(), 413);
            continue;
        }
        let answer = response.bytes().await.expect("the body");
        assert_same("php://input", &answer, &body);
    }
}

/// Each of ten users logs in and is known from then on, and by nobody else's name.
#[tokio::test]
async fn sessions() {
    let (gateway, _fpm) = start("").await;
    assert_eq!(
        get(&client(), &gateway.url("/wp-admin/")).await.status(),
        403
    );
    join_all((0..10).map(async |n| {
        let client = client();
        let request = client
            .post(gateway.url("/wp-login/"))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(format!("user=user+{n}"));
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 302);
        assert_eq!(response.headers()["location"], "/wp-admin/");
        let cookie = response.headers()["set-cookie"].to_str().expect("text");
        let cookie = cookie.split(';').next().expect("a cookie").to_owned();
        for visit in 1..=5 {
            let request = client
                .get(gateway.url("/wp-admin/"))
                .header("Cookie", &cookie);
            let body = request
                .send()
                .await
                .expect("an answer")
                .text()
                .await
                .expect("the body");
            assert_eq!(body, format!("user {n} {visit}"));
        }
    }))
    .await;
}

/// More slow requests than there are processes wait for their turn, in the gateway or in PHP-FPM's socket: none fails.
#[tokio::test]
async fn more_requests_than_processes() {
    for keys in ["", "single_connections = 4"] {
        let (gateway, _fpm) = start(keys).await;
        let client = client();
        let began = Instant::now();
        let answers = join_all((0..40).map(async |n| {
            let path = format!("/slow/{n}?ms=200");
            String::from_utf8_lossy(&get_ok(&client, &gateway.url(&path)).await).into_owned()
        }))
        .await;
        // Ten turns of four.
        assert!(began.elapsed() >= Duration::from_millis(2000));
        let mut processes = Vec::new();
        for (n, answer) in answers.iter().enumerate() {
            let start = format!("/index.php /slow/{n}?ms=200 - ");
            processes.push(
                answer
                    .strip_prefix(&start)
                    .unwrap_or_else(|| panic!("{answer}")),
            );
        }
        processes.sort_unstable();
        processes.dedup();
        assert_eq!(processes.len(), 4, "{processes:?}");
        drop(client);
        gateway.is_idle().await;
    }
}
