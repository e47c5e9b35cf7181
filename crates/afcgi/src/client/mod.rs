//! The web server's side: a client of FastCGI applications.
//!
//! [`Client`] sends HTTP requests to an application. If the application multiplexes, the client uses one
//! shared connection; if not, as PHP-FPM, it uses a bounded pool of connections. It detects which by
//! itself.
//!
//! ```no_run
//! use afcgi::client::Client;
//! use http_body_util::{BodyExt, Empty};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("127.0.0.1:5000").await?;
//! let request = http::Request::get("http://localhost/hello").body(Empty::<&[u8]>::new())?;
//! let response = client.request(request).await?;
//! println!("{}", response.status());
//! println!("{:?}", response.into_body().collect().await?.to_bytes());
//! # Ok(())
//! # }
//! ```
//!
//! # Parameters
//!
//! The client sends the CGI variables of RFC 3875. It takes most of them from the request's header. The
//! extensions of the request add the rest: [`RemoteAddr`](crate::RemoteAddr), [`LocalAddr`], an
//! `http::uri::Scheme`, [`ExtraParams`], [`Script`]; a [`Role`](crate::Role) for an authorizer, and
//! [`Data`] for a filter. [`Mapping`] sets what all requests have in common.
//!
//! The client omits only fields about a connection, such as `Connection` and `TE`. It does not omit the
//! fields that `Connection` names, because they may have been added on the way. A proxy should remove those
//! with [`remove_hop_by_hop`] when it receives a request.
//!
//! The extensions [`OnInterim`], [`OnStderr`] and [`Trace`] observe a request.
//!
//! # Errors
//!
//! An incomplete response is an error, never a short success. [`Client::request`] reports errors up to the
//! response header, and [`ResponseBody`] reports later ones. [`Error`] says what went wrong, whose fault it
//! is, and which status a gateway should answer with. The client repeats a request only if the application has
//! not worked on it, or if it is idempotent and its kept connection turned out to be closed.

mod balance;
mod body;
mod cgi;
mod config;
mod connection;
mod data;
mod error;
mod exchange;
mod linger;
mod mount;
mod place;
mod pool;
mod request;
mod resolve;
mod shared;
mod stats;
mod stderr;
mod streams;
mod trace;
mod upgrade;
mod upload;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};

pub use afcgi_proto::Patience;
pub use body::ResponseBody;
pub use cgi::hop::{asks_for_upgrade, remove_hop_by_hop};
pub use cgi::mapping::{Mapping, MappingError, Script};
pub use cgi::params::{ExtraParams, LocalAddr};
pub use config::Config;
pub use data::Data;
pub use error::{Awaited, Culprit, Error, Lost};
pub use exchange::OnInterim;
pub use mount::Mount;
pub use stats::Snapshot;
pub use stderr::OnStderr;
pub use trace::Trace;
pub use upgrade::{Upgraded, upgraded};

use crate::address::{Address, AddressError};
use balance::Balance;
use cgi::mapping;
use resolve::Resolver;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client of a FastCGI application at one or more addresses. Cloning is cheap, and all clones
/// share their connections.
///
/// Use it within a tokio runtime. Its connections live on the runtime on which they were opened. With a
/// runtime for each thread, create a client for each. When the last clone is dropped, each connection is
/// closed after its last request.
///
/// As a [`tower::Service`] it is always ready. Requests that have to wait do so in a queue, which
/// [`Config`] limits.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    balance: Arc<Balance>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.balance.close();
    }
}

impl Client {
    /// Connects to the application at an address (see [`Address`] for the syntax) and returns a client.
    /// If the address contains a name, the client looks it up, and uses all its addresses alike, including
    /// later ones.
    ///
    /// Fails with [`Error::Resolve`] or [`Error::Connect`]. [`Client::builder`] returns a client
    /// without connecting.
    pub async fn connect(address: &str) -> Result<Self, Error> {
        let client = Self::builder()
            .address(address)
            .build()
            .map_err(|error| Error::Resolve {
                host: address.into(),
                source: Arc::new(std::io::Error::new(std::io::ErrorKind::InvalidInput, error)),
            })?;
        client.ready().await?;
        Ok(client)
    }

