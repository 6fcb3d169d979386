//! The oracle: after any sequence of changes, the incremental plan equals a plan from scratch that shares
//! nothing between namespaces.

#[path = "documents/gateway_api.rs"]
mod gateway_api;

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_envoy::any::{type_url, unpack};
use navarch_envoy::hosts::joined;
use navarch_envoy::proto::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use navarch_envoy::{Any, ProxyResources, Resource, XdsType};
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::object::ObjectKey;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::{ClassPlan, Planner};
use navarch_snapshot::World;
use navarch_snapshot::world::Options;
use proptest::prelude::*;

macro_rules! service {
    ($name:literal, $namespace:literal, $ip:literal, $port:literal) => {
        concat!(
            "apiVersion: v1\nkind: Service\nmetadata: {name: ",
            $name,
            ", namespace: ",
            $namespace,
            "}\nspec:\n  clusterIP: ",
            $ip,
            "\n  selector: {app: ",
            $name,
            "}\n  ports: [{name: ",
            $port,
            ", port: 80, targetPort: 8080, protocol: TCP}]\n"
        )
    };
}

macro_rules! slice {
    ($name:literal, $namespace:literal, $ip:literal, $ready:literal) => {
        concat!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: ",
            $name,
            "-1, namespace: ",
            $namespace,
            ", labels: {kubernetes.io/service-name: ",
            $name,
            "}}\naddressType: IPv4\nendpoints: [{addresses: [",
            $ip,
            "], conditions: {ready: ",
            $ready,
            "}}]\nports: [{name: http, port: 8080, protocol: TCP}]\n"
        )
    };
}

macro_rules! pod {
    ($name:literal, $namespace:literal, $ip:literal, $app:literal, $version:literal) => {
        concat!(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: ",
            $name,
            ", namespace: ",
            $namespace,
            ", labels: {app: ",
            $app,
            ", version: ",
            $version,
            ", security.istio.io/tlsMode: istio}}\nspec: {serviceAccountName: ",
            $app,
            "}\nstatus: {podIP: ",
            $ip,
            ", phase: Running}\n"
        )
    };
}

