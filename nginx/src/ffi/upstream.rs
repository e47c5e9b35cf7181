//! The hooks of a request's upstream: `peer.init`, `peer.get` and `peer.free`, each before the one
//! that was there.

use std::ffi::c_void;
use std::slice;

use nginx_sys::{
    ngx_connection_t, ngx_event_free_peer_pt, ngx_event_get_peer_pt, ngx_event_notify_peer_pt,
    ngx_http_request_t, ngx_http_upstream_init_peer_pt, ngx_http_upstream_srv_conf_t, ngx_int_t,
    ngx_module_t, ngx_palloc, ngx_peer_connection_t, ngx_uint_t, sockaddr,
};

use super::log::{self, Level};
use super::sock::{LogTo, Target};
use super::{AGAIN, BUSY, DECLINED, DONE, ERROR, OK, fence, module};
use crate::conf::Settings;
use crate::worker::{self, Opened};

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
    /// The number and the address of the fake connection, while there is one.
    fake: Option<(usize, *mut ngx_connection_t)>,
    /// Whether nginx was told of a kept connection, which gives it one more try.
    told: bool,
}

/// Before `peer.init` of every upstream.
unsafe extern "C" fn init(
    r: *mut ngx_http_request_t,
    upstream: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    fence(ERROR, || {
        let Some(hook) = module::hooks(r).and_then(|hooks| hooks.find(upstream)) else {
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
        let Some(settings) = module::settings(r, hook.settings) else {
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
            log::line_to(to, Level::Error, 0, text);
            return ERROR;
        }
        if !module::can_multiplex() {
            return OK;
        }
        // SAFETY: as above; the memory is the request's, and of that size.
        unsafe {
            let peer = &mut (*(*r).upstream).peer;
            let ours = ngx_palloc((*r).pool, size_of::<Peer>()).cast::<Peer>();
            if ours.is_null() {
                return ERROR;
            }
            ours.write(Peer {
                data: peer.data,
                get: peer.get,
                free: peer.free,
                notify: peer.notify,
                settings,
                fake: None,
                told: false,
            });
            peer.data = ours.cast();
            peer.get = Some(get);
            peer.free = Some(free);
            if peer.notify.is_some() {
                peer.notify = Some(notify);
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
    fence(ERROR, || {
        // SAFETY: nginx gives back what `init` has set, with the peer that it belongs to.
        let (pc, ours) = unsafe { (&mut *pc, &mut *data.cast::<Peer>()) };
        let Some(before) = ours.get else {
            return ERROR;
        };
        // SAFETY: what nginx would have called, with what it would have given.
        let rc = unsafe { before(pc, ours.data) };
        if rc != OK {
            return rc;
        }
        // SAFETY: the balancer has set address and name; the local address is the request's.
        let (address, local, name) = unsafe {
            let local = pc.local.as_ref();
            (
                bytes(pc.sockaddr, pc.socklen),
                local.map_or(&[][..], |local| bytes(local.sockaddr, local.socklen)),
                (pc.name.as_ref()).map_or(&[][..], |name| name.as_bytes()),
            )
        };
        let (transparent, keepalive) = (pc.transparent() != 0, pc.so_keepalive() != 0);
        let opened = worker::with(|worker| {
            let opened = worker.open(
                ours.settings,
                |target| {
                    target.address == address
                        && target.local == local
                        && target.transparent == transparent
                        && target.keepalive == keepalive
                },
                || Target {
                    address: address.to_vec(),
                    local: local.to_vec(),
                    transparent,
                    keepalive,
                    name: String::from_utf8_lossy(name).into_owned(),
                },
                LogTo::request(pc.log),
            );
            let (fake, used, rc) = match opened {
                Opened::Now { fake, used } => (fake, used, DONE),
                Opened::Waiting { fake } => (fake, false, AGAIN),
                Opened::Refused => return Err(DECLINED),
                Opened::Full => return Err(BUSY),
            };
            let connection = worker.connection(fake).ok_or(ERROR)?.as_ptr();
            Ok((fake, connection, used, rc))
        });
        match opened {
            Some(Ok((fake, connection, used, rc))) => {
                ours.fake = Some((fake, connection));
                pc.connection = connection;
                pc.set_cached((used && !ours.told).into());
                ours.told |= used;
                rc
            }
            Some(Err(BUSY)) => {
                let text = "too many requests wait for a connection";
                log::line_to(pc.log, Level::Error, 0, text);
                BUSY
            }
            Some(Err(rc)) => rc,
            None => ERROR,
        }
    })
}

/// nginx is done with the connection: the fake one is taken away, so that nobody closes or keeps it.
unsafe extern "C" fn free(pc: *mut ngx_peer_connection_t, data: *mut c_void, state: ngx_uint_t) {
    // SAFETY: nginx gives back what `init` has set, with the peer that it belongs to.
    let (pc, ours) = unsafe { (&mut *pc, &mut *data.cast::<Peer>()) };
    fence((), || {
        if let Some((fake, connection)) = ours.fake.take() {
            if pc.connection == connection {
                pc.connection = std::ptr::null_mut();
            }
            worker::with(|worker| worker.free(fake));
        }
    });
    if let Some(before) = ours.free {
        // SAFETY: what nginx would have called, with what it would have given.
        unsafe { before(pc, ours.data, state) };
    }
}

unsafe extern "C" fn notify(pc: *mut ngx_peer_connection_t, data: *mut c_void, kind: ngx_uint_t) {
    // SAFETY: nginx gives back what `init` has set.
    let ours = unsafe { &*data.cast::<Peer>() };
    if let Some(before) = ours.notify {
        // SAFETY: what nginx would have called, with what it would have given.
        unsafe { before(pc, ours.data, kind) };
    }
}
