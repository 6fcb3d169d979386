//! The table that the control plane has sent last, kept over restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use navarch_identity::store::StateDirectory;
use tokio::sync::watch;

use super::table::Table;

/// The file in the agent's directory: the table as it came.
const KEPT: &str = "names.pb";

/// The names of the mesh. Clones share them.
#[derive(Clone)]
pub struct Names {
    directory: Arc<StateDirectory>,
    sender: Arc<watch::Sender<Option<Arc<Table>>>>,
    /// Whether anybody asks the agent for names.
    is_wanted: Arc<AtomicBool>,
}

impl Names {
    /// The names of an earlier run.
    #[must_use]
    pub fn open(directory: Arc<StateDirectory>) -> Self {
        let kept = directory.read(KEPT).unwrap_or_else(|error| {
            tracing::warn!(error = %crate::Chain(&error), "the names of an earlier run cannot be read");
            None
        });
        let table = kept.map(|message| Arc::new(Table::read(message.expose())));
        Names { directory, sender: Arc::new(watch::Sender::new(table)), is_wanted: Arc::default() }
    }

    /// Names are wanted from now on: streams that are opened ask for them.
    pub fn want(&self) {
        self.is_wanted.store(true, Ordering::Relaxed);
    }

    /// Whether names are wanted.
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// The names that there are now; nothing if none were ever sent.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Table>> {
        self.sender.borrow().clone()
    }

    /// Takes an encoded `NameTable`.
    pub fn take(&self, message: &[u8]) {
        let table = Arc::new(Table::read(message));
        if self.current().as_ref() == Some(&table) {
            return;
        }
        if let Err(error) = self.directory.replace(KEPT, message) {
            tracing::error!(error = %crate::Chain(&error), "the names are not kept for the next start");
        }
        tracing::debug!(names = table.len(), "the names of the mesh");
        self.sender.send_replace(Some(table));
    }
}
