//! Which requests may become a tunnel (`docs/upgrade.md`).

use afcgi_proto::Params;
use afcgi_proto::upgrade::Head;

/// Whether a server lets requests become tunnels, as WebSocket does (`docs/upgrade.md`).
///
/// As long as a request may be upgraded its STDIN does not end: a handler that reads STDIN to its
/// end before it answers waits for the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Upgrades {
    /// No request, and GET_VALUES is not answered with `FCGI_UPGRADE`.
    Never,
    /// Those that the web server marks with the parameter `FCGI_UPGRADE=1`, which no client can
    /// forge.
    #[default]
    Offered,
    /// Every request with `HTTP_UPGRADE` too: for lighttpd, which tunnels and does not say so. Only
    /// behind web servers that do tunnel: another one would take the answer 101 for a broken
    /// response.
    ByHeader,
}

impl Upgrades {
    /// Whether the parameters are those of a request that may be upgraded: one that the web server marks, or need not, and
    /// that asks for it.
    pub(super) fn offered(self, params: &Params) -> bool {
        let mut offered = self == Self::ByHeader;
        let mut method = &b""[..];
        let (mut is_http_11, mut has_body) = (true, false);
        for (name, value) in params {
            match name {
                b"FCGI_UPGRADE" => offered |= value == b"1",
                b"REQUEST_METHOD" => method = value,
                b"CONTENT_LENGTH" => has_body |= value.iter().any(|&digit| digit != b'0'),
                b"HTTP_TRANSFER_ENCODING" => has_body = true,
                b"SERVER_PROTOCOL" => is_http_11 = value == b"HTTP/1.1",
                _ => {}
            }
        }
        self != Self::Never
            && offered
            && Head {
                method,
                is_http_11,
                has_body,
                connection: values(params, b"HTTP_CONNECTION"),
                upgrade: values(params, b"HTTP_UPGRADE"),
            }
            .asks()
    }
}

fn values<'a>(params: &'a Params, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    params
        .iter()
        .filter_map(move |pair| (pair.0 == name).then_some(pair.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use afcgi_proto::params::encode_pair;

    const ASKS: [(&str, &str); 3] = [
        ("REQUEST_METHOD", "GET"),
        ("HTTP_UPGRADE", "websocket"),
        ("HTTP_CONNECTION", "keep-alive, Upgrade"),
    ];

    fn offered(upgrades: Upgrades, pairs: &[(&str, &str)]) -> bool {
        let mut encoded = Vec::new();
        for (name, value) in pairs {
            assert!(encode_pair(&mut encoded, name.as_bytes(), value.as_bytes()));
        }
        upgrades.offered(&Params::parse(encoded.into(), 100).unwrap())
    }

    #[test]
    fn the_parameter_or_the_header_decides() {
        let marked = [&ASKS[..], &[("FCGI_UPGRADE", "1")]].concat();
        let refused = [&ASKS[..], &[("FCGI_UPGRADE", "0")]].concat();
        let forged = [&ASKS[..], &[("HTTP_FCGI_UPGRADE", "1")]].concat();
        for (upgrades, by_parameter, by_header) in [
            (Upgrades::Never, false, false),
            (Upgrades::Offered, true, false),
            (Upgrades::ByHeader, true, true),
        ] {
            assert_eq!(offered(upgrades, &marked), by_parameter, "{upgrades:?}");
            for pairs in [&ASKS[..], &refused, &forged] {
                assert_eq!(offered(upgrades, pairs), by_header, "{upgrades:?}");
            }
        }
    }

    #[test]
    fn what_has_a_body_or_does_not_ask_is_not_upgraded() {
        for (name, value, expected) in [
            ("CONTENT_LENGTH", "", true),
            ("CONTENT_LENGTH", "0", true),
            ("CONTENT_LENGTH", "10", false),
            ("CONTENT_LENGTH", "x", false),
            ("HTTP_TRANSFER_ENCODING", "chunked", false),
            ("SERVER_PROTOCOL", "HTTP/1.1", true),
            ("SERVER_PROTOCOL", "HTTP/1.0", false),
            ("SERVER_PROTOCOL", "HTTP/2.0", false),
            ("REQUEST_METHOD", "POST", false),
            ("HTTP_UPGRADE", "h2c", false),
        ] {
            let pairs = [&ASKS[..], &[("FCGI_UPGRADE", "1"), (name, value)]].concat();
            assert_eq!(
                offered(Upgrades::default(), &pairs),
                expected,
                "{name}={value}"
            );
        }
        for lacking in ASKS {
            let mut pairs = [&ASKS[..], &[("FCGI_UPGRADE", "1")]].concat();
            pairs.retain(|pair| *pair != lacking);
            assert!(!offered(Upgrades::default(), &pairs), "without {lacking:?}");
            let emptied = (lacking.0, "");
            let pairs = [&pairs[..], &[emptied]].concat();
            assert!(!offered(Upgrades::default(), &pairs), "{emptied:?}");
        }
    }
}
