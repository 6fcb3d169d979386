//! The Secrets that say which other clusters there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kube::Client;
use navarch_model::kubernetes::Secret;
use navarch_model::object::Object;
use navarch_model::{ClusterId, Kind, Name};
use navarch_sources::{Health, Update};
use tokio::task::JoinSet;

use super::wanted::Found;
use crate::feed::Feed;
use crate::source::{Followed, Part};

/// The label of Secrets whose entries are kubeconfigs, as Istio has it.
pub const SECRET_LABEL: &str = "istio/multiCluster=true";

/// Secrets of one namespace, followed.
pub(super) struct Secrets {
    feed: Feed,
    found: Found,
    _tasks: JoinSet<()>,
}

impl Secrets {
    pub fn follow(client: Client, local: &Name, namespace: &str, kept: Option<PathBuf>) -> Self {
        let part = Part { kind: Kind::Secret, namespace: Some(namespace.to_owned()) };
        let feed = Feed::new([part.name()]);
        let followed = Followed {
            client,
            id: ClusterId::LOCAL,
            cluster: local.clone(),
            revision: Arc::default(),
            kept,
            feed: feed.clone(),
        };
        let mut follower = followed.follower(part);
        follower.labels = SECRET_LABEL;
        let mut tasks = JoinSet::new();
        tasks.spawn(follower.run());
        Secrets { feed, found: Found::new(), _tasks: tasks }
    }

    pub fn health(&self) -> Health {
        self.feed.health().clone()
    }

    /// Resolves when something has been said of them.
    pub async fn changed(&mut self) {
        self.feed.told().await;
        for (place, update) in self.feed.take().places {
            match update {
                Update::Says(parsed) => match parsed.objects.iter().find_map(entries) {
                    Some((key, entries)) => _ = self.found.insert(key, entries),
                    // It has lost its label, or what it said.
                    None => self.remove(&place),
                },
                Update::Unreadable(finding) => {
                    tracing::warn!(%finding, "the Secret says what it said before");
                }
                Update::Gone => self.remove(&place),
            }
        }
    }

    fn remove(&mut self, place: &Path) {
        self.found.retain(|(namespace, name), _| place != Path::new(&format!("Secret/{namespace}/{name}")));
    }

    /// What they say.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Whether all have been listed.
    pub fn are_known(&self) -> bool {
        self.feed.missing().is_empty()
    }
}

type Entries = ((String, String), BTreeMap<String, Arc<[u8]>>);

/// The kubeconfigs of a Secret that has the label.
fn entries(object: &Object) -> Option<Entries> {
    let (label, value) = SECRET_LABEL.split_once('=')?;
    let secret = object.spec::<Secret>()?;
    if object.metadata.labels.get(label).is_none_or(|stated| **stated != *value) {
        return None;
    }
    let names = secret.data.keys().chain(secret.string_data.keys());
    let entries = names.filter_map(|name| Some((name.clone(), Arc::from(secret.bytes(name)?))));
    Some(((object.key.namespace.to_string(), object.key.name.to_string()), entries.collect()))
}
