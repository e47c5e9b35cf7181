//! Stopping: what asks for it, and the connections that are to end.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use super::shared::Shared;

/// Idle connections that are remembered when room is needed.
const IDLEST: usize = 64;

/// What asks the server to stop.
pub(super) struct Stop {
    signals: Option<[Signal; 2]>,
    asked: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Stop {
    pub(super) fn new(
        signals: bool,
        asked: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    ) -> io::Result<Self> {
        let signals = if signals {
            let terminate = signal(SignalKind::terminate())?;
            Some([terminate, signal(SignalKind::interrupt())?])
        } else {
            None
        };
        Ok(Self { signals, asked })
    }

    /// Returns when the server is to stop.
    pub(super) async fn wait(&mut self) {
        let asked = async {
            match &mut self.asked {
                Some(asked) => asked.await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = asked => self.asked = None,
            () = signalled(&mut self.signals) => {}
        }
    }

    /// Returns when a signal asks again.
    pub(super) async fn again(&mut self) {
        signalled(&mut self.signals).await;
    }
}

async fn signalled(signals: &mut Option<[Signal; 2]>) {
    match signals {
        Some([terminate, interrupt]) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        None => pending().await,
    }
}

/// Tells a handler that the server was asked to stop. Made by [`Server::stopping`].
///
/// The active requests may go on until [`Config::drain_timeout`]; this is for those that would never
/// end by themselves, such as event streams and long polls, so that they end well.
///
/// [`Server::stopping`]: super::Server::stopping
/// [`Config::drain_timeout`]: super::Config::drain_timeout
#[derive(Clone, Debug)]
pub struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Whether the server was asked to stop, or serves no more for another reason.
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns when the server was asked to stop, or serves no more for another reason.
    pub async fn wait(&self) {
        // It fails when the server is gone.
        let _ = self.0.clone().wait_for(|stopping| *stopping).await;
    }
}

/// What [`Stopping`] watches.
#[derive(Debug)]
pub(super) struct Asked(watch::Sender<bool>);

impl Asked {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(super) fn stopping(&self) -> Stopping {
        Stopping(self.0.subscribe())
    }

    pub(super) fn tell(&self) {
        self.0.send_replace(true);
    }
}

/// The open connections of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    table: Mutex<Table>,
    closed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    connections: HashMap<u64, Weak<Shared>>,
    draining: bool,
    /// Those that were idle longest when it was looked for them, and since when; the longest last.
    idlest: Vec<(Instant, u64)>,
}

/// An entry of [`Open`], removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    open: Open,
    key: u64,
}

impl Open {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, shared: &Arc<Shared>) -> Entry {
        let mut table = self.table();
        let key = table.next;
        table.next += 1;
        table.connections.insert(key, Arc::downgrade(shared));
        if table.draining {
            shared.lock().connection.drain();
        }
        Entry {
            open: self.clone(),
            key,
        }
    }

    /// Asks every connection to end when its requests have.
    pub(crate) fn drain(&self) {
        self.table().draining = true;
        self.for_each(|shared| {
            let mut state = shared.lock();
            state.connection.drain();
            state.wake_driver_now();
        });
    }

    /// Ends every connection.
    pub(crate) fn abort(&self) {
        self.for_each(Shared::cut);
    }

    /// Asks the connection that has been idle longest to make room, if it was so before `latest`. To be
    /// awaited with [`Open::gone`].
    ///
    /// A connection is idle since later and later, so those that were found once, and have not changed, are
    /// still the first: the others are looked at again only when all of these are used up.
    pub(crate) fn make_room(&self, latest: Instant) -> Option<u64> {
        let mut table = self.table();
        for _ in 0..2 {
            while let Some((since, key)) = table.idlest.pop() {
                let connection = table.connections.get(&key).and_then(Weak::upgrade);
                if connection.is_some_and(|shared| shared.want_room(since)) {
                    return Some(key);
                }
            }
            let connections = table.connections.iter();
            let mut idle: Vec<_> = connections
                .filter_map(|(key, shared)| Some((shared.upgrade()?.idle_since()?, *key)))
                .filter(|(since, _)| *since < latest)
                .collect();
            idle.sort_unstable();
            idle.truncate(IDLEST);
            idle.reverse();
            table.idlest = idle;
        }
        None
    }

    /// Returns when that connection is closed. For one caller at a time, and none of [`Open::all_closed`].
    pub(crate) async fn gone(&self, key: u64) {
        loop {
            let closed = self.0.closed.notified();
            if !self.table().connections.contains_key(&key) {
                return;
            }
            closed.await;
        }
    }

    fn for_each(&self, act: impl Fn(&Shared)) {
        let connections: Vec<_> = self.table().connections.values().cloned().collect();
        for shared in connections.iter().filter_map(Weak::upgrade) {
            act(&shared);
        }
    }

    /// Returns when no connection is open.
    pub(crate) async fn all_closed(&self) {
        loop {
            let closed = self.0.closed.notified();
            if self.table().connections.is_empty() {
                return;
            }
            closed.await;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table().connections.len()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.open.table().connections.remove(&self.key);
        self.open.0.closed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Listener, Server};

    #[tokio::test]
    async fn handlers_hear_that_the_server_stops() {
        let (stop, asked) = tokio::sync::oneshot::channel::<()>();
        let server = Server::new()
            .listen(Listener::bind("127.0.0.1:0").unwrap())
            .signals(false)
            .stop_when(async { drop(asked.await) });
        let stopping = server.stopping();
        let task = tokio::spawn(server.serve(crate::native(async |_| ())));
        let waiting = tokio::spawn({
            let stopping = stopping.clone();
            async move { stopping.wait().await }
        });
        tokio::task::yield_now().await;
        assert!(!stopping.is_stopping() && !waiting.is_finished());
        stop.send(()).unwrap();
        let deadline = Duration::from_secs(30);
        let heard = tokio::time::timeout(deadline, waiting).await;
        heard.expect("told in time").unwrap();
        assert!(stopping.is_stopping());
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_server_that_never_ran_is_not_waited_for() {
        let stopping = Server::new().stopping();
        let waited = tokio::time::timeout(Duration::from_secs(30), stopping.wait()).await;
        assert!(waited.is_ok());
        assert!(stopping.is_stopping());
    }
}
