//! `fastcgi_multiplex_status`: the location that shows what the module counts.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::slice;

use nginx_sys::{
    NGX_CONF_NOARGS, NGX_CONF_TAKE1, NGX_HTTP_BAD_REQUEST, NGX_HTTP_GET, NGX_HTTP_HEAD,
    NGX_HTTP_INTERNAL_SERVER_ERROR, NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET,
    NGX_HTTP_MAIN_CONF, NGX_HTTP_MAIN_CONF_OFFSET, NGX_HTTP_NOT_ALLOWED, NGX_HTTP_OK, ngx_chain_t,
    ngx_command_t, ngx_conf_t, ngx_create_temp_buf, ngx_http_arg, ngx_http_conf_ctx_t,
    ngx_http_core_loc_conf_t, ngx_http_core_module, ngx_http_discard_request_body,
    ngx_http_output_filter, ngx_http_request_t, ngx_http_send_header, ngx_int_t, ngx_list_push,
    ngx_str_t, ngx_table_elt_t, ngx_uint_t,
};

use super::module::conf_error;
use super::{ERROR, OK, fence, zone};
use afcgi_nginx_core::status::{Format, json, prometheus};

/// `fastcgi_multiplex_status [json | prometheus];` in a location.
pub(super) const LOCATION: ngx_command_t = ngx_command_t {
    name: text(c"fastcgi_multiplex_status"),
    type_: (NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS | NGX_CONF_TAKE1) as ngx_uint_t,
    set: Some(set),
    conf: NGX_HTTP_LOC_CONF_OFFSET,
    offset: 0,
    post: ptr::null_mut(),
};

/// `fastcgi_multiplex_status_zone SIZE;`
pub(super) const ZONE: ngx_command_t = ngx_command_t {
    name: text(c"fastcgi_multiplex_status_zone"),
    type_: (NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1) as ngx_uint_t,
    set: Some(zone::set),
    conf: NGX_HTTP_MAIN_CONF_OFFSET,
    offset: 0,
    post: ptr::null_mut(),
};

/// A string of nginx's that it does not change. It looks for the 0 at the end of some.
pub(super) const fn text(text: &'static CStr) -> ngx_str_t {
    ngx_str_t {
        len: text.count_bytes(),
        data: text.as_ptr().cast::<u8>().cast_mut(),
    }
}

unsafe extern "C" fn set(
    cf: *mut ngx_conf_t,
    _command: *mut ngx_command_t,
    _conf: *mut c_void,
) -> *mut c_char {
    fence(conf_error(), || {
        // SAFETY: nginx gives the words of the directive.
        let words = unsafe { (*(*cf).args).as_slice::<ngx_str_t>() };
        let format = match words.get(1) {
            Some(word) => Format::named(word.as_bytes()),
            None => Some(Format::Json),
        };
        let Some(format) = format else {
            return c"knows json and prometheus".as_ptr().cast_mut();
        };
        // SAFETY: nginx gives a configuration that it reads, in a location.
        unsafe {
            let conf = *(*(*cf).ctx.cast::<ngx_http_conf_ctx_t>())
                .loc_conf
                .add(ngx_http_core_module.ctx_index);
            (*conf.cast::<ngx_http_core_loc_conf_t>()).handler = Some(match format {
                Format::Json => show_json,
                Format::Prometheus => show_prometheus,
            });
            match zone::declare(cf, 0) {
                true => ptr::null_mut(),
                false => conf_error(),
            }
        }
    })
}

unsafe extern "C" fn show_json(request: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls this for a request of the location.
    fence(ERROR, || unsafe { show(request, Format::Json) })
}

unsafe extern "C" fn show_prometheus(request: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx calls this for a request of the location.
    fence(ERROR, || unsafe { show(request, Format::Prometheus) })
}

/// Safety: `request` is valid.
unsafe fn show(request: *mut ngx_http_request_t, default: Format) -> ngx_int_t {
    // SAFETY: the caller's word; nginx fills in the string if it gives OK.
    let format = unsafe {
        if (*request).method & (NGX_HTTP_GET | NGX_HTTP_HEAD) as ngx_uint_t == 0 {
            return NGX_HTTP_NOT_ALLOWED as ngx_int_t;
        }
        let rc = ngx_http_discard_request_body(request);
        if rc != OK {
            return rc;
        }
        let name = text(c"format");
        let mut value = ngx_str_t::empty();
        match ngx_http_arg(request, name.data, name.len, &raw mut value) {
            OK => Format::named(value.as_bytes()),
            _ => Some(default),
        }
    };
    let Some(format) = format else {
        return NGX_HTTP_BAD_REQUEST as ngx_int_t;
    };
    let (summaries, entries, used) = zone::sums();
    let body = match format {
        Format::Json => json(&summaries, entries, used),
        Format::Prometheus => prometheus(&summaries, entries, used),
    };
    // SAFETY: the caller's word.
    unsafe { answer(request, format, body.as_bytes()) }
}

/// Safety: `request` is valid, and its header was not sent.
unsafe fn answer(request: *mut ngx_http_request_t, format: Format, body: &[u8]) -> ngx_int_t {
    // SAFETY: the caller's word. What is allocated is the request's, of the size that is said, and
    // checked; zero is a value of everything in a header.
    unsafe {
        let headers = &mut (*request).headers_out;
        headers.status = NGX_HTTP_OK as ngx_uint_t;
        headers.content_length_n = body.len() as _;
        (headers.content_type, headers.content_type_len) = match format {
            Format::Json => (text(c"application/json"), b"application/json".len()),
            // nginx takes the length without parameters for a type that is not to get a charset.
            Format::Prometheus => (
                text(c"text/plain; version=0.0.4; charset=utf-8"),
                b"text/plain".len(),
            ),
        };
        headers.content_type_lowcase = ptr::null_mut();
        let header = ngx_list_push(&raw mut headers.headers).cast::<ngx_table_elt_t>();
        let buffer = ngx_create_temp_buf((*request).pool, body.len());
        if header.is_null() || buffer.is_null() {
            return NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t;
        }
        header.write(std::mem::zeroed());
        (*header).hash = 1;
        (*header).key = text(c"Cache-Control");
        (*header).value = text(c"no-store");
        let rc = ngx_http_send_header(request);
        if rc == ERROR || rc > OK || (*request).header_only() != 0 {
            return rc;
        }
        slice::from_raw_parts_mut((*buffer).last, body.len()).copy_from_slice(body);
        (*buffer).last = (*buffer).last.add(body.len());
        (*buffer).set_last_buf((request == (*request).main).into());
        (*buffer).set_last_in_chain(1);
        let mut chain = ngx_chain_t {
            buf: buffer,
            next: ptr::null_mut(),
        };
        ngx_http_output_filter(request, &raw mut chain)
    }
}
