//! Two APIs of routes: objects of one namespace, name and creation time that differ in their kind only. Both
//! take effect, and whatever names one of them names the right one.

use std::sync::Arc;

use navarch_envoy::any::{type_url, unpack};
use navarch_envoy::proto::envoy::config::listener::v3::Listener;
use navarch_envoy::proto::envoy::config::route::v3::{Route, RouteConfiguration};
use navarch_envoy::{Any, ProxyResources, XdsType};
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::{Planner, TranslationFindings};
use navarch_snapshot::world::Options;
use navarch_snapshot::{Snapshot, World};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: shop}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.0.0.3, ports: [{name: tcp, port: 3306}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: shop}
spec: {clusterIP: 10.0.0.4, selector: {app: edge}, ports: [{name: http, port: 80, targetPort: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: edge, namespace: shop, labels: {app: edge}}
status: {phase: Running, podIP: 10.9.0.2, podIPs: [{ip: 10.9.0.2}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: istio.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: edge.shop.svc.cluster.local}]
  listeners: [{name: http, port: 80, protocol: HTTP}]
";

/// A VirtualService and a route of the Gateway API, equal in namespace, name and creation time.
fn both(virtual_service: &str, kind: &str, route: &str) -> String {
    format!(
        "{SERVICES}---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: r, namespace: shop}}
spec: {virtual_service}
---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: r, namespace: shop}}
spec: {route}
"
    )
}

/// For clients of a service.
fn mesh_route(service: &str, backend: &str) -> String {
    format!(
        "{{parentRefs: [{{group: '', kind: Service, name: {service}}}], \
         rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}]}}"
    )
}

fn snapshot(mesh: &str) -> Arc<Snapshot> {
    let parsed = parse_text("mesh.yaml", mesh);
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    World::new(Options::default()).apply(ChangeSet::upserting(parsed.objects))
}

struct Client {
    planner: Planner,
    facts: ProxyFacts,
    resources: Arc<ProxyResources>,
}

impl Client {
    fn new(id: &str, mesh: &str) -> Self {
        let metadata = serde_json::json!({"LABELS": {"app": "edge"}});
        let facts = ProxyFacts::parse(id, "test", metadata.as_object().expect("a map"), Locality::default());
        let facts = facts.expect("a node");
        let planner = Planner::new(snapshot(mesh));
        let plan = planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))));
        let resources = planner.resources(&plan);
        Client { planner, facts, resources }
    }

    fn sidecar(mesh: &str) -> Self {
        Self::new("sidecar~10.9.0.1~web.front~front.svc.cluster.local", mesh)
    }

    fn gateway(mesh: &str) -> Self {
        Self::new("router~10.9.0.2~edge.shop~shop.svc.cluster.local", mesh)
    }

    fn packed(&self, ty: XdsType, type_url: String, name: &str) -> Any {
        let resource = self.resources.set(ty).get(name).unwrap_or_else(|| panic!("{name} is not there"));
        Any { type_url, value: resource.body() }
    }

    /// Names and operations of the routes of a virtual host.
    fn routes(&self, configuration: &str, host: &str) -> Vec<String> {
        let packed = self.packed(XdsType::Rds, type_url::<RouteConfiguration>(), configuration);
        let routes: RouteConfiguration = unpack(&packed).expect("a route configuration");
        let found = routes.virtual_hosts.into_iter().find(|known| known.name.starts_with(host));
        let found = found.unwrap_or_else(|| panic!("{host} is not there"));
        let operation = |route: Route| {
            let operation = route.decorator.map(|decorator| decorator.operation);
            format!("{} {}", route.name, operation.unwrap_or_default())
        };
        found.routes.into_iter().map(operation).collect()
    }

    /// `+Kind namespace/name field` for what shaped a resource, `-Kind namespace/name: why` for what did not.
    fn explained(&self, ty: XdsType, name: &str) -> Vec<String> {
        let explanation = self.planner.explain(&self.facts, &self.resources, ty, name);
        let parts = explanation.unwrap_or_else(|| panic!("{name} is not there")).parts;
        let sources = parts.iter().flat_map(|part| &part.sources);
        let sources = sources.map(|source| format!("+{} {}", source.object, source.field));
        let lost = parts.iter().flat_map(|part| &part.lost);
        let lost = lost.map(|lost| format!("-{}: {}", lost.object, lost.reason));
        sources.chain(lost).filter(|line| line.contains("shop/r ") || line.contains("shop/r:")).collect()
    }
}

