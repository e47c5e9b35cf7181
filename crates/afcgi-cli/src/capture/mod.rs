//! Recorded connections: files of the format pcapng, which Wireshark reads, and tcpdump's.
//!
//! What is not from a network, such as a connection by a unix socket, is written as TCP all the same: Wireshark has a dissector for
//! FastCGI over TCP.

mod flow;
mod read;
mod write;

pub(crate) use read::{Found, Reader};
pub(crate) use write::{MASKED, Stream, header};

#[cfg(test)]
mod tests;
