//! Policies of backends of the Gateway API as rules for the hosts of Services.
//!
//! They are what DestinationRules are, with another place: what a DestinationRule says of a host comes before
//! them, field by field.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use navarch_model::gateway_api::{
    BackendTlsPolicy, BackendTlsValidation, BackendTrafficPolicy, LocalObjectReference, PolicyTarget,
    RetryConstraint, SubjectAltName,
};
use navarch_model::key_pair::Authority;
use navarch_model::kubernetes::{self as kube, ConfigMap};
use navarch_model::networking::{
    ClientTlsMode, ClientTlsSettings, DestinationRule, PortSelector, PortTrafficPolicy, RetryBudget,
    ServiceEntry, TrafficPolicy,
};
use navarch_model::object::Object;
use navarch_model::service::Visibility;
use navarch_model::status::{Condition, ConditionType, ParentStatus};

use navarch_model::values::Percent;
use navarch_model::{ClusterId, Config, Hashed, Kind, Name, ObjectKey};

use super::lowered::LoweredRules;
use crate::bound::BoundRule;
use crate::outcome::Outcome;
use crate::registry::store::{Input, Reader};

/// Retries that are always allowed, and the time that the share of retries is taken of. (RetryConstraint.)
const MIN_RETRIES: u32 = 10;
const BUDGET_INTERVAL: Duration = Duration::from_secs(10);
/// Names nothing, so that connections fail.
const INVALID_CREDENTIAL: &str = "invalid://";

/// Lowers a BackendTLSPolicy.
pub fn backend_tls_policy(reader: &Reader<'_>, key: &ObjectKey) -> LoweredRules {
    let Some(object) = reader.object(key) else { return LoweredRules::default() };
    let Some(policy) = object.spec::<BackendTlsPolicy>() else { return LoweredRules::default() };
    let (tls, resolved) = settings(reader, object, &policy.validation);
    let mut rules: BTreeMap<Name, TrafficPolicy> = BTreeMap::new();
    let mut parents = Vec::new();
    for target in &policy.target_refs {
        let found = find(reader, key, target);
        let accepted = match &found {
            Err(message) => refused("TargetNotFound", message.clone()),
            Ok(found) => match conflict(reader, object, target, &found.key) {
                Some(other) => {
                    refused("Conflicted", format!("{other}, which comes first, is for the same backend"))
                }
                None if resolved.is_good() => Condition::new(ConditionType::Accepted, true, "Accepted", ""),
                None => refused("NoValidCACertificate", resolved.message.clone()),
            },
        };
        // Without a valid authority connections fail, instead of being made without TLS.
        let applies = accepted.is_good() || accepted.reason == "NoValidCACertificate";
        if let Ok(found) = found.as_ref()
            && applies
        {
            for host in &found.hosts {
                let policy = rules.entry(host.clone()).or_default();
                match found.port {
                    Some(number) => policy.port_level_settings.push(PortTrafficPolicy {
                        port: Some(PortSelector { number }),
                        tls: Some(tls.clone()),
                        ..PortTrafficPolicy::default()
                    }),
                    None => policy.tls = Some(tls.clone()),
                }
            }
        }
        parents.push(parent(key, target, vec![accepted, resolved.clone()]));
    }
    lowered(object, rules, parents)
}

/// Lowers a BackendTrafficPolicy.
pub fn backend_traffic_policy(reader: &Reader<'_>, key: &ObjectKey) -> LoweredRules {
    let Some(object) = reader.object(key) else { return LoweredRules::default() };
    let Some(policy) = object.spec::<BackendTrafficPolicy>() else { return LoweredRules::default() };
    let mut rules: BTreeMap<Name, TrafficPolicy> = BTreeMap::new();
    let mut parents = Vec::new();
    for target in &policy.target_refs {
        let found = match target.is_service() {
            true => find(reader, key, target),
            false => Err(format!("a policy cannot be for a {}", target.kind)),
        };
        let accepted = match &found {
            Err(message) => refused("TargetNotFound", message.clone()),
            Ok(_) => Condition::new(ConditionType::Accepted, true, "Accepted", ""),
        };
        for host in found.iter().flat_map(|found| &found.hosts) {
            let retry_budget = policy.retry_constraint.as_ref().map(retry_budget);
            rules.insert(host.clone(), TrafficPolicy { retry_budget, ..TrafficPolicy::default() });
        }
        parents.push(parent(key, target, vec![accepted]));
    }
    lowered(object, rules, parents)
}

