//! The module in front of PHP-FPM. (In front of afcgitest and Go's net/http/fcgi it is tested with the other web servers, in `interop`.)

use afcgi_interop::http::{client, get, get_ok, noise};
use afcgi_interop::php::Php;
use afcgi_nginx_tests::nginx::Nginx;
use futures_util::future::join_all;

const SCRIPT: &str = r#"<?php
if (isset($_GET['ms'])) { usleep(1000 * (int) $_GET['ms']); }
if (isset($_GET['n'])) { echo str_repeat('x', (int) $_GET['n']); exit; }
$hash = hash_init('crc32b');
$in = fopen('php://input', 'rb');
$length = 0;
while (!feof($in)) { $piece = fread($in, 65536); $length += strlen($piece); hash_update($hash, $piece); }
echo $length, ' ', hash_final($hash), ' ', getmypid(), "\n";
"#;

async fn php(php: &Php, workers: u32) -> Nginx {
    let (port, root) = (php.port(), php.root());
    Nginx::start(
        workers,
        &format!(
            "fastcgi_multiplex on;
             server {{ listen LISTEN; root {root}; location / {{ fastcgi_pass 127.0.0.1:{port}; }} }}"
        ),
    )
    .await
}

/// The checksum that PHP computes.
fn crc32(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0xEDB8_8320
            } else {
                crc >> 1
            }
        })
    });
    !crc
}

/// PHP-FPM says that it does not multiplex: every request gets a connection of its own, and none is lost.
#[tokio::test]
async fn php_concurrent_uploads() {
    let fpm = Php::start(6, SCRIPT).await;
    let nginx = php(&fpm, 2).await;
    let client = client();
    let body = noise(3_000_000, 7);
    let expected = format!("3000000 {:08x} ", crc32(&body));
    let answers = join_all((0..40).map(async |_| {
        let request = client.post(nginx.url("/index.php")).body(body.clone());
        let response = request.send().await.expect("POST /index.php");
        assert_eq!(response.status().as_u16(), 200);
        response.text().await.expect("the body")
    }))
    .await;
    for answer in answers {
        assert!(answer.starts_with(&expected), "{answer} is not {expected}");
    }
    nginx.logs("gets one request per connection").await;
}

/// More nginx workers than PHP processes, many small requests, some held: an idle connection must not keep others out for long.
#[tokio::test]
async fn php_many_requests_with_few_processes() {
    let fpm = Php::start(2, SCRIPT).await;
    let nginx = php(&fpm, 4).await;
    let nginx = &nginx;
    join_all((0..20_usize).map(async |client_number| {
        let client = client();
        for n in 0..20 {
            let length = client_number * 1000 + n;
            let body = get_ok(&client, &nginx.url(&format!("/index.php?ms=1&n={length}"))).await;
            assert_eq!(body.len(), length);
        }
    }))
    .await;
}

/// A client that leaves frees the process, and the next request is not mixed up with it.
#[tokio::test]
async fn php_clients_that_leave() {
    let fpm = Php::start(4, SCRIPT).await;
    let nginx = php(&fpm, 1).await;
    let client = client();
    let nginx = &nginx;
    for round in 0..10 {
        let leave = join_all((0..3).map(async |_| {
            let request = client.get(nginx.url("/index.php?ms=300&n=100000"));
            let answer = request
                .timeout(std::time::Duration::from_millis(50))
                .send()
                .await;
            assert!(answer.is_err(), "answered within 50 ms");
        }));
        let url = nginx.url("/index.php?n=12345");
        let stay = get(&client, &url);
        let (_, response) = tokio::join!(leave, stay);
        assert_eq!(response.status().as_u16(), 200, "round {round}");
        assert_eq!(response.bytes().await.expect("the body").len(), 12345);
    }
}
