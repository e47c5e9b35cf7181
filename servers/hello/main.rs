//! `hello [ADDR]`: the smallest server. Any axum `Router` or tower service takes the place of `app`.

use std::process::ExitCode;

use afcgi::{Address, Listener, UnixOptions};
use axum::{Router, routing::get};
use clap::Parser;

/// Says hello: the smallest FastCGI server.
#[derive(Debug, Parser)]
#[command(name = "hello", version)]
struct Arguments {
    /// Where to listen: HOST:PORT, *:PORT, :PORT, unix:PATH or a path with a `/`
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:5000")]
    address: Address,
}

#[tokio::main(flavor = "current_thread")]
async fn serve(arguments: Arguments) -> std::io::Result<()> {
    let app = Router::new()
        .route("/", get(async || "Hello world\n"))
        .fallback(async |uri: http::Uri| format!("Hello {}\n", uri.path()));
    let listener = Listener::bind_with(&arguments.address, UnixOptions::default())?;
    afcgi::serve(listener, app).await
}

fn main() -> ExitCode {
    afcgi_servers::main(serve)
}
