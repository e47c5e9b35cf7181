//! The limits of the web server's side of a connection.

use std::time::Duration;

/// Limits of one connection, all of them enforced.
///
/// Where requests are under flow control a connection holds at most `windows_total` plus 4 KiB for
/// each request ([`SMALLEST_WINDOW`](crate::credit::SMALLEST_WINDOW)) of content, otherwise
/// `requests × receive_buffer + overflow`; twice that when requests count that have ended and whose consumer
/// has not read all of it. To that come `output_buffer + output_turn + 128 × requests` bytes of
/// output, or up to 64 KiB instead of `output_turn` where a pair of PARAMS is longer than that. A buffer that grows may take up to twice its content.
#[derive(Clone, Debug)]
pub struct Config {
    /// Requests that may hold an id at a time; 1: the application does not multiplex. Twice as many
    /// when those are counted that have ended and whose consumer has not closed them. Default: 1024.
    pub requests: u16,
    /// Whether requests begin with FCGI_KEEP_CONN. Without it a connection is for one request:
    /// it gets no other once that has begun, and is finished when that has ended. Default: yes.
    pub keep_conn: bool,
    /// Bytes of STDOUT and STDERR that are held for one request until it reads them, where it is
    /// not under flow control. Default: 256 KiB.
    pub receive_buffer: usize,
    /// Bytes by which the first request whose buffer is full may overflow it while others are on the
    /// connection: what is behind it is theirs, and they are not many, since no others come.
    /// Default: 32 MiB.
    pub overflow: usize,
    /// Whether requests are under flow control where the application knows it
    /// (`docs/flow-control.md`). Default: yes.
    pub flow_control: bool,
    /// The window in bytes that a request begins with under flow control, as long as
    /// `windows_total` allows. Default: 256 KiB.
    pub window: usize,
    /// The window in bytes up to which a request's grows whose consumer keeps up. Default: 1 MiB.
    pub window_most: usize,
    /// Bytes of the windows of all requests together. As that runs out new requests begin with
    /// smaller ones, of 4 KiB at least; half of it is not taken by windows that grow.
    /// Default: 64 MiB.
    pub windows_total: usize,
    /// How long one request whose buffer is full may hold up the other requests of the connection,
    /// before it is aborted, unless it drains by half. Default: 10 s.
    pub stall_timeout: Duration,
    /// How long the END_REQUEST of an aborted request may take, before the connection gets no new
    /// requests; to within an eighth. Default: 60 s.
    pub drain_timeout: Duration,
    /// How long a request that its consumer is done with, by [`Connection::close_gently`], has to
    /// end by itself before it is aborted. Default: 1 s.
    ///
    /// [`Connection::close_gently`]: super::Connection::close_gently
    pub linger_time: Duration,
    /// Bytes of content that such a request may still send before it is aborted. Default: 64 KiB.
    pub linger_bytes: usize,
    /// Pending output in bytes above which requests wait. Default: 128 KiB.
    pub output_buffer: usize,
    /// Output in bytes that one request may add before it is the turn of the others; at most
    /// 65535. A pair of PARAMS that is longer is not cut for it. Default: 32 KiB.
    pub output_turn: usize,
}

impl Config {
    /// Pending output above which no request begins. As long as the application reads, the content
    /// that fits and what begins and ends each request stay below.
    pub(super) fn most_output(&self) -> usize {
        self.output_buffer
            .saturating_add(self.output_turn)
            .saturating_add(usize::from(self.requests).saturating_mul(64))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            requests: 1024,
            keep_conn: true,
            receive_buffer: 256 * 1024,
            overflow: 32 * 1024 * 1024,
            flow_control: true,
            window: 256 * 1024,
            window_most: 1024 * 1024,
            windows_total: 64 * 1024 * 1024,
            stall_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(60),
            linger_time: Duration::from_secs(1),
            linger_bytes: 64 * 1024,
            output_buffer: 128 * 1024,
            output_turn: 32 * 1024,
        }
    }
}
