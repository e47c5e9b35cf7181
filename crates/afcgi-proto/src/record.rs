//! Records as they are on the wire: the header and the bodies of discrete records (R-01 to R-07,
//! Reading them out of pieces is [`crate::reader`]'s work.

use std::fmt;
use std::num::NonZeroU16;

/// The only protocol version there is.
pub const VERSION: u8 = 1;
/// Bytes of a record header.
pub const HEADER_LEN: usize = 8;
/// The most content that one record carries, in bytes.
pub const MAX_CONTENT: usize = 65_535;
/// Bytes of the body of BEGIN_REQUEST, END_REQUEST, UNKNOWN_TYPE and CREDIT.
pub const BODY_LEN: usize = 8;

/// BEGIN_REQUEST flag: the connection stays open after the request.
pub const KEEP_CONN: u8 = 1;
/// BEGIN_REQUEST flag: the request is under flow control (`docs/flow-control.md`).
pub const FLOW_CONTROL: u8 = 2;

/// The id of an application record: 1 to 65535, unique among the active requests of a connection
///
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(NonZeroU16);

impl RequestId {
    /// The lowest id.
    pub const FIRST: Self = Self(NonZeroU16::MIN);

    /// `None` for 0, the id of management records.
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The id as it stands in a header.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// Opens a request.
    BeginRequest,
    /// The web server gives a request up.
    AbortRequest,
    /// The application ends a request.
    EndRequest,
    /// Parameters of a request.
    Params,
    /// The request body.
    Stdin,
    /// The response.
    Stdout,
    /// Text for the error log.
    Stderr,
    /// The file of a filter.
    Data,
    /// Asks for the application's limits.
    GetValues,
    /// The answer to [`RecordType::GetValues`].
    GetValuesResult,
    /// The answer to a management record that is not known.
    UnknownType,
    /// Adds to the peer's credit for a request (`docs/flow-control.md`).
    Credit,
    /// Any other type.
    Other(u8),
}

impl From<u8> for RecordType {
    fn from(code: u8) -> Self {
        match code {
            1 => Self::BeginRequest,
            2 => Self::AbortRequest,
            3 => Self::EndRequest,
            4 => Self::Params,
            5 => Self::Stdin,
            6 => Self::Stdout,
            7 => Self::Stderr,
            8 => Self::Data,
            9 => Self::GetValues,
            10 => Self::GetValuesResult,
            11 => Self::UnknownType,
            64 => Self::Credit,
            other => Self::Other(other),
        }
    }
}

impl RecordType {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::BeginRequest => 1,
            Self::AbortRequest => 2,
            Self::EndRequest => 3,
            Self::Params => 4,
            Self::Stdin => 5,
            Self::Stdout => 6,
            Self::Stderr => 7,
            Self::Data => 8,
            Self::GetValues => 9,
            Self::GetValuesResult => 10,
            Self::UnknownType => 11,
            Self::Credit => 64,
            Self::Other(code) => code,
        }
    }
}

/// A record header. The version is not kept: [`Header::parse`] accepts only version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the record is.
    pub record_type: RecordType,
    /// The request, or `None` for a management record.
    pub request_id: Option<RequestId>,
    /// Bytes of content that follow the header.
    pub content_length: u16,
    /// Bytes of padding that follow the content.
    pub padding_length: u8,
}

impl Header {
    /// A header without padding.
    pub const fn new(
        record_type: RecordType,
        request_id: Option<RequestId>,
        content_length: u16,
    ) -> Self {
        Self {
            record_type,
            request_id,
            content_length,
            padding_length: 0,
        }
    }

    /// Reads a header; fails with the version that was found when it is not 1.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, u8> {
        let &[
            version,
            record_type,
            id1,
            id0,
            len1,
            len0,
            padding_length,
            _reserved,
        ] = bytes;
        if version != VERSION {
            return Err(version);
        }
        Ok(Self {
            record_type: record_type.into(),
            request_id: RequestId::new(u16::from_be_bytes([id1, id0])),
            content_length: u16::from_be_bytes([len1, len0]),
            padding_length,
        })
    }

    /// The header as bytes, reserved byte zero.
    pub const fn encode(&self) -> [u8; HEADER_LEN] {
        let id = match self.request_id {
            Some(id) => id.get(),
            None => 0,
        };
        let [id1, id0] = id.to_be_bytes();
        let [len1, len0] = self.content_length.to_be_bytes();
        [
            VERSION,
            self.record_type.code(),
            id1,
            id0,
            len1,
            len0,
            self.padding_length,
            0,
        ]
    }
}

/// What an application is asked to be. Unknown numbers survive, so that they can be refused
/// by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Answers a request.
    Responder,
    /// Allows or denies a request.
    Authorizer,
    /// Transforms a file.
    Filter,
    /// A role that FastCGI 1.0 does not know.
    Other(u16),
}

impl From<u16> for Role {
    fn from(code: u16) -> Self {
        match code {
            1 => Self::Responder,
            2 => Self::Authorizer,
            3 => Self::Filter,
            other => Self::Other(other),
        }
    }
}

impl Role {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::Responder => 1,
            Self::Authorizer => 2,
            Self::Filter => 3,
            Self::Other(code) => code,
        }
    }
}

/// The body of BEGIN_REQUEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeginRequest {
    /// What the application is asked to be.
    pub role: Role,
    /// [`KEEP_CONN`], [`FLOW_CONTROL`] and bits without a meaning.
    pub flags: u8,
    /// The first four reserved bytes: under [`FLOW_CONTROL`] the credit in bytes that the web
    /// server grants for STDOUT and STDERR, otherwise without a meaning.
    pub credit: u32,
}

