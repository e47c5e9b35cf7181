//! What both sides need beside addresses.

use std::fmt;

/// The address of the HTTP client: `REMOTE_ADDR` and `REMOTE_PORT` (0 where that is missing). Among the
/// extensions of a request, of those that a server gets as of those that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteAddr(pub std::net::SocketAddr);

impl fmt::Display for RemoteAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
