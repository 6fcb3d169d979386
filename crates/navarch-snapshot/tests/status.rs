//! What became of objects.

mod common;

use common::*;
use navarch_model::change::ChangeSet;
use navarch_model::fact::{Fact, FactKey, Refusal};
use navarch_model::kinds::Kind;
use navarch_model::object::ObjectKey;
use navarch_model::status::Condition;
use navarch_snapshot::Snapshot;

/// Conditions of an object, those of its parents behind their names; `None` if it has no status.
fn status(snapshot: &Snapshot, kind: Kind, name: &str) -> Option<Vec<String>> {
    let status = snapshot.statuses().get(&ObjectKey::new(kind, "default", name))?;
    let said = |condition: &Condition| format!("{}={} {}", condition.ty, condition.status, condition.reason);
    let mut all: Vec<String> = status.conditions.iter().map(said).collect();
    for parent in &status.parents {
        all.extend(
            parent.conditions.iter().map(|condition| format!("{}: {}", parent.parent, said(condition))),
        );
    }
    Some(all)
}

fn rule(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: default}}, spec: {spec}}}\n---\n"
    )
}

const GATEWAY: &str =
    "{selector: {a: b}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}";

#[test]
fn an_object_in_force_is_accepted_and_what_runs_has_no_status() {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: default}, spec: {ports: [{port: 80}]}}\n---\n";
    let snapshot = snapshot(&format!("{service}{}", rule("DestinationRule", "a", "{host: a}")));
    let accepted = Some(vec!["Accepted=True Accepted".to_owned()]);
    assert_eq!(status(&snapshot, Kind::DestinationRule, "a"), accepted);
    assert_eq!(status(&snapshot, Kind::Service, "a"), None);
    assert_eq!(status(&snapshot, Kind::DestinationRule, "b"), None);
    assert_eq!(snapshot.statuses().iter().count(), 1);
}

#[test]
fn a_route_is_told_how_it_goes_at_each_gateway() {
    let route = "{hosts: [a], gateways: [mesh, here, other/there], http: [{directResponse: {status: 200}}]}";
    let mut world = world(&rule("VirtualService", "r", route));
    let at = |here: &str| {
        Some(vec![
            "Accepted=True Accepted".to_owned(),
            format!("Gateway default/here: Accepted={here}"),
            "Gateway other/there: Accepted=False NoMatchingParent".to_owned(),
        ])
    };
    assert_eq!(status(world.snapshot(), Kind::VirtualService, "r"), at("False NoMatchingParent"));
    let before = world.snapshot().clone();
    let after = world.apply(ChangeSet::upserting(objects(&rule("Gateway", "here", GATEWAY))));
    assert_eq!(status(&after, Kind::VirtualService, "r"), at("True Accepted"));
    let changed = after.statuses().changed_since(&before);
    let kinds: Vec<Kind> = changed.iter().map(|(key, _)| key.kind).collect();
    assert_eq!(kinds, [Kind::VirtualService, Kind::Gateway]);
    let gone = world.apply(ChangeSet::removing([ObjectKey::new(Kind::VirtualService, "default", "r")]));
    assert_eq!(gone.statuses().changed_since(&after).len(), 1);
    assert_eq!(status(&gone, Kind::VirtualService, "r"), None);
}

#[test]
fn a_route_whose_delegate_is_missing_has_an_unresolved_reference() {
    let root = "{hosts: [a], http: [{match: [{uri: {prefix: /a}}], delegate: {name: d}}]}";
    let mut world = world(&rule("VirtualService", "r", root));
    let expected = ["Accepted=True Accepted", "ResolvedRefs=False DelegateNotUsable"];
    assert_eq!(status(world.snapshot(), Kind::VirtualService, "r").unwrap(), expected);
    let narrow = "{http: [{match: [{uri: {prefix: /a/b}}], directResponse: {status: 200}}]}";
    let after = world.apply(ChangeSet::upserting(objects(&rule("VirtualService", "d", narrow))));
    assert_eq!(status(&after, Kind::VirtualService, "r").unwrap(), expected[..1]);
    let wide = "{http: [{match: [{uri: {prefix: /b}}], directResponse: {status: 200}}]}";
    let after = world.apply(ChangeSet::upserting(objects(&rule("VirtualService", "d", wide))));
    assert_eq!(
        status(&after, Kind::VirtualService, "r").unwrap(),
        ["Accepted=True Accepted", "PartiallyInvalid=True RoutesLeftOut"]
    );
}

