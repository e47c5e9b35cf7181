//! The web server's side: a client of FastCGI applications.
//!
//! [`Client`] sends HTTP requests to an application, over one shared connection where that
//! multiplexes, and over a bounded pool of connections where it does not, as PHP-FPM. It finds out
//! which by itself.
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
//! # What an application is told
//!
//! The CGI variables of RFC 3875, from the request's head, and from its extensions what a head does
//! not say: [`RemoteAddr`](crate::RemoteAddr), [`LocalAddr`], a `http::uri::Scheme`, [`ExtraParams`],
//! [`Script`]; a [`Role`](crate::Role) for an authorizer, and [`Data`] for a filter. [`Mapping`] has what
//! all requests have in common.
//!
//! Fields about a connection, such as `Connection` and `TE`, are left out, and no other ones: what a client names in its
//! `Connection` may have been added on the way. Whoever passes requests of clients on removes those fields where they come in,
//! by [`remove_hop_by_hop`].
//!
//! Among the extensions of a request may also be what is to hear of it: [`OnInterim`], [`OnStderr`] and [`Trace`].
//!
//! # When it goes wrong
//!
//! A response that is not complete is an error, never a short success: of
//! [`Client::request`] up to its head, and of [`ResponseBody`] from there on. [`Error`] says what,
//! whose fault it is, and which status a gateway answers with. A request is sent again only when it was
//! not worked on, or when it is idempotent and a connection that was kept turned out closed.

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

/// A client of a FastCGI application, at one address or at several. Cloning is cheap, and all clones
/// share their connections.
///
/// It has to be used within a tokio runtime. Its connections live on the runtime on which they
/// were opened; with a runtime for each thread, have a client for each. When the last clone is dropped
/// connections are closed as their last request ends.
///
/// As a [`tower::Service`] it is always ready: requests that have to wait do so in a queue, whose
/// bounds are in [`Config`].
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
    /// A client of the application at an address, as [`Address`] reads it, after having connected to
    /// it. A name is looked up, and its addresses are used alike; so are those that it gets later.
    ///
    /// Fails with [`Error::Resolve`] or [`Error::Connect`]; with [`Client::builder`] there is
    /// a client all the same.
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

    /// A client of an application that listens at several addresses: each request goes to the one with
    /// the fewest, of those that can be connected to. Nothing is connected to before it is needed.
    pub fn balanced<'a>(
        addresses: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, AddressError> {
        let add = |builder: Builder, address| builder.address(address);
        addresses.into_iter().fold(Self::builder(), add).build()
    }

    /// A client with limits and addresses of your own.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Sends a request, and returns its response as soon as that has a head.
    ///
    /// When this future, or the body of the response, is dropped, the request is given up: the
    /// application is sent ABORT_REQUEST, or the end of the connection where that carries one request.
    /// The body of the request is sent as it comes, also after the response has begun.
    ///
    /// Where the application gives another reason phrase than is usual, or its status has no usual one, a
    /// `hyper::ext::ReasonPhrase` is among the extensions of the response, for hyper to write.
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

    /// Returns when the application is known to take connections, having opened one if there was
    /// none: at any of its addresses. For checks of health, and to begin with.
    pub async fn ready(&self) -> Result<(), Error> {
        request::ready(&self.inner.balance).await
    }

    /// This client as a service that answers errors with a status: for axum's `fallback_service`.
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

    /// What was counted so far.
    pub fn stats(&self) -> Snapshot {
        self.inner.balance.counters.snapshot()
    }

    /// The addresses that are known by now, after names were looked up, and what is known of them.
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

/// What is known of an address. See [`Client::addresses`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressState {
    /// Where it is.
    pub address: Arc<str>,
    /// Requests that wait for it or have a place there.
    pub requests: usize,
    /// Whether the last attempt to connect failed.
    pub is_failing: bool,
}

/// Makes a [`Client`]. See [`Client::builder`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    addresses: Vec<String>,
    resolver: Resolver,
    config: Config,
}

impl Builder {
    /// Adds an address, as [`Address`] reads it.
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

    /// Sets what requests look like to the application; the same as the field of [`Config`].
    #[must_use]
    pub fn mapping(mut self, mapping: Mapping) -> Self {
        self.config.mapping = mapping;
        self
    }

    /// Sets what looks up the names in addresses, given name and port. Default: the system.
    #[must_use]
    pub fn resolver<F, R>(mut self, resolver: F) -> Self
    where
        F: Fn(String, u16) -> R + Send + Sync + 'static,
        R: Future<Output = std::io::Result<Vec<std::net::SocketAddr>>> + Send + 'static,
    {
        self.resolver = Resolver::own(resolver);
        self
    }

    /// The client. Nothing is connected to before it is needed.
    ///
    /// Fails where one of the addresses is none, or there is none.
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
