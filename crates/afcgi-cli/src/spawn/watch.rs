//! `--watch`: files that change, for those who write a program while it runs.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{Config, Event, EventKind, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// How long there has to be quiet before a change counts: editors and compilers write several files.
const QUIET: Duration = Duration::from_millis(200);
/// Where there is no quiet it counts all the same after this time.
const ENOUGH: Duration = Duration::from_secs(2);

/// Watches folders as long as it is there.
pub(super) struct Watch {
    changes: mpsc::Receiver<()>,
    /// When the change came that does not count yet.
    began: Option<Instant>,
    _watcher: Box<dyn Watcher + Send>,
}

impl Watch {
    /// Watches all that is below the folders. Only files with those endings count, if there are any; names that begin with a dot or
    /// end with `~` do not.
    pub(super) fn new(
        dirs: &[PathBuf],
        endings: &[String],
        poll: Option<Duration>,
    ) -> io::Result<Self> {
        let dirs: Vec<PathBuf> = dirs
            .iter()
            .map(|dir| dir.canonicalize().map_err(|error| cannot(dir, &error)))
            .collect::<io::Result<_>>()?;
        let (sender, changes) = mpsc::channel(1);
        let filter = (dirs.clone(), endings.to_vec());
        let heard = move |event: notify::Result<Event>| {
            let (dirs, endings) = &filter;
            if event.map_or(true, |event| counts(&event, dirs, endings)) {
                // One that is not read yet says the same.
                _ = sender.try_send(());
            }
        };
        let mut watcher: Box<dyn Watcher + Send> = match poll {
            Some(interval) => {
                // The times that it compares otherwise are whole seconds: two changes in one would be one.
                let config = Config::default()
                    .with_poll_interval(interval)
                    .with_compare_contents(true);
                Box::new(PollWatcher::new(heard, config).map_err(io::Error::other)?)
            }
            None => Box::new(
                RecommendedWatcher::new(heard, Config::default()).map_err(io::Error::other)?,
            ),
        };
        for dir in &dirs {
            watcher
                .watch(dir, RecursiveMode::Recursive)
                .map_err(|error| cannot(dir, &error))?;
        }
        Ok(Self {
            changes,
            began: None,
            _watcher: watcher,
        })
    }

    /// Returns when something has changed and there is quiet. Nothing is lost where this is dropped.
    pub(super) async fn changed(&mut self) {
        if self.began.is_none() {
            if self.changes.recv().await.is_none() {
                return std::future::pending().await;
            }
            self.began = Some(Instant::now());
        }
        let began = self.began.unwrap_or_else(Instant::now);
        while began.elapsed() < ENOUGH && timeout(QUIET, self.changes.recv()).await.is_ok() {}
        self.began = None;
    }
}

fn cannot(dir: &Path, error: &dyn std::error::Error) -> io::Error {
    io::Error::other(format!("cannot watch {}: {error}", dir.display()))
}

fn counts(event: &Event, dirs: &[PathBuf], endings: &[String]) -> bool {
    if event.need_rescan() {
        return true;
    }
    let changes = matches!(
        event.kind,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)
    );
    changes
        && event
            .paths
            .iter()
            .any(|path| path_counts(path, dirs, endings))
}

fn path_counts(path: &Path, dirs: &[PathBuf], endings: &[String]) -> bool {
    let below = dirs.iter().find_map(|dir| path.strip_prefix(dir).ok());
    let hidden = |part: &OsStr| {
        let part = part.as_encoded_bytes();
        part.starts_with(b".") || part.ends_with(b"~")
    };
    if below.unwrap_or(path).iter().any(hidden) {
        return false;
    }
    let ending = path.extension().unwrap_or_default();
    endings.is_empty()
        || endings
            .iter()
            .any(|wanted| ending == wanted.trim_start_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts() {
        let dirs = [PathBuf::from("/home/.me/app")];
        for (path, endings, expected) in [
            ("/home/.me/app/a/b.py", &[][..], true),
            ("/home/.me/app/b", &[], true),
            ("/home/.me/app/.git/index", &[], false),
            ("/home/.me/app/a/.b.py.swp", &[], false),
            ("/home/.me/app/b.py~", &[], false),
            ("/home/.me/app/b.py", &["py", ".twig"], true),
            ("/home/.me/app/b.twig", &["py", ".twig"], true),
            ("/home/.me/app/b.log", &["py"], false),
            ("/home/.me/app/py", &["py"], false),
        ] {
            let endings: Vec<_> = endings.iter().map(|&ending| ending.to_owned()).collect();
            let found = path_counts(Path::new(path), &dirs, &endings);
            assert_eq!(found, expected, "{path} {endings:?}");
        }
    }

    async fn changed_soon(watch: &mut Watch) -> bool {
        timeout(Duration::from_secs(30), watch.changed())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn files_that_change() {
        for poll in [None, Some(Duration::from_millis(50))] {
            let folder = tempfile::tempdir().unwrap();
            let below = folder.path().join("a");
            std::fs::create_dir(&below).unwrap();
            let file = below.join("b.py");
            std::fs::write(&file, "1").unwrap();
            let dirs = [folder.path().to_owned()];
            let mut watch = Watch::new(&dirs, &["py".to_owned()], poll).unwrap();
            std::fs::write(below.join("b.log"), "1").unwrap();
            std::fs::write(&file, "two").unwrap();
            assert!(changed_soon(&mut watch).await, "{poll:?}");
            // A folder that came later.
            let later = folder.path().join("later");
            std::fs::create_dir(&later).unwrap();
            // It may not be watched yet when the first file is made there.
            let began = Instant::now();
            while timeout(2 * QUIET, watch.changed()).await.is_err() {
                assert!(began.elapsed() < Duration::from_secs(30), "{poll:?}");
                std::fs::write(later.join("c.py"), format!("{:?}", Instant::now())).unwrap();
            }
        }
    }

    /// Where something changes all the time it counts all the same.
    #[tokio::test(start_paused = true)]
    async fn no_quiet() {
        let (sender, changes) = mpsc::channel(1);
        let mut watch = Watch {
            changes,
            began: None,
            _watcher: Box::new(notify::NullWatcher),
        };
        let busy = tokio::spawn(async move {
            while sender.send(()).await.is_ok() {
                tokio::time::sleep(QUIET / 2).await;
            }
        });
        let began = Instant::now();
        watch.changed().await;
        let took = began.elapsed();
        assert!(ENOUGH <= took && took < 2 * ENOUGH, "{took:?}");
        drop(watch);
        busy.await.unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there() {
        let error = Watch::new(&["/no/such/folder".into()], &[], None)
            .err()
            .unwrap();
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }
}
