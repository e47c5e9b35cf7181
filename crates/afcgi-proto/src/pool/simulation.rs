//! Random schedules of everything that can happen to a pool, against a naive account of the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::members::Phase;
use super::verdict::Patience;
use super::*;

/// A connection as its owner has it.
#[derive(Clone, Debug)]
struct Line {
    id: MemberId,
    kind: Kind,
    requests: BTreeSet<u32>,
    room: usize,
    controlled: bool,
    stalled: bool,
    retired: bool,
}

/// The connections, and how many places were given.
#[derive(Debug, Default)]
struct Lines(BTreeMap<u32, Line>, u32);

/// A place on a connection: until it is known which request gets it, that has this number.
type Spot = (u32, u32);

impl Connections for Lines {
    type Member = u32;
    type Place = Spot;

    fn look(&self, member: &u32) -> Look {
        let Some(line) = self.0.get(member) else {
            return Look::default();
        };
        Look {
            active: line.requests.len(),
            takes: !line.retired && !line.stalled && line.requests.len() < line.room,
            retired: line.retired,
            controlled: line.controlled,
            stalled: line.stalled,
        }
    }

    fn open(&mut self, member: &u32) -> Option<Spot> {
        let takes = self.look(member).takes;
        assert!(takes, "a place where there is none");
        self.1 += 1;
        let nobody = u32::MAX - self.1;
        self.0.get_mut(member)?.requests.insert(nobody);
        Some((*member, nobody))
    }
}

/// What the application does with GET_VALUES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum App {
    Multiplexes { controlled: bool },
    Declines,
    Silent,
    Closes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Waiting(Ticket),
    On(u32),
}

struct World {
    random: fastrand::Rng,
    now: Instant,
    pool: Pool<u32, Spot, u32>,
    config: Config,
    lines: Lines,
    opening: Vec<(MemberId, Kind)>,
    asking: Vec<u32>,
    requests: BTreeMap<u32, (Wants, At)>,
    failed: usize,
    served: usize,
    next: u32,
    app: App,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let config = Config {
            multiplex: random.u8(..8) > 0,
            connections: random.usize(1..4),
            singles: [1, 3, usize::MAX][random.usize(..3)],
            idle: random.usize(..4),
            keep_conn: random.bool(),
            queue: [1, 4, 1000][random.usize(..3)],
            patience: Patience::default(),
            backoff: random.bool().then_some(Backoff {
                first: Duration::from_millis(100),
                most: Duration::from_secs(10),
            }),
        };
        let now = Instant::now();
        Self {
            now,
            pool: Pool::new(config, now),
            config,
            lines: Lines::default(),
            opening: Vec::new(),
            asking: Vec::new(),
            requests: BTreeMap::new(),
            failed: 0,
            served: 0,
            next: 0,
            app: App::Multiplexes { controlled: true },
            random,
        }
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn request(&mut self) {
        let wants = Wants {
            body: self.random.bool(),
            single: self.random.u8(..8) == 0,
        };
        let number = self.number();
        match self.pool.ask(wants, self.now, &mut self.lines) {
            Asked::Placed(spot) => {
                self.put(number, spot);
                self.requests.insert(number, (wants, At::On(spot.0)));
            }
            Asked::Wait => {
                let waited = self.pool.wait(wants, number, self.now, &mut self.lines);
                match waited {
                    Ok(ticket) => {
                        self.requests.insert(number, (wants, At::Waiting(ticket)));
                    }
                    Err(back) => {
                        assert_eq!(back, number);
                        self.failed += 1;
                    }
                }
            }
            Asked::Full => {
                assert_eq!(self.pool.waiting(), self.config.queue);
                self.failed += 1;
            }
            Asked::Closed => self.failed += 1,
        }
    }

    fn put(&mut self, request: u32, (line, nobody): Spot) {
        let line = self.lines.0.get_mut(&line).expect("it was there");
        assert!(line.requests.remove(&nobody));
        line.requests.insert(request);
    }

    /// Does what the pool wants done.
    fn perform(&mut self) {
        while let Some(action) = self.pool.poll_action() {
            match action {
                Action::Open { id, kind } => self.opening.push((id, kind)),
                Action::Retire(line) => {
                    if let Some(line) = self.lines.0.get_mut(&line) {
                        line.retired = true;
                    }
                    self.asking.retain(|&other| other != line);
                    self.close_if_done(line);
                }
                Action::Give(request, spot) => {
                    self.put(request, spot);
                    let (_, at) = self.requests.get_mut(&request).expect("it waited");
                    assert!(matches!(at, At::Waiting(_)), "given twice");
                    *at = At::On(spot.0);
                }
                Action::Fail(request) => {
                    let (_, at) = self.requests.remove(&request).expect("it waited");
                    assert!(matches!(at, At::Waiting(_)), "it had its place");
                    self.failed += 1;
                }
                Action::Judged { .. } => {}
            }
        }
    }

