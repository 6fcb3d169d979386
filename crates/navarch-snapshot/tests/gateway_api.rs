//! Gateways and ListenerSets of the Gateway API: which listeners there are, and what becomes of each.

mod common;

use common::*;
use navarch_model::Kind;
use navarch_model::change::ChangeSet;
use navarch_model::object::ObjectKey;
use navarch_model::status::Condition;
use navarch_snapshot::Snapshot;

fn object(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    let version = if kind == "ReferenceGrant" { "v1beta1" } else { "v1" };
    format!(
        "{{apiVersion: gateway.networking.k8s.io/{version}, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}\n---\n"
    )
}

fn gateway(spec: &str) -> String {
    object("Gateway", "infra", "edge", &format!("{{gatewayClassName: istio, {spec}}}"))
}

/// The Service and workload that serve the gateway `edge`.
const SERVED: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: v1
kind: Service
metadata: {name: edge-istio, namespace: infra}
spec: {type: LoadBalancer, clusterIP: 10.96.0.1, selector: {app: edge}, ports: [{name: p80, port: 80}, {name: p443, port: 443}]}
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: edge-1, namespace: infra, labels: {kubernetes.io/service-name: edge-istio}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]
ports: [{name: p80, port: 80}, {name: p443, port: 443}]
---
";

/// Conditions of an object, and its listeners with theirs; only those that are not as one wants them.
fn bad(snapshot: &Snapshot, kind: Kind, namespace: &str, name: &str) -> Vec<String> {
    let status = snapshot.statuses().get(&ObjectKey::new(kind, namespace, name)).expect("has a status");
    let said = |condition: &Condition| format!("{}={} {}", condition.ty, condition.status, condition.reason);
    let own = status.conditions.iter().filter(|condition| !condition.is_good()).map(said);
    let mut all: Vec<String> = own.collect();
    for listener in &status.listeners {
        let bad = listener.conditions.iter().filter(|condition| !condition.is_good());
        all.extend(bad.map(|condition| format!("{}: {}", listener.name, said(condition))));
    }
    all
}

#[track_caller]
fn check(objects: &str, expected: &[&str]) {
    let snapshot = snapshot(&format!("{SERVED}{objects}"));
    assert_eq!(bad(&snapshot, Kind::KubernetesGateway, "infra", "edge"), expected);
}

#[test]
fn a_gateway_is_programmed_where_workloads_serve_it() {
    let text = gateway("listeners: [{name: http, port: 80, protocol: HTTP}]");
    check(&text, &[]);
    let snapshot = snapshot(&format!("{SERVED}{text}"));
    let status = snapshot.statuses().get(&ObjectKey::new(Kind::KubernetesGateway, "infra", "edge")).unwrap();
    assert_eq!(status.addresses.iter().map(|address| &**address).collect::<Vec<_>>(), ["203.0.113.1"]);

    check(
        &gateway("listeners: [{name: http, port: 81, protocol: HTTP}]"),
        &["Programmed=False AddressNotUsable"],
    );
    check(
        &gateway(
            "addresses: [{type: Hostname, value: absent}], listeners: [{name: http, port: 80, protocol: HTTP}]",
        ),
        &["Programmed=False AddressNotUsable"],
    );
    check(
        &gateway(
            "addresses: [{value: 1.2.3.4}, {value: 1.2.3.5}], listeners: [{name: http, port: 80, protocol: HTTP}]",
        ),
        &["Accepted=False UnsupportedAddress", "Programmed=False UnsupportedAddress"],
    );
}

#[test]
fn listeners_that_are_in_each_others_way_are_told() {
    let listeners = "listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: TCP}]";
    check(
        &gateway(listeners),
        &[
            "b: Accepted=False ProtocolConflict",
            "b: Conflicted=True ProtocolConflict",
            "b: Programmed=False ProtocolConflict",
        ],
    );
}

#[test]
fn certificates_need_a_grant_and_have_to_be_there() {
    let https = |reference: &str| {
        gateway(&format!(
            "listeners: [{{name: s, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{reference}]}}}}]"
        ))
    };
    let refused = [
        "Accepted=False ListenersNotValid",
        "s: Accepted=False NoValidCACertificate",
        "s: Programmed=False Invalid",
        "s: ResolvedRefs=False RefNotPermitted",
    ];
    let absent = [
        "Accepted=False ListenersNotValid",
        "s: Programmed=False Invalid",
        "s: ResolvedRefs=False InvalidCertificateRef",
    ];
    let grant = |to: &str| {
        let from = "[{group: gateway.networking.k8s.io, kind: Gateway, namespace: infra}]";
        object("ReferenceGrant", "shop", "g", &format!("{{from: {from}, to: [{to}]}}"))
    };
    let shop = https("{name: cert, namespace: shop}");
    check(&https("{name: cert}"), &absent);
    // Whether it is there does not show without a grant.
    check(&shop, &refused);
    check(&(shop.clone() + &grant("{group: '', kind: Secret}")), &absent);
    check(&(shop.clone() + &grant("{group: '', kind: Secret, name: cert}")), &absent);
    check(&(shop.clone() + &grant("{group: '', kind: Secret, name: other}")), &refused);
    check(&(shop + &grant("{group: '', kind: ConfigMap}")), &refused);
}