fn retry_budget(constraint: &RetryConstraint) -> RetryBudget {
    let RetryConstraint { budget, min_retry_rate } = constraint;
    let percent = budget.as_ref().and_then(|budget| budget.percent);
    let interval = budget.as_ref().and_then(|budget| budget.interval);
    RetryBudget {
        percent: percent.map(|percent| Percent { millionths: percent.saturating_mul(10_000) }),
        min_retry_concurrency: min_retry_rate.as_ref().and_then(|rate| rate.count).unwrap_or(MIN_RETRIES),
        budget_interval: Some(interval.unwrap_or(BUDGET_INTERVAL)),
    }
}

fn refused(reason: &'static str, message: String) -> Condition {
    Condition::new(ConditionType::Accepted, false, reason, message)
}

fn parent(policy: &ObjectKey, target: &PolicyTarget, conditions: Vec<Condition>) -> ParentStatus {
    let kind = if target.is_service() { Kind::Service } else { Kind::ServiceEntry };
    let parent = ObjectKey::new(kind, &policy.namespace, &target.name);
    ParentStatus { parent, section: target.section().cloned(), port: None, conditions }
}

fn lowered(
    object: &Object,
    rules: BTreeMap<Name, TrafficPolicy>,
    parents: Vec<ParentStatus>,
) -> LoweredRules {
    let metadata = &object.metadata;
    let rules = rules.into_iter().map(|(host, policy)| BoundRule {
        key: object.key.clone(),
        beneath: true,
        config: Config {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            created_at: metadata.creation_timestamp,
            labels: metadata.labels.clone(),
            annotations: metadata.annotations.clone(),
            spec: DestinationRule {
                host: host.to_string(),
                traffic_policy: Some(policy),
                ..DestinationRule::default()
            },
        },
        host,
        export_to: Visibility::Public,
    });
    let rules = rules.map(Hashed::new).map(Arc::new).collect();
    LoweredRules { rules, outcome: Outcome { parents, ..Outcome::default() } }
}

/// What a policy is for.
struct Target {
    key: ObjectKey,
    hosts: Vec<Name>,
    /// The port, if only one is meant.
    port: Option<u32>,
}

/// Finds the target of a policy; says what is wrong if there is none.
fn find(reader: &Reader<'_>, policy: &ObjectKey, target: &PolicyTarget) -> Result<Target, String> {
    let namespace = &policy.namespace;
    let name = &target.name;
    let (key, hosts, ports): (_, _, Vec<(&str, u32)>) = match (target.group.as_str(), target.kind.as_str()) {
        ("", "Service") => {
            let (object, service) = reader
                .get::<kube::Service>(ClusterId::LOCAL, namespace, name)
                .ok_or_else(|| format!("there is no Service {namespace}/{name}"))?;
            let ports = service.spec.ports.iter();
            let ports = ports.filter_map(|port| Some((port.name.as_str(), u32::try_from(port.port).ok()?)));
            let host = Name::from(format!("{name}.{namespace}.svc.{}", reader.domain()));
            (object.key.clone(), vec![host], ports.collect())
        }
        ("networking.istio.io", "ServiceEntry") => {
            let (object, entry) = reader
                .get::<ServiceEntry>(ClusterId::LOCAL, namespace, name)
                .ok_or_else(|| format!("there is no ServiceEntry {namespace}/{name}"))?;
            let hosts = entry.hosts.iter().map(|host| Name::from(host.as_str())).collect();
            let ports = entry.ports.iter().map(|port| (port.name.as_str(), port.number)).collect();
            (object.key.clone(), hosts, ports)
        }
        (_, kind) => return Err(format!("a policy cannot be for a {kind}")),
    };
    let port = match target.section() {
        None => None,
        Some(section) => {
            let found = ports.iter().find(|(name, _)| *name == &**section);
            let missing = || format!("{} {namespace}/{name} has no port {section}", target.kind);
            Some(found.ok_or_else(missing)?.1)
        }
    };
    Ok(Target { key, hosts, port })
}

