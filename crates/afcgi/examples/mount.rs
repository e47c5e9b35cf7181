//! An axum application that answers `/health` itself and leaves everything else to a FastCGI
//! application, WebSockets included:
//!
//! ```text
//! cargo run -p afcgi --example mount -- 127.0.0.1:8080 127.0.0.1:5000
//! ```

use std::net::SocketAddr;

use afcgi::RemoteAddr;
use afcgi::client::{Client, remove_hop_by_hop};
use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::routing::get;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(application)) = (arguments.next(), arguments.next()) else {
        return Err("usage: mount LISTEN APPLICATION".into());
    };
    let client = Client::balanced([application.as_str()])?;
    let router = Router::new()
        .route("/health", get(async || "ok"))
        .fallback_service(client.into_service())
        .layer(from_fn(remote_addr));
    let listener = tokio::net::TcpListener::bind(&listen).await?;
    println!("http://{}/", listener.local_addr()?);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await?;
    Ok(())
}

/// Tells the application who asks: REMOTE_ADDR and REMOTE_PORT. The outermost layer is the place to remove what is about the
/// client's connection.
async fn remote_addr(
    ConnectInfo(addr): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> axum::response::Response {
    remove_hop_by_hop(request.headers_mut());
    request.extensions_mut().insert(RemoteAddr(addr));
    next.run(request).await
}
