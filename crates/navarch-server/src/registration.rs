//! Workloads that register themselves in a WorkloadGroup (`AUTO_REGISTER_GROUP`), as istiod lets them:
//! whoever proves to be the group's service account has a WorkloadEntry for as long as it is connected.

pub mod kept;
pub mod shared;

use std::net::IpAddr;

use navarch_model::endpoint::HEALTH;
use navarch_model::networking::{WorkloadEntry, WorkloadGroup};
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Config, Kind, ObjectKey, SpiffeId};
use navarch_snapshot::Snapshot;
use navarch_sources::{KnownHealth, Registered, Registrations};
use navarch_xds::{Peer, Rejection};
use serde_json::{Map, Value, json};

/// Bytes of a name in Kubernetes.
const NAME_BYTES_MAX: usize = 253;
/// The annotation with the group of an entry, as in Istio.
const GROUP: &str = "istio.io/autoRegistrationGroup";

/// Registers a workload, if it asks for that.
///
/// # Errors
/// If the group is not there, or the workload does not prove to be of the group's service account.
pub fn join(
    registrations: &Registrations,
    facts: &ProxyFacts,
    peer: &Peer,
    snapshot: &Snapshot,
) -> Result<Option<Registered>, Rejection> {
    if facts.group.is_empty() {
        return Ok(None);
    }
    let (namespace, name) = (&*facts.namespace, &*facts.group);
    let view = snapshot.view();
    let groups = view.objects::<WorkloadGroup>(namespace);
    let Some(group) = groups.iter().find(|group| *group.name == *name) else {
        let message = format!("there is no WorkloadGroup {namespace}/{name} to register in");
        return Err(Rejection::InvalidRequest(message));
    };
    let template = group.spec.template.clone().unwrap_or_default();
    let account = if template.service_account.is_empty() { "default" } else { &template.service_account };
    let is_member = |id: &SpiffeId| **id.namespace() == *namespace && **id.account() == *account;
    if !peer.identities.iter().filter_map(|id| id.parse().ok()).any(|id| is_member(&id)) {
        let who = if peer.identities.is_empty() { "nobody".to_owned() } else { peer.identities.join(", ") };
        return Err(Rejection::PermissionDenied(format!(
            "WorkloadGroup {namespace}/{name} is for the service account {account}, and the connection proves to be {who}"
        )));
    }
    let Some(address) = facts.addresses.first() else { return Ok(None) };
    let object = entry(group, &template, facts, *address);
    let place = place(facts);
    let health = match group.spec.probe {
        None => KnownHealth::Unchecked,
        Some(_) if is_healthy(facts, snapshot) => KnownHealth::CheckedAndHealthy,
        Some(_) => KnownHealth::Checked,
    };
    tracing::info!(entry = %place, group = %group.name, "a workload has registered itself");
    Ok(Some(registrations.join(&place, object, health)))
}

/// Whether the workload was healthy at the replica that it was connected to before.
fn is_healthy(facts: &ProxyFacts, snapshot: &Snapshot) -> bool {
    let key = ObjectKey::new(Kind::WorkloadEntry, &facts.namespace, &entry_name(facts));
    snapshot.object(&key).is_some_and(|entry| {
        let annotations = &entry.metadata.annotations;
        annotations.get(GROUP).is_some_and(|group| *group == facts.group) && !annotations.contains_key(HEALTH)
    })
}

/// Where the object of a workload is.
pub fn place(facts: &ProxyFacts) -> String {
    format!("{}/{}", facts.namespace, entry_name(facts))
}

/// `<group>-<address>[-<network>]`, the end of it if it is too long, as in Istio.
fn entry_name(facts: &ProxyFacts) -> String {
    let mut name = facts.group.to_string();
    if let Some(address) = facts.addresses.first() {
        name = format!("{name}-{}", address.to_string().replace(':', "-"));
    }
    if !facts.network.is_empty() {
        name = format!("{name}-{}", facts.network);
    }
    let cut = name.char_indices().map(|(at, _)| at).find(|at| name.len() - at <= NAME_BYTES_MAX);
    name.split_off(cut.unwrap_or_default())
}

