//! Why a request failed, and the exit status that says so: curl's number where curl has one.

use std::fmt;
use std::io;
use std::time::Duration;

use afcgi_proto::ProtocolStatus;
use afcgi_proto::cgi::HeadError;

use crate::wire::{escaped, protocol_status};

/// Why there is no answer, or no whole one.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for makes no sense.
    Usage(String),
    /// The host has no address.
    Resolve(String, io::Error),
    /// Nobody takes connections there.
    Connect(String, io::Error),
    /// What came is no FastCGI; its first bytes.
    NotFastCgi(String, Vec<u8>),
    /// STDOUT does not begin with a head.
    Head(HeadError),
    /// STDOUT ended before its head did.
    NoHead,
    /// The answer was not ended by END_REQUEST.
    Truncated,
    /// The connection was closed in place of an answer.
    Empty,
    /// The application refused the request.
    Refused(ProtocolStatus),
    /// `--fail`.
    Status(u16),
    /// There is no WebSocket.
    Upgrade(String),
    /// The body cannot be written.
    Write(io::Error),
    /// A file cannot be read.
    Read(String, io::Error),
    /// Something took too long.
    Timeout(&'static str, Duration),
    /// The connection broke.
    Lost(io::Error),
}

impl Failure {
    /// The exit status.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Resolve(..) => 6,
            Self::Connect(..) => 7,
            Self::NotFastCgi(..) | Self::Head(_) | Self::NoHead => 8,
            Self::Truncated => 18,
            Self::Status(_) | Self::Upgrade(_) => 22,
            Self::Write(_) => 23,
            Self::Read(..) => 26,
            Self::Timeout(..) => 28,
            Self::Empty => 52,
            Self::Lost(_) => 56,
            Self::Refused(status) => match status {
                ProtocolStatus::CantMpxConn => 101,
                ProtocolStatus::Overloaded => 102,
                ProtocolStatus::UnknownRole => 103,
                ProtocolStatus::RequestComplete | ProtocolStatus::Other(_) => 104,
            },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Upgrade(text) => f.write_str(text),
            Self::Resolve(host, error) => write!(f, "no address of {host} is known: {error}"),
            Self::Connect(address, error) => {
                write!(f, "cannot connect to {address}: {error}")?;
                f.write_str(match error.kind() {
                    io::ErrorKind::ConnectionRefused => ". Nobody listens there",
                    io::ErrorKind::PermissionDenied => {
                        ". The socket belongs to another user (PHP-FPM: listen.owner, listen.group, listen.mode)"
                    }
                    io::ErrorKind::WouldBlock => {
                        ". Its queue is full: the application does not accept connections"
                    }
                    _ => "",
                })
            }
            Self::NotFastCgi(error, first) => {
                f.write_str(error)?;
                if !first.is_empty() {
                    write!(f, ". What came begins with `{}`", escaped(first))?;
                }
                f.write_str(match first.as_slice() {
                    [b'H', b'T', b'T', b'P', ..] => ": an HTTP server, not a FastCGI application",
                    [b'S', b'S', b'H', ..] => ": an SSH server, not a FastCGI application",
                    [0x15 | 0x16, 3, ..] => ": TLS, not FastCGI",
                    _ => "",
                })
            }
            Self::Head(error) => write!(f, "{error}; --raw shows what came"),
            Self::NoHead => f.write_str(
                "the response has no head that ends with an empty line; --raw shows what came",
            ),
            Self::Truncated => f.write_str(
                "the application closed the connection before the end of the response (no END_REQUEST)",
            ),
            Self::Empty => f.write_str(
                "the application closed the connection without an answer. It may have crashed, or it does not allow \
                 this client (FCGI_WEB_SERVER_ADDRS; PHP-FPM: listen.allowed_clients)",
            ),
            Self::Refused(status) => {
                write!(f, "the application refused the request: {}", protocol_status(*status))?;
                f.write_str(match status {
                    ProtocolStatus::CantMpxConn => ". It takes one request at a time on a connection",
                    ProtocolStatus::Overloaded => ". It is out of some resource, ask again later",
                    ProtocolStatus::UnknownRole => ". It does not know the role, see --role",
                    ProtocolStatus::RequestComplete | ProtocolStatus::Other(_) => "",
                })
            }
            Self::Status(status) => write!(f, "the response has the status {status}"),
            Self::Write(error) => write!(f, "cannot write the body: {error}"),
            Self::Read(name, error) => write!(f, "cannot read {name}: {error}"),
            Self::Timeout(what, after) => {
                write!(f, "{what} after {}", humantime::format_duration(*after))
            }
            Self::Lost(error) => {
                write!(f, "the connection broke: {error}")?;
                f.write_str(match error.kind() {
                    io::ErrorKind::ConnectionReset => {
                        ". The process that had the request may have crashed or been restarted"
                    }
                    _ => "",
                })
            }
        }
    }
}

impl std::error::Error for Failure {}
