//! What an engine is told.

use std::time::Duration;

use super::expect::Expect;
use super::socket::Endpoint;
use super::template::Template;

/// What is sent, where, and how much of it at once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the application is; connections take turns. At least one.
    pub endpoints: Vec<Endpoint>,
    /// Connections.
    pub connections: usize,
    /// Requests at once on each connection; ids begin at 1.
    pub concurrent: u16,
    /// What is sent for each.
    pub template: Template,
    /// Whether connections carry one request after the other. The template says the same to the application.
    pub keep_conn: bool,
    /// What must come back.
    pub expect: Expect,
    /// How long a connection, and the end of an aborted request, may take, in nanoseconds.
    pub timeout: u64,
    /// How long an answer may take, in nanoseconds.
    pub patience: u64,
    /// When requests are aborted, in nanoseconds.
    pub abort_after: u64,
    /// The share of requests that is aborted, 0 to 1.
    pub aborts: f64,
    /// What chooses those.
    pub seed: u64,
    /// How long nothing may be answered before the run is given up.
    pub stall: Option<Duration>,
}
