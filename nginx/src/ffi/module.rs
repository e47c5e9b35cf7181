//! The tables by which nginx knows the module, its directives, and their place in the configuration.

use afcgi_nginx_core::host::Level;
use std::ffi::{c_char, c_void};
use std::ptr;
use std::slice;
use std::time::Duration;

use nginx_sys::{
    NGX_CONF_ANY, NGX_CONF_FLAG, NGX_HTTP_LIF_CONF, NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET,
    NGX_HTTP_MAIN_CONF, NGX_HTTP_MODULE, NGX_HTTP_SRV_CONF, NGX_HTTP_SRV_CONF_OFFSET,
    NGX_HTTP_UPS_CONF, NGX_USE_CLEAR_EVENT, ngx_command_t, ngx_conf_log_error,
    ngx_conf_set_flag_slot, ngx_conf_t, ngx_cycle_t, ngx_event_flags, ngx_flag_t,
    ngx_http_conf_ctx_t, ngx_http_module_t, ngx_http_request_t, ngx_http_upstream_main_conf_t,
    ngx_http_upstream_module, ngx_http_upstream_srv_conf_t, ngx_int_t, ngx_module_t,
    ngx_parse_offset, ngx_parse_time, ngx_pcalloc, ngx_pool_cleanup_add, ngx_str_t, ngx_uint_t,
};

use super::log;
use super::upstream::Hooks;
use super::{ERROR, OK, fence, sock, status, variables, zone};
use crate::host as worker;
use afcgi_nginx_core::conf::{Readers, Settings};
use afcgi_nginx_core::faults;

/// What nginx shows as the value of an unset flag.
const UNSET: ngx_flag_t = -1;

/// What an `upstream` block says.
struct UpstreamConf {
    settings: Option<Settings>,
}

/// What a location says.
#[repr(C)]
struct LocationConf {
    on: ngx_flag_t,
}

/// Whether a request of a location is to be multiplexed, and how.
///
/// Safety: the request is valid.
pub(super) unsafe fn settings(
    request: *mut ngx_http_request_t,
    explicit: Option<Settings>,
) -> Option<Settings> {
    // SAFETY: the caller's word; a request has the configuration of its location for every module;
    // ours was made by `create_location`.
    let on = unsafe {
        let conf = *(*request)
            .loc_conf
            .add(ngx_http_fastcgi_multiplex_module.ctx_index);
        (*conf.cast::<LocationConf>()).on
    };
    match on {
        0 => None,
        UNSET => explicit,
        _ => Some(explicit.unwrap_or_default()),
    }
}

/// Where nginx keeps what the module has for a request. It forgets it at an internal redirect.
///
/// Safety: `request` is valid.
pub(super) unsafe fn context(request: *mut ngx_http_request_t) -> *mut *mut c_void {
    // SAFETY: the caller's word; there is a place for every module.
    unsafe {
        (*request)
            .ctx
            .add(ngx_http_fastcgi_multiplex_module.ctx_index)
    }
}

/// By which nginx knows that a zone is the module's.
pub(super) fn tag() -> *mut c_void {
    (&raw mut ngx_http_fastcgi_multiplex_module).cast()
}

/// The hooks of this configuration.
///
/// Safety: the request is valid, and outlives what is returned.
pub(super) unsafe fn hooks<'a>(request: *mut ngx_http_request_t) -> Option<&'a Hooks> {
    // SAFETY: the caller's word; a request has the main configuration of every module; ours was made by
    // `create_main`, and lives as long as the cycle that the request belongs to.
    unsafe {
        let conf = *(*request)
            .main_conf
            .add(ngx_http_fastcgi_multiplex_module.ctx_index);
        conf.cast::<Hooks>().as_ref()
    }
}

unsafe extern "C" fn create_main(cf: *mut ngx_conf_t) -> *mut c_void {
    unsafe extern "C" fn drop_hooks(data: *mut c_void) {
        // SAFETY: the hooks were leaked below, and nginx runs a clean-up once.
        fence((), || unsafe { drop(Box::from_raw(data.cast::<Hooks>())) });
    }
    fence(ptr::null_mut(), || {
        // SAFETY: nginx gives a configuration with a pool, which outlives it.
        unsafe {
            let cleanup = ngx_pool_cleanup_add((*cf).pool, 0);
            if cleanup.is_null() {
                return ptr::null_mut();
            }
            (*cleanup).data = Box::into_raw(Box::<Hooks>::default()).cast();
            (*cleanup).handler = Some(drop_hooks);
            (*cleanup).data
        }
    })
}

