//! What a change touches, and what is found to be wrong.

mod common;

use common::*;
use navarch_model::change::ChangeSet;
use navarch_model::fact::{Fact, FactKey, TrustBundle};
use navarch_model::kinds::Kind;
use navarch_model::object::ObjectKey;
use navarch_model::route::Parent;
use navarch_snapshot::world::Options;
use navarch_snapshot::{Part, World, bucket_of};

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {clusterIP: 10.96.0.1, selector: {app: a}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a-1, namespace: default, labels: {app: a}}
spec: {serviceAccountName: a}
status: {phase: Running, podIP: 10.0.0.1}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: default}
spec: {clusterIP: 10.96.0.2, ports: [{name: http, port: 80}]}
";

/// Parts that differ after a change.
fn touched(yaml: &str) -> Vec<Part> {
    let mut world = world(MESH);
    let before = world.snapshot().clone();
    let after = world.apply(ChangeSet::upserting(objects(yaml)));
    let mut parts = before.parts();
    parts.extend(after.parts());
    parts.sort();
    parts.dedup();
    parts.retain(|part| before.fingerprint(part) != after.fingerprint(part));
    parts
}

#[test]
fn a_change_touches_what_it_concerns() {
    let host = "a.default.svc.cluster.local";
    let pod = |name: &str, account: &str, address: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{app: a}}}}
spec: {{serviceAccountName: {account}}}
status: {{phase: Running, podIP: {address}}}
"
        )
    };
    let address = |text: &str| Part::Workload(text.parse().unwrap());
    // One more pod of a known kind: endpoints only, no cluster changes.
    assert_eq!(touched(&pod("a-2", "a", "10.0.0.2")), [Part::Endpoints(host.into()), address("10.0.0.2")]);
    // A new identity concerns clusters too.
    assert_eq!(
        touched(&pod("a-2", "other", "10.0.0.2")),
        [Part::Endpoints(host.into()), Part::EndpointSummaries(bucket_of(host)), address("10.0.0.2")]
    );
    assert_eq!(
        touched(&pod("a-1", "a", "10.0.0.3")),
        [Part::Endpoints(host.into()), address("10.0.0.1"), address("10.0.0.3")]
    );
    let rule = |kind: &str, spec: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: {kind}, metadata: {{name: r, namespace: default}}, spec: {spec}}}"
        )
    };
    assert_eq!(touched(&rule("DestinationRule", "{host: a}")), [Part::DestinationRules(bucket_of(host))]);
    assert_eq!(
        touched(&rule("VirtualService", "{hosts: [a], http: [{route: [{destination: {host: b}}]}]}")),
        [Part::Routes(bucket_of(host)), Part::Destinations(bucket_of("b.default.svc.cluster.local"))]
    );
    assert_eq!(
        touched(&rule(
            "VirtualService",
            "{hosts: [a], gateways: [g], http: [{route: [{destination: {host: b}}]}]}"
        )),
        [
            Part::GatewayRoutes(Parent::parse("default/g"), Some(bucket_of(host))),
            Part::GatewayBuckets(Parent::parse("default/g")),
            Part::GatewaysNamed
        ]
    );
    assert_eq!(
        touched(&rule("Sidecar", "{egress: [{hosts: ['./*']}]}")),
        [Part::Objects(Kind::Sidecar, "default".into()), Part::AllObjects(Kind::Sidecar)]
    );
}

#[test]
fn reads_tell_whether_a_result_still_holds() {
    let mut world = world(MESH);
    let before = world.snapshot().clone();
    let view = before.view();
    assert!(view.routes("a.default.svc.cluster.local").is_empty());
    assert!(view.secret("default", "missing").is_none());
    let reads = view.into_reads();
    assert_eq!(reads.len(), 2);
    assert!(reads.hold_in(&before));

    let unrelated = "{apiVersion: v1, kind: Secret, metadata: {name: other, namespace: default}}";
    assert!(reads.hold_in(&world.apply(ChangeSet::upserting(objects(unrelated)))));
    // What was looked for in vain appears.
    let missing = "{apiVersion: v1, kind: Secret, metadata: {name: missing, namespace: default}}";
    assert!(!reads.hold_in(&world.apply(ChangeSet::upserting(objects(missing)))));
    let gone = ChangeSet::removing([ObjectKey::new(Kind::Secret, "default", "missing")]);
    assert!(reads.hold_in(&world.apply(gone)));
}

#[test]
fn the_config_map_of_the_mesh_counts_until_settings_are_given() {
    let config_map = |trust_domain: &str| {
        objects(&format!(
            "
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data: {{mesh: 'trustDomain: {trust_domain}'}}
"
        ))
    };
    let mut world = World::new(Options::default());
    let mut trust_domain = |change: ChangeSet| world.apply(change).view().mesh().config.trust_domain.clone();
    assert_eq!(trust_domain(ChangeSet::default()), "cluster.local");
    assert_eq!(trust_domain(ChangeSet::upserting(config_map("one"))), "one");
    // Settings that cannot be read leave the last good ones in force.
    assert_eq!(trust_domain(ChangeSet::upserting(config_map("[broken"))), "one");
    assert_eq!(trust_domain(ChangeSet::upserting(config_map("two"))), "two");
    assert_eq!(trust_domain(ChangeSet::stating([Fact::MeshConfig(Default::default())])), "cluster.local");
    assert_eq!(trust_domain(ChangeSet::upserting(config_map("three"))), "cluster.local");
    let retracted = vec![FactKey::MeshConfig];
    assert_eq!(trust_domain(ChangeSet { retracted, ..ChangeSet::default() }), "three");
}