/// The policy that comes before this one for a target: the oldest counts, then the first by name.
fn conflict(
    reader: &Reader<'_>,
    object: &Object,
    target: &PolicyTarget,
    target_key: &ObjectKey,
) -> Option<ObjectKey> {
    let order = |object: &Object| (object.metadata.creation_timestamp, object.key.name.clone());
    let mut others = reader.members(&Input::PoliciesOf(target_key.clone()));
    let first = others.find(|other| {
        let policy = other.spec::<BackendTlsPolicy>();
        let same = policy.is_some_and(|policy| policy.target_refs.contains(target));
        other.key != object.key && same && order(other) < order(object)
    });
    first.map(|other| other.key.clone())
}

/// How the backend's certificate is verified, and whether everything is there that is needed for it.
fn settings(
    reader: &Reader<'_>,
    object: &Object,
    validation: &BackendTlsValidation,
) -> (ClientTlsSettings, Condition) {
    let BackendTlsValidation { ca_certificate_refs, well_known_ca_certificates, hostname, subject_alt_names } =
        validation;
    let names = subject_alt_names.iter().map(SubjectAltName::value).map(str::to_owned);
    let resolved = |reason, message| Condition::new(ConditionType::ResolvedRefs, false, reason, message);
    let authority = match ca_certificate_refs.first() {
        Some(reference) => authority(reader, object, reference),
        None => match well_known_ca_certificates.as_deref() {
            None | Some("" | "System") => Ok(String::new()),
            Some(other) => Err(("Invalid", format!("the well-known certificates {other:?} are not known"))),
        },
    };
    let (credential_name, condition) = match authority {
        Ok(name) => (name, Condition::new(ConditionType::ResolvedRefs, true, "ResolvedRefs", "")),
        Err((reason, message)) => (INVALID_CREDENTIAL.to_owned(), resolved(reason, message)),
    };
    let settings = ClientTlsSettings {
        mode: ClientTlsMode::Simple,
        credential_name,
        sni: hostname.clone(),
        // The hostname is what the certificate is for, unless names are stated. (BackendTLSPolicyValidation.)
        subject_alt_names: match subject_alt_names.is_empty() {
            true => vec![hostname.clone()],
            false => names.collect(),
        },
        ..ClientTlsSettings::default()
    };
    (settings, condition)
}

/// The name of an authority in a ConfigMap of the namespace of a policy.
fn authority(
    reader: &Reader<'_>,
    object: &Object,
    reference: &LocalObjectReference,
) -> Result<String, (&'static str, String)> {
    let LocalObjectReference { group, kind, name } = reference;
    let namespace = &object.key.namespace;
    if (group.as_str(), kind.as_str()) != ("", "ConfigMap") {
        return Err(("InvalidKind", format!("{kind} {name}: only a ConfigMap can hold an authority")));
    }
    let invalid = |message| ("InvalidCACertificateRef", message);
    let Some((_, map)) = reader.get::<ConfigMap>(ClusterId::LOCAL, namespace, name) else {
        return Err(invalid(format!("there is no ConfigMap {namespace}/{name}")));
    };
    Authority::of_config_map(map)
        .map_err(|problem| invalid(format!("ConfigMap {namespace}/{name} cannot be used: {problem}")))?;
    Ok(format!("configmap://{namespace}/{name}"))
}
