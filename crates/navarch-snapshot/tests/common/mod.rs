//! Worlds out of YAML.

#![allow(dead_code)]

use std::sync::Arc;

use navarch_model::change::ChangeSet;
use navarch_model::document::parse_text;
use navarch_model::endpoint::{Address, Endpoint, Locality};
use navarch_model::fact::Fact;
use navarch_model::mesh::{MeshSettings, parse_mesh_config};
use navarch_model::object::Object;
use navarch_model::proxy::ProxyFacts;
use navarch_model::route::RouteSet;
use navarch_model::{Hashed, Labels};
use navarch_snapshot::world::Options;
use navarch_snapshot::{Scope, Snapshot, View, World, workload};

/// The objects of a YAML text; panics if something is wrong with it.
pub fn objects(yaml: &str) -> Vec<Object> {
    let parsed = parse_text("test.yaml", yaml);
    let errors: Vec<_> = parsed.findings.iter().filter(|f| f.to_string().starts_with("error")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    parsed.objects
}

/// A world with the objects of a YAML text.
pub fn world(yaml: &str) -> World {
    world_with_mesh(yaml, "")
}

/// A world with the objects of a YAML text and a MeshConfig.
pub fn world_with_mesh(yaml: &str, mesh: &str) -> World {
    let (config, findings) = parse_mesh_config(mesh, "mesh.yaml", 1);
    assert!(findings.is_empty(), "{findings:#?}");
    let mesh = MeshSettings { config, ..MeshSettings::default() };
    let mut world = World::new(Options::default());
    let facts = vec![Fact::MeshConfig(Arc::new(mesh))];
    world.apply(ChangeSet { facts, ..ChangeSet::upserting(objects(yaml)) });
    world
}

pub fn snapshot(yaml: &str) -> Arc<Snapshot> {
    world(yaml).snapshot().clone()
}

/// A sidecar in a namespace with labels `key=value`.
pub fn sidecar(namespace: &str, address: &str, labels: &[&str]) -> ProxyFacts {
    proxy("sidecar", namespace, address, labels)
}

pub fn proxy(kind: &str, namespace: &str, address: &str, labels: &[&str]) -> ProxyFacts {
    let id = format!("{kind}~{address}~client.{namespace}~{namespace}.svc.cluster.local");
    let mut facts = ProxyFacts::parse(&id, "client", &serde_json::Map::new(), Locality::default()).unwrap();
    facts.labels = labels_of(labels);
    facts
}

pub fn labels_of(labels: &[&str]) -> Labels {
    labels.iter().filter_map(|label| label.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

/// The scope of a proxy.
pub fn scope_of(view: &View<'_>, facts: &ProxyFacts) -> Scope {
    let labels = workload::of_proxy(view, facts).labels;
    Scope::resolve(view, facts, &labels)
}

/// Hosts with ports that a client sees, sorted: `a.default.svc.cluster.local:80,90@default`.
pub fn visible(snapshot: &Snapshot, facts: &ProxyFacts) -> Vec<String> {
    let view = snapshot.view();
    let scope = scope_of(&view, facts);
    let mut out: Vec<String> = (0..navarch_snapshot::BUCKETS)
        .flat_map(|bucket| scope.services_in(&view, bucket))
        .map(|service| {
            let ports: Vec<String> = service.ports.iter().map(|port| port.port.to_string()).collect();
            format!("{}:{}@{}", service.hostname, ports.join(","), service.namespace)
        })
        .collect();
    out.sort();
    out
}

/// Endpoints as `<address>:<port>/<port name>`, in order.
pub fn endpoints(snapshot: &Snapshot, host: &str, namespace: &str) -> Vec<String> {
    let view = snapshot.view();
    let set = view.endpoints(host, namespace);
    set.map_or_else(Vec::new, |set| set.endpoints.iter().map(endpoint_text).collect())
}

pub fn endpoint_text(endpoint: &Endpoint) -> String {
    let address = match &endpoint.address {
        Address::Ip(address) => address.to_string(),
        Address::Dns(name) => name.to_string(),
        Address::Unix(path) => path.to_string(),
    };
    format!("{address}:{}/{}", endpoint.port, endpoint.service_port_name)
}

/// Names of the objects that have routes.
pub fn names(sets: &[Arc<Hashed<RouteSet>>]) -> Vec<String> {
    sets.iter().map(|set| format!("{}/{}", set.key().namespace, set.key().name)).collect()
}
