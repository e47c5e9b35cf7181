//! The event stream of a page: who it is, the numbers several times a second, the time every second,
//! and what is said in the chat. What a page has asked for ends with its stream.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use axum::response::sse::Event;
use futures_util::stream::select;
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::IntervalStream;

use super::load::Tally;
use super::pages::Page;
use super::site::Site;

/// How often the numbers are sent.
const NUMBERS: Duration = Duration::from_millis(200);
const SECOND: Duration = Duration::from_secs(1);

/// The first event.
#[derive(Debug, Serialize)]
struct Hello {
    /// The number of the page: what it asks for, it asks for with this.
    page: String,
    /// The number of this run of the application.
    run: String,
    public: String,
    /// Clients at a time.
    most: usize,
    /// Seconds that a client lasts.
    longest: u64,
}

#[derive(Debug, Serialize)]
struct Numbers {
    connections: usize,
    active: usize,
    accepted: u64,
    served: u64,
    aborted: u64,
    refused: u64,
    /// Requests that are open, by what they are.
    clocks: usize,
    pages: usize,
    sockets: usize,
    downloads: usize,
    /// This page's.
    clients: Tally,
    handed: u64,
}

fn event(name: &str, data: &impl Serialize) -> Result<Event, Infallible> {
    let event = Event::default().event(name);
    // Nothing of what is sent here fails to become JSON.
    Ok(event.json_data(data).unwrap_or_default())
}

fn ticks(period: Duration) -> IntervalStream {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    IntervalStream::new(interval)
}

fn time() -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    now.as_millis().to_string()
}

/// The time every second, in milliseconds since 1970: what the clients of a page hold open.
pub(super) fn clock(site: &Site) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    let stopping = site.stopping.clone();
    ticks(SECOND)
        .map(|_| Ok(Event::default().data(time())))
        .take_until(async move { stopping.wait().await })
}

/// The stream of a page that has just been opened.
pub(super) fn stream(site: Site) -> impl Stream<Item = Result<Event, Infallible>> {
    let entry = site.pages.add();
    let hello = Hello {
        page: format!("{:016x}", entry.id),
        run: format!("{:016x}", site.run),
        public: site.load.public().to_string(),
        most: site.load.most(),
        longest: site.load.longest().as_secs(),
    };
    let stopping = site.stopping.clone();
    let second = ticks(SECOND).map(|_| Ok(Event::default().event("time").data(time())));
    let said = site
        .chat
        .messages()
        .map(|message| event("message", &message));
    let numbers = ticks(NUMBERS).map(move |_| event("numbers", &numbers(&site, &entry.page)));
    stream::iter([event("hello", &hello)])
        .chain(select(numbers, select(second, said)))
        .take_until(async move { stopping.wait().await })
}

fn numbers(site: &Site, page: &Page) -> Numbers {
    let stats = site.stats.snapshot();
    Numbers {
        connections: stats.connections,
        active: stats.active,
        accepted: stats.accepted,
        served: stats.served,
        aborted: stats.aborted,
        refused: stats.refused,
        clocks: site.rooms.clocks.taken(),
        pages: site.rooms.pages.taken(),
        sockets: site.rooms.sockets.taken(),
        downloads: site.rooms.downloads.taken(),
        clients: page.clients.tally(),
        handed: page.handed.load(Ordering::Relaxed),
    }
}
