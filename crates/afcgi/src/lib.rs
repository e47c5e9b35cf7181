//! FastCGI for web applications with long-lived connections.
//!
//! A web server that multiplexes puts thousands of concurrent requests on one connection to an
//! asynchronous application, instead of a connection, and often a process, for each. This crate has both
//! sides of that, on tokio.
//!
//! # An application
//!
//! Any [tower](https://docs.rs/tower) service, an axum `Router` say, is served over FastCGI:
//!
//! ```no_run
//! # #[cfg(feature = "http")] mod example {
//! use axum::{Router, routing::get};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> std::io::Result<()> {
//!     let app = Router::new().route("/", get(|| async { "Hello" }));
//!     afcgi::serve(afcgi::Listener::bind("127.0.0.1:5000")?, app).await
//! }
//! # }
//! ```
//!
//! [`Server`] has the rest: several listeners, limits, threads, an orderly stop. [`native`] is for
//! applications that speak FastCGI itself: parameters, streams, application status.
//!
//! # A client
//!
//! [`client::Client`] sends HTTP requests to FastCGI applications, such as PHP-FPM.
//! [`client::Client::into_service`] makes one a service that an axum `Router` can mount.
//!
//! ```no_run
//! # #[cfg(feature = "client")] mod example {
//! use afcgi::client::Client;
//! use http_body_util::Empty;
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::connect("127.0.0.1:5000").await?;
//!     let request = http::Request::get("http://localhost/").body(Empty::<&[u8]>::new())?;
//!     let response = client.request(request).await?;
//!     println!("{}", response.status());
//!     Ok(())
//! }
//! # }
//! ```
//!
//! # Features
//!
//! All are on by default.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `server` | the application's side: [`Server`], [`native`] |
//! | `http` | `http::Request` in and `http::Response` out for the server: [`serve()`], [`http()`]; implies `server` |
//! | `systemd` | [`Listener::from_systemd`]; implies `server` |
//! | `client` | the web server's side: [`client`] |
//!
//! # Platforms
//!
//! Linux is what the tests run on. The crate uses what every Unix has: unix sockets, signals, descriptors that were
//! passed. It does not build on Windows.
#![forbid(unsafe_code)]

mod address;
#[cfg(feature = "client")]
pub mod client;
mod clock;
#[cfg(feature = "server")]
pub mod server;
#[cfg(any(feature = "client", feature = "http"))]
mod types;

#[cfg(not(any(feature = "client", feature = "server")))]
compile_error!("the crate afcgi is empty without one of its features `server` and `client`");

pub use afcgi_proto::inbox::Broken;
pub use afcgi_proto::{Gone, Params, RequestId, Role};

pub use self::address::{Address, AddressError};
#[cfg(feature = "http")]
pub use self::server::http::{Body, BodyError, Http, http, serve};
#[cfg(feature = "server")]
pub use self::server::{
    App, AppStatus, Config, InputStream, Listener, OutputStream, Over, ReadError, Request, Server,
    Stats, Stopping, UnixOptions, Upgrades, native,
};
#[cfg(any(feature = "client", feature = "http"))]
pub use self::types::RemoteAddr;
