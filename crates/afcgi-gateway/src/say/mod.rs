//! What the gateway says of its work: the access log, and numbers. It knows of nobody whose work that is.

mod log;
mod metrics;

pub(crate) use log::{AccessLog, Entry, escape, refused};
pub(crate) use metrics::Metrics;
