//! What Envoy really runs: which of the clusters and listeners that it has accepted it does not use yet.
//!
//! An acknowledgement says that a resource was understood. A listener whose secret or whose routes have not
//! come is acknowledged and takes no connections, and a cluster without its endpoints is not sent any; both
//! *warm*. Only Envoy's admin port knows. It is asked after Envoy has accepted clusters or listeners, and
//! while something warms; each time costs two short answers, whatever Envoy has.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use navarch_xds::running::{InUse, Warming};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::envoy::Admin;
use crate::http::HttpError;

/// Time between what is a reason to look and the look: several changes come together.
const SETTLE: Duration = Duration::from_millis(100);
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(900);
/// How often Envoy is asked while something warms, and nothing else is a reason to look.
const POLL: Duration = Duration::from_secs(2);

/// The listeners that warm, with what they wait for.
const LISTENERS: &str = "/init_dump?mask=listener";
/// The clusters that warm, by name alone.
const CLUSTERS: &str = "/config_dump?resource=dynamic_warming_clusters&mask=cluster.name";

/// What Envoy was found to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The looks of this agent are numbered.
    pub number: u64,
    pub clusters: InUse,
    pub listeners: InUse,
}

impl Look {
    fn has_warming(&self) -> bool {
        self.clusters.warming + self.listeners.warming > 0
    }
}

/// Looks at Envoy when there is a reason to.
#[derive(Debug, Default)]
pub struct Watcher {
    reasons: Notify,
    begun: AtomicU64,
    /// The Envoy that is looked at.
    envoy: Mutex<Option<Admin>>,
    /// Envoy has clusters that it has not answered. It does so once they are warm.
    is_unanswered: AtomicBool,
    seen: watch::Sender<Option<Arc<Look>>>,
}

impl Watcher {
    /// The Envoy to look at from now on; none before it has said once that it is ready, since all of it warms
    /// then and its admin port says nothing of what, and while one hands over to the next.
    pub fn set_envoy(&self, envoy: Option<Admin>) {
        *self.envoy.lock().unwrap_or_else(PoisonError::into_inner) = envoy;
        self.reasons.notify_one();
    }

    /// There is a reason to look. A look that begins from now on has a number above the one that is given.
    pub fn look(&self) -> u64 {
        let begun = self.begun.load(Ordering::Relaxed);
        self.reasons.notify_one();
        begun
    }

    /// Clusters were sent to Envoy, or answered by it.
    pub fn set_unanswered(&self, is_unanswered: bool) {
        self.is_unanswered.store(is_unanswered, Ordering::Relaxed);
        self.reasons.notify_one();
    }

    /// Something has come that what warms may have waited for.
    pub fn look_if_warming(&self) {
        if self.seen.borrow().as_ref().is_some_and(|look| look.has_warming()) {
            self.reasons.notify_one();
        }
    }

    /// What was seen last; nothing while Envoy starts.
    pub fn seen(&self) -> watch::Receiver<Option<Arc<Look>>> {
        self.seen.subscribe()
    }

    #[cfg(test)]
    pub fn saw(&self, look: Look) {
        self.seen.send_replace(Some(Arc::new(look)));
    }

    /// Looks for ever.
    pub async fn run(self: Arc<Self>) {
        let mut is_due = false;
        loop {
            let is_warming = self.seen.borrow().as_ref().is_some_and(|look| look.has_warming());
            if is_due || is_warming || self.is_unanswered.load(Ordering::Relaxed) {
                // It is looked at even if nobody comes.
                let _ = timeout(POLL, self.reasons.notified()).await;
            } else {
                self.reasons.notified().await;
            }
            sleep(SETTLE).await;
            let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
            let envoy = *self.envoy.lock().unwrap_or_else(PoisonError::into_inner);
            let found = match envoy {
                Some(admin) => look(admin, number).await.map(Some),
                None => Ok(None),
            };
            is_due = found.is_err();
            match found {
                Ok(found) => _ = self.seen.send_replace(found.map(Arc::new)),
                Err(error) => tracing::debug!(error = %crate::Chain(&error), "what Envoy runs is not seen"),
            }
            sleep(PAUSE).await;
        }
    }
}

async fn look(admin: Admin, number: u64) -> Result<Look, HttpError> {
    let clusters = InUse::of(clusters(&admin.get(CLUSTERS).await?));
    let listeners = InUse::of(listeners(&admin.get(LISTENERS).await?));
    Ok(Look { number, clusters, listeners })
}

/// The names in a dump of clusters.
fn clusters(dump: &Bytes) -> Vec<Warming> {
    let dump: Value = serde_json::from_slice(dump).unwrap_or_default();
    let names = dump["configs"].as_array().into_iter().flatten();
    let names = names.filter_map(|found| found["cluster"]["name"].as_str());
    names.map(|name| Warming { name: name.to_owned(), waits_for: Vec::new() }).collect()
}

/// The listeners in a dump of what is not initialised (`envoy.admin.v3.UnreadyTargetsDumps`). Names are those
/// of Envoy's own log: the listener's is between what it is and its hash.
fn listeners(dump: &Bytes) -> Vec<Warming> {
    const OF_LISTENER: &str = "init manager Listener-local-init-manager ";
    let dump: Value = serde_json::from_slice(dump).unwrap_or_default();
    let managers = dump["unready_targets_dumps"].as_array().into_iter().flatten();
    let warming = managers.filter_map(|manager| {
        let (name, _) = manager["name"].as_str()?.strip_prefix(OF_LISTENER)?.rsplit_once(' ')?;
        let targets = manager["target_names"].as_array().into_iter().flatten();
        let waits_for = targets.filter_map(Value::as_str).map(target).collect();
        Some(Warming { name: name.to_owned(), waits_for })
    });
    warming.collect()
}

/// What is waited for, in the words of its field where they are known.
fn target(text: &str) -> String {
    let text = text.strip_prefix("shared ").unwrap_or(text);
    let text = text.strip_prefix("target ").unwrap_or(text);
    for (words, short) in [("SdsApi ", "SDS"), ("RdsRouteConfigSubscription RDS init ", "RDS")] {
        if let Some(name) = text.strip_prefix(words) {
            return format!("{short} {name}");
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_warms_is_read_from_the_pages_of_envoy() {
        let named = |name: &str, waits: &[&str]| Warming {
            name: name.to_owned(),
            waits_for: waits.iter().map(|text| (*text).to_owned()).collect(),
        };
        let dump = br#"{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster",
            "cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "outbound|80||web"}}]}"#;
        assert_eq!(clusters(&Bytes::from_static(dump)), [named("outbound|80||web", &[])]);
        let dump = br#"{"unready_targets_dumps": [
            {"name": "init manager Listener-local-init-manager 0.0.0.0_443 4115792086466459936", "target_names": [
                "shared target RdsRouteConfigSubscription RDS init https.443",
                "shared target SdsApi kubernetes://web", "target what"]},
            {"name": "init manager Server", "target_names": ["target a"]}]}"#;
        assert_eq!(
            listeners(&Bytes::from_static(dump)),
            [named("0.0.0.0_443", &["RDS https.443", "SDS kubernetes://web", "what"])]
        );
        for nothing in [&b"{}"[..], b"", b"[]", b"what?"] {
            let dump = Bytes::from_static(nothing);
            assert!(clusters(&dump).is_empty() && listeners(&dump).is_empty());
        }
    }
}
