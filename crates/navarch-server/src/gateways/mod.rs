//! Proxies for Gateways that have none: what runs them is made in the cluster, by one replica.
//!
//! `wanted` says what there is to be, `ledger` which of it has to be written, and this file asks the API
//! server. Nothing is removed: what belongs to a Gateway goes with it.

mod ledger;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use navarch_inject::Settings;
use navarch_install::gateway::{MANAGED_LABEL, is_shared};
use navarch_install::place;
use navarch_kubernetes::{Maker, Managed, WriteError};
use navarch_model::Place;
use navarch_snapshot::Snapshot;
use prometheus::IntGauge;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use self::ledger::{Found, Ledger};
pub use self::wanted::{Wanted, wanted};
use crate::events;
use crate::pod_settings::PodSettings;

/// Between two looks at what is wanted.
const POLL: Duration = Duration::from_millis(500);

/// Between two looks at what there is.
const LOOK: Duration = Duration::from_secs(60);

/// Between two writes: fifty a second.
const PACE: Duration = Duration::from_millis(20);

/// Longest time for which gateways are written before it is looked what is wanted meanwhile.
const STRETCH: Duration = Duration::from_secs(2);

/// The collections of what is made.
const COLLECTIONS: [&str; 5] = [
    "/api/v1/serviceaccounts",
    "/apis/apps/v1/deployments",
    "/api/v1/services",
    "/apis/autoscaling/v2/horizontalpodautoscalers",
    "/apis/policy/v1/poddisruptionbudgets",
];

/// The reason of an Event at a Gateway that cannot be run.
const REASON: &str = "GatewayNotDeployed";

/// What gateways are made from.
#[derive(Clone)]
struct Said {
    snapshot: Arc<Snapshot>,
    settings: Arc<Settings>,
}

impl Said {
    fn is(&self, other: &Said) -> bool {
        Arc::ptr_eq(&self.snapshot, &other.snapshot) && Arc::ptr_eq(&self.settings, &other.settings)
    }

    /// Whether the same is made from it.
    fn makes_the_same_as(&self, before: &Said) -> bool {
        Arc::ptr_eq(&self.settings, &before.settings) && self.snapshot.provisions_as(&before.snapshot)
    }
}

/// Makes what runs gateways.
pub struct Deployer {
    pub objects: Maker,
    pub latest: Arc<ArcSwap<Snapshot>>,
    pub settings: Arc<PodSettings>,
    /// Where the control plane runs.
    pub namespace: String,
    /// Whether what cannot be made is told at the Gateway.
    pub events: bool,
    /// Gateways that are not deployed as they are wanted.
    pub pending: IntGauge,
}

impl Deployer {
    /// Keeps gateways running, for as long as the program runs and whenever we are the one who writes.
    pub async fn run(self) {
        let begun = Instant::now();
        let mut ledger = Ledger::default();
        let mut seen: Option<Said> = None;
        let mut look_at = begun + LOOK;
        loop {
            sleep(POLL).await;
            if !self.objects.may_write() {
                // Another one has written meanwhile, who knows what.
                (ledger, seen) = (Ledger::default(), None);
                self.pending.set(0);
                continue;
            }
            if look_at <= Instant::now() {
                self.look(&mut ledger).await;
                look_at = Instant::now() + LOOK;
            }
            if let Some((said, wanted)) = self.news(seen.clone()).await {
                if let Some(wanted) = wanted {
                    ledger.want(wanted);
                }
                seen = Some(said);
            }
            let Some(Said { snapshot, .. }) = &seen else { continue };
            let until = Instant::now() + STRETCH;
            for due in ledger.due(begun.elapsed()) {
                let first = ledger.is_first(&due.gateway);
                let Some((versions, whole)) = self.write(&due, snapshot, first).await else { break };
                ledger.written(&due.gateway, versions, whole, begun.elapsed());
                if until <= Instant::now() {
                    break;
                }
            }
            self.pending.set(ledger.pending() as i64);
        }
    }

