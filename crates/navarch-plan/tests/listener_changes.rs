//! What an edit does to the listeners of a sidecar: which are sent again, and that the outcome is the same as
//! from scratch.

use std::sync::Arc;

use navarch_envoy::{ProxyResources, XdsType, diff};
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::{ClassPlan, Planner};
use navarch_snapshot::World;
use navarch_snapshot::world::Options;

/// A client in `default`; `app: client`.
fn facts() -> ProxyFacts {
    let metadata = serde_json::json!({
        "NAMESPACE": "default", "CLUSTER_ID": "Kubernetes", "LABELS": {"app": "client"}
    });
    ProxyFacts::parse(
        "sidecar~10.1.0.50~client.default~default.svc.cluster.local",
        "client.default",
        metadata.as_object().expect("an object"),
        Locality::default(),
    )
    .expect("a node")
}

fn service(name: &str, ip: &str, port_name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {ip}, selector: {{app: {name}}}, \
         ports: [{{name: {port_name}, port: {port}, targetPort: 8080, protocol: TCP}}]}}\n---\n"
    )
}

fn slice(name: &str, port_name: &str, addresses: &[&str]) -> String {
    let endpoints: Vec<String> = addresses
        .iter()
        .map(|address| format!("{{addresses: [{address}], conditions: {{ready: true}}}}"))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, labels: \
         {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nendpoints: [{}]\n\
         ports: [{{name: {port_name}, port: 8080, protocol: TCP}}]\n---\n",
        endpoints.join(", ")
    )
}

fn mesh() -> String {
    [
        service("web", "10.0.0.1", "http", 80),
        service("shop", "10.0.0.2", "http", 80),
        service("db", "10.0.0.3", "tcp", 5432),
        service("any", "10.0.0.4", "unnamed", 9000),
        service("peers", "None", "tcp", 7000),
        slice("peers", "tcp", &["10.2.0.1", "10.2.0.2"]),
        slice("web", "http", &["10.2.1.1"]),
    ]
    .concat()
}

fn change(text: &str) -> ChangeSet {
    ChangeSet::upserting(parse_text("mesh.yaml", text).objects)
}

fn plan(planner: &Planner) -> (ClassPlan, Arc<ProxyResources>) {
    let plan = planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts()))));
    let resources = planner.resources(&plan);
    (plan, resources)
}

/// Applies edits one after the other and states what each did: `+` added or changed, `-` removed.
fn check(edits: &[(&str, &[&str])]) {
    let mut world = World::new(Options::default());
    let planner = Planner::new(world.apply(change(&mesh())));
    let (plan_of_client, mut last) = plan(&planner);
    for (edit, expected) in edits {
        let snapshot = world.apply(change(edit));
        planner.advance(snapshot.clone());
        let now = planner.resources(&plan_of_client);
        let delta = diff(last.set(XdsType::Lds), now.set(XdsType::Lds));
        let mut found: Vec<String> =
            delta.changed.iter().map(|resource| format!("+{}", resource.name())).collect();
        found.extend(delta.removed.iter().map(|name| format!("-{name}")));
        found.sort();
        assert_eq!(found, *expected, "{edit}");
        let (_, scratch) = plan(&Planner::new(snapshot));
        assert!(diff(scratch.set(XdsType::Lds), now.set(XdsType::Lds)).is_empty(), "{edit}");
        last = now;
    }
}

#[test]
fn endpoints_matter_only_where_each_has_a_listener() {
    check(&[
        (&slice("web", "http", &["10.2.1.1", "10.2.1.2"]), &[]),
        (&slice("peers", "tcp", &["10.2.0.1", "10.2.0.3"]), &["+10.2.0.3_7000", "-10.2.0.2_7000"]),
    ]);
}

#[test]
fn a_service_changes_its_own_listeners() {
    check(&[
        // Another host behind a shared HTTP listener comes with the routes.
        (&service("shop", "10.0.0.2", "grpc", 80), &[]),
        (&service("db", "10.0.0.33", "tcp", 5432), &["+10.0.0.33_5432", "-10.0.0.3_5432"]),
        (&service("any", "10.0.0.4", "http", 9000), &["+0.0.0.0_9000", "-10.0.0.4_9000"]),
        (&service("more", "10.0.0.9", "http", 80), &[]),
        (&service("db", "10.0.0.33", "http", 80), &["-10.0.0.33_5432"]),
    ]);
}

