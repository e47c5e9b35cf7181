//! Web servers in front of FastCGI applications, with one worker or thread each: CPU time per request in front of the application that
//! answers with a canned reply, and memory per client that waits.

mod kinds;

use std::fs;
use std::time::{Duration, Instant};

use afcgi_bench::http::{Config, Load};
use afcgi_bench::load::{Expect, Limit, LoadError, Target};
use afcgi_bench::process::{self, Process, free_port};
use anyhow::{Result, anyhow, bail};

use crate::options::{Cores, Options, progress};
use crate::peers::{HOLDING, Peer, Places, RAW};
use crate::table::Table;

use kinds::{CLIENTS, Gateway};
pub(crate) use kinds::{command, haproxy, load_module, nginx};

/// Row names that the targets refer to.
pub(crate) const MODULE: &str = "nginx, this module";
pub(crate) const KEEPALIVE: &str = "nginx, stock keepalive";
pub(crate) const OWN: &str = "afcgi gateway";
pub(crate) const CADDY: &str = "Caddy";

/// Clients whose requests are held.
pub(crate) const HELD: usize = 5000;
/// How long each is held; all must have arrived well before.
const DELAY: Duration = Duration::from_secs(8);

const GATEWAYS: [(&str, Gateway); 8] = [
    ("nginx, return 200 (the floor)", Gateway::NginxReturn),
    (KEEPALIVE, Gateway::NginxKeepalive),
    (MODULE, Gateway::NginxModule),
    (
        "HAProxy mpxs-conns, 64k buffers",
        Gateway::HaproxyMpxs { bufsize: 65_536 },
    ),
    (
        "HAProxy mpxs-conns, default",
        Gateway::HaproxyMpxs { bufsize: 16_384 },
    ),
    ("HAProxy keep-conn", Gateway::HaproxyKeepConn),
    (CADDY, Gateway::Caddy),
    (OWN, Gateway::Afcgi),
];

/// One pass over the gateways a round. `without` names rows to leave out.
pub(crate) fn measure(places: &Places, cores: Cores, options: &Options) -> Result<Table> {
    let gateways: Vec<_> = GATEWAYS
        .iter()
        .filter(|(name, _)| !options.leaves_out(name))
        .collect();
    let title = format!(
        "Gateways: CPU µs per request of one worker ({CLIENTS} keep-alive clients, canned reply behind)"
    );
    let rows = gateways.iter().map(|(name, _)| (*name).to_owned());
    let mut table = Table::new(&title, vec!["CPU µs".to_owned()], rows);
    for round in 1..=options.rounds {
        for (row, (name, gateway)) in gateways.iter().enumerate() {
            if table.is_closed(row, 0) {
                continue;
            }
            progress(&format!("round {round}: {name}"));
            table.add(row, 0, once(places, *gateway, cores, options));
        }
    }
    Ok(table)
}

/// A web server that runs, and the application behind it.
struct Running {
    application: Process,
    gateway: Process,
    is_nginx: bool,
    target: Target,
    _folder: tempfile::TempDir,
}

impl Running {
    /// The application shares the generator's core: the measured process has its own.
    fn start(places: &Places, gateway: Gateway, application: &Peer, cores: Cores) -> Result<Self> {
        let (application, Target::Tcp(behind)) =
            places.start(application, cores.load, cores.load)?
        else {
            bail!("not TCP")
        };
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let configuration = folder.path().join("configuration");
        let behind = behind.to_string();
        fs::write(&configuration, gateway.configuration(places, port, &behind))?;
        let mut process = Process::spawn(
            "gateway",
            &gateway.command(places, folder.path(), port, &behind),
            cores.server,
            cores.load,
        )?;
        let target = Target::Tcp(([127, 0, 0, 1], port).into());
        process.wait_for(&target)?;
        Ok(Self {
            application,
            gateway: process,
            is_nginx: gateway.is_nginx(),
            target,
            _folder: folder,
        })
    }

    /// The process that serves.
    fn pid(&self) -> Result<u32> {
        if self.is_nginx {
            worker(&self.gateway)
        } else {
            Ok(self.gateway.pid())
        }
    }

    fn connect(&self, clients: usize, path: &str, expect: Expect, stall: Duration) -> Result<Load> {
        Ok(Load::connect(Config {
            target: self.target.clone(),
            clients,
            path: path.to_owned(),
            expect,
            stall,
        })?)
    }

