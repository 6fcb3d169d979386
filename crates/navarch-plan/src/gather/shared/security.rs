//! Gathering of security policies: which apply to a workload, and what they refer to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::TrustDomains;
use navarch_model::mesh::{MeshConfig, Provider};
use navarch_model::security::{
    ActionDetail, AuthorizationAction, AuthorizationPolicy, RequestAuthentication,
};
use navarch_model::{Config, Hashed};
use navarch_translate::access_log::Upstream;
use navarch_translate::filters::HttpPhase;
use navarch_translate::filters::http::PhasedHttpFilter;
use navarch_translate::http_connection_manager::Direction;
use navarch_translate::security::jwt::key_source;
use navarch_translate::security::{
    Authorization, AuthorizationInput, ExternalAuthorizer, Lookup, PolicyFilters, RequestAuthenticationInput,
    TokenChecks,
};

use super::attachment::{Attachment, Workload};
use super::telemetry::upstream;
use crate::engine::{Cx, Gather};

/// The filters that security policies add to the chains of a workload in one direction. Outbound there are
/// none: policies are enforced where requests arrive.
pub struct SecurityFilters;

impl Gather for SecurityFilters {
    const NAME: &'static str = "security.filters";
    type Key = (Arc<Hashed<Workload>>, Direction);
    type Output = PolicyFilters;

    fn run((workload, direction): &Self::Key, cx: &Cx<'_>) -> PolicyFilters {
        if *direction == Direction::Outbound {
            return PolicyFilters::default();
        }
        let mut filters = authorization(workload, cx)
            .map_or_else(PolicyFilters::default, |filters| PolicyFilters::clone(&filters));
        if let Some(input) = request_authentication(workload, cx)
            && let Some(filter) = &*cx.get::<TokenChecks>(&input)
        {
            filters.http.filters.push(PhasedHttpFilter {
                phase: HttpPhase::Authentication,
                filter: filter.clone(),
                ports: Vec::new(),
            });
        }
        filters
    }
}

/// The policies that decide which calls to a workload are let through.
pub fn authorization_policies(
    workload: &Workload,
    cx: &Cx<'_>,
) -> Vec<Arc<Hashed<Config<AuthorizationPolicy>>>> {
    let mesh = &cx.view().mesh().config;
    workload.policies::<AuthorizationPolicy>(
        cx.view(),
        [&mesh.root_namespace, &workload.namespace],
        |policy| Attachment {
            selector: policy.selector.as_ref().map(|selector| &selector.match_labels),
            target_ref: policy.target_ref.as_ref(),
            target_refs: &policy.target_refs,
        },
    )
}

fn authorization(workload: &Workload, cx: &Cx<'_>) -> Option<Arc<PolicyFilters>> {
    let mesh = &cx.view().mesh().config;
    let policies = authorization_policies(workload, cx);
    if policies.is_empty() {
        return None;
    }
    let custom: BTreeSet<&str> = policies
        .iter()
        .filter(|policy| policy.spec.action == AuthorizationAction::Custom)
        .filter_map(|policy| policy.spec.action_detail.as_ref())
        .map(|ActionDetail::Provider(provider)| provider.name.as_str())
        .collect();
    let known = |service: &str, port| upstream(cx, (service, port));
    let authorizers = custom.into_iter().map(|name| authorizer(mesh, name, known)).collect();
    Some(cx.get::<Authorization>(&AuthorizationInput {
        policies,
        trust_domains: TrustDomains::of(mesh),
        authorizers,
        filter_state: false,
    }))
}

/// What the mesh knows of a provider for external authorization.
pub(crate) fn authorizer(
    mesh: &MeshConfig,
    name: &str,
    upstream: impl Fn(&str, u32) -> Option<Upstream>,
) -> ExternalAuthorizer {
    let mut found = mesh.extension_providers.iter().filter_map(|provider| {
        let (service, port) = match &provider.provider {
            Some(Provider::EnvoyExtAuthzHttp(external)) => (&external.service, external.port),
            Some(Provider::EnvoyExtAuthzGrpc(external)) => (&external.service, external.port),
            _ => return None,
        };
        (provider.name == name).then_some((provider, service, port))
    });
    let lookup = match (found.next(), found.next()) {
        (None, _) => Lookup::Unknown,
        (Some(_), Some(_)) => Lookup::Ambiguous,
        (Some((provider, service, port)), None) => {
            Lookup::Found { provider: Box::new(provider.clone()), upstream: upstream(service, port) }
        }
    };
    ExternalAuthorizer { name: name.to_owned(), lookup }
}

/// The policies that say which tokens a workload takes.
pub fn request_authentications(
    workload: &Workload,
    cx: &Cx<'_>,
) -> Vec<Arc<Hashed<Config<RequestAuthentication>>>> {
    let mesh = &cx.view().mesh().config;
    workload.policies::<RequestAuthentication>(
        cx.view(),
        [&workload.namespace, &mesh.root_namespace],
        |policy| Attachment {
            selector: policy.selector.as_ref().map(|selector| &selector.match_labels),
            target_ref: policy.target_ref.as_ref(),
            target_refs: &policy.target_refs,
        },
    )
}

fn request_authentication(workload: &Workload, cx: &Cx<'_>) -> Option<RequestAuthenticationInput> {
    let policies = request_authentications(workload, cx);
    // Keys that are not known (yet) are missing: every token is refused that they would check.
    let rules = policies.iter().flat_map(|policy| &policy.spec.jwt_rules);
    let keys: BTreeMap<String, Arc<str>> = rules
        .filter_map(key_source)
        .filter_map(|source| Some((source.clone(), cx.view().jwks(&source)?.clone())))
        .collect();
    (!policies.is_empty()).then(|| RequestAuthenticationInput {
        policies,
        keys,
        clear_route_cache: workload.kind != navarch_model::proxy::ProxyKind::Sidecar,
    })
}
