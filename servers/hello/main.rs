//! `hello [ADDR]`: the smallest server. Any axum `Router` or tower service takes the place of `app`.

use afcgi::Listener;
use axum::{Router, routing::get};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:5000");
    let app = Router::new()
        .route("/", get(async || "Hello world\n"))
        .fallback(async |uri: http::Uri| format!("Hello {}\n", uri.path()));
    afcgi::serve(Listener::bind(address)?, app).await
}
