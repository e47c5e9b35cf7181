//! A run from its beginning to its end, and the judgement of each request.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::client::{Client, Outcome};
use crate::events::{Events, Front, Target};
use crate::fleet::{Fleet, Kind};
use crate::front::Fronts;
use crate::havoc::{self, Done};
use crate::plan::{Choice, Plan};
use crate::tally::{Summary, Tally};

/// A request that has no end after that hangs. Web servers here give an application 30 s.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long what a request leaves behind may take to go: the idle times of the web servers are 4 s, and an application may be asked for a
/// sign before.
const REST: Duration = Duration::from_secs(45);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program `chaos`, which is the applications too.
    pub program: PathBuf,
    /// From which everything follows but the times.
    pub seed: u64,
    /// Requests.
    pub requests: u64,
    /// No request begins after that.
    pub duration: Duration,
    /// Clients at a time.
    pub clients: usize,
    /// The kinds of applications.
    pub kinds: Vec<Kind>,
    /// The web servers.
    pub fronts: Vec<Front>,
    /// Whether applications are killed, stopped and restarted, and web servers reloaded.
    pub havoc: bool,
}

/// Runs it.
///
/// # Panics
/// When a program cannot be started, or does not come back.
pub async fn run(options: &Options) -> Summary {
    let folder = tempfile::Builder::new()
        .prefix("afcgi-chaos")
        .tempdir()
        .expect("a temporary folder");
    let fleet = Fleet::start(folder.path(), &options.program, &options.kinds).await;
    let mut fronts = Fronts::start(&fleet).await;
    let addresses = fronts.addresses();
    let (events, done) = (Events::default(), Done::default());
    let tally = RefCell::new(Tally::default());
    let start = Instant::now();
    let over = Cell::new(false);
    let load = async {
        let next = Cell::new(0);
        let choice = Choice::new(&fleet.apps);
        let clients = (0..options.clients).map(|_| async {
            let mut client = Client::new(addresses);
            while next.get() < options.requests && start.elapsed() < options.duration {
                let number = next.replace(next.get() + 1);
                let plan = Plan::new(options.seed, number, &choice, &fleet.apps, &options.fronts);
                request(&mut client, &plan, number, &fleet, &events, &tally).await;
            }
        });
        join_all(clients).await;
        over.set(true);
    };
    let to_applications = async {
        if options.havoc {
            havoc::to_applications(&fleet, &events, &over, options.seed, &done).await;
        }
    };
    let to_fronts = async {
        if options.havoc {
            let (kinds, seed) = (&options.fronts, options.seed);
            havoc::to_fronts(&mut fronts, kinds, &fleet, &events, &over, seed, &done).await;
        }
    };
    let progress = async {
        let mut shown = Instant::now();
        while !over.get() {
            sleep(Duration::from_millis(100)).await;
            if shown.elapsed() >= Duration::from_secs(20) {
                shown = Instant::now();
                eprintln!(
                    "{:>4} s: {}",
                    start.elapsed().as_secs(),
                    tally.borrow().line()
                );
            }
        }
    };
    tokio::join!(load, to_applications, to_fronts, progress);
    let took = start.elapsed();
    let left_over = rest(&fleet, &fronts).await;
    let tally = tally.into_inner();
    let complaints = [
        fleet.complaints(),
        fronts.complaints(),
        fronts.read_twice(&tally.stale),
    ]
    .concat();
    Summary {
        seed: options.seed,
        clients: options.clients,
        took,
        addresses: fleet.apps.len(),
        processes: fleet.groups.len(),
        tally,
        done: done.into_inner(),
        left_over,
        complaints,
    }
}

async fn request(
    client: &mut Client,
    plan: &Plan,
    number: u64,
    fleet: &Fleet,
    events: &Events,
    tally: &RefCell<Tally>,
) {
    let app = &fleet.apps[plan.app];
    let targets = [Target::Group(app.group), Target::App(plan.app)];
    // What it does to others on its connection is an event for them, and its own cause.
    let event = (plan.fault.takes_others()).then(|| {
        events.begin(
            Target::App(plan.app),
            "the application broke its connection",
        )
    });
    let begun = Instant::now();
    let mut answer = timeout(PATIENCE, client.ask(plan, app, false)).await;
    if let Ok(Outcome::Stale(why)) = &answer {
        // As a browser does: the server may close a connection that it keeps at any time. Here it has one reason only.
        let front = [Target::Front(plan.front)];
        let cause = events.cause(&front, client.since, Instant::now());
        let killed = events.cause(&targets, begun, Instant::now());
        if cause.is_some() && killed.is_none() {
            tally.borrow_mut().stale.insert(plan.token);
            answer = timeout(PATIENCE, client.ask(plan, app, true)).await;
        } else {
            answer = Ok(Outcome::Failed(why.clone()));
        }
    }
    let ended = Instant::now();
    if let Some(event) = event {
        // A web server that has told of the end has closed the connection before.
        events.end(event, Duration::ZERO);
    }
    let mut tally = tally.borrow_mut();
    tally.longest = tally.longest.max(ended - begun);
    let count = tally.of(app.kind, plan.front);
    let story = |why: &str| {
        format!(
            "request {number} to {} through {}: {why} ({plan:?}, after {:?})",
            app.name,
            plan.front.name(),
            ended - begun
        )
    };
    match answer {
        Err(_) => {
            count.hung += 1;
            tally.tell(story("no end"));
        }
        Ok(Outcome::Right) if plan.fault.is_fatal() => {
            count.wrong += 1;
            tally.tell(story("it cannot have succeeded"));
        }
        Ok(Outcome::Right) => count.right += 1,
        Ok(Outcome::Cut(why)) => {
            // nginx's own connections, by which it asks those that do not multiplex as without the module, take the end of a connection
            // between two records for that of the response.
            let own = plan.front == Front::Nginx && !app.kind.multiplexes();
            if own && events.cause(&targets[..1], begun, ended).is_some() {
                count.caused += 1;
                let cause = "nginx took what a killed application had sent for the whole, as without the module";
                *tally.causes.entry(cause).or_default() += 1;
            } else {
                count.wrong += 1;
                tally.tell(story(&why));
            }
        }
        Ok(Outcome::Left) => count.left += 1,
        Ok(Outcome::Wrong(why)) => {
            count.wrong += 1;
            tally.tell(story(&why));
        }
        Ok(Outcome::Failed(_)) if plan.fault.is_fatal() => count.refused += 1,
        Ok(Outcome::Failed(why) | Outcome::Stale(why)) => {
            match events.cause(&targets, begun, ended) {
                Some(cause) => {
                    count.caused += 1;
                    *tally.causes.entry(cause).or_default() += 1;
                }
                None => {
                    count.lost += 1;
                    tally.tell(story(&why));
                }
            }
        }
    }
}

/// Waits until nothing is left of the requests, and tells what is when that takes too long.
async fn rest(fleet: &Fleet, fronts: &Fronts) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let mut found = Vec::new();
        for front in Front::ALL {
            found.extend(fronts.left_over(front).await);
        }
        for group in &fleet.groups {
            let left = group.sockets_left();
            if left > 0 {
                found.push(format!("{}: {left} connections", group.name()));
            }
        }
        if found.is_empty() || begun.elapsed() > REST {
            return found;
        }
        sleep(Duration::from_millis(200)).await;
    }
}
