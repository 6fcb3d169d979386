//! What clients see: exportTo, Sidecars, and which rules apply to whom.

mod common;

use common::*;
use navarch_model::route::Parent;
use navarch_snapshot::ClientLabels;
use navarch_snapshot::scope::OutboundMode;

/// A Kubernetes Service.
fn service(namespace: &str, name: &str, ports: &[u16], export_to: &str) -> String {
    let ports: Vec<String> =
        ports.iter().map(|port| format!("{{name: http-{port}, port: {port}}}")).collect();
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}, annotations: {{networking.istio.io/exportTo: '{export_to}'}}}}
spec: {{clusterIP: 10.96.0.1, ports: [{}]}}
---",
        ports.join(", ")
    )
}

/// A ServiceEntry created in a year.
fn entry(namespace: &str, name: &str, host: &str, port: u16, year: u16) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '{year}-01-01T00:00:00Z'}}
spec: {{hosts: [{host}], resolution: NONE, ports: [{{number: {port}, name: p{port}, protocol: HTTP}}]}}
---"
    )
}

fn sidecar_object(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{spec}}}
---"
    )
}

#[test]
fn exported_services_are_visible() {
    let yaml = [
        service("a", "public", &[80], ""),
        service("a", "own", &[80], "."),
        service("a", "nobody", &[80], "~"),
        service("a", "for-b", &[80], "b"),
    ]
    .concat();
    let snapshot = snapshot(&yaml);
    let check = |kind: &str, namespace: &str, expected: &[&str]| {
        let wanted: Vec<String> =
            expected.iter().map(|name| format!("{name}.a.svc.cluster.local:80@a")).collect();
        assert_eq!(
            visible(&snapshot, &proxy(kind, namespace, "10.9.9.9", &[])),
            wanted,
            "{kind} in {namespace}"
        );
    };
    check("sidecar", "a", &["own", "public"]);
    check("sidecar", "b", &["for-b", "public"]);
    check("sidecar", "c", &["public"]);
    check("router", "b", &["for-b", "public"]);
}

#[test]
fn of_equal_hosts_one_is_chosen() {
    let check = |yaml: &[String], kind: &str, namespace: &str, expected: &[&str]| {
        let found = visible(&snapshot(&yaml.concat()), &proxy(kind, namespace, "10.9.9.9", &[]));
        assert_eq!(found, expected, "{kind} in {namespace}");
    };
    let entries = [entry("a", "e", "x.com", 80, 2024), entry("b", "e", "x.com", 81, 2023)];
    check(&entries, "sidecar", "a", &["x.com:80@a"]);
    check(&entries, "sidecar", "b", &["x.com:81@b"]);
    check(&entries, "sidecar", "c", &["x.com:81@b"]);
    // A gateway has no preference for its own namespace.
    check(&entries, "router", "a", &["x.com:81@b"]);

    let host = "s.k.svc.cluster.local";
    let squatter = [service("k", "s", &[80], ""), entry("b", "e", host, 81, 2020)];
    check(&squatter, "sidecar", "c", &["s.k.svc.cluster.local:80@k"]);
    check(&squatter, "sidecar", "b", &["s.k.svc.cluster.local:81@b"]);
    check(&squatter, "router", "c", &["s.k.svc.cluster.local:80@k"]);

    // Two entries of one namespace add up.
    let split = [entry("a", "e1", "x.com", 80, 2023), entry("a", "e2", "x.com", 81, 2024)];
    check(&split, "sidecar", "c", &["x.com:80,81@a"]);
    check(&split, "router", "c", &["x.com:80,81@a"]);
}

