//! The nginx module `ngx_http_fastcgi_multiplex_module`: many requests share one FastCGI connection.
//!
//! It stands below nginx's own FastCGI module, where `keepalive` stands too: that module goes on to
//! write and read one request per connection, and what it takes for a connection is a [`fake`] one.
//! Behind the fakes there is one [`real`] connection per worker and address, on which their records
//! travel under request ids of their own. So all `fastcgi_*` directives, the cache,
//! buffering, `fastcgi_next_upstream` and the load balancers do what they always do.
//!
//! The protocol is in `afcgi-proto`: connections in its `web`, the fakes in its `relay`. Here is what
//! nginx needs around it:
//!
//! - [`conf`]: the parameters of the directives.
//! - [`worker`]: everything that a worker process has, and the entry points of a fake connection.
//! - [`pool`]: the connections to one address: which one takes a request, when to open another, and
//!   what the application said when it was asked whether it multiplexes. To one that does not,
//!   nginx opens its own connections, as it would without this module.
//! - [`keys`]: by what pools, connections and requests are named; [`verdicts`]: what all workers know of
//!   applications.
//! - [`status`]: what is counted, for all worker processes together; [`trace`]: what the variables tell
//!   of a request.
//! - [`ffi`]: all that touches nginx's memory. `unsafe` is there only, and no panic leaves it.
#![deny(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod conf;
mod fake;
mod faults;
#[expect(unsafe_code, reason = "it is there only")]
mod ffi;
mod keys;
mod pool;
mod real;
mod status;
mod trace;
mod verdicts;
mod worker;
