//! Who a client is, and which of its header fields are believed.
//!
//! `Forwarded`, `X-Forwarded-*` and `X-Real-IP` say who a client is, so they are taken from trusted proxies only and
//! dropped where anybody else sends them.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};

use crate::config::Network;

/// Who sent a request, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// `None`: somebody on this machine, who connected to a unix socket.
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) secure: bool,
}

/// REMOTE_ADDR of those who connected to a unix socket, as nginx has it.
pub(crate) const UNIX: &str = "unix:";

/// An address without its port, as it is logged.
pub(crate) fn name(remote: Option<SocketAddr>) -> String {
    remote.map_or_else(
        || UNIX.to_owned(),
        |remote| remote.ip().to_canonical().to_string(),
    )
}

/// Tells who sent a request that came from `peer`, and drops the fields of those that are not trusted.
pub(crate) fn identify(
    trusted: &[Network],
    peer: Option<SocketAddr>,
    secure: bool,
    headers: &mut HeaderMap,
) -> Sender {
    let is_trusted = |address: IpAddr| {
        let address = address.to_canonical();
        trusted.iter().any(|network| match network {
            Network::Ip(network) => network.contains(&address),
            Network::Unix => false,
        })
    };
    let is_proxy = match peer {
        Some(peer) => is_trusted(peer.ip()),
        None => trusted.contains(&Network::Unix),
    };
    let mut sender = Sender {
        remote: peer.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port())),
        secure,
    };
    if !is_proxy {
        let named: Vec<HeaderName> = headers
            .keys()
            .filter(|name| is_about_the_client(name))
            .cloned()
            .collect();
        for name in named {
            headers.remove(name);
        }
        return sender;
    }
    // Each proxy adds whom it heard at the end: the last that is no proxy is the client.
    let fields = headers.get_all("x-forwarded-for");
    let mut hops: Vec<&str> = Vec::new();
    for field in fields {
        hops.extend(field.to_str().unwrap_or_default().split(','));
    }
    for hop in hops.iter().rev() {
        let Some(address) = address(hop.trim()) else {
            break;
        };
        sender.remote = Some(address);
        if !is_trusted(address.ip()) {
            break;
        }
    }
    if let Some(scheme) = headers.get("x-forwarded-proto") {
        sender.secure = scheme.as_bytes().eq_ignore_ascii_case(b"https");
    }
    sender
}

fn is_about_the_client(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded") || matches!(name, "forwarded" | "x-real-ip")
}

/// An address with or without a port.
fn address(text: &str) -> Option<SocketAddr> {
    let text_only = text.trim_start_matches('[').trim_end_matches(']');
    let bare = text_only
        .parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip.to_canonical(), 0));
    bare.or_else(|_| text.parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(peer: &str, fields: &[(&'static str, &'static str)]) -> (Sender, usize) {
        let trusted = ["10.0.0.0/8", "::1", "unix"].map(|text| text.parse().unwrap());
        let mut headers = HeaderMap::new();
        for &(name, value) in fields {
            headers.append(name, value.parse().unwrap());
        }
        let peer = peer.parse().ok().map(|ip| SocketAddr::new(ip, 7));
        let sender = identify(&trusted, peer, false, &mut headers);
        (sender, headers.len())
    }

    #[test]
    fn nobody_else_is_believed() {
        let fields = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("accept", "*/*"),
        ];
        let (sender, left) = sent("192.0.2.1", &fields);
        assert_eq!(sender.remote, "192.0.2.1:7".parse().ok());
        assert!(!sender.secure);
        assert_eq!(left, 1);
    }

    #[test]
    fn the_last_that_is_no_proxy_is_the_client() {
        for (fields, remote) in [
            (&[("x-forwarded-for", "1.2.3.4")][..], "1.2.3.4:0"),
            (
                &[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.1.1.1")],
                "1.2.3.4:0",
            ),
            (
                &[
                    ("x-forwarded-for", "6.6.6.6"),
                    ("x-forwarded-for", "1.2.3.4:99"),
                ],
                "1.2.3.4:99",
            ),
            (&[("x-forwarded-for", "1.2.3.4, evil")], "10.9.9.9:7"),
            (&[("x-forwarded-for", "[2001:db8::1]")], "[2001:db8::1]:0"),
            (&[], "10.9.9.9:7"),
        ] {
            let (sender, _) = sent("10.9.9.9", fields);
            assert_eq!(sender.remote, remote.parse().ok(), "{fields:?}");
        }
        let (sender, left) = sent("::ffff:10.0.0.1", &[("x-forwarded-proto", "HTTPS")]);
        assert!(sender.secure);
        assert_eq!(left, 1);
    }

    #[test]
    fn a_unix_socket_has_no_addresses() {
        let (sender, left) = sent("unix", &[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.1.1.1")]);
        assert_eq!((sender.remote, left), ("1.2.3.4:0".parse().ok(), 1));
        let (sender, _) = sent("unix", &[]);
        assert_eq!(name(sender.remote), "unix:");
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "1.2.3.4".parse().unwrap());
        let all = ["0.0.0.0/0", "::/0"].map(|text| text.parse().unwrap());
        let sender = identify(&all, None, false, &mut headers);
        assert_eq!((sender.remote, headers.len()), (None, 0));
    }
}
