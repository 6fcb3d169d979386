//! What a change of endpoints touches: the endpoints of that service, and nothing else unless the cluster
//! carries them.

use std::sync::Arc;

use navarch_envoy::{ProxyResources, XdsType, diff};
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::{ClassPlan, Planner};
use navarch_snapshot::World;
use navarch_snapshot::world::Options;

/// Services `web` and `db` with an endpoint each, and a host outside that proxies resolve.
const MESH: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: 10.0.0.2, ports: [{name: tcp, port: 5432, targetPort: 5432, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.9], conditions: {ready: true}}]
ports: [{name: tcp, port: 5432, protocol: TCP}]
---
";

fn web(endpoints: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\n\
         endpoints: [{endpoints}]\nports: [{{name: http, port: 8080, protocol: TCP}}]\n"
    )
}

fn outside(address: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: outside}}\nspec:\n  \
         hosts: [api.example.com]\n  ports: [{{number: 443, name: tls, protocol: TLS}}]\n  resolution: DNS\n  \
         location: MESH_EXTERNAL\n  endpoints: [{{address: {address}}}]\n"
    )
}

/// Names of clusters and endpoints that differ after a document has changed.
fn changed(before: &str, after: &str) -> (Vec<String>, Vec<String>) {
    let mut world = World::new(Options::default());
    let change = |text: &str| ChangeSet::upserting(parse_text("mesh.yaml", text).objects);
    let planner = Planner::new(world.apply(change(&format!("{MESH}{before}"))));
    let metadata = serde_json::json!({"NAMESPACE": "default", "CLUSTER_ID": "Kubernetes"});
    let facts = ProxyFacts::parse(
        "sidecar~10.1.0.50~client.default~default.svc.cluster.local",
        "client",
        metadata.as_object().unwrap(),
        Locality::default(),
    )
    .unwrap();
    let plan: ClassPlan = planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))));
    let old: Arc<ProxyResources> = planner.resources(&plan);
    planner.advance(world.apply(change(after)));
    let new = planner.resources(&plan);
    let names = |ty| {
        let delta = diff(old.set(ty), new.set(ty));
        assert!(delta.removed.is_empty(), "{:?}", delta.removed);
        delta.changed.iter().map(|resource| resource.name().to_string()).collect::<Vec<_>>()
    };
    (names(XdsType::Cds), names(XdsType::Eds))
}

#[test]
fn only_the_endpoints_of_the_service_change() {
    let one = "{addresses: [10.1.0.1], conditions: {ready: true}}";
    let two = "{addresses: [10.1.0.1], conditions: {ready: true}}, {addresses: [10.1.0.2], conditions: {ready: true}}";
    let down = "{addresses: [10.1.0.1], conditions: {ready: false}}";
    let web_endpoints = vec!["outbound|80||web.default.svc.cluster.local".to_owned()];
    for (before, after) in [(one, two), (two, one), (one, down), (one, "")] {
        assert_eq!(
            changed(&web(before), &web(after)),
            (vec![], web_endpoints.clone()),
            "{before} -> {after}"
        );
    }
    assert_eq!(changed(&web(one), &web(one)), (vec![], vec![]));
}

#[test]
fn a_cluster_that_resolves_names_carries_them() {
    let cluster = vec!["outbound|443||api.example.com".to_owned()];
    assert_eq!(changed(&outside("a.example.com"), &outside("b.example.com")), (cluster, vec![]));
}
