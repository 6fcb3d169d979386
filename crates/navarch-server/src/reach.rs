//! The other way round: whom an object reaches, and with what.

use std::collections::BTreeMap;

use navarch_model::{Fingerprint, Kind, Object, ObjectKey};
use navarch_plan::explain::Reached;
use navarch_snapshot::Snapshot;

use crate::client::Client;
use crate::fleet::Fleet;
use crate::provenance::{explained_parts, place_of};
use crate::status::{ExplainedResource, ObjectReach, ReachedProxies};

/// Resources that are looked at for one question. A mesh of thousands of services has more; a part of the
/// answer is better than none.
const RESOURCES_MAX: usize = 20_000;

/// The object that a text names: `Kind/namespace/name`, `Kind/name` of the namespace `default` or of no
/// namespace. The kind is as objects state it, or as in URLs, in any case.
pub fn key_named(text: &str) -> Option<ObjectKey> {
    let mut parts = text.splitn(3, '/');
    let (kind, first, second) = (parts.next()?, parts.next()?, parts.next());
    let is_meant = |known: &&Kind| {
        known.to_string().eq_ignore_ascii_case(kind) || known.plural().eq_ignore_ascii_case(kind)
    };
    let kind = *Kind::ALL.iter().find(is_meant)?;
    let (namespace, name) = match (kind.scope(), second) {
        (navarch_model::kinds::Scope::Cluster, _) => ("", second.unwrap_or(first)),
        (_, Some(name)) => (first, name),
        (_, None) => ("default", first),
    };
    Some(ObjectKey::new(kind, namespace, name))
}

/// `Kind/namespace/name`, as [`key_named`] reads it.
#[must_use]
pub fn name_of(key: &ObjectKey) -> String {
    match key.namespace.is_empty() {
        true => format!("{}/{}", key.kind, key.name),
        false => format!("{}/{}/{}", key.kind, key.namespace, key.name),
    }
}

/// What is said of an object without looking at proxies: whether it is in force, where, and what it says.
pub fn in_force(snapshot: &Snapshot, key: &ObjectKey) -> ObjectReach {
    let object = snapshot.object(key);
    ObjectReach {
        object: key.to_string(),
        place: object.map(|object| place_of(object, "")).unwrap_or_default(),
        content: object.map(|object| content(object)).unwrap_or_default(),
        ..ObjectReach::default()
    }
}

/// A hash of what an object says, wherever it is kept: its specification. An API server adds metadata.
#[must_use]
pub fn content(object: &Object) -> String {
    format!("{:032x}", object.spec_content())
}

/// Whom an object reaches among these clients, each with the name of its proxy.
pub fn reach(fleet: &Fleet, key: &ObjectKey, clients: &[(String, Client)]) -> ObjectReach {
    let snapshot = fleet.snapshot();
    let mut classes: BTreeMap<Fingerprint, (&Client, Vec<String>)> = BTreeMap::new();
    for (name, client) in clients {
        let (_, names) = classes.entry(fleet.class_of(client)).or_insert_with(|| (client, Vec::new()));
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let mut left = RESOURCES_MAX;
    let mut reached = Vec::new();
    let mut is_whole = true;
    for (client, names) in classes.into_values() {
        let Some(resources) = fleet.resources(client) else { continue };
        let size: usize = resources.iter().map(|(_, set)| set.len()).sum();
        is_whole &= size <= left;
        let found = fleet.planner().reached(&client.facts, &resources, key, left);
        left = left.saturating_sub(size);
        let resources: Vec<ExplainedResource> = found
            .iter()
            .map(|Reached { ty, name, parts }| ExplainedResource {
                resource: name.clone(),
                ty: ty.short().to_owned(),
                parts: explained_parts(&snapshot, parts),
            })
            .collect();
        if !resources.is_empty() {
            reached.push(ReachedProxies { names, resources });
        }
    }
    reached.sort_by(|a, b| a.names.cmp(&b.names));
    ObjectReach { proxies: reached, connected: clients.len(), is_whole, ..in_force(&snapshot, key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_by_kind_namespace_and_name() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(key_named(text).map(|key| key.to_string()).as_deref(), expected, "{text}");
        };
        check("VirtualService/shop/web", Some("VirtualService shop/web"));
        check("virtualservices/web", Some("VirtualService default/web"));
        check("Gateway/shop/edge", Some("Gateway shop/edge"));
        check("namespace/shop", Some("Namespace shop"));
        check(
            "gateway.gateway.networking.k8s.io/shop/edge",
            Some("Gateway.gateway.networking.k8s.io shop/edge"),
        );
        check("web", None);
        check("nothing/shop/web", None);
        for key in ["VirtualService/shop/web", "Namespace/shop"] {
            assert_eq!(key_named(key).map(|key| name_of(&key)).as_deref(), Some(key));
        }
    }
}
