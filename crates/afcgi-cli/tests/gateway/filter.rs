//! Files that go through a filter, the third role of FastCGI: the example `filter`, and others.

use std::fs::FileTimes;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use afcgi::{Listener, Server};
use afcgi_interop::app::App;
use afcgi_interop::http::{assert_same, client, get};
use afcgi_interop::wait::free_port;
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::rig::{Rig, run};

const MODIFIED: &str = "Sun, 09 Sep 2001 01:46:40 GMT";

fn site() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let large = b"All of it, 0 to 9. ".repeat(270_000);
    for (name, content) in [
        ("index.html", &b"<p>home"[..]),
        ("large.txt", &large),
        ("empty.txt", b""),
        ("folder/index.html", b"<p>folder"),
        (".env", b"secret"),
    ] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_times(FileTimes::new().set_modified(modified))
            .unwrap();
    }
    dir
}

/// A gateway with a root whose files go through a filter.
async fn rig(port: u16, root: &Path, of_upstream: &str, of_route: &str) -> Rig {
    Rig::config(&format!(
        "[upstream.upper]\naddresses = [\"127.0.0.1:{port}\"]\n{of_upstream}\n\
         [[route]]\nroot = \"{}\"\nfilter = \"upper\"\n{of_route}\n",
        root.display()
    ))
    .await
}

#[tokio::test]
async fn r55_files_come_back_in_upper_case() {
    let (dir, app) = (site(), App::filter().await);
    let rig = rig(app.port(), dir.path(), "", "").await;
    let client = client();
    let large = std::fs::read(dir.path().join("large.txt")).unwrap();
    assert!(large.len() > 5_000_000);
    let response = get(&client, &rig.url("/large.txt?a=b")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(response.headers()["last-modified"], MODIFIED);
    assert_eq!(
        response.headers()["content-length"],
        large.len().to_string().as_str()
    );
    let body = response.bytes().await.unwrap();
    assert_same("the file", &body, &large.to_ascii_uppercase());
    rig.logs(&["GET /large.txt?a=b", " 200 ", "upstream=\"upper\""])
        .await;
    for (path, status, body) in [
        ("/", 200, "<P>HOME"),
        ("/folder/", 200, "<P>FOLDER"),
        ("/empty.txt", 200, ""),
        ("/no", 404, "404 Not Found\n"),
        ("/.env", 404, "404 Not Found\n"),
    ] {
        let response = get(&client, &rig.url(path)).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.text().await.unwrap(), body, "{path}");
    }
    assert_eq!(get(&client, &rig.url("/folder")).await.status(), 301);
}

/// Ranges are not applied to what a filter makes of a file, and conditions are its affair; so are methods.
#[tokio::test]
async fn r55_conditions_are_for_the_filter() {
    let (dir, app) = (site(), App::filter().await);
    let rig = rig(app.port(), dir.path(), "", "").await;
    let client = client();
    for (since, status, body) in [
        (MODIFIED, 304, ""),
        ("Sat, 08 Sep 2001 01:46:40 GMT", 200, "<P>HOME"),
    ] {
        let request = client.get(rig.url("/")).header("if-modified-since", since);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{since}");
        assert_eq!(response.text().await.unwrap(), body, "{since}");
    }
    // The large one: the filter answers before it has read it.
    let request = client
        .get(rig.url("/large.txt"))
        .header("if-modified-since", MODIFIED);
    assert_eq!(request.send().await.unwrap().status(), 304);
    let request = client.get(rig.url("/")).header("range", "bytes=0-1");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap(), "<P>HOME");
    let length = std::fs::metadata(dir.path().join("large.txt")).unwrap();
    let response = client.head(rig.url("/large.txt")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["content-length"],
        length.len().to_string().as_str()
    );
    let request = client.post(rig.url("/")).body("of the request");
    let response = request.send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "<P>HOME");
    rig.active(0).await;
}

/// Runs a filter in this process; its port.
async fn native<F>(app: impl Fn(afcgi::Request) -> F + Clone + Send + Sync + 'static) -> u16
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server::new().listen(listener).signals(false);
    tokio::spawn(server.serve(afcgi::native(app)));
    port
}

