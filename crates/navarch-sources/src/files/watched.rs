//! Files that are watched, as sources.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use super::tree::Hint;
use super::watch::{Reach, Watch};
use crate::source::{Batch, Settled, Source, SourceError};

/// How often files are looked at even if nothing is reported: some file systems report nothing.
const POLL: Duration = Duration::from_secs(10);

/// What a watched source does besides being watched: it reads.
pub trait Reader: Send {
    /// What changed since the last call, as far as the hint says where to look; at the first, everything.
    ///
    /// # Errors
    /// If nothing can be read.
    fn read(&mut self, hint: &Hint) -> io::Result<Batch>;
}

/// A source of files: watched from the first time that somebody waits for a change.
pub struct Watched<R> {
    /// What is read, as people call it.
    path: PathBuf,
    watch: Watch,
    pub(super) reader: R,
}

impl<R: Reader> Watched<R> {
    /// A source that has read nothing yet. `root` is watched, as far as `reach` says.
    pub(super) fn over(path: &Path, root: &Path, reach: Reach, reader: R) -> Self {
        Watched { path: path.to_owned(), watch: Watch::new(root, reach, POLL), reader }
    }

    /// A source that has read nothing yet, watched from now on.
    #[must_use]
    pub fn watched(mut self) -> Self {
        self.watch.start();
        self
    }
}

impl<R: Reader> Source for Watched<R> {
    fn name(&self) -> String {
        self.path.display().to_string()
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

    fn set_unfinished_aside(&mut self) {
        self.watch.set_unfinished_aside();
    }

    fn read(&mut self) -> Result<Batch, SourceError> {
        let hint = self.watch.take_hint();
        self.reader.read(&hint).map_err(|error| SourceError { name: self.name(), cause: error.into() })
    }
}
