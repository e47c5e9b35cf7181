//! Whether one request can hurt the others on a shared connection: the latency of fast requests alone and beside a client
//! that reads slowly, or uploads what nobody reads, with the memory that this takes.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use afcgi_bench::http;
use afcgi_bench::load::{Expect, Target};
use afcgi_bench::paced::{Config, Figures, Load};
use afcgi_bench::process::{self, Process, free_port};
use afcgi_bench::slow::{Habit, Slow};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::options::{Cores, progress};
use crate::peers::{GO_ROUTES, Peer, Places, ROUTES};
use crate::suite::{self, Goal, Record, goal};
use crate::table::Table;
use crate::{gateways, machine};

/// What to measure, and how long.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Only these scenarios (default: all)
    #[arg(long, value_enum)]
    scenario: Vec<Scenario>,
    /// Only these applications (default: all, and one behind HAProxy)
    #[arg(long, value_enum)]
    application: Vec<Application>,
    /// Rounds: in each, the fast requests are measured alone and then beside the slow one
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=300))]
    time: u64,
    /// Folder for the dated record (default: bench/records)
    #[arg(long)]
    records: Option<PathBuf>,
    /// Write no record
    #[arg(long)]
    no_record: bool,
    /// Fail when a target is missed
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Reader,
    Upload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Application {
    Afcgitest,
    Go,
    /// afcgitest behind HAProxy's own multiplexing, for comparison.
    Haproxy,
}

const CLIENTS: usize = 8;
const INTERVAL: Duration = Duration::from_millis(20);
/// How long a fast request may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(5);
const READ_SIZE: u64 = 200_000_000;
const READ_RATE: u64 = 80_000;
const UPLOAD_SIZE: u64 = 50_000_000;
/// Fast enough to be over well within a round, slow enough that what nginx does to store the body is not what is measured.
const UPLOAD_RATE: u64 = 20_000_000;
/// How many times its p99 alone that of the fast requests may be.
const MOST: f64 = 1.2;
/// MB by which a slow request may make nginx's worker grow: its window of at most 1 MiB, held in a buffer of up to twice
/// that as it grows, and what nginx needs for a request and its body, with some allowance for the allocator.
const MOST_WORKER: f64 = 4.0;
/// The same in front of an application without flow control: to that comes the `overflow` of one connection, 32 MiB, in a
/// buffers of which a fifth may be empty.
const MOST_WORKER_UNCONTROLLED: f64 = 4.0 + 1.25 * 33.6;
/// The same for afcgitest: a window or an output buffer.
const MOST_APPLICATION: f64 = 4.0;

/// Columns of the latency tables.
const FAILED: usize = 1;
const P99: usize = 3;
/// Rows of the latency tables.
const ALONE: &str = "alone";
const BESIDE: &str = "beside the slow one";
const FIRST: &str = "first second after it";
const SECOND: &str = "next second";
const STAGES: [&str; 4] = [ALONE, BESIDE, FIRST, SECOND];
const SECOND_STAGE: usize = 3;

/// Measures, prints, writes the record.
pub(crate) fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let cores = Cores::find()?;
    let places = Places::find()?;
    let machine = machine::describe(&places.root);
    process::pin(cores.load)?;
    progress("building");
    places.build(&[ROUTES, GO_ROUTES])?;
    // What else the machine does shows in a p99 before anything that is to be measured.
    let precedence = process::take_precedence();

    let date = suite::today();
    let mut text = format!("# {date}: isolation\n\n");
    let mut targets = Vec::new();
    let mut sections = String::new();
    for scenario in [Scenario::Reader, Scenario::Upload] {
        for application in [
            Application::Afcgitest,
            Application::Go,
            Application::Haproxy,
        ] {
            let wanted = (options.scenario.is_empty() || options.scenario.contains(&scenario))
                && (options.application.is_empty() || options.application.contains(&application));
            // HAProxy has nothing like a request that waits for credit: one figure shows that.
            if wanted && (scenario, application) != (Scenario::Upload, Application::Haproxy) {
                let case = Case {
                    scenario,
                    application,
                };
                sections.push('\n');
                sections.push_str(&case.measure(&places, cores, options, &mut targets)?);
            }
        }
    }
    eprint!("\r\x1b[K");

    for line in machine {
        text.push_str(&format!("- {line}\n"));
    }
    text.push_str(&format!(
        "- {CLIENTS} clients, each with a request every {} ms, every answer checked; {} rounds of {} s alone and {} s beside the slow one; {:.0} s in all\n",
        INTERVAL.as_millis(),
        options.rounds,
        options.time,
        options.time,
        start.elapsed().as_secs_f64()
    ));
    text.push_str("- one nginx worker on one core; the application and all clients on the other\n");
    text.push_str(if precedence {
        "- all of them at real-time priority, before what else the machine did\n"
    } else {
        "- without real-time priority, which needs root: what else the machine did is in the figures\n"
    });
    text.push_str(&sections);
    text.push_str(&suite::targets_text(&targets));
    let record = Record {
        folder: options.records.as_deref(),
        name: &format!("{date}-isolation"),
    };
    suite::publish(&places, &text, (!options.no_record).then_some(record))?;
    suite::verdict(options.check, &targets)
}

