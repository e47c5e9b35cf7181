//! A socket to an application, in nginx's event loop.
//!
//! It has two events of its own beside those of the connection: one that is posted to send what the
//! requests of a turn of the event loop have written, and one timer.

use std::cell::Cell;
use std::ffi::c_ulong;
use std::fmt;
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use nginx_sys::{
    ngx_add_timer, ngx_addr_t, ngx_close_connection, ngx_connection_log_error_e_NGX_ERROR_ERR,
    ngx_connection_t, ngx_del_timer, ngx_delete_posted_event, ngx_event_connect_peer,
    ngx_event_get_peer, ngx_event_t, ngx_handle_read_event, ngx_handle_write_event, ngx_log_t,
    ngx_msec_t, ngx_peer_connection_t, ngx_post_event, ngx_posted_events, ngx_posted_next_events,
    ngx_reusable_connection, ngx_str_t, ngx_tcp_nodelay,
};

use super::{AGAIN, OK, fence, log};
use crate::host as worker;
use afcgi_nginx_core::host::{Io, Socket, Target};
use afcgi_nginx_core::keys::{self, RealKey};

/// A socket address in memory that is aligned for every family.
#[repr(C)]
struct Address(libc::sockaddr_storage);

impl Address {
    fn new(bytes: &[u8]) -> Option<Self> {
        // SAFETY: integers only, for which zero is a value.
        let mut address = Self(unsafe { std::mem::zeroed() });
        if bytes.len() > size_of::<Self>() {
            return None;
        }
        // SAFETY: there is room, as was checked, and the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut address).cast(), bytes.len()) };
        Some(address)
    }
}

#[repr(C)]
struct Raw {
    /// What the own events have for a connection: nginx's debug log asks for its descriptor.
    ident: ngx_connection_t,
    flush: ngx_event_t,
    timer: ngx_event_t,
    /// nginx's, and open.
    connection: *mut ngx_connection_t,
    /// By which the worker knows it.
    id: u64,
}

/// An open socket. Invariants: the pointer is valid; the connection is open, and its `data` is `Raw`.
pub(crate) struct Sock {
    raw: NonNull<Raw>,
    armed: Cell<Option<Instant>>,
}

impl fmt::Debug for Sock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sock")
            .field("raw", &self.raw)
            .field("armed", &self.armed)
            .finish()
    }
}

/// The log that errors of connecting go to: a request's, or the worker's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogTo(*mut ngx_log_t);

impl LogTo {
    pub(crate) fn worker() -> Self {
        Self(log::cycle_log())
    }

    pub(super) fn request(log: *mut ngx_log_t) -> Self {
        Self(log)
    }
}

impl Sock {
    /// Begins to connect, and says whether it is connected already. `None`: it failed, which nginx has
    /// logged to `log`. The worker hears of it under `id`.
    pub(crate) fn connect(target: &Target, id: RealKey, log: LogTo) -> Option<(Self, bool)> {
        let mut address = Address::new(&target.address)?;
        let mut local = Address::new(&target.local)?;
        let mut name = text(target.name.as_bytes());
        // SAFETY: integers, pointers and optional functions, for all of which zero is a value.
        let mut from: ngx_addr_t = unsafe { std::mem::zeroed() };
        from.sockaddr = (&raw mut local).cast();
        from.socklen = target.local.len() as _;
        from.name = text(b"fastcgi_bind");
        // SAFETY: as above.
        let mut peer: ngx_peer_connection_t = unsafe { std::mem::zeroed() };
        peer.sockaddr = (&raw mut address).cast();
        peer.socklen = target.address.len() as _;
        peer.name = &raw mut name;
        peer.get = Some(ngx_event_get_peer);
        peer.log = log.0;
        peer.set_log_error(ngx_connection_log_error_e_NGX_ERROR_ERR);
        peer.set_so_keepalive(target.keepalive.into());
        if !target.local.is_empty() {
            peer.local = &raw mut from;
            peer.set_transparent(target.transparent.into());
        }
        // SAFETY: all that the peer points to lives until the call returns.
        let rc = unsafe { ngx_event_connect_peer(&raw mut peer) };
        let connection = peer.connection;
        if (rc != OK && rc != AGAIN) || connection.is_null() {
            if !connection.is_null() {
                // SAFETY: open, and nobody else's.
                unsafe { ngx_close_connection(connection) };
            }
            return None;
        }
        // SAFETY: as above, zero is a value of everything in it.
        let raw: Box<Raw> = Box::new(unsafe { std::mem::zeroed() });
        let raw = NonNull::from(Box::leak(raw));
        let sock = Self {
            raw,
            armed: Cell::new(None),
        };
        // SAFETY: both were just made; the events point to what lives as long as they do.
        unsafe {
            let at = raw.as_ptr();
            (*at).connection = connection;
            (*at).id = keys::number(id);
            (*at).ident.data = at.cast();
            (*at).ident.fd = (*connection).fd;
            for event in [&mut (*at).flush, &mut (*at).timer] {
                event.data = at.cast();
                event.log = log::cycle_log();
            }
            (*at).flush.handler = Some(on_flush);
            (*at).timer.handler = Some(on_timer);
            // It must not keep a worker from ending that has no requests.
            (*at).timer.set_cancelable(1);
            (*connection).data = at.cast();
            // Longer than the request that it is opened for.
            (*connection).log = log::cycle_log();
            (*connection).pool = ptr::null_mut();
            for (event, handler) in [
                ((*connection).read, on_read as unsafe extern "C" fn(_)),
                ((*connection).write, on_write),
            ] {
                (*event).log = log::cycle_log();
                (*event).handler = Some(handler);
            }
        }
        Some((sock, rc == OK))
    }

