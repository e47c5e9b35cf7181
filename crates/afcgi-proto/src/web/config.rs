//! The limits of the web server's side of a connection.

use std::time::Duration;

/// How long reading a connection pauses while one request overflows its buffer
/// ([`Connection::is_overflowing`](super::Connection::is_overflowing)). Without pauses, an application that
/// writes as fast as it is read would not get to the other requests.
pub const OVERFLOW_PAUSE: Duration = Duration::from_millis(1);
/// Bytes that are read between two such pauses.
pub const OVERFLOW_BURST: usize = 256 * 1024;

/// The limits of one connection. All of them are enforced.
///
/// With flow control, a connection holds at most `windows_total` plus 4 KiB for each request
/// ([`SMALLEST_WINDOW`](crate::credit::SMALLEST_WINDOW)) of content, otherwise
/// `requests × receive_buffer + overflow`. The limit is twice that if it includes requests that have ended
/// and whose consumer has not read everything. In addition, a connection holds
/// `output_buffer + output_turn + 128 × requests` bytes of output, or up to 64 KiB instead of `output_turn`
/// if a pair of PARAMS is longer than that. A growing buffer may take up to twice its content.
#[derive(Clone, Debug)]
pub struct Config {
    /// Maximum requests that hold an id at a time; 1: the application does not multiplex. The limit is twice
    /// that if it includes requests that have ended and whose consumer has not closed them. Default: 1024.
    pub requests: u16,
    /// Whether requests begin with FCGI_KEEP_CONN. Without it a connection is for one request: it
    /// gets no other once that has begun, and is finished when that has ended. Default: yes.
    pub keep_conn: bool,
    /// Maximum bytes of STDOUT and STDERR that are held for one request until it reads them, if it has
    /// no flow control. Default: 256 KiB.
    pub receive_buffer: usize,
    /// Bytes by which the first request with a full buffer may exceed it while other requests are on the
    /// connection. The responses of those are behind it. They are few, because the connection gets no more
    /// requests. Default: 32 MiB.
    pub overflow: usize,
    /// Whether requests use flow control if the application supports it (`docs/flow-control.md`).
    /// Default: yes.
    pub flow_control: bool,
    /// Bytes of the window that a request begins with under flow control, as long as
    /// `windows_total` allows it. Default: 256 KiB.
    pub window: usize,
    /// Bytes to which the window of a request may grow if its consumer keeps up. Default: 1 MiB.
    pub window_most: usize,
    /// Maximum bytes of the windows of all requests together. When little of it is left, new requests begin
    /// with smaller windows, of at least 4 KiB. Windows cannot grow into the last half of it.
    /// Default: 64 MiB.
    pub windows_total: usize,
    /// How long one request with a full buffer may block the other requests on the connection. Then it is
    /// aborted, unless half of its buffer has drained. Default: 10 s.
    pub stall_timeout: Duration,
    /// How long the END_REQUEST of an aborted request may take before the connection gets no more
    /// requests; to within an eighth. Default: 60 s.
    pub drain_timeout: Duration,
    /// How long a request that its consumer has closed with [`Connection::close_gently`] may take to
    /// end by itself before it is aborted. Default: 1 s.
    ///
    /// [`Connection::close_gently`]: super::Connection::close_gently
    pub linger_time: Duration,
    /// Bytes of content that such a request may still send before it is aborted. Default: 64 KiB.
    pub linger_bytes: usize,
    /// Bytes of pending output above which requests wait. Default: 128 KiB.
    pub output_buffer: usize,
    /// Bytes of output that one request may add before it is the turn of the others; at most
    /// 65535. A longer pair of PARAMS is not split for it. Default: 32 KiB.
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
