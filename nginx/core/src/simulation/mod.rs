//! A worker in a nginx that is not there: random schedules of requests, connections, applications that
//! behave in their own ways, losses and time, against what each request must get.

mod application;
mod nginx;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use afcgi_testkit::record::{self, code};
use bytes::BufMut;

use self::application::{Line, MANNERS, Manner, answer};
use self::nginx::{SIM, Sim, Simulated, now, random, sim};
use crate::conf::Settings;
use crate::fake::{Got, Wants};
use crate::host::TargetRef;
use crate::keys::{FakeKey, number as number_of};
use crate::worker::{Opened, Worker};

/// A request of nginx's FastCGI module.
struct Request {
    app: usize,
    number: String,
    to_send: Vec<u8>,
    received: Vec<u8>,
}

#[derive(Default)]
struct Outcomes {
    answered: usize,
    failed: usize,
    aborted: usize,
    aside: usize,
}

struct World {
    worker: Worker<Simulated>,
    requests: BTreeMap<u64, (FakeKey, Request)>,
    outcomes: Outcomes,
    next: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let apps = random.usize(1..6);
        let manners = (0..apps).map(|_| MANNERS[random.usize(..9)]).collect();
        SIM.set(Sim {
            manners,
            random: Some(random),
            ..Sim::default()
        });
        Self {
            worker: Worker::default(),
            requests: BTreeMap::new(),
            outcomes: Outcomes::default(),
            next: 0,
        }
    }

    fn request(&mut self) {
        self.next += 1;
        let number = self.next.to_string();
        let app = random(sim(|sim| sim.manners.len()));
        let address = [u8::try_from(app).unwrap()];
        let target = TargetRef {
            address: &address,
            local: &[],
            transparent: false,
            keepalive: false,
            name: b"app",
        };
        let wants = Wants {
            body: random(4) == 0,
            upgrade: false,
        };
        let stdin = vec![7; if wants.body { random(20_000) } else { 0 }];
        let request = Request {
            app,
            to_send: record::request(1, &[("N", &number), ("X", "y")], &stdin),
            number,
            received: Vec::new(),
        };
        self.worker.begin();
        let fake = match self.worker.open(Settings::default(), wants, target, ()) {
            Opened::Now { fake, .. } => {
                sim(|sim| sim.wakes.insert(number_of(fake), (false, true)));
                fake
            }
            Opened::Waiting { fake } => fake,
            Opened::Aside => {
                self.outcomes.aside += 1;
                return;
            }
            Opened::Refused | Opened::Full => {
                self.outcomes.failed += 1;
                return;
            }
        };
        assert!(self.worker.connection(fake).is_some());
        self.requests.insert(number_of(fake), (fake, request));
    }

    /// nginx does what it was woken for.
    fn nginx(&mut self) {
        let wakes: Vec<_> = sim(|sim| sim.wakes.iter().map(|(&id, &wake)| (id, wake)).collect());
        if wakes.is_empty() {
            return;
        }
        let (id, (read, write)) = wakes[random(wakes.len())];
        sim(|sim| sim.wakes.remove(&id));
        let Some((fake, request)) = self.requests.get_mut(&id) else {
            return;
        };
        let fake = *fake;
        self.worker.begin();
        if write && !request.to_send.is_empty() {
            match self.worker.send(fake, &request.to_send) {
                Some(count) => drop(request.to_send.drain(..count)),
                None => return self.end(id, false),
            }
        }
        if !read {
            return;
        }
        loop {
            let mut out = (&mut request.received).limit(3000);
            match self.worker.recv(fake, &mut out) {
                Got::Bytes { .. } => {}
                Got::Again => return,
                Got::End => return self.end(id, true),
                Got::Failed => return self.end(id, false),
            }
        }
    }

    fn end(&mut self, id: u64, whole: bool) {
        let (fake, request) = self.requests.remove(&id).unwrap();
        self.worker.begin();
        self.worker.free(fake, whole);
        let stdout = record::content(&request.received, code::STDOUT, 1);
        let answer = answer(request.app, &request.number);
        assert!(answer.starts_with(&stdout), "another response");
        match whole {
            true => {
                assert_eq!(stdout.len(), answer.len(), "a part of it");
                self.outcomes.answered += 1;
            }
            false => self.outcomes.failed += 1,
        }
    }

    fn abort(&mut self) {
        let ids: Vec<_> = self.requests.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let (fake, _) = self.requests.remove(&ids[random(ids.len())]).unwrap();
        self.worker.begin();
        self.worker.free(fake, random(2) == 0);
        self.outcomes.aborted += 1;
    }

    /// The event loop tells of a connection what there is to tell, if it is open.
    fn event(&mut self, line: &Rc<RefCell<Line>>, what: usize) {
        let (key, tells) = {
            let mut line = line.borrow_mut();
            if line.dropped {
                return;
            }
            let due = line.timer.is_some_and(|at| at <= now());
            let connected = line.connected == Some(true);
            let tells = match what {
                0 => connected && (line.closed || line.read_again || !line.to_us.is_empty()),
                1 if line.connected.is_none() => {
                    let manner = sim(|sim| sim.manners[line.app]);
                    line.connected = Some(manner != Manner::Down);
                    true
                }
                1 => connected && line.to_app.len() <= 4096 && std::mem::take(&mut line.full),
                2 => std::mem::take(&mut line.flush),
                3 => due,
                _ => {
                    let manner = sim(|sim| sim.manners[line.app]);
                    if connected {
                        line.work(manner);
                    }
                    false
                }
            };
            if what == 0 && tells {
                line.read_again = false;
            }
            (line.key, tells)
        };
        if !tells {
            return;
        }
        self.worker.begin();
        match what {
            0 => self.worker.readable(key),
            1 => self.worker.writable(key),
            2 => self.worker.flush(key),
            _ => self.worker.due(key),
        }
    }

    fn lines() -> Vec<Rc<RefCell<Line>>> {
        sim(|sim| {
            sim.lines.retain(|line| !line.borrow().dropped);
            sim.lines.clone()
        })
    }

    /// An application is replaced by another one.
    fn replace(app: usize, manner: Manner) {
        for line in Self::lines() {
            let mut line = line.borrow_mut();
            if line.app == app {
                line.closed = true;
            }
        }
        sim(|sim| sim.manners[app] = manner);
    }

    fn step(&mut self) {
        match random(100) {
            0..12 => self.request(),
            12..40 => self.nginx(),
            40..43 => self.abort(),
            43..94 => {
                let lines = Self::lines();
                if !lines.is_empty() {
                    self.event(&lines[random(lines.len())], random(5));
                }
            }
            94 if random(3) == 0 => {
                let app = random(sim(|sim| sim.manners.len()));
                Self::replace(app, MANNERS[random(9)]);
            }
            95 if random(3) == 0 => {
                let lines = Self::lines();
                if !lines.is_empty() {
                    lines[random(lines.len())].borrow_mut().closed = true;
                }
            }
            _ => {
                let pause = Duration::from_millis([1, 50, 200, 4000][random(4)]);
                sim(|sim| sim.now = sim.now.map(|now| now + pause));
            }
        }
    }

    /// From now on all goes well: every request ends, and nothing is left open.
    fn finish(&mut self) {
        for app in 0..sim(|sim| sim.manners.len()) {
            Self::replace(app, Manner::Multiplexes);
        }
        for round in 0.. {
            assert!(round < 2000, "{} requests never end", self.requests.len());
            for line in Self::lines() {
                for what in 0..5 {
                    self.event(&line, what);
                }
            }
            for _ in 0..20 {
                self.nginx();
            }
            let step = match self.requests.is_empty() {
                true => Duration::from_secs(600),
                false => Duration::from_millis(10),
            };
            sim(|sim| sim.now = sim.now.map(|now| now + step));
            if self.requests.is_empty() && Self::lines().is_empty() {
                break;
            }
        }
        sim(|sim| assert_eq!(sim.alerts, [""; 0]));
    }
}

#[test]
fn whatever_happens_every_request_gets_its_answer_or_an_error() {
    let mut all = Outcomes::default();
    for seed in 0..400 {
        let mut world = World::new(seed);
        for step in 0..random(1500) {
            let told = format!("seed {seed}, step {step}");
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.step()));
            if let Err(panic) = outcome {
                eprintln!("{told}");
                std::panic::resume_unwind(panic);
            }
        }
        world.finish();
        all.answered += world.outcomes.answered;
        all.failed += world.outcomes.failed;
        all.aborted += world.outcomes.aborted;
        all.aside += world.outcomes.aside;
    }
    // Each happens often, or nothing was tried.
    let Outcomes {
        answered,
        failed,
        aborted,
        aside,
    } = all;
    let least = answered.min(failed).min(aborted).min(aside);
    assert!(least > 500, "{answered}, {failed}, {aborted}, {aside}");
}
