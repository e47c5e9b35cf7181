//! The hooks of a request's upstream: `peer.init`, `peer.get` and `peer.free`, each before the one
//! that was there.

use afcgi_nginx_core::host::{Level, TargetRef};
use std::ffi::c_void;
use std::slice;

use afcgi_proto::upgrade;
use nginx_sys::{
    NGX_HTTP_SWITCHING_PROTOCOLS, NGX_HTTP_UPSTREAM_INVALID_HEADER, NGX_HTTP_VERSION_11,
    NGX_PEER_NEXT, ngx_connection_t, ngx_event_free_peer_pt, ngx_event_get_peer_pt,
    ngx_event_notify_peer_pt, ngx_http_request_t, ngx_http_upstream_init_peer_pt,
    ngx_http_upstream_srv_conf_t, ngx_int_t, ngx_list_part_t, ngx_list_t, ngx_module_t, ngx_palloc,
    ngx_peer_connection_t, ngx_table_elt_t, ngx_uint_t, sockaddr,
};

use super::fake;
use super::log;
use super::sock::LogTo;
use super::variables::Log;
use super::{AGAIN, BUSY, DECLINED, DONE, ERROR, OK, fence, fenced, module};
use crate::host::{self as worker, Worker};
use afcgi_nginx_core::conf::Settings;
use afcgi_nginx_core::fake::{Freed, Wants};
use afcgi_nginx_core::keys::FakeKey;
use afcgi_nginx_core::worker::Opened;

unsafe extern "C" {
    /// nginx's own FastCGI module.
    static ngx_http_fastcgi_module: ngx_module_t;
}

/// The upstreams of a configuration as they were.
#[derive(Default)]
pub(super) struct Hooks(Vec<Hook>);

struct Hook {
    upstream: *const ngx_http_upstream_srv_conf_t,
    init: ngx_http_upstream_init_peer_pt,
    /// What its block says.
    settings: Option<Settings>,
}

impl Hooks {
    /// Puts `init` before the upstream's own `peer.init`.
    ///
    /// Safety: the upstream is valid.
    pub(super) unsafe fn wrap(
        &mut self,
        upstream: *mut ngx_http_upstream_srv_conf_t,
        settings: Option<Settings>,
    ) {
        // SAFETY: the caller's word.
        let before = unsafe { (*upstream).peer.init.replace(init) };
        let at = (self.0).partition_point(|hook| hook.upstream < upstream.cast_const());
        self.0.insert(
            at,
            Hook {
                upstream,
                init: before,
                settings,
            },
        );
    }

    fn find(&self, upstream: *const ngx_http_upstream_srv_conf_t) -> Option<&Hook> {
        let at = (self.0)
            .binary_search_by_key(&upstream, |hook| hook.upstream)
            .ok()?;
        self.0.get(at)
    }
}

/// What a request has instead of the balancer's data, in the request's pool.
struct Peer {
    data: *mut c_void,
    get: ngx_event_get_peer_pt,
    free: ngx_event_free_peer_pt,
    notify: ngx_event_notify_peer_pt,
    settings: Settings,
    request: *mut ngx_http_request_t,
    /// The upstream module's reader of response heads.
    process_header: ProcessHeader,
    wants: Wants,
    /// Whether the application refused the request unprocessed, and another is to be asked.
    resend: bool,
    /// The number and the address of the fake connection, while there is one.
    fake: Option<(FakeKey, *mut ngx_connection_t)>,
    /// Whether nginx was told of a kept connection, which gives it one more try.
    told: bool,
    /// Where the request's values are kept.
    log: Log,
}

impl Peer {
    /// Has nginx begin anew what it has written, if that was refused.
    fn begin_anew(&mut self) {
        if std::mem::take(&mut self.resend) {
            // SAFETY: the request of this peer lives, and has an upstream.
            unsafe { (*(*self.request).upstream).set_request_sent(1) };
        }
    }
}

type ProcessHeader = Option<unsafe extern "C" fn(*mut ngx_http_request_t) -> ngx_int_t>;