unsafe extern "C" fn create_upstream(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: nginx gives a configuration with a pool, which outlives it; what was allocated has the
    // size that is written, and nginx's pools align for every scalar.
    fence(ptr::null_mut(), || unsafe {
        let conf = ngx_pcalloc((*cf).pool, size_of::<UpstreamConf>()).cast::<UpstreamConf>();
        if !conf.is_null() {
            conf.write(UpstreamConf { settings: None });
        }
        conf.cast()
    })
}

unsafe extern "C" fn create_location(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: as above; what was allocated has the size that is written.
    fence(ptr::null_mut(), || unsafe {
        let conf = ngx_pcalloc((*cf).pool, size_of::<LocationConf>()).cast::<LocationConf>();
        if !conf.is_null() {
            conf.write(LocationConf { on: UNSET });
        }
        conf.cast()
    })
}

unsafe extern "C" fn merge_location(
    _cf: *mut ngx_conf_t,
    outer: *mut c_void,
    inner: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx gives two of what `create_location` made.
    fence(conf_error(), || unsafe {
        let (outer, inner) = (outer.cast::<LocationConf>(), inner.cast::<LocationConf>());
        if (*inner).on == UNSET {
            (*inner).on = (*outer).on;
        }
        ptr::null_mut()
    })
}

/// What `NGX_CONF_ERROR` is.
pub(super) fn conf_error() -> *mut c_char {
    ptr::without_provenance_mut(ERROR.cast_unsigned())
}

/// nginx's reader of sizes.
fn read_size(value: &[u8]) -> Option<usize> {
    let mut text = sock::text(value);
    // SAFETY: a string of nginx's, which it only reads.
    let size = unsafe { ngx_parse_offset(&raw mut text) };
    usize::try_from(size).ok()
}

/// nginx's reader of times, in milliseconds.
fn read_time(value: &[u8]) -> Option<Duration> {
    let mut text = sock::text(value);
    // SAFETY: a string of nginx's, which it only reads.
    let time = unsafe { ngx_parse_time(&raw mut text, 0) };
    u64::try_from(time).ok().map(Duration::from_millis)
}

/// `fastcgi_multiplex [NAME=VALUE ...];` in an `upstream` block.
unsafe extern "C" fn set_upstream(
    cf: *mut ngx_conf_t,
    _command: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    fence(conf_error(), || {
        // SAFETY: nginx gives what `create_upstream` made, and the words of the directive.
        let (conf, words) = unsafe {
            let words = (*cf).args;
            (
                &mut *conf.cast::<UpstreamConf>(),
                slice::from_raw_parts((*words).elts.cast::<ngx_str_t>(), (*words).nelts),
            )
        };
        if conf.settings.is_some() {
            return c"is duplicate".as_ptr().cast_mut();
        }
        let words = words
            .iter()
            .skip(1)
            // SAFETY: a word is so many bytes.
            .map(|word| unsafe { slice::from_raw_parts(word.data, word.len) });
        let readers = Readers {
            size: read_size,
            time: read_time,
        };
        match Settings::parse(words, readers) {
            Ok(settings) => {
                conf.settings = Some(settings);
                ptr::null_mut()
            }
            Err(text) => {
                // SAFETY: the format takes a length and so many bytes.
                unsafe {
                    ngx_conf_log_error(
                        Level::Emergency as ngx_uint_t,
                        cf,
                        0,
                        c"fastcgi_multiplex: %*s".as_ptr(),
                        text.len(),
                        text.as_ptr(),
                    );
                }
                conf_error()
            }
        }
    })
}

unsafe extern "C" fn preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    // SAFETY: nginx gives a configuration that it reads.
    fence(ERROR, || unsafe { variables::add(cf) })
}

/// Stands itself before every upstream's `peer.init`, after all other modules have: outermost.
unsafe extern "C" fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    fence(ERROR, || {
        // SAFETY: nginx gives the http configuration, where all modules' parts are; the upstreams are
        // an array of pointers that live as long as the cycle.
        unsafe {
            zone::settle(cf);
            if !zone::declare_verdicts(cf) {
                return ERROR;
            }
            let ctx = (*cf).ctx.cast::<ngx_http_conf_ctx_t>();
            let main = |index: usize| *(*ctx).main_conf.add(index);
            let ours = ngx_http_fastcgi_multiplex_module.ctx_index;
            let hooks = &mut *main(ours).cast::<Hooks>();
            let upstreams = &(*main(ngx_http_upstream_module.ctx_index)
                .cast::<ngx_http_upstream_main_conf_t>())
            .upstreams;
            if upstreams.nelts == 0 {
                return OK;
            }
            for &upstream in slice::from_raw_parts(
                upstreams.elts.cast::<*mut ngx_http_upstream_srv_conf_t>(),
                upstreams.nelts,
            ) {
                let confs = (*upstream).srv_conf;
                // An upstream without a block has no configuration of its own.
                let said = (!confs.is_null())
                    .then(|| &*(*confs.add(ours)).cast::<UpstreamConf>())
                    .and_then(|conf| conf.settings);
                hooks.wrap(upstream, said);
            }
        }
        OK
    })
}

