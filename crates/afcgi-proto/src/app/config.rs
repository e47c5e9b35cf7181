//! The limits of the application's side of a connection.

use std::time::Duration;

use crate::values::Values;

/// Limits of one connection, all of them enforced.
///
/// A connection holds at most `requests × (params_bytes + stdin_buffer) + overflow` bytes of input (twice
/// the `stdin_buffer` for a filter), of which at most `incomplete_bytes` for requests whose PARAMS is not
/// complete, 64 KiB of a GET_VALUES, and `2 × (output_buffer + output_turn) + 64 × requests` bytes of
/// output. A buffer that
/// grows may take up to twice its content.
#[derive(Clone, Debug)]
pub struct Config {
    /// What GET_VALUES is answered with.
    pub values: Values,
    /// Whether flow control is offered to web servers that ask for it (`docs/flow-control.md`). Each
    /// request then begins with a window of `stdin_buffer` bytes. Default: yes.
    pub flow_control: bool,
    /// The window in bytes up to which a request's grows whose handler keeps up. Default: 1 MiB.
    pub window_most: usize,
    /// Bytes by which the windows of all requests together may grow. Default: 16 MiB.
    pub windows_grow: usize,
    /// Requests that may be active at a time; more are refused with OVERLOADED. Default: 16384.
    pub requests: usize,
    /// Bytes of PARAMS of one request. Default: 256 KiB.
    pub params_bytes: usize,
    /// Name-value pairs of one request. Default: 4096.
    pub params_pairs: usize,
    /// Time for PARAMS to become complete, to within a quarter. Default: 30 s.
    pub params_timeout: Duration,
    /// Bytes that are held for all requests whose PARAMS is not complete; a request that would
    /// exceed it is refused with OVERLOADED. Default: 4 MiB.
    pub incomplete_bytes: usize,
    /// Bytes of STDIN, and of DATA, that are held for one request until it reads them.
    /// Default: 64 KiB.
    pub stdin_buffer: usize,
    /// Bytes by which STDIN and DATA of all requests without flow control may together exceed their buffers, on a
    /// connection where others may be behind them: what is in front of those is read, however slowly its
    /// handler reads. Default: 16 MiB.
    pub overflow: usize,
    /// How long one request that does not read its STDIN may hold up the other requests of the
    /// connection, before the rest of that STDIN is given up, unless it drains by half.
    /// Default: 10 s.
    pub stall_timeout: Duration,
    /// How long a connection may be without a request; output that is pending then is given up.
    /// Default: 10 min.
    pub idle_timeout: Duration,
    /// Pending output in bytes above which requests wait. Default: 128 KiB.
    pub output_buffer: usize,
    /// Output in bytes that one request may add before it is the turn of the others; at most
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
