//! What nginx takes for a connection to the application.
//!
//! It has no socket of its own that anything travels on: its reads and writes are this module's. The
//! event loop must never hear of it, and nginx must never close it, so both of its events count as
//! active, and `peer.free` takes it away first.

use std::cell::Cell;
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::slice;

use nginx_sys::{
    NGX_INVALID_INDEX, ngx_buf_t, ngx_chain_t, ngx_chain_update_sent, ngx_connection_t,
    ngx_connection_tcp_nodelay_e_NGX_TCP_NODELAY_DISABLED,
    ngx_connection_tcp_nopush_e_NGX_TCP_NOPUSH_DISABLED, ngx_del_timer, ngx_delete_posted_event,
    ngx_destroy_pool, ngx_event_t, ngx_post_event, ngx_posted_events, ngx_reset_pool, off_t,
    u_char,
};

use super::log;
use super::{AGAIN, ERROR, fence, fenced};
use crate::host as worker;
use afcgi_nginx_core::fake::Got;
use afcgi_nginx_core::host::{self, FakeConnection as _, Level};
use afcgi_nginx_core::keys::{self, FakeKey};

/// The connection, its events, and the number under which the worker knows it.
#[repr(C)]
struct Raw {
    connection: ngx_connection_t,
    read: ngx_event_t,
    write: ngx_event_t,
    id: u64,
}

/// Owns a fake connection. Invariant: the pointer is valid and the events belong to it.
pub(crate) struct FakeConnection(NonNull<Raw>);

impl fmt::Debug for FakeConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FakeConnection").field(&self.0).finish()
    }
}

thread_local! {
    static SOCKET: Cell<i32> = const { Cell::new(-1) };
}

/// A socket that is connected to nothing, for all fakes of this worker: nginx asks a connection's
/// socket for its error, and -1 would make it skip timers.
fn idle_socket() -> i32 {
    if SOCKET.get() == -1 {
        // SAFETY: takes no pointers.
        SOCKET
            .set(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) });
    }
    SOCKET.get()
}

/// Closes the socket of all fakes, when the worker ends.
pub(crate) fn close_idle_socket() {
    let socket = SOCKET.replace(-1);
    if socket != -1 {
        // SAFETY: takes no pointers; the descriptor is ours.
        unsafe { libc::close(socket) };
    }
}

impl FakeConnection {
    /// A fake, with the number by which the worker is to be asked. `None` if there are no descriptors.
    pub(crate) fn new(id: FakeKey) -> Option<Self> {
        if idle_socket() == -1 {
            return None;
        }
        // SAFETY: integers, pointers and optional functions, for all of which zero is a value.
        let raw: Box<Raw> = Box::new(unsafe { std::mem::zeroed() });
        let mut fake = Self(NonNull::from(Box::leak(raw)));
        fake.renew(id);
        Some(fake)
    }

    /// For `peer.connection`.
    pub(crate) fn as_ptr(&self) -> *mut ngx_connection_t {
        self.0.as_ptr().cast()
    }
}

impl host::FakeConnection for FakeConnection {
    /// Makes the fake as good as new, for another request.
    fn renew(&mut self, id: FakeKey) {
        let at = self.0.as_ptr();
        // SAFETY: ours alone (see the type), in no queue or timer of nginx's (see `silence`), and zero
        // is a value of everything in it.
        unsafe {
            let pool = (*at).connection.pool;
            ptr::write_bytes(at, 0, 1);
            (*at).id = keys::number(id);
            let connection = &mut (*at).connection;
            connection.pool = pool;
            if !pool.is_null() {
                ngx_reset_pool(pool);
            }
            connection.fd = idle_socket();
            connection.read = &raw mut (*at).read;
            connection.write = &raw mut (*at).write;
            connection.recv = Some(recv);
            connection.send = Some(send);
            connection.recv_chain = Some(recv_chain);
            connection.send_chain = Some(send_chain);
            connection.log = log::cycle_log();
            connection.set_shared(1);
            connection.set_sndlowat(1);
            connection.set_tcp_nodelay(ngx_connection_tcp_nodelay_e_NGX_TCP_NODELAY_DISABLED);
            connection.set_tcp_nopush(ngx_connection_tcp_nopush_e_NGX_TCP_NOPUSH_DISABLED);
            for event in [&mut (*at).read, &mut (*at).write] {
                event.data = at.cast();
                event.handler = Some(nobody);
                event.index = NGX_INVALID_INDEX as usize;
                event.log = log::cycle_log();
                event.set_active(1);
            }
            (*at).write.set_write(1);
            (*at).write.set_ready(1);
        }
    }

