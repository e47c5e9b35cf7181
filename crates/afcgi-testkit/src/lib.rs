//! For tests only: records written and read by hand, independently of the code under test, and a
//! simulated pair of both sides of a connection.
#![forbid(unsafe_code)]

pub mod pair;
pub mod record;

pub use pair::{Pair, Wire};
pub use record::{Record, parse};
