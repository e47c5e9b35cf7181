//! A thread of a run: an engine, and its turns: connecting, warming up, the measured time, the last answers.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc::UnboundedSender;

use super::engine::{Engine, Live, Stats, Stop, Supply};
use super::plan::Plan;

/// How often a thread says what it has counted.
pub(super) const STEP: Duration = Duration::from_millis(100);
/// How long opening all connections may take before the first request.
const CONNECTING: Duration = Duration::from_secs(10);

/// What a thread says.
#[derive(Debug)]
pub(super) enum News {
    /// Its connections are open, or were tried.
    Connected,
    /// What is counted from here on counts.
    Started,
    /// All requests that are to be held are open.
    Held,
    /// What was counted since it last said so, and how many requests are in flight.
    Counted(Box<Stats>, u64),
    /// No request is begun any more.
    Stopped,
    /// It is over.
    Ended(Ended),
}

/// How a thread has ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Requests that were due and were not sent.
    pub(super) unsent: u64,
    /// Requests that were not answered.
    pub(super) unanswered: u64,
    /// Whether it was given up because nothing was answered.
    pub(super) stalled: bool,
    /// Whether the application closes connections that it was to keep.
    pub(super) closes: bool,
    /// CPU time of the measured time.
    pub(super) cpu: Duration,
    /// The measured time.
    pub(super) took: Duration,
    /// Whether the system has failed.
    pub(super) error: Option<io::Error>,
}

/// What all threads and who watches them share.
#[derive(Debug)]
pub(super) struct Together {
    /// Two meetings: all are connected; all begin.
    pub(super) barrier: Barrier,
    pub(super) live: Arc<Live>,
    /// Set when requests have been held for long enough.
    pub(super) release: AtomicBool,
}

/// Starts a thread. It ends by itself when it is done, or when it is to stop.
pub(super) fn start(
    plan: &Arc<Plan>,
    number: usize,
    together: &Arc<Together>,
    tell: UnboundedSender<(usize, News)>,
) -> io::Result<()> {
    let engine = Engine::new(plan.config(number), together.live.clone())?;
    let worker = Worker {
        plan: plan.clone(),
        number,
        together: together.clone(),
        engine,
        tell,
    };
    let name = format!("bench {number}");
    thread::Builder::new().name(name).spawn(|| worker.run())?;
    Ok(())
}

struct Worker {
    plan: Arc<Plan>,
    number: usize,
    together: Arc<Together>,
    engine: Engine,
    tell: UnboundedSender<(usize, News)>,
}

impl Worker {
    fn run(mut self) {
        let connected = self.engine.connect(CONNECTING.min(self.plan.timeout));
        self.tell(News::Connected);
        self.together.barrier.wait();
        self.together.barrier.wait();
        let mut ended = Ended::default();
        let result = match (connected, self.plan.hold) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(hold)) => self.hold(hold, &mut ended),
            (Ok(()), None) => self.load(&mut ended),
        };
        ended.error = result.err();
        ended.unanswered = self.engine.in_flight();
        ended.closes = self.engine.closes();
        self.tell(News::Ended(ended));
    }

    fn tell(&self, news: News) {
        // Who watches may have gone.
        _ = self.tell.send((self.number, news));
    }

    fn tell_counts(&mut self) {
        let stats = Box::new(self.engine.stats().take());
        let in_flight = self.engine.in_flight();
        self.tell(News::Counted(stats, in_flight));
    }

    /// Runs up to a time, and tells on the way. Says why it has ended.
    fn run_until(&mut self, end: Option<Instant>) -> io::Result<Stop> {
        loop {
            let step = Instant::now() + STEP;
            let until = end.map_or(step, |end| end.min(step));
            let stop = self.engine.run(until, u64::MAX)?;
            self.tell_counts();
            if stop != Stop::Enough || end.is_some_and(|end| Instant::now() >= end) {
                return Ok(stop);
            }
        }
    }

    fn supply(&self, left: u64, start: Instant) -> Supply {
        let Some(rate) = self.plan.rate else {
            return Supply::Closed { left };
        };
        // The threads begin one after the other.
        let between = 1e9 / rate;
        Supply::Open {
            start: self.engine.at(start) + (between * self.number as f64) as u64,
            interval: 1e9 / self.plan.rate_of(rate, self.number),
            next: 0,
            left,
        }
    }

    fn load(&mut self, ended: &mut Ended) -> io::Result<()> {
        let plan = self.plan.clone();
        let left = (plan.requests).map_or(u64::MAX, |requests| plan.share(requests, self.number));
        if !plan.warm_up.is_zero() {
            let start = Instant::now();
            let supply = self.supply(u64::MAX, start);
            self.engine.supply(supply);
            let stop = self.run_until(Some(start + plan.warm_up))?;
            if plan.requests.is_some() {
                // What is counted is what is begun from here on.
                self.engine.stop_supply();
                if stop == Stop::Enough {
                    self.drain()?;
                }
            }
        }
        self.tell(News::Started);
        let (start, before) = (Instant::now(), cpu());
        if plan.warm_up.is_zero() || plan.requests.is_some() {
            let supply = self.supply(left, start);
            self.engine.supply(supply);
        }
        let end = plan
            .duration
            .and_then(|duration| start.checked_add(duration));
        let stop = self.run_until(end)?;
        (ended.took, ended.cpu) = (start.elapsed(), cpu().saturating_sub(before));
        ended.stalled = stop == Stop::Stalled;
        let unsent = self.engine.stop_supply();
        ended.unsent = if plan.rate.is_some() || ended.stalled {
            unsent
        } else {
            0
        };
        self.tell(News::Stopped);
        if stop == Stop::Enough {
            self.drain()?;
        }
        Ok(())
    }

    /// Waits for the last answers: each comes, or fails, in time.
    fn drain(&mut self) -> io::Result<()> {
        let end = Instant::now().checked_add(self.plan.timeout + Duration::from_secs(1));
        self.run_until(end)?;
        Ok(())
    }

    fn hold(&mut self, hold: u64, ended: &mut Ended) -> io::Result<()> {
        let left = self.plan.share(hold, self.number);
        self.tell(News::Started);
        let (start, before) = (Instant::now(), cpu());
        self.engine.supply(Supply::Closed { left });
        let end = start.checked_add(self.plan.timeout);
        let mut begun = 0;
        // Nothing is in the way of any of them.
        let mut stop = Stop::Enough;
        while stop == Stop::Enough
            && (begun < left || !self.engine.is_sent())
            && end.is_none_or(|end| Instant::now() < end)
        {
            stop = self.engine.run(Instant::now() + STEP / 2, u64::MAX)?;
            begun += self.engine.stats().begun;
            self.tell_counts();
        }
        ended.unsent = left.saturating_sub(begun);
        self.tell(News::Held);
        while !self.together.release.load(Ordering::Relaxed) && stop == Stop::Enough {
            stop = self.engine.run(Instant::now() + STEP, u64::MAX)?;
            self.tell_counts();
        }
        (ended.took, ended.cpu) = (start.elapsed(), cpu().saturating_sub(before));
        self.engine.stop_supply();
        self.tell(News::Stopped);
        if stop == Stop::Enough {
            self.engine.abort_all();
            self.drain()?;
        }
        Ok(())
    }
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
