//! The text of a script is never sent, by whatever path its file is found.

use std::path::Path;

use afcgi_interop::http::{client, get};
use afcgi_interop::php::Php;
use axum::Router;
use axum::routing::any;
use http::Uri;

use crate::rig::Rig;
use crate::routes::app;

const SECRET: &str =
    "<?php /* s3cret */ echo 'ran ', $_SERVER['SCRIPT_NAME'], ' ', $_SERVER['PATH_INFO'] ?? '';";

/// A raw request for a path, as it stands.
async fn ask(rig: &Rig, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    rig.raw(request.as_bytes()).await
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap_or_default().1
}

async fn fpm() -> Php {
    let files = [
        "index.php",
        "lib.php/config.php",
        "lib.php/index.php",
        "lib.php/deep.php/index.php",
        "a.php",
        "UPPER.PHP",
        "dir.PHP/Low.PhP",
        "view.phtml",
        "odd.php.",
        "odd.php ",
    ];
    let mut files: Vec<_> = files.iter().map(|&name| (name, SECRET)).collect();
    files.push(("lib.php/readme.txt", "readme"));
    files.push(("lib.php/deep.php/a.txt", "deep"));
    let fpm = Php::start_with(2, "", &files).await;
    let link = |from: &str, to: &str| {
        std::os::unix::fs::symlink(to, Path::new(&fpm.root()).join(from)).unwrap();
    };
    link("linked.txt", "a.php");
    link("linked-folder", "lib.php");
    link("folder.txt", "lib.php/deep.php");
    fpm
}

#[tokio::test]
async fn what_is_found_decides() {
    let fpm = fpm().await;
    let rig = Rig::flags(&[&format!("127.0.0.1:{}", fpm.port()), "--root", &fpm.root()]).await;
    for (path, expected) in [
        ("/lib.php/config.php", "ran /lib.php/config.php "),
        ("/lib.php/config.php/x", "ran /lib.php/config.php /x"),
        ("/lib.php/", "ran /lib.php/index.php "),
        ("/lib.php/deep.php/", "ran /lib.php/deep.php/index.php "),
        (
            "/lib.php/deep.php/index.php/i.php",
            "ran /lib.php/deep.php/index.php /i.php",
        ),
        ("/lib%2ephp/config%2Ephp", "ran /lib.php/config.php "),
        ("/%6cib.php//config.php", "ran /lib.php/config.php "),
        ("/lib.php%2fconfig.php", "ran /lib.php/config.php "),
        ("/lib.php/./config.php", "ran /lib.php/config.php "),
        (
            "/linked-folder/config.php",
            "ran /linked-folder/config.php ",
        ),
        ("/linked-folder/", "ran /linked-folder/index.php "),
        ("/folder.txt/", "ran /folder.txt/index.php "),
        ("/a.php/b.php", "ran /a.php /b.php"),
        ("/a.php/", "ran /a.php /"),
        (
            "/a.php/lib.php/config.php",
            "ran /a.php /lib.php/config.php",
        ),
        // What is not there, or not to be sent, is for the front controller.
        ("/lib.php/no.php", "ran /index.php "),
        ("/lib.php/readme.txt/x.php", "ran /index.php "),
        ("/view.phtml", "ran /index.php "),
        ("/odd.php.", "ran /index.php "),
        ("/odd.php%20", "ran /index.php "),
        ("/odd.php%2e/x", "ran /index.php "),
        ("/linked.txt", "ran /index.php "),
        // What is no script is sent as ever.
        ("/lib.php/readme.txt", "readme"),
        ("/lib.php/deep.php/a.txt", "deep"),
    ] {
        let answer = ask(&rig, path).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n"),
            "{path}: {answer}"
        );
        assert_eq!(body(&answer), expected, "{path}");
    }
    // Whether these run is up to PHP-FPM, which goes by its own list of endings.
    for path in [
        "/UPPER.PHP",
        "/dir.PHP/Low.PhP",
        "/UPPER.PHP/a.txt",
        "/DIR.php/low.php",
    ] {
        let answer = ask(&rig, path).await;
        assert!(!answer.contains("s3cret"), "{path}: {answer}");
    }
    rig.logs(&["WARN", "linked.txt", "send_scripts"]).await;
}

