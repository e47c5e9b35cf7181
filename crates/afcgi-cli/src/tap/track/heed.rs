//! What a record's header says by itself: whether its sender may send it, now and for this id.

use afcgi_proto::record::BODY_LEN;
use afcgi_proto::{Header, RecordType};

use super::super::faults::Fault;
use super::Tracker;
use crate::wire::Side;

impl Tracker {
    /// Whether a record is to be looked at, or what is wrong with it by its header.
    pub(super) fn heed(&mut self, side: Side, header: &Header) -> Result<bool, Fault> {
        let kind = header.record_type;
        let sender = match kind {
            RecordType::BeginRequest
            | RecordType::AbortRequest
            | RecordType::Params
            | RecordType::Stdin
            | RecordType::Data
            | RecordType::GetValues => Some(Side::Web),
            RecordType::EndRequest
            | RecordType::Stdout
            | RecordType::Stderr
            | RecordType::GetValuesResult
            | RecordType::UnknownType => Some(Side::App),
            RecordType::Credit | RecordType::Other(_) => None,
        };
        if sender.is_some_and(|sender| sender != side) {
            return Err(Fault::OtherSide(kind));
        }
        let is_management = matches!(
            kind,
            RecordType::GetValues | RecordType::GetValuesResult | RecordType::UnknownType
        );
        let id = header.request_id.map_or(0, |id| id.get());
        match (kind, id) {
            // How extensions are found out about.
            (RecordType::Other(_), 0) if side == Side::Web => {
                self.unknown += 1;
                return Ok(true);
            }
            (RecordType::Other(code), _) => return Err(Fault::UnknownRecord(code)),
            (_, 0) if !is_management => return Err(Fault::NoId(kind)),
            (_, 1..) if is_management => return Err(Fault::Id(kind)),
            (RecordType::GetValues, _) => {
                self.values += 1;
                return Ok(true);
            }
            (RecordType::GetValuesResult | RecordType::UnknownType, _) => {
                let open = match kind {
                    RecordType::GetValuesResult => &mut self.values,
                    _ => &mut self.unknown,
                };
                if *open == 0 {
                    return Err(match (kind, header.content_length) {
                        (RecordType::GetValuesResult, 0) => Fault::EmptyAnswer,
                        _ => Fault::Unasked(kind),
                    });
                }
                *open -= 1;
            }
            _ => {}
        }
        let is_body = matches!(
            kind,
            RecordType::BeginRequest | RecordType::EndRequest | RecordType::UnknownType
        );
        if is_body && usize::from(header.content_length) != BODY_LEN {
            return Err(Fault::BodyLength(kind, header.content_length));
        }
        if is_management || self.active.contains_key(&id) {
            return match kind {
                RecordType::BeginRequest => Err(Fault::ActiveId),
                _ => Ok(true),
            };
        }
        match (side, self.was_begun(id)) {
            (Side::Web, _) if kind == RecordType::BeginRequest => Ok(true),
            // It may not have heard of the end.
            (Side::Web, true) => Ok(false),
            (Side::App, true) if kind == RecordType::Credit => Ok(false),
            (Side::App, true) => Err(Fault::AfterEnd(kind)),
            (_, false) => Err(Fault::NeverBegun(kind)),
        }
    }
}
