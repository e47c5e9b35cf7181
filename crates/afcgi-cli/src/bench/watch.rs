//! All threads of a run, and who watches them: adds up what they count, looks at the process that is measured, and shows how it goes.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::sleep_until;

use super::engine::{Live, Stats};
use super::outcome::{Held, INTERRUPTED, Outcome, Process};
use super::plan::Plan;
use super::progress::Progress;
use super::sample::{Sample, Target};
use super::series::Series;
use super::worker::{self, Ended, News, Together};
use crate::terminal::{Ending, Terminal};

/// How often the process is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Runs it to its end.
pub(super) async fn watch(
    plan: &Arc<Plan>,
    target: Option<Target>,
    progress: Progress,
) -> io::Result<Outcome<'_>> {
    let mut ending = Ending::new(Terminal::of_this_process())?;
    let live = Arc::new(Live::default());
    let together = Arc::new(Together {
        barrier: Barrier::new(plan.threads + 1),
        live: live.clone(),
        release: AtomicBool::new(false),
    });
    let (tell, mut news) = unbounded_channel();
    for number in 0..plan.threads {
        worker::start(plan, number, &together, tell.clone())?;
    }
    drop(tell);
    let mut interrupted = false;
    progress.say("connecting");
    let mut connected = 0;
    while connected < plan.threads {
        tokio::select! {
            _ = news.recv() => connected += 1,
            () = ending.wait() => interrupt(&live, &mut interrupted),
        }
    }
    together.barrier.wait();
    let mut watcher = Watcher::new(plan, target, progress);
    together.barrier.wait();
    watcher
        .watch(&together, &mut news, &mut ending, &mut interrupted)
        .await?;
    watcher.progress.end();
    Ok(watcher.outcome(interrupted))
}

/// The first time it ends with the report, the second time at once.
fn interrupt(live: &Live, interrupted: &mut bool) {
    if std::mem::replace(interrupted, true) {
        std::process::exit(i32::from(INTERRUPTED));
    }
    live.stop.store(true, Ordering::Relaxed);
}

/// Where a thread is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Before,
    Measured,
    After,
    Ended,
}

#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    stage: Stage,
    in_flight: u64,
    /// Whether it has told something since the last point.
    told: bool,
    held: bool,
}

struct Watcher<'a> {
    plan: &'a Plan,
    progress: Progress,
    threads: Vec<Thread>,
    begun: Instant,
    total: Stats,
    in_time: u64,
    series: Series,
    target: Option<Target>,
    process: Option<Process>,
    /// When the process was last looked at, and what it was then.
    looked: (Instant, Sample),
    held: Option<Held>,
    release: Option<Instant>,
    ends: Vec<Ended>,
}

impl<'a> Watcher<'a> {
    fn new(plan: &'a Plan, target: Option<Target>, progress: Progress) -> Self {
        let process = target.and_then(|target| {
            let before = target.sample().ok()?;
            Some(Process {
                pid: target.pid,
                name: target.name().unwrap_or_default(),
                before,
                after: before,
                peak: before.memory,
                gone: false,
            })
        });
        let before = process.as_ref().map(|process| process.before);
        Self {
            plan,
            progress,
            threads: vec![Thread::default(); plan.threads],
            begun: Instant::now(),
            total: Stats::default(),
            in_time: 0,
            series: Series::default(),
            target,
            process,
            looked: (Instant::now(), before.unwrap_or_default()),
            held: None,
            release: None,
            ends: Vec::new(),
        }
    }

    async fn watch(
        &mut self,
        together: &Together,
        news: &mut UnboundedReceiver<(usize, News)>,
        ending: &mut Ending,
        interrupted: &mut bool,
    ) -> io::Result<()> {
        if !self.plan.warm_up.is_zero() {
            self.progress.say("warming up");
        }
        loop {
            let release = self.release.map(tokio::time::Instant::from_std);
            tokio::select! {
                told = news.recv() => match told {
                    Some((number, told)) => self.hear(number, told)?,
                    None => return Ok(()),
                },
                () = sleep_until(release.unwrap_or_else(tokio::time::Instant::now)), if release.is_some() => {
                    self.release = None;
                    self.look();
                    let left = self.in_flight();
                    if let Some(held) = &mut self.held {
                        held.left = left;
                    }
                    together.release.store(true, Ordering::Relaxed);
                }
                () = ending.wait() => interrupt(&together.live, interrupted),
            }
        }
    }

    fn in_flight(&self) -> u64 {
        self.threads.iter().map(|thread| thread.in_flight).sum()
    }

    fn all(&self, holds: impl Fn(&Thread) -> bool) -> bool {
        self.threads.iter().all(holds)
    }

