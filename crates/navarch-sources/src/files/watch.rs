//! Being told that something in a directory may have changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::tree::Hint;
use crate::source::Settled;

/// Paths that are remembered, which bounds memory: when more change at once, everything is looked at. That
/// costs as much for each file that there is as for one that changed.
const PATHS_MAX: usize = 1 << 16;

/// Wakes up when something below a directory may have changed.
///
/// A hint, not a truth: whoever is woken rescans. File systems that send no events (network mounts, targets
/// of symlinks outside the directory) are covered by waking up every `poll` anyway.
pub struct Watch {
    woken: Arc<Notify>,
    pending: Arc<Mutex<Pending>>,
    root: PathBuf,
    reach: Reach,
    watcher: Option<RecommendedWatcher>,
    poll: Duration,
    /// When it wakes up at the latest.
    due: Option<Instant>,
    /// The next hint is not about what is unfinished.
    aside: bool,
}

/// How far a watch sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What is in the directory.
    Directory,
    /// Everything below it.
    Tree,
}

impl Watch {
    /// A watch of `root` that nothing has been looked at through.
    pub fn new(root: &Path, reach: Reach, poll: Duration) -> Self {
        let pending = Pending { anywhere: true, ..Pending::default() };
        Watch {
            woken: Arc::default(),
            pending: Arc::new(Mutex::new(pending)),
            root: root.to_owned(),
            reach,
            watcher: None,
            poll,
            due: None,
            aside: false,
        }
    }

    /// Waits until something may have changed since the last [`Watch::take_hint`]. May be dropped and called
    /// again at any time.
    pub async fn changed(&mut self) {
        if self.watcher.is_none() {
            self.start();
            if self.watcher.is_some() {
                // Nobody knows what changed before.
                lock(&self.pending).anywhere = true;
                return;
            }
        }
        let due = *self.due.get_or_insert_with(|| Instant::now() + self.poll);
        if tokio::time::timeout_at(due, self.woken.notified()).await.is_err() {
            self.due = None;
            lock(&self.pending).anywhere = true;
        }
        if !self.root.exists() {
            // The watch is bound to an inode that is gone; a directory that comes back needs a new one.
            self.watcher = None;
            lock(&self.pending).anywhere = true;
        }
    }

    /// Where something may have changed since this was last asked.
    pub fn take_hint(&mut self) -> Hint {
        let aside = std::mem::take(&mut self.aside);
        let mut pending = lock(&self.pending);
        let taken = std::mem::take(&mut *pending);
        if taken.anywhere || self.watcher.is_none() {
            return Hint::Anywhere;
        }
        let Pending { mut paths, unfinished, left, .. } = taken;
        if aside {
            let left: BTreeSet<_> = unfinished.difference(&left).cloned().collect();
            paths.retain(|path| !left.contains(path));
            if !left.is_empty() {
                *pending =
                    Pending { paths: left.clone(), unfinished: left.clone(), left, ..Pending::default() };
                // Perhaps nothing more is reported.
                self.woken.notify_one();
            }
        }
        Hint::Paths(paths)
    }

    /// The next hint leaves out what is unfinished, unless it was left out before and nothing was reported of
    /// it since.
    pub fn set_unfinished_aside(&mut self) {
        self.aside = true;
    }

    /// The next hint says that something may have changed anywhere.
    pub fn look_anywhere(&self) {
        lock(&self.pending).anywhere = true;
    }

    /// What has been reported since [`Watch::take_hint`] looks like.
    pub fn settled(&self) -> Settled {
        lock(&self.pending).settled()
    }

    /// Starts to be told of changes, if that is not so already.
    pub fn start(&mut self) {
        let (woken, pending) = (self.woken.clone(), self.pending.clone());
        let mode = match self.reach {
            Reach::Directory => RecursiveMode::NonRecursive,
            Reach::Tree => RecursiveMode::Recursive,
        };
        let on_event = move |event: notify::Result<notify::Event>| {
            match event {
                Ok(event) if event.kind.is_access() && event.kind != CLOSED => return,
                Ok(event) if !event.need_rescan() && !event.paths.is_empty() => lock(&pending).add(event),
                _ => lock(&pending).anywhere = true,
            }
            woken.notify_one();
        };
        let started = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(&self.root, mode)?;
            Ok(watcher)
        });
        match started {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                tracing::warn!(directory = %self.root.display(), %error, poll_s = self.poll.as_secs(),
                    "cannot watch a directory; looking at it from time to time instead");
            }
        }
    }
}

/// A file that was open for writing has been closed.
const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));

/// What was reported and not yet looked at.
#[derive(Debug, Default)]
struct Pending {
    anywhere: bool,
    paths: BTreeSet<PathBuf>,
    /// Files that have been written and closed, or moved into place.
    written: BTreeSet<PathBuf>,
    /// What is being written, or was taken away.
    unfinished: BTreeSet<PathBuf>,
    /// What was so the last time, and of which nothing was reported since.
    left: BTreeSet<PathBuf>,
}

impl Pending {
    fn settled(&self) -> Settled {
        if self.anywhere || !self.unfinished.is_empty() {
            return Settled::Unfinished;
        }
        if self.written.len() > 1 { Settled::Batch } else { Settled::Edit }
    }

