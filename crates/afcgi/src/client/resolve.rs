//! Where an address leads: one socket address, a path, or all those that a name has.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

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

type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// What looks names up.
#[derive(Clone, Default)]
pub(super) enum Resolver {
    #[default]
    System,
    Own(Arc<dyn Fn(String, u16) -> Lookup + Send + Sync>),
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Own(_) => "Own",
        })
    }
}

impl Resolver {
    pub(super) fn own<F, R>(resolver: F) -> Self
    where
        F: Fn(String, u16) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        Self::Own(Arc::new(move |host, port| Box::pin(resolver(host, port))))
    }

    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => Ok(tokio::net::lookup_host((host, port)).await?.collect()),
            Self::Own(resolver) => resolver(host.to_owned(), port).await,
        }
    }
}

/// The targets of an address, `most` at most.
pub(super) async fn targets(
    address: &Address,
    resolver: &Resolver,
    wait: Duration,
    most: usize,
) -> Result<Vec<Target>, Error> {
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
    let found = match host.parse() {
        Ok(ip) => Ok(vec![SocketAddr::new(ip, port)]),
        Err(_) => tokio::time::timeout(wait, resolver.look_up(host, port))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
    };
    for addr in found.map_err(failed)? {
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
