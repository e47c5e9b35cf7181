//! Clients in front: their connections, with TLS or without, HTTP/1.1 or HTTP/2. Requests come out, and whoever serves answers them.
//!
//! It knows the limits of the configuration, and nothing of what becomes of a request.

mod activity;
mod budget;
mod connection;
mod content;
mod drive;
mod http1;
mod http2;
mod incoming;
mod io;
mod listen;
mod terms;

pub(crate) use activity::Busy;
pub(crate) use budget::Budget;
pub(crate) use connection::serve;
pub(crate) use http1::serve as serve_http1;
pub(crate) use http2::OnTunnel;
pub(crate) use incoming::{BoxError, Incoming, Unread};
pub(crate) use io::{ClientIo, Listener, Socket, Unclear};
pub(crate) use listen::{Files, accept, bind};
pub(crate) use terms::{Ends, Terms};