#[test]
fn a_version_that_cannot_be_used_is_told_without_a_new_revision() {
    let key = |name: &str| ObjectKey::new(Kind::DestinationRule, "default", name);
    let refused = |name: &str, last_good| {
        let refusal = Refusal { message: "spec.host: is missing".to_owned(), last_good };
        Fact::Refused { object: key(name), refusal }
    };
    let mut world = world(&rule("DestinationRule", "a", "{host: a}"));
    let before = world.snapshot().clone();
    let after = world.apply(ChangeSet::stating([refused("a", true), refused("b", false)]));
    assert_eq!(after.revision(), before.revision());
    assert_eq!(after.changed_since(&before), []);
    assert_eq!(status(&after, Kind::DestinationRule, "a").unwrap(), ["Accepted=False LastGoodInUse"]);
    assert_eq!(status(&after, Kind::DestinationRule, "b").unwrap(), ["Accepted=False Invalid"]);
    assert_eq!(after.statuses().changed_since(&before).len(), 2);
    let retracted = ["a", "b"].map(|name| FactKey::Refused(key(name))).to_vec();
    let mended = world.apply(ChangeSet { retracted, ..ChangeSet::default() });
    assert_eq!(mended.statuses().changed_since(&before), []);
}

#[test]
fn a_policy_whose_target_is_missing_says_so_until_it_is_there() {
    let policy = |kind: &str, spec: &str| {
        let group = match kind {
            "Telemetry" => "telemetry.istio.io",
            "EnvoyFilter" => "networking.istio.io",
            "WasmPlugin" => "extensions.istio.io",
            _ => "security.istio.io",
        };
        let version = if kind == "EnvoyFilter" {
            "v1alpha3"
        } else if kind == "WasmPlugin" {
            "v1alpha1"
        } else {
            "v1"
        };
        format!(
            "{{apiVersion: {group}/{version}, kind: {kind}, metadata: {{name: p, namespace: default}}, spec: {spec}}}\n---\n"
        )
    };
    let gateway = "{group: gateway.networking.k8s.io, kind: Gateway, name: edge}";
    let service = "{group: '', kind: Service, name: a}";
    let none = ["Accepted=False TargetNotFound"];
    let some = ["Accepted=True Accepted", "PartiallyInvalid=True TargetNotFound"];
    for (kind, spec, expected, then) in [
        (Kind::AuthorizationPolicy, format!("{{targetRef: {gateway}, rules: [{{}}]}}"), &none[..], true),
        (Kind::RequestAuthentication, format!("{{targetRefs: [{gateway}], jwtRules: []}}"), &none, true),
        (Kind::Telemetry, format!("{{targetRefs: [{gateway}]}}"), &none, true),
        (Kind::EnvoyFilter, format!("{{targetRefs: [{gateway}]}}"), &none, true),
        (Kind::WasmPlugin, format!("{{targetRefs: [{gateway}], url: a.wasm}}"), &none, true),
        (Kind::AuthorizationPolicy, format!("{{targetRefs: [{service}], rules: [{{}}]}}"), &none, false),
        (
            Kind::AuthorizationPolicy,
            format!("{{targetRefs: [{service}, {gateway}], rules: [{{}}]}}"),
            &none,
            false,
        ),
    ] {
        let mut world = world(&policy(kind.as_str(), &spec));
        assert_eq!(status(world.snapshot(), kind, "p").unwrap(), expected, "{kind} {spec}");
        let found =
            world.snapshot().findings().iter().filter(|finding| finding.message.contains("there is no"));
        assert_eq!(found.count(), spec.matches("name: ").count(), "{kind} {spec}");
        let edge = "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: edge, namespace: default}, spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}}";
        let before = world.snapshot().clone();
        let after = world.apply(ChangeSet::upserting(objects(edge)));
        let expected = match (then, spec.contains("edge")) {
            (true, _) => &some[..1],
            (false, true) => &some,
            (false, false) => &none,
        };
        assert_eq!(status(&after, kind, "p").unwrap(), expected, "{kind} {spec}");
        let changed = after.statuses().changed_since(&before).iter().any(|(key, _)| key.kind == kind);
        assert_eq!(changed, spec.contains("edge"), "{kind} {spec}");
    }
}
