//! The limits of a client.

use std::time::Duration;

use afcgi_proto::Patience;
use afcgi_proto::cgi::HeadLimits;
use afcgi_proto::web;

use super::mapping::Mapping;

/// The limits of a client, all of them enforced.
///
/// What a client holds is at most what its connections hold (see [`web::Config`]), and for each
/// request `replay_buffer`, `params_bytes` and the bytes of `head`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Whether requests share connections where the application says that it multiplexes. `false`: it
    /// is not asked, and each request has a connection to itself. Default: yes.
    pub multiplex: bool,
    /// Shared connections to an address; 1 at least. Default: 1.
    pub connections: usize,
    /// The limits of one connection. Its `requests` is for shared ones, and an application may lower
    /// it by `FCGI_MAX_REQS`. Default: that of [`web::Config`], with 16384 requests.
    pub connection: web::Config,
    /// Connections to an address that carry one request at a time: where the application does not
    /// multiplex, and for requests with a body where there is no flow control. An application may
    /// lower it by `FCGI_MAX_CONNS`, if it says more than 1, which each of several processes may say of
    /// itself; 1 at least. Default: 64.
    pub single_connections: usize,
    /// Whether connections to an application that does not multiplex are kept for further requests
    /// . The end of a response is no promise that a process is free for the next request on its
    /// connection, nor that it takes one: a script of PHP's may work on after it, and a process may end
    /// or be replaced. Such a request waits, or fails with [`Error::Lost`](super::Error::Lost); and each
    /// kept connection takes a process from everybody else. Default: no, each request has a connection of
    /// its own, which is closed after it.
    pub keep_conn: bool,
    /// How many connections for one request at a time are kept without a request, to an application that
    /// multiplexes, or with `keep_conn`; half as many as an application says that it takes, at most.
    /// Default: 8.
    pub single_idle: usize,
    /// How long such a one is kept. Default: 250 ms.
    pub single_idle_timeout: Duration,
    /// Requests that may wait for a connection to an address; a further one fails at once.
    /// Default: 1024.
    pub queue: usize,
    /// How long a request may wait for a connection, connecting included. Default: 10 s.
    pub queue_timeout: Duration,
    /// How long connecting may take, and looking up a name. Default: 5 s.
    pub connect_timeout: Duration,
    /// How long an application may take to answer GET_VALUES, before it counts as one that does not
    /// multiplex, and when it is asked again. Its `shared` is also for the question whether the
    /// application still reads a connection on which a request timed out. Default: that of
    /// [`Patience`](super::Patience), 100 ms where nothing is known of the application.
    pub patience: Patience,
    /// How long the application may take nothing of a request's body while there is more of it, or of
    /// a connection while there is output for it. Default: 60 s.
    pub send_timeout: Duration,
    /// How long a request that was sent may be without the first byte of an answer. `None`: as long
    /// as it likes. Default: 60 s.
    pub first_byte_timeout: Option<Duration>,
    /// How long a response that has begun may pause, while somebody waits for more of it; not for
    /// tunnels. `None`: as long as it likes. Default: 60 s.
    pub read_timeout: Option<Duration>,
    /// How long a shared connection is kept without a request. Default: 60 s.
    pub idle_timeout: Duration,
    /// The age at which a connection gets no more requests. Default: 1 h.
    pub lifetime: Duration,
    /// Requests after which a connection gets no more of them. Default: 2^32 - 1.
    pub max_requests: u32,
    /// After connecting failed, requests fail at once for this long, twice as long after each further
    /// failure, up to `backoff_most`, less up to half of it by chance. Default: 100 ms.
    pub backoff: Duration,
    /// See `backoff`. Default: 10 s.
    pub backoff_most: Duration,
    /// How often a request may be sent again: one that was refused unprocessed or not written, or an
    /// idempotent one whose shared connection had served others and turned out closed (see
    /// [`Error::is_retryable`](super::Error::is_retryable)). Default: 2.
    pub retries: u32,
    /// How long to wait before a request that was refused is sent to the same address again, so many
    /// times the number of attempts. Default: 50 ms.
    pub retry_pause: Duration,
    /// Bytes of a request body that are kept until the response begins, so that the request can be
    /// sent again. Default: 64 KiB.
    pub replay_buffer: usize,
    /// Bytes up to which a body of unknown length is read before its request is sent, so that
    /// CONTENT_LENGTH can be told: programs such as PHP read nothing without. One that is longer is
    /// sent as it comes, without. Default: 0, so that it is sent at once.
    pub collect_body: usize,
    /// Bytes of the parameters of a request. Default: 256 KiB.
    pub params_bytes: usize,
    /// The limits of a response head, interim ones (1xx) before it included.
    pub head: HeadLimits,
    /// Bytes of STDERR that are logged of one request. Default: 16 KiB.
    pub stderr_bytes: usize,
    /// How many local redirects (RFC 3875 section 6.2.2) are followed: responses that are nothing but a
    /// `Location` with a path. With another field, a body or a fragment it is for the client, as a 302, and so is that of
    /// an authorizer or a filter. 0: all of them are. Default: 5.
    pub local_redirects: u32,
    /// Whether requests may become tunnels where the application offers it (`docs/upgrade.md`).
    /// Default: yes.
    pub upgrades: bool,
    /// How often the names of addresses are looked up again. Default: 30 s.
    pub resolve_interval: Duration,
    /// Addresses that are used of those that one name has. Default: 64.
    pub resolve_most: usize,
    /// What requests look like to the application.
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
