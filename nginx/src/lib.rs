//! The nginx module `ngx_http_fastcgi_multiplex_module`: many requests share one FastCGI connection.
//!
//! What it does is in `afcgi-nginx-core`, which knows nothing of nginx. Here that is put into nginx: all
//! `fastcgi_*` directives, the cache, buffering, `fastcgi_next_upstream` and the load balancers do what
//! they always do.
//!
//! - [`host`]: the worker of this process, and what nginx offers it.
//! - [`ffi`]: all that touches nginx's memory. `unsafe` is there only, and no panic leaves it.
#![deny(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[expect(unsafe_code, reason = "it is there only")]
mod ffi;
mod host;