    /// Creates a client of an application that listens at several addresses. Each request goes to the
    /// reachable address with the fewest requests. The client connects only when needed.
    pub fn balanced<'a>(
        addresses: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, AddressError> {
        let add = |builder: Builder, address| builder.address(address);
        addresses.into_iter().fold(Self::builder(), add).build()
    }

    /// Returns a builder for a client with custom limits and addresses.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Sends a request, and returns its response as soon as the header is complete.
    ///
    /// Dropping this future, or the body of the response, aborts the request: the client sends
    /// ABORT_REQUEST, or closes the connection if it carries only this request.
    /// The body of the request is sent as it comes, even after the response has begun.
    ///
    /// If the application sends an unusual reason phrase, or a status without a usual one, the extensions of
    /// the response contain a `hyper::ext::ReasonPhrase`, which hyper writes.
    pub fn request<B>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, Error>> + Send + use<'_, B>
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        request::send(&self.inner.balance, request)
    }

    /// Waits until the application accepts connections, at any of its addresses. Opens a connection if
    /// there is none. Use it for health checks and at startup.
    pub async fn ready(&self) -> Result<(), Error> {
        request::ready(&self.inner.balance).await
    }

    /// Returns this client as a service that turns errors into responses: for axum's `fallback_service`.
    ///
    /// ```no_run
    /// use afcgi::client::Client;
    /// use axum::{Router, routing::get};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::connect("unix:/run/app.sock").await?;
    /// let router: Router = Router::new()
    ///     .route("/health", get(|| async { "ok" }))
    ///     .fallback_service(client.into_service());
    /// # let _ = router;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_service(self) -> Mount {
        Mount(self)
    }

    /// Returns the counters.
    pub fn stats(&self) -> Snapshot {
        self.inner.balance.counters.snapshot()
    }

    /// Returns the state of all addresses that are known so far, including those of resolved names.
    pub fn addresses(&self) -> Vec<AddressState> {
        let pools = self.inner.balance.known();
        pools
            .iter()
            .map(|pool| AddressState {
                address: Arc::clone(&pool.name),
                requests: pool.load(),
                is_failing: pool.failing().is_some(),
            })
            .collect()
    }
}

/// The state of an address. See [`Client::addresses`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressState {
    /// The address.
    pub address: Arc<str>,
    /// Requests that wait for the address or are on one of its connections.
    pub requests: usize,
    /// Whether the last attempt to connect failed.
    pub is_failing: bool,
}

/// Builds a [`Client`]. See [`Client::builder`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    addresses: Vec<String>,
    resolver: Resolver,
    config: Config,
}

impl Builder {
    /// Adds an address (see [`Address`] for the syntax).
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets how the application sees requests; the same as the field of [`Config`].
    #[must_use]
    pub fn mapping(mut self, mapping: Mapping) -> Self {
        self.config.mapping = mapping;
        self
    }

    /// Sets the function that looks up a name and port. Default: the system's resolver.
    #[must_use]
    pub fn resolver<F, R>(mut self, resolver: F) -> Self
    where
        F: Fn(String, u16) -> R + Send + Sync + 'static,
        R: Future<Output = std::io::Result<Vec<std::net::SocketAddr>>> + Send + 'static,
    {
        self.resolver = Resolver::own(resolver);
        self
    }

    /// Creates the client, which connects only when needed.
    ///
    /// Fails if an address is invalid, or if there is none.
    pub fn build(self) -> Result<Client, AddressError> {
        let addresses = self.addresses.iter().map(|address| address.parse());
        let addresses: Vec<Address> = addresses.collect::<Result<_, _>>()?;
        if addresses.is_empty() {
            // Says what an address looks like.
            "".parse::<Address>()?;
        }
        let balance = Balance::new(addresses, self.resolver, self.config);
        Ok(Client {
            inner: Arc::new(Inner { balance }),
        })
    }
}

impl<B> tower::Service<Request<B>> for Client
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { client.request(request).await })
    }
}
