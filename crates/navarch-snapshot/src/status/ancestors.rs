//! The gateways among the ancestors of a policy for backends: those whose routes send something to a target
//! of the policy. (Gateway API, `PolicyAncestorStatus`.)
//!
//! It changes with the routes and not with the policy, so it is looked up when somebody asks.

use std::collections::{BTreeMap, BTreeSet};

use navarch_model::gateway_api::BackendTlsPolicy;
use navarch_model::object::ObjectKey;
use navarch_model::route::{Parent, RouteSet};
use navarch_model::status::ParentStatus;
use navarch_model::{Kind, Name};

use crate::snapshot::Snapshot;

/// Adds the gateways to the targets of a policy, with the conditions of the target that each uses.
pub(super) fn add(snapshot: &Snapshot, parents: &mut Vec<ParentStatus>) {
    let mut found: BTreeSet<ObjectKey> = BTreeSet::new();
    for target in parents.clone() {
        let hosts = hosts_of(snapshot, &target.parent);
        for gateway in gateways_to(snapshot, &hosts) {
            if found.insert(gateway.clone()) {
                let conditions = target.conditions.clone();
                parents.push(ParentStatus { parent: gateway, section: None, port: None, conditions });
            }
        }
    }
}

/// The policies whose gateways may be others than before: gateways have changed, or a route that is not as
/// it was sends something to a target.
pub(super) fn concerned_since(now: &Snapshot, before: &Snapshot) -> Vec<ObjectKey> {
    let policies = || now.objects_of(Kind::BackendTlsPolicy);
    if policies().next().is_none() {
        return Vec::new();
    }
    if now.gateways.fingerprint() != before.gateways.fingerprint() {
        return policies().map(|object| object.key.clone()).collect();
    }
    let mut hosts: BTreeSet<&Name> = BTreeSet::new();
    for (was, is) in now.gateway_routes.changes(&before.gateway_routes) {
        let [was, is] = [was, is].map(|hosts| {
            let sets = hosts.values().flatten();
            sets.map(|set| ((&set.precedence, set.fingerprint()), set)).collect::<BTreeMap<_, _>>()
        });
        let gone = was.iter().filter(|(set, _)| !is.contains_key(set));
        let come = is.iter().filter(|(set, _)| !was.contains_key(set));
        hosts.extend(gone.chain(come).flat_map(|(_, set)| destination_hosts(set)));
    }
    let services = hosts.into_iter().filter_map(|host| now.services.get(host)).flatten();
    let targets: BTreeSet<(&Name, &Name)> =
        services.map(|service| (&service.namespace, &service.name)).collect();
    let concerned = policies().filter(|object| {
        let policy = object.spec::<BackendTlsPolicy>();
        let mut stated = policy.into_iter().flat_map(|policy| &policy.target_refs);
        stated.any(|target| targets.contains(&(&object.key.namespace, &target.name)))
    });
    concerned.map(|object| object.key.clone()).collect()
}

/// The hosts of an object.
fn hosts_of(snapshot: &Snapshot, key: &ObjectKey) -> BTreeSet<Name> {
    let services =
        snapshot.services().filter(|service| service.namespace == key.namespace && service.name == key.name);
    services.map(|service| service.hostname.clone()).collect()
}

/// The gateways of the Gateway API whose routes send something to one of the hosts.
fn gateways_to(snapshot: &Snapshot, hosts: &BTreeSet<Name>) -> BTreeSet<ObjectKey> {
    let leads_there = |set: &RouteSet| destination_hosts(set).any(|host| hosts.contains(host));
    let places = snapshot.gateway_routes.iter();
    let parents = places.filter(|(_, sets)| sets.values().flatten().any(|set| leads_there(set)));
    parents.filter_map(|(parent, _)| gateway_of(snapshot, parent)).collect()
}

fn gateway_of(snapshot: &Snapshot, parent: &Parent) -> Option<ObjectKey> {
    let set = snapshot.gateways.get(parent.gateway()?)?;
    set.is_of_gateway_api().then(|| set.gateway.clone())
}

fn destination_hosts(set: &RouteSet) -> impl Iterator<Item = &Name> {
    set.destinations().map(|destination| &destination.to.host)
}
