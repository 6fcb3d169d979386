//! Whatever objects of the Gateway API, Ingresses and what is converted say: they are read, planned for and
//! converted without a panic, what cannot be used is said with its line, and proxies keep what worked.

use std::fmt::Write as _;
use std::sync::Arc;

use navarch_convert::convert;
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::Planner;
use navarch_snapshot::World;
use navarch_snapshot::world::Options;
use proptest::prelude::*;

const MESH: &str = include_str!("mesh.yaml");

/// A text that a field may hold, right or wrong.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("web"),
        Just("edge"),
        Just("a.example"),
        Just("'*.example'"),
        Just("'*'"),
        Just("''"),
        Just("/a"),
        Just("/"),
        Just("/a//b"),
        Just("'('"),
        Just("HTTP"),
        Just("HTTPS"),
        Just("TLS"),
        Just("UDP"),
        Just("Passthrough"),
        Just("Exact"),
        Just("RegularExpression"),
        Just("URLRewrite"),
        Just("RequestRedirect"),
        Just("istio"),
        Just("Service"),
        Just("1s"),
        Just("-1"),
        Just("80"),
        Just("4294967296"),
        Just("null"),
    ]
    .prop_map(str::to_owned)
}

/// The name of a field of one of the kinds.
fn field() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "parentRefs",
        "hostnames",
        "rules",
        "matches",
        "path",
        "type",
        "value",
        "headers",
        "queryParams",
        "method",
        "filters",
        "urlRewrite",
        "requestRedirect",
        "requestMirror",
        "backendRef",
        "backendRefs",
        "name",
        "namespace",
        "port",
        "weight",
        "timeouts",
        "request",
        "retry",
        "attempts",
        "sessionPersistence",
        "gatewayClassName",
        "listeners",
        "protocol",
        "hostname",
        "tls",
        "mode",
        "certificateRefs",
        "allowedRoutes",
        "namespaces",
        "from",
        "selector",
        "addresses",
        "targetRefs",
        "validation",
        "kind",
        "group",
        "sectionName",
        "http",
        "paths",
        "pathType",
        "backend",
        "service",
        "defaultBackend",
        "host",
        "hosts",
        "servers",
        "gateways",
        "route",
        "destination",
        "redirect",
        "rewrite",
        "uri",
        "match",
        "prefix",
        "exact",
    ])
}

/// Any YAML in flow style, some levels deep.
fn value() -> impl Strategy<Value = String> {
    let listed = |values: Vec<String>| format!("[{}]", values.join(", "));
    let mapped = |fields: Vec<(&str, String)>| {
        let mut seen = std::collections::BTreeSet::new();
        let mut text = String::from("{");
        for (name, value) in fields.into_iter().filter(|(name, _)| seen.insert(*name)) {
            let _ = write!(text, "{}{name}: {value}", if text.len() > 1 { ", " } else { "" });
        }
        text + "}"
    };
    text().prop_recursive(5, 48, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(listed),
            prop::collection::vec((field(), inner), 0..6).prop_map(mapped),
        ]
    })
}

