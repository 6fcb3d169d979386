//! Which proxies share a class, and so a plan.

use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::parse_text;
use navarch_model::proxy::ProxyFacts;
use navarch_plan::Class;
use navarch_snapshot::World;
use navarch_snapshot::world::Options;
use serde_json::{Value, json};

/// A replica of the Deployment `web`.
fn replica(address: &str, change: Value) -> ProxyFacts {
    let mut metadata = json!({
        "NAMESPACE": "default",
        "CLUSTER_ID": "Kubernetes",
        "NAME": format!("web-{address}"),
        "NODE_NAME": "node-1",
        "LABELS": {"app": "web"},
        "ANNOTATIONS": {"cni.example/pod-ip": address, "prometheus.istio.io/merge-metrics": "false"},
    });
    let fields = metadata.as_object_mut().unwrap();
    fields.extend(change.as_object().unwrap().clone());
    let id = format!("sidecar~{address}~web-{address}.default~default.svc.cluster.local");
    ProxyFacts::parse(&id, "web", fields, Locality::default()).unwrap()
}

/// Whether a replica and another that differs in `change` are of one class, with `objects` in the mesh.
fn share(objects: &str, change: Value) -> bool {
    let mut world = World::new(Options::default());
    let snapshot = world.apply(ChangeSet::upserting(parse_text("mesh.yaml", objects).objects));
    let class = |facts| Class::of(&facts, &snapshot.view());
    class(replica("10.1.0.1", json!({}))) == class(replica("10.1.0.2", change))
}

#[test]
fn replicas_share_a_class_unless_something_tells_them_apart() {
    let plain = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.1}\n";
    let other_node = || json!({"NODE_NAME": "node-2"});
    assert!(share(plain, json!({})));
    assert!(share(plain, other_node()));
    assert!(!share(plain, json!({"LABELS": {"app": "web", "version": "v2"}})));
    assert!(!share(plain, json!({"NETWORK": "network-2"})));

    let looking_at_nodes = [
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.1, internalTrafficPolicy: Local}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.1, trafficDistribution: PreferSameNode}\n",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n  host: a\n  trafficPolicy: {loadBalancer: {localityLbSetting: {failoverPriority: [kubernetes.io/hostname]}}}\n",
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: a}\nspec:\n  workloadSelector: {labels: {kubernetes.io/hostname: node-1}}\n  configPatches: []\n",
    ];
    for object in looking_at_nodes {
        assert!(!share(object, other_node()), "{object}");
    }

    let filter = |proxy: &str| {
        format!(
            "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: a}}\nspec:\n  configPatches:\n  - {{applyTo: CLUSTER, \
             match: {{proxy: {proxy}}}, patch: {{operation: MERGE, value: {{connect_timeout: 1s}}}}}}\n"
        )
    };
    let other_role = || json!({"ROLE": "writer"});
    assert!(share(plain, other_role()));
    assert!(share(&filter("{metadata: {OWNER: me}}"), other_role()));
    assert!(!share(&filter("{metadata: {ROLE: reader}}"), other_role()));
    assert!(!share(&filter("{metadata: {NAME: web-10.1.0.1}}"), json!({})), "replicas have names");
    assert!(!share(&filter("{proxyVersion: '^1'}"), json!({"ISTIO_VERSION": "1.2.3"})));
}
