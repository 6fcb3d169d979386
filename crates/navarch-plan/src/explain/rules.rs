//! DestinationRules behind clusters: the ones that apply, and the ones that do not.

use navarch_snapshot::ClientLabels;
use std::sync::Arc;

use navarch_model::networking::DestinationRule;
use navarch_model::service::Service;
use navarch_model::{Hashed, ObjectKey, Origin};
use navarch_snapshot::bound::BoundRule;
use navarch_snapshot::host::covers;

use super::{Explainer, Part};

impl Explainer<'_> {
    /// The rules for a service; `subset` is empty for the whole service. `None` if no rule names the host at
    /// all.
    pub(super) fn rule_part(&self, service: &Service, subset: &str) -> Option<Part> {
        let host = &service.hostname;
        let exact = self.view.destination_rules(host).iter();
        let wildcard = self.view.wildcard_destination_rules().iter().filter(|rule| covers(&rule.host, host));
        let candidates: Vec<&Arc<Hashed<BoundRule>>> = exact.chain(wildcard).collect();
        if candidates.is_empty() {
            return None;
        }
        let labels = ClientLabels::all(self.class.labels().clone());
        let chosen = self.scope.destination_rule(&self.view, service, Some(&labels));
        let sources = chosen.as_ref().map(|rule| rule.sources.clone()).unwrap_or_default();
        let what = if subset.is_empty() { "traffic policy".to_owned() } else { format!("subset {subset}") };
        let mut part = Part::new(what);
        // Of several rules for one host and audience, each subset and the policy are those of the first that
        // has them.
        let mut defines: Option<&ObjectKey> = None;
        let mut sets: Option<&ObjectKey> = None;
        for key in &sources {
            let Some(object) = self.snapshot.object(key) else { continue };
            let Some(rule) = object.spec::<DestinationRule>() else {
                part.add(key.clone(), "spec", "sets the policy of the host");
                continue;
            };
            let position = rule.subsets.iter().position(|known| known.name == subset);
            if let Some(position) = position {
                let field = format!("spec.subsets[{position}]");
                match defines {
                    None => part.add(key.clone(), field, format!("defines subset {subset}")),
                    Some(first) => part.lose_field(
                        &Origin::field(key.clone(), &field),
                        format!("{first} defines subset {subset} too, and comes first"),
                    ),
                }
                defines.get_or_insert(key);
            }
            if rule.traffic_policy.is_some() {
                match sets {
                    None => part.add(key.clone(), "spec.trafficPolicy", "sets the policy of the host"),
                    Some(first) => part.lose_field(
                        &Origin::field(key.clone(), "spec.trafficPolicy"),
                        format!("{first} sets the policy of the host, and comes first"),
                    ),
                }
                sets.get_or_insert(key);
            } else if part.sources.is_empty() {
                part.add(key.clone(), "spec.host", "applies to the host");
            }
        }
        for rule in candidates {
            let key = rule.key.clone();
            if !sources.contains(&key) {
                part.lose(key, self.why_not(rule, service, sources.is_empty()));
            }
        }
        Some(part)
    }

    fn why_not(&self, rule: &BoundRule, service: &Service, nothing_chosen: bool) -> String {
        let client = self.scope.namespace();
        let root = &self.view.mesh().config.root_namespace;
        let owner = &rule.config.namespace;
        if rule.config.spec.workload_selector.is_some() {
            return "its workloadSelector does not select the workload, or its namespace is another one"
                .to_owned();
        }
        if !rule.export_to.includes(client) {
            return format!("exportTo does not include namespace {client}");
        }
        if **owner != **client && *owner != service.namespace && **owner != **root {
            return format!(
                "rules count in the namespaces of the client ({client}), of the service ({}) and the root ({root}) only",
                service.namespace
            );
        }
        if nothing_chosen {
            return "rules of the root namespace apply to its own proxies only if they are private"
                .to_owned();
        }
        if *rule.host != *service.hostname {
            return format!("its host {} is less specific than that of the rule in use", rule.host);
        }
        "a rule of a namespace that comes first (the client's, the service's, the root), or an older one, is in use".to_owned()
    }
}