unsafe extern "C" fn init_module(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: nginx gives the new cycle, and has not freed anything of the old one.
    fence((), || unsafe { zone::adopt(cycle) });
    OK
}

unsafe extern "C" fn init_process(_cycle: *mut ngx_cycle_t) -> ngx_int_t {
    fence(ERROR, || {
        log::log_panics();
        faults::begin();
        zone::begin();
        if !can_multiplex() {
            log::line(
                Level::Warning,
                "this event method has no edges: every request gets a connection of its own (epoll and kqueue share them)",
            );
        }
        OK
    })
}

unsafe extern "C" fn exit_process(_cycle: *mut ngx_cycle_t) {
    fence((), worker::end);
}

/// Whether the event method leaves connections alone that it does not know: those that report a
/// state, instead of its changes, would be told to forget our fakes.
pub(super) fn can_multiplex() -> bool {
    // SAFETY: a global of nginx, set before the first request.
    unsafe { ngx_event_flags & NGX_USE_CLEAR_EVENT as ngx_uint_t != 0 }
}

const NAME: ngx_str_t = ngx_str_t {
    len: 17,
    data: c"fastcgi_multiplex".as_ptr() as *mut u8,
};

static mut COMMANDS: [ngx_command_t; 5] = [
    ngx_command_t {
        name: NAME,
        // None, or several: with NGX_CONF_1MORE nginx would refuse none.
        type_: (NGX_HTTP_UPS_CONF | NGX_CONF_ANY) as ngx_uint_t,
        set: Some(set_upstream),
        conf: NGX_HTTP_SRV_CONF_OFFSET,
        offset: 0,
        post: ptr::null_mut(),
    },
    ngx_command_t {
        name: NAME,
        type_: (NGX_HTTP_MAIN_CONF
            | NGX_HTTP_SRV_CONF
            | NGX_HTTP_LOC_CONF
            | NGX_HTTP_LIF_CONF
            | NGX_CONF_FLAG) as ngx_uint_t,
        set: Some(ngx_conf_set_flag_slot),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
        offset: std::mem::offset_of!(LocationConf, on),
        post: ptr::null_mut(),
    },
    status::LOCATION,
    status::ZONE,
    ngx_command_t::empty(),
];

static CONTEXT: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(preconfiguration),
    postconfiguration: Some(postconfiguration),
    create_main_conf: Some(create_main),
    init_main_conf: None,
    create_srv_conf: Some(create_upstream),
    merge_srv_conf: None,
    create_loc_conf: Some(create_location),
    merge_loc_conf: Some(merge_location),
};

/// The module. nginx fills in its numbers.
#[unsafe(no_mangle)]
static mut ngx_http_fastcgi_multiplex_module: ngx_module_t = ngx_module_t {
    ctx: (&raw const CONTEXT).cast_mut().cast(),
    commands: (&raw mut COMMANDS).cast(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    init_module: Some(init_module),
    init_process: Some(init_process),
    exit_process: Some(exit_process),
    ..ngx_module_t::default()
};

/// A table of pointers that nginx reads.
#[repr(transparent)]
struct Table<T, const N: usize>([*const T; N]);

// SAFETY: the pointers are to what is never freed, and nginx is single-threaded.
unsafe impl<T, const N: usize> Sync for Table<T, N> {}

/// The modules of this file, for nginx.
#[unsafe(no_mangle)]
static ngx_modules: Table<ngx_module_t, 2> =
    Table([&raw const ngx_http_fastcgi_multiplex_module, ptr::null()]);

/// Their names.
#[unsafe(no_mangle)]
static ngx_module_names: Table<c_char, 2> =
    Table([c"ngx_http_fastcgi_multiplex_module".as_ptr(), ptr::null()]);

/// Nothing about their order.
#[unsafe(no_mangle)]
static ngx_module_order: Table<c_char, 1> = Table([ptr::null()]);
