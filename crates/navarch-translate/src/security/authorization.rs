//! AuthorizationPolicy as RBAC and external authorization filters.
//!
//! Policies are evaluated by action: CUSTOM, AUDIT, DENY, ALLOW (Istio, "Authorization Policy", implicit
//! enablement). All policies of an action share one filter. CUSTOM rules run as shadow rules, whose verdict
//! external authorization reads from metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_envoy::proto::envoy::config::rbac::v3::{Policy, Rbac, rbac};
use navarch_envoy::proto::envoy::extensions::filters::http::rbac::v3 as http;
use navarch_envoy::proto::envoy::extensions::filters::network::rbac::v3 as network;
use navarch_model::security::{ActionDetail, AuthorizationAction, AuthorizationPolicy};
use navarch_model::{Config, Hashed};

use super::external::{Checks, ExternalAuthorizer, POLICY_PREFIX, SHADOW_PREFIX, TCP_STATISTICS, Unusable};
use super::rule::{self, Context};
use crate::filters::http::http_filter;
use crate::filters::network::network_filter;
use crate::filters::{HttpFilters, HttpPhase, NetworkFilters, NetworkPhase};
use crate::pure::{Pure, Sealed};
use navarch_model::TrustDomains;

const HTTP_RBAC: &str = "envoy.filters.http.rbac";
const HTTP_EXTERNAL: &str = "envoy.filters.http.ext_authz";
const NETWORK_RBAC: &str = "envoy.filters.network.rbac";
const NETWORK_EXTERNAL: &str = "envoy.filters.network.ext_authz";

/// A policy that is evaluated without being enforced, if the annotation is true.
const DRY_RUN: &str = "istio.io/dry-run";

/// The policies that apply to a workload.
#[derive(Clone, Debug, Hash)]
pub struct AuthorizationInput {
    /// Those of the root namespace first, then by age.
    pub policies: Vec<Arc<Hashed<Config<AuthorizationPolicy>>>>,
    pub trust_domains: TrustDomains,
    /// The providers that CUSTOM policies name, each once.
    pub authorizers: Vec<ExternalAuthorizer>,
    /// The peer's identity is in filter state, not in the TLS connection (waypoints).
    pub filter_state: bool,
}

/// Filters that policies add to the chains of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicyFilters {
    pub http: HttpFilters,
    pub network: NetworkFilters,
}

/// Makes the filters of authorization policies.
pub struct Authorization;

impl Sealed for Authorization {}

impl Pure for Authorization {
    const NAME: &'static str = "security.authorization";
    type Input = AuthorizationInput;
    type Output = PolicyFilters;

    fn run(input: &AuthorizationInput) -> PolicyFilters {
        let mut filters = PolicyFilters::default();
        custom(input, &mut filters);
        for action in [AuthorizationAction::Audit, AuthorizationAction::Deny, AuthorizationAction::Allow] {
            enforced(input, action, &mut filters);
        }
        filters
    }
}

type Applied = Arc<Hashed<Config<AuthorizationPolicy>>>;

/// The rules of some policies, those that are enforced apart from those that are only evaluated.
#[derive(Default)]
struct Rules {
    enforced: Option<Rbac>,
    dry_run: Option<Rbac>,
}

impl Rules {
    fn of<'a>(
        policies: impl IntoIterator<Item = &'a Applied>,
        action: rbac::Action,
        input: &AuthorizationInput,
        tcp: bool,
        prefix: &str,
    ) -> Self {
        let mut rules = Rules::default();
        for policy in policies {
            let target = if is_dry_run(policy) { &mut rules.dry_run } else { &mut rules.enforced };
            let target = target.get_or_insert_with(|| Rbac { action: action as i32, ..Rbac::default() });
            let name = |index: usize| {
                format!("{prefix}ns[{}]-policy[{}]-rule[{index}]", policy.namespace, policy.name)
            };
            if policy.spec.rules.is_empty() {
                target.policies.insert(name(0), rule::never());
            }
            let cx = Context {
                namespace: &policy.namespace,
                trust_domains: &input.trust_domains,
                tcp,
                strict: action == rbac::Action::Allow,
                filter_state: input.filter_state,
            };
            for (index, rule) in policy.spec.rules.iter().enumerate() {
                if let Some(translated) = rule::policy(rule, cx) {
                    target.policies.insert(name(index), translated);
                }
            }
        }
        rules
    }
}

