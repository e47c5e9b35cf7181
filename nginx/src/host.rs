//! The worker of this process, and nginx as it sees it.

use std::cell::RefCell;
use std::time::Instant;

use afcgi_nginx_core::host::{Level, Nginx, Target};
use afcgi_nginx_core::keys::{FakeKey, RealKey};
use afcgi_nginx_core::status::Counts;
use afcgi_nginx_core::worker;
use afcgi_proto::Verdict;

use crate::ffi::fake::FakeConnection;
use crate::ffi::log;
use crate::ffi::sock::{LogTo, Sock};
use crate::ffi::{self, zone};

/// The nginx of this process.
#[derive(Debug)]
pub(crate) struct Host;

pub(crate) type Worker = worker::Worker<Host>;

impl Nginx for Host {
    type Sock = Sock;
    type Fake = FakeConnection;
    type Log = LogTo;

    fn now() -> Instant {
        Instant::now()
    }

    fn connect(target: &Target, id: RealKey, log: LogTo) -> Option<(Sock, bool)> {
        Sock::connect(target, id, log)
    }

    fn fake(id: FakeKey) -> Option<FakeConnection> {
        FakeConnection::new(id)
    }

    fn worker_log() -> LogTo {
        LogTo::worker()
    }

    fn line(level: Level, text: &str) {
        log::line(level, text);
    }

    fn counts(address: &str) -> Counts {
        zone::counts(address)
    }

    fn verdict(address: u64, now: Instant) -> Option<Verdict> {
        zone::verdict(address, now)
    }

    fn tell(address: u64, verdict: Verdict, now: Instant) {
        zone::tell(address, verdict, now);
    }

    fn is_exiting() -> bool {
        ffi::exiting()
    }
}

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// Gives the worker to a callback. `None` if one is inside already, which nginx has no reason for.
pub(crate) fn with<T>(body: impl FnOnce(&mut Worker) -> T) -> Option<T> {
    WORKER.with(|cell| {
        let Ok(mut worker) = cell.try_borrow_mut() else {
            log::line(Level::Alert, "a callback inside another one");
            return None;
        };
        let worker = worker.get_or_insert_default();
        worker.begin();
        Some(body(worker))
    })
}

/// Whether a callback is inside.
pub(crate) fn is_busy() -> bool {
    WORKER.with(|cell| cell.try_borrow_mut().is_err())
}

/// Has everything counted in the table that is in force now.
pub(crate) fn recount() {
    WORKER.with(|cell| {
        if let Ok(mut worker) = cell.try_borrow_mut()
            && let Some(worker) = &mut *worker
        {
            worker.recount();
        }
    });
}

/// Closes everything: the worker process ends.
pub(crate) fn end() {
    WORKER.with(|cell| {
        if let Ok(mut worker) = cell.try_borrow_mut() {
            *worker = None;
        }
    });
    ffi::fake::close_idle_socket();
}