/// The template, with what the workload says of itself where the template says nothing. Labels of the group
/// hold whatever the workload says: services are made of them.
fn entry(
    group: &Config<WorkloadGroup>,
    template: &WorkloadEntry,
    facts: &ProxyFacts,
    address: IpAddr,
) -> Value {
    let WorkloadEntry { address: _, ports, labels, network, locality, weight, service_account } = template;
    let metadata = group.spec.metadata.clone().unwrap_or_default();
    let own = facts.labels.iter().map(|(key, value)| (key.to_string(), json!(&**value)));
    let mut all: Map<String, Value> = own.collect();
    for (key, value) in labels.iter().chain(&metadata.labels) {
        all.insert(key.clone(), json!(value));
    }
    let mut annotations: Map<String, Value> =
        metadata.annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    annotations.insert(GROUP.to_owned(), json!(&*group.name));
    let place = [&facts.locality.region, &facts.locality.zone, &facts.locality.sub_zone];
    let own_place = place.map(|part| &**part).join("/");
    let own_place = own_place.trim_end_matches('/');
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": entry_name(facts),
            "namespace": &*facts.namespace,
            "labels": all,
            "annotations": annotations,
        },
        "spec": {
            "address": address.to_string(),
            "ports": ports,
            "labels": all,
            "network": if network.is_empty() { &*facts.network } else { network },
            "locality": if locality.is_empty() { own_place } else { locality },
            "weight": weight,
            "serviceAccount": service_account,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use navarch_model::change::ChangeSet;
    use navarch_model::endpoint::Locality;
    use navarch_snapshot::World;
    use navarch_snapshot::world::Options;

    use super::*;

    const GROUPS: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: web, namespace: shop}
spec:
  metadata: {labels: {app: web}, annotations: {note: a}}
  template: {serviceAccount: web, ports: {http: 8080}, network: n}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: plain, namespace: shop}
spec: {template: {}}
";

    fn snapshot() -> Arc<Snapshot> {
        let objects = navarch_model::parse_text("groups.yaml", GROUPS).objects;
        World::new(Options::default()).apply(ChangeSet::upserting(objects))
    }

    fn facts(group: &str) -> ProxyFacts {
        let Value::Object(metadata) = json!({
            "NAMESPACE": "shop",
            "AUTO_REGISTER_GROUP": group,
            "LABELS": { "app": "other", "tier": "gold" },
        }) else {
            unreachable!("an object")
        };
        let id = "sidecar~10.0.0.9~vm.shop~shop.svc.cluster.local";
        ProxyFacts::parse(id, "", &metadata, Locality::default()).expect("a node")
    }

    #[test]
    fn only_who_proves_to_be_the_account_of_the_group_is_registered() {
        let snapshot = snapshot();
        let registrations = Registrations::new(Duration::ZERO);
        let check = |group: &str, identities: &[&str], expected: Result<bool, &str>| {
            let mut peer = Peer::plaintext(([127, 0, 0, 1], 1).into());
            peer.identities = identities.iter().map(|id| (*id).to_owned()).collect();
            let found = join(&registrations, &facts(group), &peer, &snapshot);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.is_some(), expected, "{group} {identities:?}"),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, expected) => panic!("{group} {identities:?}: {found:?}, not {expected:?}"),
            }
        };
        check("", &[], Ok(false));
        check("none", &["spiffe://cluster.local/ns/shop/sa/web"], Err("there is no WorkloadGroup shop/none"));
        check("web", &["spiffe://cluster.local/ns/shop/sa/web"], Ok(true));
        check("web", &["spiffe://cluster.local/ns/shop/sa/other"], Err("is for the service account web"));
        check("web", &["spiffe://cluster.local/ns/other/sa/web"], Err("is for the service account web"));
        check("web", &[], Err("proves to be nobody"));
        check("plain", &["spiffe://cluster.local/ns/shop/sa/default"], Ok(true));
    }

    #[test]
    fn an_entry_is_the_template_and_what_the_workload_says_besides() {
        let snapshot = snapshot();
        let view = snapshot.view();
        let groups = view.objects::<WorkloadGroup>("shop");
        let group = groups.iter().find(|group| *group.name == *"web").expect("the group");
        let template = group.spec.template.clone().unwrap_or_default();
        let made = entry(group, &template, &facts("web"), ([10, 0, 0, 9]).into());
        assert_eq!(made["metadata"]["name"], "web-10.0.0.9");
        assert_eq!(made["metadata"]["annotations"], json!({ "note": "a", GROUP: "web" }));
        assert_eq!(made["spec"]["labels"], json!({ "app": "web", "tier": "gold" }));
        assert_eq!(made["spec"]["ports"], json!({ "http": 8080 }));
        assert_eq!((&made["spec"]["network"], &made["spec"]["serviceAccount"]), (&json!("n"), &json!("web")));
    }
}
