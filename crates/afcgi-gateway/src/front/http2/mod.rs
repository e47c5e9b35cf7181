//! HTTP/2 (RFC 9113) by the h2 crate itself: hyper's server, which is built on it, sends no interim responses, and browsers heed 103 Early
//! Hints by HTTP/2 alone.

mod connection;
mod exchange;
mod tunnel;

pub(crate) use connection::serve;
pub(crate) use tunnel::OnTunnel;
