//! What is done to the applications and the web servers while requests go on.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use afcgi_interop::process::Signal;
use fastrand::Rng;

use crate::events::{Events, Front, RECOVERY, Target};
use crate::fleet::{Fleet, Kind};
use crate::front::Fronts;

/// How often each thing was done.
pub type Done = RefCell<BTreeMap<String, u64>>;

fn count(done: &Done, what: &str) {
    *done.borrow_mut().entry(what.to_owned()).or_default() += 1;
}

async fn pause(rng: &mut Rng, over: &Cell<bool>, from: u64, to: u64) {
    let mut left = rng.u64(from..to);
    // In pieces, so that the end is not waited for.
    while left > 0 && !over.get() {
        let now = left.min(50);
        tokio::time::sleep(Duration::from_millis(now)).await;
        left -= now;
    }
}

/// Kills, stops and restarts applications until it is over.
pub async fn to_applications(
    fleet: &Fleet,
    events: &Events,
    over: &Cell<bool>,
    seed: u64,
    done: &Done,
) {
    let mut rng = Rng::with_seed(seed ^ 0xa11a);
    loop {
        pause(&mut rng, over, 100, 600).await;
        if over.get() {
            return;
        }
        let index = rng.usize(..fleet.groups.len());
        let group = &fleet.groups[index];
        let target = Target::Group(index);
        match rng.u32(..100) {
            0..35 => {
                let event = events.begin(target, "the application was killed");
                group.kill().await;
                events.end(event, RECOVERY);
                count(done, "application killed and started again");
            }
            35..50 => {
                let event = events.begin(target, "the application was restarted");
                if group.restart().await {
                    count(done, "application restarted in order");
                }
                events.end(event, RECOVERY);
            }
            50..65 if group.kind == Kind::Php => {
                let event = events.begin(target, "a process of the application was killed");
                if group.kill_child(&mut rng) {
                    count(done, "process of PHP-FPM killed");
                }
                events.end(event, RECOVERY);
            }
            _ => {
                // No event: a request to an application that stands still for a while must not fail.
                group.signal(Signal::STOP);
                pause(&mut rng, over, 50, 1_000).await;
                group.signal(Signal::CONT);
                count(done, "application stopped for up to a second");
            }
        }
    }
}

/// Reloads the web servers until it is over.
pub async fn to_fronts(
    fronts: &mut Fronts,
    kinds: &[Front],
    fleet: &Fleet,
    events: &Events,
    over: &Cell<bool>,
    seed: u64,
    done: &Done,
) {
    let mut rng = Rng::with_seed(seed ^ 0xf407);
    let mut generation = 0;
    loop {
        pause(&mut rng, over, 500, 4_000).await;
        if over.get() {
            return;
        }
        match kinds[rng.usize(..kinds.len())] {
            Front::Nginx => {
                let event = events.begin(Target::Front(Front::Nginx), "nginx reloaded");
                fronts.reload_nginx().await;
                events.end(event, Duration::ZERO);
                count(done, "nginx reloaded");
            }
            Front::Gateway => {
                generation += 1;
                fronts.reload_gateway(fleet, generation).await;
                count(done, "gateway reloaded");
            }
        }
    }
}
