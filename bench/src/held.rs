//! Memory per held request: many requests on one connection, each waiting in its handler.

use std::time::{Duration, Instant};

use afcgi_bench::fcgi::{Config, Load};
use afcgi_bench::load::{Expect, Limit};
use afcgi_bench::process;
use afcgi_bench::request::Request;
use anyhow::{Result, bail};

use crate::options::{Cores, Options, progress};
use crate::peers::{Peer, Places};
use crate::table::Table;

/// Requests held on the one connection.
pub(crate) const HELD: u16 = 20_000;
/// How long each is held; all must have arrived well before.
const DELAY: Duration = Duration::from_secs(6);

/// kB per held request, once for each peer that can hold one.
pub(crate) fn measure(
    places: &Places,
    peers: &[Peer],
    cores: Cores,
    options: &Options,
) -> Result<Table> {
    let peers: Vec<&Peer> = peers.iter().filter(|peer| peer.holds).collect();
    let rows = peers.iter().map(|peer| peer.name.to_owned());
    let title = format!("Memory: kB per held request, {HELD} on one connection");
    let mut table = Table::new(&title, vec!["kB".to_owned()], rows);
    for round in 1..=options.held_rounds {
        for (row, peer) in peers.iter().enumerate() {
            if table.is_closed(row, 0) {
                continue;
            }
            progress(&format!(
                "round {round}: {} with {HELD} requests held",
                peer.name
            ));
            table.add(row, 0, once(places, peer, cores));
        }
    }
    Ok(table)
}

fn once(places: &Places, peer: &Peer, cores: Cores) -> Result<f64> {
    let (mut process, target) = places.start(peer, cores.server, cores.load)?;
    let config = |requests, millis| Config {
        target: target.clone(),
        connections: 1,
        requests,
        request: Request::hello("/delay", &format!("ms={millis}")),
        expect: Expect::Ok,
        stall: DELAY + Duration::from_secs(10),
    };
    // One request first, so that what is made once is not counted.
    let mut first = Load::connect(config(1, 1))?;
    first.begin_all()?;
    first.drain(Duration::from_secs(10))?;
    drop(first);
    let before = process::resident(process.pid())?;

    let mut load = Load::connect(config(HELD, DELAY.as_millis()))?;
    load.begin_all()?;
    let start = Instant::now();
    let (mut resident, mut grown) = (before, start);
    // Steady for a second, with all bytes handed over: every request is in its handler.
    while !load.sent() || grown.elapsed() < Duration::from_secs(1) {
        load.wait(Limit::time(Duration::from_millis(50)))?;
        if load.completed() > 0 {
            bail!(
                "the first request ended {:.1} s after its beginning, while others were still arriving",
                start.elapsed().as_secs_f64()
            );
        }
        let now = process::resident(process.pid())?;
        if now > resident || !load.sent() {
            grown = Instant::now();
        }
        resident = resident.max(now);
    }
    load.drain(DELAY + Duration::from_secs(20))?;
    process.check()?;
    Ok((resident - before) as f64 / 1000.0 / f64::from(HELD))
}
