//! Stopping: what asks for it, and the connections that are to end.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use super::shared::Shared;

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
        self.for_each(|shared| {
            let mut state = shared.lock();
            state.connection.lost();
            state.wake_driver_now();
        });
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