/// What is known of a request.
///
/// Safety: it is valid, and has an upstream.
unsafe fn wants(r: *mut ngx_http_request_t) -> Wants {
    // SAFETY: the caller's word; a request has a method.
    unsafe {
        let headers = &(*r).headers_in;
        let has_body = headers.content_length_n > 0 || headers.chunked() != 0;
        // nginx has found an `Upgrade` already, if there is one.
        let upgrade = !headers.upgrade.is_null() && r == (*r).main && {
            let lines = || lines(&headers.headers);
            let values = |name: &'static [u8]| {
                (lines().filter(move |line| line.key.as_bytes().eq_ignore_ascii_case(name)))
                    .map(|line| line.value.as_bytes())
            };
            let head = upgrade::Head {
                method: (*r).method_name.as_bytes(),
                is_http_11: (*r).http_version == NGX_HTTP_VERSION_11 as ngx_uint_t,
                has_body,
                connection: values(b"connection"),
                upgrade: values(b"upgrade"),
            };
            head.asks()
        };
        Wants {
            body: has_body && (*(*(*r).upstream).conf).pass_request_body != 0,
            upgrade,
        }
    }
}

/// The headers of a list.
///
/// Safety: it is the list of a request's headers, which live as long as it does.
unsafe fn lines(headers: &ngx_list_t) -> impl Iterator<Item = &ngx_table_elt_t> {
    let first: *const ngx_list_part_t = &raw const headers.part;
    // SAFETY: the caller's word: each part points to the next one.
    let parts = std::iter::successors(unsafe { first.as_ref() }, |part| unsafe {
        part.next.as_ref()
    });
    parts.flat_map(|part| {
        if part.nelts == 0 {
            return &[][..];
        }
        // SAFETY: the caller's word: a part holds so many headers.
        unsafe { slice::from_raw_parts(part.elts.cast::<ngx_table_elt_t>(), part.nelts) }
    })
}

/// Before the upstream module's reader of response heads: a head with status 101 makes the request a
/// tunnel, if that was offered.
unsafe extern "C" fn process_header(r: *mut ngx_http_request_t) -> ngx_int_t {
    fence(ERROR, || {
        // SAFETY: nginx calls this for a request whose upstream `init` has set up.
        let (u, ours) = unsafe {
            let u = (*r).upstream;
            (u, &*(*u).peer.data.cast::<Peer>())
        };
        let Some(before) = ours.process_header else {
            return ERROR;
        };
        // SAFETY: what nginx would have called, with what it would have given.
        let rc = unsafe { before(r) };
        let Some((fake, _)) = ours.fake else {
            // A response from the cache.
            return rc;
        };
        if rc != OK {
            return rc;
        }
        // SAFETY: as above.
        let status = unsafe { (*u).headers_in.status_n };
        if status != NGX_HTTP_SWITCHING_PROTOCOLS as ngx_uint_t {
            if ours.wants.upgrade {
                worker::with(|worker| worker.decline_upgrade(fake));
            }
            return OK;
        }
        if worker::with(|worker| worker.accept_upgrade(fake)) != Some(true) {
            // SAFETY: a request has a connection, and that a log.
            let to = unsafe { (*(*r).connection).log };
            let text = "the application answers 101 to a request that was not offered an upgrade";
            // SAFETY: it lives as long as the request.
            unsafe { log::line_to(to, Level::Error, 0, text) };
            return NGX_HTTP_UPSTREAM_INVALID_HEADER as ngx_int_t;
        }
        // SAFETY: as above.
        unsafe { (*u).set_upgrade(1) };
        OK
    })
}

