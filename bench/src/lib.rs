//! Load for FastCGI ([`fcgi`], on the engine of `afcgi bench`) and a generator for HTTP ([`http`]), and what a measurement
//! needs around them: processes that end with their guard, their CPU time and memory ([`process`]).
//!
//! Both are closed loops on one thread: a fixed number of requests is always on its way, and each answer
//! is checked before the next request takes its place. [`paced`] sends by the clock instead, for latencies, and [`slow`]
//! has the clients that hold something up. None shares code with the protocol crate, so that a mistake there cannot hide
//! here.

#![forbid(unsafe_code)]

pub mod fcgi;
pub mod http;
pub mod load;
pub mod paced;
pub mod process;
pub mod request;
pub mod slow;