    fn add(&mut self, event: notify::Event) {
        if self.anywhere {
            return;
        }
        self.sort(&event);
        self.paths.extend(event.paths);
        if self.paths.len() > PATHS_MAX {
            *self = Pending { anywhere: true, ..Pending::default() };
        }
    }

    fn sort(&mut self, event: &notify::Event) {
        let (from, to) = match (event.kind, event.paths.as_slice()) {
            (EventKind::Modify(ModifyKind::Name(RenameMode::Both)), [from, to]) => (Some(from), to),
            (CLOSED | EventKind::Modify(ModifyKind::Name(RenameMode::To)), [path, ..]) => (None, path),
            (EventKind::Modify(ModifyKind::Metadata(_)), _) => return,
            (_, paths) => {
                for path in paths {
                    self.written.remove(path);
                    self.left.remove(path);
                }
                self.unfinished.extend(paths.iter().cloned());
                return;
            }
        };
        self.unfinished.remove(to);
        self.written.insert(to.clone());
        if let Some(from) = from {
            self.unfinished.remove(from);
            self.written.remove(from);
        }
    }
}

fn lock(pending: &Mutex<Pending>) -> std::sync::MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    /// How many files have been written, and how far that has come, once it is as expected, or in the end.
    async fn reported(watch: &mut Watch, expected: (usize, Settled)) -> (usize, Settled) {
        let found = |watch: &Watch| {
            let pending = lock(&watch.pending);
            (pending.written.len(), pending.settled())
        };
        for _ in 0..50 {
            if found(watch) == expected {
                break;
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), watch.changed()).await;
        }
        found(watch)
    }

    /// The same, and all of that is taken.
    async fn burst(watch: &mut Watch, expected: (usize, Settled)) -> (usize, Settled) {
        let found = reported(watch, expected).await;
        watch.take_hint();
        found
    }

    #[tokio::test]
    async fn what_is_unfinished_can_wait_while_others_cannot() {
        let root = tempfile::tempdir().expect("a directory");
        let path = |name: &str| root.path().join(name);
        for name in ["a.yaml", "b.yaml", "c.yaml"] {
            fs::write(path(name), "1").expect("written");
        }
        let mut watch = Watch::new(root.path(), Reach::Tree, Duration::from_secs(60));
        watch.start();
        watch.take_hint();
        let hint = |watch: &mut Watch| {
            watch.set_unfinished_aside();
            let Hint::Paths(paths) = watch.take_hint() else { panic!("something is known") };
            let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
            names.collect::<Vec<_>>().join(" ")
        };
        let half = |files| (files, Settled::Unfinished);

        let open = fs::File::create(path("a.yaml")).expect("truncated");
        fs::remove_file(path("b.yaml")).expect("removed");
        fs::write(path("c.yaml"), "2").expect("written");
        assert_eq!(reported(&mut watch, half(1)).await, half(1));
        assert_eq!(hint(&mut watch), "c.yaml");
        // Nobody has heard of it since: it is gone.
        (&open).write_all(b"2").expect("written");
        fs::write(path("c.yaml"), "3").expect("written");
        assert_eq!(reported(&mut watch, half(1)).await, half(1));
        assert_eq!(hint(&mut watch), "b.yaml c.yaml");
        drop(open);
        let whole = (1, Settled::Edit);
        assert_eq!(reported(&mut watch, whole).await, whole);
        assert_eq!(hint(&mut watch), "a.yaml");
        assert_eq!(hint(&mut watch), "");
    }

    #[tokio::test]
    async fn half_of_a_change_is_known_from_a_whole_one() {
        let root = tempfile::tempdir().expect("a directory");
        let path = |name: &str| root.path().join(name);
        fs::write(path("a.yaml"), "1").expect("written");
        let mut watch = Watch::new(root.path(), Reach::Tree, Duration::from_secs(60));
        watch.start();
        watch.take_hint();
        let whole = |files| (files, if files > 1 { Settled::Batch } else { Settled::Edit });
        let half = |files| (files, Settled::Unfinished);

        fs::write(path("a.yaml"), "2").expect("written");
        assert_eq!(burst(&mut watch, whole(1)).await, whole(1), "written in place");

        fs::write(path(".tmp"), "3").expect("written");
        fs::rename(path(".tmp"), path("a.yaml")).expect("moved");
        assert_eq!(burst(&mut watch, whole(1)).await, whole(1), "moved into place");

        let open = fs::File::create(path("a.yaml")).expect("truncated");
        assert_eq!(burst(&mut watch, half(0)).await, half(0), "truncated");
        drop(open);
        assert_eq!(burst(&mut watch, whole(1)).await, whole(1), "closed");

        fs::remove_file(path("a.yaml")).expect("removed");
        assert_eq!(burst(&mut watch, half(0)).await, half(0), "removed");

        fs::write(path("a.yaml"), "1").expect("written");
        burst(&mut watch, whole(1)).await;
        fs::remove_file(path("a.yaml")).expect("removed");
        fs::write(path("a.yaml"), "2").expect("written");
        fs::write(path("b.yaml"), "2").expect("written");
        assert_eq!(burst(&mut watch, whole(2)).await, whole(2), "put back, and another");
    }
}
