//! What the rules of `docs/protocol.md` forbid, or what is allowed and troubles somebody all the same.

use std::borrow::Cow;
use std::fmt;

use afcgi_proto::RecordType;
use afcgi_proto::cgi::HeadError;

use crate::wire::record_name;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Version(u8),
    InsideRecord,
    BodyLength(RecordType, u16),
    OtherSide(RecordType),
    UnknownRecord(u8),
    NoId(RecordType),
    Id(RecordType),
    ActiveId,
    NeverBegun(RecordType),
    AfterEnd(RecordType),
    StreamEnded(RecordType),
    Pairs,
    BeforeParams(RecordType),
    Stdin,
    Data,
    DataParams,
    DataLength(u64, u64),
    Role(u16),
    RoleTaken(u16),
    ProtocolStatus(u8),
    RefusedLate,
    NoEnd,
    ClosedForAbort,
    Head(HeadError),
    NoHead,
    Unasked(RecordType),
    EmptyAnswer,
    Unended(RecordType),
    CutPair,
    ShortBody(u64, u64),
    AuthorizerParam,
    Values,
    NoAnswer(RecordType),
}

impl Fault {
    /// The rule, as `docs/protocol.md` numbers them.
    pub(crate) fn rule(&self) -> &'static str {
        match self {
            Self::InsideRecord => "R-01",
            Self::Version(_) => "R-02",
            Self::NoId(_) | Self::Id(_) => "R-05",
            Self::BodyLength(..) | Self::StreamEnded(_) | Self::CutPair => "R-06",
            Self::OtherSide(_) | Self::UnknownRecord(_) => "R-07",
            Self::NeverBegun(_) => "R-10",
            Self::ActiveId => "R-12",
            Self::Pairs => "R-22",
            Self::Values | Self::EmptyAnswer | Self::Unasked(RecordType::GetValuesResult) => "R-40",
            Self::NoAnswer(RecordType::GetValuesResult) => "R-41",
            Self::Unasked(_) | Self::NoAnswer(_) => "R-42",
            Self::Role(_) => "R-50",
            Self::ProtocolStatus(_) | Self::RefusedLate => "R-51",
            Self::AfterEnd(_) | Self::NoEnd => "R-52",
            Self::BeforeParams(_) | Self::Unended(_) => "R-53",
            Self::Stdin | Self::AuthorizerParam => "R-54",
            Self::Data | Self::DataParams | Self::DataLength(..) => "R-55",
            Self::RoleTaken(_) => "R-56",
            Self::ClosedForAbort => "R-57",
            Self::Head(_) | Self::NoHead => "R-58",
            Self::ShortBody(..) => "R-59",
        }
    }

    /// The same text for all that differ in numbers only: there are not many.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Version(_) => String::from("the version is not 1: this is no FastCGI"),
            Self::BodyLength(kind, _) => format!("{} is not 8 bytes long", record_name(*kind)),
            Self::DataLength(..) => String::from("DATA is not as long as FCGI_DATA_LENGTH says"),
            Self::Role(_) => String::from("a role that FastCGI does not know"),
            Self::RoleTaken(_) => String::from("such a role was not refused with UNKNOWN_ROLE"),
            Self::ShortBody(..) => String::from("STDIN is shorter than CONTENT_LENGTH"),
            other => other.to_string(),
        }
    }

    /// Whether no peer that is known minds, or whether it may be meant.
    pub(crate) fn is_minor(&self) -> bool {
        matches!(
            self,
            Self::Unended(_)
                | Self::CutPair
                | Self::ShortBody(..)
                | Self::AuthorizerParam
                | Self::Values
                | Self::EmptyAnswer
                | Self::NoAnswer(_)
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |record_type: &RecordType| -> Cow<'static, str> { record_name(*record_type) };
        match self {
            Self::Version(found) => write!(f, "the version is {found}, not 1: this is no FastCGI"),
            Self::InsideRecord => f.write_str("the connection ended inside a record"),
            Self::BodyLength(kind, length) => {
                write!(f, "{} has {length} bytes of content, not 8", name(kind))
            }
            Self::OtherSide(kind) => write!(f, "{} is for the other side to send", name(kind)),
            Self::UnknownRecord(code) => {
                write!(f, "a record of type {code}, which FastCGI does not know")
            }
            Self::NoId(kind) => write!(f, "{} with id 0", name(kind)),
            Self::Id(kind) => write!(f, "{} with an id other than 0", name(kind)),
            Self::ActiveId => f.write_str("BEGIN_REQUEST for an id that is active"),
            Self::NeverBegun(kind) => write!(f, "{} for an id that was never begun", name(kind)),
            Self::AfterEnd(RecordType::EndRequest) => f.write_str("END_REQUEST came twice"),
            Self::AfterEnd(kind) => write!(f, "{} after END_REQUEST", name(kind)),
            Self::StreamEnded(kind) => write!(f, "{} after the end of that stream", name(kind)),
            Self::Pairs => f.write_str("a name-value pair reaches past the end of its stream"),
            Self::BeforeParams(kind) => write!(f, "{} before the end of PARAMS", name(kind)),
            Self::Stdin => f.write_str("an authorizer is sent STDIN"),
            Self::Data => f.write_str("DATA for a request that is for no filter"),
            Self::DataParams => {
                f.write_str("a filter is not told FCGI_DATA_LENGTH and FCGI_DATA_LAST_MOD")
            }
            Self::DataLength(came, said) => {
                write!(f, "DATA has {came} bytes, and FCGI_DATA_LENGTH says {said}")
            }
            Self::Role(code) => write!(f, "role {code}, which FastCGI does not know"),
            Self::RoleTaken(code) => {
                write!(f, "role {code} was not refused with UNKNOWN_ROLE")
            }
            Self::ProtocolStatus(code) => {
                write!(f, "protocolStatus {code}, which FastCGI does not know")
            }
            Self::RefusedLate => f.write_str("the request was refused after part of its response"),
            Self::NoEnd => f.write_str("the connection was closed without END_REQUEST"),
            Self::ClosedForAbort => {
                f.write_str("the connection was closed in place of an answer to ABORT_REQUEST")
            }
            Self::Head(error) => write!(f, "{error}"),
            Self::NoHead => {
                f.write_str("STDOUT ended without a head that ends with an empty line")
            }
            Self::Unasked(kind) => write!(f, "{} that nobody asked for", name(kind)),
            Self::EmptyAnswer => f.write_str(
                "an empty GET_VALUES_RESULT that nobody asked for, as if it were a stream that is ended: Go's net/http/fcgi does that",
            ),
            Self::Unended(kind) => {
                write!(f, "{} was not ended by an empty record", name(kind))
            }
            Self::CutPair => f.write_str(
                "a name-value pair is cut by the end of a PARAMS record: allowed, and PHP-FPM closes the connection",
            ),
            Self::ShortBody(came, said) => write!(
                f,
                "STDIN ended after {came} of {said} bytes: the client went away, if it is not the web server's fault"
            ),
            Self::AuthorizerParam => f.write_str(
                "an authorizer is told one of CONTENT_LENGTH, PATH_INFO, PATH_TRANSLATED and SCRIPT_NAME",
            ),
            Self::Values => f.write_str("GET_VALUES with a value"),
            Self::NoAnswer(kind) => write!(f, "no {} came until the end", name(kind)),
        }
    }
}