impl BeginRequest {
    /// Reads the body.
    pub const fn parse(body: &[u8; BODY_LEN]) -> Self {
        let &[role1, role0, flags, c3, c2, c1, c0, _] = body;
        let role = match u16::from_be_bytes([role1, role0]) {
            1 => Role::Responder,
            2 => Role::Authorizer,
            3 => Role::Filter,
            other => Role::Other(other),
        };
        Self {
            role,
            flags,
            credit: u32::from_be_bytes([c3, c2, c1, c0]),
        }
    }

    /// The body as bytes.
    pub const fn encode(&self) -> [u8; BODY_LEN] {
        let [role1, role0] = self.role.code().to_be_bytes();
        let [c3, c2, c1, c0] = self.credit.to_be_bytes();
        [role1, role0, self.flags, c3, c2, c1, c0, 0]
    }

    /// Whether the connection stays open after the request.
    pub const fn keep_conn(&self) -> bool {
        self.flags & KEEP_CONN != 0
    }
}

/// How the protocol, not the application, sees the end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProtocolStatus {
    /// The request was processed.
    RequestComplete,
    /// Refused: the application takes one request at a time on a connection.
    CantMpxConn,
    /// Refused: the application is out of some resource.
    Overloaded,
    /// Refused: the application does not know the role.
    UnknownRole,
    /// A status that FastCGI 1.0 does not know.
    Other(u8),
}

impl From<u8> for ProtocolStatus {
    fn from(code: u8) -> Self {
        match code {
            0 => Self::RequestComplete,
            1 => Self::CantMpxConn,
            2 => Self::Overloaded,
            3 => Self::UnknownRole,
            other => Self::Other(other),
        }
    }
}

impl ProtocolStatus {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::RequestComplete => 0,
            Self::CantMpxConn => 1,
            Self::Overloaded => 2,
            Self::UnknownRole => 3,
            Self::Other(code) => code,
        }
    }
}

/// The body of END_REQUEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndRequest {
    /// What the application returns, as a program's exit status.
    pub app_status: u32,
    /// Whether the request was processed.
    pub protocol_status: ProtocolStatus,
}

impl EndRequest {
    /// Reads the body.
    pub fn parse(body: &[u8; BODY_LEN]) -> Self {
        let &[s3, s2, s1, s0, protocol_status, _, _, _] = body;
        Self {
            app_status: u32::from_be_bytes([s3, s2, s1, s0]),
            protocol_status: protocol_status.into(),
        }
    }

    /// The body as bytes.
    pub const fn encode(&self) -> [u8; BODY_LEN] {
        let [s3, s2, s1, s0] = self.app_status.to_be_bytes();
        [s3, s2, s1, s0, self.protocol_status.code(), 0, 0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r01_header_golden_bytes() {
        let header = Header {
            record_type: RecordType::Stdout,
            request_id: RequestId::new(0x0102),
            content_length: 0x0304,
            padding_length: 5,
        };
        let bytes = [1, 6, 1, 2, 3, 4, 5, 0];
        assert_eq!(header.encode(), bytes);
        assert_eq!(Header::parse(&bytes), Ok(header));
    }

    #[test]
    fn r01_reserved_byte_is_ignored_on_reading() {
        let mut bytes = Header::new(RecordType::Stdin, RequestId::new(1), 0).encode();
        bytes[7] = 0xff;
        assert!(Header::parse(&bytes).is_ok());
    }

    #[test]
    fn r02_other_versions_are_refused() {
        for version in (0..=255).filter(|&v| v != VERSION) {
            assert_eq!(Header::parse(&[version, 1, 0, 1, 0, 8, 0, 0]), Err(version));
        }
    }

    #[test]
    fn r05_id_zero_is_management() {
        let header = Header::parse(&[1, 9, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(header.request_id, None);
    }

    #[test]
    fn r07_every_type_code_survives() {
        for code in 0..=255u8 {
            assert_eq!(RecordType::from(code).code(), code);
        }
        let names = [
            RecordType::BeginRequest,
            RecordType::AbortRequest,
            RecordType::EndRequest,
            RecordType::Params,
            RecordType::Stdin,
            RecordType::Stdout,
            RecordType::Stderr,
            RecordType::Data,
            RecordType::GetValues,
            RecordType::GetValuesResult,
            RecordType::UnknownType,
        ];
        for (code, name) in (1u8..).zip(names) {
            assert_eq!(name.code(), code);
        }
    }

    #[test]
    fn r50_begin_request_golden_bytes() {
        let begin = BeginRequest {
            role: Role::Filter,
            flags: KEEP_CONN,
            credit: 0,
        };
        assert_eq!(begin.encode(), [0, 3, 1, 0, 0, 0, 0, 0]);
        assert_eq!(BeginRequest::parse(&begin.encode()), begin);
        let role = BeginRequest::parse(&[0x12, 0x34, 0, 0, 0, 0, 0, 0]).role;
        assert_eq!(role, Role::Other(0x1234));
        for code in 0..=u16::MAX {
            assert_eq!(Role::from(code).code(), code);
        }
    }

    #[test]
    fn r51_end_request_golden_bytes() {
        let end = EndRequest {
            app_status: 0x0102_0304,
            protocol_status: ProtocolStatus::Overloaded,
        };
        assert_eq!(end.encode(), [1, 2, 3, 4, 2, 0, 0, 0]);
        assert_eq!(EndRequest::parse(&end.encode()), end);
        for code in 0..=255u8 {
            assert_eq!(ProtocolStatus::from(code).code(), code);
        }
    }
}
