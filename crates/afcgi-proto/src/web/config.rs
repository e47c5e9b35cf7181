//! The limits of the web server's side of a connection.

use std::time::Duration;

/// Limits of one connection, all of them enforced.
///
/// A connection holds at most `2 × requests × receive_buffer` bytes of content (requests that have
/// ended and whose consumer has not read all of it count, up to as many again as are active), and
/// `output_buffer + output_turn + 128 × requests` bytes of output. A buffer that grows may take up
/// to twice its content.
#[derive(Clone, Debug)]
pub struct Config {
    /// Requests that may hold an id at a time; 1: the application does not multiplex. Twice as many
    /// when those are counted that have ended and whose consumer has not closed them. Default: 1024.
    pub requests: u16,
    /// Bytes of STDOUT and STDERR that are held for one request until it reads them; under flow
    /// control the window that each request begins with. Default: 256 KiB.
    pub receive_buffer: usize,
    /// Whether requests are under flow control where the application knows it
    /// (`docs/flow-control.md`). Default: yes.
    pub flow_control: bool,
    /// The window in bytes up to which a request's grows whose consumer keeps up. Default: 1 MiB.
    pub window_most: usize,
    /// Bytes by which the windows of all requests together may grow. Default: 16 MiB.
    pub windows_grow: usize,
    /// How long one request whose buffer is full may hold up the other requests of the connection,
    /// before it is aborted, unless it drains by half. Default: 10 s.
    pub stall_timeout: Duration,
    /// How long the END_REQUEST of an aborted request may take, before the connection gets no new
    /// requests; to within an eighth. Default: 60 s.
    pub drain_timeout: Duration,
    /// Pending output in bytes above which requests wait. Default: 128 KiB.
    pub output_buffer: usize,
    /// Output in bytes that one request may add before it is the turn of the others; at most
    /// 65535. Default: 32 KiB.
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
            receive_buffer: 256 * 1024,
            flow_control: true,
            window_most: 1024 * 1024,
            windows_grow: 16 * 1024 * 1024,
            stall_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(60),
            output_buffer: 128 * 1024,
            output_turn: 32 * 1024,
        }
    }
}
