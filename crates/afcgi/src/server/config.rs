//! The limits of a server.

use std::net::IpAddr;
use std::time::Duration;

use afcgi_proto::Values;
use afcgi_proto::app;

use super::upgrade::Upgrades;

/// The limits of a server, all of them enforced, and those that GET_VALUES asks for advertised
///
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Connections at a time, on all listeners together. For a further one the connection makes room that has
    /// been idle longest: it has no request that is complete, no response that is to be sent, and has been so for
    /// a tenth of a second at least. Where there is none the further one is closed at once. Default: 1024.
    pub max_connections: usize,
    /// Requests at a time, on all connections together; a further one is refused with OVERLOADED,
    /// so that the web server may try elsewhere. Default: 65536.
    pub max_requests: usize,
    /// The limits of one connection. Its `values` are set by the server.
    pub connection: app::Config,
    /// Bytes of request bodies that are held beyond `connection.stdin_buffer` on all connections together, each
    /// of which is bounded by `connection.overflow`. Default: 64 MiB.
    pub overflow_total: usize,
    /// How long the socket of a connection may take nothing while there is output for it, before
    /// the connection is given up. Default: 60 s.
    pub send_timeout: Duration,
    /// How long a connection that is to be closed is read on when its web server still sends a body that nobody
    /// wants: closed at once it would be reset, and the response might be lost. What comes is dropped.
    /// Default: 10 s.
    pub linger_time: Duration,
    /// Bytes that such a connection may still send. Default: 64 MiB.
    pub linger_bytes: usize,
    /// How long active requests may go on after the server was asked to stop. Default: 30 s.
    pub drain_timeout: Duration,
    /// Which requests may become tunnels (`docs/upgrade.md`). Default: those that the web server
    /// offers it for.
    pub upgrades: Upgrades,
    /// The addresses that may connect; any other peer is closed at once, one on a unix socket too
    /// . `None`: all. Default: what `FCGI_WEB_SERVER_ADDRS` says in the environment.
    pub web_server_addrs: Option<Vec<IpAddr>>,
    /// The users, by number, that may connect to a unix socket, beside root and the server's own.
    /// `None`: all that the socket's mode lets in. Default: `None`.
    pub unix_peer_uids: Option<Vec<u32>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_requests: 65_536,
            connection: app::Config::default(),
            overflow_total: 64 * 1024 * 1024,
            send_timeout: Duration::from_secs(60),
            linger_time: Duration::from_secs(10),
            linger_bytes: 64 * 1024 * 1024,
            drain_timeout: Duration::from_secs(30),
            upgrades: Upgrades::default(),
            web_server_addrs: std::env::var("FCGI_WEB_SERVER_ADDRS")
                .ok()
                .map(|list| parse_addrs(&list)),
            unix_peer_uids: None,
        }
    }
}

impl Config {
    /// The limits of a connection, with the values that it advertises.
    pub(crate) fn for_connections(&self) -> app::Config {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut config = self.connection.clone();
        config.values = Values {
            max_conns: Some(number(self.max_connections)),
            max_reqs: Some(number(self.max_requests)),
            mpxs_conns: Some(config.requests > 1),
            flow_control: None,
            upgrade: (self.upgrades != Upgrades::Never).then_some(true),
        };
        config
    }
}

/// Reads a comma-separated list of addresses. What is no address lets nobody in, and is logged.
fn parse_addrs(list: &str) -> Vec<IpAddr> {
    let entries = list.split(',').map(str::trim).filter(|s| !s.is_empty());
    entries
        .filter_map(|entry| {
            let address = entry.parse();
            if address.is_err() {
                tracing::warn!(
                    entry,
                    "FCGI_WEB_SERVER_ADDRS holds something that is no IP address"
                );
            }
            address.ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r34_list_of_addresses() {
        let addrs = parse_addrs("127.0.0.1, ::1,,nonsense");
        let expected: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(addrs, expected);
    }

    #[test]
    fn r40_limits_are_advertised_as_they_are() {
        let config = Config {
            max_connections: 7,
            max_requests: 9,
            ..Config::default()
        };
        let values = config.for_connections().values;
        assert_eq!(values.max_conns, Some(7));
        assert_eq!(values.max_reqs, Some(9));
        assert_eq!(values.mpxs_conns, Some(true));
        for (upgrades, expected) in [
            (Upgrades::Never, None),
            (Upgrades::Offered, Some(true)),
            (Upgrades::ByHeader, Some(true)),
        ] {
            let config = Config {
                upgrades,
                ..Config::default()
            };
            assert_eq!(config.for_connections().values.upgrade, expected);
        }
    }
}
