//! The parameters of `fastcgi_multiplex` in an `upstream` block.

use std::time::Duration;

use afcgi_proto::pool::Kind;
use afcgi_proto::web::Config;

/// What an operator may set for the connections to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Shared connections per worker and address.
    pub connections: u16,
    /// Requests that one connection carries at a time. An application may ask for less.
    pub requests: u16,
    /// Bytes of a response that the application may send ahead of its client, under flow control.
    window: usize,
    /// Bytes of all windows of a connection together.
    memory: usize,
    /// Bytes of a response that are held where there is no flow control.
    buffer: usize,
    /// Bytes more of it that are held to reach what others have behind it.
    overflow: usize,
    /// How long a full buffer may hold up the other requests of its connection.
    stall_timeout: Duration,
    /// How long a shared connection is kept without a request.
    pub idle_timeout: Duration,
    /// The age at which a connection gets no more requests.
    pub lifetime: Duration,
    /// Requests after which a connection gets no more of them.
    pub max_requests: u32,
}

impl Default for Settings {
    fn default() -> Self {
        let config = Config::default();
        Self {
            connections: 1,
            requests: 16_384,
            window: config.window,
            memory: config.windows_total,
            buffer: config.receive_buffer,
            overflow: config.overflow,
            stall_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            lifetime: Duration::from_secs(3600),
            max_requests: u32::MAX,
        }
    }
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// nginx's own readers of sizes (`64k`) and times (`10s`), for which `None` is what is none.
#[derive(Clone, Copy, Debug)]
pub struct Readers {
    pub size: fn(&[u8]) -> Option<usize>,
    pub time: fn(&[u8]) -> Option<Duration>,
}

impl Settings {
    /// Reads the parameters, each given at most once. The error is for the operator.
    pub fn parse<'a>(
        parameters: impl Iterator<Item = &'a [u8]>,
        readers: Readers,
    ) -> Result<Self, String> {
        let mut settings = Self::default();
        let mut seen = Vec::new();
        for parameter in parameters {
            let shown = parameter.escape_ascii();
            let equals = parameter.iter().position(|&byte| byte == b'=');
            let Some((name, value)) = equals.and_then(|at| parameter.split_at_checked(at)) else {
                return Err(format!("invalid parameter \"{shown}\": {KNOWN}"));
            };
            if seen.contains(&name) {
                return Err(format!("duplicate parameter \"{shown}\""));
            }
            seen.push(name);
            settings
                .set(name, value.get(1..).unwrap_or_default(), readers)
                .map_err(|why| match why {
                    Why::Unknown => format!("invalid parameter \"{shown}\": {KNOWN}"),
                    Why::Value(wanted) => format!("invalid value in \"{shown}\": {wanted}"),
                })?;
        }
        Ok(settings)
    }

    fn set(&mut self, name: &[u8], value: &[u8], readers: Readers) -> Result<(), Why> {
        let Readers { size, time } = readers;
        match name {
            b"connections" => {
                let most = "it must be a number from 1 to 1024";
                self.connections = within(number(value), 1, 1024, most)?;
            }
            b"requests" => {
                let most = "it must be a number from 1 to 65535";
                self.requests = within(number(value), 1, u16::MAX, most)?;
            }
            b"max_requests" => {
                let most = "it must be a number from 1 to 4294967295";
                self.max_requests = within(number(value), 1, u32::MAX, most)?;
            }
            b"window" => {
                let most = "it must be a size from 4k to 1g";
                self.window = within(size(value), 4 * KIB, GIB, most)?;
            }
            b"buffer" => {
                let most = "it must be a size from 4k to 1g";
                self.buffer = within(size(value), 4 * KIB, GIB, most)?;
            }
            b"overflow" => {
                let most = "it must be a size from 0 to 1g";
                self.overflow = within(size(value), 0, GIB, most)?;
            }
            b"memory" => {
                let most = "it must be a size from 1m to 64g";
                self.memory = within(size(value), MIB, 64 * GIB, most)?;
            }
            b"stall_timeout" => {
                let most = "it must be a time from 1ms to 1d";
                self.stall_timeout = within(time(value), Duration::from_millis(1), DAY, most)?;
            }
            b"idle_timeout" => {
                let most = "it must be a time from 1ms to 1d";
                self.idle_timeout = within(time(value), Duration::from_millis(1), DAY, most)?;
            }
            b"lifetime" => {
                let most = "it must be a time from 1ms to 365d";
                self.lifetime = within(time(value), Duration::from_millis(1), 365 * DAY, most)?;
            }
            _ => return Err(Why::Unknown),
        }
        Ok(())
    }

    /// The limits of a connection.
    pub fn connection(&self, kind: Kind) -> Config {
        let default = Config::default();
        Config {
            requests: if kind == Kind::Shared {
                self.requests
            } else {
                1
            },
            keep_conn: kind != Kind::Once,
            window: self.window,
            window_most: default.window_most.max(self.window),
            windows_total: self.memory,
            receive_buffer: self.buffer,
            overflow: self.overflow,
            stall_timeout: self.stall_timeout,
            ..default
        }
    }
}

/// The names of the parameters, for those who have another.
const KNOWN: &str = "connections=, requests=, window=, memory=, buffer=, overflow=, stall_timeout=, \
                     idle_timeout=, lifetime= and max_requests= are known";

/// Why a parameter is no good.
enum Why {
    Unknown,
    /// What its value must be.
    Value(&'static str),
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?
        .parse()
        .ok()
}

fn within<T: PartialOrd>(
    value: Option<T>,
    least: T,
    most: T,
    wanted: &'static str,
) -> Result<T, Why> {
    value
        .filter(|value| (&least..=&most).contains(&value))
        .ok_or(Why::Value(wanted))
}
