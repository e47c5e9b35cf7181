//! The gateway within another program: it starts, takes another configuration, and stops.

use std::path::Path;
use std::time::Duration;

use afcgi_gateway::{ConfigError, Gateway, Options, Settings};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// What happens in this time happens, however busy the machine is.
const SOON: Duration = Duration::from_secs(30);

/// A folder with a file in it, and a configuration that serves it on a socket there.
fn site() -> (TempDir, Options) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "a file\n").unwrap();
    let mut options = Options::default();
    let socket = format!("unix:{}", dir.path().join("http.sock").display());
    options.listen.push(socket.parse().unwrap());
    options.config = Some(dir.path().join("gateway.toml"));
    configure(dir.path(), "one");
    (dir, options)
}

fn configure(dir: &Path, name: &str) {
    let text =
        format!("[[route]]\nroot = {dir:?}\nset_response_headers = {{ X-Name = \"{name}\" }}\n");
    std::fs::write(dir.join("gateway.toml"), text).unwrap();
}

async fn get(dir: &Path) -> std::io::Result<String> {
    let mut client = UnixStream::connect(dir.join("http.sock")).await?;
    client
        .write_all(b"GET /a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await?;
    let mut response = String::new();
    client.read_to_string(&mut response).await?;
    Ok(response)
}

#[tokio::test]
async fn from_start_to_stop() {
    let (dir, options) = site();
    let settings = Settings::load(&options).unwrap();
    settings.check().unwrap();
    let mut gateway = Gateway::start(settings).unwrap();
    let response = get(dir.path()).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("x-name: one\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\na file\n"), "{response}");

    configure(dir.path(), "two");
    gateway.reload(Settings::load(&options)).unwrap();
    let response = get(dir.path()).await.unwrap();
    assert!(response.contains("x-name: two\r\n"), "{response}");

    // What cannot be used changes nothing.
    std::fs::write(dir.path().join("gateway.toml"), "[[route]]\n").unwrap();
    let error: ConfigError = gateway.reload(Settings::load(&options)).unwrap_err();
    assert!(error.to_string().contains("gateway.toml:1:1: "), "{error}");
    let response = get(dir.path()).await.unwrap();
    assert!(response.contains("x-name: two\r\n"), "{response}");

    assert!(gateway.stop().await, "nothing was going on");
    assert_eq!(gateway.active(), 0);
    get(dir.path()).await.unwrap_err();
}

#[tokio::test]
async fn the_admin_address_is_bounded_and_ends_with_the_gateway() {
    let (dir, mut options) = site();
    let path = dir.path().join("admin.sock");
    options.admin = format!("unix:{}", path.display()).parse().ok();
    let mut gateway = Gateway::start(Settings::load(&options).unwrap()).unwrap();
    let mut idle = Vec::new();
    for _ in 0..256 {
        idle.push(UnixStream::connect(&path).await.unwrap());
    }
    let mut last = UnixStream::connect(&path).await.unwrap();
    let request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    last.write_all(request).await.unwrap();
    let mut buffer = [0; 1024];
    let early = tokio::time::timeout(Duration::from_millis(50), last.read(&mut buffer)).await;
    assert!(early.is_err(), "one too many is served");
    idle.pop();
    let answer = async |client: &mut UnixStream| {
        let mut buffer = [0; 1024];
        let read = tokio::time::timeout(SOON, client.read(&mut buffer)).await;
        String::from_utf8_lossy(&buffer[..read.unwrap().unwrap()]).into_owned()
    };
    assert!(answer(&mut last).await.ends_with("\r\n\r\nok\n"));
    // It answers while the gateway drains, and when that is dropped it is gone.
    assert!(gateway.stop().await);
    last.write_all(request).await.unwrap();
    assert!(answer(&mut last).await.ends_with("\r\n\r\ndraining\n"));
    drop(gateway);
    assert_eq!(answer(&mut last).await, "");
    UnixStream::connect(&path).await.unwrap_err();
}

#[tokio::test]
async fn a_stop_waits_for_requests_and_their_time() {
    let (dir, mut options) = site();
    // An application that accepts, and says nothing.
    let application = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!(
        "[limits]\ndrain_timeout = \"50ms\"\n[upstream.app]\naddresses = [\"{}\"]\nmultiplex = false\n[[route]]\nupstream = \"app\"\n",
        application.local_addr().unwrap()
    );
    let config = dir.path().join("app.toml");
    std::fs::write(&config, text).unwrap();
    options.config = Some(config);
    let mut gateway = Gateway::start(Settings::load(&options).unwrap()).unwrap();
    let path = dir.path().to_owned();
    let client = tokio::spawn(async move { get(&path).await });
    let _connection = application.accept().await.unwrap();
    let active = async {
        while gateway.active() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, active).await.unwrap();
    assert!(!gateway.stop().await, "the request is not over");
    assert_eq!(gateway.active(), 1);
    client.abort();
}
