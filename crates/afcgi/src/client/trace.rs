//! Which address a request went to, and how often: for whoever logs it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is known of a request on its way. Put among its extensions, it can be asked from a clone of it at any time: while
/// the request waits, after its response or its error, and after its future was dropped.
///
/// There is to be one for each request: given to a second one it goes on counting.
///
/// ```no_run
/// use afcgi::client::{Client, Trace};
/// use http_body_util::Empty;
///
/// # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let trace = Trace::default();
/// let mut request = http::Request::get("/hello").body(Empty::<&[u8]>::new())?;
/// request.extensions_mut().insert(trace.clone());
/// let result = client.request(request).await;
/// println!("{:?}: {}, asked at {:?}", result.is_ok(), trace.retries(), trace.address());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Trace(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    address: Option<Arc<str>>,
    retries: u32,
}

impl Trace {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address that the request went to last, or waits for a connection to, as
    /// [`AddressState::address`](super::AddressState::address) has it: a name is looked up. `None`: none was chosen yet, or
    /// the request could not be sent anywhere.
    pub fn address(&self) -> Option<Arc<str>> {
        self.lock().address.clone()
    }

    /// How often the request was sent again, after an application had refused it or a connection to one was lost or could
    /// not be had: [`Config::retries`](super::Config::retries) at most, for each path if it was redirected within the
    /// application.
    pub fn retries(&self) -> u32 {
        self.lock().retries
    }

    /// The request goes to an address, for the first time or again.
    pub(super) fn goes_to(&self, address: &Arc<str>, again: bool) {
        let mut seen = self.lock();
        let before = seen.address.replace(Arc::clone(address));
        seen.retries = seen.retries.saturating_add(u32::from(again));
        drop(seen);
        drop(before);
    }
}
