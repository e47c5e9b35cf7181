//! The gateway as a whole: it starts, takes another configuration, and stops.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use afcgi::{Address, Stopping};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::client;
use crate::config::{ConfigError, Settings};
use crate::front::{self, Files, Listener};
use crate::route::Site;
use crate::shared::Shared;

/// A gateway that serves, until it is [stopped](Self::stop) or dropped: then it takes no more connections. The admin address
/// answers until it is dropped.
pub struct Gateway {
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// When the admin address is there no longer.
    end: CancellationToken,
    files: Files,
    _admin_files: Files,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("active", &self.active())
            .finish_non_exhaustive()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
        self.end.cancel();
    }
}

impl Gateway {
    /// Listens, and serves in tasks of the tokio runtime that this is called in.
    ///
    /// Fails when an address cannot be listened on, or a file that the settings name cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime with IO and time.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let (mut listeners, mut admins) = (Vec::new(), Vec::new());
        // They are here, not in the tasks, which may not be run again before the program ends.
        let (mut files, mut admin_files) = (Vec::new(), Vec::new());
        let mode = settings.socket_mode;
        for address in &settings.listen {
            listeners.extend(front::bind(address, mode, &mut files)?);
        }
        if let Some(address) = &settings.admin {
            admins.extend(front::bind(address, mode, &mut admin_files)?);
        }
        let tls = settings.certificate().map_err(io::Error::other)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let places = places(&settings);
        let site = Site::new(settings, None).map_err(io::Error::other)?;
        site.begin();
        let shared = Arc::new(Shared::new(site, tls));
        let (stop, end) = (CancellationToken::new(), CancellationToken::new());
        for listener in admins {
            tracing::info!("metrics and health on {}", listener.url("http"));
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            tokio::spawn(admin::run(shared, listener, stop, end.clone()));
        }
        for listener in listeners {
            tracing::info!("listening on {}", listener.url(scheme));
            tokio::spawn(accept(
                Arc::clone(&shared),
                listener,
                Arc::clone(&places),
                stop.clone(),
            ));
        }
        Ok(Self {
            shared,
            stop,
            end,
            files,
            _admin_files: admin_files,
        })
    }

    /// Puts another configuration to work, read again. Requests that began go on as they began, and applications whose section is
    /// the same keep their connections. Where it listens stays as it was, with a warning if that is another place now.
    ///
    /// Fails when the configuration could not be read or cannot be used: then nothing changes, but it is counted.
    pub fn reload(&self, loaded: Result<Settings, ConfigError>) -> Result<(), ConfigError> {
        let metrics = &self.shared.metrics;
        let renewed = loaded.and_then(|settings| self.renew(settings));
        let counter = match renewed {
            Ok(()) => &metrics.reloads,
            Err(_) => &metrics.failed_reloads,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        renewed
    }

    fn renew(&self, mut settings: Settings) -> Result<(), ConfigError> {
        let tls = settings.certificate()?;
        let before = self.shared.site.load();
        let old = &before.settings;
        if old.listen != settings.listen
            || old.admin != settings.admin
            || old.socket_mode != settings.socket_mode
            || old.log_format != settings.log_format
            || old.limits.connections != settings.limits.connections
        {
            tracing::warn!(
                "`listen`, `admin`, `socket_mode`, `log_format` and `limits.connections` keep their old values until the next start"
            );
        }
        settings.log_format = old.log_format;
        let site = Site::new(settings, Some(&before))?;
        site.begin();
        self.shared.tls.store(tls);
        self.shared.site.store(Arc::new(site));
        Ok(())
    }

    /// Requests that are being answered, tunnels included.
    pub fn active(&self) -> usize {
        self.shared.metrics.active()
    }

    /// Takes no more connections, and returns when the requests are over, or after `limits.drain_timeout`: whether they were over.
    ///
    /// Requests that are not over go on until the runtime ends. When the future is dropped, no more connections are taken all the
    /// same.
    pub async fn stop(&mut self) -> bool {
        self.files.clear();
        self.stop.cancel();
        drain(&self.shared).await
    }
}

/// The gateway in front of one application, in a process that has other things to do, such as that application: serves
/// HTTP at the listener, which does not block, until it is told to stop and requests are over, or have had their time.
///
/// It waits for event streams however long they are silent.
pub fn embedded(
    http: std::net::TcpListener,
    application: Address,
    stopping: Stopping,
) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
    Box::pin(async move {
        let listener = Listener::Tcp(TcpListener::from_std(http)?);
        let settings = Settings::embedded(application);
        let places = places(&settings);
        let site = Site::new(settings, None).map_err(io::Error::other)?;
        let shared = Arc::new(Shared::new(site, None));
        let stop = CancellationToken::new();
        tokio::spawn(accept(Arc::clone(&shared), listener, places, stop.clone()));
        // What was begun ends with this, also if it is dropped.
        let _stop = stop.clone().drop_guard();
        stopping.wait().await;
        stop.cancel();
        // Whether they are over or not, it is time.
        drain(&shared).await;
        Ok(())
    })
}

/// Has the clients of a listener served until it is told to stop.
async fn accept(
    shared: Arc<Shared>,
    listener: Listener,
    places: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let serve = |socket, peer, place| {
        let connection = client::serve(Arc::clone(&shared), socket, peer, place, stop.clone());
        shared.tasks.spawn(connection);
    };
    front::accept(listener, places, stop.clone(), serve).await;
}

/// Connections that may be open at a time.
fn places(settings: &Settings) -> Arc<Semaphore> {
    let most = settings.limits.connections.min(Semaphore::MAX_PERMITS);
    Arc::new(Semaphore::new(most))
}

/// Waits until what goes on is over, for a time: whether it was.
async fn drain(shared: &Shared) -> bool {
    let wait = shared.site.load().settings.limits.drain_timeout;
    shared.tasks.close();
    let over = tokio::time::timeout(wait, shared.tasks.wait()).await;
    over.is_ok()
}
