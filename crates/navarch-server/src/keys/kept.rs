//! What was fetched last of everything, in the state directory: a start does not depend on who answers.

use std::path::PathBuf;

use navarch_identity::Timestamp;
use navarch_identity::certificate::fingerprint;
use navarch_identity::store::{StateDirectory, StoreError};
use serde::{Deserialize, Serialize};

use super::document::{self, Document};
use super::published::{Fetched, Published, What};
use super::roots;

/// The files.
pub struct Kept {
    state: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct File {
    source: String,
    fetched: Timestamp,
    /// A key set, or roots as PEM.
    keys: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

impl Kept {
    pub fn new(state: PathBuf) -> Self {
        Kept { state }
    }

    /// What was kept, and when it was fetched. What cannot be read is as good as nothing.
    pub fn read(&self, published: &Published) -> Option<(Fetched, Timestamp)> {
        let directory = StateDirectory::open_existing(&self.state).ok()?;
        let text = directory.read(&name(published)).ok()??;
        let File { source, fetched, keys, sequence } = serde_json::from_slice(text.expose()).ok()?;
        if source != published.url {
            return None;
        }
        let text = match published.what {
            What::Keys => match document::read(keys.as_bytes()).ok()? {
                Document::Keys(keys) => keys,
                Document::KeysAt(_) => return None,
            },
            What::Roots => roots::check(&keys).ok().map(|()| keys)?,
        };
        Some((Fetched { text: text.into(), sequence, ..Fetched::default() }, fetched))
    }

    pub fn write(&self, published: &Published, fetched: &Fetched, at: Timestamp) -> Result<(), StoreError> {
        let (source, keys) = (published.url.clone(), fetched.text.to_string());
        let file = File { source, fetched: at, keys, sequence: fetched.sequence };
        let directory = StateDirectory::open_existing(&self.state)?;
        directory.replace(&name(published), &serde_json::to_vec(&file).unwrap_or_default())
    }
}

/// The file below the state directory.
fn name(published: &Published) -> String {
    let directory = match published.what {
        What::Keys => "issuers",
        What::Roots => "bundles",
    };
    format!("{directory}/{}.json", fingerprint([published.url.as_bytes()]))
}
