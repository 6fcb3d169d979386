//! Which DestinationRule applies to a service for a client (Istio: precedence and merging of destination
//! rules).

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::networking::{DestinationRule, PortTrafficPolicy, TrafficPolicy};
use navarch_model::service::{Service, Visibility};
use navarch_model::{EffectiveRule, Hashed, Name, ObjectKey};

use super::Scope;
use crate::bound::BoundRule;
use crate::client::ClientLabels;
use crate::host::{is_wildcard, most_specific};
use crate::view::View;

type SharedRule = Arc<Hashed<BoundRule>>;

/// Rules for one host of one namespace, merged as far as they may be.
#[derive(PartialEq)]
struct Merged {
    spec: DestinationRule,
    /// Namespace of the rules.
    namespace: Name,
    /// As declared; a rule with a selector is private to its namespace.
    export_to: BTreeSet<String>,
    /// Everything it says is beneath what other rules say.
    beneath: bool,
    sources: Vec<ObjectKey>,
}

impl Scope {
    /// The DestinationRule for a service, or nothing.
    ///
    /// Rules of the client's namespace come before rules that the service's namespace exports and those
    /// before rules that the root namespace exports; within each, rules for the exact host come before the
    /// most specific wildcard. Rules for one host and audience are merged: the oldest gives the traffic
    /// policy, subsets are united.
    ///
    /// `labels` are those of the client for outgoing traffic: rules with a workload selector apply to
    /// matching clients only. Without labels (incoming traffic) they do not apply. `defaultTrafficPolicy` of
    /// MeshConfig is not part of the result: it goes under the policy that remains after ports and subsets
    /// are merged, also for services without a rule.
    pub fn destination_rule(
        &self,
        view: &View<'_>,
        service: &Service,
        labels: Option<&ClientLabels>,
    ) -> Option<Arc<Hashed<EffectiveRule>>> {
        let lookup = Lookup::new(view, &service.hostname);
        if lookup.is_empty() {
            return None;
        }
        let merged = self.rules_for(&self.namespace, &lookup, service);
        if self.is_elsewhere() {
            // Not every rule makes a difference for its namespace: that of a service's owner is mostly meant
            // for everybody.
            let differs = |namespace: &Name| {
                let there = self.rules_for(namespace, &lookup, service);
                there != merged || selects_clients(&there, namespace)
            };
            for namespace in lookup.namespaces() {
                if !view.has_asked(namespace) && differs(namespace) {
                    view.ask(namespace);
                }
            }
        }
        let merged = merged?;
        let selected = labels.and_then(|labels| {
            merged.iter().find(|rule| {
                rule.namespace == self.namespace
                    && rule
                        .spec
                        .workload_selector
                        .as_ref()
                        .is_some_and(|selector| labels.are_selected(view, &selector.match_labels))
            })
        });
        // Of several rules for everybody that could not be merged, the last one counts, as in istiod.
        let chosen =
            selected.or_else(|| merged.iter().rev().find(|rule| rule.spec.workload_selector.is_none()))?;
        Some(Arc::new(Hashed::new(EffectiveRule {
            spec: chosen.spec.clone(),
            sources: chosen.sources.clone(),
        })))
    }

    /// The merged rules of the first namespace that has any for the service, for clients in a namespace.
    fn rules_for(&self, client: &Name, lookup: &Lookup<'_>, service: &Service) -> Option<Vec<Merged>> {
        // Rules in the root namespace are meant for everybody; a proxy that happens to run there takes its
        // own only if they are private, or else a catch-all would hide the rules of the service's namespace.
        let in_root = *client == self.root_namespace;
        let own = lookup.in_namespace(client, |rule| {
            if in_root { is_private(rule) } else { rule.export_to.includes(client) }
        });
        if !own.is_empty() {
            return Some(merge(&own));
        }
        [&service.namespace, &self.root_namespace].into_iter().find_map(|owner| {
            let exported = lookup.in_namespace(owner, |rule| !is_private(rule));
            let mut merged = merge(&exported);
            merged.retain(|rule| {
                rule.export_to.is_empty()
                    || rule.export_to.contains("*")
                    || rule.export_to.contains(&**client)
                    || (rule.export_to.contains(".") && **owner == **client)
            });
            (!merged.is_empty()).then_some(merged)
        })
    }
}

/// Whether a rule is for some of the clients in a namespace.
fn selects_clients(rules: &Option<Vec<Merged>>, namespace: &Name) -> bool {
    let rules = rules.iter().flatten();
    rules.into_iter().any(|rule| rule.namespace == *namespace && rule.spec.workload_selector.is_some())
}

/// Rules that could apply to a host.
struct Lookup<'s> {
    host: &'s str,
    exact: &'s [SharedRule],
    wildcard: Vec<&'s SharedRule>,
}

impl<'s> Lookup<'s> {
    fn new<'v: 's>(view: &View<'v>, host: &'s str) -> Self {
        let wildcard = view
            .wildcard_destination_rules()
            .iter()
            .filter(|rule| crate::host::covers(&rule.host, host))
            .collect();
        let exact = if is_wildcard(host) { &[] } else { view.destination_rules(host) };
        Lookup { host, exact, wildcard }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty()
    }