    /// Has nginx read in this turn of the event loop.
    fn wake_read(&self) {
        // SAFETY: valid (see the type), and nginx is not in the middle of a change of its queues.
        unsafe { wake(&raw mut (*self.0.as_ptr()).read) }
    }

    /// Has nginx write in this turn of the event loop.
    fn wake_write(&self) {
        // SAFETY: as in `wake_read`.
        unsafe { wake(&raw mut (*self.0.as_ptr()).write) }
    }

    /// Takes the fake out of nginx's timers and queues, and away from the request and its log: nginx
    /// is done with it.
    fn silence(&self) {
        // SAFETY: valid (see the type), and a fake.
        unsafe { silence(self.as_ptr()) };
    }

    /// Whether nginx gave up waiting for the application.
    fn timed_out(&self) -> bool {
        // SAFETY: valid (see the type).
        unsafe { (*self.0.as_ptr()).read.timedout() != 0 }
    }

    /// Writes a line about the request to the error log.
    fn log(&self, level: Level, errno: i32, text: &str) {
        // SAFETY: valid (see the type); nginx has set the log of the request, which lives.
        unsafe { log::line_to((*self.0.as_ptr()).connection.log, level, errno, text) };
    }
}

impl Drop for FakeConnection {
    fn drop(&mut self) {
        self.silence();
        // SAFETY: valid (see the type) and not used again; the pool is this connection's own.
        unsafe {
            let raw = Box::from_raw(self.0.as_ptr());
            if !raw.connection.pool.is_null() {
                ngx_destroy_pool(raw.connection.pool);
            }
        }
    }
}

/// See [`FakeConnection::silence`].
///
/// Safety: `connection` is a fake.
pub(super) unsafe fn silence(connection: *mut ngx_connection_t) {
    let at = connection.cast::<Raw>();
    // SAFETY: the caller's word; the pool that nginx has made for it is valid too, and the flags say
    // truly whether the events are in the tree and the queue.
    unsafe {
        (*at).connection.log = log::cycle_log();
        (*at).read.log = log::cycle_log();
        (*at).write.log = log::cycle_log();
        if let Some(pool) = (*at).connection.pool.as_mut() {
            pool.log = log::cycle_log();
        }
        for event in [&raw mut (*at).read, &raw mut (*at).write] {
            if (*event).timer_set() != 0 {
                ngx_del_timer(event);
            }
            if (*event).posted() != 0 {
                ngx_delete_posted_event(event);
            }
            (*event).handler = Some(nobody);
        }
    }
}

/// What hears of the events of a fake that no request has.
unsafe extern "C" fn nobody(_event: *mut ngx_event_t) {}

/// Safety: `event` is valid.
unsafe fn wake(event: *mut ngx_event_t) {
    // SAFETY: the caller's word; the queue is nginx's own.
    unsafe {
        (*event).set_ready(1);
        ngx_post_event(event, &raw mut ngx_posted_events);
    }
}

/// Has the read event of a fake that had to fail in `recv` remembered as nginx's own would be.
///
/// Safety: `c` is a fake.
unsafe fn note(c: *mut ngx_connection_t, got: Got) -> isize {
    // SAFETY: the caller's word.
    let read = unsafe { &mut *(*c).read };
    match got {
        Got::Bytes { count, more } => {
            read.set_ready(more.into());
            count.cast_signed()
        }
        Got::Again => {
            read.set_ready(0);
            AGAIN
        }
        Got::End => {
            read.set_ready(0);
            read.set_eof(1);
            0
        }
        Got::Failed => {
            read.set_ready(0);
            read.set_error(1);
            ERROR
        }
    }
}

/// Safety: `c` is a fake, and `buffer` is writable for `size` bytes.
unsafe fn read(c: *mut ngx_connection_t, buffer: *mut u_char, size: usize) -> Got {
    if size == 0 {
        return Got::Bytes {
            count: 0,
            more: true,
        };
    }
    // SAFETY: the caller's word. No byte need have been written.
    let (id, mut out) = unsafe {
        (
            keys::key((*c.cast::<Raw>()).id),
            slice::from_raw_parts_mut(buffer.cast::<MaybeUninit<u8>>(), size),
        )
    };
    worker::with(|worker| worker.recv(id, &mut out)).unwrap_or(Got::Failed)
}

/// Runs a call on a fake. After a panic the connection that it is on is given up: nothing about it can
/// be trusted.
///
/// Safety: `c` is a fake.
unsafe fn call<T>(c: *mut ngx_connection_t, failed: T, body: impl FnOnce() -> T) -> T {
    fenced(body).unwrap_or_else(|| {
        // SAFETY: the caller's word.
        let id = keys::key(unsafe { (*c.cast::<Raw>()).id });
        fence((), || {
            worker::with(|worker| worker.give_up_under(id));
        });
        failed
    })
}