/// API version, kind, and fields.
type Good = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// What works, one for each kind; fields of it are replaced by anything.
const GOOD: &[Good] = &[
    (
        "gateway.networking.k8s.io/v1",
        "Gateway",
        &[
            ("gatewayClassName", "istio"),
            ("addresses", "[{type: Hostname, value: edge.infra.svc.cluster.local}]"),
            (
                "listeners",
                "[{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]",
            ),
        ],
    ),
    (
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        &[
            ("parentRefs", "[{name: x, namespace: infra}, {group: '', kind: Service, name: edge}]"),
            ("hostnames", "[a.example]"),
            ("rules", "[{matches: [{path: {value: /a}}], backendRefs: [{name: edge, port: 80}]}]"),
        ],
    ),
    (
        "gateway.networking.k8s.io/v1",
        "GRPCRoute",
        &[
            ("parentRefs", "[{name: x}]"),
            ("rules", "[{matches: [{method: {service: a.B}}], backendRefs: [{name: edge, port: 80}]}]"),
        ],
    ),
    (
        "gateway.networking.k8s.io/v1",
        "TLSRoute",
        &[
            ("parentRefs", "[{name: x}]"),
            ("hostnames", "[a.example]"),
            ("rules", "[{backendRefs: [{name: edge, port: 443}]}]"),
        ],
    ),
    (
        "gateway.networking.k8s.io/v1alpha2",
        "TCPRoute",
        &[("parentRefs", "[{name: x}]"), ("rules", "[{backendRefs: [{name: edge, port: 9000}]}]")],
    ),
    (
        "gateway.networking.k8s.io/v1alpha2",
        "UDPRoute",
        &[("parentRefs", "[{name: x}]"), ("rules", "[{backendRefs: [{name: edge, port: 9000}]}]")],
    ),
    (
        "gateway.networking.k8s.io/v1",
        "ListenerSet",
        &[("parentRef", "{name: x}"), ("listeners", "[{name: a, port: 80, protocol: HTTP}]")],
    ),
    (
        "gateway.networking.k8s.io/v1",
        "BackendTLSPolicy",
        &[
            ("targetRefs", "[{group: '', kind: Service, name: edge}]"),
            ("validation", "{hostname: a.example, wellKnownCACertificates: System}"),
        ],
    ),
    (
        "networking.k8s.io/v1",
        "Ingress",
        &[
            ("ingressClassName", "istio"),
            (
                "rules",
                "[{host: a.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: edge, port: {number: 80}}}}]}}]",
            ),
        ],
    ),
    (
        "networking.istio.io/v1",
        "Gateway",
        &[
            ("selector", "{istio: edge}"),
            ("servers", "[{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]"),
        ],
    ),
    (
        "networking.istio.io/v1",
        "VirtualService",
        &[
            ("hosts", "[a.example]"),
            ("gateways", "[infra/x]"),
            ("http", "[{match: [{uri: {prefix: /a}}], route: [{destination: {host: edge}}]}]"),
        ],
    ),
];

/// An object of one of the kinds, as it works, or with one of its fields replaced.
fn object() -> impl Strategy<Value = String> {
    let broken = prop::option::weighted(0.7, (any::<prop::sample::Index>(), value()));
    (0..GOOD.len(), broken, prop::option::weighted(0.2, (field(), value()))).prop_map(
        |(index, broken, more)| {
            let (version, kind, fields) = GOOD[index];
            let replaced = broken.as_ref().map(|(at, value)| (at.index(fields.len()), value));
            let mut text = format!(
                "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x, namespace: infra}}\nspec:\n"
            );
            for (position, (name, good)) in fields.iter().enumerate() {
                let value =
                    replaced.filter(|(at, _)| *at == position).map_or(*good, |(_, value)| value.as_str());
                let _ = writeln!(text, "  {name}: {value}");
            }
            if let Some((name, value)) =
                more.filter(|(name, _)| fields.iter().all(|(known, _)| known != name))
            {
                let _ = writeln!(text, "  {name}: {value}");
            }
            text
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_what_is_wrong_has_a_line(
        objects in prop::collection::vec(object(), 1..6),
    ) {
        let mut world = World::new(Options::default());
        let planner = Planner::new(world.apply(ChangeSet::upserting(parse_text("mesh.yaml", MESH).objects)));
        let metadata = serde_json::json!({"LABELS": {"istio": "edge"}});
        let metadata = metadata.as_object().cloned().unwrap_or_default();
        let id = "router~10.99.0.1~edge.infra~infra.svc.cluster.local";
        let facts = ProxyFacts::parse(id, "p", &metadata, Locality::default()).expect("a node");
        let plan = planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))));
        for object in &objects {
            let parsed = parse_text("input.yaml", object);
            // An object that cannot be used is said to be so, at a line of the file.
            for rejected in &parsed.rejected {
                let said = parsed.findings.iter().any(|finding| finding.position.is_some());
                prop_assert!(said, "{rejected:?} without a finding: {object}");
            }
            let snapshot = world.apply(ChangeSet::upserting(parsed.objects));
            planner.advance(snapshot.clone());
            planner.resources(&plan);
            let conversion = convert(&snapshot, "istio");
            prop_assert!(conversion.to_yaml().is_ok());
            for finding in &conversion.findings {
                prop_assert!(finding.position.is_some(), "{finding}");
            }
            let statuses = snapshot.statuses().iter().count();
            prop_assert!(statuses <= snapshot.objects().count());
        }
    }
}
