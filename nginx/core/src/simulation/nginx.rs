//! nginx as a worker sees it: sockets, fake connections, time, a log.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_ulong;
use std::rc::Rc;
use std::time::Instant;

use afcgi_proto::{Verdict, app};

use super::application::{Line, Manner};
use crate::host::{FakeConnection, Io, Level, Nginx, Socket, Target};
use crate::keys::{FakeKey, RealKey, number};
use crate::status::Counts;

#[derive(Default)]
pub(super) struct Sim {
    pub(super) now: Option<Instant>,
    pub(super) lines: Vec<Rc<RefCell<Line>>>,
    pub(super) manners: Vec<Manner>,
    /// Fakes that nginx is to read and to write.
    pub(super) wakes: BTreeMap<u64, (bool, bool)>,
    pub(super) verdicts: BTreeMap<u64, Verdict>,
    pub(super) alerts: Vec<String>,
    pub(super) random: Option<fastrand::Rng>,
}

thread_local! {
    pub(super) static SIM: RefCell<Sim> = RefCell::default();
}

pub(super) fn sim<T>(body: impl FnOnce(&mut Sim) -> T) -> T {
    SIM.with_borrow_mut(body)
}

pub(super) fn random(below: usize) -> usize {
    sim(|sim| sim.random.as_mut().unwrap().usize(..below))
}

pub(super) fn now() -> Instant {
    sim(|sim| *sim.now.get_or_insert_with(Instant::now))
}

#[derive(Debug)]
pub(super) struct Simulated;

impl Nginx for Simulated {
    type Sock = Sock;
    type Fake = Fake;
    type Log = ();

    fn now() -> Instant {
        now()
    }

    fn connect(target: &Target, key: RealKey, (): ()) -> Option<(Sock, bool)> {
        let app = usize::from(target.address[0]);
        let manner = sim(|sim| sim.manners[app]);
        let connected = match (manner, random(3)) {
            (Manner::Down, 0) => return None,
            (Manner::Down, _) | (_, 1..) => None,
            (_, 0) => Some(true),
        };
        let line = Rc::new(RefCell::new(Line {
            key,
            app,
            connected,
            to_app: Vec::new(),
            to_us: VecDeque::new(),
            closed: false,
            dropped: false,
            full: false,
            flush: false,
            read_again: false,
            closing: false,
            timer: None,
            served: app::Connection::new(app::Config::default(), now()),
            pending: VecDeque::new(),
            rest: Vec::new(),
        }));
        sim(|sim| sim.lines.push(Rc::clone(&line)));
        Some((Sock(line), connected == Some(true)))
    }

    fn fake(key: FakeKey) -> Option<Fake> {
        Some(Fake(number(key)))
    }

    fn worker_log() {}

    fn line(level: Level, text: &str) {
        if level == Level::Alert {
            sim(|sim| sim.alerts.push(text.to_owned()));
        }
    }

    fn counts(_: &str) -> Counts {
        Counts::default()
    }

    fn verdict(address: u64, _: Instant) -> Option<Verdict> {
        sim(|sim| sim.verdicts.get(&address).copied())
    }

    fn tell(address: u64, verdict: Verdict, _: Instant) {
        sim(|sim| sim.verdicts.insert(address, verdict));
    }

    fn is_exiting() -> bool {
        false
    }
}

pub(super) struct Sock(Rc<RefCell<Line>>);

impl std::fmt::Debug for Sock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sock")
    }
}

impl Drop for Sock {
    fn drop(&mut self) {
        self.0.borrow_mut().dropped = true;
    }
}

impl Socket for Sock {
    fn number(&self) -> c_ulong {
        1
    }

    fn take_error(&self) -> i32 {
        match self.0.borrow().connected {
            Some(true) => 0,
            _ => libc::ECONNREFUSED,
        }
    }

    fn set_nodelay(&self, _: &Target) {}

    fn is_stale(&self) -> bool {
        let line = self.0.borrow();
        line.closed || !line.to_us.is_empty()
    }

    fn recv(&self, buffer: &mut [u8]) -> Io {
        let mut line = self.0.borrow_mut();
        if line.to_us.is_empty() {
            return if line.closed { Io::Closed } else { Io::Again };
        }
        let most = random(buffer.len().min(line.to_us.len())) + 1;
        for (to, from) in buffer.iter_mut().zip(line.to_us.drain(..most)) {
            *to = from;
        }
        Io::Bytes(most)
    }

    fn send(&self, bytes: &[u8]) -> Io {
        let mut line = self.0.borrow_mut();
        if line.closed {
            return Io::Failed;
        }
        if line.to_app.len() > 4096 {
            line.full = true;
            return Io::Again;
        }
        let most = random(bytes.len()) + 1;
        line.full |= most < bytes.len();
        line.to_app.extend_from_slice(&bytes[..most]);
        Io::Bytes(most)
    }

    fn may_read(&self) -> bool {
        let line = self.0.borrow();
        line.closed || !line.to_us.is_empty()
    }

    fn may_write(&self) -> bool {
        self.0.borrow().to_app.len() <= 4096
    }

    fn is_closing(&self) -> bool {
        self.0.borrow().closing
    }

    fn set_idle(&self, _: bool) {}

    fn set_reusable(&self, _: bool) {}

    fn post_flush(&self) {
        self.0.borrow_mut().flush = true;
    }

    fn read_next_turn(&self) {
        self.0.borrow_mut().read_again = true;
    }

    fn wake_at(&self, _: Instant, due: Instant) {
        let mut line = self.0.borrow_mut();
        line.timer = Some(line.timer.map_or(due, |at| at.min(due)));
    }

    fn disarmed(&self) {
        self.0.borrow_mut().timer = None;
    }
}

#[derive(Debug)]
pub(super) struct Fake(u64);

impl FakeConnection for Fake {
    fn renew(&mut self, key: FakeKey) {
        self.0 = number(key);
    }

    fn wake_read(&self) {
        sim(|sim| sim.wakes.entry(self.0).or_default().0 = true);
    }

    fn wake_write(&self) {
        sim(|sim| sim.wakes.entry(self.0).or_default().1 = true);
    }

    fn silence(&self) {
        sim(|sim| sim.wakes.remove(&self.0));
    }

    fn timed_out(&self) -> bool {
        false
    }

    fn log(&self, level: Level, _: i32, text: &str) {
        Simulated::line(level, text);
    }
}
