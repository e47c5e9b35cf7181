//! Lines in nginx's error log.

use afcgi_nginx_core::host::Level;
use std::panic;

use nginx_sys::{ngx_cycle, ngx_err_t, ngx_log_error_core, ngx_log_t, ngx_uint_t};

/// Where lines of the worker go that belong to no request.
pub(crate) fn cycle_log() -> *mut ngx_log_t {
    // SAFETY: nginx has a cycle, and that a log, from its first callback on.
    unsafe { (*ngx_cycle).log }
}

/// Writes a line that belongs to no request.
pub(crate) fn line(level: Level, text: &str) {
    // SAFETY: the cycle's log lives as long as the process.
    unsafe { line_to(cycle_log(), level, 0, text) };
}

/// Writes a line to a log of nginx's, with the text of a system's error if `errno` is not 0. Control
/// characters, which may come from an application, are written as escapes.
///
/// Safety: the log is null, or lives.
pub(super) unsafe fn line_to(log: *mut ngx_log_t, level: Level, errno: ngx_err_t, text: &str) {
    if log.is_null() {
        return;
    }
    let level = level as ngx_uint_t;
    // SAFETY: the caller's word.
    if level > unsafe { (*log).log_level } {
        return;
    }
    let clean: String = text
        .chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = (!c.is_control()).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    // SAFETY: the format takes a length and so many bytes, which live until the call returns.
    unsafe {
        ngx_log_error_core(
            level,
            log,
            errno,
            c"fastcgi_multiplex: %*s".as_ptr(),
            clean.len(),
            clean.as_ptr(),
        );
    }
}

/// Has panics of this process written to the error log.
pub(crate) fn log_panics() {
    panic::set_hook(Box::new(|info| line(Level::Alert, &info.to_string())));
}
