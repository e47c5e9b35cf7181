//! A web server in front of FastCGI applications: HTTP/1.1 and HTTP/2 in, FastCGI by [`afcgi::client`] out.
//!
//! It has routes, files, TLS, authorizers, filters, WebSockets, an access log, metrics and reloads. The program `afcgi gateway`
//! is this library with a command line and signals, and `docs/gateway.md` tells what all of it does. Another program may have
//! it inside: [`embedded`] is the gateway in front of one application, [`Gateway`] is all that can be configured.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use afcgi_gateway::{Gateway, Options, Settings};
//!
//! let mut options = Options::default();
//! options.config = Some("gateway.toml".into());
//! let mut gateway = Gateway::start(Settings::load(&options)?)?;
//! tokio::signal::ctrl_c().await?;
//! gateway.stop().await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod admin;
mod answer;
mod ask;
mod client;
mod config;
mod front;
mod gateway;
mod respond;
mod route;
mod say;
mod shared;

pub use config::{ConfigError, LogFormat, Mode, Network, NetworkError, Options, Settings};
pub use gateway::{Gateway, embedded};
