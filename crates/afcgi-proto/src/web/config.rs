//! The limits of the web server's side of a connection.

use std::time::Duration;

/// Limits of one connection, all of them enforced.
///
/// A connection's memory is bounded by `requests × 2 × receive_buffer` plus `output_buffer +
/// output_turn` and 40 bytes for each request that begins and ends.
#[derive(Clone, Debug)]
pub struct Config {
    /// Requests that may hold an id at a time; 1: the application does not multiplex. Default: 1024.
    pub requests: u16,
    /// Bytes of STDOUT and STDERR that are held for one request until it reads them. Default:
    /// 256 KiB.
    pub receive_buffer: usize,
    /// How long one request whose buffer is full may hold up the other requests of the connection,
    /// before it is aborted. Default: 10 s.
    pub stall_timeout: Duration,
    /// How long the END_REQUEST of an aborted request may take, before the connection gets no new
    /// requests. Default: 60 s.
    pub drain_timeout: Duration,
    /// Pending output in bytes above which requests wait. Default: 128 KiB.
    pub output_buffer: usize,
    /// Output in bytes that one request may add before it is the turn of the others; at most
    /// 65535. Default: 32 KiB.
    pub output_turn: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            requests: 1024,
            receive_buffer: 256 * 1024,
            stall_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(60),
            output_buffer: 128 * 1024,
            output_turn: 32 * 1024,
        }
    }
}