#[tokio::test]
async fn what_a_filter_is_told() {
    let port = native(async |request: afcgi::Request| {
        let mut stdin = request.stdin();
        let mut answer = format!("{:?}\n", request.role()).into_bytes();
        while let Some(piece) = stdin.read().await? {
            answer.extend_from_slice(&piece);
        }
        let params = request.params().iter();
        for (name, value) in params {
            answer.extend_from_slice(&[b"\n", name, b"=", value].concat());
        }
        let head = b"Content-Type: text/plain\r\nX-Accel-Redirect: /etc/passwd\r\n\r\n";
        let mut stdout = request.stdout();
        stdout.write(&[&head[..], &answer].concat()).await?;
        Ok(())
    })
    .await;
    let dir = site();
    let rig = rig(
        port,
        dir.path(),
        "",
        "path = \"/a\"\nstrip = true\nparams = { SITE = \"a\" }",
    )
    .await;
    let request = client()
        .put(rig.url("/a/folder/?x=y"))
        .header("range", "bytes=0-1")
        .header("if-none-match", "\"a\"")
        .header("upgrade", "websocket")
        .header("connection", "upgrade")
        .body("STDIN");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("x-accel-redirect"));
    let told = response.text().await.unwrap();
    let root = dir.path().canonicalize().unwrap();
    let file = root.join("folder/index.html");
    for line in [
        "Filter",
        "STDIN",
        "FCGI_DATA_LENGTH=9",
        "FCGI_DATA_LAST_MOD=1000000000",
        "CONTENT_LENGTH=5",
        "REQUEST_METHOD=PUT",
        "SCRIPT_NAME=",
        "PATH_INFO=/a/folder/",
        "QUERY_STRING=x=y",
        "HTTP_RANGE=bytes=0-1",
        "HTTP_IF_NONE_MATCH=\"a\"",
        "SITE=a",
        &format!("DOCUMENT_ROOT={}", root.display()),
        &format!("PATH_TRANSLATED={}", file.display()),
    ] {
        assert!(told.lines().any(|told| told == line), "{line} in {told}");
    }
    // Nothing that a program might run for it.
    assert!(!told.contains("SCRIPT_FILENAME"), "{told}");
    assert!(!told.contains("UPGRADE"), "{told}");
}

/// What is no file goes where it goes without a filter.
#[tokio::test]
async fn beside_an_application() {
    let (dir, app, upper) = (site(), App::afcgitest(&[]).await, App::filter().await);
    let of_upstream = format!("[upstream.app]\naddresses = [\"127.0.0.1:{}\"]", app.port());
    let of_route = "upstream = \"app\"\nsplit_path = []\nindex = []";
    let rig = rig(upper.port(), dir.path(), &of_upstream, of_route).await;
    let client = client();
    for (path, body) in [("/index.html", "<P>HOME"), ("/x/y", "Hello world\n")] {
        let response = get(&client, &rig.url(path)).await;
        assert_eq!(response.text().await.unwrap(), body, "{path}");
    }
    rig.logs(&["GET /index.html", "upstream=\"upper\""]).await;
    rig.logs(&["GET /x/y", "upstream=\"app\""]).await;
}

#[tokio::test]
async fn one_that_does_not_answer_is_an_error() {
    let dir = site();
    let client = client();
    let down = rig(free_port(), dir.path(), "", "").await;
    assert_eq!(get(&client, &down.url("/")).await.status(), 502);
    down.logs(&["no response", "502", "upstream=upper"]).await;
    assert_eq!(get(&client, &down.url("/no")).await.status(), 404);
    let silent = native(async |request: afcgi::Request| {
        request.over().wait().await;
        Ok(())
    })
    .await;
    let timeouts = "first_byte_timeout = \"50ms\"\nsend_timeout = \"50ms\"";
    let slow = rig(silent, dir.path(), timeouts, "").await;
    for path in ["/", "/large.txt"] {
        assert_eq!(get(&client, &slow.url(path)).await.status(), 504, "{path}");
    }
    // An application that knows no filters refuses, or answers what it likes.
    let odd = native(async |_: afcgi::Request| Ok(())).await;
    let odd = rig(odd, dir.path(), "", "").await;
    assert_eq!(get(&client, &odd.url("/")).await.status(), 502);
}

/// A file that is cut while it is on its way does not end up as a short one that looks whole.
#[tokio::test]
async fn r59_a_file_that_is_cut_breaks_off() {
    let dir = site();
    let path = dir.path().canonicalize().unwrap().join("large.txt");
    let cut = path.clone();
    let has_head = Arc::new(Notify::new());
    let go_on = Arc::clone(&has_head);
    let port = native(move |request: afcgi::Request| {
        let (cut, go_on) = (cut.clone(), Arc::clone(&go_on));
        async move {
            let mut stdout = request.stdout();
            stdout.write(b"Content-Type: text/plain\r\n\r\n").await?;
            let mut data = request.data();
            let mut first = true;
            while let Some(piece) = data.read().await? {
                if std::mem::take(&mut first) {
                    // Before the client has the head it would be a 500.
                    go_on.notified().await;
                    let file = std::fs::File::options().write(true).open(&cut)?;
                    file.set_len(1)?;
                }
                stdout.write(&piece).await?;
            }
            Ok(())
        }
    })
    .await;
    let rig = rig(port, dir.path(), "", "").await;
    let response = get(&client(), &rig.url("/large.txt")).await;
    assert_eq!(response.status(), 200);
    has_head.notify_one();
    response.bytes().await.unwrap_err();
    rig.logs(&["GET /large.txt", " 200 ", "incomplete"]).await;
    assert_eq!(std::fs::metadata(path).unwrap().len(), 1);
}

#[test]
fn a_filter_needs_a_root() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.toml");
    std::fs::write(
        &path,
        "[upstream.a]\naddresses = [\":1\"]\n[[route]]\nfilter = \"a\"\n",
    )
    .unwrap();
    let output = run(&["gateway", "--check", "--config", path.to_str().unwrap()]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("gateway.toml:4:10: `filter` needs a `root`"),
        "{said}"
    );
}
