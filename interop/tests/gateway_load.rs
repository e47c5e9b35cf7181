//! Ten thousand long polls through the gateway of this project, at one time and on one FastCGI connection.

use std::time::{Duration, Instant};

use afcgi_interop::app::App;
use afcgi_interop::gateway::Gateway;
use afcgi_interop::gateway::Kind;
use afcgi_interop::http::client;
use afcgi_interop::suite::Rig;
use afcgi_interop::wait::eventually;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CLIENTS: usize = 10_000;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn ten_thousand_long_polls() {
    let most = getrlimit(Resource::Nofile).maximum;
    assert!(
        most.is_none_or(|most| most > CLIENTS as u64 + 500),
        "a limit of {most:?} open files is too low (ulimit -Hn)"
    );
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: most,
            maximum: most,
        },
    )
    .expect("open files");
    let flags = [
        "--max-requests",
        "20000",
        "--max-connection-requests",
        "20000",
    ];
    let app = App::afcgitest(&flags).await;
    let gateway = Gateway::start(Kind::Afcgi, app.port()).await;
    let address = gateway.address().to_owned();
    let mut rig = Rig {
        gateway,
        app,
        client: client(),
    };
    let mut sockets = Vec::with_capacity(CLIENTS);
    let start = Instant::now();
    for _ in 0..CLIENTS {
        let mut socket = TcpStream::connect(&address).await.expect("a connection");
        socket
            .write_all(b"GET /delay?ms=15000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .expect("a request");
        sockets.push(socket);
    }
    let connections = eventually("all are held at once", PATIENCE, || async {
        match (rig.stat("active").await, rig.stat("connections").await) {
            (active, connections) if active > CLIENTS as u64 => Ok(connections),
            (active, _) => Err(format!("{active} are active")),
        }
    })
    .await;
    assert_eq!(connections, 1);
    println!(
        "{CLIENTS} held after {:?}, with {} bytes of memory",
        start.elapsed(),
        rig.gateway.process.resident()
    );
    for mut socket in sockets {
        let mut answer = String::new();
        let read = socket.read_to_string(&mut answer);
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("in time")
            .expect("an answer");
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nHello world\n"),
            "{answer}"
        );
    }
}
