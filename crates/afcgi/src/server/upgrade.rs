//! Which requests may become a tunnel (`docs/upgrade.md`).

use afcgi_proto::Params;

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
    /// Whether the parameters are those of a request that may be upgraded: one of HTTP/1.1 or later
    /// that asks for it and has no body.
    pub(super) fn offered(self, params: &Params) -> bool {
        let mut offered = self == Self::ByHeader;
        let (mut upgrade, mut connection) = (false, false);
        for (name, value) in params {
            match name {
                b"FCGI_UPGRADE" => offered |= value == b"1",
                // Some HTTP clients ask for h2c with every request: that is the web server's affair.
                b"HTTP_UPGRADE" => {
                    upgrade = !value.is_empty() && !value.eq_ignore_ascii_case(b"h2c");
                }
                b"HTTP_CONNECTION" => connection |= has_token(value, b"upgrade"),
                b"CONTENT_LENGTH" if value.iter().any(|&digit| digit != b'0') => return false,
                b"HTTP_TRANSFER_ENCODING" => return false,
                // RFC 9110 section 7.8.
                b"SERVER_PROTOCOL" if value == b"HTTP/1.0" => return false,
                _ => {}
            }
        }
        self != Self::Never && offered && upgrade && connection
    }
}

/// Whether a comma-separated list holds a word, in whatever case.
fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|&byte| byte == b',')
        .any(|entry| entry.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use afcgi_proto::params::encode_pair;

    const ASKS: [(&str, &str); 2] = [
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
            ("HTTP_UPGRADE", "", false),
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
            let pairs = [("FCGI_UPGRADE", "1"), lacking];
            assert!(!offered(Upgrades::default(), &pairs), "only {lacking:?}");
        }
        assert!(!has_token(b"upgrades, no-upgrade", b"upgrade"));
    }
}
