//! Being told that something in a directory may have changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::tree::Hint;

/// Paths that are remembered; when more change at once, looking at everything is cheaper.
const PATHS_MAX: usize = 1024;

/// Wakes up when something below a directory may have changed.
///
/// A hint, not a truth: whoever is woken rescans. File systems that send no events (network mounts, targets of symlinks outside
/// the directory) are covered by waking up every `poll` anyway.
pub struct Watch {
    woken: Arc<Notify>,
    pending: Arc<Mutex<Pending>>,
    root: PathBuf,
    watcher: Option<RecommendedWatcher>,
    poll: Duration,
}

impl Watch {
    /// Watches `root` and everything below it.
    pub fn new(root: &Path, poll: Duration) -> Self {
        let mut watch = Watch {
            woken: Arc::default(),
            pending: Arc::default(),
            root: root.to_owned(),
            watcher: None,
            poll,
        };
        watch.start();
        watch
    }

    /// Waits until something may have changed. Changes since the last call count.
    pub async fn changed(&mut self) {
        if self.watcher.is_none() {
            self.start();
        }
        if tokio::time::timeout(self.poll, self.woken.notified()).await.is_err() {
            lock(&self.pending).anywhere = true;
        }
        if !self.root.exists() {
            // The watch is bound to an inode that is gone; a directory that comes back needs a new one.
            self.watcher = None;
            lock(&self.pending).anywhere = true;
        }
    }

    /// Where something may have changed since this was last asked.
    pub fn take_hint(&self) -> Hint {
        let pending = std::mem::take(&mut *lock(&self.pending));
        if pending.anywhere || self.watcher.is_none() { Hint::Anywhere } else { Hint::Paths(pending.paths) }
    }

    fn start(&mut self) {
        let (woken, pending) = (self.woken.clone(), self.pending.clone());
        let on_event = move |event: notify::Result<notify::Event>| {
            match event {
                Ok(event) if event.kind.is_access() => return,
                Ok(event) if !event.need_rescan() && !event.paths.is_empty() => {
                    lock(&pending).add(event.paths)
                }
                _ => lock(&pending).anywhere = true,
            }
            woken.notify_one();
        };
        let started = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(&self.root, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        match started {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                tracing::warn!(directory = %self.root.display(), %error, poll_s = self.poll.as_secs(),
                    "cannot watch the configuration directory; looking at it from time to time instead");
            }
        }
    }
}

/// What was reported and not yet looked at.
#[derive(Debug, Default)]
struct Pending {
    anywhere: bool,
    paths: BTreeSet<PathBuf>,
}

impl Pending {
    fn add(&mut self, paths: Vec<PathBuf>) {
        self.paths.extend(paths);
        if self.paths.len() > PATHS_MAX {
            self.paths.clear();
            self.anywhere = true;
        }
    }
}

fn lock(pending: &Mutex<Pending>) -> std::sync::MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