#[test]
fn sidecars_limit_what_is_imported() {
    let base = [
        service("a", "one", &[80, 90], ""),
        service("a", "two", &[80], ""),
        service("b", "three", &[80], ""),
    ]
    .concat();
    let check = |sidecars: &[String], labels: &[&str], expected: &[&str]| {
        let snapshot = snapshot(&format!("{base}{}", sidecars.concat()));
        let found = visible(&snapshot, &sidecar("a", "10.9.9.9", labels));
        let wanted: Vec<String> =
            expected.iter().map(|text| text.replace(':', ".svc.cluster.local:")).collect();
        assert_eq!(found, wanted, "{sidecars:?} {labels:?}");
    };
    let everything = ["one.a:80,90@a", "three.b:80@b", "two.a:80@a"];
    check(&[], &[], &everything);
    check(&[sidecar_object("a", "s", "egress: [{hosts: ['*/*']}]")], &[], &everything);
    check(&[sidecar_object("a", "s", "inboundConnectionPool: {tcp: {maxConnections: 1}}")], &[], &everything);
    check(&[sidecar_object("a", "s", "egress: [{hosts: ['./*']}]")], &[], &["one.a:80,90@a", "two.a:80@a"]);
    check(&[sidecar_object("a", "s", "egress: [{hosts: ['~/*']}]")], &[], &[]);
    check(
        &[sidecar_object("a", "s", "egress: [{hosts: ['b/three.b.svc.cluster.local']}]")],
        &[],
        &["three.b:80@b"],
    );
    check(
        &[sidecar_object(
            "a",
            "s",
            "egress: [{port: {number: 90, protocol: HTTP, name: p}, hosts: ['*/*']}]",
        )],
        &[],
        &["one.a:90@a"],
    );
    check(
        &[sidecar_object(
            "a",
            "s",
            "egress: [{port: {number: 90, protocol: HTTP, name: p}, hosts: ['*/*']}, {hosts: ['b/*']}]",
        )],
        &[],
        &["one.a:90@a", "three.b:80@b"],
    );
    // Selection: by labels, then the namespace's, then the root namespace's.
    let by_label =
        sidecar_object("a", "z", "workloadSelector: {labels: {app: x}}, egress: [{hosts: ['b/*']}]");
    let plain = sidecar_object("a", "p", "egress: [{hosts: ['./*']}]");
    let root = sidecar_object("istio-system", "r", "egress: [{hosts: ['./two.a.svc.cluster.local']}]");
    let all = [by_label.clone(), plain, root.clone()];
    check(&all, &["app=x"], &["three.b:80@b"]);
    check(&all, &["app=y"], &["one.a:80,90@a", "two.a:80@a"]);
    check(&[by_label, root.clone()], &["app=y"], &["two.a:80@a"]);
    check(&[root], &[], &["two.a:80@a"]);
}

#[test]
fn destinations_of_imported_rules_are_imported() {
    let base = [
        service("a", "front", &[80], ""),
        service("b", "back", &[80, 90], ""),
        service("b", "far", &[80], ""),
    ]
    .concat();
    let rule = |spec: &str| {
        format!(
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: v, namespace: a}}
spec: {{{spec}}}
---"
        )
    };
    let check = |egress: &str, spec: &str, expected: &[&str]| {
        let yaml =
            format!("{base}{}{}", sidecar_object("a", "s", &format!("egress: [{egress}]")), rule(spec));
        let found = visible(&snapshot(&yaml), &sidecar("a", "10.9.9.9", &[]));
        let wanted: Vec<String> =
            expected.iter().map(|text| text.replace(':', ".svc.cluster.local:")).collect();
        assert_eq!(found, wanted, "{egress} {spec}");
    };
    let own = "{hosts: ['./*']}";
    let to = |extra: &str| {
        format!(
            "hosts: [front], http: [{{route: [{{destination: {{host: back.b.svc.cluster.local{extra}}}}}]}}]"
        )
    };
    check(own, &to(""), &["back.b:80,90@b", "front.a:80@a"]);
    check(own, &to(", port: {number: 90}"), &["back.b:90@b", "front.a:80@a"]);
    check(own, &to(", port: {number: 7}"), &["front.a:80@a"]);
    check("{hosts: ['a/other.com']}", &to(""), &[]);
    check(own, &format!("gateways: [edge], {}", to("")), &["front.a:80@a"]);
    check(
        own,
        "hosts: [front], http: [{match: [{sourceNamespace: c}], route: [{destination: {host: back.b.svc.cluster.local}}]}]",
        &["front.a:80@a"],
    );
    check(
        own,
        "hosts: [front], tcp: [{route: [{destination: {host: far.b.svc.cluster.local}}]}]",
        &["far.b:80@b", "front.a:80@a"],
    );
}