    fn hear(&mut self, number: usize, news: News) -> io::Result<()> {
        let Some(thread) = self.threads.get_mut(number) else {
            return Ok(());
        };
        match news {
            News::Connected => {}
            News::Started => {
                thread.stage = Stage::Measured;
                if self.all(|thread| thread.stage != Stage::Before) {
                    self.start();
                }
            }
            News::Counted(stats, in_flight) => {
                thread.in_flight = in_flight;
                thread.told = true;
                let stage = thread.stage;
                self.count(stage, &stats);
            }
            News::Held => {
                thread.held = true;
                if self.all(|thread| thread.held) {
                    let open = self.in_flight();
                    self.held = Some(Held {
                        open,
                        opening: self.begun.elapsed().as_secs_f64(),
                        left: open,
                    });
                    self.release = Some(Instant::now() + self.plan.duration.unwrap_or_default());
                }
            }
            News::Stopped => {
                thread.stage = Stage::After;
                if self.all(|thread| matches!(thread.stage, Stage::After | Stage::Ended)) {
                    let short = self.looked.0.elapsed() < LOOK / 2;
                    // In a short time the ticks of CPU time are few.
                    let process = self.look().filter(|_| !short);
                    self.end_point(Some(process));
                    self.progress.say("waiting for the last answers");
                }
            }
            News::Ended(mut ended) => {
                thread.stage = Stage::Ended;
                if let Some(error) = ended.error.take() {
                    return Err(error);
                }
                self.ends.push(ended);
            }
        }
        Ok(())
    }

    /// The measured time begins. In hold, memory is compared with what was before it.
    fn start(&mut self) {
        self.begun = Instant::now();
        if let Some(process) = &mut self.process
            && let Some(Ok(sample)) = self.target.map(Target::sample)
        {
            (process.before, process.after) = (sample, sample);
            process.peak = sample.memory;
            self.looked = (Instant::now(), sample);
        }
    }

    fn count(&mut self, stage: Stage, stats: &Stats) {
        if stage == Stage::Before {
            self.total.add_around(stats);
            return;
        }
        self.total.add(stats);
        if stage == Stage::Measured {
            self.in_time += stats.completed + stats.aborted;
            self.series.add(stats);
            self.end_point(None);
        }
    }

    /// Ends a point of the series when every thread has told what it counted; the last at once, with what the process uses.
    fn end_point(&mut self, last: Option<Option<(f64, u64)>>) {
        let at = self.begun.elapsed();
        let told = self.all(|thread| thread.told || thread.stage != Stage::Measured);
        if !(last.is_some() || told && self.series.is_due(at.as_secs_f64())) {
            return;
        }
        for thread in &mut self.threads {
            thread.told = false;
        }
        let process = match last {
            Some(process) => process,
            None if self.looked.0.elapsed() >= LOOK => self.look(),
            None => None,
        };
        let in_flight = self.in_flight();
        let point = self.series.close(at.as_secs_f64(), in_flight, process);
        if let Some(point) = point {
            let done = match self.plan.hold {
                Some(_) => in_flight,
                None => self.in_time + self.total.failed(),
            };
            self.progress.show(at, done, self.total.failed(), point);
        }
    }

    /// Looks at the process: cores that it used since the last look, and its memory.
    fn look(&mut self) -> Option<(f64, u64)> {
        let process = self.process.as_mut()?;
        let Ok(sample) = self.target?.sample() else {
            process.gone = true;
            return None;
        };
        let seconds = self.looked.0.elapsed().as_secs_f64().max(1e-3);
        let cores = sample.cpu.saturating_sub(self.looked.1.cpu).as_secs_f64() / seconds;
        self.looked = (Instant::now(), sample);
        process.after = sample;
        process.peak = process.peak.max(sample.memory);
        Some((cores, sample.memory))
    }

    fn outcome(self, interrupted: bool) -> Outcome<'a> {
        let sum = |of: fn(&Ended) -> u64| self.ends.iter().map(of).sum();
        let busy = |end: &Ended| end.cpu.as_secs_f64() / end.took.as_secs_f64().max(1e-9);
        Outcome {
            plan: self.plan,
            command: std::env::args().collect(),
            in_time: self.in_time,
            took: self
                .ends
                .iter()
                .map(|end| end.took)
                .max()
                .unwrap_or_default(),
            unsent: sum(|end| end.unsent),
            unanswered: if interrupted {
                0
            } else {
                sum(|end| end.unanswered)
            },
            stalled: self.ends.iter().any(|end| end.stalled),
            closes: self.ends.iter().any(|end| end.closes),
            cpu: self.ends.iter().map(|end| end.cpu).sum(),
            busiest: self.ends.iter().map(busy).fold(0.0, f64::max),
            stats: self.total,
            points: self.series.into_points(),
            process: self.process,
            held: self.held,
            interrupted,
        }
    }
}
