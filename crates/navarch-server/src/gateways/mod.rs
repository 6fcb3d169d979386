//! Proxies for Gateways that have none: what runs them is made in the cluster, by one replica.
//!
//! `wanted` says what there is to be, `ledger` which of it has to be written, and this file asks the API
//! server. Nothing is removed: what belongs to a Gateway goes with it.

mod ledger;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use navarch_install::gateway::MANAGED_LABEL;
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
        let mut seen = None;
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
            let now = (self.latest.load_full(), self.settings.now());
            let is_seen = seen.as_ref().is_some_and(|(snapshot, settings)| {
                Arc::ptr_eq(snapshot, &now.0) && Arc::ptr_eq(settings, &now.1)
            });
            if is_seen && ledger.pending() == 0 {
                continue;
            }
            let (snapshot, settings) = &now;
            let mut all = wanted(snapshot, settings, &self.namespace);
            // One that is in a file too is that of the file, which the cluster has not.
            all.retain(|wanted| {
                let object = snapshot.object(&wanted.gateway);
                object.is_some_and(|object| matches!(object.place, Place::Cluster { .. }))
            });
            for due in ledger.due(&all, begun.elapsed()) {
                let first = ledger.is_first(&due.gateway);
                let Some((versions, whole)) = self.write(due, snapshot, first).await else { break };
                ledger.written(&due.gateway, versions, whole, begun.elapsed());
            }
            self.pending.set(ledger.pending() as i64);
            seen = Some(now);
        }
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
        match objects {
            Err(reason) => problems.push(reason.clone()),
            Ok(objects) => {
                for object in objects.iter() {
                    let Some((path, title, at)) = located(object) else { continue };
                    match self.objects.apply_managed(&path, object, MANAGED_LABEL, uid).await {
                        Ok(Managed::Applied { version }) => _ = versions.insert(at, version),
                        Ok(Managed::OfOthers) => {
                            problems.push(format!("{title} belongs to somebody else, and is left alone"));
                        }
                        Err(WriteError::NotOurs) => return None,
                        // The others are written all the same.
                        Err(error) => problems.push(format!("{title} cannot be written: {error}")),
                    }
                    sleep(PACE).await;
                }
            }
        }
        let whole = problems.is_empty();
        if whole {
            tracing::info!(%gateway, "a gateway is deployed as it is wanted");
        } else if first {
            let problems = problems.join("; ");
            tracing::warn!(%gateway, problems, "a gateway cannot be deployed; it is tried again");
            if self.events {
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