#[test]
fn each_routes_its_own_host() {
    let first = "{hosts: [reviews], http: [{name: first, route: [{destination: {host: ratings}}]}]}";
    let client = Client::sidecar(&both(first, "HTTPRoute", &mesh_route("ratings", "reviews")));
    assert_eq!(client.routes("80", "reviews.shop"), ["first ratings.shop.svc.cluster.local:80/*"]);
    assert_eq!(client.routes("80", "ratings.shop"), ["shop.r.0 reviews.shop.svc.cluster.local:80/*"]);
    assert_eq!(
        client.explained(XdsType::Rds, "80"),
        ["+HTTPRoute shop/r spec.rules[0]", "+VirtualService shop/r spec.http[0]"]
    );
}

#[test]
fn of_one_host_one_has_the_routes_and_the_other_is_told() {
    let first = "{hosts: [reviews], http: [{name: first, route: [{destination: {host: ratings}}]}]}";
    let client = Client::sidecar(&both(first, "HTTPRoute", &mesh_route("reviews", "reviews")));
    assert_eq!(client.routes("80", "reviews.shop"), ["shop.r.0 reviews.shop.svc.cluster.local:80/*"]);
    assert_eq!(
        client.explained(XdsType::Rds, "80"),
        [
            "+HTTPRoute shop/r spec.rules[0]",
            "-VirtualService shop/r: HTTPRoute shop/r is used for the host: both are as old, and it comes first by name",
        ]
    );
}

#[test]
fn one_object_may_stand_for_several_sets() {
    let first = "{hosts: [db], tcp: [{route: [{destination: {host: db}}]}]}";
    let route = "{parentRefs: [{group: '', kind: Service, name: reviews}, {group: '', kind: Service, name: ratings}], \
                 rules: [{backendRefs: [{name: reviews, port: 80}]}]}";
    let client = Client::sidecar(&both(first, "HTTPRoute", route));
    for host in ["reviews.shop", "ratings.shop"] {
        assert_eq!(client.routes("80", host), ["shop.r.0 reviews.shop.svc.cluster.local:80/*"]);
    }
}

#[test]
fn a_gateway_puts_the_routes_of_both_together() {
    let first = "{hosts: [shop.com], gateways: [edge], http: [{name: first, match: [{uri: {exact: /a}}], \
                 route: [{destination: {host: ratings}}]}]}";
    let route = "{parentRefs: [{name: edge}], hostnames: [shop.com], \
                 rules: [{matches: [{path: {value: /b}}], backendRefs: [{name: reviews, port: 80}]}]}";
    let client = Client::gateway(&both(first, "HTTPRoute", route));
    assert_eq!(
        client.routes("http.80", "shop.com"),
        ["first ratings.shop.svc.cluster.local:80/a", "shop.r.0 reviews.shop.svc.cluster.local:80/*"]
    );
    assert_eq!(
        client.explained(XdsType::Rds, "http.80"),
        ["+HTTPRoute shop/r spec.rules[0]", "+VirtualService shop/r spec.http[0]"]
    );
}

#[test]
fn connections_are_routed_by_both() {
    let first = "{hosts: [db], tcp: [{match: [{destinationSubnets: [10.1.0.0/16]}], \
                 route: [{destination: {host: ratings, port: {number: 80}}}]}]}";
    let mesh = both(first, "TCPRoute", &mesh_route("db", "reviews"));
    // The route takes all that is left, so it has to come second.
    let mesh = mesh.replace(
        "kind: TCPRoute\nmetadata: {",
        "kind: TCPRoute\nmetadata: {creationTimestamp: '2026-01-01T00:00:00Z', ",
    );
    let client = Client::sidecar(&mesh);
    let name = "10.0.0.3_3306";
    let packed = client.packed(XdsType::Lds, type_url::<Listener>(), name);
    let listener: Listener = unpack(&packed).expect("a listener");
    let blocks: Vec<String> = listener
        .filter_chains
        .iter()
        .flat_map(|chain| chain.filter_chain_match.iter().flat_map(|matched| &matched.prefix_ranges))
        .map(|range| range.address_prefix.clone())
        .collect();
    assert_eq!(blocks, ["10.1.0.0"]);
    assert_eq!(
        client.explained(XdsType::Lds, name),
        ["+TCPRoute shop/r spec.rules[0]", "+VirtualService shop/r spec.tcp[0]"]
    );
}

#[test]
fn destinations_that_are_not_there_are_found_in_the_right_object() {
    let first = "{hosts: [reviews], http: [{route: [{destination: {host: ratings}}]}]}";
    let snapshot = snapshot(&both(first, "HTTPRoute", &mesh_route("ratings", "none")));
    let about = TranslationFindings::default().about(&snapshot, &Arc::default());
    let found: Vec<String> = about
        .iter()
        .filter(|finding| finding.message.contains("none.shop"))
        .map(|finding| format!("{} {}", finding.object.as_ref().expect("an object"), finding.path))
        .collect();
    assert_eq!(found, ["HTTPRoute shop/r spec.rules[0].backendRefs[0]"]);
}
