//! Policies of Istio for objects that they name (`targetRef`, `targetRefs`): whether there are such objects.

use navarch_model::Name;
use navarch_model::extensions::{TrafficExtension, WasmPlugin};
use navarch_model::finding::{Code, Finding};
use navarch_model::kinds::Kind;
use navarch_model::networking::EnvoyFilter;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::security::{AuthorizationPolicy, RequestAuthentication};
use navarch_model::status::{Condition, ConditionType};
use navarch_model::telemetry::Telemetry;
use navarch_model::types::PolicyTargetReference;

use crate::outcome::Outcome;
use crate::registry::store::Reader;

/// Whether objects of a kind are policies that can name what they are for.
pub(crate) fn has_targets(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::AuthorizationPolicy
            | Kind::RequestAuthentication
            | Kind::Telemetry
            | Kind::WasmPlugin
            | Kind::TrafficExtension
            | Kind::EnvoyFilter
    )
}

/// What became of a policy whose targets are not all there, and a finding for each that is not.
pub(crate) fn targets(reader: &Reader<'_>, key: &ObjectKey) -> (Outcome, Vec<Finding>) {
    let Some(object) = reader.object(key) else { return Default::default() };
    let named = named_by(object);
    let mut missing = Vec::new();
    for (path, target) in &named {
        let Some(target) = key_of(target, &key.namespace) else { continue };
        if !reader.exists(&target) {
            missing.push((path, format!("there is no {target}")));
        }
    }
    let rest = match missing.len() == named.len() {
        true => "the policy is not for anything",
        false => "the policy is for its other targets alone",
    };
    let finding = |(path, message): &(&String, String)| {
        let finding = Finding::warning(Code::InvalidReference, format!("{message}; {rest}"));
        let finding = finding.hint("correct the name; a target is in the namespace of its policy");
        finding.of(key.clone()).at(object.locate(path)).path((*path).clone())
    };
    let findings = missing.iter().map(finding).collect();
    (Outcome { conditions: conditions(&missing, named.len()), ..Outcome::default() }, findings)
}

/// Nothing is said of a policy whose targets are all there.
fn conditions(missing: &[(&String, String)], named: usize) -> Vec<Condition> {
    let Some((_, message)) = missing.first() else { return Vec::new() };
    let (ty, holds) = match missing.len() == named {
        true => (ConditionType::Accepted, false),
        false => (ConditionType::PartiallyInvalid, true),
    };
    vec![Condition::new(ty, holds, "TargetNotFound", message.clone())]
}

/// The references of a policy, each with its place in it. A single `targetRef` counts if there is no list.
fn named_by(object: &Object) -> Vec<(String, &PolicyTargetReference)> {
    macro_rules! references {
        ($($kind:ident)+) => {
            match object.key.kind {
                $( Kind::$kind => match object.spec::<$kind>() {
                    Some(policy) => (policy.target_ref.as_ref(), policy.target_refs.as_slice()),
                    None => (None, &[][..]),
                }, )+
                Kind::EnvoyFilter => (None, object.spec::<EnvoyFilter>().map_or(&[][..], |filter| &filter.target_refs)),
                Kind::TrafficExtension => {
                    (None, object.spec::<TrafficExtension>().map_or(&[][..], |extension| &extension.target_refs))
                }
                _ => (None, &[][..]),
            }
        };
    }
    let (single, list) = references! { AuthorizationPolicy RequestAuthentication Telemetry WasmPlugin };
    let single = single.filter(|_| list.is_empty());
    let list = list.iter().enumerate();
    let list = list.map(|(index, target)| (format!("spec.targetRefs[{index}].name"), target));
    single.map(|target| ("spec.targetRef.name".to_owned(), target)).into_iter().chain(list).collect()
}

/// The object that a reference names; `None` if it is of a kind that validation refuses.
fn key_of(target: &PolicyTargetReference, namespace: &Name) -> Option<ObjectKey> {
    let (kind, namespace) = match (target.group.as_str(), target.kind.as_str()) {
        ("" | "core", "Service") => (Kind::Service, &**namespace),
        ("networking.istio.io", "ServiceEntry") => (Kind::ServiceEntry, &**namespace),
        ("gateway.networking.k8s.io", "Gateway") => (Kind::KubernetesGateway, &**namespace),
        ("gateway.networking.k8s.io", "GatewayClass") => (Kind::GatewayClass, ""),
        _ => return None,
    };
    Some(ObjectKey::new(kind, namespace, target.name.as_str()))
}
