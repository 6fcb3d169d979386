//! Explanations name the objects that a resource stems from, and those that lost.

use std::sync::Arc;

use navarch_envoy::XdsType;
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::Planner;
use navarch_snapshot::world::Options;
use navarch_snapshot::{Snapshot, World};

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {clusterIP: 10.0.0.1, selector: {app: reviews}, ports: [{name: http, port: 80, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-1, namespace: shop, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1], conditions: {ready: true}}]
ports: [{name: http, port: 8080, protocol: TCP}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: old, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z'}
spec: {hosts: [reviews], http: [{name: v1, route: [{destination: {host: reviews, subset: v1}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: young, namespace: shop, creationTimestamp: '2025-01-01T00:00:00Z'}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: private, namespace: shop}
spec: {hosts: [reviews], exportTo: ['.'], http: [{route: [{destination: {host: reviews}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec: {host: reviews, subsets: [{name: v0, labels: {v: '0'}}, {name: v1, labels: {v: '1'}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: everything, namespace: istio-system}
spec: {host: '*.local', trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}}
";

fn check(ty: XdsType, name: &str, expected: &[&str]) {
    check_for("sidecar~10.9.0.1~web.front~front.svc.cluster.local", MESH, ty, name, expected);
}

/// `+Kind namespace/name field` for sources, `-Kind namespace/name` for losers, in the order of parts.
fn check_for(id: &str, mesh: &str, ty: XdsType, name: &str, expected: &[&str]) {
    let parsed = parse_text("mesh.yaml", mesh);
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    let snapshot = World::new(Options::default()).apply(ChangeSet::upserting(parsed.objects));
    // Routes are explained as a whole, also where their virtual hosts are resources.
    for split_routes in [ty == XdsType::Vhds, true] {
        check_form(id, snapshot.clone(), split_routes, ty, name, expected);
    }
}

fn check_form(
    id: &str,
    snapshot: Arc<Snapshot>,
    split_routes: bool,
    ty: XdsType,
    name: &str,
    expected: &[&str],
) {
    let facts = ProxyFacts::parse(id, "web", &serde_json::Map::new(), Locality::default()).expect("a node");
    let facts = ProxyFacts { split_routes, ..facts };
    let planner = Planner::new(snapshot);
    let plan = planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))));
    let resources = planner.resources(&plan);
    let explanation = planner.explain(&facts, &resources, ty, name);
    let explanation = explanation.unwrap_or_else(|| panic!("{name} is not among the resources"));
    let mut lines = Vec::new();
    for part in &explanation.parts {
        lines.extend(
            part.sources
                .iter()
                .map(|source| format!("+{} {}", source.object, source.field).trim_end().to_owned()),
        );
        lines.extend(part.lost.iter().map(|lost| format!("-{}", lost.object)));
    }
    assert_eq!(lines, expected, "{explanation:#?}");
}

const HOST: &str = "reviews.shop.svc.cluster.local";

#[test]
fn a_cluster_names_its_service_and_the_subset_of_its_rule() {
    check(
        XdsType::Cds,
        &format!("outbound|80|v1|{HOST}"),
        &[
            "+Service shop/reviews spec.ports[0]",
            "+DestinationRule shop/reviews spec.subsets[1]",
            "-DestinationRule istio-system/everything",
        ],
    );
}

#[test]
fn endpoints_name_their_slices() {
    check(
        XdsType::Eds,
        &format!("outbound|80||{HOST}"),
        &[
            "+Service shop/reviews spec.ports[0]",
            "+EndpointSlice shop/reviews-1",
            "+DestinationRule shop/reviews spec.host",
            "-DestinationRule istio-system/everything",
        ],
    );
}

#[test]
fn a_virtual_host_names_the_oldest_virtual_service_and_those_that_lost() {
    check(
        XdsType::Rds,
        "80",
        &[
            "+Service shop/reviews",
            "+VirtualService shop/old spec.http[0]",
            "-VirtualService shop/private",
            "-VirtualService shop/young",
        ],
    );
    check(
        XdsType::Vhds,
        "80/reviews.shop.svc.cluster.local:80",
        &[
            "+Service shop/reviews",
            "+VirtualService shop/old spec.http[0]",
            "-VirtualService shop/private",
            "-VirtualService shop/young",
        ],
    );
    check(XdsType::Vhds, "80/allow_any", &[]);
}

#[test]
fn a_route_of_a_delegate_names_the_delegate() {
    let mesh = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80, protocol: TCP}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root, namespace: shop}
spec:
  hosts: [reviews]
  http: [{match: [{uri: {prefix: /a}}], delegate: {name: leaf}}, {route: [{destination: {host: reviews}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: leaf, namespace: shop}
spec:
  http:
  - {match: [{uri: {prefix: /q}}], route: [{destination: {host: reviews}}]}
  - {match: [{uri: {prefix: /a/b}}], route: [{destination: {host: reviews}}]}
";
    check_for(
        "sidecar~10.9.0.1~web.front~front.svc.cluster.local",
        mesh,
        XdsType::Rds,
        "80",
        &[
            "+Service shop/reviews",
            "+VirtualService shop/leaf spec.http[1]",
            "+VirtualService shop/root spec.http[1]",
        ],
    );
}

#[test]
fn a_listener_of_a_gateway_names_what_opens_the_port_and_what_routes_its_connections() {
    let mesh = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 443, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}, hosts: [a.com]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: pass, namespace: shop}
spec:
  hosts: [a.com]
  gateways: [edge]
  tls: [{match: [{sniHosts: [a.com]}], route: [{destination: {host: reviews}}]}]
";
    let check = |name: &str, expected: &[&str]| {
        check_for("router~10.9.0.1~edge.shop~shop.svc.cluster.local", mesh, XdsType::Lds, name, expected);
    };
    check("0.0.0.0_80", &["+Gateway shop/edge spec.servers[0]"]);
    check("0.0.0.0_443", &["+Gateway shop/edge spec.servers[1]", "+VirtualService shop/pass spec.tls[0]"]);
}

#[test]
fn a_resource_that_is_not_there_has_no_explanation() {
    let snapshot = World::new(Options::default()).snapshot().clone();
    let facts = ProxyFacts::parse(
        "sidecar~10.9.0.1~web.front~front.svc.cluster.local",
        "web",
        &serde_json::Map::new(),
        Locality::default(),
    );
    let resources = navarch_envoy::ProxyResources::new(1);
    let planner = Planner::new(snapshot);
    assert_eq!(planner.explain(&facts.expect("a node"), &resources, XdsType::Cds, "nothing"), None);
}

#[test]
fn of_several_rules_for_a_host_the_first_sets_the_policy_and_the_others_lose() {
    let mesh = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80, protocol: TCP}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec: {host: reviews, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}, subsets: [{name: v1, labels: {v: '1'}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: shop}
spec: {host: reviews, trafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}}, subsets: [{name: v1, labels: {v: '1'}}]}
";
    check_for(
        "sidecar~10.9.0.1~web.front~front.svc.cluster.local",
        mesh,
        XdsType::Cds,
        &format!("outbound|80|v1|{HOST}"),
        &[
            "+Service shop/reviews spec.ports[0]",
            "+DestinationRule shop/a spec.subsets[0]",
            "+DestinationRule shop/a spec.trafficPolicy",
            "-DestinationRule shop/b",
            "-DestinationRule shop/b",
        ],
    );
}

#[test]
fn what_shapes_the_listeners_of_a_sidecar_is_named_with_what_it_makes() {
    let mesh = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
status: {phase: Running, podIP: 10.9.0.1}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.9.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: web, namespace: shop}}]
ports: [{name: http, port: 8080, protocol: TCP}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/x]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: others, namespace: shop}
spec: {selector: {matchLabels: {app: other}}, action: DENY, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: logs, namespace: shop}
spec: {accessLogging: [{providers: [{name: envoy}]}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'accessLogFile: /dev/stdout'}
";
    check_for(
        "sidecar~10.9.0.1~web.shop~shop.svc.cluster.local",
        mesh,
        XdsType::Lds,
        "virtualInbound",
        &[
            "+Service shop/web spec.ports[0]",
            "+AuthorizationPolicy shop/deny spec",
            "+PeerAuthentication shop/strict spec",
            "+Telemetry shop/logs spec.accessLogging",
            "+ConfigMap istio-system/istio",
        ],
    );
}
