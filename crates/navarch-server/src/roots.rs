//! The roots of the mesh in every namespace, where pods find them: the ConfigMap `istio-ca-root-cert`.
//!
//! What there is comes with the snapshot, so that nothing is written that is right already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use navarch_identity::pem::certificates;
use navarch_kubernetes::{Maker, WriteError};
use navarch_model::kubernetes::ConfigMap;
use navarch_model::{Kind, ObjectKey};
use navarch_snapshot::Snapshot;

use crate::identity::Identity;

const NAME: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";

/// Namespaces of Kubernetes itself, in which there are no pods of a mesh (Istio: `IgnoredNamespaces`).
const IGNORED: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Between two looks.
const POLL: Duration = Duration::from_secs(1);

/// How long a namespace is left alone that nothing could be written to.
const AGAIN: Duration = Duration::from_secs(10);

/// Between two writes: fifty a second.
const PACE: Duration = Duration::from_millis(20);

/// Namespaces in which the roots are missing, or others than these.
pub fn outdated(snapshot: &Snapshot, roots: &str) -> Vec<String> {
    let namespaces = snapshot.objects_of(Kind::Namespace).filter(|namespace| {
        let name = &namespace.key.name;
        namespace.key.cluster.remote_name().is_none()
            && namespace.metadata.deletion_timestamp.is_none()
            && !IGNORED.contains(&&**name)
            && snapshot.looks_at(name)
    });
    let outdated = namespaces.filter(|namespace| {
        let key = ObjectKey::new(Kind::ConfigMap, &namespace.key.name, NAME);
        let found = snapshot.object(&key).and_then(|object| object.spec::<ConfigMap>());
        found.and_then(|found| found.data.get(KEY)).is_none_or(|found| !is_same(found, roots))
    });
    outdated.map(|namespace| namespace.key.name.to_string()).collect()
}

/// Whether two texts hold the same certificates: another control plane may write them otherwise, and two that
/// each put the other's right would never end.
fn is_same(found: &str, roots: &str) -> bool {
    found == roots
        || matches!((certificates(found.as_bytes()), certificates(roots.as_bytes())), (Ok(a), Ok(b)) if a == b)
}

/// Keeps the roots right in every namespace, for as long as the program runs and whenever we are the one who
/// writes.
/// Only `namespaces` are known; all if there are none.
pub async fn follow(
    objects: Maker,
    identity: Arc<Identity>,
    latest: Arc<ArcSwap<Snapshot>>,
    namespaces: BTreeSet<String>,
) {
    let mut looked_at: Option<(Arc<Snapshot>, String)> = None;
    // What has been written and may not be in the snapshot yet, and what could not be.
    let mut waiting: BTreeMap<String, (tokio::time::Instant, String)> = BTreeMap::new();
    let mut failing = BTreeSet::new();
    loop {
        tokio::time::sleep(POLL).await;
        if !objects.may_write() {
            looked_at = None;
            continue;
        }
        let now = tokio::time::Instant::now();
        waiting.retain(|_, (until, _)| *until > now);
        let (snapshot, authority) = (latest.load_full(), identity.authority());
        let roots = authority.roots_pem();
        let seen =
            looked_at.as_ref().is_some_and(|(seen, before)| Arc::ptr_eq(seen, &snapshot) && before == roots);
        if seen && waiting.is_empty() {
            continue;
        }
        let mut whole = true;
        let known = |namespace: &String| namespaces.is_empty() || namespaces.contains(namespace);
        for namespace in outdated(&snapshot, roots).into_iter().filter(known) {
            if waiting.get(&namespace).is_some_and(|(_, written)| written == roots) {
                whole = false;
                continue;
            }
            match objects.apply_config_map(&namespace, NAME, &BTreeMap::from([(KEY, roots)])).await {
                Ok(()) => {
                    failing.remove(&namespace);
                    tracing::debug!(namespace, "the roots of the mesh are written");
                }
                Err(WriteError::NotOurs) => {
                    whole = false;
                    break;
                }
                Err(error) => {
                    if failing.insert(namespace.clone()) && failing.len() == 1 {
                        tracing::warn!(namespace, %error, "the roots of the mesh cannot be written; it is tried again");
                    }
                    whole = false;
                }
            }
            waiting.insert(namespace, (now + AGAIN, roots.to_owned()));
            tokio::time::sleep(PACE).await;
        }
        looked_at = whole.then(|| (snapshot, roots.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use navarch_model::change::ChangeSet;
    use navarch_model::document::{WrittenIn, parse_objects};
    use navarch_snapshot::World;

    use super::*;

    #[test]
    fn roots_are_outdated_where_they_are_missing_or_others() {
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: missing}\n---\n\
            apiVersion: v1\nkind: Namespace\nmetadata: {name: right}\n---\n\
            apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n---\n\
            apiVersion: v1\nkind: Namespace\nmetadata: {name: kube-system}\n---\n\
            apiVersion: v1\nkind: Namespace\nmetadata: {name: going, deletionTimestamp: \"2026-01-01T00:00:00Z\"}\n---\n\
            apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-ca-root-cert, namespace: right}\ndata: {root-cert.pem: roots}\n---\n\
            apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-ca-root-cert, namespace: other}\ndata: {root-cert.pem: old}\n";
        let parsed = parse_objects(&WrittenIn::File("a.yaml".into()), text);
        assert!(parsed.findings.is_empty(), "{:?}", parsed.findings);
        let mut world = World::new(Default::default());
        let snapshot = world.apply(ChangeSet::upserting(parsed.objects));
        assert_eq!(outdated(&snapshot, "roots"), ["missing", "other"]);
    }
}