unsafe extern "C" fn recv(c: *mut ngx_connection_t, buffer: *mut u_char, size: usize) -> isize {
    let body = || {
        // SAFETY: nginx calls this for a fake, with room for `size` bytes.
        unsafe { note(c, read(c, buffer, size)) }
    };
    // SAFETY: nginx calls this for a fake.
    unsafe { call(c, ERROR, body) }
}

unsafe extern "C" fn recv_chain(
    c: *mut ngx_connection_t,
    chain: *mut ngx_chain_t,
    limit: off_t,
) -> isize {
    let body = || {
        let mut left = match usize::try_from(limit) {
            Ok(limit) if limit > 0 => limit,
            _ => usize::MAX,
        };
        let mut total = 0;
        let mut link = chain;
        let mut more = true;
        while !link.is_null() && more && left > 0 {
            // SAFETY: nginx gives a chain of buffers with room from `last` to `end`.
            let (got, room) = unsafe {
                let buffer = (*link).buf;
                let room = (*buffer).end.offset_from_unsigned((*buffer).last).min(left);
                link = (*link).next;
                (read(c, (*buffer).last, room), room)
            };
            match got {
                Got::Bytes {
                    count,
                    more: has_more,
                } => {
                    total += count;
                    left -= count;
                    more = has_more && count == room;
                    // SAFETY: nginx calls this for a fake.
                    unsafe { note(c, got) };
                }
                // The next call finds it again.
                _ if total > 0 => more = false,
                // SAFETY: nginx calls this for a fake.
                _ => return unsafe { note(c, got) },
            }
        }
        total.cast_signed()
    };
    // SAFETY: nginx calls this for a fake.
    unsafe { call(c, ERROR, body) }
}

/// Safety: `c` is a fake, and `bytes` is readable for `size` bytes.
unsafe fn write(c: *mut ngx_connection_t, bytes: *const u_char, size: usize) -> Result<usize, ()> {
    if size == 0 {
        return Ok(0);
    }
    // SAFETY: the caller's word.
    let (id, bytes) = unsafe {
        let id = keys::key((*c.cast::<Raw>()).id);
        (id, slice::from_raw_parts(bytes, size))
    };
    let sent = worker::with(|worker| worker.send(id, bytes))
        .flatten()
        .ok_or(());
    // SAFETY: the caller's word.
    unsafe {
        match sent {
            Ok(count) => {
                (*c).sent += count as off_t;
                if count < size {
                    (*(*c).write).set_ready(0);
                }
            }
            Err(()) => (*(*c).write).set_error(1),
        }
    }
    sent
}

unsafe extern "C" fn send(c: *mut ngx_connection_t, bytes: *mut u_char, size: usize) -> isize {
    let body = || {
        // SAFETY: nginx calls this for a fake, with `size` bytes.
        match unsafe { write(c, bytes, size) } {
            Ok(0) if size > 0 => AGAIN,
            Ok(count) => count.cast_signed(),
            Err(()) => ERROR,
        }
    };
    // SAFETY: nginx calls this for a fake.
    unsafe { call(c, ERROR, body) }
}

/// What `NGX_CHAIN_ERROR` is.
fn chain_error() -> *mut ngx_chain_t {
    ptr::without_provenance_mut(ERROR.cast_unsigned())
}

unsafe extern "C" fn send_chain(
    c: *mut ngx_connection_t,
    chain: *mut ngx_chain_t,
    _limit: off_t,
) -> *mut ngx_chain_t {
    let body = || {
        let mut total = 0;
        let mut link = chain;
        while !link.is_null() {
            // SAFETY: nginx gives a chain of buffers.
            let buffer: &ngx_buf_t = unsafe { &*(*link).buf };
            let in_memory = buffer.temporary() | buffer.memory() | buffer.mmap() != 0;
            if in_memory {
                // SAFETY: a buffer in memory holds bytes from `pos` to `last`.
                let (size, sent) = unsafe {
                    let size = buffer.last.offset_from_unsigned(buffer.pos);
                    (size, write(c, buffer.pos, size))
                };
                let Ok(count) = sent else {
                    return chain_error();
                };
                total += count;
                if count < size {
                    break;
                }
            } else if buffer.in_file() != 0 {
                // Cannot be: `sendfile` is off, so nginx reads files into memory.
                return chain_error();
            }
            // SAFETY: as above.
            link = unsafe { (*link).next };
        }
        // SAFETY: the chain is as it was, and `total` is no more than it holds.
        unsafe { ngx_chain_update_sent(chain, total as off_t) }
    };
    // SAFETY: nginx calls this for a fake.
    unsafe { call(c, chain_error(), body) }
}
