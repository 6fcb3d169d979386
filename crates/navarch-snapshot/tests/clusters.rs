//! Objects of several clusters in one world.

mod common;

use common::*;
use navarch_model::change::ChangeSet;
use navarch_model::document::{WrittenIn, parse_objects};
use navarch_model::endpoint::{Address, Endpoint};
use navarch_model::kinds::Kind;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::{ClusterId, Name};
use navarch_snapshot::world::Options;
use navarch_snapshot::{Snapshot, World};

const HOST: &str = "web.shop.svc.cluster.local";

/// Service, Pod and Node, of the same names in every cluster.
fn mesh(pod: &str, zone: &str, created: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop, creationTimestamp: '{created}', labels: {{zone: {zone}}}}}
spec: {{clusterIP: 10.96.0.1, selector: {{app: web}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web-1, namespace: shop, labels: {{app: web}}}}
spec: {{nodeName: n1}}
status: {{phase: Running, podIP: {pod}}}
---
apiVersion: v1
kind: Node
metadata: {{name: n1, labels: {{topology.kubernetes.io/region: r, topology.kubernetes.io/zone: {zone}}}}}
"
    )
}

fn local() -> String {
    mesh("10.0.0.1", "a", "2026-02-01T00:00:00Z")
}

/// The objects of a text in the cluster `west`.
fn west(text: &str) -> Vec<Object> {
    let id = Options::default().cluster("west");
    let parsed = parse_objects(&WrittenIn::Cluster { id, name: "west".into() }, text);
    assert_eq!(parsed.findings, []);
    parsed.objects
}

/// Older than its namesake in the local cluster.
fn remote() -> Vec<Object> {
    west(&mesh("10.1.0.1", "b", "2026-01-01T00:00:00Z"))
}

/// Endpoints with their clusters and zones.
fn endpoints(snapshot: &Snapshot) -> Vec<String> {
    let view = snapshot.view();
    let Some(set) = view.endpoints(HOST, "shop") else { return Vec::new() };
    let address = |endpoint: &Endpoint| match endpoint.address {
        Address::Ip(address) => address.to_string(),
        _ => "a name".to_owned(),
    };
    let endpoints = set.endpoints.iter();
    endpoints.map(|e| format!("{} {} {}", address(e), e.cluster_id, e.locality.zone)).collect()
}

/// The zone that the labels of the one service with the host name.
fn service(snapshot: &Snapshot) -> Vec<Name> {
    snapshot.services().map(|service| service.labels.get("zone").cloned().unwrap_or_default()).collect()
}

#[test]
fn a_service_of_two_clusters_is_one_with_the_endpoints_of_both() {
    let mut world = world(&local());
    assert_eq!(endpoints(world.snapshot()), ["10.0.0.1 Kubernetes a"]);
    let both = world.apply(ChangeSet::upserting(remote()));
    assert_eq!(endpoints(&both), ["10.1.0.1 west b", "10.0.0.1 Kubernetes a"]);
    assert_eq!(
        service(&both),
        [Name::from("a")],
        "as the local cluster describes it, though the other is older"
    );
    let view = both.view();
    let selecting = view.selecting_services("shop", &labels_of(&["app=web"]));
    assert_eq!(selecting.len(), 1);

    let keys = |cluster| {
        [Kind::Service, Kind::Pod].map(|kind| match kind {
            Kind::Service => ObjectKey::of(cluster, kind, "shop", "web"),
            kind => ObjectKey::of(cluster, kind, "shop", "web-1"),
        })
    };
    let west = ClusterId::remote("west");
    let only_west = world.apply(ChangeSet::removing(keys(ClusterId::LOCAL)));
    assert_eq!(endpoints(&only_west), ["10.1.0.1 west b"]);
    assert_eq!(service(&only_west), [Name::from("b")]);
    let none = world.apply(ChangeSet::removing(keys(west)));
    assert_eq!(endpoints(&none), [""; 0]);
    assert_eq!(none.services().count(), 0);
}

#[test]
fn configuration_of_other_clusters_does_not_count() {
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: web, namespace: shop}, spec: {host: web}}";
    let mut world = world(&local());
    let before = world.snapshot().clone();
    let after = world.apply(ChangeSet::upserting(west(rule)));
    assert_eq!(after.changed_since(&before), []);
    assert!(after.view().destination_rules(HOST).is_empty());
    let after = world.apply(ChangeSet::upserting(objects(rule)));
    assert_eq!(after.view().destination_rules(HOST).len(), 1);
}

#[test]
fn the_name_of_the_local_cluster_is_not_that_of_another() {
    let options = Options { cluster_name: "east".into(), ..Options::default() };
    assert!(options.cluster("east").is_local());
    assert!(!options.cluster("west").is_local());
    let mut world = World::new(options);
    assert_eq!(endpoints(&world.apply(ChangeSet::upserting(objects(&local())))), ["10.0.0.1 east a"]);
}

#[test]
fn an_object_in_a_cluster_is_found_by_its_name() {
    let object =
        west("{apiVersion: v1, kind: Namespace, metadata: {name: shop, resourceVersion: '7'}}").remove(0);
    assert_eq!(object.key.to_string(), "Namespace shop of cluster west");
    assert_eq!(object.locate("metadata.labels").unwrap().to_string(), "west/Namespace/shop");
    let wrong = "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: s, namespace: shop}, spec: {egress: 1}}";
    let origin = WrittenIn::Cluster { id: ClusterId::remote("west"), name: "west".into() };
    let parsed = parse_objects(&origin, wrong);
    let position = parsed.findings[0].position.as_ref().unwrap();
    assert_eq!(position.to_string(), "west/Sidecar/shop/s");
}
