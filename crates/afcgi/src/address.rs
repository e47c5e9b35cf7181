//! Addresses of applications, as people write them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where to listen or to connect to, as a person writes it.
///
/// `HOST:PORT`, `*:PORT` and `:PORT` (every address; to connect: this machine), `[::1]:PORT`, `unix:PATH`, or a path that
/// holds a `/`.
///
/// ```
/// use afcgi::Address;
///
/// assert_eq!("unix:app.sock".parse(), Ok(Address::Unix("app.sock".into())));
/// assert_eq!("/run/app.sock".parse(), Ok(Address::Unix("/run/app.sock".into())));
/// assert_eq!(":5000".parse::<Address>().unwrap().to_string(), "*:5000");
/// assert!("5000".parse::<Address>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host, empty for every address or for this machine, and a port.
    Tcp {
        /// A name or a number; empty: every address.
        host: String,
        /// 0: one that is free.
        port: u16,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// Why a text is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError(String);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no address: expected HOST:PORT, *:PORT, :PORT, [IPv6]:PORT, unix:PATH or a path with a /",
            self.0.escape_debug()
        )
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.to_owned());
        let path = match text.strip_prefix("unix:") {
            Some(path) => Some(path),
            None => text.contains('/').then_some(text),
        };
        if let Some(path) = path {
            return (!path.is_empty() && !path.contains('\0'))
                .then(|| Self::Unix(path.into()))
                .ok_or_else(error);
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port = port.parse().map_err(|_| error())?;
        let host = match (host.strip_prefix('['), host) {
            (Some(host), _) => host.strip_suffix(']').ok_or_else(error)?,
            (None, "*") => "",
            (None, host) if host.contains(':') => return Err(error()),
            (None, host) => host,
        };
        Ok(Self::Tcp {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.is_empty() => write!(f, "*:{port}"),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn addresses_as_people_write_them() {
        for (text, address) in [
            ("127.0.0.1:5000", tcp("127.0.0.1", 5000)),
            ("localhost:0", tcp("localhost", 0)),
            ("*:5000", tcp("", 5000)),
            (":5000", tcp("", 5000)),
            ("[::1]:5000", tcp("::1", 5000)),
            ("unix:a", Address::Unix("a".into())),
            ("./a", Address::Unix("./a".into())),
        ] {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
        for text in [
            "", "a", "5000", "a:", "a:x", "a:70000", "::1:5000", "[::1:5", "unix:", "unix:\0",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("expected HOST:PORT"), "{error}");
        }
    }
}
