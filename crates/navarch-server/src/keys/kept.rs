//! The last good keys of each issuer, in the state directory: a start does not depend on issuers that answer.

use std::path::PathBuf;
use std::sync::Arc;

use navarch_identity::Timestamp;
use navarch_identity::certificate::fingerprint;
use navarch_identity::store::{StateDirectory, StoreError};
use serde::{Deserialize, Serialize};

use super::document::{self, Document};

/// Where they are below the state directory.
const DIRECTORY: &str = "issuers";

/// The files.
pub struct Kept {
    state: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct File {
    source: String,
    fetched: Timestamp,
    keys: String,
}

impl Kept {
    pub fn new(state: PathBuf) -> Self {
        Kept { state }
    }

    /// The keys that were kept, and when they were fetched. What cannot be read is as good as nothing.
    pub fn read(&self, source: &str) -> Option<(Arc<str>, Timestamp)> {
        let directory = StateDirectory::open_existing(&self.state).ok()?;
        let text = directory.read(&name(source)).ok()??;
        let file: File = serde_json::from_slice(text.expose()).ok()?;
        match document::read(file.keys.as_bytes()) {
            Ok(Document::Keys(keys)) if file.source == source => Some((keys.into(), file.fetched)),
            _ => None,
        }
    }

    pub fn write(&self, source: &str, keys: &str, fetched: Timestamp) -> Result<(), StoreError> {
        let file = File { source: source.to_owned(), fetched, keys: keys.to_owned() };
        let directory = StateDirectory::open_existing(&self.state)?;
        directory.replace(&name(source), &serde_json::to_vec(&file).unwrap_or_default())
    }
}

fn name(source: &str) -> String {
    format!("{DIRECTORY}/{}.json", fingerprint([source.as_bytes()]))
}