/// A folder of files alone does not give away what is below it.
#[tokio::test]
async fn no_application_runs_them() {
    let fpm = fpm().await;
    let root = fpm.root();
    let rig = Rig::flags(&["--root", &root]).await;
    for path in [
        "/a.php",
        "/a.php/",
        "/lib.php/config.php",
        "/lib.php/",
        "/UPPER.PHP",
        "/dir.PHP/Low.PhP",
        "/view.phtml",
        "/odd.php.",
        "/odd.php%20",
        "/linked.txt",
        "/linked-folder/config.php",
    ] {
        let answer = ask(&rig, path).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    rig.logs(&["WARN", "config.php", "send_scripts"]).await;
    assert_eq!(body(&ask(&rig, "/lib.php/readme.txt").await), "readme");
    // An operator may want it so.
    let rig = Rig::config(&format!(
        "[[route]]\nroot = \"{root}\"\nsend_scripts = true"
    ))
    .await;
    for path in [
        "/a.php",
        "/lib.php/config.php",
        "/view.phtml",
        "/linked.txt",
    ] {
        assert_eq!(body(&ask(&rig, path).await), SECRET, "{path}");
    }
}

/// What one route runs another does not send: as a file, or in place of a response.
#[tokio::test]
async fn other_routes_do_not_send_them() {
    let fpm = fpm().await;
    let root = fpm.root();
    std::fs::write(Path::new(&root).join("b.inc"), SECRET).unwrap();
    let private = tempfile::tempdir().unwrap();
    std::fs::write(private.path().join("upload.php"), SECRET).unwrap();
    let port = app(Router::new().fallback(any(async |uri: Uri| {
        let path = uri.path().trim_start_matches("/send").to_owned();
        let name = match path.starts_with("/srv/") {
            true => "x-accel-redirect",
            false => "x-sendfile",
        };
        [(name, path)]
    })))
    .await;
    let config = |more: &str| {
        format!(
            "[upstream.php]\naddresses = [\"127.0.0.1:{}\"]\n[upstream.app]\naddresses = [\"127.0.0.1:{port}\"]\n\
             [[route]]\nupstream = \"php\"\nroot = \"{root}\"\nsplit_path = [\".php\", \".inc\"]\n\
             [[route]]\npath = \"/files\"\nroot = \"{root}\"\nstrip = true\n{more}\n\
             [[route]]\npath = \"/send\"\nupstream = \"app\"\n{more}\n\
             sendfile = {{ \"/srv/root/\" = \"{root}\", \"/srv/private/\" = \"{}\" }}",
            fpm.port(),
            private.path().display()
        )
    };
    let rig = Rig::config(&config("")).await;
    for path in [
        "/files/a.php".to_owned(),
        "/files/lib.php/config.php".to_owned(),
        "/files/b.inc".to_owned(),
        "/send/srv/root/a.php".to_owned(),
        "/send/srv/root/b.inc".to_owned(),
        "/send/srv/root/linked.txt".to_owned(),
        format!("/send{root}/lib.php/config.php"),
    ] {
        let answer = ask(&rig, &path).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        assert!(!answer.contains("s3cret"), "{path}: {answer}");
    }
    // A folder that is for such files and no root has what users have put there.
    let upload = format!("/send{}/upload.php", private.path().display());
    for path in ["/send/srv/private/upload.php", &upload] {
        let answer = get(&client(), &rig.url(path)).await;
        assert_eq!(answer.text().await.unwrap(), SECRET, "{path}");
    }
    let rig = Rig::config(&config("send_scripts = true")).await;
    for path in ["/files/b.inc", "/send/srv/root/a.php"] {
        assert_eq!(body(&ask(&rig, path).await), SECRET, "{path}");
    }
}
