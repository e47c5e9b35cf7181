//! What a server runs for each request.

use std::future::Future;

use super::request::{AppStatus, Request};

/// An application: something that answers requests. Made by [`native`] or [`http`](crate::http).
pub trait App: Clone + Send + 'static {
    /// Answers a request, with a clone that is its own. The future is dropped when the request is
    /// given up.
    fn call(self, request: Request) -> impl Future<Output = AppStatus> + Send + 'static;
}

/// An application that speaks FastCGI itself. Made by [`native`].
#[derive(Clone, Debug)]
pub struct Native<F>(F);

/// An application from an async function of a [`Request`].
///
/// ```no_run
/// use afcgi::{Listener, Request, Server};
///
/// # async fn run() -> std::io::Result<()> {
/// let app = afcgi::native(async |request: Request| {
///     request.stdout().write(b"Content-Type: text/plain\r\n\r\nHello\n").await
/// });
/// Server::new().listen(Listener::bind("127.0.0.1:5000")?).serve(app).await
/// # }
/// ```
pub fn native<F, Fut>(handler: F) -> Native<F>
where
    F: Fn(Request) -> Fut + Clone + Send + 'static,
    Fut: Future<Output: Into<AppStatus>> + Send + 'static,
{
    Native(handler)
}

impl<F, Fut> App for Native<F>
where
    F: Fn(Request) -> Fut + Clone + Send + 'static,
    Fut: Future<Output: Into<AppStatus>> + Send + 'static,
{
    async fn call(self, request: Request) -> AppStatus {
        (self.0)(request).await.into()
    }
}
