//! The HTTP proxy of a sidecar: its listener and the routes that the listener asks for.

use std::sync::Arc;

use navarch_envoy::any::{type_url, unpack};
use navarch_envoy::proto::envoy::config::route::v3::{RouteConfiguration, route};
use navarch_envoy::{Any, ProxyResources, XdsType};
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::Planner;
use navarch_snapshot::World;
use navarch_snapshot::world::Options;
use serde_json::{Value, json};

const SERVICE: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: books, namespace: library}
spec: {hosts: [books.test], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
";

/// A Sidecar for the whole namespace of the client, with these egress listeners.
fn sidecar(egress: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: default, namespace: reader}}\n\
         spec: {{egress: [{egress}]}}\n"
    )
}

fn mesh(settings: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata: {{mesh: \"{settings}\"}}\n"
    )
}

fn plan(metadata: Value, config: &str) -> Arc<ProxyResources> {
    let parsed = parse_text("mesh.yaml", config);
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    let mut world = World::new(Options::default());
    let planner = Planner::new(world.apply(ChangeSet::upserting(parsed.objects)));
    let id = "sidecar~10.2.0.7~shelf.reader~reader.svc.cluster.local";
    let facts = ProxyFacts::parse(id, "shelf", metadata.as_object().expect("a map"), Locality::default())
        .expect("a node");
    planner.resources(&planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts)))))
}

/// The address and port of the listener, or nothing.
fn listener(resources: &ProxyResources) -> Option<String> {
    let names = resources.set(XdsType::Lds).iter().map(|listener| listener.name().to_string());
    names.into_iter().find(|name| name.starts_with("127.0.0.1_150"))
}

/// `<virtual host> -> <cluster, or status of the answer>` for the virtual hosts of the HTTP proxy.
fn hosts(resources: &ProxyResources) -> Option<Vec<String>> {
    let resource = resources.set(XdsType::Rds).get("http_proxy")?;
    let packed = Any { type_url: type_url::<RouteConfiguration>(), value: resource.body() };
    let routes: RouteConfiguration = unpack(&packed).expect("a route configuration");
    let target = |action: &Option<route::Action>| match action {
        Some(route::Action::Route(route)) => format!("{:?}", route.cluster_specifier),
        Some(route::Action::DirectResponse(answer)) => answer.status.to_string(),
        other => format!("{other:?}"),
    };
    let hosts = routes.virtual_hosts.iter().map(|host| {
        let last = host.routes.last().map_or_else(String::new, |route| target(&route.action));
        format!("{} {} -> {last}", host.name, host.domains.join(" "))
    });
    Some(hosts.collect())
}

/// Whoever listens has routes, and whoever does not has none, whatever mesh and node state.
#[test]
fn the_listener_is_there_exactly_if_its_routes_are() {
    let check = |of_mesh: &str, own: Value, expected: Option<&str>| {
        for egress in
            ["{hosts: [\"*/*\"]}", "{port: {number: 8181, protocol: HTTP, name: own}, hosts: [\"*/*\"]}"]
        {
            let config = format!("{SERVICE}{}{}", mesh(of_mesh), sidecar(egress));
            let resources = plan(json!({ "HTTP_PROXY_PORT": own }), &config);
            assert_eq!(listener(&resources).as_deref(), expected, "{of_mesh} {own} {egress}");
            let hosts = hosts(&resources);
            assert_eq!(hosts.is_some(), expected.is_some(), "{of_mesh} {own} {egress}");
            let last = hosts.as_ref().and_then(|hosts| hosts.last());
            assert!(last.is_none_or(|last| last.contains(" * -> ")), "{last:?}");
        }
    };
    check("", json!(null), None);
    check("", json!("15080"), Some("127.0.0.1_15080"));
    check("", json!(15080), Some("127.0.0.1_15080"));
    check("", json!("abc"), None);
    check("", json!("70000"), None);
    check("proxyHttpPort: 15081", json!(null), Some("127.0.0.1_15081"));
    check("proxyHttpPort: 15081", json!("15080"), Some("127.0.0.1_15080"));
    check("proxyHttpPort: 15081", json!("0"), None);
    check("proxyHttpPort: 15081", json!("abc"), Some("127.0.0.1_15081"));
    check("proxyHttpPort: 15081", json!("70000"), Some("127.0.0.1_15081"));
    check("proxyHttpPort: 15081", json!({"port": 1}), Some("127.0.0.1_15081"));
}

/// A Sidecar whose listeners all have ports of their own imports nothing for the HTTP proxy: every host is an
/// unknown one.
#[test]
fn where_no_listener_serves_all_ports_every_host_is_unknown() {
    let check = |settings: &str, egress: &str, expected: &[&str]| {
        let config = format!("{SERVICE}{}{}", mesh(settings), sidecar(egress));
        for mode in ["REDIRECT", "NONE"] {
            let metadata = json!({"HTTP_PROXY_PORT": "15080", "INTERCEPTION_MODE": mode});
            let got = hosts(&plan(metadata, &config)).expect("routes");
            assert_eq!(got, expected, "{settings} {egress} {mode}");
        }
    };
    let own = "{port: {number: 8181, protocol: HTTP, name: own}, captureMode: NONE, bind: 127.0.0.1, hosts: [\"*/*\"]}";
    let both = format!("{own}, {{hosts: [\"*/*\"]}}");
    let known = "books.test:80 books.test books.test:80 books.test. books.test.:80 -> Some(Cluster(\"outbound|80||books.test\"))";
    let allow = "allow_any * -> Some(Cluster(\"PassthroughCluster\"))";
    let block = "block_all * -> 502";
    let registry_only = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}";
    check(registry_only, own, &[block]);
    check(registry_only, &both, &[known, block]);
    check("", own, &[allow]);
    check("", &both, &[known, allow]);
}
