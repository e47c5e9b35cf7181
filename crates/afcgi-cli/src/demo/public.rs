//! Where clients reach the page: the URL of a web server, and how to connect to it.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use axum::http::Uri;
use tokio::net::TcpStream;

/// The URL of the page: `http`, and with a slash at its end.
///
/// ```
/// use afcgi_cli::demo::Public;
///
/// let public: Public = "http://127.0.0.1:8888/demo".parse().unwrap();
/// assert_eq!(public.to_string(), "http://127.0.0.1:8888/demo/");
/// assert!("https://example.org/".parse::<Public>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    path: String,
}

/// Why a text is no [`Public`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicError(&'static str);

impl fmt::Display for PublicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for PublicError {}

impl FromStr for Public {
    type Err = PublicError;

    fn from_str(text: &str) -> Result<Self, PublicError> {
        let url: Uri = text
            .parse()
            .map_err(|_| PublicError("expected a URL, such as http://127.0.0.1:8888/demo/"))?;
        if url.scheme_str() != Some("http") {
            return Err(PublicError("expected a URL that begins with http://"));
        }
        let authority = url.authority().ok_or(PublicError("expected a host"))?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(PublicError("expected a host, without a user"));
        }
        if url.query().is_some() {
            return Err(PublicError("expected a URL without a query"));
        }
        let mut path = url.path().to_owned();
        if !path.ends_with('/') {
            path.push('/');
        }
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(80),
            path,
        })
    }
}

impl Public {
    /// The root of what listens at an address of this machine.
    pub fn of(address: SocketAddr) -> Self {
        let ip = match address.ip().to_canonical() {
            ip if !ip.is_unspecified() => ip,
            _ if address.is_ipv6() => Ipv6Addr::LOCALHOST.into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        };
        Self {
            host: ip.to_string(),
            port: address.port(),
            path: "/".to_owned(),
        }
    }

    /// What a request says in `Host`.
    pub(super) fn host(&self) -> String {
        let (open, close) = match self.host.contains(':') {
            true => ("[", "]"),
            false => ("", ""),
        };
        match self.port {
            80 => format!("{open}{}{close}", self.host),
            port => format!("{open}{}{close}:{port}", self.host),
        }
    }

    /// The path of a route beside the page.
    pub(super) fn route(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// A new connection to the web server.
    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect((self.host.as_str(), self.port)).await
    }
}

impl fmt::Display for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, expected) in [
            ("http://127.0.0.1:8888", "http://127.0.0.1:8888/"),
            ("http://example.org/a/b", "http://example.org/a/b/"),
            ("http://example.org:80/", "http://example.org/"),
            ("http://[::1]:8888/demo/", "http://[::1]:8888/demo/"),
        ] {
            let public: Public = text.parse().expect(text);
            assert_eq!(public.to_string(), expected);
            assert_eq!(expected.parse(), Ok(public));
        }
        for text in [
            "",
            "127.0.0.1:8888",
            "/demo/",
            "https://example.org/",
            "http://user@example.org/",
            "http://example.org/?a",
            "http:///demo/",
        ] {
            assert!(text.parse::<Public>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        for (address, expected) in [
            ("127.0.0.1:8888", "http://127.0.0.1:8888/"),
            ("0.0.0.0:8888", "http://127.0.0.1:8888/"),
            ("[::]:8888", "http://[::1]:8888/"),
        ] {
            let public = Public::of(address.parse().expect(address));
            assert_eq!(public.to_string(), expected);
        }
    }
}
