//! What all connections of a gateway share.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;
use tokio_util::task::TaskTracker;

use crate::front::Budget;
use crate::route::Site;
use crate::say::Metrics;

/// All connections have the same one. The configuration and the certificate are swapped as a whole at a reload.
pub(crate) struct Shared {
    pub(crate) site: ArcSwap<Site>,
    pub(crate) tls: ArcSwapOption<ServerConfig>,
    pub(crate) metrics: Arc<Metrics>,
    /// What waits for clients of HTTP/2 to read.
    pub(crate) budget: Arc<Budget>,
    /// Connections and tunnels: what a stop waits for.
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn new(site: Site, tls: Option<Arc<ServerConfig>>) -> Self {
        Self {
            site: ArcSwap::from_pointee(site),
            tls: ArcSwapOption::from(tls),
            metrics: Arc::default(),
            budget: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }
}
