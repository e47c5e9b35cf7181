//! The limits of a client.

use std::time::Duration;

use afcgi_proto::Patience;
use afcgi_proto::cgi::HeadLimits;
use afcgi_proto::web;

use super::mapping::Mapping;

/// The limits of a client. The client enforces all of them.
///
/// A client holds at most what its connections hold (see [`web::Config`]), and for each
/// request `replay_buffer`, `params_bytes` and the bytes of `head`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Whether requests share connections if the application says that it multiplexes. `false`: the
    /// client does not ask, and each request has a connection to itself. Default: yes.
    pub multiplex: bool,
    /// Maximum shared connections to an address; at least 1. Default: 1.
    pub connections: usize,
    /// The limits of one connection. Its `requests` applies to shared connections, and an application
    /// may lower it by `FCGI_MAX_REQS`. Default: that of [`web::Config`], with 16384 requests.
    pub connection: web::Config,
    /// Maximum connections to an address that carry one request at a time; at least 1. They are used if the
    /// application does not multiplex, and for requests with a body if there is no flow control. An
    /// application may lower this by an `FCGI_MAX_CONNS` greater than 1. The client ignores 1, because each
    /// of several processes may say that of itself. Default: 64.
    pub single_connections: usize,
    /// Whether to keep connections to an application that does not multiplex for further requests
    /// . Default: no, each request has a connection of its own, which is closed after it.
    ///
    /// Each kept connection takes a process from all other clients. The end of a response does not
    /// guarantee that a process is free for the next request on its connection, nor that it takes one: a
    /// PHP script may continue after the response, and a process may end or be replaced. Such a request
    /// waits, or fails with [`Error::Lost`](super::Error::Lost).
    pub keep_conn: bool,
    /// Maximum idle connections that carry one request at a time. The client keeps them for an application
    /// that multiplexes, or with `keep_conn`, but at most half as many as the application says that it
    /// takes. Default: 8.
    pub single_idle: usize,
    /// How long such an idle connection is kept. Default: 250 ms.
    pub single_idle_timeout: Duration,
    /// Size of the request queue of an address: how many requests may wait for a connection. When it is
    /// full, further requests fail at once. Default: 1024.
    pub queue: usize,
    /// How long a request may wait for a connection, including connecting. Default: 10 s.
    pub queue_timeout: Duration,
    /// How long connecting may take, and looking up a name. Default: 5 s.
    pub connect_timeout: Duration,
    /// How long an application may take to answer GET_VALUES before the client treats it as one that does
    /// not multiplex, and when the client asks again. After a request on a connection timed out, the client
    /// checks whether the application still reads the connection, and `shared` is the time limit for that.
    /// Default: that of [`Patience`](super::Patience), 100 ms if nothing is known about the application.
    pub patience: Patience,
    /// How long the application may read nothing of a request's body while there is more of it, or of
    /// a connection while there is output for it. Default: 60 s.
    pub send_timeout: Duration,
    /// How long to wait for the first byte of the response after sending a request. `None`: no limit.
    /// Default: 60 s.
    pub first_byte_timeout: Option<Duration>,
    /// How long a response may pause after it has begun, while somebody waits for more of it. It does not
    /// apply to tunnels. `None`: no limit. Default: 60 s.
    pub read_timeout: Option<Duration>,
    /// Idle timeout of a shared connection. Default: 60 s.
    pub idle_timeout: Duration,
    /// The age at which a connection gets no more requests. Default: 1 h.
    pub lifetime: Duration,
    /// The number of requests after which a connection gets no more of them. Default: 2^32 - 1.
    pub max_requests: u32,
    /// How long requests fail at once after connecting failed. It doubles after each further failure, up
    /// to `backoff_most`, and is reduced by a random part of up to half. Default: 100 ms.
    pub backoff: Duration,
    /// See `backoff`. Default: 10 s.
    pub backoff_most: Duration,
    /// How often a request may be sent again. The client repeats a request that was refused unprocessed or
    /// not written, or an idempotent one whose shared connection had served others and turned out to be
    /// closed (see [`Error::is_retryable`](super::Error::is_retryable)). Default: 2.
    pub retries: u32,
    /// How long to wait before a refused request is sent to the same address again, multiplied by the
    /// number of attempts. Default: 50 ms.
    pub retry_pause: Duration,
    /// Bytes of a request body that the client keeps until the response begins, so that it can send the
    /// request again. Default: 64 KiB.
    pub replay_buffer: usize,
    /// Bytes of a body of unknown length that the client reads before it sends the request, so that it can
    /// set CONTENT_LENGTH: programs such as PHP read no body without it. The client sends a longer body as it
    /// comes, without CONTENT_LENGTH. Default: 0, so that every such body is sent at once.
    pub collect_body: usize,
    /// Maximum bytes of the parameters of a request. Default: 256 KiB.
    pub params_bytes: usize,
    /// The limits of a response header, including interim responses (1xx) before it.
    pub head: HeadLimits,
    /// Maximum bytes of STDERR that are logged for one request. Default: 16 KiB.
    pub stderr_bytes: usize,
    /// How many local redirects (RFC 3875 section 6.2.2) the client follows for a request. A local redirect
    /// is a response with only a `Location` that is a path. A response with another field, a body or a
    /// fragment goes to the caller as a 302, and so does a redirect by an authorizer or a filter. 0: all
    /// redirects go to the caller. Default: 5.
    pub local_redirects: u32,
    /// Whether requests may become tunnels if the application offers it (`docs/upgrade.md`).
    /// Default: yes.
    pub upgrades: bool,
    /// How often the client looks up the names of addresses again. Default: 30 s.
    pub resolve_interval: Duration,
    /// Maximum addresses that are used for one name. Default: 64.
    pub resolve_most: usize,
    /// How the application sees requests.
    pub mapping: Mapping,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            multiplex: true,
            connections: 1,
            connection: web::Config {
                requests: 16_384,
                ..web::Config::default()
            },
            single_connections: 64,
            keep_conn: false,
            single_idle: 8,
            single_idle_timeout: Duration::from_millis(250),
            queue: 1024,
            queue_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            patience: Patience::default(),
            send_timeout: Duration::from_secs(60),
            first_byte_timeout: Some(Duration::from_secs(60)),
            read_timeout: Some(Duration::from_secs(60)),
            idle_timeout: Duration::from_secs(60),
            lifetime: Duration::from_secs(3600),
            max_requests: u32::MAX,
            backoff: Duration::from_millis(100),
            backoff_most: Duration::from_secs(10),
            retries: 2,
            retry_pause: Duration::from_millis(50),
            replay_buffer: 64 * 1024,
            collect_body: 0,
            params_bytes: 256 * 1024,
            head: HeadLimits::default(),
            stderr_bytes: 16 * 1024,
            local_redirects: 5,
            upgrades: true,
            resolve_interval: Duration::from_secs(30),
            resolve_most: 64,
            mapping: Mapping::default(),
        }
    }
}
