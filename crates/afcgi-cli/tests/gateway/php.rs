//! An application in PHP, served with two flags: a front controller, scripts, PATH_INFO, uploads, sessions and files.

use afcgi_interop::http::{client, get, get_ok, noise};
use afcgi_interop::php::Php;
use futures_util::future::join_all;

use crate::rig::Rig;

const INDEX: &str = r#"<?php
if (isset($_GET['upload'])) {
    $file = $_FILES['file'];
    echo $file['name'], ' ', $file['size'], ' ', md5_file($file['tmp_name']), ' ', $_POST['title'];
    exit;
}
if (isset($_GET['count'])) { session_start(); $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; echo $_SESSION['n']; exit; }
if (isset($_GET['go'])) { header('Location: /elsewhere'); exit; }
if (isset($_GET['ms'])) { usleep(1000 * (int) $_GET['ms']); }
foreach (['SCRIPT_NAME', 'PATH_INFO', 'REQUEST_URI', 'SCRIPT_FILENAME', 'DOCUMENT_ROOT', 'PHP_SELF', 'QUERY_STRING'] as $name) {
    echo $name, '=', $_SERVER[$name] ?? '', "\n";
}
"#;

async fn start() -> (Rig, Php) {
    let fpm = Php::start_with(
        4,
        "php_admin_value[session.save_path] = /tmp",
        &[
            ("index.php", INDEX),
            (
                "other.php",
                "<?php echo 'other ', $_SERVER['PATH_INFO'] ?? '';",
            ),
            ("blog/index.php", "<?php echo 'blog';"),
            ("UPPER.PHP", "<?php echo 'upper';"),
            ("style.css", "css"),
            (".secret.php", "<?php echo 'secret';"),
        ],
    )
    .await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", fpm.port()), "--root", &fpm.root()]).await;
    (rig, fpm)
}

async fn text(rig: &Rig, path: &str) -> String {
    String::from_utf8_lossy(&get_ok(&client(), &rig.url(path)).await).into_owned()
}

#[tokio::test]
async fn paths() {
    let (rig, fpm) = start().await;
    let root = fpm.root();
    let front = |uri: &str, info: &str, query: &str| {
        format!(
            "SCRIPT_NAME=/index.php\nPATH_INFO={info}\nREQUEST_URI={uri}\nSCRIPT_FILENAME={root}/index.php\nDOCUMENT_ROOT={root}\n\
             PHP_SELF=/index.php{info}\nQUERY_STRING={query}\n"
        )
    };
    for (path, info, query) in [
        ("/", "", ""),
        ("/2024/11/a-post/?page=2", "", "page=2"),
        ("/index.php/a/b?c", "/a/b", "c"),
        ("/no/such.php", "", ""),
        ("/.secret.php", "", ""),
        ("/style.css/x.php", "", ""),
    ] {
        assert_eq!(text(&rig, path).await, front(path, info, query), "{path}");
    }
    assert_eq!(text(&rig, "/other.php").await, "other ");
    assert_eq!(text(&rig, "/other.php/some/info").await, "other /some/info");
    assert_eq!(text(&rig, "/blog/").await, "blog");
    assert_eq!(text(&rig, "/style.css").await, "css");
    // Its source is never sent: PHP-FPM refuses to run it, or runs it.
    let upper = get(&client(), &rig.url("/UPPER.PHP"))
        .await
        .text()
        .await
        .unwrap();
    assert!(!upper.contains("<?php"), "{upper}");
    assert_eq!(get(&client(), &rig.url("/blog")).await.status(), 301);
    let redirected = get(&client(), &rig.url("/?go")).await;
    assert_eq!(
        (
            redirected.status().as_u16(),
            &redirected.headers()["location"]
        ),
        (302, &"/elsewhere".parse().unwrap())
    );
}

#[tokio::test]
async fn uploads_and_sessions() {
    let (rig, _fpm) = start().await;
    let client = client();
    let content = noise(1_500_000, 3);
    let mut body = b"--b\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nA title\r\n\
        --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n"
        .to_vec();
    body.extend_from_slice(&content);
    body.extend_from_slice(b"\r\n--b--\r\n");
    let request = client
        .post(rig.url("/?upload"))
        .header("content-type", "multipart/form-data; boundary=b")
        .body(body);
    let response = request.send().await.unwrap().text().await.unwrap();
    assert!(
        response.starts_with("a.bin 1500000 ") && response.ends_with(" A title"),
        "{response}"
    );
    let first = get(&client, &rig.url("/?count")).await;
    let cookie = first.headers()["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    assert_eq!(first.text().await.unwrap(), "1");
    for expected in ["2", "3"] {
        let request = client.get(rig.url("/?count")).header("cookie", &cookie);
        assert_eq!(
            request.send().await.unwrap().text().await.unwrap(),
            expected
        );
    }
}

/// More requests than processes wait for their turn.
#[tokio::test]
async fn many_at_a_time() {
    let (rig, _fpm) = start().await;
    let client = client();
    let answers = join_all((0..60).map(|n| {
        let (client, url) = (client.clone(), rig.url(&format!("/post/{n}?ms=20")));
        async move { get_ok(&client, &url).await }
    }))
    .await;
    for (n, answer) in answers.iter().enumerate() {
        let answer = String::from_utf8_lossy(answer);
        assert!(
            answer.contains(&format!("REQUEST_URI=/post/{n}?ms=20\n")),
            "{answer}"
        );
    }
}
