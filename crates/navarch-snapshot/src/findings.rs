//! What objects do wrong together: each is valid, and yet one of them does not do what it says.

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_model::Name;
use navarch_model::finding::{Code, Finding};
use navarch_model::kinds::Kind;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::route::{Audience, RouteSet, RuleOrder};
use navarch_model::service::{Registry, Visibility};

use crate::assemble::Assembly;
use crate::bound::BoundRule;
use crate::snapshot::Snapshot;

/// What findings are about; they are found again when it changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Mesh,
    /// An object with listeners, or one with routes and its delegates.
    Object(ObjectKey),
    /// Routes for one host.
    RouteHost(Name),
    /// DestinationRules for one host.
    RuleHost(Name),
    /// Services with one host.
    ServiceHost(Name),
}

/// All findings, by subject.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    by_subject: BTreeMap<Subject, Vec<Finding>>,
    changed: bool,
}

impl Findings {
    pub fn set(&mut self, subject: Subject, findings: Vec<Finding>) {
        let before = if findings.is_empty() {
            self.by_subject.remove(&subject)
        } else {
            self.by_subject.insert(subject.clone(), findings)
        };
        self.changed |= before.as_ref() != self.by_subject.get(&subject);
    }

    /// Publishes the findings, sorted by place.
    pub fn publish(&mut self, snapshot: &mut Snapshot) {
        if std::mem::take(&mut self.changed) {
            let mut all: Vec<Finding> = self.by_subject.values().flatten().cloned().collect();
            all.sort();
            snapshot.findings = Arc::new(all);
        }
    }
}

fn about(object: &Object, path: &str, finding: Finding) -> Finding {
    finding.of(object.key.clone()).at(object.locate(path)).path(path)
}

/// Why one of two objects comes first: by age where files or the API server say it, otherwise by name.
fn why_first(winner: i64, loser: i64) -> &'static str {
    if winner < loser { "which is older" } else { "which comes first by name and namespace" }
}

/// Routes that never apply to sidecars, because older ones have the same host and audience.
pub(crate) fn of_route_host(snapshot: &Snapshot, assembly: &Assembly, host: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut winners: Vec<&RouteSet> = Vec::new();
    for set in assembly.routes_for(host) {
        let set: &RouteSet = set;
        findings.extend(two_apis(snapshot, host, &winners, set));
        match winners.iter().find(|winner| same_audience(winner, set)) {
            None => winners.push(set),
            Some(winner) => {
                let Some(object) = snapshot.object(set.key()) else { continue };
                let why = why_first(winner.precedence.created_at, set.precedence.created_at);
                let message = format!(
                    "sidecars use {}, {why}, for host {host}; this one is ignored for it",
                    winner.key()
                );
                let hint = if winner.key().kind == set.key().kind {
                    "merge the routes into one VirtualService, or use delegates"
                } else {
                    "route the host with one of the two"
                };
                let finding = Finding::warning(Code::Unreachable, message).hint(hint);
                let finding = finding.against(winner.key().clone(), winner.host_field(host));
                findings.push(about(object, set.host_field(host), finding));
            }
        }
    }
    findings
}

/// Routes of two APIs for one host, which are not put together.
fn two_apis(snapshot: &Snapshot, host: &str, older: &[&RouteSet], set: &RouteSet) -> Option<Finding> {
    let owner = snapshot.services.get(host)?.first()?.namespace.clone();
    let for_all = |set: &RouteSet| {
        set.export_to == Visibility::Public
            && (set.audience == Audience::Everyone || *set.namespace() == owner)
    };
    let other = older.iter().find(|other| other.audience != set.audience && for_all(other))?;
    let object = snapshot.object(set.key()).filter(|_| for_all(set))?;
    // What the namespace of the service says by the Gateway API comes first for its own clients.
    let except = match set.audience {
        Audience::ProducerOrConsumer => format!(", except those in namespace {owner}, who use this one"),
        Audience::Everyone => String::new(),
    };
    let why = why_first(other.precedence.created_at, set.precedence.created_at);
    let message = format!(
        "{} is for host {host} too, and routes of two APIs are not put together: clients use that one, \
         {why}{except}",
        other.key()
    );
    let finding = Finding::warning(Code::InvalidCombination, message);
    let finding = finding
        .hint("route the host with one of the two APIs")
        .against(other.key().clone(), other.host_field(host));
    Some(about(object, set.host_field(host), finding))
}

