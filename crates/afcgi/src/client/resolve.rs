//! Where an address leads: one socket address, a path, or all those that a name has.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::Error;
use crate::address::Address;

/// What can be connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether the address holds a name, whose meaning may change.
pub(super) fn is_name(address: &Address) -> bool {
    match address {
        Address::Tcp { host, .. } => !host.is_empty() && host.parse::<std::net::IpAddr>().is_err(),
        Address::Unix(_) => false,
    }
}

/// The targets of an address, `most` at most.
pub(super) async fn targets(address: &Address, most: usize) -> Result<Vec<Target>, Error> {
    let (host, port) = match address {
        Address::Unix(path) => return Ok(vec![Target::Unix(path.clone())]),
        Address::Tcp { host, port } if host.is_empty() => {
            let addr = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, *port));
            return Ok(vec![Target::Tcp(addr)]);
        }
        Address::Tcp { host, port } => (host.as_str(), *port),
    };
    let failed = |source: io::Error| Error::Resolve {
        host: host.into(),
        source: Arc::new(source),
    };
    let mut targets = Vec::new();
    for addr in tokio::net::lookup_host((host, port))
        .await
        .map_err(failed)?
    {
        let target = Target::Tcp(addr);
        if !targets.contains(&target) && targets.len() < most.max(1) {
            targets.push(target);
        }
    }
    if targets.is_empty() {
        return Err(failed(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        )));
    }
    Ok(targets)
}
