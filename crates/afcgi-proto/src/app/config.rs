//! The limits of the application's side of a connection.

use std::time::Duration;

use crate::values::Values;

/// The limits of one connection. All of them are enforced.
///
/// A connection holds at most `requests × (params_bytes + stdin_buffer) + overflow` bytes of input (twice
/// the `stdin_buffer` for a filter). Of these, requests whose PARAMS is not complete hold at most
/// `incomplete_bytes`. In addition, a connection holds at most 64 KiB of a GET_VALUES, and
/// `2 × (output_buffer + output_turn) + 64 × requests` bytes of output. A growing buffer may take up to
/// twice its content.
#[derive(Clone, Debug)]
pub struct Config {
    /// The answer to GET_VALUES.
    pub values: Values,
    /// Whether to offer flow control to web servers that ask for it (`docs/flow-control.md`). Each
    /// request then begins with a window of `stdin_buffer` bytes. Default: yes.
    pub flow_control: bool,
    /// Bytes to which the window of a request may grow if its handler keeps up. Default: 1 MiB.
    pub window_most: usize,
    /// Bytes by which the windows of all requests together may grow. Default: 16 MiB.
    pub windows_grow: usize,
    /// Maximum concurrent requests; further ones are refused with OVERLOADED. Default: 16384.
    pub requests: usize,
    /// Maximum bytes of PARAMS of one request. Default: 256 KiB.
    pub params_bytes: usize,
    /// Maximum name-value pairs of one request. Default: 4096.
    pub params_pairs: usize,
    /// How long PARAMS may take to become complete, to within a quarter. Default: 30 s.
    pub params_timeout: Duration,
    /// Maximum bytes of all requests whose PARAMS is not complete. A request that would exceed this limit is
    /// refused with OVERLOADED. Default: 4 MiB.
    pub incomplete_bytes: usize,
    /// Maximum bytes of STDIN, and of DATA, that are held for one request until it reads them.
    /// Default: 64 KiB.
    pub stdin_buffer: usize,
    /// Bytes by which STDIN and DATA of all requests without flow control may together exceed their buffers. This
    /// applies to a connection where other requests may be behind them: to reach those, the connection is
    /// read even if a handler reads slowly. Default: 16 MiB.
    pub overflow: usize,
    /// How long one request that does not read its STDIN may block the other requests on the connection. Then
    /// the rest of that STDIN is given up, unless half of it has drained. Default: 10 s.
    pub stall_timeout: Duration,
    /// Idle timeout: how long a connection may be without a request. Output that is then pending is given
    /// up. Default: 10 min.
    pub idle_timeout: Duration,
    /// Bytes of pending output above which requests wait. Default: 128 KiB.
    pub output_buffer: usize,
    /// Bytes of output that one request may add before it is the turn of the others; at most
    /// 65535. Default: 32 KiB.
    pub output_turn: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            values: Values {
                mpxs_conns: Some(true),
                ..Values::default()
            },
            flow_control: true,
            window_most: 1024 * 1024,
            windows_grow: 16 * 1024 * 1024,
            requests: 16_384,
            params_bytes: 256 * 1024,
            params_pairs: 4096,
            params_timeout: Duration::from_secs(30),
            incomplete_bytes: 4 * 1024 * 1024,
            stdin_buffer: 64 * 1024,
            overflow: 16 * 1024 * 1024,
            stall_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
            output_buffer: 128 * 1024,
            output_turn: 32 * 1024,
        }
    }
}
