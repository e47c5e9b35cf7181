//! Hello on tokio-fastcgi, as its simplest example does it (one request after the other on a connection), with
//! TCP_NODELAY, without which each answer waits 40 ms. A task per request would be nearer to what the others do, but
//! panics at 1 × 64 (`A request must not be processed by multiple threads`): its writer is a lock that is only tried.
//! Only a request with QUERY_STRING `ms=N`, to be held, gets its own task.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::net::tcp::OwnedWriteHalf;
use tokio_fastcgi::{Request, RequestResult, Requests};

const STDOUT: &[u8] =
    b"Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n";

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .expect("usage: peer-tokio-fastcgi HOST:PORT");
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut requests = Requests::from_split_socket(stream.into_split(), 255, 255);
            while let Ok(Some(request)) = requests.next().await {
                let delay = request
                    .get_str_param("QUERY_STRING")
                    .and_then(|query| query.strip_prefix("ms="))
                    .and_then(|millis| millis.parse().ok());
                match delay {
                    Some(millis) => {
                        tokio::spawn(request.process(move |request| async move {
                            tokio::time::sleep(Duration::from_millis(millis)).await;
                            hello(request).await
                        }));
                    }
                    None if request.process(hello).await.is_err() => return,
                    None => {}
                }
            }
        });
    }
}

async fn hello(request: Arc<Request<OwnedWriteHalf>>) -> RequestResult {
    match request.get_stdout().write(STDOUT).await {
        Ok(_) => RequestResult::Complete(0),
        Err(_) => RequestResult::Complete(1),
    }
}