#[test]
fn tcp_routes_apply_to_clients_that_they_mean() {
    let route = |label: &str, target: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r}}\nspec: {{hosts: [db], tcp: \
             [{{match: [{{sourceLabels: {{app: {label}}}}}], route: [{{destination: {{host: {target}}}}}]}}]}}\n"
        )
    };
    check(&[
        (&route("other", "peers"), &[]),
        (&route("client", "peers"), &["+10.0.0.3_5432"]),
        (&route("client", "any"), &["+10.0.0.3_5432"]),
        (&route("other", "any"), &["+10.0.0.3_5432"]),
    ]);
}

#[test]
fn policies_and_filters_reach_the_listeners_they_are_for() {
    let peer = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\n\
                spec: {mtls: {mode: STRICT}}\n";
    let filter = "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: f}\nspec: {configPatches: \
                  [{applyTo: LISTENER, match: {context: SIDECAR_OUTBOUND, listener: {portNumber: 5432}}, patch: \
                  {operation: MERGE, value: {freebind: true}}}]}\n";
    let gone = filter.replace("operation: MERGE, value: {freebind: true}", "operation: REMOVE");
    check(&[
        (peer, &["+virtualInbound"]),
        (filter, &["+10.0.0.3_5432"]),
        (&gone, &["-10.0.0.3_5432"]),
        // The namespace of the mesh changes: nothing reads it here.
        (&peer.replace("name: p", "name: p, namespace: elsewhere"), &[]),
    ]);
}

#[test]
fn an_egress_listener_with_a_port_keeps_others_off_its_address() {
    let sidecar = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s}\nspec:\n  egress:\n  \
                   - port: {number: 5432, protocol: TCP, name: db}\n    bind: 127.0.0.9\n    hosts: [./db.default.svc.cluster.local]\n  \
                   - hosts: [./web.default.svc.cluster.local]\n";
    check(&[(
        sidecar,
        &["+127.0.0.9_5432", "-10.0.0.3_5432", "-10.0.0.4_9000", "-10.2.0.1_7000", "-10.2.0.2_7000"],
    )]);
}

/// Whether the client marks HTTP to `any`, a service that detects its protocol, after these edits.
fn marks_http(edits: &str) -> bool {
    let mut world = World::new(Options::default());
    let planner = Planner::new(world.apply(change(&format!("{}{edits}", mesh()))));
    let (_, resources) = plan(&planner);
    let listener = resources.set(XdsType::Lds).get("10.0.0.4_9000").expect("a listener of its own");
    listener.body().windows(b"navarch.alpn".len()).any(|window| window == b"navarch.alpn")
}

#[test]
fn http_is_marked_unless_a_route_may_leave_the_mesh() {
    let outside = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: o}\nspec: {hosts: [o.example.com], \
                   location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 443, name: tls, protocol: TLS}]}\n---\n";
    let route = |target: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r}}\nspec: {{hosts: [any], http: \
             [{{route: [{{destination: {{host: {target}}}}}]}}]}}\n---\n"
        )
    };
    let tls = |host: &str, mode: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: d-{host}}}\nspec: {{host: {host}, \
             trafficPolicy: {{tls: {{mode: {mode}}}}}}}\n---\n"
        )
    };
    let check = |edits: &str, expected: bool| assert_eq!(marks_http(edits), expected, "{edits}");
    check("", true);
    check(&route("web"), true);
    check(&format!("{outside}{}", route("o.example.com")), false);
    check(&route("unknown.example.com"), false);
    check(&tls("any", "ISTIO_MUTUAL"), true);
    check(&tls("any", "SIMPLE"), false);
    check(&format!("{}{}", route("web"), tls("web", "SIMPLE")), false);
    check(&tls("web", "SIMPLE"), true);
}
