//! Content of streams and pairs: where it goes, and which rules it breaks.

use afcgi_proto::reader::Fragment;
use afcgi_proto::{RecordType, Role};

use super::super::exchange::{Exchange, Stream};
use super::super::faults::Fault;
use super::{Seen, Tracker};
use crate::wire::{PairSink, Pairs};

impl Tracker {
    /// Content of a stream, or its end.
    pub(super) fn stream(&mut self, seen: &mut Seen<'_>, at: usize, fragment: Fragment<'_>) {
        let masks_wanted = self.keep.masks;
        let Some(exchange) = self.exchange(&fragment.header) else {
            if masks_wanted {
                seen.masks.push(at..at + fragment.content.len());
            }
            return;
        };
        let mut faults: [Option<Fault>; 3] = [const { None }; 3];
        let (kind, content) = (fragment.header.record_type, fragment.content);
        let is_end = fragment.is_empty_record();
        let params_ended = exchange.params.ended;
        let stream: &mut Stream = match kind {
            RecordType::Params => &mut exchange.params,
            RecordType::Stdin => &mut exchange.stdin,
            RecordType::Data => &mut exchange.data,
            RecordType::Stdout => &mut exchange.stdout,
            _ => &mut exchange.stderr,
        };
        if fragment.first {
            if stream.ended {
                faults[0] = Some(Fault::StreamEnded(kind));
            } else if kind != RecordType::Params && !params_ended {
                faults[0] = Some(Fault::BeforeParams(kind));
            }
        }
        stream.used = true;
        let had_ended = stream.ended;
        stream.ended |= is_end;
        stream.bytes += content.len() as u64;
        if had_ended {
            // Not what it would be otherwise.
            if masks_wanted {
                seen.masks.push(at..at + content.len());
            }
        } else {
            match kind {
                RecordType::Params if is_end => {
                    exchange.end_params();
                    faults[1] = exchange.params_faults();
                }
                RecordType::Params => {
                    exchange.take_params(at, content, seen.masks);
                    if fragment.last && !exchange.pairs_are_whole() {
                        faults[1] = Some(Fault::CutPair);
                    }
                }
                RecordType::Stdin if is_end => faults[1] = exchange.short_body(),
                RecordType::Stdin => {
                    exchange.take_stdin(at, content, seen.masks);
                    if fragment.first && exchange.role == Role::Authorizer {
                        faults[1] = Some(Fault::Stdin);
                    }
                }
                RecordType::Data if is_end => faults[1] = exchange.data_length(),
                RecordType::Data => {
                    if fragment.first && exchange.role != Role::Filter {
                        faults[1] = Some(Fault::Data);
                    }
                }
                RecordType::Stdout if is_end => {}
                RecordType::Stdout => {
                    exchange.first_byte.get_or_insert(seen.at);
                    if let Err(error) = exchange.take_stdout(at, content, seen.masks) {
                        faults[1] = Some(Fault::Head(error));
                    }
                }
                _ => exchange.take_stderr(content),
            }
        }
        if kind == RecordType::Params && is_end && exchange.role == Role::Authorizer {
            faults[2] = (exchange.told.not_for_authorizers).then_some(Fault::AuthorizerParam);
        }
        for fault in faults.into_iter().flatten() {
            self.fault(seen, fault, &fragment.header);
        }
    }

    /// Name-value pairs of a management record.
    pub(super) fn pairs(&mut self, seen: &mut Seen<'_>, fragment: Fragment<'_>) {
        let half = &mut self.halves[seen.side as usize];
        if fragment.first {
            half.pairs = Pairs::default();
            half.pairs_have_values = false;
        }
        let mut sink = HasValues(&mut half.pairs_have_values);
        half.pairs.feed(fragment.content, &mut sink);
        if !fragment.last {
            return;
        }
        let fault = match half.pairs.at_boundary() {
            false => Fault::Pairs,
            true if half.pairs_have_values
                && fragment.header.record_type == RecordType::GetValues =>
            {
                Fault::Values
            }
            true => return,
        };
        self.fault(seen, fault, &fragment.header);
    }
}

impl Exchange {
    /// What is wrong with the parameters, which are all there.
    fn params_faults(&self) -> Option<Fault> {
        if !self.pairs_are_whole() {
            return Some(Fault::Pairs);
        }
        let told = &self.told;
        let has_data = told.data_length.is_some() && told.data_modified;
        (self.role == Role::Filter && !has_data).then_some(Fault::DataParams)
    }

    /// Whether the client has left in the middle.
    fn short_body(&self) -> Option<Fault> {
        let said = self.told.content_length?;
        (self.stdin.bytes < said).then_some(Fault::ShortBody(self.stdin.bytes, said))
    }

    fn data_length(&self) -> Option<Fault> {
        let said = self.told.data_length?;
        (self.data.bytes != said).then_some(Fault::DataLength(self.data.bytes, said))
    }
}

struct HasValues<'a>(&'a mut bool);

impl PairSink for HasValues<'_> {
    fn name(&mut self, _: &[u8], length: usize) {
        *self.0 |= length > 0;
    }

    fn value(&mut self, _: usize, _: &[u8]) {}

    fn end(&mut self) {}
}
