//! Records by hand. Nothing here uses the reader or the writer of `afcgi-proto`, so that a mistake
//! there is not made twice.

/// Record types as they are on the wire.
pub mod code {
    #![allow(missing_docs)]
    pub const BEGIN: u8 = 1;
    pub const ABORT: u8 = 2;
    pub const END: u8 = 3;
    pub const PARAMS: u8 = 4;
    pub const STDIN: u8 = 5;
    pub const STDOUT: u8 = 6;
    pub const STDERR: u8 = 7;
    pub const DATA: u8 = 8;
    pub const GET_VALUES: u8 = 9;
    pub const GET_VALUES_RESULT: u8 = 10;
    pub const UNKNOWN_TYPE: u8 = 11;
    pub const CREDIT: u8 = 64;
}

/// A record without padding.
pub fn record(code: u8, id: u16, content: &[u8]) -> Vec<u8> {
    padded(code, id, content, b"")
}

/// A record with padding.
///
/// # Panics
/// If the content or the padding is too long for a record.
pub fn padded(code: u8, id: u16, content: &[u8], padding: &[u8]) -> Vec<u8> {
    let [id1, id0] = id.to_be_bytes();
    let [len1, len0] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let padding_length = u8::try_from(padding.len()).unwrap();
    let header = [1, code, id1, id0, len1, len0, padding_length, 0];
    [&header[..], content, padding].concat()
}

/// BEGIN_REQUEST.
pub fn begin(id: u16, role: u16, flags: u8) -> Vec<u8> {
    let [role1, role0] = role.to_be_bytes();
    record(code::BEGIN, id, &[role1, role0, flags, 0, 0, 0, 0, 0])
}

/// END_REQUEST.
pub fn end(id: u16, app_status: u32, protocol_status: u8) -> Vec<u8> {
    let [s3, s2, s1, s0] = app_status.to_be_bytes();
    record(code::END, id, &[s3, s2, s1, s0, protocol_status, 0, 0, 0])
}

/// Name-value pairs, each length in four bytes.
///
/// # Panics
/// If a name or value is too long.
pub fn pairs(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        for length in [name.len(), value.len()] {
            out.extend((u32::try_from(length).unwrap() | 0x8000_0000).to_be_bytes());
        }
        out.extend(name.as_bytes());
        out.extend(value.as_bytes());
    }
    out
}

/// PARAMS, complete.
pub fn params(id: u16, list: &[(&str, &str)]) -> Vec<u8> {
    let content = pairs(list);
    let mut out = Vec::new();
    if !content.is_empty() {
        out.extend(record(code::PARAMS, id, &content));
    }
    out.extend(record(code::PARAMS, id, b""));
    out
}

/// A stream in records of up to `most` bytes, its end included.
pub fn stream(code: u8, id: u16, content: &[u8], most: usize) -> Vec<u8> {
    let mut out: Vec<u8> = (content.chunks(most))
        .flat_map(|part| record(code, id, part))
        .collect();
    out.extend(record(code, id, b""));
    out
}

/// A whole request of a responder, with FCGI_KEEP_CONN.
pub fn request(id: u16, list: &[(&str, &str)], stdin: &[u8]) -> Vec<u8> {
    [
        begin(id, 1, 1),
        params(id, list),
        stream(code::STDIN, id, stdin, 1000),
    ]
    .concat()
}

/// A whole response.
pub fn response(id: u16, stdout: &[u8]) -> Vec<u8> {
    [stream(code::STDOUT, id, stdout, 1000), end(id, 0, 0)].concat()
}

/// A record as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Type.
    pub code: u8,
    /// Request id, 0 for management.
    pub id: u16,
    /// Content.
    pub content: Vec<u8>,
    /// Padding.
    pub padding: Vec<u8>,
}

/// Takes a record off the front of `bytes`; `None` if it is not complete.
///
/// # Panics
/// If it is no record of version 1, or its reserved byte is not 0.
pub fn take(bytes: &mut &[u8]) -> Option<Record> {
    let header = bytes.get(..8)?;
    assert_eq!(header[0], 1, "version");
    assert_eq!(header[7], 0, "reserved byte");
    let content = 8 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let end = content + usize::from(header[6]);
    let record = Record {
        code: header[1],
        id: u16::from_be_bytes([header[2], header[3]]),
        content: bytes.get(8..content)?.to_vec(),
        padding: bytes.get(content..end)?.to_vec(),
    };
    *bytes = &bytes[end..];
    Some(record)
}

/// All records of `bytes`.
///
/// # Panics
/// If there is anything else, or a part of a record.
pub fn parse(mut bytes: &[u8]) -> Vec<Record> {
    let records = std::iter::from_fn(|| take(&mut bytes)).collect();
    assert!(bytes.is_empty(), "{} bytes of a record", bytes.len());
    records
}

/// Type and id of each record, and how much content there is.
pub fn outline(bytes: &[u8]) -> Vec<(u8, u16, usize)> {
    parse(bytes)
        .into_iter()
        .map(|record| (record.code, record.id, record.content.len()))
        .collect()
}

/// The content of a stream of a request.
pub fn content(bytes: &[u8], code: u8, id: u16) -> Vec<u8> {
    parse(bytes)
        .into_iter()
        .filter(|record| (record.code, record.id) == (code, id))
        .flat_map(|record| record.content)
        .collect()
}
