//! Being told that something in a directory may have changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Wakes up when something below a directory may have changed.
///
/// A hint, not a truth: whoever is woken rescans. File systems that send no events (network mounts, targets of symlinks outside
/// the directory) are covered by waking up every `poll` anyway.
pub struct Watch {
    woken: Arc<Notify>,
    root: PathBuf,
    watcher: Option<RecommendedWatcher>,
    poll: Duration,
}

impl Watch {
    /// Watches `root` and everything below it.
    pub fn new(root: &Path, poll: Duration) -> Self {
        let mut watch = Watch { woken: Arc::default(), root: root.to_owned(), watcher: None, poll };
        watch.start();
        watch
    }

    /// Waits until something may have changed. Changes since the last call count.
    pub async fn changed(&mut self) {
        if self.watcher.is_none() {
            self.start();
        }
        // A time-out is the poll; both ends of the wait mean "look again".
        let _ = tokio::time::timeout(self.poll, self.woken.notified()).await;
        if !self.root.exists() {
            // The watch is bound to an inode that is gone; a directory that comes back needs a new one.
            self.watcher = None;
        }
    }

    fn start(&mut self) {
        let woken = self.woken.clone();
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
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
