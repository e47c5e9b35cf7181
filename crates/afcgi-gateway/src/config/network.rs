//! Clients that are told by where they connect from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Clients that are told by where they connect from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// One address or a network of them.
    Ip(IpNet),
    /// Whoever connects to a unix socket.
    Unix,
}

/// Why a text is no [`Network`].
#[derive(Debug)]
pub struct NetworkError(String);

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a network: expected an address or a network, such as 192.0.2.1, 10.0.0.0/8 or fd00::/8, or `unix`",
            self.0.escape_debug()
        )
    }
}

impl std::error::Error for NetworkError {}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address
            .or_else(|_| text.parse())
            .map(Self::Ip)
            .map_err(|_| NetworkError(text.to_owned()))
    }
}