/// Whether every client that sees the newer routes sees the older ones with the same precedence, and uses one
/// of them only.
fn same_audience(older: &RouteSet, newer: &RouteSet) -> bool {
    if older.order == RuleOrder::BySpecificity && newer.order == RuleOrder::BySpecificity {
        // Their rules are put together, or they are for clients of different namespaces.
        return false;
    }
    let everyone = older.export_to == Visibility::Public && older.audience == Audience::Everyone;
    older.export_to == newer.export_to
        && older.audience == newer.audience
        && (everyone || older.namespace() == newer.namespace())
}

/// Subsets that an older DestinationRule for the same host already defines.
pub(crate) fn of_rule_host(snapshot: &Snapshot, assembly: &Assembly, host: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut rules = assembly.rules_for(host);
    // What is beneath others contradicts nothing.
    rules.retain(|rule| !rule.beneath);
    for (index, rule) in rules.iter().enumerate() {
        let older = rules.iter().take(index).filter(|older| merge_together(older, rule));
        let older: Vec<&BoundRule> = older.map(|rule| &***rule as &BoundRule).collect();
        if older.is_empty() {
            continue;
        }
        let Some(object) = snapshot.object(&rule.key) else { continue };
        for (position, subset) in rule.config.spec.subsets.iter().enumerate() {
            let definer = older
                .iter()
                .find(|older| older.config.spec.subsets.iter().any(|known| known.name == subset.name));
            if let Some(definer) = definer {
                let why = why_first(definer.config.created_at, rule.config.created_at);
                let message = format!(
                    "DestinationRule {}/{}, {why}, defines subset {} of {host} too; this one is ignored",
                    definer.config.namespace, definer.config.name, subset.name
                );
                let finding = Finding::warning(Code::DuplicateItem, message)
                    .hint("rename or remove one of the two")
                    .against(definer.key.clone(), "spec.subsets");
                findings.push(about(object, &format!("spec.subsets[{position}]"), finding));
            }
        }
        if rule.config.spec.traffic_policy.is_some()
            && let Some(definer) = older.iter().find(|older| older.config.spec.traffic_policy.is_some())
        {
            let why = why_first(definer.config.created_at, rule.config.created_at);
            let message = format!(
                "DestinationRule {}/{}, {why}, sets the traffic policy of {host}; this one is ignored",
                definer.config.namespace, definer.config.name
            );
            let finding = Finding::warning(Code::Unreachable, message)
                .hint("merge the two DestinationRules")
                .against(definer.key.clone(), "spec.trafficPolicy");
            findings.push(about(object, "spec.trafficPolicy", finding));
        }
    }
    findings
}

fn merge_together(a: &BoundRule, b: &BoundRule) -> bool {
    a.config.namespace == b.config.namespace
        && a.config.spec.export_to == b.config.spec.export_to
        && a.config.spec.workload_selector == b.config.spec.workload_selector
}

/// ServiceEntries that a Kubernetes Service, or an older entry of another namespace, displaces.
pub(crate) fn of_service_host(snapshot: &Snapshot, host: &str) -> Vec<Finding> {
    let services = snapshot.services.get(host).map_or(&[][..], Vec::as_slice);
    if services.len() < 2 {
        return Vec::new();
    }
    let kubernetes = services.iter().find(|service| service.registry == Registry::Kubernetes);
    let oldest = services.first();
    let mut findings = Vec::new();
    for service in services.iter().filter(|service| service.registry == Registry::ServiceEntry) {
        let key = ObjectKey::new(Kind::ServiceEntry, &service.namespace, &service.name);
        let Some(object) = snapshot.object(&key) else { continue };
        let finding = match (kubernetes, oldest) {
            (Some(winner), _) => {
                let message = format!(
                    "the Kubernetes Service {}/{} has the host {host}, which only its own namespace may redefine; \
                     other clients ignore this entry",
                    winner.namespace, winner.name
                );
                let key = ObjectKey::new(Kind::Service, &winner.namespace, &winner.name);
                Finding::warning(Code::Unreachable, message).hint("use another host").against(key, "")
            }
            (None, Some(oldest)) if oldest.namespace != service.namespace => {
                let why = why_first(oldest.created_at, service.created_at);
                let message = format!(
                    "ServiceEntry {}/{}, {why}, has the host {host} too; clients of other namespaces use that one",
                    oldest.namespace, oldest.name
                );
                let key = ObjectKey::new(Kind::ServiceEntry, &oldest.namespace, &oldest.name);
                Finding::info(Code::Unreachable, message)
                    .hint("limit one of the two with exportTo")
                    .against(key, "spec.hosts")
            }
            _ => continue,
        };
        findings.push(about(object, "spec.hosts", finding));
    }
    findings
}