    /// Namespaces for whose clients the rules may differ from those for clients elsewhere.
    fn namespaces(&self) -> BTreeSet<&'s Name> {
        let rules = self.exact.iter().chain(self.wildcard.iter().copied());
        let mentioned = |rule: &'s SharedRule| {
            let exported = match &rule.export_to {
                Visibility::Namespaces(names) => Some(names),
                Visibility::Public | Visibility::Nobody => None,
            };
            exported.into_iter().flatten().chain([&rule.config.namespace])
        };
        rules.flat_map(mentioned).collect()
    }

    /// The rules of a namespace with the most specific host: those for exactly the host, else for the longest
    /// wildcard.
    fn in_namespace(&self, namespace: &str, accept: impl Fn(&BoundRule) -> bool) -> Vec<&'s SharedRule> {
        let wanted = |rule: &&SharedRule| *rule.config.namespace == *namespace && accept(rule);
        let exact: Vec<&SharedRule> = self.exact.iter().filter(wanted).collect();
        if !exact.is_empty() {
            return exact;
        }
        let wildcard: Vec<&SharedRule> = self.wildcard.iter().copied().filter(wanted).collect();
        match most_specific(self.host, wildcard.iter().map(|rule| &*rule.host)) {
            Some(host) => wildcard.iter().copied().filter(|rule| *rule.host == *host).collect(),
            None => Vec::new(),
        }
    }
}

/// Whether only the rule's own namespace may use it.
fn is_private(rule: &BoundRule) -> bool {
    match &rule.export_to {
        Visibility::Namespaces(names) => names.len() == 1 && names.contains(&rule.config.namespace),
        Visibility::Public | Visibility::Nobody => false,
    }
}

/// Merges rules for one host of one namespace, in the order given (those with a selector first, then oldest
/// first).
fn merge(rules: &[&SharedRule]) -> Vec<Merged> {
    let mut merged: Vec<Merged> = Vec::new();
    for rule in rules {
        let spec = &rule.config.spec;
        let export_to: BTreeSet<String> = if spec.workload_selector.is_some() {
            BTreeSet::from([".".to_owned()])
        } else {
            spec.export_to.iter().cloned().collect()
        };
        let source = rule.key.clone();
        let mut separate = true;
        for existing in &mut merged {
            separate = merge_into(existing, rule, &export_to, &source);
        }
        if separate {
            merged.push(Merged {
                spec: spec.clone(),
                namespace: rule.config.namespace.clone(),
                export_to,
                beneath: rule.beneath,
                sources: vec![source],
            });
        }
    }
    merged
}

/// Adds a rule to an older one if both have the same audience. Returns whether the rule must also stand by
/// itself.
fn merge_into(
    existing: &mut Merged,
    rule: &BoundRule,
    export_to: &BTreeSet<String>,
    source: &ObjectKey,
) -> bool {
    let spec = &rule.config.spec;
    let same_audience = *export_to == existing.export_to;
    let wider_audience = !existing.export_to.is_empty() && export_to.is_superset(&existing.export_to);
    if !same_audience && !wider_audience {
        return true;
    }
    let mut separate = !same_audience;
    match (&existing.spec.workload_selector, &spec.workload_selector) {
        (Some(a), Some(b)) if a.match_labels != b.match_labels => return true,
        (Some(_), Some(_)) | (None, None) => separate = false,
        _ => {}
    }
    existing.sources.push(source.clone());
    for subset in &spec.subsets {
        if !existing.spec.subsets.iter().any(|known| known.name == subset.name) {
            existing.spec.subsets.push(subset.clone());
        }
    }
    match (&mut existing.spec.traffic_policy, &spec.traffic_policy) {
        (policy @ None, _) => policy.clone_from(&spec.traffic_policy),
        (Some(policy), Some(beneath)) if rule.beneath => fill(policy, beneath),
        (Some(policy), Some(above)) if existing.beneath => {
            let beneath = std::mem::replace(policy, above.clone());
            fill(policy, &beneath);
        }
        (Some(_), _) => {}
    }
    existing.beneath &= rule.beneath;
    separate
}

/// Adds to a policy what it leaves open and the one beneath it says.
fn fill(policy: &mut TrafficPolicy, beneath: &TrafficPolicy) {
    fn open<T: Clone>(field: &mut Option<T>, beneath: &Option<T>) {
        if field.is_none() {
            field.clone_from(beneath);
        }
    }
    let TrafficPolicy {
        load_balancer,
        connection_pool,
        outlier_detection,
        tls,
        port_level_settings,
        tunnel,
        proxy_protocol,
        retry_budget,
    } = beneath;
    open(&mut policy.load_balancer, load_balancer);
    open(&mut policy.connection_pool, connection_pool);
    open(&mut policy.outlier_detection, outlier_detection);
    open(&mut policy.tls, tls);
    open(&mut policy.tunnel, tunnel);
    open(&mut policy.proxy_protocol, proxy_protocol);
    open(&mut policy.retry_budget, retry_budget);
    for beneath in port_level_settings {
        let own = policy.port_level_settings.iter_mut().find(|own| own.port == beneath.port);
        let Some(own) = own else {
            policy.port_level_settings.push(beneath.clone());
            continue;
        };
        let PortTrafficPolicy { port: _, load_balancer, connection_pool, outlier_detection, tls } = beneath;
        open(&mut own.load_balancer, load_balancer);
        open(&mut own.connection_pool, connection_pool);
        open(&mut own.outlier_detection, outlier_detection);
        open(&mut own.tls, tls);
    }
}