    fn connection(&self) -> *mut ngx_connection_t {
        // SAFETY: see the invariant.
        unsafe { (*self.raw.as_ptr()).connection }
    }
}

impl Socket for Sock {
    /// nginx's number of the connection, which no other one of any worker has.
    fn number(&self) -> c_ulong {
        // SAFETY: the connection is open.
        unsafe { (*self.connection()).number }
    }

    /// The error of connecting, 0 if there is none.
    fn take_error(&self) -> i32 {
        let mut error: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the descriptor is open, and the result has the size that is said.
        let rc = unsafe {
            libc::getsockopt(
                (*self.connection()).fd,
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &raw mut length,
            )
        };
        if rc == -1 { libc::EBADF } else { error }
    }

    /// Has small writes sent at once, where the address family knows of delaying them.
    fn set_nodelay(&self, target: &Target) {
        let mut family = [0; size_of::<libc::sa_family_t>()];
        for (to, from) in family.iter_mut().zip(&target.address) {
            *to = *from;
        }
        let family = i32::from(libc::sa_family_t::from_ne_bytes(family));
        if family == libc::AF_INET || family == libc::AF_INET6 {
            // SAFETY: the connection is open.
            unsafe { ngx_tcp_nodelay(self.connection()) };
        }
    }

    /// Whether the other side has closed, or written without being asked: not to be used again.
    fn is_stale(&self) -> bool {
        let mut byte = 0_u8;
        // SAFETY: the descriptor is open, and there is room for the byte.
        let rc = unsafe {
            libc::recv(
                (*self.connection()).fd,
                (&raw mut byte).cast(),
                1,
                libc::MSG_PEEK | libc::MSG_DONTWAIT,
            )
        };
        rc != -1 || std::io::Error::last_os_error().kind() != std::io::ErrorKind::WouldBlock
    }

    fn recv(&self, buffer: &mut [u8]) -> Io {
        let connection = self.connection();
        // SAFETY: open, its function was set when it was connected, and the buffer has that size.
        let count = unsafe {
            let Some(recv) = (*connection).recv else {
                return Io::Failed;
            };
            recv(connection, buffer.as_mut_ptr(), buffer.len())
        };
        match usize::try_from(count) {
            Ok(0) => Io::Closed,
            Ok(count) => Io::Bytes(count),
            Err(_) if count != AGAIN => Io::Failed,
            // SAFETY: the event is the connection's.
            Err(_) => match unsafe { ngx_handle_read_event((*connection).read, 0) } {
                OK => Io::Again,
                _ => Io::Failed,
            },
        }
    }

    fn send(&self, bytes: &[u8]) -> Io {
        let connection = self.connection();
        // SAFETY: open, its function was set when it was connected, it does not write to the bytes.
        let count = unsafe {
            let Some(send) = (*connection).send else {
                return Io::Failed;
            };
            send(connection, bytes.as_ptr().cast_mut(), bytes.len())
        };
        match usize::try_from(count) {
            Ok(count) => Io::Bytes(count),
            Err(_) if count != AGAIN => Io::Failed,
            // SAFETY: the event is the connection's.
            Err(_) => match unsafe { ngx_handle_write_event((*connection).write, 0) } {
                OK => Io::Again,
                _ => Io::Failed,
            },
        }
    }

    /// Whether another read may give something.
    fn may_read(&self) -> bool {
        // SAFETY: the connection is open.
        unsafe { (*(*self.connection()).read).ready() != 0 }
    }

    /// Whether another write may take something.
    fn may_write(&self) -> bool {
        // SAFETY: the connection is open.
        unsafe { (*(*self.connection()).write).ready() != 0 }
    }

    /// Whether nginx asks for idle connections to be closed.
    fn is_closing(&self) -> bool {
        // SAFETY: the connection is open.
        unsafe { (*self.connection()).close() != 0 }
    }

    fn set_idle(&self, idle: bool) {
        // SAFETY: the connection is open.
        unsafe { (*self.connection()).set_idle(idle.into()) };
    }

    /// Lets nginx close the connection when it runs out of `worker_connections`, as it does with those
    /// that `keepalive` keeps.
    fn set_reusable(&self, reusable: bool) {
        let connection = self.connection();
        // SAFETY: the connection is open; the queue is nginx's own.
        unsafe {
            if (*connection).reusable() != u32::from(reusable) {
                ngx_reusable_connection(connection, reusable.into());
            }
        }
    }