#[test]
fn the_outbound_policy_of_a_sidecar_goes_over_that_of_the_mesh() {
    let check = |sidecars: &str, mesh: &str, expected: OutboundMode| {
        let world = world_with_mesh(sidecars, mesh);
        let view = world.snapshot().view();
        let scope = scope_of(&view, &sidecar("a", "10.9.9.9", &[]));
        assert_eq!(scope.outbound_traffic_policy().unwrap().mode, expected, "{sidecars} {mesh}");
    };
    let registry_only = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}";
    check("", "", OutboundMode::AllowAny);
    check("", registry_only, OutboundMode::RegistryOnly);
    check(
        &sidecar_object("a", "s", "outboundTrafficPolicy: {mode: ALLOW_ANY}"),
        registry_only,
        OutboundMode::AllowAny,
    );
    check(
        &sidecar_object("a", "s", "inboundConnectionPool: {tcp: {maxConnections: 1}}"),
        registry_only,
        OutboundMode::RegistryOnly,
    );
    check("", "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}", OutboundMode::AllowAnyDynamicDns);
}

/// DestinationRules as `namespace/name host [extra spec]`, each older than the next.
fn rules(rules: &[(&str, &str, &str)]) -> String {
    rules
        .iter()
        .enumerate()
        .map(|(index, (key, host, extra))| {
            let (namespace, name) = key.split_once('/').unwrap();
            let year = 2010 + index;
            format!(
                "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '{year}-01-01T00:00:00Z'}}
spec: {{host: '{host}'{extra}}}
---"
            )
        })
        .collect()
}

#[test]
fn destination_rules_by_precedence() {
    let host = "s.srv.svc.cluster.local";
    let check = |given: &[(&str, &str, &str)], namespace: &str, labels: Option<&[&str]>, expected: &str| {
        let snapshot = snapshot(&format!("{}{}", service("srv", "s", &[80], ""), rules(given)));
        let view = snapshot.view();
        let facts = sidecar(namespace, "10.9.9.9", &[]);
        let scope = scope_of(&view, &facts);
        let service = scope.service(&view, host).unwrap();
        let labels = labels.map(|labels| ClientLabels::all(labels_of(labels)));
        let found =
            scope.destination_rule(&view, &service, labels.as_ref()).map_or_else(String::new, |rule| {
                let sources: Vec<&str> = rule.sources.iter().map(|key| &*key.name).collect();
                let subsets: Vec<&str> =
                    rule.spec.subsets.iter().map(|subset| subset.name.as_str()).collect();
                let policy =
                    rule.spec.traffic_policy.as_ref().and_then(|policy| policy.connection_pool.as_ref());
                let max = policy.and_then(|pool| pool.tcp.as_ref()).map_or(0, |tcp| tcp.max_connections);
                format!("{} {} {max}", sources.join("+"), subsets.join(","))
            });
        assert_eq!(found, expected, "{given:?} for {namespace} {labels:?}");
    };
    let none: Option<&[&str]> = Some(&[]);
    let max = |n: u8| format!(", trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {n}}}}}}}");
    let (one, two) = (max(1), max(2));
    let subset = ", subsets: [{name: v1}]";

    check(&[], "c", none, "");
    // Client's namespace, then the service's, then the root.
    let everywhere = [
        ("istio-system/root", "*.svc.cluster.local", ""),
        ("srv/server", host, ""),
        ("c/client", "*.local", ""),
    ];
    check(&everywhere, "c", none, "client  0");
    check(&everywhere, "other", none, "server  0");
    check(&everywhere[..1], "other", none, "root  0");
    // Exact before the longest wildcard, wherever they stand in age.
    let hosts = [
        ("srv/short", "*", ""),
        ("srv/long", "*.srv.svc.cluster.local", ""),
        ("srv/exact", "s", ""),
        ("srv/other", "t", ""),
    ];
    check(&hosts, "c", none, "exact  0");
    check(&hosts[..2], "c", none, "long  0");
    check(&hosts[..1], "c", none, "short  0");
    // Visibility.
    let private = ", exportTo: [.]";
    check(&[("srv/p", host, private)], "c", none, "");
    check(&[("srv/p", host, private)], "srv", none, "p  0");
    check(&[("srv/p", host, ", exportTo: [c]")], "c", none, "p  0");
    check(&[("srv/p", host, ", exportTo: [c]")], "other", none, "");
    check(&[("istio-system/r", host, private)], "istio-system", none, "r  0");
    check(&[("istio-system/r", host, ""), ("srv/p", host, "")], "istio-system", none, "p  0");
    // Merging: the oldest policy, all subsets.
    check(&[("srv/a", host, subset), ("srv/b", host, &one), ("srv/c", host, &two)], "c", none, "a+b+c v1 1");
    check(&[("srv/a", host, &two), ("srv/b", host, &format!("{one}{subset}"))], "c", none, "a+b v1 2");
    check(&[("srv/a", host, subset), ("srv/b", host, ", exportTo: ['*']")], "c", none, "b  0");
    // Workload selectors: for clients of the own namespace with the labels, outgoing only.
    let selecting = ", workloadSelector: {matchLabels: {app: x}}";
    let both = [("srv/plain", host, ""), ("srv/selecting", host, selecting)];
    check(&both, "srv", Some(&["app=x"]), "selecting  0");
    check(&both, "srv", Some(&["app=y"]), "plain  0");
    check(&both, "srv", None, "plain  0");
    check(&both, "c", Some(&["app=x"]), "plain  0");
    check(&both[1..], "srv", Some(&["app=y"]), "");
}

