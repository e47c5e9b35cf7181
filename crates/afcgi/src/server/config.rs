//! The limits of a server.

use std::net::IpAddr;
use std::time::Duration;

use afcgi_proto::Values;
use afcgi_proto::app;

use super::upgrade::Upgrades;

/// The limits of a server. The server enforces all of them, and advertises those that GET_VALUES asks for
///
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Maximum connections on all listeners together. At the limit, a new connection replaces the one that has
    /// been idle longest. A connection is idle if it has had no complete request and no pending response for at
    /// least a tenth of a second. If none is idle, the server closes the new one at once. Default: 1024.
    pub max_connections: usize,
    /// Maximum concurrent requests on all connections together. The server refuses further requests with
    /// OVERLOADED, so that the web server may try elsewhere. Default: 65536.
    pub max_requests: usize,
    /// The limits of one connection. The server sets its `values`.
    pub connection: app::Config,
    /// Maximum bytes of request bodies that are held beyond `connection.stdin_buffer`, on all connections
    /// together. `connection.overflow` is the limit for each connection. Default: 64 MiB.
    pub overflow_total: usize,
    /// How long the web server may read nothing from a connection while there is output for it, before
    /// the server gives up the connection. Default: 60 s.
    pub send_timeout: Duration,
    /// How long the server reads and drops the rest of an unwanted request body before it closes the connection.
    /// If it closed the connection at once, the connection would be reset, and the response might be lost.
    /// Default: 10 s.
    pub linger_time: Duration,
    /// Maximum bytes that the server reads and drops in this way. Default: 64 MiB.
    pub linger_bytes: usize,
    /// How long active requests may continue after the server was asked to stop. Default: 30 s.
    pub drain_timeout: Duration,
    /// Which requests may become tunnels (`docs/upgrade.md`). Default: those for which the web server
    /// offers it.
    pub upgrades: Upgrades,
    /// The addresses that may connect. The server closes any other connection at once, including those on a
    /// unix socket. `None`: all. Default: the list in the environment variable
    /// `FCGI_WEB_SERVER_ADDRS`, if it is set.
    pub web_server_addrs: Option<Vec<IpAddr>>,
    /// The numeric ids of the users that may connect to a unix socket, in addition to root and the server's
    /// own user. `None`: all users that the mode of the socket allows. Default: `None`.
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

/// Parses a comma-separated list of addresses. An invalid address allows nobody, and is logged.
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
