//! The time, as everything in this crate has it: tokio's, so that a test that pauses tokio's clock
//! pauses every limit. The protocol is told it as an argument.

use std::time::Instant;

pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
