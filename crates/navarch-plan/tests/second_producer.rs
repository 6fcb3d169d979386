//! Two APIs of routes: objects of one namespace, name and creation time that differ in their kind only. Both
//! take effect, and whatever names one of them names the right one.
//!
//! WorkloadGroups stand in for the second API: annotations say what they route.

use std::sync::Arc;

use navarch_envoy::any::{type_url, unpack};
use navarch_envoy::proto::envoy::config::listener::v3::Listener;
use navarch_envoy::proto::envoy::config::route::v3::{Route, RouteConfiguration};
use navarch_envoy::{Any, ProxyResources, XdsType};
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::route::{
    Audience, Backend, ClientMatch, Forward, HostMeaning, HttpAction, HttpBackend, HttpMatch, HttpRule,
    Parent, PathMatch, RouteSet, ServiceBackend, StreamBackend, TcpMatch, TcpRule,
};
use navarch_model::service::Visibility;
use navarch_model::{Hashed, Kind, Name, Object, Origin, Precedence, parse_text};
use navarch_plan::{Planner, TranslationFindings};
use navarch_snapshot::world::Options;
use navarch_snapshot::{Snapshot, World};

/// Where the stand-in says what it routes.
const FIELD: &str = "metadata.annotations";

/// One set for each host: annotation `hosts`, with `to` and either `path` or `block`.
fn produce(object: &Object) -> Vec<RouteSet> {
    let annotation = |key: &str| object.metadata.annotations.get(key).cloned().unwrap_or_default();
    let set = |(position, host): (usize, &str)| {
        let key = object.key.clone();
        let origin = Origin::field(key.clone(), FIELD);
        let to = || {
            Backend::Service(ServiceBackend { host: annotation("to"), port: None, subset: Name::default() })
        };
        let backend = HttpBackend { backend: to(), weight: 1, headers: None, field: FIELD.into() };
        let path = PathMatch::PathPrefix(annotation("path").to_string());
        let http = HttpRule {
            origin: origin.clone(),
            name: "second".to_owned(),
            matches: vec![HttpMatch { path: Some(path), ..HttpMatch::default() }],
            action: HttpAction::Forward(Forward { backends: vec![backend], ..Forward::default() }),
            headers: None,
            fault: None,
            cors: None,
        };
        let block = annotation("block");
        let condition = TcpMatch { client: ClientMatch::default(), destination_blocks: vec![block.clone()] };
        let tcp = TcpRule {
            origin,
            matches: vec![condition],
            backends: vec![StreamBackend { backend: to(), weight: 1, field: FIELD.into() }],
        };
        RouteSet {
            precedence: Precedence {
                created_at: object.metadata.creation_timestamp,
                key,
                position: u32::try_from(position).unwrap_or(u32::MAX),
            },
            hosts: vec![host.into()],
            host_fields: vec![FIELD.into()],
            parents: vec![match &*annotation("gateway") {
                "" => Parent::Mesh,
                gateway => Parent::parse(gateway),
            }],
            export_to: Visibility::Public,
            audience: Audience::Everyone,
            host_meaning: HostMeaning::AnyName,
            http: if block.is_empty() { vec![http] } else { Vec::new() },
            tls: Vec::new(),
            tcp: if block.is_empty() { Vec::new() } else { vec![tcp] },
        }
    };
    annotation("hosts").split(',').enumerate().map(set).collect()
}

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
";

/// An object of the first API and one of the second, equal in namespace, name and creation time.
fn both(first: &str, second: &[(&str, &str)]) -> String {
    let annotations: Vec<String> = second.iter().map(|(key, value)| format!("{key}: '{value}'")).collect();
    format!(
        "{SERVICES}---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: r, namespace: shop}}
spec: {first}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {{name: r, namespace: shop, annotations: {{{}}}}}
spec: {{template: {{serviceAccount: r}}}}
",
        annotations.join(", ")
    )
}

fn snapshot(mesh: &str) -> Arc<Snapshot> {
    let parsed = parse_text("mesh.yaml", mesh);
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    let producers = vec![(Kind::WorkloadGroup, produce as fn(&Object) -> Vec<RouteSet>)];
    let mut world = World::new(Options { route_producers: producers, ..Options::default() });
    world.apply(ChangeSet::upserting(parsed.objects))
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
    let second = [
        ("hosts", "ratings.shop.svc.cluster.local"),
        ("to", "reviews.shop.svc.cluster.local"),
        ("path", "/"),
    ];
    let client = Client::sidecar(&both(first, &second));
    assert_eq!(client.routes("80", "reviews.shop"), ["first ratings.shop.svc.cluster.local:80/*"]);
    assert_eq!(client.routes("80", "ratings.shop"), ["second reviews.shop.svc.cluster.local:80/*"]);
    assert_eq!(
        client.explained(XdsType::Rds, "80"),
        ["+WorkloadGroup shop/r metadata.annotations", "+VirtualService shop/r spec.http[0]"]
    );
}