/// Before `peer.init` of every upstream.
unsafe extern "C" fn init(
    r: *mut ngx_http_request_t,
    upstream: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    fence(ERROR, || {
        // SAFETY: nginx gives a request whose configuration is complete.
        let Some(hook) = unsafe { module::hooks(r) }.and_then(|hooks| hooks.find(upstream)) else {
            return ERROR;
        };
        let Some(before) = hook.init else {
            return ERROR;
        };
        // SAFETY: what nginx would have called, with what it would have given.
        let rc = unsafe { before(r, upstream) };
        if rc != OK {
            return rc;
        }
        // SAFETY: as above.
        let Some(settings) = (unsafe { module::settings(r, hook.settings) }) else {
            return OK;
        };
        // SAFETY: a request that has come so far has an upstream, whose tag its handler has set.
        let tag = unsafe { (*(*r).upstream).output.tag };
        if tag.cast_const() != (&raw const ngx_http_fastcgi_module).cast() {
            if hook.settings.is_none() {
                return OK;
            }
            // SAFETY: a request has a connection, and that a log.
            let to = unsafe { (*(*r).connection).log };
            let text = "an upstream with fastcgi_multiplex is for fastcgi_pass only";
            // SAFETY: it lives as long as the request.
            unsafe { log::line_to(to, Level::Error, 0, text) };
            return ERROR;
        }
        if !module::can_multiplex() {
            return OK;
        }
        // SAFETY: as above; the memory is the request's, and of that size.
        unsafe {
            let Some(log) = Log::of(r) else {
                return ERROR;
            };
            let u = (*r).upstream;
            let wants = wants(r);
            let ours = ngx_palloc((*r).pool, size_of::<Peer>()).cast::<Peer>();
            if ours.is_null() {
                return ERROR;
            }
            ours.write(Peer {
                data: (*u).peer.data,
                get: (*u).peer.get,
                free: (*u).peer.free,
                notify: (*u).peer.notify,
                settings,
                request: r,
                process_header: (*u).process_header,
                wants,
                resend: false,
                fake: None,
                told: false,
                log,
            });
            (*u).process_header = Some(process_header);
            (*u).peer.data = ours.cast();
            (*u).peer.get = Some(get);
            (*u).peer.free = Some(free);
            if (*u).peer.notify.is_some() {
                (*u).peer.notify = Some(notify);
            }
        }
        OK
    })
}

/// The bytes of a socket address.
///
/// Safety: it is readable for `length` bytes.
unsafe fn bytes<'a>(address: *const sockaddr, length: libc::socklen_t) -> &'a [u8] {
    if address.is_null() {
        return &[];
    }
    // SAFETY: the caller's word.
    unsafe { slice::from_raw_parts(address.cast(), length as usize) }
}

/// Asks the balancer for an address, and takes a place on a connection to it.
unsafe extern "C" fn get(pc: *mut ngx_peer_connection_t, data: *mut c_void) -> ngx_int_t {
    fenced(|| {
        // SAFETY: nginx gives back what `init` has set. `pc` stays a pointer, since it is part of the
        // request's upstream, which is written to below.
        let ours = unsafe { &mut *data.cast::<Peer>() };
        let Some(before) = ours.get else {
            return ERROR;
        };
        // SAFETY: what nginx would have called, with what it would have given.
        let rc = unsafe { before(pc, ours.data) };
        if rc != OK {
            if rc == DONE {
                // A connection that nginx has kept.
                ours.begin_anew();
            }
            return rc;
        }
        // SAFETY: the peer is valid; the balancer has set address and name, which it owns; the local
        // address is the request's.
        let (target, log) = unsafe {
            let local = (*pc).local.as_ref();
            let target = TargetRef {
                address: bytes((*pc).sockaddr, (*pc).socklen),
                local: local.map_or(&[][..], |local| bytes(local.sockaddr, local.socklen)),
                transparent: (*pc).transparent() != 0,
                keepalive: (*pc).so_keepalive() != 0,
                name: ((*pc).name.as_ref()).map_or(&[][..], |name| name.as_bytes()),
            };
            (target, (*pc).log)
        };
        let opened = worker::with(|worker| {
            let opened = worker.open(ours.settings, ours.wants, target, LogTo::request(log));
            let (fake, used, rc) = match opened {
                Opened::Now { fake, used } => (fake, used, DONE),
                Opened::Waiting { fake } => (fake, false, AGAIN),
                Opened::Aside => return Err(OK),
                Opened::Refused => return Err(DECLINED),
                Opened::Full => return Err(BUSY),
            };
            let connection = worker.connection(fake).ok_or(ERROR)?.as_ptr();
            Ok((fake, connection, used, rc))
        });
        match opened {
            Some(Ok((fake, connection, used, rc))) => {
                ours.fake = Some((fake, connection));
                ours.log.opened(fake);
                // SAFETY: the peer is valid.
                unsafe {
                    (*pc).connection = connection;
                    (*pc).set_cached((used && !ours.told).into());
                }
                ours.told |= used;
                ours.begin_anew();
                rc
            }
            Some(Err(OK)) => {
                // As if this module were not there.
                ours.begin_anew();
                OK
            }
            Some(Err(BUSY)) => {
                let text = "too many requests wait for a connection";
                // SAFETY: the log of the request, which lives.
                unsafe { log::line_to(log, Level::Error, 0, text) };
                BUSY
            }
            Some(Err(rc)) => rc,
            None => ERROR,
        }
    })
    .unwrap_or_else(|| {
        fence((), || {
            worker::with(Worker::abandon_opened);
        });
        ERROR
    })
}

