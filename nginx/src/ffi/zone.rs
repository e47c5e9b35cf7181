//! The memory that the worker processes share, in zones of nginx's: one for the table of
//! [`status`](afcgi_nginx_core::status), without which nothing is counted and which `fastcgi_multiplex_status`
//! brings, and one for the [`verdicts`].
//!
//! nginx keeps a zone across reloads as long as its size stays, and with it all totals and verdicts.

use afcgi_nginx_core::host::Level;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;
use std::time::Instant;

use afcgi_proto::Verdict;

use nginx_sys::{
    ngx_command_t, ngx_conf_t, ngx_cycle_t, ngx_int_t, ngx_list_part_t, ngx_pagesize,
    ngx_parse_size, ngx_shared_memory_add, ngx_shm_zone_t, ngx_slab_calloc, ngx_slab_pool_t,
    ngx_str_t,
};

use super::log;
use super::module::{conf_error, tag};
use super::status::text;
use super::{ERROR, OK, fence};
use crate::host as worker;
use afcgi_nginx_core::status::{Counts, Entry, Summary, summaries};
use afcgi_nginx_core::verdicts::{self, Clock};

/// The zone of what is counted.
const STATUS: &CStr = c"fastcgi_multiplex_status";
/// The zone of what is known of applications.
const VERDICTS: &CStr = c"fastcgi_multiplex_verdicts";
/// Bytes of that: room for some 14,000 addresses.
const VERDICTS_SIZE: usize = 256 * 1024;
/// Bytes of the zone of what is counted where nothing is said of its size.
const SIZE: usize = 256 * 1024;
/// The smallest zone, in pages, as with nginx's own modules.
const LEAST_PAGES: usize = 8;
/// The largest zone, in bytes.
const MOST: usize = 64 * 1024 * 1024;

thread_local! {
    /// The table of the configuration that is in force.
    static TABLE: Cell<&'static [Entry]> = const { Cell::new(&[]) };
    /// What is known of applications, in that configuration.
    static KNOWN: Cell<&'static [verdicts::Entry]> = const { Cell::new(&[]) };
    /// Whether the log says that the table is full.
    static WARNED: Cell<bool> = const { Cell::new(false) };
}

/// Where requests to an address are to be counted.
pub(crate) fn counts(address: &str) -> Counts {
    let table = TABLE.get();
    if table.is_empty() {
        return Counts::default();
    }
    Counts::claim(table, address, std::process::id(), is_alive).unwrap_or_else(|| {
        if !WARNED.replace(true) {
            let text = "fastcgi_multiplex_status_zone is too small: not all addresses are counted";
            log::line(Level::Warning, text);
        }
        Counts::default()
    })
}

/// What the workers know of the application at an address, by the hash of that.
pub(crate) fn verdict(address: u64, now: Instant) -> Option<Verdict> {
    verdicts::get(KNOWN.get(), address, clock(now)?)
}

/// Lets all workers know.
pub(crate) fn tell(address: u64, verdict: Verdict, now: Instant) {
    if let Some(clock) = clock(now) {
        verdicts::put(KNOWN.get(), address, verdict, clock);
    }
}

/// A time as all processes have it.
fn clock(now: Instant) -> Option<Clock> {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call writes to the memory if it gives 0, and only then is it read.
    let time = unsafe {
        if libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) != 0 {
            return None;
        }
        time.assume_init()
    };
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let millis = u64::try_from(time.tv_nsec).ok()? / 1_000_000;
    let millis = seconds.saturating_mul(1000).saturating_add(millis);
    Some(Clock { now, millis })
}

/// The sums of all processes, how many entries the table has, and how many of them are in use.
pub(super) fn sums() -> (Vec<Summary>, usize, usize) {
    let table = TABLE.get();
    let (sums, used) = summaries(table, is_alive);
    (sums, table.len(), used)
}

