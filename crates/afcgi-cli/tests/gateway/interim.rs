//! Interim responses, 103 Early Hints above all: they come before the response, in order, and to those who understand them.

use std::sync::Arc;

use afcgi::{Listener, Request, Server};
use afcgi_interop::wait::SOON;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::rig::Rig;

const HINT: &str = "Status: 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: close\r\nContent-Length: 3\r\n\r\n";
/// As it comes by HTTP/1.1.
const HINTED: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
const LARGE: usize = 1 << 20;

/// An application that sends a hint, waits for the word, and responds. At `/all` it sends everything at once, and more than hints, before a
/// megabyte; at `/echo` it gives back what it was sent.
pub(crate) async fn app(word: &Arc<Semaphore>) -> u16 {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let word = Arc::clone(word);
    let app = afcgi::native(move |request: Request| {
        let word = Arc::clone(&word);
        async move {
            let mut stdout = request.stdout();
            match request.params().get("REQUEST_URI").unwrap_or_default() {
                b"/all" => {
                    let others = "Status: 100 Continue\r\n\r\nStatus: 199\r\nX: y\r\n\r\n";
                    let head = "Content-Type: text/plain\r\nContent-Length: 1048576\r\n\r\n";
                    let all = [HINT, others, HINT, head, &"x".repeat(LARGE)].concat();
                    stdout.write(all.as_bytes()).await?;
                }
                b"/endless" => while stdout.write(HINT.as_bytes()).await.is_ok() {},
                b"/tunnel" => {
                    let head = "Status: 101\r\nUpgrade: words\r\n\r\nwelcome";
                    stdout.write([HINT, head].concat().as_bytes()).await?;
                }
                b"/echo" => {
                    stdout.write(HINT.as_bytes()).await?;
                    stdout.flush().await?;
                    stdout.write(b"Content-Type: text/plain\r\n\r\n").await?;
                    let mut stdin = request.stdin();
                    while let Some(piece) = stdin.read().await? {
                        stdout.write(&piece).await?;
                    }
                }
                _ => {
                    stdout.write(HINT.as_bytes()).await?;
                    stdout.flush().await?;
                    word.acquire().await.unwrap().forget();
                    stdout
                        .write(b"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
                        .await?;
                }
            }
            std::io::Result::Ok(())
        }
    });
    tokio::spawn(Server::new().listen(listener).serve(app));
    port
}

async fn rig() -> (Rig, Arc<Semaphore>) {
    let word = Arc::new(Semaphore::new(0));
    let port = app(&word).await;
    (Rig::flags(&[&format!("127.0.0.1:{port}")]).await, word)
}

async fn connect(rig: &Rig) -> TcpStream {
    TcpStream::connect(("127.0.0.1", rig.port)).await.unwrap()
}

/// Reads to the end of a head.
async fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(SOON, reading).await.unwrap();
    String::from_utf8(head).unwrap()
}

async fn content(socket: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut content = vec![0; length];
    let reading = socket.read_exact(&mut content);
    tokio::time::timeout(SOON, reading).await.unwrap().unwrap();
    content
}

#[tokio::test]
async fn a_hint_comes_before_there_is_a_response() {
    let (rig, word) = rig().await;
    let mut socket = connect(&rig).await;
    for _ in 0..2 {
        socket
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(head(&mut socket).await, HINTED);
        word.add_permits(1);
        let last = head(&mut socket).await;
        assert!(last.starts_with("HTTP/1.1 200 OK\r\n"), "{last}");
        assert_eq!(content(&mut socket, 5).await, b"hello");
    }
}

/// A client that has asked for much before it reads: hints never get into a response.
#[tokio::test]
async fn hints_keep_their_order() {
    const REQUESTS: usize = 20;
    let (rig, _word) = rig().await;
    let mut socket = connect(&rig).await;
    let request = b"GET /all HTTP/1.1\r\nHost: x\r\n\r\n".repeat(REQUESTS);
    socket.write_all(&request).await.unwrap();
    for _ in 0..REQUESTS {
        assert_eq!(head(&mut socket).await, HINTED);
        assert_eq!(head(&mut socket).await, "HTTP/1.1 199 \r\nx: y\r\n\r\n");
        assert_eq!(head(&mut socket).await, HINTED);
        let last = head(&mut socket).await;
        assert!(last.starts_with("HTTP/1.1 200 OK\r\n"), "{last}");
        assert_eq!(content(&mut socket, LARGE).await, vec![b'x'; LARGE]);
    }
}

#[tokio::test]
async fn beside_100_continue() {
    let (rig, _word) = rig().await;
    let mut socket = connect(&rig).await;
    let asks = b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n";
    socket.write_all(asks).await.unwrap();
    let mut heads = [head(&mut socket).await, head(&mut socket).await];
    heads.sort();
    assert_eq!(heads, ["HTTP/1.1 100 Continue\r\n\r\n", HINTED]);
    socket.write_all(b"body").await.unwrap();
    let last = head(&mut socket).await;
    assert!(last.starts_with("HTTP/1.1 200 OK\r\n"), "{last}");
    let mut rest = Vec::new();
    let reading = socket.read_to_end(&mut rest);
    tokio::time::timeout(SOON, reading).await.unwrap().unwrap();
    assert!(rest.windows(4).any(|window| window == b"body"), "{rest:?}");
}

/// HTTP/1.0 has no interim responses.
#[tokio::test]
async fn not_to_old_clients() {
    let (rig, word) = rig().await;
    word.add_permits(1);
    let answer = rig.raw(b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(!answer.contains("103"), "{answer}");
}

/// What an authorizer says is not for the client.
#[tokio::test]
async fn not_from_an_authorizer() {
    let word = Arc::new(Semaphore::new(2));
    let port = app(&word).await;
    let config = format!(
        "[upstream.a]\naddresses = [\"127.0.0.1:{port}\"]\n[[route]]\nupstream = \"a\"\nauthorizer = \"a\""
    );
    let rig = Rig::config(&config).await;
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = rig.raw(request).await;
    assert_eq!(answer.matches("103 Early Hints").count(), 1, "{answer}");
    assert!(answer.ends_with("hello"), "{answer}");
}

/// All heads of a request share one limit, so an application that never comes to its response is at fault.
#[tokio::test]
async fn without_end() {
    let (rig, _word) = rig().await;
    let request = b"GET /endless HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = rig.raw(request).await;
    let hints = answer.matches(HINTED).count();
    assert!((1..=256).contains(&hints), "{hints}");
    let last = &answer[hints * HINTED.len()..];
    assert!(last.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{last}");
    rig.logs(&["no response", "/endless"]).await;
}

#[tokio::test]
async fn before_what_has_no_body() {
    let (rig, _word) = rig().await;
    let mut socket = connect(&rig).await;
    let asks = b"HEAD /all HTTP/1.1\r\nHost: x\r\n\r\n";
    socket.write_all(asks).await.unwrap();
    for begins in [HINTED, "HTTP/1.1 199 ", HINTED, "HTTP/1.1 200 OK\r\n"] {
        let found = head(&mut socket).await;
        assert!(found.starts_with(begins), "{found}");
    }
    let asks = b"GET /tunnel HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: words\r\n\r\n";
    socket.write_all(asks).await.unwrap();
    assert_eq!(head(&mut socket).await, HINTED);
    let last = head(&mut socket).await;
    assert!(
        last.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{last}"
    );
    assert_eq!(content(&mut socket, 7).await, b"welcome");
}
