//! The request that is sent over and over: the params of a GET as nginx's own `fastcgi_params` would give them.

use afcgi_cli::bench::engine::Template;

/// The size on the wire of [`Request::hello`]: BEGIN_REQUEST, PARAMS, the end of PARAMS and the end of STDIN.
pub const REQUEST_BYTES: usize = 736;

const HEADER: usize = 8;
const BEGIN: usize = 16;

/// A whole FastCGI request.
#[derive(Clone, Debug)]
pub struct Request(Template);

impl Request {
    /// A GET of `path` with 25 params and no body, in [`REQUEST_BYTES`] bytes (more when path and query are long).
    pub fn hello(path: &str, query: &str) -> Self {
        let uri = if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{query}")
        };
        let pairs = [
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
        ];
        let agent = "HTTP_USER_AGENT";
        // The lengths of a pair are a byte each, as long as they are below 128.
        let length = |(name, value): &(&str, &str)| 2 + name.len() + value.len();
        let taken: usize = pairs.iter().map(length).sum();
        let room = REQUEST_BYTES
            .saturating_sub(BEGIN + 3 * HEADER + taken + 2 + agent.len())
            .min(127);
        let words = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) ";
        let value: String = words.chars().cycle().take(room).collect();
        let pairs = pairs.into_iter().chain([(agent, value.as_str())]);
        let pairs = pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let mut template = Template::new(1, true, pairs, b"");
        template.pad(REQUEST_BYTES);
        Self(template)
    }

    /// Bytes on the wire.
    pub fn size(&self) -> usize {
        self.0.size()
    }
}

impl From<Request> for Template {
    fn from(request: Request) -> Self {
        request.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_its_stated_size() {
        for (path, query) in [("/", ""), ("/hello", ""), ("/delay", "ms=6000")] {
            assert_eq!(Request::hello(path, query).size(), REQUEST_BYTES);
        }
    }
}