/// Whether there is such a process. One of another user's, whom a reload may have replaced, counts.
fn is_alive(process: u32) -> bool {
    let Ok(process) = libc::pid_t::try_from(process) else {
        return false;
    };
    // SAFETY: takes no pointers, and signal 0 is none.
    let rc = unsafe { libc::kill(process, 0) };
    rc == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Has this configuration have a zone of what is counted, of `size` bytes, or of any if that is 0.
/// `false`: nginx has said what is wrong.
///
/// Safety: `cf` is a configuration that is being read.
pub(super) unsafe fn declare(cf: *mut ngx_conf_t, size: usize) -> bool {
    // SAFETY: the caller's word.
    unsafe { add(cf, STATUS, size, init::<Entry>) }
}

/// Has this configuration have a zone of what is known of applications. `false`: nginx has said what is
/// wrong.
///
/// Safety: `cf` is a configuration that is being read.
pub(super) unsafe fn declare_verdicts(cf: *mut ngx_conf_t) -> bool {
    // SAFETY: the caller's word.
    unsafe { add(cf, VERDICTS, VERDICTS_SIZE, init::<verdicts::Entry>) }
}

type Init = unsafe extern "C" fn(*mut ngx_shm_zone_t, *mut c_void) -> ngx_int_t;

/// Safety: `cf` is a configuration that is being read.
unsafe fn add(cf: *mut ngx_conf_t, name: &'static CStr, size: usize, init: Init) -> bool {
    let mut name = text(name);
    // SAFETY: the caller's word; nginx copies the name, whose bytes are never freed.
    unsafe {
        let zone = ngx_shared_memory_add(cf, &raw mut name, size, tag());
        if let Some(zone) = zone.as_mut() {
            zone.init = Some(init);
        }
        !zone.is_null()
    }
}

/// `fastcgi_multiplex_status_zone SIZE;`
pub(super) unsafe extern "C" fn set(
    cf: *mut ngx_conf_t,
    _command: *mut ngx_command_t,
    _conf: *mut c_void,
) -> *mut c_char {
    fence(conf_error(), || {
        // SAFETY: nginx gives the words of the directive, which has one parameter; its size of a page
        // is set before it reads a configuration.
        let (size, least) = unsafe {
            let word = (*(*cf).args).elts.cast::<ngx_str_t>().add(1);
            (ngx_parse_size(word), LEAST_PAGES * ngx_pagesize)
        };
        match usize::try_from(size) {
            Ok(size) if (least..=MOST).contains(&size) => {
                // SAFETY: nginx gives a configuration that it reads.
                match unsafe { declare(cf, size) } {
                    true => ptr::null_mut(),
                    false => conf_error(),
                }
            }
            _ => c"must be from 8 pages of memory (32k) to 64m"
                .as_ptr()
                .cast_mut(),
        }
    })
}

/// Gives a zone that was asked for a size. To be called when all directives have been read.
///
/// Safety: `cf` is a configuration that is being read.
pub(super) unsafe fn settle(cf: *mut ngx_conf_t) {
    // SAFETY: the caller's word; nobody else has the zone.
    unsafe {
        if let Some(zone) = find((*cf).cycle, STATUS).as_mut()
            && zone.shm.size == 0
        {
            zone.shm.size = SIZE;
        }
    }
}

/// The zone of that name in a cycle, null if it has none.
///
/// Safety: `cycle` is valid.
unsafe fn find(cycle: *const ngx_cycle_t, name: &CStr) -> *mut ngx_shm_zone_t {
    // SAFETY: the caller's word; the list has parts, each with so many zones.
    unsafe {
        let mut part: *const ngx_list_part_t = &raw const (*cycle).shared_memory.part;
        while let Some(zones) = part.as_ref() {
            let first = zones.elts.cast::<ngx_shm_zone_t>();
            for n in 0..zones.nelts {
                let zone = &*first.add(n);
                if zone.tag == tag() && zone.shm.name.as_bytes() == name.to_bytes() {
                    return first.add(n);
                }
            }
            part = zones.next;
        }
    }
    ptr::null_mut()
}

/// The memory of a zone is there: a new one, or with `before` that of the last configuration.
unsafe extern "C" fn init<E>(zone: *mut ngx_shm_zone_t, before: *mut c_void) -> ngx_int_t {
    fence(ERROR, || {
        // SAFETY: nginx gives one of its zones, at the beginning of which it has put an allocator that
        // nobody else uses.
        unsafe {
            let pool = (*zone).shm.addr.cast::<ngx_slab_pool_t>();
            (*zone).data = if before.is_null() {
                ngx_slab_calloc(pool, size_of::<E>() * capacity::<E>(pool))
            } else {
                before
            };
            if (*zone).data.is_null() { ERROR } else { OK }
        }
    })
}

/// How many entries there are in a zone: all of its pages are for them.
///
/// Safety: `pool` is valid.
unsafe fn capacity<E>(pool: *const ngx_slab_pool_t) -> usize {
    // SAFETY: the caller's word; the two are the ends of one array.
    unsafe {
        let pages = (*pool).last.offset_from_unsigned((*pool).pages);
        pages * ngx_pagesize / size_of::<E>()
    }
}

/// A configuration has come into force, in the master process or in the one that does everything.
///
/// Safety: `cycle` is valid, and so are the zones of the cycle before.
pub(super) unsafe fn adopt(cycle: *const ngx_cycle_t) {
    // SAFETY: the caller's word.
    unsafe {
        TABLE.set(table(cycle, STATUS));
        KNOWN.set(table(cycle, VERDICTS));
    }
    WARNED.set(false);
    worker::recount();
}

/// What the zone of that name in a cycle holds; nothing if there is no such zone.
///
/// Safety: `cycle` is valid, and so are its zones; the zone is one that `init` has made for `E`, for
/// which zero is a value, and of which everything is atomic.
unsafe fn table<E>(cycle: *const ngx_cycle_t, name: &CStr) -> &'static [E] {
    // SAFETY: the caller's word. nginx unmaps the memory when a cycle without it has come into force:
    // then `adopt` was called again, and nobody has it from here or, once the worker has moved its
    // counts, from there.
    unsafe {
        match find(cycle, name).as_ref() {
            Some(zone) => slice::from_raw_parts(
                zone.data.cast::<E>(),
                capacity::<E>(zone.shm.addr.cast::<ngx_slab_pool_t>()),
            ),
            None => &[],
        }
    }
}

/// A worker process begins.
pub(super) fn begin() {
    Counts::disown(TABLE.get(), std::process::id());
}
