//! One other cluster, followed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use navarch_model::{ClusterId, Kind, Name};
use navarch_sources::{PlaceId, Update};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::kubeconfig::untrusted;
use super::report::{Report, State};
use super::wanted::{GivenBy, Wanted};
use crate::access::{self, Access};
use crate::ask::Questions;
use crate::feed::Feed;
use crate::request::chain;
use crate::source::{Followed, Part, parts};

/// What of another cluster counts: what runs there, and not how it is configured.
pub const KINDS: [Kind; 6] =
    [Kind::Namespace, Kind::Node, Kind::Service, Kind::EndpointSlice, Kind::Endpoints, Kind::Pod];

/// How many times as long as for a cluster that does not answer serving waits for one that does: it may have
/// much to say.
const MORE_PATIENCE: u32 = 4;

/// What all other clusters have in common.
pub(super) struct Ground {
    pub namespaces: BTreeSet<String>,
    pub kept: Option<PathBuf>,
    pub woken: Arc<Notify>,
    pub patience: Duration,
}

/// A cluster that is followed.
pub(super) struct Remote {
    pub wanted: Wanted,
    pub feed: Feed,
    pub questions: Questions,
    server: String,
    /// Places that have something.
    places: BTreeSet<PlaceId>,
    begun: Instant,
    patience: Duration,
    /// What has been taken from the followers before these.
    pending: Vec<(PlaceId, Update)>,
    _tasks: JoinSet<()>,
}

impl Ground {
    /// A client, and where it leads.
    pub async fn connect(&self, wanted: &Wanted) -> Result<(Client, String), String> {
        let config = match (&wanted.kubeconfig, &wanted.from) {
            (Some(text), _) => untrusted(text).await?,
            (None, GivenBy::File(path)) => {
                let access = Access { kubeconfig: Some(path.clone()), context: None };
                access.config().await.map_err(|error| chain(&error))?
            }
            (None, GivenBy::Secret { .. }) => return Err("it says nothing".to_owned()),
        };
        let server = config.cluster_url.to_string();
        Ok((access::client(config).map_err(|error| chain(&error))?, server))
    }

    /// Begins to follow. What is there of a `former` way to the same cluster stays until it is known to be
    /// gone.
    pub fn remote(
        &self,
        name: &str,
        wanted: Wanted,
        client: Client,
        server: String,
        former: Option<Remote>,
    ) -> Remote {
        let parts = || KINDS.iter().flat_map(|kind| parts(*kind, &self.namespaces));
        let feed = Feed::waking(self.woken.clone(), parts().map(|part| called(&part, name)));
        let (mut places, mut pending) = (BTreeSet::new(), Vec::new());
        if let Some(mut former) = former {
            former.take(name, &mut pending);
            places = std::mem::take(&mut former.places);
        }
        let followed = Followed {
            client: client.clone(),
            id: ClusterId::remote(name),
            cluster: Name::from(name),
            revision: Arc::default(),
            kept: self.kept_of(name),
            feed: feed.clone(),
        };
        let mut tasks = JoinSet::new();
        for part in parts() {
            let mut folder = PathBuf::from(part.kind.as_str());
            folder.extend(&part.namespace);
            let known = places.iter().filter(|place| place.starts_with(&folder)).cloned().collect();
            let part_name = called(&part, name);
            let mut follower = followed.follower(part);
            follower.part = part_name;
            // Nobody waits for it for long, and what it said last is better than nothing.
            follower.recall_after = 0;
            follower.known = known;
            tasks.spawn(follower.run());
        }
        Remote {
            wanted,
            feed,
            questions: Questions::new(client),
            server,
            places,
            begun: Instant::now(),
            patience: self.patience,
            pending,
            _tasks: tasks,
        }
    }

    /// Removes what is kept of a cluster.
    pub async fn forget(&self, name: &str) {
        if let Some(kept) = self.kept_of(name) {
            // What is not there need not go.
            let _ = tokio::task::spawn_blocking(|| std::fs::remove_dir_all(kept)).await;
        }
    }

    /// Whether something is kept of a cluster.
    pub fn has_kept(&self, name: &str) -> bool {
        self.kept_of(name).is_some_and(|kept| kept.is_dir())
    }

    /// Removes what is kept of clusters that are not among these.
    pub async fn forget_others(&self, stays: BTreeSet<String>) {
        let Some(kept) = self.kept.clone() else { return };
        let removed = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            for entry in std::fs::read_dir(kept)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                // Those that begin so are ours, and no clusters.
                if !name.starts_with('.') && !stays.contains(&name) {
                    std::fs::remove_dir_all(entry.path())?;
                }
            }
            Ok(())
        });
        if let Ok(Err(error)) = removed.await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "what is kept of clusters that have gone cannot be removed");
        }
    }

    fn kept_of(&self, name: &str) -> Option<PathBuf> {
        self.kept.as_ref().map(|kept| kept.join(name))
    }
}

impl Remote {
    /// Takes what has been said, for the places of all clusters.
    pub fn take(&mut self, name: &str, told: &mut Vec<(PlaceId, Update)>) {
        told.append(&mut self.pending);
        for (place, update) in self.feed.take().places {
            let at = of_cluster(name, &place);
            match update {
                Update::Gone => _ = self.places.remove(&place),
                Update::Says(_) | Update::Unreadable(_) => _ = self.places.insert(place),
            }
            told.push((at, update));
        }
    }

    /// Everything of the cluster goes.
    pub fn leave(self, name: &str) -> Vec<(PlaceId, Update)> {
        let mut told = self.pending;
        told.extend(self.places.iter().map(|place| (of_cluster(name, place), Update::Gone)));
        told
    }

    /// Whether serving waits for it.
    pub fn is_awaited(&self) -> bool {
        let age = self.begun.elapsed();
        let factor = if self.is_silent() { 1 } else { MORE_PATIENCE };
        !self.feed.missing().is_empty() && age < self.patience.saturating_mul(factor)
    }

    /// Whether something of it is not heard.
    pub fn is_silent(&self) -> bool {
        !self.feed.health().report().unheard.is_empty()
    }

    pub fn report(&self, name: &str) -> Report {
        let heard = self.feed.health().report();
        let state = match (heard.unheard.is_empty(), self.feed.missing().is_empty()) {
            (false, _) => State::Silent,
            (true, false) => State::Syncing,
            (true, true) => State::Synced,
        };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Report {
            name: name.to_owned(),
            state,
            from: self.wanted.from.to_string(),
            server: self.server.clone(),
            objects: self.places.len(),
            followed_ms: ms(self.begun.elapsed()),
            silent_ms: heard.since.map(ms),
            reason: heard.reason,
        }
    }
}

/// A client of a cluster whose kubeconfig cannot be used: it reaches nothing.
pub(super) fn nowhere() -> Client {
    let refuse = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("its kubeconfig cannot be used"))
    });
    Client::new(refuse, "default")
}

/// What messages call what is followed.
fn called(part: &Part, cluster: &str) -> String {
    format!("{} of cluster {cluster}", part.name())
}

/// A place of a cluster among those of all.
fn of_cluster(name: &str, place: &PlaceId) -> PlaceId {
    PlaceId::from(PathBuf::from(name).join(place))
}
