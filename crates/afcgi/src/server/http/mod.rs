//! FastCGI requests as HTTP: CGI parameters to [`http::Request`], [`http::Response`] to a CGI
//! response.

mod body;
mod request;
mod response;
mod upgrade;

use std::fmt::Display;
use std::io;

use ::http::StatusCode;
use afcgi_proto::{Gone, Role};
pub use body::{Body, BodyError};
use request::Converted;
use tower::{Service, ServiceExt};
use upgrade::Offer;

use super::{App, AppStatus, Listener, Request, Server};

/// An application that speaks HTTP. Made by [`http()`].
#[derive(Clone, Debug)]
pub struct Http<S>(S);

/// An application from a tower service of HTTP requests, such as an axum `Router`.
///
/// The request's extensions hold its [`Params`](crate::Params), [`Over`](crate::Over) and
/// [`RemoteAddr`](crate::RemoteAddr). The URI is that of `REQUEST_URI`, with percent-encoding for what is no ASCII, spaces,
/// quotation marks, angle brackets and backticks; where that is missing, it is made of
/// `SCRIPT_NAME`, `PATH_INFO` and `QUERY_STRING`. One with control characters is answered with status
/// 400, one of more than 65,534 bytes with 414. An authorizer is a service like another: status
/// 200 allows, and its `Variable-NAME` header fields become parameters (R-54).
///
/// A request that may be upgraded (see [`Config::upgrades`](crate::Config::upgrades)) has a
/// `hyper::upgrade::OnUpgrade` among its extensions, as with hyper's own server: axum's
/// `WebSocketUpgrade` works. When the service answers 101, what that resolves to reads STDIN and
/// writes STDOUT, and the request lasts until it is dropped. When the request is given up, reads and
/// writes fail.
///
/// A `hyper::ext::ReasonPhrase` among the extensions of a response is what stands behind its status.
///
/// A service that fails, or whose response body fails before any of it was sent, is answered for
/// with status 500. A body that fails later ends the request with application status 1, which says
/// less than one would like: web servers pass on what came as if it were all, unless there was a
/// Content-Length.
pub fn http<S, B>(service: S) -> Http<S>
where
    S: Service<::http::Request<Body>, Response = ::http::Response<B>>,
{
    Http(service)
}

/// Serves a tower service, an axum `Router` say, at a listener, with the default limits. For more,
/// see [`Server`].
///
/// Returns when the process was sent SIGTERM or SIGINT and the active requests have ended.
///
/// ```no_run
/// use axum::{Router, routing::get};
///
/// # async fn run() -> std::io::Result<()> {
/// let app = Router::new().route("/", get(|| async { "Hello" }));
/// afcgi::serve(afcgi::Listener::bind("127.0.0.1:5000")?, app).await
/// # }
/// ```
pub async fn serve<S, B>(listener: impl Into<Listener>, service: S) -> io::Result<()>
where
    S: Service<::http::Request<Body>, Response = ::http::Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Display + Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Display + Send,
{
    Server::new().listen(listener).serve(http(service)).await
}

impl<S, B> App for Http<S>
where
    S: Service<::http::Request<Body>, Response = ::http::Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Display + Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Display + Send,
{
    async fn call(self, request: Request) -> AppStatus {
        let mut stdout = request.stdout();
        if !matches!(request.role(), Role::Responder | Role::Authorizer) {
            return response::plain(&mut stdout, 501, "this application is no filter").await;
        }
        let Converted {
            mut http_request,
            tunnel,
        } = match request::from_fastcgi(request) {
            Ok(converted) => converted,
            Err((status, why)) => return response::plain(&mut stdout, status, why).await,
        };
        let mut offer = None;
        if let Some(tunnel) = tunnel
            && let Some((made, on_upgrade)) = Box::pin(Offer::new(tunnel)).await
        {
            http_request.extensions_mut().insert(on_upgrade);
            offer = Some(made);
        }
        let head_only = http_request.method() == ::http::Method::HEAD;
        match self.0.oneshot(http_request).await {
            Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let Some(offer) = offer else {
                    tracing::error!("the service upgrades a request that cannot be upgraded");
                    return response::plain(&mut stdout, 500, "the application failed").await;
                };
                match response::switch(&mut stdout, answer).await {
                    Ok(()) => {
                        Box::pin(offer.accept()).await;
                        AppStatus::SUCCESS
                    }
                    Err(Gone) => AppStatus::FAILURE,
                }
            }
            Ok(answer) => response::send(&mut stdout, answer, head_only).await,
            Err(error) => {
                tracing::error!(%error, "the service failed");
                response::plain(&mut stdout, 500, "the application failed").await
            }
        }
    }
}
