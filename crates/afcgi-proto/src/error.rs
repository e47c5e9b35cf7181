//! What can go wrong, and whose fault it is. The scope is in the type: a [`ConnectionError`] ends
//! the connection, a [`RequestError`] ends one request and nothing else.

use std::fmt;

use crate::record::{RecordType, RequestId};

/// An error after which no byte of the connection can be trusted: close it, answer nothing. The
/// peer is always to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The first byte of a record is not 1: the peer does not speak FastCGI.
    Version {
        /// The byte that was found.
        found: u8,
    },
    /// A discrete record has a body of a wrong length.
    BodyLength {
        /// Which record.
        record_type: RecordType,
        /// Its content length.
        found: usize,
    },
    /// BEGIN_REQUEST for a request that is active.
    IdInUse(RequestId),
    /// The peer closed the connection inside a record.
    Truncated,
    /// A record that only the other side of a connection may send.
    WrongSide(RecordType),
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => write!(
                f,
                "the peer does not speak FastCGI 1 (a record begins with {found:#04x}, expected 0x01)"
            ),
            Self::BodyLength { record_type, found } => {
                write!(
                    f,
                    "{record_type:?} record with a body of {found} bytes, expected 8"
                )
            }
            Self::IdInUse(id) => write!(f, "BEGIN_REQUEST for request {id}, which is active"),
            Self::Truncated => f.write_str("the connection was closed inside a record"),
            Self::WrongSide(record_type) => {
                write!(
                    f,
                    "{record_type:?} record comes from the wrong side of the connection"
                )
            }
        }
    }
}

impl std::error::Error for ConnectionError {}

/// An error of one request. The connection and its other requests go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// PARAMS is malformed: a pair reaches beyond the end of the stream. The peer's fault.
    MalformedParams,
    /// PARAMS is longer than the configured limit.
    ParamsTooLong,
    /// PARAMS has more pairs than the configured limit.
    TooManyParams,
    /// PARAMS was not complete in time.
    ParamsTimeout,
    /// The peer sent more content than there was credit for.
    CreditExceeded,
    /// The peer gave more credit than 2^31 - 1 bytes.
    CreditOverflow,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MalformedParams => {
                "malformed PARAMS: a pair reaches beyond the end of the stream"
            }
            Self::ParamsTooLong => "PARAMS is over the limit of bytes",
            Self::TooManyParams => "PARAMS is over the limit of pairs",
            Self::ParamsTimeout => "PARAMS was not complete in time",
            Self::CreditExceeded => "the peer sent more than it had credit for",
            Self::CreditOverflow => "the peer gave more credit than 2^31-1 bytes",
        })
    }
}

impl std::error::Error for RequestError {}

/// The request has ended: its handle is no longer valid. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request has ended")
    }
}

impl std::error::Error for Gone {}

/// For those that write to a request as to a pipe.
impl From<Gone> for std::io::Error {
    fn from(gone: Gone) -> Self {
        Self::new(std::io::ErrorKind::BrokenPipe, gone)
    }
}

/// Why no request can be opened on a connection now. Nothing was sent: another connection may be
/// tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BeginError {
    /// As many requests as the limit allows are active or draining.
    Full,
    /// The connection takes no new requests: it failed, was closed, or is being retired.
    Closed,
}

impl fmt::Display for BeginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the connection has as many requests as it may",
            Self::Closed => "the connection takes no new requests",
        })
    }
}

impl std::error::Error for BeginError {}
