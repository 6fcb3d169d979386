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
fn an_address_that_a_balancer_gets_later_is_told() {
    let waiting = SERVED.replace("{ingress: [{ip: 203.0.113.1}]}", "{}");
    let listeners = "listeners: [{name: http, port: 80, protocol: HTTP}]";
    let mut world = world(&format!("{waiting}{}", gateway(listeners)));
    let before = world.snapshot().clone();
    assert_eq!(
        bad(&before, Kind::KubernetesGateway, "infra", "edge"),
        ["Programmed=False AddressNotAssigned"]
    );
    let after = world.apply(ChangeSet::upserting(objects(SERVED)));
    let [(key, Some(status))] = &after.statuses().changed_since(&before)[..] else { panic!("one status") };
    assert_eq!(*key, ObjectKey::new(Kind::KubernetesGateway, "infra", "edge"));
    assert_eq!(status.addresses, ["203.0.113.1".into()]);
    assert_eq!(bad(&after, Kind::KubernetesGateway, "infra", "edge"), [""; 0]);
}

#[test]
fn what_runs_gateways_is_made_again_for_what_it_is_made_of() {
    let listeners = "listeners: [{name: http, port: 80, protocol: HTTP}]";
    let start = format!("{SERVED}{}", gateway(listeners));
    let check = |what: &str, edit: &str, expected: bool| {
        let mut world = world(&start);
        let before = world.snapshot().clone();
        let after = world.apply(ChangeSet::upserting(objects(edit)));
        assert_eq!(after.provisions_as(&before), expected, "{what}");
    };
    let map =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sizes, namespace: infra}\ndata: {service: a}";
    check("endpoints", &SERVED.replace("10.0.0.1", "10.0.0.2"), true);
    check("a port", &gateway(&listeners.replace("80", "81")), false);
    check("labels of pods", &gateway(&format!("infrastructure: {{labels: {{a: b}}}}, {listeners}")), false);
    check(
        "a class",
        &object("GatewayClass", "''", "istio", "{controllerName: istio.io/gateway-controller}"),
        false,
    );
    check("the revision of a namespace", &SERVED.replace("{team: a}", "{istio.io/rev: canary}"), false);
    check("parameters", map, false);
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