#[derive(Clone, Copy, Debug)]
struct Case {
    scenario: Scenario,
    application: Application,
}

/// What a round gives.
struct Round {
    /// Of [`STAGES`].
    figures: [Figures; STAGES.len()],
    connections: Option<u64>,
    /// Bytes that the slow client moved, or why it did not.
    slow: Result<u64>,
    worker: Memory,
    application: Memory,
}

/// Resident bytes of a process.
struct Memory {
    before: u64,
    most: u64,
    after: u64,
}

/// The processes of a case.
struct Setup {
    application: Process,
    gateway: Process,
    /// The process that serves: nginx's worker, or HAProxy.
    worker: u32,
    address: SocketAddr,
    /// Where the gateway writes.
    _folder: tempfile::TempDir,
}

impl Case {
    fn title(self) -> String {
        let scenario = match self.scenario {
            Scenario::Reader => format!(
                "a client that reads {} kB/s of {} MB",
                READ_RATE / 1000,
                READ_SIZE / 1_000_000
            ),
            Scenario::Upload => format!(
                "an upload of {} MB that nobody reads",
                UPLOAD_SIZE / 1_000_000
            ),
        };
        format!("{}: {scenario}", self.name())
    }

    fn name(self) -> &'static str {
        match self.application {
            Application::Afcgitest => "afcgitest (flow control)",
            Application::Go => "Go net/http/fcgi (no flow control)",
            Application::Haproxy => "HAProxy mpxs-conns before afcgitest",
        }
    }

    fn peer(self) -> Peer {
        match self.application {
            Application::Afcgitest | Application::Haproxy => ROUTES,
            Application::Go => GO_ROUTES,
        }
    }

    fn habit(self, options: &Options) -> Habit {
        match self.scenario {
            Scenario::Reader => Habit::Reads {
                size: READ_SIZE,
                rate: READ_RATE,
            },
            Scenario::Upload => Habit::Uploads {
                size: UPLOAD_SIZE,
                rate: UPLOAD_RATE,
                // Over before the next one: an application that is stuck on a body sees its client leave only then.
                held: (options.time + 3) * 1000,
            },
        }
    }

    /// The section of the record; what is promised goes to the targets.
    fn measure(
        self,
        places: &Places,
        cores: Cores,
        options: &Options,
        targets: &mut Vec<Goal>,
    ) -> Result<String> {
        let compared = self.application == Application::Haproxy;
        let rounds = if compared { 1 } else { options.rounds };
        let mut setup = self.start(places, cores)?;
        let mut load = Load::connect(Config {
            target: Target::Tcp(setup.address),
            clients: CLIENTS,
            path: "/".to_owned(),
            expect: Expect::Body(b"Hello world\n".to_vec()),
            interval: INTERVAL,
            patience: PATIENCE,
        })?;
        load.run(Duration::from_secs(1))?;
        let columns = ["requests", "failed", "p50 µs", "p99 µs", "largest µs"];
        let mut latency = Table::new(
            &self.title(),
            columns.map(str::to_owned).to_vec(),
            STAGES.map(str::to_owned),
        );
        let mut others = Others::new();
        let mut end = String::new();
        for round in 1..=rounds {
            progress(&format!("round {round} of {rounds}: {}", self.title()));
            let figures = self.round(&mut setup, &mut load, options)?;
            for (row, figures) in figures.figures.iter().enumerate() {
                if let Some(failure) = &figures.failure {
                    eprintln!("\r\x1b[K{}, {}: {failure}", self.title(), STAGES[row]);
                }
                let values = [
                    figures.stats.completed as f64,
                    figures.failed as f64,
                    figures.micros(0.5),
                    figures.micros(0.99),
                    figures.micros(1.0),
                ];
                for (column, value) in values.into_iter().enumerate() {
                    latency.add(row, column, Ok(value));
                }
            }
            let stuck = figures.figures[SECOND_STAGE].stats.completed == 0;
            others.add(figures, self.moved(options));
            if stuck {
                // Further rounds would show the same, long after the cause has gone.
                end = format!("\nGiven up after round {round}: nothing was answered any more.\n");
                break;
            }
        }
        setup.application.check()?;
        setup.gateway.check()?;
        if !compared {
            self.goals(&latency, &others, targets);
        }
        Ok(format!(
            "{}\n{}{end}",
            latency.markdown(None),
            others.table.body()
        ))
    }

    fn round(self, setup: &mut Setup, load: &mut Load, options: &Options) -> Result<Round> {
        let window = Duration::from_secs(options.time);
        let alone = load.run(window)?;
        let pids = [setup.worker, setup.application.pid()];
        let mut before = [0; 2];
        for (pid, before) in pids.into_iter().zip(&mut before) {
            *before = process::resident(pid)?;
            process::reset_peak(pid)?;
        }
        let slow = Slow::start(setup.address, self.habit(options))?;
        let beside = load.run(window)?;
        let connections = connections(setup.address);
        let most = [process::peak(pids[0])?, process::peak(pids[1])?];
        let slow = slow.leave();
        let first = load.run(Duration::from_secs(1))?;
        let after = [process::resident(pids[0])?, process::resident(pids[1])?];
        let second = load.run(Duration::from_secs(1))?;
        let memory = |of: usize| Memory {
            before: before[of],
            most: most[of],
            after: after[of],
        };
        Ok(Round {
            figures: [alone, beside, first, second],
            connections,
            slow,
            worker: memory(0),
            application: memory(1),
        })
    }

    /// Bytes that the slow client is to have moved in a round.
    fn moved(self, options: &Options) -> u64 {
        match self.habit(options) {
            Habit::Reads { rate, .. } => rate * options.time,
            Habit::Uploads { size, rate, .. } => size.min(rate * options.time),
        }
    }

    fn start(self, places: &Places, cores: Cores) -> Result<Setup> {
        let (application, behind) = places.start(&self.peer(), cores.load, cores.load)?;
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let configuration = folder.path().join("configuration");
        let is_nginx = self.application != Application::Haproxy;
        let text = if is_nginx {
            gateways::nginx(
                &gateways::load_module(places),
                &format!("server {behind}; fastcgi_multiplex;"),
                port,
                "fastcgi_pass application; fastcgi_buffering off; client_max_body_size 0; fastcgi_read_timeout 1h;",
            )
        } else {
            let options = "option mpxs-conns\n    option max-reqs 1024";
            gateways::haproxy(port, &behind.to_string(), 65_536, options)
        };
        fs::write(&configuration, text)?;
        let command = gateways::command(is_nginx, folder.path(), &configuration);
        let mut gateway = Process::spawn("gateway", &command, cores.server, cores.load)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        gateway.wait_for(&Target::Tcp(address))?;
        let worker = if is_nginx {
            gateways::worker(&gateway)?
        } else {
            gateway.pid()
        };
        Ok(Setup {
            application,
            gateway,
            worker,
            address,
            _folder: folder,
        })
    }

    fn goals(self, latency: &Table, others: &Others, targets: &mut Vec<Goal>) {
        let title = self.title();
        let failed = STAGES
            .iter()
            .filter_map(|stage| latency.find(stage, FAILED));
        let failed = failed.flat_map(|cell| cell.samples.iter()).sum();
        targets.push(goal(
            &format!("{title}: fast requests that failed, none"),
            Some(failed),
            "",
            |value| value == 0.0,
        ));
        for (stage, what) in [(BESIDE, "beside it"), (SECOND, "from a second after it on")] {
            targets.push(goal(
                &format!("{title}: p99 {what} over p99 alone, at most {MOST}"),
                latency.ratio(stage, ALONE, P99),
                " ×",
                |value| value <= MOST,
            ));
        }
        let most_worker = if self.application == Application::Go {
            MOST_WORKER_UNCONTROLLED
        } else {
            MOST_WORKER
        };
        targets.push(goal(
            &format!("{title}: MB by which the worker grows, at most {most_worker}"),
            others.largest(WORKER_GROWTH),
            " MB",
            |value| value <= most_worker,
        ));
        // What memory Go takes is its own affair.
        if self.application == Application::Afcgitest {
            targets.push(goal(
                &format!("{title}: MB by which the application grows, at most {MOST_APPLICATION}"),
                others.largest(APPLICATION_GROWTH),
                " MB",
                |value| value <= MOST_APPLICATION,
            ));
        }
        let most = if self.application == Application::Afcgitest {
            1.0
        } else {
            2.0
        };
        targets.push(goal(
            &format!("{title}: connections to the application, at most {most}"),
            others.largest(CONNECTIONS),
            "",
            |value| value <= most,
        ));
        targets.push(goal(
            &format!("{title}: part of its due that the slow one got, at least 0.9"),
            others.smallest(SLOW),
            "",
            |value| value >= 0.9,
        ));
    }
}