/// Documents that come and go. Each has a few versions.
const DOCUMENTS: &[&[&str]] = &[
    &[
        service!("a", "default", "10.0.0.1", "http"),
        service!("a", "default", "10.0.0.1", "tcp"),
        service!("a", "default", "None", "http"),
    ],
    &[service!("b", "default", "10.0.0.2", "http"), service!("b", "default", "10.0.0.2", "grpc")],
    &[service!("b", "other", "10.0.0.3", "http")],
    &[service!("c", "other", "10.0.0.4", "tls")],
    &[slice!("a", "default", "10.1.0.1", "true"), slice!("a", "default", "10.1.0.2", "false")],
    &[slice!("b", "default", "10.1.0.3", "true")],
    &[slice!("b", "other", "10.1.0.4", "true")],
    &[pod!("a-1", "default", "10.1.0.1", "a", "v1"), pod!("a-1", "default", "10.1.0.1", "a", "v2")],
    &[pod!("b-1", "default", "10.1.0.3", "b", "v1")],
    &[
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b}\nspec:\n  hosts: [b]\n  http:\n  - route:\n    - destination: {host: b, subset: v1}\n      weight: 80\n    - destination: {host: b.other.svc.cluster.local}\n      weight: 20\n",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b}\nspec:\n  hosts: [b]\n  http:\n  - match: [{uri: {prefix: /x}}]\n    fault: {abort: {httpStatus: 500, percentage: {value: 50}}}\n    route: [{destination: {host: a}}]\n  - route: [{destination: {host: b}}]\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: wild, namespace: other}\nspec:\n  hosts: ['*.default.svc.cluster.local']\n  http:\n  - timeout: 3s\n    route: [{destination: {host: a.default.svc.cluster.local}}]\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: b}\nspec:\n  host: b\n  subsets: [{name: v1, labels: {version: v1}}]\n",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: b}\nspec:\n  host: b\n  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x}}}\n  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: all, namespace: istio-system}\nspec:\n  host: '*.cluster.local'\n  trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default}\nspec:\n  egress: [{hosts: ['./*']}]\n",
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default}\nspec:\n  egress: [{hosts: ['other/*']}]\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: ext}\nspec:\n  hosts: [api.example.com]\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  resolution: DNS\n  location: MESH_EXTERNAL\n",
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: ext}\nspec:\n  hosts: [api.example.com]\n  exportTo: ['.']\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  resolution: STATIC\n  endpoints: [{address: 10.9.0.1}, {address: 10.9.0.2, weight: 3}]\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n  selector: {istio: gateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: edge}\nspec:\n  hosts: ['*']\n  gateways: [gw]\n  http: [{route: [{destination: {host: a, port: {number: 80}}}]}]\n",
    ],
    &[
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: DISABLE}}\n",
    ],
    &[
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    accessLogFile: /dev/stdout\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: b-for-other, namespace: other}\nspec:\n  host: b.default.svc.cluster.local\n  trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}\n",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: b-for-other, namespace: other}\nspec:\n  host: b.default.svc.cluster.local\n  exportTo: ['.']\n  trafficPolicy: {connectionPool: {tcp: {maxConnections: 4}}}\n",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: b-for-other, namespace: other}\nspec:\n  host: b.default.svc.cluster.local\n  workloadSelector: {matchLabels: {app: z}}\n  trafficPolicy: {connectionPool: {tcp: {maxConnections: 5}}}\n",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: b-for-other, namespace: istio-system}\nspec:\n  host: '*.local'\n  exportTo: ['.', third]\n  trafficPolicy: {tls: {mode: SIMPLE}}\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: from}\nspec:\n  hosts: [a]\n  http:\n  - match: [{sourceNamespace: third}]\n    route: [{destination: {host: c.other.svc.cluster.local, port: {number: 80}}}]\n  - route: [{destination: {host: a}}]\n",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: from}\nspec:\n  hosts: [a, c.other.svc.cluster.local]\n  exportTo: ['.', third]\n  tcp:\n  - match: [{sourceNamespace: third}]\n    route: [{destination: {host: b}}]\n  tls:\n  - match: [{sniHosts: [c.other.svc.cluster.local]}]\n    route: [{destination: {host: a}}]\n",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: from, namespace: other, annotations: {internal.istio.io/route-semantics: gateway}}\nspec:\n  hosts: [a.default.svc.cluster.local]\n  http:\n  - timeout: 9s\n    route: [{destination: {host: a.default.svc.cluster.local}}]\n",
    ],
    &[
        "apiVersion: v1\nkind: Service\nmetadata: {name: alias, namespace: third}\nspec: {type: ExternalName, externalName: c.other.svc.cluster.local, ports: [{name: tls, port: 80}]}\n",
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a, namespace: third}\nspec:\n  hosts: [api.example.com]\n  addresses: [240.1.0.0/16]\n  ports: [{number: 80, name: tcp, protocol: TCP}]\n  resolution: STATIC\n  endpoints: [{address: 10.9.1.1}]\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: quiet, namespace: other, annotations: {networking.istio.io/exportTo: '.,third'}}\nspec: {clusterIP: 10.0.0.9, ports: [{name: tcp, port: 9090}, {name: http, port: 80}]}\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: istio-system}\nspec:\n  egress: [{hosts: ['*/*']}]\n",
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: istio-system}\nspec:\n  egress: [{hosts: ['default/*', 'istio-system/*']}]\n",
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: istio-system}\nspec:\n  egress: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*/a.default.svc.cluster.local']}, {hosts: ['./*', 'default/*']}]\n",
    ],
    &[
        "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {name: lua}\nspec:\n  lua: {inlineCode: 'function envoy_on_request(h) end'}\n",
    ],
    // Hosts that claim the domains of others.
    &[
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: twin}\nspec:\n  hosts: [Twin.example.com, api.example.com]\n  addresses: [10.0.0.1, 10.0.0.2]\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  resolution: STATIC\n  endpoints: [{address: 10.9.3.1}]\n",
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: twin, namespace: third}\nspec:\n  hosts: [b.default, twin.example.com]\n  addresses: [10.0.0.3]\n  ports: [{number: 80, name: http, protocol: HTTP}, {number: 8080, name: http-2, protocol: HTTP}]\n  resolution: STATIC\n  endpoints: [{address: 10.9.3.2}]\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: names}\nspec:\n  hosts: [b.default, 10.0.0.1, TWIN.example.com]\n  http:\n  - route: [{destination: {host: a}}]\n",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: names, namespace: third}\nspec:\n  hosts: [b.default.svc, b.other.svc, '*.example.com']\n  http:\n  - timeout: 2s\n    route: [{destination: {host: a.default.svc.cluster.local}}]\n",
    ],
    // EnvoyFilters that change routes, of single hosts and as a whole.
    &[
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: routes}\nspec:\n  configPatches: [{applyTo: HTTP_ROUTE, match: {context: SIDECAR_OUTBOUND}, patch: {operation: MERGE, value: {route: {timeout: 9s}}}}]\n",
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: routes}\nspec:\n  configPatches: [{applyTo: ROUTE_CONFIGURATION, patch: {operation: MERGE, value: {request_headers_to_remove: [x-a]}}}, {applyTo: VIRTUAL_HOST, patch: {operation: ADD, value: {name: by/hand, domains: [hand.test]}}}]\n",
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: routes, namespace: istio-system}\nspec:\n  configPatches: [{applyTo: VIRTUAL_HOST, match: {routeConfiguration: {name: '80', vhost: {name: 'a.default.svc.cluster.local:80'}}}, patch: {operation: REMOVE}}]\n",
    ],
    // What follows looks at clients: at their labels, their node, the metadata of their Envoys.
    &[
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a-for-front, namespace: other}\nspec:\n  host: a.default.svc.cluster.local\n  workloadSelector: {matchLabels: {tier: front}}\n  trafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}, loadBalancer: {consistentHash: {useSourceIp: true}}}\n",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a-for-front, namespace: other}\nspec:\n  host: '*.default.svc.cluster.local'\n  workloadSelector: {matchLabels: {tier: front, app: z}}\n  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: y}}}\n",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a-for-front, namespace: other}\nspec:\n  host: a.default.svc.cluster.local\n  workloadSelector: {matchLabels: {kubernetes.io/hostname: n1}}\n  trafficPolicy: {connectionPool: {tcp: {maxConnections: 8}}}\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: by-tier, namespace: other}\nspec:\n  hosts: [b.other.svc.cluster.local]\n  http:\n  - match: [{sourceLabels: {tier: front}}]\n    timeout: 4s\n    route: [{destination: {host: b.other.svc.cluster.local}}]\n  - route: [{destination: {host: b.other.svc.cluster.local}}]\n",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: by-tier, namespace: other}\nspec:\n  hosts: [c.other.svc.cluster.local]\n  tls:\n  - match: [{sniHosts: [c.other.svc.cluster.local], sourceLabels: {tier: front}}]\n    route: [{destination: {host: b.other.svc.cluster.local}}]\n",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: by-tier, namespace: other}\nspec:\n  hosts: ['*.other.svc.cluster.local']\n  http:\n  - match: [{sourceLabels: {app: y}, sourceNamespace: third}]\n    timeout: 5s\n    route: [{destination: {host: b.other.svc.cluster.local}}]\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: racks}\nspec:\n  hosts: [racks.example.com]\n  ports: [{number: 7000, name: tcp, protocol: TCP}]\n  resolution: STATIC\n  endpoints: [{address: 10.8.0.1, labels: {rack: r1}}, {address: 10.8.0.2, labels: {rack: r2, tier: front}}]\n",
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: racks}\nspec:\n  hosts: [racks.example.com]\n  ports: [{number: 7000, name: tcp, protocol: TCP}]\n  resolution: DNS\n  endpoints: [{address: one.example.com, labels: {rack: r1}}, {address: two.example.com, labels: {rack: r2}}]\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: racks}\nspec:\n  host: racks.example.com\n  trafficPolicy: {outlierDetection: {}, loadBalancer: {localityLbSetting: {failoverPriority: [rack]}}}\n",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: racks}\nspec:\n  host: racks.example.com\n  trafficPolicy: {portLevelSettings: [{port: {number: 7000}, outlierDetection: {}, loadBalancer: {localityLbSetting: {failoverPriority: [tier, rack]}}}]}\n",
    ],
    &[
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: of-node, namespace: other}\nspec:\n  workloadSelector: {labels: {kubernetes.io/hostname: n1}}\n  configPatches: [{applyTo: CLUSTER, match: {context: SIDECAR_OUTBOUND}, patch: {operation: MERGE, value: {connect_timeout: 7s}}}]\n",
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: of-node, namespace: other}\nspec:\n  configPatches: [{applyTo: CLUSTER, match: {context: SIDECAR_OUTBOUND, proxy: {metadata: {ROLE: reader}}}, patch: {operation: MERGE, value: {connect_timeout: 6s}}}]\n",
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: of-node, namespace: other}\nspec:\n  configPatches: [{applyTo: CLUSTER, match: {context: SIDECAR_OUTBOUND, proxy: {proxyVersion: '^1\\.2'}}, patch: {operation: MERGE, value: {connect_timeout: 5s}}}]\n",
    ],
    &[
        "apiVersion: v1\nkind: Service\nmetadata: {name: local, namespace: other}\nspec: {clusterIP: 10.0.0.11, internalTrafficPolicy: Local, ports: [{name: http, port: 80}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: local-1, namespace: other, labels: {kubernetes.io/service-name: local}}\naddressType: IPv4\nendpoints: [{addresses: [10.1.1.1], nodeName: n1}, {addresses: [10.1.1.2], nodeName: n2}]\nports: [{name: http, port: 80, protocol: TCP}]\n",
    ],
];

const NODES: &[(&str, &str)] = &[
    (
        "sidecar~10.1.0.1~a-1.default~default.svc.cluster.local",
        r#"{"NAMESPACE":"default","LABELS":{"app":"a"}}"#,
    ),
    (
        "sidecar~10.1.0.9~z-1.other~other.svc.cluster.local",
        r#"{"NAMESPACE":"other","LABELS":{"app":"z","tier":"front","rack":"r2"},"NODE_NAME":"n1","ISTIO_VERSION":"1.28.0"}"#,
    ),
    (
        "sidecar~10.1.0.14~z-2.other~other.svc.cluster.local",
        r#"{"NAMESPACE":"other","LABELS":{"app":"z","tier":"back"},"NODE_NAME":"n2","ROLE":"reader"}"#,
    ),
    ("sidecar~10.1.0.10~y-1.third~third.svc.cluster.local", r#"{"NAMESPACE":"third","LABELS":{"app":"y"}}"#),
    ("sidecar~10.1.0.11~y-2.third~mesh.example.com", r#"{"NAMESPACE":"third","LABELS":{"app":"y"}}"#),
    (
        "sidecar~10.1.0.12~x-1.istio-system~istio-system.svc.cluster.local",
        r#"{"NAMESPACE":"istio-system","LABELS":{"app":"x"}}"#,
    ),
    (
        "router~10.1.0.13~gw-2.third~third.svc.cluster.local",
        r#"{"NAMESPACE":"third","LABELS":{"istio":"edge"}}"#,
    ),
    (
        "router~10.1.0.15~gw-3.istio-system~istio-system.svc.cluster.local",
        r#"{"NAMESPACE":"istio-system","LABELS":{"istio":"ingressgateway"}}"#,
    ),
    (
        "router~10.1.0.8~gw-1.default~default.svc.cluster.local",
        r#"{"NAMESPACE":"default","LABELS":{"istio":"gateway"}}"#,
    ),
];

/// All documents.
fn documents() -> Vec<&'static [&'static str]> {
    [DOCUMENTS, gateway_api::DOCUMENTS].concat()
}

/// Puts a document into a version, or takes it away.
#[derive(Clone, Debug)]
struct Edit {
    document: usize,
    version: Option<usize>,
}

fn edits() -> impl Strategy<Value = Vec<Vec<Edit>>> {
    let count = documents().len();
    let edit = (0..count, prop::option::weighted(0.8, 0..4_usize))
        .prop_map(|(document, version)| Edit { document, version });
    let steps = prop::collection::vec(prop::collection::vec(edit, 1..4), 0..8);
    // Most of a mesh is there from the start, so that documents meet.
    let version = prop::option::weighted(0.7, 0..4_usize);
    let start = prop::collection::vec(version, count).prop_map(|versions| {
        let there = versions.into_iter().enumerate().filter(|(_, version)| version.is_some());
        there.map(|(document, version)| Edit { document, version }).collect::<Vec<_>>()
    });
    (start, steps).prop_map(|(start, steps)| [vec![start], steps].concat())
}

fn change(edits: &[Edit]) -> ChangeSet {
    let mut latest: BTreeMap<usize, Option<usize>> = BTreeMap::new();
    latest.extend(edits.iter().map(|edit| (edit.document, edit.version)));
    let mut change = ChangeSet::default();
    let documents = documents();
    for (document, version) in latest {
        let versions = documents[document];
        let text = versions[version.unwrap_or(0) % versions.len()];
        let parsed = parse_text("test.yaml", text);
        assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
        match version {
            Some(_) => change.upserts.extend(parsed.objects.into_iter().map(Arc::new)),
            None => change.removals.extend(parsed.objects.into_iter().map(|object| object.key)),
        }
    }
    change
}

/// The facts of all nodes: of Envoys that take routes whole, then of Envoys that take virtual hosts as
/// resources of their own.
fn facts() -> Vec<ProxyFacts> {
    let parse = |split_routes| {
        NODES.iter().map(move |(id, metadata)| {
            let metadata = serde_json::from_str(metadata).expect("JSON");
            let facts = ProxyFacts::parse(id, "test", &metadata, Locality::default()).expect("a node");
            ProxyFacts { split_routes, ..facts }
        })
    };
    parse(false).chain(parse(true)).collect()
}

fn plan(planner: &Planner, facts: &ProxyFacts) -> ClassPlan {
    planner.class_plan(Arc::new(Hashed::new(planner.classify(facts))))
}

fn assert_same(incremental: &ProxyResources, scratch: &ProxyResources, context: &str) {
    for ty in XdsType::ALL {
        let (ours, theirs) = (incremental.set(ty), scratch.set(ty));
        let list = |set: &navarch_envoy::ResourceSet| -> BTreeMap<String, String> {
            set.iter().map(|r| (r.name().to_string(), r.version().to_string())).collect()
        };
        assert_eq!(list(ours), list(theirs), "{} {context}", ty.short());
        assert_eq!(ours.version(), theirs.version(), "{} {context}", ty.short());
    }
}

fn routes_in(resource: &Resource) -> RouteConfiguration {
    unpack(&Any { type_url: type_url::<RouteConfiguration>(), value: resource.body() }).expect("routes")
}

fn host_in(resource: &Resource) -> VirtualHost {
    unpack(&Any { type_url: type_url::<VirtualHost>(), value: resource.body() }).expect("a virtual host")
}

/// Split routes are the whole ones, taken apart.
fn assert_joined(whole: &ProxyResources, split: &ProxyResources, context: &str) {
    let messages = |resources: &ProxyResources| -> BTreeMap<String, RouteConfiguration> {
        let sorted = |mut routes: RouteConfiguration| {
            routes.virtual_hosts.sort_by(|a, b| a.name.cmp(&b.name));
            (routes.name.clone(), routes)
        };
        let all = resources.set(XdsType::Rds).iter();
        all.map(|routes| sorted(routes_in(routes))).collect()
    };
    assert!(whole.set(XdsType::Vhds).is_empty(), "{context}");
    for routes in split.set(XdsType::Rds).iter() {
        let has_vhds = routes_in(routes).vhds.is_some();
        let is_of_one_port = routes.name().contains(':');
        assert_eq!(has_vhds, !is_of_one_port, "{} {context}", routes.name());
    }
    for host in split.set(XdsType::Vhds).iter() {
        assert_eq!(host_in(host).name, **host.name(), "{context}");
    }
    assert_eq!(messages(whole), messages(&joined(split)), "{context}");
    for ty in XdsType::ALL.into_iter().filter(|ty| !matches!(ty, XdsType::Rds | XdsType::Vhds)) {
        assert_eq!(whole.set(ty), split.set(ty), "{ty} {context}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn incremental_plans_equal_plans_from_scratch(steps in edits()) {
        let mut world = World::new(Options::default());
        let planner = Planner::new(world.snapshot().clone());
        let facts = facts();
        // Plans are kept over all steps, as those of connected proxies are; a proxy whose class changes gets
        // another one.
        let mut plans: BTreeMap<usize, ClassPlan> = BTreeMap::new();
        for (step, edits) in steps.iter().enumerate() {
            let snapshot = world.apply(change(edits));
            planner.advance(snapshot.clone());
            let scratch = Planner::exact(snapshot);
            for (index, facts) in facts.iter().enumerate() {
                let class = planner.classify(facts);
                if plans.get(&index).is_none_or(|known| ***known.class() != class) {
                    plans.insert(index, plan(&planner, facts));
                }
                let incremental = planner.resources(&plans[&index]);
                let expected = scratch.resources(&plan(&scratch, facts));
                let id = NODES[index % NODES.len()].0;
                assert_same(&incremental, &expected, &format!("of {id} after step {step} of {steps:?}"));
            }
            for (index, (id, _)) in NODES.iter().enumerate() {
                let [whole, split] = [index, NODES.len() + index].map(|index| planner.resources(&plans[&index]));
                assert_joined(&whole, &split, &format!("of {id} after step {step} of {steps:?}"));
            }
            planner.sweep();
        }
    }
}

/// How many of the documents, the last ones, look at what clients state.
const LOOKING_AT_CLIENTS: usize = 6;
/// The nodes that state what they look at.
const STATING_MUCH: [usize; 3] = [1, 2, 3];

/// With everything there, for each version of each document that looks at clients: nothing of what a client
/// states is left out that matters to somebody. By chance, the property above might miss it.
#[test]
fn nothing_is_left_out_of_a_client_that_somebody_looks_at() {
    let mut world = World::new(Options::default());
    // The last document makes nodes matter by itself, so it comes last.
    let last = DOCUMENTS.len() - 1;
    let all: Vec<Edit> = (0..last).map(|document| Edit { document, version: Some(0) }).collect();
    let planner = Planner::new(world.apply(change(&all)));
    let edits = (DOCUMENTS.len() - LOOKING_AT_CLIENTS..DOCUMENTS.len()).flat_map(|document| {
        let versions = (1..DOCUMENTS[document].len()).chain([0]);
        versions.map(move |version| Edit { document, version: Some(version) })
    });
    let mut plans: BTreeMap<usize, ClassPlan> = BTreeMap::new();
    for edit in edits {
        let snapshot = world.apply(change(std::slice::from_ref(&edit)));
        planner.advance(snapshot.clone());
        let scratch = Planner::exact(snapshot);
        for (index, facts) in facts().iter().enumerate().filter(|(index, _)| STATING_MUCH.contains(index)) {
            if plans.get(&index).is_none_or(|known| ***known.class() != planner.classify(facts)) {
                plans.insert(index, plan(&planner, facts));
            }
            let expected = scratch.resources(&plan(&scratch, facts));
            let context = format!("of {} after {edit:?}", NODES[index].0);
            assert_same(&planner.resources(&plans[&index]), &expected, &context);
        }
    }
}

#[test]
fn an_object_that_nobody_reads_changes_nothing() {
    let mut world = World::new(Options::default());
    let all: Vec<Edit> = (0..DOCUMENTS.len()).map(|document| Edit { document, version: Some(0) }).collect();
    let planner = Planner::new(world.apply(change(&all)));
    let plans: Vec<ClassPlan> = facts().iter().map(|facts| plan(&planner, facts)).collect();
    let before: Vec<_> = plans.iter().map(|plan| planner.resources(plan)).collect();
    let text =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: unrelated, namespace: nowhere}\ndata: {a: b}\n";
    let parsed = parse_text("unrelated.yaml", text);
    let key: ObjectKey = parsed.objects[0].key.clone();
    planner.advance(world.apply(ChangeSet::upserting(parsed.objects)));
    assert!(planner.inspect(|engine| engine.snapshot().object(&key).is_some()));
    for (plan, before) in plans.iter().zip(&before) {
        assert!(Arc::ptr_eq(&planner.resources(plan), before), "the very same resources, without planning");
    }
}