/// Of ambient mode there is nothing, which is no class of somebody else's like any other.
#[test]
fn a_gateway_of_ambient_mode_is_warned_of() {
    let check = |class: &str, controller: &str, expected: &str| {
        let listeners = "listeners: [{name: a, port: 15008, protocol: HBONE}]";
        let gateway = object("Gateway", "infra", "w", &format!("{{gatewayClassName: {class}, {listeners}}}"));
        let known = match controller {
            "" => String::new(),
            controller => object("GatewayClass", "''", class, &format!("{{controllerName: {controller}}}")),
        };
        let world = world(&format!("{known}{gateway}"));
        let snapshot = world.snapshot();
        let key = ObjectKey::new(Kind::KubernetesGateway, "infra", "w");
        assert_eq!(snapshot.statuses().get(&key), None, "{class}");
        let findings = snapshot.findings();
        let [finding] = findings else { panic!("{findings:?}") };
        assert!(finding.to_string().contains(expected), "{finding}");
    };
    check("istio-waypoint", "", "warning");
    check("istio-waypoint", "istio.io/mesh-controller", "is of waypoints");
    check("mine", "istio.io/mesh-controller", "is of waypoints");
    check("istio-east-west", "", "between networks of ambient meshes");
    check("istio-east-west", "istio.io/eastwest-controller", "between networks of ambient meshes");
    check("istio-waypoint", "example.com/gateways", "belongs to nobody here");
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

/// The merged policy of a host for a client, field by field.
fn policy(objects: &str) -> navarch_model::networking::TrafficPolicy {
    let snapshot = snapshot(&format!("{SERVED}{objects}"));
    let view = snapshot.view();
    let scope = scope_of(&view, &proxy("router", "infra", "10.0.0.9", &[]));
    let host = "edge-istio.infra.svc.cluster.local";
    let service = view.services(host)[0].clone();
    let rule = scope.destination_rule(&view, &service, None);
    rule.and_then(|rule| rule.spec.traffic_policy.clone()).unwrap_or_default()
}

#[test]
fn a_backend_policy_is_beneath_what_rules_say() {
    let tls = |name: &str, section: &str, host: &str| {
        let target = format!("{{group: '', kind: Service, name: edge-istio{section}}}");
        let validation = format!("{{hostname: {host}, wellKnownCACertificates: System}}");
        object(
            "BackendTLSPolicy",
            "infra",
            name,
            &format!("{{targetRefs: [{target}], validation: {validation}}}"),
        )
    };
    let rule = |policy: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: r, namespace: infra}}, spec: {{host: edge-istio, trafficPolicy: {policy}}}}}\n---\n"
        )
    };
    let sni = |policy: &navarch_model::networking::TrafficPolicy| {
        let ports = policy.port_level_settings.iter().map(|port| {
            let number = port.port.as_ref().map_or(0, |port| port.number);
            (number, port.tls.as_ref().map(|tls| tls.sni.clone()).unwrap_or_default())
        });
        (policy.tls.as_ref().map(|tls| tls.sni.clone()).unwrap_or_default(), ports.collect::<Vec<_>>())
    };
    let whole = tls("whole", "", "a.example");
    let part = tls("part", ", sectionName: p443", "b.example");
    assert_eq!(sni(&policy(&whole)), ("a.example".to_owned(), vec![]));
    assert_eq!(sni(&policy(&part)), (String::new(), vec![(443, "b.example".to_owned())]));
    let both = policy(&format!("{whole}{part}"));
    assert_eq!(sni(&both), ("a.example".to_owned(), vec![(443, "b.example".to_owned())]));
    // The certificate is for the hostname.
    assert_eq!(both.tls.unwrap().subject_alt_names, ["a.example"]);

    let other = policy(&format!("{}{whole}", rule("{loadBalancer: {simple: RANDOM}}")));
    assert!(other.load_balancer.is_some());
    assert_eq!(sni(&other), ("a.example".to_owned(), vec![]));
    let ruled = policy(&format!("{}{whole}", rule("{tls: {mode: SIMPLE, sni: mine.example}}")));
    assert_eq!(sni(&ruled), ("mine.example".to_owned(), vec![]));
    let port = rule("{portLevelSettings: [{port: {number: 443}, loadBalancer: {simple: RANDOM}}]}");
    assert_eq!(sni(&policy(&format!("{port}{part}"))).1, [(443, "b.example".to_owned())]);

    // Of two for the same the first by name counts.
    let late = tls("zz", "", "late.example");
    let conflicting = format!("{whole}{late}");
    assert_eq!(sni(&policy(&conflicting)), ("a.example".to_owned(), vec![]));
    let snapshot = snapshot(&format!("{SERVED}{conflicting}"));
    let status = snapshot.statuses().get(&ObjectKey::new(Kind::BackendTlsPolicy, "infra", "zz")).unwrap();
    assert_eq!(status.parents[0].conditions[0].reason, "Conflicted");
}

#[test]
fn a_backend_policy_tells_what_it_cannot_find() {
    let policy = |target: &str, validation: &str| {
        let spec = format!("{{targetRefs: [{target}], validation: {{hostname: a.example, {validation}}}}}");
        let snapshot = snapshot(&format!("{SERVED}{}", object("BackendTLSPolicy", "infra", "p", &spec)));
        let status = snapshot.statuses().get(&ObjectKey::new(Kind::BackendTlsPolicy, "infra", "p")).unwrap();
        let conditions = status.parents.into_iter().flat_map(|parent| parent.conditions);
        conditions.map(|condition| condition.reason).collect::<Vec<_>>()
    };
    let service = "{group: '', kind: Service, name: edge-istio}";
    let system = "wellKnownCACertificates: System";
    assert_eq!(policy(service, system), ["Accepted", "ResolvedRefs"]);
    assert_eq!(
        policy("{group: '', kind: Service, name: absent}", system),
        ["TargetNotFound", "ResolvedRefs"]
    );
    let port = "{group: '', kind: Service, name: edge-istio, sectionName: absent}";
    assert_eq!(policy(port, system), ["TargetNotFound", "ResolvedRefs"]);
    let absent = "caCertificateRefs: [{group: '', kind: ConfigMap, name: absent}]";
    assert_eq!(policy(service, absent), ["NoValidCACertificate", "InvalidCACertificateRef"]);
    let secret = "caCertificateRefs: [{group: '', kind: Secret, name: absent}]";
    assert_eq!(policy(service, secret), ["NoValidCACertificate", "InvalidKind"]);
}

fn change(yaml: &str) -> ChangeSet {
    ChangeSet::upserting(objects(yaml))
}