/// What is measured beside latencies.
struct Others {
    table: Table,
    /// Resident bytes of the worker and of the application before the first round.
    start: Option<[u64; 2]>,
}

const WORKER_GROWTH: &str = "worker: growth over the start, peak, MB";
const APPLICATION_GROWTH: &str = "application: growth over the start, peak, MB";
const CONNECTIONS: &str = "connections to the application";
const SLOW: &str = "part of its due that the slow one got";
const OTHERS: [&str; 10] = [
    "p99 beside the slow one over alone",
    "p99 in the next second over alone",
    "worker: resident before, MB",
    WORKER_GROWTH,
    "worker: resident 1 s after, MB",
    "application: resident before, MB",
    APPLICATION_GROWTH,
    "application: resident 1 s after, MB",
    CONNECTIONS,
    SLOW,
];

impl Others {
    fn new() -> Self {
        let columns = vec!["figure".to_owned()];
        Self {
            table: Table::new("", columns, OTHERS.map(str::to_owned)),
            start: None,
        }
    }

    fn add(&mut self, round: Round, due: u64) {
        let [alone, beside, _, second] = &round.figures;
        let over = |figures: &Figures| Ok(figures.micros(0.99) / alone.micros(0.99).max(1.0));
        let megabytes = |bytes: u64| Ok(bytes as f64 / 1e6);
        let [worker, application] =
            *(self.start).get_or_insert([round.worker.before, round.application.before]);
        let grown = |memory: &Memory, start| megabytes(memory.most.saturating_sub(start));
        let connections = round.connections.context("/stats does not answer");
        let values = [
            over(beside),
            over(second),
            megabytes(round.worker.before),
            grown(&round.worker, worker),
            megabytes(round.worker.after),
            megabytes(round.application.before),
            grown(&round.application, application),
            megabytes(round.application.after),
            connections.map(|count| count as f64),
            round.slow.map(|moved| moved as f64 / due as f64),
        ];
        for (row, value) in values.into_iter().enumerate() {
            if !self.table.is_closed(row, 0) {
                self.table.add(row, 0, value);
            }
        }
    }

    fn samples(&self, name: &str) -> Option<impl Iterator<Item = f64>> {
        let cell = self
            .table
            .find(name, 0)
            .filter(|cell| cell.note.is_none())?;
        Some(cell.samples.iter().copied())
    }

    fn largest(&self, name: &str) -> Option<f64> {
        self.samples(name)?.max_by(f64::total_cmp)
    }

    fn smallest(&self, name: &str) -> Option<f64> {
        self.samples(name)?.min_by(f64::total_cmp)
    }
}

/// Connections that the application has, by its own account.
fn connections(address: SocketAddr) -> Option<u64> {
    let body = http::get(address, "/stats", Duration::from_secs(2)).ok()?;
    let text = String::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("\"connections\":")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