/// Whether nginx has all that it wants of a response before that has ended: to HEAD only the head
/// matters, and what comes with X-Accel-Redirect does not.
///
/// Safety: the request is valid, and has an upstream.
unsafe fn is_satisfied(r: *const ngx_http_request_t) -> bool {
    // SAFETY: the caller's word; a request has a connection.
    unsafe {
        (*(*r).connection).error() == 0
            && ((*r).header_only() != 0 || !(*(*r).upstream).headers_in.x_accel_redirect.is_null())
    }
}

/// nginx is done with the connection: the fake one is taken away, so that nobody closes or keeps it.
unsafe extern "C" fn free(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
    mut state: ngx_uint_t,
) {
    // SAFETY: nginx gives back what `init` has set. `pc` stays a pointer, as in `get`.
    let ours = unsafe { &mut *data.cast::<Peer>() };
    let used = ours.fake.take();
    if let Some((_, connection)) = used {
        // Whatever becomes of what follows, nginx must not close it, and it must not call nginx.
        // SAFETY: the peer is valid. The fake was made by `get`, and the worker has it yet.
        unsafe {
            if (*pc).connection == connection {
                (*pc).connection = std::ptr::null_mut();
            }
            fake::silence(connection);
        }
    }
    if let Some((fake, _)) = used {
        let freed = fenced(|| {
            // SAFETY: the request of this peer, which has an upstream.
            let gently = unsafe { is_satisfied(ours.request) };
            worker::with(|worker| worker.free(fake, gently))
        });
        let freed = freed.flatten().unwrap_or_else(|| {
            fence((), || {
                worker::with(|worker| worker.abandon(fake));
            });
            Freed::default()
        });
        ours.log.closed(freed.trace);
        if freed.refused {
            // It works, and is busy: no failure that the balancer should count.
            state = NGX_PEER_NEXT as ngx_uint_t;
            // SAFETY: as above. What was not processed may be sent again whatever its method
            // if nginx still has all of it.
            unsafe {
                if (*ours.request).request_body_no_buffering() == 0 {
                    (*(*ours.request).upstream).set_request_sent(0);
                    ours.resend = true;
                }
            }
        }
    }
    if let Some(before) = ours.free {
        // SAFETY: what nginx would have called, with what it would have given.
        unsafe { before(pc, ours.data, state) };
    }
}

unsafe extern "C" fn notify(pc: *mut ngx_peer_connection_t, data: *mut c_void, kind: ngx_uint_t) {
    fence((), || {
        // SAFETY: nginx gives back what `init` has set.
        let ours = unsafe { &*data.cast::<Peer>() };
        if let Some(before) = ours.notify {
            // SAFETY: what nginx would have called, with what it would have given.
            unsafe { before(pc, ours.data, kind) };
        }
    });
}