#[test]
fn listener_sets_add_listeners_where_the_gateway_admits_them() {
    let set = |namespace: &str, listeners: &str| {
        let parent = "{name: edge, namespace: infra}";
        object(
            "ListenerSet",
            namespace,
            "more",
            &format!("{{parentRef: {parent}, listeners: [{listeners}]}}"),
        )
    };
    let admits = |from: &str| {
        gateway(&format!(
            "allowedListeners: {{namespaces: {from}}}, listeners: [{{name: http, port: 80, protocol: HTTP}}]"
        ))
    };
    let check = |gateway: &str, namespace: &str, listeners: &str, expected: &[&str], attached: u32| {
        let snapshot = snapshot(&format!("{SERVED}{gateway}{}", set(namespace, listeners)));
        assert_eq!(bad(&snapshot, Kind::ListenerSet, namespace, "more"), expected, "{gateway}");
        let key = ObjectKey::new(Kind::KubernetesGateway, "infra", "edge");
        assert_eq!(snapshot.statuses().get(&key).unwrap().attached_listener_sets, attached);
    };
    let own = "{name: own, port: 80, protocol: HTTP, hostname: a.example}";
    let team = "{from: Selector, selector: {matchLabels: {team: a}}}";
    let not_allowed = ["Accepted=False NotAllowed", "Programmed=False NotAllowed"];
    check(&admits("{from: All}"), "shop", own, &[], 1);
    check(&admits(team), "shop", own, &[], 1);
    check(&admits(team), "other", own, &not_allowed, 0);
    check(&admits("{from: Same}"), "shop", own, &not_allowed, 0);
    check(&admits("{}"), "shop", own, &not_allowed, 0);
    let conflicting = "{name: late, port: 80, protocol: HTTP}";
    let conflict = [
        "Accepted=False ListenersNotValid",
        "Programmed=False ListenersNotValid",
        "late: Accepted=False HostnameConflict",
        "late: Conflicted=True HostnameConflict",
        "late: Programmed=False HostnameConflict",
    ];
    check(&admits("{from: All}"), "shop", conflicting, &conflict, 0);
}

#[test]
fn a_gateway_of_somebody_else_is_left_to_them() {
    let mut world = world(&format!(
        "{SERVED}{}{}",
        object("GatewayClass", "''", "theirs", "{controllerName: example.com/gateways}"),
        object(
            "Gateway",
            "infra",
            "edge",
            "{gatewayClassName: theirs, listeners: [{name: a, port: 80, protocol: HTTP}]}"
        )
    ));
    let key = ObjectKey::new(Kind::KubernetesGateway, "infra", "edge");
    let class = ObjectKey::new(Kind::GatewayClass, "", "theirs");
    let before = world.snapshot().clone();
    assert_eq!(before.statuses().get(&key), None);
    assert_eq!(before.statuses().get(&class), None);
    assert_eq!(before.findings().len(), 1);
    let ours = object("GatewayClass", "''", "theirs", "{controllerName: istio.io/gateway-controller}");
    let after = world.apply(ChangeSet::upserting(objects(&ours)));
    assert!(after.statuses().get(&key).is_some() && after.statuses().get(&class).is_some());
    assert_eq!(after.statuses().changed_since(&before).len(), 2);
}

#[test]
fn a_status_follows_the_workloads_of_a_gateway() {
    let text = gateway("listeners: [{name: http, port: 80, protocol: HTTP}]");
    let mut world = world(&format!("{SERVED}{text}"));
    let before = world.snapshot().clone();
    let slice = ObjectKey::new(Kind::EndpointSlice, "infra", "edge-1");
    let after = world.apply(ChangeSet::removing([slice]));
    let changed = after.statuses().changed_since(&before);
    let keys: Vec<String> = changed.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(keys, ["Gateway.gateway.networking.k8s.io infra/edge"]);
    assert_eq!(
        bad(&after, Kind::KubernetesGateway, "infra", "edge"),
        ["Programmed=False AddressNotAssigned"]
    );
}
