//! GET_VALUES and GET_VALUES_RESULT: what an application tells of itself.

use crate::credit::MAX_CREDIT;
use crate::params::{decode_pair, encode_pair};

const MAX_CONNS: &[u8] = b"FCGI_MAX_CONNS";
const MAX_REQS: &[u8] = b"FCGI_MAX_REQS";
const MPXS_CONNS: &[u8] = b"FCGI_MPXS_CONNS";
const FLOW_CONTROL: &[u8] = b"FCGI_FLOW_CONTROL";
pub(crate) const UPGRADE: &[u8] = b"FCGI_UPGRADE";

/// What an application answers to GET_VALUES. `None`: it did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// How many connections it accepts at a time.
    pub max_conns: Option<u32>,
    /// How many requests it takes at a time, over all its connections.
    pub max_reqs: Option<u32>,
    /// Whether one connection may carry several requests at a time.
    pub mpxs_conns: Option<bool>,
    /// The credit in bytes that it grants each request for STDIN and DATA, if it knows flow control
    /// (`docs/flow-control.md`).
    pub flow_control: Option<u32>,
    /// Whether it may turn a request into a tunnel (`docs/upgrade.md`).
    pub upgrade: Option<bool>,
}

impl Values {
    /// The content of a GET_VALUES that asks for everything that [`Values`] holds.
    pub fn query() -> Vec<u8> {
        let mut out = Vec::new();
        for name in [MAX_CONNS, MAX_REQS, MPXS_CONNS, FLOW_CONTROL, UPGRADE] {
            encode_pair(&mut out, name, b"");
        }
        out
    }

    /// The content of the answer to a GET_VALUES with the content `query`: each name that was
    /// asked for and is known, once. What is malformed in `query` ends it.
    pub fn answer(&self, mut query: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut open = *self;
        while let Ok(Some((name, _))) = decode_pair(&mut query) {
            let value = match name {
                MAX_CONNS => open.max_conns.take().map(|n| n.to_string()),
                MAX_REQS => open.max_reqs.take().map(|n| n.to_string()),
                MPXS_CONNS => open.mpxs_conns.take().map(|yes| u8::from(yes).to_string()),
                FLOW_CONTROL => open.flow_control.take().map(|n| n.to_string()),
                UPGRADE => open.upgrade.take().map(|yes| u8::from(yes).to_string()),
                _ => None,
            };
            if let Some(value) = value {
                encode_pair(&mut out, name, value.as_bytes());
            }
        }
        out
    }

    /// Reads the content of a GET_VALUES_RESULT. Names that are not known, values that are no
    /// numbers and what is malformed count as not said: an application is free to be odd here.
    pub fn parse(mut content: &[u8]) -> Self {
        let mut values = Self::default();
        while let Ok(Some((name, value))) = decode_pair(&mut content) {
            let number = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.trim().parse::<u32>().ok());
            match name {
                MAX_CONNS => values.max_conns = number,
                MAX_REQS => values.max_reqs = number,
                MPXS_CONNS => values.mpxs_conns = number.map(|n| n != 0),
                FLOW_CONTROL => values.flow_control = number.filter(|&n| n <= MAX_CREDIT),
                UPGRADE => values.upgrade = number.map(|n| n != 0),
                _ => {}
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Values = Values {
        max_conns: Some(100),
        max_reqs: Some(2000),
        mpxs_conns: Some(true),
        flow_control: Some(65_536),
        upgrade: Some(true),
    };

    #[test]
    fn r40_answer_holds_only_what_was_asked_for() {
        let mut query = Vec::new();
        encode_pair(&mut query, b"FCGI_MPXS_CONNS", b"");
        encode_pair(&mut query, b"FCGI_SOMETHING", b"");
        encode_pair(&mut query, b"FCGI_MPXS_CONNS", b"");
        assert_eq!(ALL.answer(&query), b"\x0f\x01FCGI_MPXS_CONNS1");
        assert_eq!(ALL.answer(b""), b"");
        assert_eq!(ALL.answer(b"\xff"), b"");
    }

    #[test]
    fn r40_query_and_answer_round_trip() {
        assert_eq!(Values::parse(&ALL.answer(&Values::query())), ALL);
        assert_eq!(
            Values::query(),
            b"\x0e\x00FCGI_MAX_CONNS\x0d\x00FCGI_MAX_REQS\x0f\x00FCGI_MPXS_CONNS\x11\x00FCGI_FLOW_CONTROL\x0c\x00FCGI_UPGRADE"
        );
    }

    #[test]
    fn odd_answers_count_as_not_said() {
        assert_eq!(
            Values::parse(b"\x0f\x03FCGI_MPXS_CONNSyes"),
            Values::default()
        );
        assert_eq!(Values::parse(b"\x0f\xffFCGI"), Values::default());
        assert_eq!(Values::parse(b""), Values::default());
        assert_eq!(
            Values::parse(b"\x0f\x01FCGI_MPXS_CONNS0").mpxs_conns,
            Some(false)
        );
    }
}
