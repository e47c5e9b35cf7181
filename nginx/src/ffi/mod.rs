//! All that touches nginx's memory: the module's tables, its hooks, and safe types over connections.
//!
//! Rules here: nginx is single-threaded, so a pointer that it gives is used by nobody else during a
//! callback; no reference into nginx's memory outlives one; and every callback runs inside [`fence`].

pub(crate) mod fake;
pub(crate) mod log;
mod module;
pub(crate) mod sock;
mod status;
mod upstream;
mod variables;
pub(crate) mod zone;

use std::panic::{AssertUnwindSafe, catch_unwind};

use nginx_sys::{ngx_exiting, ngx_int_t, ngx_terminate};

use afcgi_nginx_core::faults;

pub(crate) const OK: ngx_int_t = 0;
pub(crate) const ERROR: ngx_int_t = -1;
pub(crate) const AGAIN: ngx_int_t = -2;
pub(crate) const BUSY: ngx_int_t = -3;
pub(crate) const DONE: ngx_int_t = -4;
pub(crate) const DECLINED: ngx_int_t = -5;

/// Runs the body of a callback. A panic ends here, logged by the hook that [`log::log_panics`] has
/// set, and the callback gives `failed`: unwinding into nginx would end the worker.
pub(crate) fn fence<T>(failed: T, body: impl FnOnce() -> T) -> T {
    fenced(body).unwrap_or(failed)
}

/// The same for those that have something to put right after a panic, which gives `None`.
pub(crate) fn fenced<T>(body: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(|| {
        faults::point();
        body()
    }))
    .ok()
}

/// Whether this worker is to end as soon as its requests have.
pub(crate) fn exiting() -> bool {
    // SAFETY: plain globals of nginx, which only this thread and signal handlers change.
    unsafe { ngx_exiting != 0 || ngx_terminate != 0 }
}
