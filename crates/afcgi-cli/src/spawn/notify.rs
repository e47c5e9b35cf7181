//! Who is told that somebody is ready: systemd by the manager, and the manager by workers, in the same words.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sd_notify::NotifyState;
use tempfile::TempDir;
use tokio::net::UnixDatagram;

/// The longest message that is read, in bytes; what is longer is cut.
const MESSAGE: usize = 4096;

/// Tells systemd, if it wants to know.
pub(super) fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell systemd");
    }
}

/// The folder of the sockets on which workers say that they are ready.
#[derive(Debug)]
pub(super) struct Folder {
    dir: TempDir,
    uid: Option<u32>,
    next: AtomicU64,
}

impl Folder {
    /// For workers that run as this user.
    pub(super) fn new(uid: Option<u32>) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("afcgi-spawn-").tempdir()?;
        // Workers of another user go through it; what is in it is theirs alone.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o711))?;
        Ok(Self {
            dir,
            uid,
            next: AtomicU64::new(0),
        })
    }

    /// A socket for one worker.
    pub(super) fn socket(&self) -> io::Result<Readiness> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.path().join(number.to_string());
        let readiness = Readiness {
            socket: UnixDatagram::bind(&path)?,
            path,
        };
        fs::set_permissions(&readiness.path, Permissions::from_mode(0o600))?;
        if let Some(uid) = self.uid {
            chown(&readiness.path, Some(uid), None)?;
        }
        Ok(readiness)
    }
}

/// Where one worker says that it is ready.
#[derive(Debug)]
pub(super) struct Readiness {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Readiness {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns when the worker says so; called again, when it says so again. Messages that nobody reads would make it wait.
    pub(super) async fn wait(&self) {
        let mut message = [0; MESSAGE];
        loop {
            let Ok(count) = self.socket.recv(&mut message).await else {
                return std::future::pending().await;
            };
            let message = message.get(..count).unwrap_or_default();
            if message
                .split(|byte| *byte == b'\n')
                .any(|line| line == b"READY=1")
            {
                return;
            }
        }
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        // With the folder it goes at last.
        _ = fs::remove_file(&self.path);
    }
}
