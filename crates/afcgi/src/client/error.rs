//! Errors of the client.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use afcgi_proto::ProtocolStatus;
use afcgi_proto::cgi::HeadError;
use afcgi_proto::inbox::Broken;
use http::StatusCode;

use super::mapping::MappingError;

/// Why a request has no response, or only an incomplete one. An error concerns that request only, except
/// that a lost connection affects all its requests. Cloning is cheap.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The request cannot be expressed as parameters.
    Request(MappingError),
    /// The body of the request failed: its sender broke off.
    Body(Arc<dyn std::error::Error + Send + Sync>),
    /// The body of the request is not as long as its Content-Length says.
    BodyLength,
    /// The file for a filter cannot be read.
    Data(Arc<dyn std::error::Error + Send + Sync>),
    /// The file for a filter is not as long as announced.
    DataLength,
    /// The name in an address cannot be looked up.
    Resolve {
        /// The name.
        host: Arc<str>,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The connection cannot be opened.
    Connect {
        /// The address.
        address: Arc<str>,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// A recent attempt to connect failed, and the client does not try again yet.
    Unreachable {
        /// The address.
        address: Arc<str>,
        /// The system's error.
        source: Arc<io::Error>,
        /// When the client tries again.
        retry_in: Duration,
    },
    /// The request queue is full.
    QueueFull,
    /// No connection was free for the request in time.
    QueueTimeout,
    /// The application refused the request and has not worked on it.
    Refused(ProtocolStatus),
    /// The application did not act in time.
    Timeout(Awaited),
    /// The connection was lost before END_REQUEST.
    Lost(Lost),
    /// The response was aborted.
    Broken(Broken),
    /// The response header is invalid.
    Head(HeadError),
    /// The request ended before the response header was complete.
    NoHead,
    /// The application answered 101 to a request without an upgrade offer.
    Unasked101,
    /// Too many local redirects.
    Redirects,
    /// The response body is shorter or longer than its Content-Length says.
    Length {
        /// The announced length.
        announced: u64,
        /// The length of the body, as far as it was read.
        found: u64,
    },
    /// The application ended the request with this nonzero status after the response had begun.
    AppStatus(u32),
    /// The address was removed while the request waited, because its name does not resolve to it any more.
    Closed,
}

/// What the client waited for when a request timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Awaited {
    /// The application reading more of the request's body, or of the file for a filter.
    Send,
    /// The first byte of the response.
    FirstByte,
    /// The next byte of the response.
    Read,
}

/// How a connection was lost.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Lost {
    /// The application closed it.
    Closed,
    /// The application broke the protocol.
    Protocol(afcgi_proto::ConnectionError),
    /// The socket failed, or the application read nothing for too long.
    Io(Arc<io::Error>),
}

/// Who caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Culprit {
    /// The sender of the request.
    User,
    /// The application, or the network path to it.
    Peer,
    /// A limit of this client.
    Limit,
}