    fn close_if_done(&mut self, number: u32) {
        if let Some(line) = self.lines.0.get(&number)
            && line.retired
            && line.requests.is_empty()
        {
            let id = line.id;
            self.lines.0.remove(&number);
            self.pool.closed_by_us(id, self.now, &mut self.lines);
        }
    }

    fn connect(&mut self, works: bool) {
        if self.opening.is_empty() {
            return;
        }
        let at = self.random.usize(..self.opening.len());
        let (id, kind) = self.opening.remove(at);
        if !works {
            self.pool.connect_failed(id, self.now, 0.5);
            return;
        }
        let number = self.number();
        let shared = kind == Kind::Shared;
        let line = Line {
            id,
            kind,
            requests: BTreeSet::new(),
            room: if shared { 3 } else { 1 },
            controlled: false,
            stalled: false,
            retired: false,
        };
        self.lines.0.insert(number, line);
        if shared {
            self.asking.push(number);
        }
        self.pool.connected(id, number, self.now, &mut self.lines);
    }

    fn answer(&mut self) {
        let Some(number) = self.asking.pop() else {
            return;
        };
        let Some(line) = self.lines.0.get_mut(&number) else {
            return;
        };
        let id = line.id;
        let mut values = Values::default();
        match self.app {
            App::Multiplexes { controlled } => {
                line.controlled = controlled;
                values.mpxs_conns = Some(true);
                values.flow_control = controlled.then_some(Default::default());
                values.max_conns = [None, Some(2)][self.random.usize(..2)];
                values.max_reqs = [None, Some(5)][self.random.usize(..2)];
            }
            App::Declines => values.mpxs_conns = Some(false),
            App::Silent => {
                return self.pool.silent(id, Why::Silent, self.now, &mut self.lines);
            }
            App::Closes => {
                self.lines.0.remove(&number);
                return self.pool.gone(id, self.now, &mut self.lines);
            }
        }
        self.pool.answered(id, &values, self.now, &mut self.lines);
    }

    fn any_line(&mut self) -> Option<u32> {
        let all: Vec<_> = self.lines.0.keys().copied().collect();
        (!all.is_empty()).then(|| all[self.random.usize(..all.len())])
    }

    fn end_of(&mut self, request: u32) {
        if let Some((_, At::On(number))) = self.requests.remove(&request) {
            self.served += 1;
            if let Some(line) = self.lines.0.get_mut(&number) {
                line.requests.remove(&request);
                let id = line.id;
                self.pool.changed(id, self.now, &mut self.lines);
                self.close_if_done(number);
            }
        }
    }

    fn lose(&mut self, number: u32) {
        let Some(line) = self.lines.0.remove(&number) else {
            return;
        };
        self.asking.retain(|&other| other != number);
        for request in line.requests {
            self.requests.remove(&request);
        }
        self.pool.gone(line.id, self.now, &mut self.lines);
    }

    fn step(&mut self) {
        match self.random.u8(..100) {
            0..30 => self.request(),
            30..50 => {
                let placed: Vec<_> = (self.requests.iter())
                    .filter(|(_, (_, at))| matches!(at, At::On(_)))
                    .map(|(&request, _)| request)
                    .collect();
                if !placed.is_empty() {
                    let request = placed[self.random.usize(..placed.len())];
                    self.end_of(request);
                }
            }
            50..55 => {
                let waiting: Vec<_> = (self.requests.iter())
                    .filter_map(|(&request, (_, at))| match at {
                        At::Waiting(ticket) => Some((request, *ticket)),
                        At::On(_) => None,
                    })
                    .collect();
                if !waiting.is_empty() {
                    let (request, ticket) = waiting[self.random.usize(..waiting.len())];
                    assert_eq!(self.pool.cancel(ticket), Some(request));
                    self.requests.remove(&request);
                }
            }
            55..70 => {
                let works = self.random.u8(..6) > 0;
                self.connect(works);
            }
            70..80 => self.answer(),
            80..84 => {
                if let Some(line) = self.any_line() {
                    self.lose(line);
                }
            }
            84..88 => {
                if let Some(number) = self.any_line()
                    && let Some(line) = self.lines.0.get_mut(&number)
                    && line.kind == Kind::Shared
                {
                    line.stalled = !line.stalled;
                    let id = line.id;
                    self.pool.changed(id, self.now, &mut self.lines);
                }
            }
            88..91 => {
                // Its owner finds it too old.
                if let Some(number) = self.any_line()
                    && let Some(line) = self.lines.0.get_mut(&number)
                    && !self.asking.contains(&number)
                {
                    line.retired = true;
                    let id = line.id;
                    self.pool.changed(id, self.now, &mut self.lines);
                    self.close_if_done(number);
                }
            }
            91..94 => {
                self.app = [
                    App::Multiplexes { controlled: true },
                    App::Multiplexes { controlled: false },
                    App::Declines,
                    App::Silent,
                    App::Closes,
                ][self.random.usize(..5)];
            }
            94..97 => self.pool.ask_again(self.now),
            97 => self.pool.try_again(self.now),
            _ => {
                let millis = [1, 100, 5_000, 400_000][self.random.usize(..4)];
                self.now += Duration::from_millis(millis);
            }
        }
        self.perform();
    }

