//! Random operations on both sides at once, over wires that are short and cut anywhere: requests of
//! all sizes, aborts, consumers that do not read, handlers that do not, refusals, time that passes.
//!
//! What must hold: every byte arrives at the request it was meant for; each request ends once; no id
//! is used while it is held, or after an abort; what is held stays within the limits; and whoever
//! waits is told, so that at the end everything comes to its end without the clock's help.

mod model;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use afcgi_proto::inbox::{Broken, Read};
use afcgi_proto::params::encode_pair;
use afcgi_proto::{ProtocolStatus, Role, app, web};
use afcgi_testkit::Pair;
use afcgi_testkit::record::{self, code};
use fastrand::Rng;

use model::{BODY_GIVEN_UP, Counts, Handler, Job, Task, spec};

/// Bytes of a name, its value and their lengths.
const LONGEST_PAIR: usize = 609;

struct World {
    rng: Rng,
    pair: Pair,
    web_config: web::Config,
    app_config: app::Config,
    jobs: Vec<Job>,
    tasks: Vec<Task>,
    /// Ids from BEGIN_REQUEST until END_REQUEST was received, and the key of their request.
    held: HashMap<u16, u64>,
    aborted: HashSet<u16>,
    /// Bytes from the application that the test has understood.
    understood: usize,
    next_key: u64,
    last_key: u64,
    patient: bool,
    /// GET_VALUES is not answered.
    probing: bool,
    counts: Counts,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let long = Duration::from_secs(1_000_000);
        let web_config = web::Config {
            requests: rng.u16(2..20),
            receive_buffer: rng.usize(1..5000),
            drain_timeout: long,
            output_buffer: rng.usize(1..5000),
            output_turn: rng.usize(1..1000),
            flow_control: rng.bool(),
            overflow: rng.usize(0..20_000) * rng.usize(0..2),
            window: rng.usize(0..5000),
            window_most: rng.usize(0..20_000),
            windows_total: rng.usize(0..100_000),
            linger_bytes: rng.usize(0..5000),
            ..web::Config::default()
        };
        let app_config = app::Config {
            params_timeout: long,
            idle_timeout: long,
            stdin_buffer: rng.usize(1..5000),
            overflow: if seed.is_multiple_of(2) { 0 } else { 10_000 },
            output_buffer: rng.usize(1..5000),
            output_turn: rng.usize(1..1000),
            requests: 20,
            window_most: rng.usize(0..20_000),
            windows_grow: rng.usize(0..50_000),
            ..app::Config::default()
        };
        let mut pair = Pair::new(web_config.clone(), app_config.clone());
        pair.to_app.capacity = rng.usize(1..3000);
        pair.to_web.capacity = rng.usize(1..3000);
        Self {
            next_key: seed * 1000,
            last_key: seed * 1000 + rng.u64(10..40),
            rng,
            pair,
            web_config,
            app_config,
            jobs: Vec::new(),
            tasks: Vec::new(),
            held: HashMap::new(),
            aborted: HashSet::new(),
            understood: 0,
            patient: false,
            probing: false,
            counts: Counts::default(),
        }
    }

    fn open(&mut self) -> bool {
        if self.next_key == self.last_key || !self.pair.web.has_room() {
            return false;
        }
        let handle = self.pair.web.open().unwrap();
        self.pair.web.begin(handle, Role::Responder).unwrap();
        let id = handle.id().get();
        let key = self.next_key;
        assert_eq!(self.held.insert(id, key), None, "id {id} is in use");
        assert!(!self.aborted.contains(&id), "id {id} was aborted");
        self.next_key += 1;
        let mut params = Vec::new();
        encode_pair(&mut params, b"KEY", key.to_string().as_bytes());
        encode_pair(
            &mut params,
            b"FILL",
            &vec![b'f'; self.rng.usize(0..LONGEST_PAIR - 9)],
        );
        self.jobs.push(Job {
            key,
            handle,
            spec: spec(key),
            params,
            params_sent: 0,
            stdin_sent: 0,
            sent: false,
            stdout: Vec::new(),
            stderr: Vec::new(),
            can_write: true,
            can_read: true,
        });
        true
    }

    /// Moves some bytes somewhere.
    fn transfer(&mut self) -> bool {
        let most = match self.rng.u8(0..3) {
            0 => 1,
            1 => self.rng.usize(1..50),
            _ => usize::MAX,
        };
        let moved = match self.rng.u8(0..4) {
            0 => self.pair.web_sends(most),
            1 => self.pair.app_sends(most),
            2 => self.pair.app_receives(most).unwrap(),
            _ => self.pair.web_receives(most).unwrap(),
        };
        self.understand();
        moved > 0
    }

    /// Takes note of each END_REQUEST that the web server has received.
    fn understand(&mut self) {
        let wire = &self.pair.to_web;
        let taken = wire.log.len() - wire.bytes.len();
        let mut left = &wire.log[self.understood..taken];
        while let Some(record) = record::take(&mut left) {
            if record.code == code::END {
                let held = self.held.remove(&record.id);
                assert!(held.is_some(), "END_REQUEST for {}", record.id);
            }
        }
        self.understood = taken - left.len();
        assert_eq!(self.pair.web.active(), self.held.len());
    }

    fn events(&mut self) {
        while let Some(event) = self.pair.web.poll_event() {
            let (handle, read) = match event {
                web::Event::Readable(handle) => (handle, true),
                web::Event::Writable(handle) => (handle, false),
                web::Event::Released | web::Event::Stalled(_) => continue,
                web::Event::Values(values) => {
                    assert!(std::mem::take(&mut self.probing));
                    assert_eq!(values.mpxs_conns, Some(true));
                    continue;
                }
                other => panic!("{other:?}"),
            };
            if let Some(job) = self.jobs.iter_mut().find(|job| job.handle == handle) {
                job.can_read |= read;
                job.can_write |= !read;
            }
        }
        while let Some(event) = self.pair.app.poll_event() {
            let find = |handle| move |task: &&mut Task| task.handle == handle;
            match event {
                app::Event::Request { handle, params, .. } => {
                    let key = params.get("KEY").unwrap();
                    let key: u64 = std::str::from_utf8(key).unwrap().parse().unwrap();
                    assert!(params.get("FILL").is_some());
                    self.tasks.push(Task {
                        key: u32::try_from(key).unwrap(),
                        spec: spec(key),
                        handle,
                        stdin: Vec::new(),
                        stdin_end: None,
                        stdout_sent: 0,
                        stderr_sent: 0,
                        can_write: true,
                        can_read: true,
                    });
                }
                app::Event::Readable(handle) => {
                    if let Some(task) = self.tasks.iter_mut().find(find(handle)) {
                        task.can_read = true;
                    }
                }
                app::Event::Writable(handle) => {
                    if let Some(task) = self.tasks.iter_mut().find(find(handle)) {
                        task.can_write = true;
                    }
                }
                app::Event::Aborted(handle) => {
                    let before = self.tasks.len();
                    self.tasks.retain(|task| task.handle != handle);
                    assert_eq!(self.tasks.len() + 1, before, "told once");
                }
                app::Event::Refused { why, .. } => assert_eq!(why, app::Refusal::Aborted),
                other => panic!("{other:?}"),
            }
        }
    }

    fn job(&mut self, index: usize) -> bool {
        let job = &mut self.jobs[index];
        let web = &mut self.pair.web;
        let some = self.rng.usize(1..2000);
        if job.can_write && !job.sent {
            let (output, bytes, sent) = if job.params_sent < job.params.len() {
                (web::Output::Params, &job.params, &mut job.params_sent)
            } else {
                (web::Output::Stdin, &job.spec.stdin, &mut job.stdin_sent)
            };
            let rest = &bytes[*sent..];
            let part = &rest[..rest.len().min(some)];
            let count = web.write(job.handle, output, part).unwrap();
            *sent += count;
            job.can_write = count == part.len();
            if *sent == bytes.len() {
                web.end(job.handle, output).unwrap();
                job.sent = output == web::Output::Stdin;
            }
        } else if job.can_read && (!job.spec.lazy || self.patient) {
            let mut pending = true;
            for input in [web::Input::Stderr, web::Input::Stdout] {
                match web.read(job.handle, input, some).unwrap() {
                    Read::Content(content) => {
                        pending = false;
                        match input {
                            web::Input::Stdout => job.stdout.extend(content),
                            web::Input::Stderr => job.stderr.extend(content),
                        }
                    }
                    Read::Pending | Read::End => {}
                    Read::Broken(why) => assert_eq!(why, Broken::Stalled),
                }
            }
            assert!(job.spec.stdout.starts_with(&job.stdout), "{}", job.key);
            assert!(job.spec.stderr.starts_with(&job.stderr), "{}", job.key);
            let unread = [web::Input::Stderr, web::Input::Stdout]
                .map(|input| web.readable(job.handle, input).unwrap());
            let end = web.ended(job.handle);
            if pending && unread == [0, 0] && end != Ok(None) {
                match end {
                    Ok(Some(end)) if end.protocol_status == ProtocolStatus::RequestComplete => {
                        if end.app_status != BODY_GIVEN_UP {
                            assert_eq!(u64::from(end.app_status), job.key);
                            assert_eq!(job.stdout, job.spec.stdout);
                        }
                        assert_eq!(job.stderr, job.spec.stderr);
                        self.counts.complete += 1;
                    }
                    Ok(_) => {
                        assert_eq!(job.spec.handler, Handler::Refuse);
                        assert_eq!(job.stdout, b"");
                        self.counts.refused += 1;
                    }
                    Err(why) => {
                        assert_eq!(why, Broken::Stalled);
                        self.counts.stalled += 1;
                    }
                }
                self.close(index);
                return true;
            }
            job.can_read = !pending;
        } else {
            return false;
        }
        let job = &self.jobs[index];
        let progress = job.stdout.len() + job.stdin_sent;
        if job.spec.abort_at.is_some_and(|at| progress >= at) {
            self.counts.closed += 1;
            self.close(index);
        }
        true
    }

    fn close(&mut self, index: usize) {
        let job = self.jobs.swap_remove(index);
        let id = job.handle.id().get();
        if job.sent && self.rng.bool() {
            self.pair.web.close_gently(job.handle, self.pair.now);
            return;
        }
        if self.held.get(&id) == Some(&job.key) {
            self.aborted.insert(id);
        }
        self.pair.web.close(job.handle, self.pair.now);
    }

    fn task(&mut self, index: usize) -> bool {
        let task = &mut self.tasks[index];
        let app = &mut self.pair.app;
        let some = self.rng.usize(1..2000);
        if !app.is_active(task.handle) {
            // It was aborted, and has not been told yet.
            return false;
        }
        if task.spec.dawdles && !self.patient {
            return false;
        }
        if task.spec.handler == Handler::Refuse {
            app.refuse(task.handle, ProtocolStatus::Overloaded).unwrap();
            self.tasks.swap_remove(index);
            return true;
        }
        let reads = matches!(task.spec.handler, Handler::Polite | Handler::Echo);
        if reads && task.can_read && task.stdin_end.is_none() {
            match app.read(task.handle, app::Input::Stdin, some).unwrap() {
                Read::Content(content) => task.stdin.extend(content),
                Read::Pending => task.can_read = false,
                end => {
                    if end == Read::End {
                        assert_eq!(task.stdin, task.spec.stdin);
                    } else {
                        assert_eq!(end, Read::Broken(Broken::Stalled));
                        self.counts.bodies_given_up += 1;
                    }
                    task.stdin_end = Some(end);
                }
            }
            assert!(task.spec.stdin.starts_with(&task.stdin));
            return true;
        }
        let ready = match task.spec.handler {
            Handler::Polite if task.stdin_end.is_none() => 0,
            Handler::Echo if task.stdin_end != Some(Read::End) => task.stdin.len(),
            _ => task.spec.stdout.len(),
        };
        let (output, bytes, sent) = if task.stderr_sent < task.spec.stderr.len() {
            (
                app::Output::Stderr,
                &task.spec.stderr[..],
                &mut task.stderr_sent,
            )
        } else {
            (
                app::Output::Stdout,
                &task.spec.stdout[..ready],
                &mut task.stdout_sent,
            )
        };
        if *sent < bytes.len() {
            if !task.can_write {
                return false;
            }
            let part = &bytes[*sent..];
            let part = &part[..part.len().min(some)];
            let count = app.write(task.handle, output, part).unwrap();
            *sent += count;
            task.can_write = count == part.len();
            return true;
        }
        let status = match task.stdin_end {
            _ if task.stdout_sent == task.spec.stdout.len() => task.key,
            Some(Read::Broken(_)) => BODY_GIVEN_UP,
            _ => return false,
        };
        app.finish(task.handle, status).unwrap();
        self.tasks.swap_remove(index);
        true
    }

    fn pass(&mut self, time: Duration) {
        self.pair.pass(time);
        let now = self.pair.now;
        // A deadline that is not in the future after all was done would be due for ever.
        assert!(self.pair.web.deadline(now).is_none_or(|at| at > now));
        assert!(self.pair.app.deadline(now).is_none_or(|at| at > now));
    }

    fn check_limits(&self) {
        for job in &self.jobs {
            let held: usize = [web::Input::Stderr, web::Input::Stdout]
                .map(|input| self.pair.web.readable(job.handle, input).unwrap())
                .iter()
                .sum();
            assert!(
                held <= self
                    .web_config
                    .receive_buffer
                    .saturating_add(self.web_config.overflow)
                    .max(self.web_config.window)
                    .max(self.web_config.window_most)
            );
        }
        let web = &self.web_config;
        let get_values = 90;
        // A pair of PARAMS is not cut for a turn.
        let turn = web.output_turn.max(LONGEST_PAIR);
        let most = web.output_buffer + turn + 128 * usize::from(web.requests);
        assert!(self.pair.web.transmit().len() <= most + get_values);
        let app = &self.app_config;
        let most = 2 * (app.output_buffer + app.output_turn) + 64 * app.requests;
        assert!(self.pair.app.transmit().len() <= most);
    }

    fn step(&mut self) {
        match self.rng.u8(0..100) {
            0..=3 => {
                self.open();
            }
            4..=43 => {
                self.transfer();
            }
            44..=58 => self.events(),
            59..=77 if !self.jobs.is_empty() => {
                let index = self.rng.usize(0..self.jobs.len());
                self.job(index);
            }
            78..=96 if !self.tasks.is_empty() => {
                let index = self.rng.usize(0..self.tasks.len());
                self.task(index);
            }
            97 => {
                let time = Duration::from_millis(self.rng.u64(0..4000));
                self.pass(time);
            }
            98 if !self.probing => {
                self.probing = true;
                self.pair.web.probe();
            }
            _ => {}
        }
        self.check_limits();
    }

    /// Everybody does what there is to do, and no time passes but what requests linger.
    fn finish(&mut self) {
        self.patient = true;
        let mut progress = true;
        let mut lingered = false;
        while progress {
            progress = self.open();
            self.events();
            for index in (0..self.jobs.len()).rev() {
                progress |= self.job(index);
            }
            for index in (0..self.tasks.len()).rev() {
                progress |= self.task(index);
            }
            progress |= self.pair.settle().unwrap() > 0;
            self.understand();
            self.check_limits();
            if !progress && self.pair.web.draining() > 0 && !std::mem::replace(&mut lingered, true)
            {
                self.pass(self.web_config.linger_time);
                progress = true;
            }
        }
        assert_eq!(self.next_key, self.last_key, "all were opened");
        assert_eq!(
            (self.jobs.len(), self.tasks.len()),
            (0, 0),
            "somebody waits for ever"
        );
        assert_eq!((self.pair.web.active(), self.pair.web.draining()), (0, 0));
        assert_eq!(self.pair.app.active(), 0);
        assert_eq!(
            (self.pair.web.transmit(), self.pair.app.transmit()),
            (&[][..], &[][..])
        );
    }

    /// what each side has sent, request by request.
    fn check_logs(&self) {
        let mut begun: HashMap<u16, usize> = HashMap::new();
        for record in record::parse(&self.pair.to_app.log) {
            *begun.entry(record.id).or_default() += usize::from(record.code == code::BEGIN);
        }
        begun.retain(|&id, _| id != 0);
        let mut ended: HashMap<u16, usize> = HashMap::new();
        let mut stdout_ended: HashSet<u16> = HashSet::new();
        for record in record::parse(&self.pair.to_web.log) {
            match record.code {
                code::STDOUT if record.content.is_empty() => {
                    assert!(stdout_ended.insert(record.id));
                }
                code::STDOUT => assert!(!stdout_ended.contains(&record.id)),
                code::STDERR | code::CREDIT => {}
                code::END => {
                    stdout_ended.remove(&record.id);
                    *ended.entry(record.id).or_default() += 1;
                }
                code::GET_VALUES_RESULT => assert_eq!(record.id, 0),
                other => panic!("a record of type {other}"),
            }
        }
        assert_eq!(begun, ended);
    }
}

fn run(seed: u64) -> Counts {
    let mut world = World::new(seed);
    for _ in 0..3000 {
        world.step();
    }
    world.finish();
    world.check_logs();
    world.counts
}

#[test]
fn random_operations() {
    let mut total = Counts::default();
    // More of them: AFCGI_SEEDS=10000 cargo test --release random_operations
    let seeds = std::env::var("AFCGI_SEEDS").map_or(60, |seeds| seeds.parse().unwrap());
    for seed in 1..=seeds {
        let counts = std::panic::catch_unwind(|| run(seed));
        let counts = counts.unwrap_or_else(|_| panic!("seed {seed}"));
        total.complete += counts.complete;
        total.refused += counts.refused;
        total.closed += counts.closed;
        total.stalled += counts.stalled;
        total.bodies_given_up += counts.bodies_given_up;
    }
    // All of it was tried.
    assert!(total.complete > 300, "{total:?}");
    assert!(total.refused > 30, "{total:?}");
    assert!(total.closed > 30, "{total:?}");
    assert!(total.stalled > 5, "{total:?}");
    assert!(total.bodies_given_up > 0, "{total:?}");
}
