//! What a gateway is to do, checked, with defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use afcgi::Address;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::network::Network;
use super::values::LogFormat;

/// The name of the upstream that the options make.
pub(super) const COMMAND_LINE: &str = "command-line";

/// Requests and connections of clients of a gateway that is part of another program: no limit of its own.
const EMBEDDED: usize = 65_536;

/// What a gateway is to do: everything that can be configured, checked.
#[derive(Debug)]
pub struct Settings {
    pub(crate) listen: Vec<Address>,
    pub(crate) admin: Option<Address>,
    /// Permission bits of unix sockets; `None`: as the umask makes them.
    pub(crate) socket_mode: Option<u32>,
    pub(crate) tls: Option<Tls>,
    /// A file, or `-` for standard output.
    pub(crate) access_log: Option<PathBuf>,
    /// Of the access log and of STDERR.
    pub(crate) log_format: LogFormat,
    pub(crate) trusted: Vec<Network>,
    pub(crate) limits: Limits,
    pub(crate) upstreams: BTreeMap<String, Upstream>,
    /// In the order in which they are to be looked at.
    pub(crate) routes: Vec<Route>,
}

/// A certificate and its key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// What clients may ask of the gateway. See `docs/gateway.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) body: u64,
    pub(crate) header: usize,
    pub(crate) connections: usize,
    pub(crate) requests: usize,
    /// Bytes of responses that wait for clients of HTTP/2 to read, but for what each connection may hold anyway.
    pub(crate) responses: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) send_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 100 << 20,
            header: 64 << 10,
            connections: 16_384,
            requests: 16_384,
            responses: 64 << 20,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// An application, at one address or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) addresses: Vec<Address>,
    pub(crate) multiplex: bool,
    /// How long a request waits to find out whether the application multiplexes, where nothing is known of it.
    pub(crate) probe_timeout: Duration,
    pub(crate) connections: usize,
    pub(crate) single_connections: usize,
    pub(crate) keep_conn: bool,
    pub(crate) single_idle: usize,
    pub(crate) single_idle_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) resolve_interval: Duration,
    pub(crate) queue: usize,
    pub(crate) queue_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) send_timeout: Duration,
    pub(crate) first_byte_timeout: Option<Duration>,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) retries: u32,
    /// Bytes of a request body of unknown length that are read before the request is sent. It has a default where there are scripts:
    /// they have no more of a body than CONTENT_LENGTH says.
    pub(crate) collect_body: Option<u64>,
    /// Whether a redirect within the application is followed by the gateway: not where paths are files, since
    /// what a path is there is looked up here, and not where an authorizer protects some of them.
    pub(crate) local_redirects: bool,
}

impl Upstream {
    pub(super) fn new(addresses: Vec<Address>) -> Self {
        let client = afcgi::client::Config::default();
        Self {
            addresses,
            multiplex: client.multiplex,
            probe_timeout: client.patience.unknown,
            connections: client.connections,
            single_connections: client.single_connections,
            keep_conn: client.keep_conn,
            single_idle: client.single_idle,
            single_idle_timeout: client.single_idle_timeout,
            idle_timeout: client.idle_timeout,
            resolve_interval: client.resolve_interval,
            queue: client.queue,
            queue_timeout: client.queue_timeout,
            connect_timeout: client.connect_timeout,
            send_timeout: client.send_timeout,
            first_byte_timeout: client.first_byte_timeout,
            read_timeout: client.read_timeout,
            retries: client.retries,
            collect_body: None,
            local_redirects: true,
        }
    }
}

/// What becomes of the requests to a host and below a path.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) hosts: Vec<Host>,
    /// Without a `/` at its end: empty for everything.
    pub(crate) path: String,
    pub(crate) upstream: Option<String>,
    pub(crate) files: Option<Files>,
    pub(crate) script_name: String,
    pub(crate) params: Vec<(Bytes, Bytes)>,
    pub(crate) request_headers: HeaderRules,
    pub(crate) response_headers: HeaderRules,
    pub(crate) authorizer: Option<String>,
    /// What files go through.
    pub(crate) filter: Option<String>,
    /// Prefixes of `X-Accel-Redirect`, and the folders they stand for; `X-Sendfile` names a file in one of
    /// the folders.
    pub(crate) sendfile: Vec<(String, PathBuf)>,
    /// Whether the text of scripts may be sent in place of a response.
    pub(crate) send_scripts: bool,
    pub(crate) body: Option<u64>,
}

