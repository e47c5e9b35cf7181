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

use nginx_sys::{
    ngx_core_conf_t, ngx_core_module, ngx_cycle, ngx_exiting, ngx_int_t, ngx_terminate,
};

pub(crate) const OK: ngx_int_t = 0;
pub(crate) const ERROR: ngx_int_t = -1;
pub(crate) const AGAIN: ngx_int_t = -2;
pub(crate) const BUSY: ngx_int_t = -3;
pub(crate) const DONE: ngx_int_t = -4;
pub(crate) const DECLINED: ngx_int_t = -5;

/// Runs the body of a callback. A panic ends here, logged by the hook that [`log::log_panics`] has
/// set, and the callback gives `failed`: unwinding into nginx would end the worker.
pub(crate) fn fence<T>(failed: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(|| {
        #[cfg(feature = "panics")]
        panic_at_times();
        body()
    }))
    .unwrap_or(failed)
}

/// Lets a test see what becomes of panics, as if there were a mistake in any callback.
#[cfg(feature = "panics")]
#[expect(clippy::panic, reason = "that is the point")]
fn panic_at_times() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static CALLS: AtomicU32 = AtomicU32::new(0);
    if CALLS.fetch_add(1, Ordering::Relaxed) % 1000 == 999 {
        panic!("injected");
    }
}

/// Whether this worker is to end as soon as its requests have.
pub(crate) fn exiting() -> bool {
    // SAFETY: plain globals of nginx, which only this thread and signal handlers change.
    unsafe { ngx_exiting != 0 || ngx_terminate != 0 }
}

/// How many worker processes were asked for, at least 1.
pub(crate) fn workers() -> usize {
    // SAFETY: the cycle and the core module's configuration exist while a worker runs.
    let workers = unsafe {
        let conf = *(*ngx_cycle).conf_ctx.add(ngx_core_module.index);
        (*conf.cast::<ngx_core_conf_t>()).worker_processes
    };
    usize::try_from(workers).unwrap_or(1).max(1)
}
