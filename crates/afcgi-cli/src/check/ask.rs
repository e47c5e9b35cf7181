//! A request to the application, part by part, so that each part can be sent otherwise.

use super::raw::{self, KEEP, MOST, RESPONDER, begin, kind, pair, record, stream};

/// A request as a web server would send it.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) id: u16,
    pub(crate) role: u16,
    pub(crate) flags: u8,
    pub(crate) params: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Ask {
    pub(crate) fn new(id: u16, params: &[(Vec<u8>, Vec<u8>)]) -> Self {
        Self {
            id,
            role: RESPONDER,
            flags: KEEP,
            params: params.to_vec(),
            body: Vec::new(),
        }
    }

    /// With a parameter, in place of the one of that name.
    pub(crate) fn param(mut self, name: &[u8], value: &[u8]) -> Self {
        self.params.retain(|pair| pair.0 != name);
        self.params.push((name.to_vec(), value.to_vec()));
        self
    }

    /// Without FCGI_KEEP_CONN.
    pub(crate) fn closing(mut self) -> Self {
        self.flags = 0;
        self
    }

    /// In another role.
    pub(crate) fn role(mut self, role: u16) -> Self {
        self.role = role;
        self
    }

    /// POST with a body.
    pub(crate) fn body(self, body: &[u8]) -> Self {
        let length = body.len().to_string();
        let mut ask = self
            .param(b"REQUEST_METHOD", b"POST")
            .param(b"CONTENT_TYPE", b"application/octet-stream")
            .param(b"CONTENT_LENGTH", length.as_bytes());
        ask.body = body.to_vec();
        ask
    }

    /// BEGIN_REQUEST.
    pub(crate) fn begin(&self) -> Vec<u8> {
        begin(self.id, self.role, self.flags)
    }

    /// The pairs of PARAMS.
    pub(crate) fn pairs(&self) -> Vec<u8> {
        let pairs = self.params.iter();
        pairs.flat_map(|(name, value)| pair(name, value)).collect()
    }

    /// PARAMS with its end. No pair is cut, unless it is longer than a record.
    pub(crate) fn params(&self) -> Vec<u8> {
        let (mut out, mut content) = (Vec::new(), Vec::new());
        for (name, value) in &self.params {
            let pair = pair(name, value);
            if content.len() + pair.len() > MOST {
                out.extend(self.part(&std::mem::take(&mut content)));
            }
            content.extend(pair);
        }
        out.extend(self.part(&content));
        out.extend(record(kind::PARAMS, self.id, &[]));
        out
    }

    fn part(&self, content: &[u8]) -> Vec<u8> {
        let records = content.chunks(MOST);
        records
            .flat_map(|part| record(kind::PARAMS, self.id, part))
            .collect()
    }

    /// These pairs as PARAMS, in records of so many bytes, with its end.
    pub(crate) fn params_in_records_of(&self, most: usize) -> Vec<u8> {
        stream(kind::PARAMS, self.id, &self.pairs(), most)
    }

    /// STDIN with its end.
    pub(crate) fn stdin(&self) -> Vec<u8> {
        stream(kind::STDIN, self.id, &self.body, 32_768)
    }

    /// All but the end of STDIN.
    pub(crate) fn unfinished(&self) -> Vec<u8> {
        let mut bytes = [self.begin(), self.params()].concat();
        if !self.body.is_empty() {
            let stdin = self.stdin();
            bytes.extend(&stdin[..stdin.len() - 8]);
        }
        bytes
    }

    /// The end of STDIN.
    pub(crate) fn end(&self) -> Vec<u8> {
        record(kind::STDIN, self.id, &[])
    }

    /// The whole request.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.begin(), self.params(), self.stdin()].concat()
    }

    /// The whole request with other PARAMS records.
    pub(crate) fn with_params(&self, params: &[u8]) -> Vec<u8> {
        [&self.begin(), params, &self.stdin()].concat()
    }

    /// The whole request, under flow control.
    pub(crate) fn controlled(&self, credit: u32) -> Vec<u8> {
        let begin = raw::begin_controlled(self.id, credit);
        [begin, self.params(), self.stdin()].concat()
    }
}