/// Where a policy applies, by kind and name.
fn ancestors(snapshot: &Snapshot) -> Vec<String> {
    let key = ObjectKey::new(Kind::BackendTlsPolicy, "infra", "p");
    let parents = snapshot.statuses().get(&key).expect("has a status").parents;
    parents.iter().map(|parent| format!("{} {}", parent.parent, parent.conditions[0].reason)).collect()
}

#[test]
fn the_gateways_of_a_backend_policy_are_those_whose_routes_use_its_target() {
    let spec = "{targetRefs: [{group: '', kind: Service, name: edge-istio}], \
                validation: {hostname: a.example, wellKnownCACertificates: System}}";
    let policy = object("BackendTLSPolicy", "infra", "p", spec);
    let gateway = gateway("listeners: [{name: http, port: 80, protocol: HTTP}]");
    let route = |backend: &str| {
        let spec = format!(
            "{{parentRefs: [{{name: edge}}], rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}]}}"
        );
        change(&object("HTTPRoute", "infra", "r", &spec))
    };
    let service = "Service infra/edge-istio Accepted";
    let mut world = world("");
    let alone = world.apply(change(&format!("{SERVED}{gateway}{policy}")));
    assert_eq!(ancestors(&alone), [service]);
    let used = world.apply(route("edge-istio"));
    assert_eq!(ancestors(&used), [service, "Gateway.gateway.networking.k8s.io infra/edge Accepted"]);
    let changed = |now: &Snapshot, before: &Snapshot| {
        let keys = now.statuses().changed_since(before).into_iter().map(|(key, _)| key.kind);
        keys.filter(|kind| *kind == Kind::BackendTlsPolicy).count()
    };
    assert_eq!(changed(&used, &alone), 1);
    let elsewhere = world.apply(route("absent"));
    assert_eq!(ancestors(&elsewhere), [service]);
    assert_eq!(changed(&elsewhere, &used), 1);
    let still = world.apply(route("absent-too"));
    assert_eq!(changed(&still, &elsewhere), 0);
}

#[test]
fn an_ingress_is_reached_at_the_ingress_gateway() {
    let ingress = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i, namespace: shop, annotations: {kubernetes.io/ingress.class: istio}}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
---
";
    let service = |address: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: istio-ingressgateway, namespace: istio-system}}, \
             spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}, status: {{loadBalancer: {{ingress: [{{ip: {address}}}]}}}}}}\n"
        )
    };
    let addresses = |snapshot: &Snapshot| {
        let status =
            snapshot.statuses().get(&ObjectKey::new(Kind::Ingress, "shop", "i")).expect("has a status");
        status.addresses.iter().map(|address| address.to_string()).collect::<Vec<_>>()
    };
    let mut world = world("");
    let alone = world.apply(change(ingress));
    assert_eq!(addresses(&alone), Vec::<String>::new());
    let reached = world.apply(change(&service("203.0.113.7")));
    assert_eq!(addresses(&reached), ["203.0.113.7"]);
    let changed = reached.statuses().changed_since(&alone);
    assert!(changed.iter().any(|(key, _)| key.kind == Kind::Ingress), "{changed:?}");
}

#[test]
fn routes_of_two_apis_for_one_host_are_told() {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{name: http, port: 80}]}}\n---\n";
    let virtual_service = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: r, namespace: shop}, \
                           spec: {hosts: [web], http: [{timeout: 1s, route: [{destination: {host: web}}]}]}}\n---\n";
    let route = |namespace: &str| {
        let spec = "{parentRefs: [{group: '', kind: Service, name: web, namespace: shop}], \
                    rules: [{backendRefs: [{name: web, namespace: shop, port: 80}]}]}";
        object("HTTPRoute", namespace, "r", spec)
    };
    let said = |objects: &str| {
        let snapshot = snapshot(&format!("{service}{objects}"));
        let findings = snapshot.findings().iter().filter(|finding| finding.message.contains("two APIs"));
        findings.map(|finding| finding.message.clone()).collect::<Vec<_>>()
    };
    let both = format!("{virtual_service}{}", route("shop"));
    assert_eq!(
        said(&both),
        [
            "HTTPRoute shop/r is for host web.shop.svc.cluster.local too, and routes of two APIs are not put together: \
          clients use that one, which comes first by name and namespace"
        ]
    );
    // A consumer's route is for its own clients, whatever the others do.
    assert_eq!(said(&format!("{virtual_service}{}", route("other"))), Vec::<String>::new());
}
