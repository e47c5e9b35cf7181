//! What a connection is served with.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::io::Tidy;
use crate::config::Limits;

/// The two ends of the connection that a request came on: `None` on a unix socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) secure: bool,
}

/// Is told what was answered to no request: with which status, and as much as there is of its first line.
pub(crate) type Refused<'a> = &'a (dyn Fn(StatusCode, &[u8]) + Sync);

/// Limits, and what a connection needs of the gateway beside a service.
pub(crate) struct Terms<'a> {
    pub(crate) limits: Limits,
    /// What may wait for clients of HTTP/2.
    pub(crate) budget: Arc<Budget>,
    pub(crate) refused: Refused<'a>,
    /// What is done to each interim response.
    pub(crate) tidy: Tidy,
    /// When no further request is to be taken.
    pub(crate) stop: CancellationToken,
}