    /// What failed, and what the web server says, which may be why.
    fn blame(&self, error: LoadError) -> anyhow::Error {
        anyhow!("{error}\n{}", self.gateway.output())
    }

    /// Both still run, and nothing was complained about.
    fn check(mut self) -> Result<()> {
        self.application.check()?;
        self.gateway.check()?;
        let output = self.gateway.output();
        let complains = ["[error]", "[crit]", "[alert]", "[emerg]"]
            .iter()
            .any(|level| output.contains(level));
        if self.is_nginx && complains {
            bail!("nginx complains: {output}");
        }
        Ok(())
    }
}

fn once(places: &Places, gateway: Gateway, cores: Cores, options: &Options) -> Result<f64> {
    let running = Running::start(places, gateway, &RAW, cores)?;
    let pid = running.pid()?;
    let expect = Expect::Body(b"Hello world\n".to_vec());
    let mut load = running.connect(CLIENTS, "/hello", expect, Duration::from_secs(3))?;
    load.run(Limit::time(options.warm_up()))
        .map_err(|error| running.blame(error))?;
    load.stats().reset();
    let before = process::cpu(pid)?;
    load.run(Limit::time(options.window()))
        .map_err(|error| running.blame(error))?;
    let used = process::cpu(pid)? - before;
    let completed = load.stats().completed;
    load.drain(Duration::from_secs(5))?;
    running.check()?;
    if completed == 0 {
        bail!("no request answered");
    }
    Ok(used.as_secs_f64() * 1e6 / completed as f64)
}

/// kB of each web server for a client whose request is held, as often as options say.
pub(crate) fn measure_held(places: &Places, cores: Cores, options: &Options) -> Result<Table> {
    let gateways: Vec<_> = GATEWAYS
        .iter()
        .filter(|(name, gateway)| gateway.holds() && !options.leaves_out(name))
        .collect();
    let title = format!(
        "Memory: kB of the web server per waiting client, {HELD} of them, afcgitest behind"
    );
    let rows = gateways.iter().map(|(name, _)| (*name).to_owned());
    let mut table = Table::new(&title, vec!["kB".to_owned()], rows);
    for round in 1..=options.held_rounds {
        for (row, (name, gateway)) in gateways.iter().enumerate() {
            if table.is_closed(row, 0) {
                continue;
            }
            progress(&format!(
                "round {round}: {name} with {HELD} clients that wait"
            ));
            table.add(row, 0, held(places, *gateway, cores));
        }
    }
    Ok(table)
}

fn held(places: &Places, gateway: Gateway, cores: Cores) -> Result<f64> {
    let running = Running::start(places, gateway, &HOLDING, cores)?;
    let pid = running.pid()?;
    let stall = DELAY + Duration::from_secs(10);
    let path = |millis| format!("/delay?ms={millis}");
    // One request first, so that what is made once is not counted.
    let mut first = running.connect(1, &path(1), Expect::Ok, stall)?;
    first.run(Limit {
        time: stall,
        requests: 1,
    })?;
    first.drain(stall)?;
    drop(first);
    let before = process::resident(pid)?;

    let mut load = running.connect(HELD, &path(DELAY.as_millis()), Expect::Ok, stall)?;
    let (mut resident, mut grown) = (before, Instant::now());
    // Steady for a second: all have arrived.
    while grown.elapsed() < Duration::from_secs(1) {
        load.run(Limit::time(Duration::from_millis(50)))
            .map_err(|error| running.blame(error))?;
        if load.stats().completed > 0 {
            bail!("the first request ended while others were still arriving");
        }
        let now = process::resident(pid)?;
        if now > resident {
            grown = Instant::now();
        }
        resident = resident.max(now);
    }
    load.drain(DELAY + Duration::from_secs(20))?;
    running.check()?;
    Ok((resident - before) as f64 / 1000.0 / HELD as f64)
}

/// The one worker of an nginx.
pub(crate) fn worker(master: &Process) -> Result<u32> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let [worker] = process::children(master.pid())?[..] {
            return Ok(worker);
        }
        if Instant::now() > deadline {
            bail!("nginx has no worker: {}", master.output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
