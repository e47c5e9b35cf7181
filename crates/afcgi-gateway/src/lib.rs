//! An HTTP gateway: a web server in front of FastCGI applications. It takes HTTP/1.1 and HTTP/2, and asks the applications by
//! [`afcgi::client`].
//!
//! It has routes, files, TLS, authorizers, filters, WebSockets, early hints, an access log, metrics and reloads. Applications that
//! multiplex get all their requests on one connection. The program `afcgi gateway` is this library with a command line and signals;
//! `docs/gateway.md` describes its configuration and what it does.
//!
//! # A gateway of its own
//!
//! [`Settings`] are read from a configuration file and [`Options`], and [`Gateway`] puts them to work:
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
//!
//! # In the process of the application
//!
//! [`embedded`] is the gateway in front of one application, without files and routes. It is for programs that bring their web server
//! with them, such as `afcgi demo`.
//!
//! # What it leaves to the program
//!
//! The library changes nothing of the process: it handles no signals, raises no limit of open files (each connection of a client is
//! one), and sets up no logging. It reports to [`tracing`]; the access log it writes itself.

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
