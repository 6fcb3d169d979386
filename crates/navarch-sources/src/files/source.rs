//! A directory of files as a source.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use navarch_model::finding::{Code, Finding};
use navarch_model::{Position, Span};

use super::tree::Tree;
use super::watch::{Reach, Watch};
use crate::source::{Batch, Settled, Source, SourceError, Update};

/// How often a directory is looked at even if nothing is reported: some file systems report nothing.
pub(super) const POLL: Duration = Duration::from_secs(10);

/// The YAML and JSON files of a directory tree.
///
/// A batch is the difference between two states of the directory as a whole, however many files changed.
/// Reading costs what the files that changed cost.
pub struct FileSource {
    root: PathBuf,
    /// What positions call the directory; empty if they are relative to it.
    shown: PathBuf,
    tree: Tree,
    watch: Watch,
}

impl FileSource {
    /// A source that has read nothing yet. It is watched from the first time that somebody waits for a
    /// change.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let watch = Watch::new(&root, Reach::Tree, POLL);
        FileSource { tree: Tree::new(root.clone()), root, shown: PathBuf::new(), watch }
    }

    /// The same, with a directory that positions start with: `mesh/web.yaml:3:1` instead of `web.yaml:3:1`.
    #[must_use]
    pub fn called(mut self, shown: impl Into<PathBuf>) -> Self {
        self.shown = shown.into();
        self
    }

    /// A source that has read nothing yet, watched from now on.
    #[must_use]
    pub fn watched(mut self) -> Self {
        self.watch.start();
        self
    }
}

impl Source for FileSource {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.watch.changed())
    }

    fn settled(&self) -> Settled {
        self.watch.settled()
    }

    fn look_again(&mut self) {
        self.watch.look_anywhere();
    }

    fn read(&mut self) -> Result<Batch, SourceError> {
        let hint = self.watch.take_hint();
        let rescan =
            self.tree.look(&hint).map_err(|error| SourceError { name: self.name(), cause: error.into() })?;
        let mut batch = Batch::default();
        let shown = |path: &Path| self.shown.join(path).display().to_string();
        let mut tell = |path: &Path, update| batch.places.push((Arc::from(path), update));
        for path in &rescan.removed {
            tell(path, Update::Gone);
        }
        for (path, text) in &rescan.changed {
            let parsed = navarch_model::parse_text(&shown(path), text);
            tell(path, Update::Says(parsed));
        }
        for (path, reason) in &rescan.unreadable {
            tell(path, Update::Unreadable(cannot_be_read(&shown(path), reason)));
        }
        Ok(batch)
    }
}

/// The file is there but its contents are not to be had.
pub(super) fn cannot_be_read(file: &str, reason: &str) -> Finding {
    let start = Span { file: file.into(), line: 1, column: 1 };
    Finding::error(Code::NotText, format!("the file cannot be read: {reason}"))
        .at(Position::from(start))
        .hint("what it held before stays in use; make it a readable UTF-8 text file, or delete it")
}
