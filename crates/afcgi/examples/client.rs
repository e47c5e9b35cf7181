//! Asks a FastCGI application for a path, as `curl` would ask an HTTP server:
//!
//! ```text
//! cargo run -p afcgi --example client -- 127.0.0.1:5000 /hello
//! ```

use std::io::Write;

use afcgi::client::Client;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: client ADDRESS PATH".into());
    };
    let client = Client::connect(&address).await?;
    let request = http::Request::get(format!("http://localhost{path}"));
    let response = client.request(request.body(Empty::<Bytes>::new())?).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", response.status())?;
    for (name, value) in response.headers() {
        writeln!(out, "{name}: {}", value.as_bytes().escape_ascii())?;
    }
    writeln!(out)?;
    let mut body = response.into_body();
    // As it comes: an event stream never ends.
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            out.write_all(&data)?;
            out.flush()?;
        }
    }
    Ok(())
}
