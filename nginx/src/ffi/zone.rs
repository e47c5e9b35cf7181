//! The memory that the worker processes share: a zone of nginx's that holds the table of
//! [`status`](crate::status). Without `fastcgi_multiplex_status` there is none, and nothing is counted.
//!
//! nginx keeps a zone across reloads as long as its size stays, and with it all totals.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::ptr;
use std::slice;

use nginx_sys::{
    ngx_command_t, ngx_conf_t, ngx_cycle_t, ngx_int_t, ngx_list_part_t, ngx_pagesize,
    ngx_parse_size, ngx_shared_memory_add, ngx_shm_zone_t, ngx_slab_calloc, ngx_slab_pool_t,
    ngx_str_t,
};

use super::log::{self, Level};
use super::module::{conf_error, tag};
use super::status::text;
use super::{ERROR, OK, fence};
use crate::status::{Counts, Entry, Summary, summaries};
use crate::worker;

/// Bytes of the zone where nothing is said of its size.
const SIZE: usize = 256 * 1024;
/// The smallest zone, in pages, as with nginx's own modules.
const LEAST_PAGES: usize = 8;
/// The largest zone, in bytes.
const MOST: usize = 64 * 1024 * 1024;

thread_local! {
    /// The table of the configuration that is in force.
    static TABLE: Cell<&'static [Entry]> = const { Cell::new(&[]) };
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

/// Has this configuration have a zone, of `size` bytes, or of any if that is 0. `false`: nginx has
/// said what is wrong.
///
/// Safety: `cf` is a configuration that is being read.
pub(super) unsafe fn declare(cf: *mut ngx_conf_t, size: usize) -> bool {
    let mut name = text(c"fastcgi_multiplex_status");
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
        if let Some(zone) = find((*cf).cycle).as_mut()
            && zone.shm.size == 0
        {
            zone.shm.size = SIZE;
        }
    }
}

/// The zone of a cycle, null if it has none.
///
/// Safety: `cycle` is valid.
unsafe fn find(cycle: *const ngx_cycle_t) -> *mut ngx_shm_zone_t {
    // SAFETY: the caller's word; the list has parts, each with so many zones.
    unsafe {
        let mut part: *const ngx_list_part_t = &raw const (*cycle).shared_memory.part;
        while let Some(zones) = part.as_ref() {
            let first = zones.elts.cast::<ngx_shm_zone_t>();
            for n in 0..zones.nelts {
                if (*first.add(n)).tag == tag() {
                    return first.add(n);
                }
            }
            part = zones.next;
        }
    }
    ptr::null_mut()
}

/// The memory of a zone is there: a new one, or with `before` that of the last configuration.
unsafe extern "C" fn init(zone: *mut ngx_shm_zone_t, before: *mut c_void) -> ngx_int_t {
    fence(ERROR, || {
        // SAFETY: nginx gives one of its zones, at the beginning of which it has put an allocator that
        // nobody else uses.
        unsafe {
            let pool = (*zone).shm.addr.cast::<ngx_slab_pool_t>();
            (*zone).data = if before.is_null() {
                ngx_slab_calloc(pool, size_of::<Entry>() * capacity(pool))
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
unsafe fn capacity(pool: *const ngx_slab_pool_t) -> usize {
    // SAFETY: the caller's word; the two are the ends of one array.
    unsafe {
        let pages = (*pool).last.offset_from_unsigned((*pool).pages);
        pages * ngx_pagesize / size_of::<Entry>()
    }
}

/// A configuration has come into force, in the master process or in the one that does everything.
///
/// Safety: `cycle` is valid, and so are the zones of the cycle before.
pub(super) unsafe fn adopt(cycle: *const ngx_cycle_t) {
    // SAFETY: the caller's word. The table is in memory that was allocated in `init` for so many
    // entries, for all of which zero is a value, and of which everything is atomic. nginx unmaps it
    // when a cycle without it has come into force: then this was called again, and nobody has it
    // from `TABLE` or, once the worker has moved its counts, from there.
    unsafe {
        let table = match find(cycle).as_ref() {
            Some(zone) => slice::from_raw_parts(
                zone.data.cast::<Entry>(),
                capacity(zone.shm.addr.cast::<ngx_slab_pool_t>()),
            ),
            None => &[],
        };
        TABLE.set(table);
    }
    WARNED.set(false);
    worker::recount();
}

/// A worker process begins.
pub(super) fn begin() {
    Counts::disown(TABLE.get(), std::process::id());
}
