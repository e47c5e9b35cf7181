//! What a command line says, or whoever starts a gateway: it goes before what the configuration file says.

use std::path::PathBuf;

use afcgi::Address;

use super::network::Network;
use super::values::{LogFormat, Mode};

/// Where the configuration is, and what goes before it. An empty one serves nothing: it takes an application, a root or a file.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// A configuration in TOML.
    pub config: Option<PathBuf>,
    /// Where the application of every path listens; requests are balanced between several addresses.
    pub addresses: Vec<Address>,
    /// A folder of files, and of scripts in PHP if there is an application.
    pub root: Option<PathBuf>,
    /// Where to listen for HTTP.
    pub listen: Vec<Address>,
    /// Where `/metrics` and `/health` are.
    pub admin: Option<Address>,
    /// Who may connect to unix sockets that are listened on.
    pub socket_mode: Option<Mode>,
    /// A certificate, with those of its issuers behind it, and its private key, both in PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The access log, a file; `-` is standard output.
    pub access_log: Option<PathBuf>,
    /// How the access log is written.
    pub log_format: Option<LogFormat>,
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<Network>,
}
