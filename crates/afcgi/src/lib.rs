//! FastCGI for web applications with long-lived connections.
//!
//! A web server that multiplexes puts thousands of concurrent requests on one connection to an
//! asynchronous application. This is the application's side: any tower service, an axum `Router`
//! say, is served over FastCGI by [`serve`], and [`Server`] has the rest: several listeners,
//! limits, threads, an orderly stop. [`native`] is for those who want FastCGI itself. [`client`] is the
//! other side: it asks FastCGI applications, and mounts them in axum.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> std::io::Result<()> {
//!     let app = Router::new().route("/", get(|| async { "Hello" }));
//!     afcgi::serve(afcgi::Listener::bind("127.0.0.1:5000")?, app).await
//! }
//! ```
#![forbid(unsafe_code)]

mod address;
pub mod client;
mod clock;
mod http;
pub mod server;

pub use afcgi_proto::inbox::Broken;
pub use afcgi_proto::{Gone, Params, RequestId, Role};

pub use self::address::{Address, AddressError};
pub use self::http::{Body, BodyError, Http, RemoteAddr, http};
pub use self::server::{
    App, AppStatus, Config, InputStream, Listener, OutputStream, Over, ReadError, Request, Server,
    Stats, Stopping, UnixOptions, Upgrades, native, serve,
};
