//! What the nginx module does in a worker process, without nginx.
//!
//! The module stands below nginx's own FastCGI module, where `keepalive` stands too: that module goes
//! on to write and read one request per connection, and what it takes for a connection is a [`fake`] one.
//! Behind the fakes there is one [`real`] connection per worker and address, on which their records
//! travel under request ids of their own.
//!
//! The protocol is in `afcgi-proto`: connections in its `web`, the fakes in its `relay`, and which
//! connection a request goes to in its `pool`. Here is what nginx needs around it:
//!
//! - [`host`]: what nginx offers, as traits. The module implements them over nginx, and the tests here by
//!   a simulation.
//! - [`worker`]: everything that a worker process has, and the entry points of a fake connection.
//! - [`conf`]: the parameters of the directives.
//! - [`pool`]: the connections to one address. To an application that does not multiplex nginx opens its
//!   own connections, as it would without the module.
//! - [`keys`]: by what pools, connections and requests are named; [`verdicts`]: what all workers know of
//!   applications.
//! - [`status`]: what is counted, for all worker processes together; [`trace`]: what the variables tell
//!   of a request.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]
#![allow(
    missing_docs,
    reason = "it is the module's own: what a name says is not said again"
)]

pub mod conf;
pub mod fake;
pub mod faults;
pub mod host;
pub mod keys;
pub mod pool;
pub mod real;
pub mod route;
#[cfg(test)]
mod simulation;
pub mod status;
pub mod trace;
pub mod verdicts;
pub mod worker;