/// Go's `strconv.ParseBool`, as annotations are read.
fn is_dry_run(policy: &Applied) -> bool {
    let annotation = policy.annotations.get(DRY_RUN).map_or("", |value| value);
    matches!(annotation, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// AUDIT, DENY and ALLOW: one filter per action that has policies.
fn enforced(input: &AuthorizationInput, action: AuthorizationAction, filters: &mut PolicyFilters) {
    let policies: Vec<&Applied> =
        input.policies.iter().filter(|policy| policy.spec.action == action).collect();
    if policies.is_empty() {
        return;
    }
    let action = match action {
        AuthorizationAction::Allow => rbac::Action::Allow,
        AuthorizationAction::Audit => rbac::Action::Log,
        _ => rbac::Action::Deny,
    };
    let of = |tcp| Rules::of(policies.iter().copied(), action, input, tcp, "");
    let Rules { enforced, dry_run } = of(false);
    let config = http::Rbac {
        shadow_rules_stat_prefix: dry_run_prefix(dry_run.as_ref()).to_owned(),
        rules: enforced,
        shadow_rules: dry_run,
        ..http::Rbac::default()
    };
    filters.http.add(HttpPhase::Authorization, HTTP_RBAC, &config);
    let Rules { enforced, dry_run } = of(true);
    let config = network::Rbac {
        shadow_rules_stat_prefix: dry_run_prefix(dry_run.as_ref()).to_owned(),
        rules: enforced,
        shadow_rules: dry_run,
        stat_prefix: TCP_STATISTICS.to_owned(),
        ..network::Rbac::default()
    };
    filters.network.push(NetworkPhase::Authorization, network_filter(NETWORK_RBAC, &config));
}

/// Prefix of metadata and statistics of dry-run rules. Without any it means nothing, but istiod sets it, and
/// tools compare.
fn dry_run_prefix(rules: Option<&Rbac>) -> &'static str {
    match rules.map_or(rbac::Action::Allow, Rbac::action) {
        rbac::Action::Allow => "istio_dry_run_allow_",
        rbac::Action::Deny => "istio_dry_run_deny_",
        rbac::Action::Log => "",
    }
}

/// CUSTOM: a shadow filter and a check per provider; a filter that denies where the provider cannot be used.
fn custom(input: &AuthorizationInput, filters: &mut PolicyFilters) {
    let mut by_provider: BTreeMap<&str, Vec<&Applied>> = BTreeMap::new();
    for policy in input.policies.iter().filter(|policy| policy.spec.action == AuthorizationAction::Custom) {
        by_provider.entry(provider_of(policy)).or_default().push(policy);
    }
    // Of several providers none is the right one to ask alone.
    let several = by_provider.len() > 1;
    for (provider, policies) in by_provider {
        let prefix = if provider.is_empty() {
            format!("{POLICY_PREFIX}-")
        } else {
            format!("{POLICY_PREFIX}-{provider}-")
        };
        let of = |tcp| Rules::of(policies.iter().copied(), rbac::Action::Deny, input, tcp, &prefix);
        let authorizer = input.authorizers.iter().find(|authorizer| authorizer.name == provider);
        let checks = authorizer.filter(|_| !several).ok_or(Unusable::Unknown);
        match checks.and_then(ExternalAuthorizer::checks) {
            Ok(checks) => checked(checks, of, filters),
            Err(_) => denied(of, filters),
        }
    }
}

fn provider_of(policy: &Applied) -> &str {
    match &policy.spec.action_detail {
        Some(ActionDetail::Provider(provider)) => &provider.name,
        _ => "",
    }
}

fn checked(checks: Checks, of: impl Fn(bool) -> Rules, filters: &mut PolicyFilters) {
    let Rules { enforced, dry_run } = of(false);
    let config = http::Rbac {
        rules: dry_run.filter(|rules| !rules.policies.is_empty()),
        shadow_rules: Some(enforced.unwrap_or_else(nothing)),
        shadow_rules_stat_prefix: SHADOW_PREFIX.to_owned(),
        ..http::Rbac::default()
    };
    filters.http.push(HttpPhase::CustomAuthorization, http_filter(HTTP_RBAC, &config));
    filters.http.push(HttpPhase::CustomAuthorization, http_filter(HTTP_EXTERNAL, &checks.http));
    let Some(check) = checks.network else { return };
    let Rules { enforced, dry_run } = of(true);
    let config = network::Rbac {
        rules: dry_run.filter(|rules| !rules.policies.is_empty()),
        shadow_rules: Some(enforced.unwrap_or_else(nothing)),
        shadow_rules_stat_prefix: SHADOW_PREFIX.to_owned(),
        stat_prefix: TCP_STATISTICS.to_owned(),
        ..network::Rbac::default()
    };
    filters.network.push(NetworkPhase::CustomAuthorization, network_filter(NETWORK_RBAC, &config));
    filters.network.push(NetworkPhase::CustomAuthorization, network_filter(NETWORK_EXTERNAL, &check));
}

/// Fails closed: what the policies match is denied.
fn denied(of: impl Fn(bool) -> Rules, filters: &mut PolicyFilters) {
    let rules = |tcp| {
        let policies: BTreeMap<String, Policy> = of(tcp)
            .enforced
            .unwrap_or_else(nothing)
            .policies
            .into_iter()
            .map(|(name, policy)| (format!("{name}-deny-due-to-bad-CUSTOM-action"), policy))
            .collect();
        Some(Rbac { policies, ..nothing() })
    };
    let config = http::Rbac { rules: rules(false), ..http::Rbac::default() };
    filters.http.push(HttpPhase::CustomAuthorization, http_filter(HTTP_RBAC, &config));
    let config = network::Rbac {
        rules: rules(true),
        stat_prefix: TCP_STATISTICS.to_owned(),
        ..network::Rbac::default()
    };
    filters.network.push(NetworkPhase::CustomAuthorization, network_filter(NETWORK_RBAC, &config));
}

fn nothing() -> Rbac {
    Rbac { action: rbac::Action::Deny as i32, ..Rbac::default() }
}

#[cfg(test)]
mod tests;
