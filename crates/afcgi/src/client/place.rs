//! A request's place on a connection.

use std::sync::Arc;
use std::time::Instant;

use afcgi_proto::Handle;

use super::pool::Pool;
use super::shared::Shared;

/// A request's place on a connection. When it is dropped the request is given up, unless it has
/// ended.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) pool: Arc<Pool>,
    pub(super) shared: Arc<Shared>,
    pub(super) handle: Handle,
    /// Whether the connection had served others before.
    pub(super) kept: bool,
    pub(super) began: Instant,
    /// Whether all is there that is wanted of the response, and the request will end by itself.
    pub(super) gently: bool,
}

impl Place {
    pub(super) fn new(pool: &Arc<Pool>, shared: Arc<Shared>, handle: Handle, kept: bool) -> Self {
        pool.enter();
        Self {
            pool: Arc::clone(pool),
            shared,
            handle,
            kept,
            began: crate::clock::now(),
            gently: false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut told = self.shared.close(self.handle, self.gently);
        told.wake();
        self.pool.leave();
        if told.released || !self.shared.is_multiplexed() {
            self.pool.settle(&self.shared);
        }
    }
}
