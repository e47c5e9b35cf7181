//! CPU time per request of application servers, at several widths.

use std::time::Duration;

use afcgi_bench::fcgi::{Config, Load};
use afcgi_bench::load::{Expect, Limit};
use afcgi_bench::process;
use afcgi_bench::request::Request;
use anyhow::{Result, bail};

use crate::options::{Cores, Options, progress};
use crate::peers::{Peer, Places};
use crate::table::Table;

/// Connections and requests on each.
pub(crate) const WIDTHS: [(usize, u16); 4] = [(1, 1), (1, 64), (1, 1024), (64, 1)];

/// The column of 1 × 64.
pub(crate) const AT_64: usize = 1;
/// The column of 1 × 1024.
pub(crate) const AT_1024: usize = 2;

/// One pass over all widths and peers a round.
pub(crate) fn measure(
    places: &Places,
    peers: &[Peer],
    cores: Cores,
    options: &Options,
) -> Result<Table> {
    let columns = WIDTHS
        .map(|(connections, requests)| format!("{connections} × {requests}"))
        .to_vec();
    let rows = peers.iter().map(|peer| peer.name.to_owned());
    let mut table = Table::new(
        "Application servers: CPU µs per request (connections × requests on each)",
        columns,
        rows,
    );
    for round in 1..=options.rounds {
        for (column, &(connections, requests)) in WIDTHS.iter().enumerate() {
            for (row, peer) in peers.iter().enumerate() {
                if requests > 1 && !peer.multiplexes {
                    table.close(row, column, "cannot");
                }
                if table.is_closed(row, column) {
                    continue;
                }
                progress(&format!(
                    "round {round}: {} at {connections} × {requests}",
                    peer.name
                ));
                table.add(
                    row,
                    column,
                    once(places, peer, cores, (connections, requests), options),
                );
            }
        }
    }
    Ok(table)
}

fn once(
    places: &Places,
    peer: &Peer,
    cores: Cores,
    width: (usize, u16),
    options: &Options,
) -> Result<f64> {
    let (mut process, target) = places.start(peer, cores.server, cores.load)?;
    let mut load = Load::connect(Config {
        target,
        connections: width.0,
        requests: width.1,
        request: Request::hello("/", ""),
        expect: Expect::Body(b"Hello world\n".to_vec()),
        stall: Duration::from_secs(3),
    })?;
    load.run(Limit::time(options.warm_up()))?;
    load.reset();
    let before = process::cpu(process.pid())?;
    load.run(Limit::time(options.window()))?;
    let used = process::cpu(process.pid())? - before;
    let completed = load.completed();
    load.drain(Duration::from_secs(10))?;
    process.check()?;
    if completed == 0 {
        bail!("no request answered");
    }
    Ok(used.as_secs_f64() * 1e6 / completed as f64)
}
