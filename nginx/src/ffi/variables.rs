//! The variables, and where a request's values are kept: in its pool, where they outlast its
//! connection, so that the access log finds them.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::time::Instant;

use nginx_sys::{
    NGX_HTTP_VAR_NOCACHEABLE, ngx_conf_t, ngx_http_add_variable, ngx_http_request_t,
    ngx_http_variable_value_t, ngx_int_t, ngx_pnalloc, ngx_pool_cleanup_add, ngx_uint_t,
};

use super::status::text;
use super::{ERROR, OK, fence, module};
use crate::host as worker;
use afcgi_nginx_core::keys::FakeKey;
use afcgi_nginx_core::trace::{Trace, Variable};

/// What a request has in its pool.
pub(super) struct Seen {
    request: *const ngx_http_request_t,
    /// Its fake connection, while there is one.
    fake: Option<FakeKey>,
    /// What became of the last one.
    last: Option<Trace>,
}

/// Where a request's values are kept. It is valid as long as the request.
#[derive(Clone, Copy)]
pub(super) struct Log(NonNull<Seen>);

impl Log {
    /// That of a request, made now if need be. `None`: there is no memory.
    ///
    /// Safety: `request` is valid.
    pub(super) unsafe fn of(request: *mut ngx_http_request_t) -> Option<Self> {
        // SAFETY: the caller's word; what is allocated is the request's, and of that size.
        unsafe {
            let seen = match find(request) {
                Some(seen) => seen,
                None => {
                    let cleanup = ngx_pool_cleanup_add((*request).pool, size_of::<Seen>());
                    let cleanup = cleanup.as_mut()?;
                    cleanup.handler = Some(leave);
                    NonNull::new(cleanup.data.cast::<Seen>())?
                }
            };
            seen.write(Seen {
                request,
                fake: None,
                last: None,
            });
            *module::context(request) = seen.as_ptr().cast();
            Some(Self(seen))
        }
    }

    /// The request has a fake connection.
    pub(super) fn opened(self, fake: FakeKey) {
        // SAFETY: valid (see the type), and nobody else has it now.
        unsafe { (*self.0.as_ptr()).fake = Some(fake) };
    }

    /// The fake connection is gone.
    pub(super) fn closed(self, trace: Option<Trace>) {
        // SAFETY: as above.
        unsafe {
            (*self.0.as_ptr()).fake = None;
            (*self.0.as_ptr()).last = trace;
        }
    }
}

/// The mark by which what belongs to this module is found in a pool. There is nothing to clean up.
unsafe extern "C" fn leave(_data: *mut c_void) {}

/// What a request has: nginx forgets contexts at an internal redirect, but not what is in the pool,
/// which is that of all subrequests too.
///
/// Safety: `request` is valid.
unsafe fn find(request: *mut ngx_http_request_t) -> Option<NonNull<Seen>> {
    // SAFETY: the caller's word. The context is what `Log::of` has set; what `leave` marks was made
    // there.
    unsafe {
        if let Some(seen) = NonNull::new((*module::context(request)).cast::<Seen>()) {
            return Some(seen);
        }
        // No upstream has been asked yet.
        if (*request).upstream_states.is_null() {
            return None;
        }
        let mut next = (*(*request).pool).cleanup;
        while let Some(cleanup) = next.as_ref() {
            let is_ours = (cleanup.handler)
                .is_some_and(|handler| ptr::fn_addr_eq(handler, leave as unsafe extern "C" fn(_)));
            if is_ours
                && let Some(seen) = NonNull::new(cleanup.data.cast::<Seen>())
                && ptr::eq((*seen.as_ptr()).request, request)
            {
                return Some(seen);
            }
            next = cleanup.next;
        }
    }
    None
}

/// Makes the variables known.
///
/// Safety: `cf` is a configuration that is being read.
pub(super) unsafe fn add(cf: *mut ngx_conf_t) -> ngx_int_t {
    for (n, (_, name)) in Variable::ALL.iter().enumerate() {
        let mut name = text(name);
        // SAFETY: the caller's word; nginx copies the name.
        unsafe {
            let flags = NGX_HTTP_VAR_NOCACHEABLE as ngx_uint_t;
            let Some(variable) = ngx_http_add_variable(cf, &raw mut name, flags).as_mut() else {
                return ERROR;
            };
            variable.get_handler = Some(get);
            variable.data = n;
        }
    }
    OK
}

unsafe extern "C" fn get(
    request: *mut ngx_http_request_t,
    value: *mut ngx_http_variable_value_t,
    n: usize,
) -> ngx_int_t {
    fence(ERROR, || {
        // SAFETY: nginx gives a request, and a value to fill in.
        let (seen, value) = unsafe { (find(request), &mut *value) };
        let trace = seen.and_then(|seen| {
            // SAFETY: it is the request's, and nobody else has it now.
            let seen = unsafe { seen.as_ref() };
            let now = seen
                .fake
                .and_then(|fake| worker::with(|worker| worker.trace(fake)));
            now.flatten().or(seen.last)
        });
        let text = trace.and_then(|trace| {
            let (variable, _) = Variable::ALL.get(n)?;
            trace.value(*variable, Instant::now())
        });
        let Some(text) = text else {
            value.set_not_found(1);
            return OK;
        };
        // SAFETY: what is allocated is the request's, of the size that is said, and checked.
        unsafe {
            let data = ngx_pnalloc((*request).pool, text.len()).cast::<u8>();
            if data.is_null() {
                return ERROR;
            }
            data.copy_from_nonoverlapping(text.as_ptr(), text.len());
            value.data = data;
        }
        value.set_len(text.len() as _);
        value.set_valid(1);
        value.set_no_cacheable(0);
        value.set_not_found(0);
        OK
    })
}