#[test]
fn a_fact_wakes_who_asked_for_it() {
    let mut world = World::new(Options::default());
    let view = world.snapshot().view();
    assert!(view.jwks("https://a/keys").is_none());
    assert!(view.trust_bundle("a").is_none() && view.resolved("a.example").is_none());
    let reads = view.into_reads();
    let keys = |source: &str, keys: &str| Fact::Jwks { source: source.into(), keys: keys.into() };
    let before = world.snapshot().clone();
    assert!(reads.hold_in(&world.apply(ChangeSet::stating([keys("https://b/keys", "{}")]))));
    let after = world.apply(ChangeSet::stating([keys("https://a/keys", "{}")]));
    assert!(!reads.hold_in(&after));
    let part = |source: &str| Part::Fact(FactKey::Jwks(source.into()));
    assert_eq!(after.changed_since(&before), [part("https://a/keys"), part("https://b/keys")]);
    assert_eq!(after.view().jwks("https://a/keys").map(|keys| &**keys), Some("{}"));
    let facts = [
        Fact::TrustBundle { domain: "a".into(), bundle: TrustBundle { roots: "PEM".into(), lists: None } },
        Fact::Resolved { host: "a.example".into(), addresses: vec!["10.0.0.1".parse().unwrap()] },
    ];
    let after = world.apply(ChangeSet::stating(facts));
    assert_eq!(after.view().trust_bundle("a").map(|bundle| &*bundle.roots), Some("PEM"));
    assert_eq!(after.view().resolved("a.example").map(<[_]>::len), Some(1));
    let retracted = vec![FactKey::Resolved("a.example".into())];
    let gone = world.apply(ChangeSet { retracted, ..ChangeSet::default() });
    assert!(gone.view().resolved("a.example").is_none());
    assert_eq!(gone.revision(), after.revision() + 1);
    assert_eq!(world.apply(ChangeSet::stating([keys("https://a/keys", "{}")])).revision(), gone.revision());
}

#[test]
fn namespaces_that_are_not_discovered_do_not_count() {
    let service = |namespace: &str| {
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: s, namespace: {namespace}}}
spec: {{clusterIP: 10.96.0.1, ports: [{{name: http, port: 80}}]}}
---
"
        )
    };
    let namespace = |labels: &str| {
        objects(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: a, labels: {{{labels}}}}}}}"))
    };
    let yaml = format!("{}{}", service("a"), service("istio-system"));
    let mut world = world_with_mesh(&yaml, "discoverySelectors: [{matchLabels: {mesh: in}}]");
    let client = sidecar("c", "10.9.9.9", &[]);
    let root = "s.istio-system.svc.cluster.local:80@istio-system";
    assert_eq!(visible(world.snapshot(), &client), [root]);
    let after = world.apply(ChangeSet::upserting(namespace("mesh: in")));
    assert_eq!(visible(&after, &client), ["s.a.svc.cluster.local:80@a", root]);
    let after = world.apply(ChangeSet::upserting(namespace("mesh: out")));
    assert_eq!(visible(&after, &client), [root]);
}

#[test]
fn objects_that_work_against_each_other_are_found() {
    let check = |yaml: &str, expected: &[(&str, &str)]| {
        let found = snapshot(yaml);
        let found: Vec<(String, String)> = found
            .findings()
            .iter()
            .map(|finding| (finding.object.as_ref().unwrap().to_string(), finding.path.clone()))
            .collect();
        let wanted: Vec<(String, String)> =
            expected.iter().map(|(object, path)| ((*object).to_owned(), (*path).to_owned())).collect();
        assert_eq!(found, wanted, "{yaml}");
    };
    let object = |kind: &str, name: &str, spec: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: default}}, spec: {{{spec}}}}}\n---\n"
        )
    };
    let to = "http: [{route: [{destination: {host: x.com}}]}]";
    let one = object("VirtualService", "one", &format!("hosts: [h.com], {to}"));
    check(&one, &[]);
    let two = object("VirtualService", "two", &format!("hosts: [g.com, h.com], {to}"));
    check(&format!("{one}{two}"), &[("VirtualService default/two", "spec.hosts[1]")]);
    let private = object("VirtualService", "two", &format!("hosts: [h.com], exportTo: [.], {to}"));
    check(&format!("{one}{private}"), &[]);
    let delegating = object("VirtualService", "root", "hosts: [h.com], http: [{delegate: {name: leaf}}]");
    check(&delegating, &[("VirtualService default/root", "spec.http[0].delegate")]);
    let leaf = object("VirtualService", "leaf", to);
    check(&format!("{delegating}{leaf}"), &[]);

    let rule = |name: &str, rest: &str| object("DestinationRule", name, &format!("host: h.com{rest}"));
    check(&format!("{}{}", rule("a", ""), rule("b", ", subsets: [{name: v1}]")), &[]);
    check(
        &format!(
            "{}{}",
            rule("a", ", subsets: [{name: v1}]"),
            rule("b", ", subsets: [{name: v0}, {name: v1}]")
        ),
        &[("DestinationRule default/b", "spec.subsets[1]")],
    );
    let entry = object(
        "ServiceEntry",
        "e",
        "hosts: [s.default.svc.cluster.local], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}]",
    );
    let service = "
apiVersion: v1
kind: Service
metadata: {name: s, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
";
    check(&format!("{entry}{service}"), &[("ServiceEntry default/e", "spec.hosts")]);
}