    fn check(&self) {
        let Self {
            pool,
            lines,
            config,
            ..
        } = self;
        let counts = pool.members.counts();
        assert_eq!(counts, pool.members.recount());
        assert!(pool.waiting() <= config.queue, "the queue");
        assert!(counts.asking <= 1, "asked twice at a time");
        let most = config.connections + serve::MOST_STALLED;
        assert!(counts.ready + counts.asking <= most + 1);
        let open = lines.0.values();
        let singles = open
            .filter(|it| it.kind != Kind::Shared && !it.retired)
            .count();
        assert!(singles <= config.singles, "single connections");
        assert!(pool.members.idle().len() <= config.idle, "kept too many");
        // Whoever waits is in the queue once, and nobody else is.
        let mut waiting = 0;
        for (wants, at) in self.requests.values() {
            let At::On(number) = at else {
                waiting += 1;
                continue;
            };
            let line = &lines.0[number];
            assert!(line.requests.len() <= line.room);
            // What may not share does not.
            let shares = !wants.single && (!wants.body || line.controlled);
            assert!(shares || line.kind != Kind::Shared, "{wants:?} on {line:?}");
        }
        assert_eq!(waiting, pool.waiting());
        for line in lines.0.values() {
            let phase = pool.members.phase(line.id);
            let known = phase.expect("a connection that the pool has forgotten");
            assert!(
                !line.requests.contains(&u32::MAX),
                "a place that nobody has"
            );
            match known {
                Phase::Idle => assert!(line.requests.is_empty() && line.kind != Kind::Shared),
                Phase::Busy => assert!(line.retired || line.requests.len() == 1),
                Phase::Asking => assert!(line.requests.is_empty()),
                Phase::Ready => assert_eq!(line.kind, Kind::Shared),
                Phase::Leaving => assert!(line.retired),
                Phase::Opening => panic!("it is established"),
            }
        }
        // Nobody waits beside a free place, and whoever waits has something to wait for.
        let full = pool.most_requests < usize::MAX;
        if let Some(waiter) = pool.queues.waiting.front()
            && !full
        {
            for line in lines.0.values() {
                let ready = pool.members.phase(line.id) == Some(Phase::Ready);
                let suits = !waiter.wants.body || line.controlled;
                let takes = !line.retired && !line.stalled && line.requests.len() < line.room;
                assert!(!(ready && suits && takes), "it could have been served");
            }
        }
        if !pool.queues.waiting.is_empty() {
            assert!(counts.asking + counts.ready > 0, "no hope for the shared");
        }
        if !pool.queues.alone.is_empty() {
            let some = counts.opening + counts.idle + counts.busy;
            assert!(some > 0, "no hope for those that need their own");
        }
        // A verdict is kept: an application that does not multiplex has no requests that share.
        if pool.verdict().is_single() {
            assert_eq!(counts.ready, 0);
            assert!(pool.queues.waiting.is_empty());
        }
    }

    /// From now on all goes well: everybody who waits is served, and nothing is left over.
    fn end(&mut self) {
        self.app = App::Multiplexes { controlled: true };
        for round in 0.. {
            assert!(
                round < 10_000,
                "it does not come to an end: {:?}",
                self.pool
            );
            let stalled: Vec<_> = (self.lines.0.iter_mut())
                .filter(|(_, line)| line.stalled)
                .map(|(_, line)| {
                    line.stalled = false;
                    line.id
                })
                .collect();
            for id in stalled {
                self.pool.changed(id, self.now, &mut self.lines);
            }
            self.perform();
            self.connect(true);
            self.perform();
            self.answer();
            self.perform();
            let placed = (self.requests.iter()).find(|(_, (_, at))| matches!(at, At::On(_)));
            if let Some((&request, _)) = placed {
                self.end_of(request);
            }
            self.perform();
            self.check();
            if self.requests.is_empty() && self.opening.is_empty() && self.asking.is_empty() {
                break;
            }
        }
        self.pool.close();
        self.perform();
        assert!(self.lines.0.is_empty(), "left open: {:?}", self.lines);
        assert!(!self.pool.is_used());
        assert_eq!(
            self.pool.ask(Wants::default(), self.now, &mut self.lines),
            Asked::Closed
        );
    }
}

#[test]
fn whatever_happens_nobody_is_forgotten() {
    let (mut served, mut failed) = (0, 0);
    for seed in 0..4000 {
        let mut world = World::new(seed);
        let steps = world.random.usize(20..300);
        for step in 0..steps {
            let told = format!("seed {seed}, step {step}");
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                world.step();
                world.check();
            }));
            if let Err(panic) = outcome {
                eprintln!("{told}");
                std::panic::resume_unwind(panic);
            }
        }
        world.end();
        served += world.served;
        failed += world.failed;
    }
    // Both happen often, or nothing was tried.
    assert!(served > 50_000, "{served} served");
    assert!(failed > 5_000, "{failed} failed");
}
