//! The uploads: those under way, and what became of the last ones.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Uploads that are remembered after their end.
const REMEMBERED: usize = 50;

/// A list of uploads; a clone is the same list.
#[derive(Clone, Debug, Default)]
pub(crate) struct List(Arc<Mutex<Uploads>>);

#[derive(Debug, Default)]
struct Uploads {
    last: u64,
    under_way: BTreeMap<u64, Upload>,
    ended: BTreeMap<u64, Upload>,
}

#[derive(Clone, Debug, Default)]
struct Upload {
    received: u64,
    announced: Option<u64>,
    /// Empty: the client broke off.
    hash: String,
}

/// An upload under way. To drop it is to note that it broke off.
#[derive(Debug)]
pub(crate) struct Entry {
    list: List,
    id: u64,
    upload: Upload,
}

impl List {
    fn lock(&self) -> MutexGuard<'_, Uploads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self, announced: Option<u64>) -> Entry {
        let upload = Upload {
            announced,
            ..Upload::default()
        };
        let mut uploads = self.lock();
        uploads.last += 1;
        let id = uploads.last;
        uploads.under_way.insert(id, upload.clone());
        Entry {
            list: self.clone(),
            id,
            upload,
        }
    }
}

impl Entry {
    pub(crate) fn received(&mut self, count: usize) {
        self.upload.received += count as u64;
        self.list
            .lock()
            .under_way
            .insert(self.id, self.upload.clone());
    }

    /// Notes that all has come, and says so in a line.
    pub(crate) fn complete(mut self, hash: &str) -> String {
        hash.clone_into(&mut self.upload.hash);
        format!("{} bytes, sha256 {hash}\n", self.upload.received)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let upload = std::mem::take(&mut self.upload);
        let id = self.id;
        if upload.hash.is_empty() {
            tracing::warn!(id, %upload, "upload");
        } else {
            tracing::info!(id, %upload, "upload");
        }
        let mut uploads = self.list.lock();
        uploads.under_way.remove(&id);
        uploads.ended.insert(id, upload);
        if uploads.ended.len() > REMEMBERED {
            uploads.ended.pop_first();
        }
    }
}

/// The state of an upload that has ended.
impl fmt::Display for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hash.is_empty() {
            f.write_str("broke off after ")?;
            self.fmt_progress(f)
        } else {
            write!(f, "{} bytes, sha256 {}", self.received, self.hash)
        }
    }
}

impl Upload {
    fn fmt_progress(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.announced {
            None => write!(f, "{} bytes", self.received),
            Some(all) => {
                let percent = (u128::from(self.received) * 100)
                    .checked_div(all.into())
                    .unwrap_or(100);
                write!(f, "{} of {all} bytes ({percent} %)", self.received)
            }
        }
    }
}

/// A line for each upload.
impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uploads = self.lock();
        for (id, upload) in &uploads.ended {
            writeln!(f, "{id}: {upload}")?;
        }
        for (id, upload) in &uploads.under_way {
            write!(f, "{id}: under way, ")?;
            upload.fmt_progress(f)?;
            writeln!(f)?;
        }
        Ok(())
    }
}
