//! The seam between the control plane and what it reads.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use navarch_model::document::Parsed;
use navarch_model::fact::{Fact, FactKey};
use navarch_model::finding::Finding;
use navarch_model::object::ObjectKey;
use navarch_model::status::Status;

use crate::health::Health;

/// Somewhere that configuration is written: a directory, a file, an API server.
///
/// It is asked in turns: [`Source::changed`] until something may have changed, then [`Source::read`], which
/// gives what did. A source knows nothing of others, and nothing of what became of what it told before.
pub trait Source: Send {
    /// What people call it, for messages: a path, the name of a cluster.
    fn name(&self) -> String;

    /// Resolves when something may have changed since the last [`Source::read`]. It can be dropped and called
    /// again at any time without losing a change, and may resolve although nothing changed.
    fn changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// What the changes that were not read yet look like.
    fn settled(&self) -> Settled;

    /// Somebody says that something may have changed, whatever was reported: the next [`Source::read`] looks
    /// at everything. Not needed where nothing goes unreported.
    fn look_again(&mut self) {}

    /// Changes do not stop, and it is time to read: the next [`Source::read`] leaves what is unfinished
    /// ([`Settled::Unfinished`]) for the one after it, as long as something more is reported of it.
    fn set_unfinished_aside(&mut self) {}

    /// Reads what changed since the last call; at the first, everything. Called where it may wait for files.
    ///
    /// # Errors
    /// If the source as a whole cannot be read. What it told before stays in force.
    fn read(&mut self) -> Result<Batch, SourceError>;

    /// Whether what it says may be said elsewhere as well, which is no mistake of anybody.
    fn repeats(&self) -> bool {
        false
    }

    /// How well the source is heard, if it may be out of reach while it is followed.
    fn health(&self) -> Option<Health> {
        None
    }

    /// Who tells the authors of objects what became of them, if this source can.
    fn status_writer(&mut self) -> Option<&mut dyn StatusWriter> {
        None
    }
}

/// Writes statuses to where objects are written.
pub trait StatusWriter {
    /// Takes statuses that are new or have changed, of objects whose version in use is from this
    /// source. It must not wait for a network: what cannot be written at once is written later, the newest
    /// per object.
    fn write(&mut self, statuses: &[Written]);
}

/// A status for an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub object: ObjectKey,
    /// The version of the object that the status is about, as its place states it; empty if it states none.
    pub resource_version: Arc<str>,
    pub status: Status,
    /// Which controller each of the status's `parents` is served by, in their order.
    pub controllers: Vec<&'static str>,
}

/// How far changes have come that were reported and not read yet. The later in this list, the longer it is
/// worth waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Settled {
    /// One thing has changed as a whole, or nothing.
    #[default]
    Edit,
    /// Several things have changed, each as a whole: more may follow.
    Batch,
    /// Something is being written, or was taken away and may be about to be put back: Git and many editors
    /// replace a file by deleting and creating it. What is there now may be half of what is meant.
    Unfinished,
    /// A list is under way, and what has been told besides may belong together with what it says.
    Listing,
}

/// Which source: its position among all. Of equal claims, that of the source with the lower number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u16);

/// Where in a source something is written: the path of a file, `kind/namespace/name` in a cluster.
pub type PlaceId = Arc<Path>;

/// What changed in a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Places that say something else than before. A place that is not here says what it said.
    pub places: Vec<(PlaceId, Update)>,
    /// New and changed facts.
    pub facts: Vec<Fact>,
    /// Facts that hold no longer.
    pub retracted: Vec<FactKey>,
    /// The source has been read as a whole since it was opened. Before all sources have, nothing is served:
    /// what is missing would look as if it had been removed.
    pub complete: bool,
}

/// What a place says now.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// This, and nothing else.
    Says(Parsed),
    /// It is there and cannot be read. What it said stays in force; the finding says why.
    Unreadable(Finding),
    /// It is gone, and what it said with it.
    Gone,
}

impl Default for Batch {
    /// Nothing, of a source that has been read as a whole.
    fn default() -> Self {
        Batch { places: Vec::new(), facts: Vec::new(), retracted: Vec::new(), complete: true }
    }
}

/// A source cannot be read as a whole.
#[derive(Debug, thiserror::Error)]
pub struct SourceError {
    /// The name of the source.
    pub name: String,
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}", self.name)
    }
}
