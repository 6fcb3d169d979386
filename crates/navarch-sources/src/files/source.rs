//! A directory of files as a source.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use navarch_model::finding::{Code, Finding};
use navarch_model::{Position, Span};

use super::tree::{Hint, Tree};
use super::watch::Reach;
use super::watched::{Reader, Watched};
use crate::source::{Batch, Update};

/// The YAML and JSON files of a directory tree.
///
/// A batch is the difference between two states of the directory as a whole, however many files changed.
/// Reading costs what the files that changed cost.
pub type FileSource = Watched<Directory>;

/// Reads the files of a directory tree that changed.
pub struct Directory {
    /// What positions call the directory; empty if they are relative to it.
    shown: PathBuf,
    tree: Tree,
}

impl FileSource {
    /// A source that has read nothing yet. It is watched from the first time that somebody waits for a
    /// change.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let reader = Directory { shown: PathBuf::new(), tree: Tree::new(root.clone()) };
        Watched::over(&root, &root, Reach::Tree, reader)
    }

    /// The same, with a directory that positions start with: `mesh/web.yaml:3:1` instead of `web.yaml:3:1`.
    #[must_use]
    pub fn called(mut self, shown: impl Into<PathBuf>) -> Self {
        self.reader.shown = shown.into();
        self
    }
}

impl Reader for Directory {
    fn read(&mut self, hint: &Hint) -> io::Result<Batch> {
        let rescan = self.tree.look(hint)?;
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

/// The finding about a file that is there and whose contents cannot be read.
pub(super) fn cannot_be_read(file: &str, reason: &str) -> Finding {
    let start = Span { file: file.into(), line: 1, column: 1 };
    Finding::error(Code::NotText, format!("the file cannot be read: {reason}"))
        .at(Position::from(start))
        .hint("what it held before stays in use; make it a readable UTF-8 text file, or delete it")
}