/// VirtualServices for host `h.com`, each older than the next.
fn routes(given: &[(&str, &str)]) -> String {
    given
        .iter()
        .enumerate()
        .map(|(index, (key, spec))| {
            let (namespace, name) = key.split_once('/').unwrap();
            let year = 2010 + index;
            format!(
                "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '{year}-01-01T00:00:00Z'}}
spec: {{{spec}, http: [{{route: [{{destination: {{host: x.com}}}}]}}]}}
---"
            )
        })
        .collect()
}

#[test]
fn virtual_services_by_precedence() {
    let check = |given: &[(&str, &str)], namespace: &str, host: &str, expected: Option<&str>| {
        let snapshot = snapshot(&routes(given));
        let view = snapshot.view();
        let scope = scope_of(&view, &sidecar(namespace, "10.9.9.9", &[]));
        let found = scope.route_set_for(&view, None, host).map(|rule| names(&[rule])[0].clone());
        assert_eq!(found.as_deref(), expected, "{given:?} {namespace} {host}");
    };
    let h = "hosts: [h.com]";
    check(&[("a/one", h), ("a/two", h)], "c", "h.com", Some("a/one"));
    check(&[("a/one", h), ("c/two", "hosts: [h.com], exportTo: [.]")], "c", "h.com", Some("c/two"));
    check(&[("a/one", h), ("b/two", "hosts: [h.com], exportTo: [c]")], "c", "h.com", Some("b/two"));
    check(
        &[("b/two", "hosts: [h.com], exportTo: [c]"), ("c/three", "hosts: [h.com], exportTo: [.]")],
        "c",
        "h.com",
        Some("c/three"),
    );
    check(&[("a/one", "hosts: [h.com], exportTo: [.]")], "c", "h.com", None);
    check(&[("a/one", "hosts: [h.com], gateways: [edge]")], "a", "h.com", None);
    check(
        &[("a/wide", "hosts: ['*.com']"), ("a/narrow", "hosts: ['*.h.com']")],
        "c",
        "x.h.com",
        Some("a/narrow"),
    );
    check(&[("a/wide", "hosts: ['*.com']"), ("a/exact", h)], "c", "h.com", Some("a/exact"));
    check(&[("a/wide", "hosts: ['*.com', '*.net']")], "c", "x.org", None);
    check(&[("a/short", "hosts: [s]")], "c", "s.a.svc.cluster.local", Some("a/short"));
}

#[test]
fn gateways_get_their_routes_in_order() {
    let snapshot = snapshot(&routes(&[
        ("a/one", "hosts: [h.com], gateways: [edge]"),
        ("a/two", "hosts: [h.com], gateways: [infra/edge, mesh]"),
        ("b/three", "hosts: [h.com], gateways: [a/edge], exportTo: [infra]"),
        ("c/four", "hosts: [h.com], gateways: [a/edge], exportTo: [.]"),
    ]));
    let view = snapshot.view();
    let check = |namespace: &str, gateway: &str, expected: &[&str]| {
        let scope = scope_of(&view, &proxy("router", namespace, "10.9.9.9", &[]));
        let gateway = Parent::parse(gateway);
        assert_eq!(names(&scope.gateway_routes(&view, &gateway)), expected, "{namespace} {gateway:?}");
    };
    check("infra", "a/edge", &["b/three", "a/one"]);
    check("a", "a/edge", &["a/one"]);
    check("a", "infra/edge", &["a/two"]);
    check("a", "none/edge", &[]);
    let scope = scope_of(&view, &sidecar("a", "10.9.9.8", &[]));
    assert_eq!(names(&scope.routes(&view, "h.com")), ["a/two"]);
}