    /// What is said now, if it is not what was `seen`, and what is wanted, if that may be something else.
    /// Files are read and pods made for it, on a thread that may wait and compute.
    async fn news(&self, seen: Option<Said>) -> Option<(Said, Option<Vec<Wanted>>)> {
        let (latest, settings) = (self.latest.clone(), self.settings.clone());
        let namespace = self.namespace.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let now = Said { snapshot: latest.load_full(), settings: settings.now() };
            match seen {
                Some(seen) if seen.is(&now) => return None,
                // Pods and their endpoints come and go all the time.
                Some(seen) if now.makes_the_same_as(&seen) => return Some((now, None)),
                Some(_) | None => {}
            }
            let mut all = wanted(&now.snapshot, &now.settings, &namespace);
            // One that is in a file too is that of the file, which the cluster has not.
            all.retain(|wanted| {
                let object = now.snapshot.object(&wanted.gateway);
                object.is_some_and(|object| matches!(object.place, Place::Cluster { .. }))
            });
            Some((now, Some(all)))
        });
        looked.await.unwrap_or_else(|error| {
            tracing::error!(%error, "what runs gateways cannot be made");
            None
        })
    }

    /// Looks whether what was made is still as it was made.
    async fn look(&self, ledger: &mut Ledger) {
        for collection in COLLECTIONS {
            match self.objects.versions(collection, MANAGED_LABEL).await {
                Ok(found) => {
                    let found = found.into_iter();
                    let found =
                        found.map(|((namespace, name), version)| ((collection, namespace, name), version));
                    ledger.found(collection, &found.collect());
                }
                Err(error) => tracing::debug!(collection, %error, "what runs gateways is not looked at"),
            }
        }
    }

    /// Writes what is wanted for a gateway. Gives the versions of what is there then, and whether that is
    /// all; `None` if another replica writes. What is wrong is told the first time.
    async fn write(&self, wanted: &Wanted, snapshot: &Snapshot, first: bool) -> Option<(Found, bool)> {
        let Wanted { gateway, uid, objects } = wanted;
        let (mut versions, mut problems) = (Found::new(), Vec::new());
        // Whether anything is another than before, and whether anybody could be asked.
        let (mut is_another, mut is_answered) = (false, true);
        match objects {
            Err(reason) => problems.push(reason.clone()),
            Ok(objects) => {
                for object in objects.iter() {
                    let Some((path, title, at)) = located(object) else {
                        problems.push(format!("nobody knows where a {} is", object["kind"]));
                        continue;
                    };
                    let owner = (!is_shared(object)).then_some(&**uid);
                    match self.objects.apply_managed(&path, object, MANAGED_LABEL, owner).await {
                        Ok(Managed::Applied { version, changed }) => {
                            versions.insert(at, version);
                            is_another |= changed;
                        }
                        Ok(Managed::OfOthers) if owner.is_none() => {}
                        Ok(Managed::OfOthers) => {
                            problems.push(format!("{title} belongs to somebody else, and is left alone"));
                        }
                        Err(WriteError::NotOurs) => return None,
                        Err(error @ WriteError::Unreachable { .. }) => {
                            problems.push(format!("{title} cannot be written: {error}"));
                            is_answered = false;
                            break;
                        }
                        // The others are written all the same.
                        Err(error) => problems.push(format!("{title} cannot be written: {error}")),
                    }
                    sleep(PACE).await;
                }
            }
        }
        let whole = problems.is_empty();
        if whole && (is_another || !first) {
            tracing::info!(%gateway, "a gateway is deployed as it is wanted");
        } else if !whole && first {
            let problems = problems.join("; ");
            tracing::warn!(%gateway, problems, "a gateway cannot be deployed; it is tried again");
            if self.events && is_answered {
                let event = events::event(snapshot, gateway.clone(), REASON, problems);
                if let Err(error) = self.objects.apply_event(&event).await {
                    tracing::debug!(%gateway, %error, "it cannot be told as an Event");
                }
            }
        }
        Some((versions, whole))
    }
}

/// Where an object is: its path, what people call it, and where a look will find it.
fn located(object: &Value) -> Option<(String, String, ledger::Where)> {
    let found = place(object)?;
    let metadata = object.get("metadata")?;
    let namespace = metadata.get("namespace")?.as_str()?;
    let all = found.collection.replacen(&format!("/namespaces/{namespace}"), "", 1);
    let collection = COLLECTIONS.into_iter().find(|collection| *collection == all)?;
    Some((found.path(), found.title.clone(), (collection, namespace.to_owned(), found.name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_is_made_is_looked_at() {
        for (version, kind, collection) in [
            ("v1", "ServiceAccount", COLLECTIONS[0]),
            ("apps/v1", "Deployment", COLLECTIONS[1]),
            ("v1", "Service", COLLECTIONS[2]),
            ("autoscaling/v2", "HorizontalPodAutoscaler", COLLECTIONS[3]),
            ("policy/v1", "PodDisruptionBudget", COLLECTIONS[4]),
        ] {
            let metadata = json!({"name": "web", "namespace": "namespaces"});
            let object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
            let (path, _, at) = located(&object).expect("a place");
            assert_eq!(at, (collection, "namespaces".to_owned(), "web".to_owned()));
            assert!(path.ends_with("/web"), "{path}");
        }
    }
}