    /// Has `worker.flush` called in this turn of the event loop, after what is posted already.
    fn post_flush(&self) {
        // SAFETY: valid (see the invariant); the queue is nginx's own.
        unsafe {
            ngx_post_event(
                &raw mut (*self.raw.as_ptr()).flush,
                &raw mut ngx_posted_events,
            );
        }
    }

    /// Has it read again in the next turn of the event loop, after everybody else's events.
    fn read_next_turn(&self) {
        // SAFETY: the connection is open; the queue is nginx's own.
        unsafe { ngx_post_event((*self.connection()).read, &raw mut ngx_posted_next_events) };
    }

    /// Has `worker.due` called then, or earlier.
    fn wake_at(&self, now: Instant, due: Instant) {
        if self.armed.get().is_some_and(|armed| armed <= due) {
            return;
        }
        let wait = due.saturating_duration_since(now) + Duration::from_millis(1);
        let wait = ngx_msec_t::try_from(wait.as_millis()).unwrap_or(ngx_msec_t::MAX / 4);
        // SAFETY: valid (see the invariant), and the flag says truly whether it is in the tree.
        unsafe {
            let timer = &raw mut (*self.raw.as_ptr()).timer;
            // nginx leaves a timer where it is that is moved by little.
            if (*timer).timer_set() != 0 {
                ngx_del_timer(timer);
            }
            ngx_add_timer(timer, wait);
        }
        self.armed.set(Some(due));
    }

    /// The timer has fired.
    fn disarmed(&self) {
        self.armed.set(None);
    }
}

impl Drop for Sock {
    fn drop(&mut self) {
        // SAFETY: valid (see the invariant) and not used again; the flags say truly where the events
        // are, and nginx takes those of the connection away itself.
        unsafe {
            let raw = Box::from_raw(self.raw.as_ptr());
            let mut raw = std::mem::ManuallyDrop::new(raw);
            for event in [&raw mut raw.flush, &raw mut raw.timer] {
                if (*event).posted() != 0 {
                    ngx_delete_posted_event(event);
                }
                if (*event).timer_set() != 0 {
                    ngx_del_timer(event);
                }
            }
            ngx_close_connection(raw.connection);
            std::mem::ManuallyDrop::drop(&mut raw);
        }
    }
}

/// A string of nginx's over bytes that it does not change.
pub(super) fn text(bytes: &[u8]) -> ngx_str_t {
    ngx_str_t {
        len: bytes.len(),
        data: bytes.as_ptr().cast_mut(),
    }
}

/// Runs the worker's answer to an event. After a panic the connection is given up.
fn on_event(id: RealKey, answer: impl FnOnce(&mut worker::Worker, RealKey)) {
    let done = fence(false, || {
        worker::with(|worker| answer(worker, id)).is_some()
    });
    if !done {
        fence((), || {
            worker::with(|worker| worker.give_up(id));
        });
    }
}

/// Safety: `event` is an own event of a socket.
unsafe fn id_of_own(event: *mut ngx_event_t) -> RealKey {
    // SAFETY: the caller's word: `data` of such events is `Raw`.
    keys::key(unsafe { (*(*event).data.cast::<Raw>()).id })
}

/// Safety: `event` is an event of the connection of a socket.
unsafe fn id_of(event: *mut ngx_event_t) -> RealKey {
    // SAFETY: the caller's word: `data` of such events is the connection, whose `data` is `Raw`.
    keys::key(unsafe {
        let connection = (*event).data.cast::<ngx_connection_t>();
        (*(*connection).data.cast::<Raw>()).id
    })
}

unsafe extern "C" fn on_read(event: *mut ngx_event_t) {
    if worker::is_busy() {
        // nginx wants the connection back while the worker opens another one.
        // SAFETY: nginx calls this for the events it was set for; the queue is nginx's own.
        unsafe { ngx_post_event(event, &raw mut ngx_posted_events) };
        return;
    }
    // SAFETY: nginx calls this for the events it was set for.
    let id = unsafe { id_of(event) };
    on_event(id, |worker, id| worker.readable(id));
}

unsafe extern "C" fn on_write(event: *mut ngx_event_t) {
    // SAFETY: nginx calls this for the events it was set for.
    let id = unsafe { id_of(event) };
    on_event(id, |worker, id| worker.writable(id));
}

unsafe extern "C" fn on_flush(event: *mut ngx_event_t) {
    // SAFETY: nginx calls this for the events it was set for.
    let id = unsafe { id_of_own(event) };
    on_event(id, |worker, id| worker.flush(id));
}

unsafe extern "C" fn on_timer(event: *mut ngx_event_t) {
    // SAFETY: nginx calls this for the events it was set for.
    let id = unsafe { id_of_own(event) };
    on_event(id, |worker, id| worker.due(id));
}
