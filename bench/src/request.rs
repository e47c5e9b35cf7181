//! The request that is sent over and over: the params of a GET as nginx's own `fastcgi_params` would give them.

/// The size on the wire of [`Request::hello`]: BEGIN_REQUEST, PARAMS, the end of PARAMS and the end of STDIN.
pub const REQUEST_BYTES: usize = 736;

const HEADER: usize = 8;
const BEGIN: usize = 16;

/// A whole FastCGI request, with the places where its id goes.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
    ids: [usize; 4],
}

impl Request {
    /// A GET of `path` with 25 params and no body, in [`REQUEST_BYTES`] bytes (more when path and query are long).
    pub fn hello(path: &str, query: &str) -> Self {
        let uri = if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{query}")
        };
        let mut params = Vec::new();
        for (name, value) in [
            ("QUERY_STRING", query),
            ("REQUEST_METHOD", "GET"),
            ("CONTENT_TYPE", ""),
            ("CONTENT_LENGTH", ""),
            ("SCRIPT_NAME", path),
            ("REQUEST_URI", &uri),
            ("DOCUMENT_URI", path),
            ("DOCUMENT_ROOT", "/var/www/html"),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("REQUEST_SCHEME", "http"),
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("SERVER_SOFTWARE", "nginx/1.28.0"),
            ("REMOTE_ADDR", "192.0.2.17"),
            ("REMOTE_PORT", "50312"),
            ("SERVER_ADDR", "192.0.2.1"),
            ("SERVER_PORT", "80"),
            ("SERVER_NAME", "www.example.org"),
            ("REDIRECT_STATUS", "200"),
            ("HTTP_HOST", "www.example.org"),
            ("HTTP_ACCEPT", "text/html,application/xhtml+xml,*/*;q=0.8"),
            ("HTTP_ACCEPT_LANGUAGE", "en-GB,en;q=0.5"),
            ("HTTP_ACCEPT_ENCODING", "gzip, deflate, br"),
            ("HTTP_CONNECTION", "keep-alive"),
            ("HTTP_COOKIE", "session=4f1c9a02d7"),
        ] {
            pair(&mut params, name, value.as_bytes());
        }
        let agent = "HTTP_USER_AGENT";
        let room = REQUEST_BYTES
            .saturating_sub(BEGIN + 3 * HEADER + params.len() + 2 + agent.len())
            .min(127);
        let value: Vec<u8> = b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) "
            .iter()
            .copied()
            .cycle()
            .take(room)
            .collect();
        pair(&mut params, agent, &value);
        Self::new(&params, REQUEST_BYTES)
    }

    /// A responder's request with KEEP_CONN set, the encoded `params` (at most 65,535 bytes) and no body. The PARAMS
    /// record is padded up to `size` bytes in all, as far as padding reaches.
    pub fn new(params: &[u8], size: usize) -> Self {
        let length = u16::try_from(params.len()).expect("params fit one record");
        let padding =
            u8::try_from(size.saturating_sub(BEGIN + 3 * HEADER + params.len())).unwrap_or(0);
        let mut bytes = vec![1, 1, 0, 0, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0];
        let [high, low] = length.to_be_bytes();
        let params_at = bytes.len();
        bytes.extend_from_slice(&[1, 4, 0, 0, high, low, padding, 0]);
        bytes.extend_from_slice(params);
        bytes.resize(bytes.len() + usize::from(padding), 0);
        let end = bytes.len();
        bytes.extend_from_slice(&[1, 4, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[1, 5, 0, 0, 0, 0, 0, 0]);
        Self {
            bytes,
            ids: [2, params_at + 2, end + 2, end + HEADER + 2],
        }
    }

    /// Bytes on the wire.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn write(&self, id: u16, output: &mut Vec<u8>) {
        let start = output.len();
        output.extend_from_slice(&self.bytes);
        for at in self.ids {
            if let Some(place) = output.get_mut(start + at..start + at + 2) {
                place.copy_from_slice(&id.to_be_bytes());
            }
        }
    }
}

/// R-20: one byte below 128, otherwise four with the top bit set.
fn pair(params: &mut Vec<u8>, name: &str, value: &[u8]) {
    for length in [name.len(), value.len()] {
        match u8::try_from(length) {
            Ok(short) if short < 128 => params.push(short),
            _ => {
                let long =
                    u32::try_from(length).expect("a value in memory of less than 2 GiB") | 1 << 31;
                params.extend_from_slice(&long.to_be_bytes());
            }
        }
    }
    params.extend_from_slice(name.as_bytes());
    params.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_its_stated_size_and_records() {
        for (path, query) in [("/", ""), ("/hello", ""), ("/delay", "ms=6000")] {
            let request = Request::hello(path, query);
            assert_eq!(request.size(), REQUEST_BYTES);
            let mut output = b"before".to_vec();
            request.write(0x1234, &mut output);
            let mut rest = &output[6..];
            let mut kinds = Vec::new();
            while !rest.is_empty() {
                assert_eq!((rest[0], &rest[2..4]), (1, &[0x12, 0x34][..]));
                let length = usize::from(u16::from_be_bytes([rest[4], rest[5]]));
                kinds.push((rest[1], length > 0));
                rest = &rest[8 + length + usize::from(rest[6])..];
            }
            assert_eq!(kinds, [(1, true), (4, true), (4, false), (5, false)]);
        }
    }

    #[test]
    fn long_values_take_four_bytes() {
        let mut params = Vec::new();
        pair(&mut params, "N", &[b'x'; 128]);
        assert_eq!(params[..6], [1, 0x80, 0, 0, 128, b'N']);
        assert_eq!(params.len(), 1 + 4 + 1 + 128);
    }
}