/// Files and scripts of a route.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) root: PathBuf,
    /// Bytes of the path that are not part of file names.
    pub(crate) strip: usize,
    pub(crate) index: Vec<String>,
    pub(crate) split_path: Vec<String>,
    /// Whether what is no script to run, and looks like one, is sent.
    pub(crate) send_scripts: bool,
    pub(crate) try_files: Vec<Try>,
}

/// One entry of `try_files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Try {
    /// The path, with something before and after it.
    Uri { before: String, after: String },
    /// A fixed path.
    Path(String),
    /// The end: this status.
    Status(http::StatusCode),
}

/// A host of a route, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Exact(String),
    /// The end of the name, with the dot before it.
    Below(String),
}

/// Header fields to set and to remove.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderRules {
    pub(crate) set: Vec<(HeaderName, HeaderValue)>,
    pub(crate) remove: Vec<HeaderName>,
}

impl Settings {
    /// How the access log is written, and whatever else the program says.
    pub fn log_format(&self) -> LogFormat {
        self.log_format
    }

    /// One application, whose responses may be silent for as long as they like.
    pub(crate) fn embedded(application: Address) -> Self {
        let mut upstream = Upstream::new(vec![application]);
        upstream.first_byte_timeout = None;
        upstream.read_timeout = None;
        let mut route = Route::new();
        route.upstream = Some(COMMAND_LINE.to_owned());
        Self {
            listen: Vec::new(),
            admin: None,
            socket_mode: None,
            tls: None,
            access_log: None,
            log_format: LogFormat::default(),
            trusted: Vec::new(),
            limits: Limits {
                requests: EMBEDDED,
                connections: EMBEDDED,
                drain_timeout: Duration::from_secs(2),
                ..Limits::default()
            },
            upstreams: BTreeMap::from([(COMMAND_LINE.to_owned(), upstream)]),
            routes: vec![route],
        }
    }
}

impl Route {
    pub(super) fn new() -> Self {
        Self {
            hosts: Vec::new(),
            path: String::new(),
            upstream: None,
            files: None,
            script_name: String::new(),
            params: Vec::new(),
            request_headers: HeaderRules::default(),
            response_headers: HeaderRules::default(),
            authorizer: None,
            filter: None,
            sendfile: Vec::new(),
            send_scripts: false,
            body: None,
        }
    }

    /// Whether files are run by its application.
    pub(crate) fn has_scripts(&self) -> bool {
        let files = self.files.as_ref();
        self.upstream.is_some() && files.is_some_and(|files| !files.split_path.is_empty())
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        (self.hosts.is_empty() && other.hosts.is_empty())
            || self.hosts.iter().any(|host| other.hosts.contains(host))
    }
}

impl Files {
    /// Scripts of PHP below no root yet.
    #[cfg(test)]
    pub(crate) fn scripts() -> Self {
        Self::new(true)
    }

    /// With an application: scripts of PHP with a front controller. Without: files alone.
    pub(super) fn new(scripts: bool) -> Self {
        let index: &[&str] = if scripts {
            &["index.php", "index.html"]
        } else {
            &["index.html"]
        };
        let mut try_files = vec![Try::uri("", ""), Try::uri("", "/")];
        if scripts {
            try_files.push(Try::Path("/index.php".to_owned()));
        }
        Self {
            root: PathBuf::new(),
            strip: 0,
            index: index.iter().map(|&name| name.to_owned()).collect(),
            split_path: if scripts {
                vec![".php".to_owned()]
            } else {
                Vec::new()
            },
            send_scripts: false,
            try_files,
        }
    }
}

impl Try {
    pub(super) fn uri(before: &str, after: &str) -> Self {
        Self::Uri {
            before: before.to_owned(),
            after: after.to_owned(),
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(status) = text.strip_prefix('=') {
            return match status.parse() {
                Ok(status) if (400..600).contains(&status) => http::StatusCode::from_u16(status)
                    .map(Self::Status)
                    .map_err(|error| error.to_string()),
                _ => Err(format!(
                    "`{text}` is not a status: expected one such as `=404`"
                )),
            };
        }
        match text.split_once("$uri") {
            Some((before, after)) if !after.contains('$') && !before.contains('$') => {
                Ok(Self::uri(before, after))
            }
            None if text.starts_with('/') && !text.contains(['$', '?']) => {
                Ok(Self::Path(text.to_owned()))
            }
            _ => Err(format!(
                "`{text}` cannot be tried: expected `$uri`, with or without a suffix such as `$uri/` or `$uri.html`, \
                 a path such as `/index.php` (the query is kept), or a status such as `=404`"
            )),
        }
    }
}