#[test]
fn of_one_host_one_has_the_routes_and_the_other_is_told() {
    let first = "{hosts: [reviews], http: [{name: first, route: [{destination: {host: ratings}}]}]}";
    let second = [
        ("hosts", "reviews.shop.svc.cluster.local"),
        ("to", "reviews.shop.svc.cluster.local"),
        ("path", "/"),
    ];
    let mesh = both(first, &second);
    let client = Client::sidecar(&mesh);
    assert_eq!(client.routes("80", "reviews.shop"), ["first ratings.shop.svc.cluster.local:80/*"]);
    assert_eq!(
        client.explained(XdsType::Rds, "80"),
        [
            "+VirtualService shop/r spec.http[0]",
            "-WorkloadGroup shop/r: VirtualService shop/r is used for the host: both are as old, and it comes first by name",
        ]
    );
    let findings: Vec<String> = snapshot(&mesh).findings().iter().map(ToString::to_string).collect();
    let expected = "WorkloadGroup shop/r: metadata.annotations: sidecars use VirtualService shop/r for host \
                    reviews.shop.svc.cluster.local, which is older; this one is ignored for it";
    assert!(findings.len() == 1 && findings[0].contains(expected), "{findings:#?}");
}

#[test]
fn one_object_may_stand_for_several_sets() {
    let first = "{hosts: [db], tcp: [{route: [{destination: {host: db}}]}]}";
    let hosts = "reviews.shop.svc.cluster.local,ratings.shop.svc.cluster.local";
    let second = [("hosts", hosts), ("to", "reviews.shop.svc.cluster.local"), ("path", "/")];
    let client = Client::sidecar(&both(first, &second));
    for host in ["reviews.shop", "ratings.shop"] {
        assert_eq!(client.routes("80", host), ["second reviews.shop.svc.cluster.local:80/*"]);
    }
}

#[test]
fn a_gateway_puts_the_routes_of_both_together() {
    let first = "{hosts: [shop.com], gateways: [edge], http: [{name: first, match: [{uri: {exact: /a}}], \
                 route: [{destination: {host: ratings}}]}]}";
    let second = [
        ("hosts", "shop.com"),
        ("to", "reviews.shop.svc.cluster.local"),
        ("path", "/b"),
        ("gateway", "shop/edge"),
    ];
    let client = Client::gateway(&both(first, &second));
    assert_eq!(
        client.routes("http.80", "shop.com"),
        ["first ratings.shop.svc.cluster.local:80/a", "second reviews.shop.svc.cluster.local:80/*"]
    );
    assert_eq!(
        client.explained(XdsType::Rds, "http.80"),
        ["+VirtualService shop/r spec.http[0]", "+WorkloadGroup shop/r metadata.annotations"]
    );
}

#[test]
fn connections_are_routed_by_both() {
    let first = "{hosts: [db], tcp: [{match: [{destinationSubnets: [10.1.0.0/16]}], \
                 route: [{destination: {host: ratings, port: {number: 80}}}]}]}";
    let second = [
        ("hosts", "db.shop.svc.cluster.local"),
        ("to", "reviews.shop.svc.cluster.local"),
        ("block", "10.2.0.0/16"),
    ];
    let client = Client::sidecar(&both(first, &second));
    let name = "10.0.0.3_3306";
    let packed = client.packed(XdsType::Lds, type_url::<Listener>(), name);
    let listener: Listener = unpack(&packed).expect("a listener");
    let blocks: Vec<String> = listener
        .filter_chains
        .iter()
        .flat_map(|chain| chain.filter_chain_match.iter().flat_map(|matched| &matched.prefix_ranges))
        .map(|range| range.address_prefix.clone())
        .collect();
    assert_eq!(blocks, ["10.1.0.0", "10.2.0.0"]);
    assert_eq!(
        client.explained(XdsType::Lds, name),
        ["+VirtualService shop/r spec.tcp[0]", "+WorkloadGroup shop/r metadata.annotations"]
    );
}

#[test]
fn destinations_that_are_not_there_are_found_in_the_right_object() {
    let first = "{hosts: [reviews], http: [{route: [{destination: {host: ratings}}]}]}";
    let second = [("hosts", "ratings.shop.svc.cluster.local"), ("to", "none.example.com"), ("path", "/")];
    let snapshot = snapshot(&both(first, &second));
    let about = TranslationFindings::default().about(&snapshot, &Arc::default());
    let found: Vec<String> = about
        .iter()
        .filter(|finding| finding.message.contains("none.example.com"))
        .map(|finding| format!("{} {}", finding.object.as_ref().expect("an object"), finding.path))
        .collect();
    assert_eq!(found, ["WorkloadGroup shop/r metadata.annotations.host"]);
}
