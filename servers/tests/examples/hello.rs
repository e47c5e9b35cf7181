//! `hello`, directly and behind nginx.

use afcgi_interop::http::{client, get_ok};

use crate::common::{Server, Web};

const HELLO: &str = env!("CARGO_BIN_EXE_hello");

#[tokio::test]
async fn says_hello() {
    let mut server = Server::start(HELLO, &[]).await;
    let mut client = server.client().await;
    assert_eq!(client.get("/").await.text(), "Hello world\n");
    assert_eq!(client.get("/you?x=1").await.text(), "Hello /you\n");
    drop(client);
    assert!(server.process.stop().success());
}

#[tokio::test]
async fn says_hello_behind_nginx() {
    let server = Server::start(HELLO, &[]).await;
    let socket = server.socket();
    let nginx = Web::nginx(&format!(
        "location / {{ fastcgi_pass unix:{}; }}",
        socket.display()
    ))
    .await;
    assert_eq!(get_ok(&client(), &nginx.url("/")).await, "Hello world\n");
}