impl Error {
    /// Whether the same request can safely be sent again, whatever its method, because the application has
    /// not worked on it. An idempotent request can be repeated after more errors.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Resolve { .. }
                | Self::Connect { .. }
                | Self::Unreachable { .. }
                | Self::QueueFull
                | Self::QueueTimeout
                | Self::Closed
                | Self::Refused(ProtocolStatus::Overloaded | ProtocolStatus::CantMpxConn)
        )
    }

    /// Who caused the error.
    pub const fn culprit(&self) -> Culprit {
        match self {
            Self::Request(_)
            | Self::Body(_)
            | Self::BodyLength
            | Self::Data(_)
            | Self::DataLength => Culprit::User,
            Self::QueueFull | Self::QueueTimeout | Self::Redirects | Self::Closed => Culprit::Limit,
            Self::Broken(Broken::Stalled) => Culprit::User,
            _ => Culprit::Peer,
        }
    }

    /// The status that a gateway should answer with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::TimedOut => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Request(error) => error.status(),
            Self::Body(_) | Self::BodyLength => StatusCode::BAD_REQUEST,
            Self::Data(_) | Self::DataLength => StatusCode::INTERNAL_SERVER_ERROR,
            Self::QueueFull
            | Self::QueueTimeout
            | Self::Refused(ProtocolStatus::Overloaded | ProtocolStatus::CantMpxConn)
            | Self::Closed => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// The Retry-After of a status 503.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull
            | Self::QueueTimeout
            | Self::Refused(ProtocolStatus::Overloaded | ProtocolStatus::CantMpxConn)
            | Self::Closed => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(error) => error.fmt(f),
            Self::Body(error) => write!(f, "the request body failed: {error}"),
            Self::BodyLength => {
                f.write_str("the request body is not as long as its Content-Length says")
            }
            Self::Data(error) => write!(f, "the file for the filter cannot be read: {error}"),
            Self::DataLength => {
                f.write_str("the file for the filter is not as long as was announced: was it changed?")
            }
            Self::Resolve { host, source } => write!(
                f,
                "cannot look up the host `{host}`: {source} (is the name right?)"
            ),
            Self::Connect { address, source } => write!(
                f,
                "cannot connect to the application at {address}: {source} ({})",
                match source.kind() {
                    io::ErrorKind::PermissionDenied =>
                        "the user that this runs as may not use that socket: add the user to the socket's group, or change its owner or mode",
                    _ => "is it running?",
                }
            ),
            Self::Unreachable {
                address,
                source,
                retry_in,
            } => write!(
                f,
                "cannot connect to the application at {address}: {source} (the next attempt is in {} ms)",
                retry_in.as_millis()
            ),
            Self::QueueFull => f.write_str(
                "as many requests wait for the application as may: it is overloaded, or `queue` is too small",
            ),
            Self::QueueTimeout => f.write_str(
                "no connection to the application was free in time: it is overloaded, or has too few processes",
            ),
            Self::Refused(status) => write!(f, "the application refused the request: {status:?}"),
            Self::Timeout(Awaited::Send) => {
                f.write_str("the application did not read what it was sent in time")
            }
            Self::Timeout(Awaited::FirstByte) => {
                f.write_str("the application did not answer in time")
            }
            Self::Timeout(Awaited::Read) => {
                f.write_str("the application did not go on with its response in time")
            }
            Self::Lost(why) => write!(f, "the response is not complete: {why}"),
            Self::Broken(why) => write!(f, "the response is not complete: {why}"),
            Self::Head(error) => write!(f, "the application's response is no CGI response: {error}"),
            Self::NoHead => f.write_str(
                "the application ended the request without a response head; its STDERR may say why",
            ),
            Self::Unasked101 => {
                f.write_str("the application upgrades a request that cannot be upgraded")
            }
            Self::Redirects => {
                f.write_str("the application redirects within itself too often: is it a loop?")
            }
            Self::Length { announced, found } => write!(
                f,
                "the response body is not as long as its Content-Length: {found} bytes instead of {announced}"
            ),
            Self::AppStatus(status) => write!(
                f,
                "the application ended the request with status {status}: its response may not be complete"
            ),
            Self::Closed => f.write_str("the address of the application was given up: its name has others now"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Request(error) => Some(error),
            Self::Body(error) | Self::Data(error) => Some(&**error),
            Self::Resolve { source, .. }
            | Self::Connect { source, .. }
            | Self::Unreachable { source, .. }
            | Self::Lost(Lost::Io(source)) => Some(&**source),
            Self::Lost(Lost::Protocol(error)) => Some(error),
            Self::Broken(why) => Some(why),
            Self::Head(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Timeout(_) | Error::QueueTimeout => io::ErrorKind::TimedOut,
            Error::Lost(_) | Error::Broken(_) | Error::Length { .. } => {
                io::ErrorKind::UnexpectedEof
            }
            Error::Connect { source, .. } | Error::Unreachable { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the application closed the connection"),
            Self::Protocol(error) => error.fmt(f),
            Self::Io(error) => write!(f, "the connection failed: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connecting_says_what_helps() {
        for (kind, words) in [
            (io::ErrorKind::PermissionDenied, "socket's group"),
            (io::ErrorKind::NotFound, "is it running?"),
            (io::ErrorKind::ConnectionRefused, "is it running?"),
        ] {
            let error = Error::Connect {
                address: "unix:/run/php/php-fpm.sock".into(),
                source: Arc::new(kind.into()),
            };
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
