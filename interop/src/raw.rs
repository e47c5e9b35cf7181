//! FastCGI by hand: records as bytes, in and out, right or wrong.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Record types.
pub mod kind {
    #![allow(missing_docs, reason = "the names are those of the specification")]
    pub const BEGIN_REQUEST: u8 = 1;
    pub const ABORT_REQUEST: u8 = 2;
    pub const END_REQUEST: u8 = 3;
    pub const PARAMS: u8 = 4;
    pub const STDIN: u8 = 5;
    pub const STDOUT: u8 = 6;
    pub const STDERR: u8 = 7;
    pub const GET_VALUES: u8 = 9;
    pub const GET_VALUES_RESULT: u8 = 10;
    pub const UNKNOWN_TYPE: u8 = 11;
}

/// A record that came in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Its type, see [`kind`].
    pub kind: u8,
    /// Its request id.
    pub id: u16,
    /// Its content, without padding.
    pub content: Vec<u8>,
}

/// A whole record without padding.
pub fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len())
        .expect("content of at most 65,535 bytes")
        .to_be_bytes();
    let id = id.to_be_bytes();
    let mut bytes = vec![1, kind, id[0], id[1], length[0], length[1], 0, 0];
    bytes.extend_from_slice(content);
    bytes
}

/// BEGIN_REQUEST for a responder, with FCGI_KEEP_CONN.
pub fn begin(id: u16) -> Vec<u8> {
    record(kind::BEGIN_REQUEST, id, &[0, 1, 1, 0, 0, 0, 0, 0])
}

/// A name-value pair with lengths below 128.
pub fn pair(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| {
        u8::try_from(text.len())
            .ok()
            .filter(|length| *length < 128)
            .expect("a short text")
    };
    let mut bytes = vec![length(name), length(value)];
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

/// PARAMS of a GET request, as one record and the empty one.
pub fn params(id: u16, path: &str, query: &str) -> Vec<u8> {
    let mut content = Vec::new();
    for (name, value) in [
        ("REQUEST_METHOD", "GET"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SCRIPT_NAME", path),
        ("QUERY_STRING", query),
        ("REQUEST_URI", path),
        ("HTTP_HOST", "localhost"),
    ] {
        content.extend_from_slice(&pair(name, value));
    }
    [
        record(kind::PARAMS, id, &content),
        record(kind::PARAMS, id, &[]),
    ]
    .concat()
}

/// A complete GET request.
pub fn request(id: u16, path: &str, query: &str) -> Vec<u8> {
    [
        begin(id),
        params(id, path, query),
        record(kind::STDIN, id, &[]),
    ]
    .concat()
}

/// A connection to the application on a port of 127.0.0.1.
pub async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("a connection to the application")
}

/// The next record, or None when the peer has closed or reset the connection.
pub async fn read(socket: &mut (impl AsyncRead + Unpin)) -> Option<Record> {
    let mut header = [0; 8];
    socket.read_exact(&mut header).await.ok()?;
    assert_eq!(header[0], 1, "the version of {header:?}");
    let mut content = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]]))];
    socket.read_exact(&mut content).await.ok()?;
    let mut padding = vec![0; usize::from(header[6])];
    socket.read_exact(&mut padding).await.ok()?;
    Some(Record {
        kind: header[1],
        id: u16::from_be_bytes([header[2], header[3]]),
        content,
    })
}

/// Sends a request on a fresh connection and returns STDOUT.
///
/// # Panics
/// When the connection ends before END_REQUEST, or another request's record comes.
pub async fn get(port: u16, path: &str, query: &str) -> Vec<u8> {
    let mut socket = connect(port).await;
    socket
        .write_all(&request(1, path, query))
        .await
        .expect("the request");
    let mut stdout = Vec::new();
    loop {
        let record = read(&mut socket)
            .await
            .expect("END_REQUEST before the end of the connection");
        assert_eq!(record.id, 1, "{record:?}");
        match record.kind {
            kind::STDOUT => stdout.extend_from_slice(&record.content),
            kind::STDERR => {}
            kind::END_REQUEST => {
                assert_eq!(
                    record.content.get(4),
                    Some(&0),
                    "REQUEST_COMPLETE: {record:?}"
                );
                return stdout;
            }
            _ => panic!("{record:?}"),
        }
    }
}
