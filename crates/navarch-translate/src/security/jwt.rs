//! RequestAuthentication as the JWT filter.
//!
//! A token that is there must be valid; a missing token is not an error here, authorization policies may
//! demand one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_envoy::proto::envoy::config::core::v3::{DataSource, data_source};
use navarch_envoy::proto::envoy::config::route::v3::{RouteMatch, route_match};
use navarch_envoy::proto::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementAndList,
    JwtRequirementOrList, RequirementRule, jwt_provider, jwt_requirement, requirement_rule,
};
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use navarch_model::security::{JwtRule, RequestAuthentication};
use navarch_model::{Config, Hashed};

use super::rule::JWT_PAYLOAD;
use crate::encoded::Encoded;
use crate::filters::http::http_filter;
use crate::pure::{Pure, Sealed};

const NAME: &str = "envoy.filters.http.jwt_authn";

/// Claims that are lists separated by spaces (RFC 8693, 4.2, and what common issuers do).
const SPACE_DELIMITED: [&str; 2] = ["permission", "scope"];

/// A public key whose private key nobody has, for issuers whose keys are not known: every token of theirs is
/// refused.
const KEY_OF_NOBODY: &str = concat!(
    r#"{"keys":[{"kty":"RSA","e":"AQAB","n":""#,
    "lX97YgC7WfVDWDCTCFPXnRY-4t6fYwqc9Jq-Io-kW24UbEvbrTHbTd0BOozTIFnN4Ncl3fNAYwsp8XeNKCYkXN",
    "5UoYQZv7_zqpq98EJf2oO2ovxDpaXrIUDos0rlD7jgs4Imc9qqt7DCQgC5sD99m-9bdN3mk-_HO7q9AsH7C92I",
    "OF8wqOHlMC93SEFJG7G8l6Zz9Z92g-SPucsX4Jw2gERq1Dwb-V8h9OWqr7iwDZ17Vu8GlBuUhtkzBcaDFCUhsk",
    "hBO2n1w-YquPqv09s42mzThCZ2ZGPK-ocpZUVRivwsPTDVrLnp5zlcsr74pd3fFAWy7P6yvOnsr206DDHIbw",
    r#""}]}"#
);

/// The policies that apply to a workload.
#[derive(Clone, Debug, Hash)]
pub struct RequestAuthenticationInput {
    /// Those of the workload's namespace first, then those of the root namespace, each by age.
    pub policies: Vec<Arc<Hashed<Config<RequestAuthentication>>>>,
    /// Keys of issuers that rules do not bring themselves, by [`key_source`]; what is missing is not known
    /// (yet).
    pub keys: BTreeMap<String, Arc<str>>,
    /// Routes may depend on claims: they are chosen again after the check (gateways).
    pub clear_route_cache: bool,
}

/// Where the keys of a rule come from, if it does not bring them: `jwksUri`, else discovery at the issuer.
pub fn key_source(rule: &JwtRule) -> Option<String> {
    if !rule.jwks.is_empty() {
        return None;
    }
    Some(if rule.jwks_uri.is_empty() {
        format!("{}/.well-known/openid-configuration", rule.issuer.trim_end_matches('/'))
    } else {
        rule.jwks_uri.clone()
    })
}

/// Makes the filter that checks tokens.
pub struct TokenChecks;

impl Sealed for TokenChecks {}

impl Pure for TokenChecks {
    const NAME: &'static str = "security.token_checks";
    type Input = RequestAuthenticationInput;
    type Output = Option<Encoded<HttpFilter>>;

    fn run(input: &RequestAuthenticationInput) -> Self::Output {
        let mut rules: Vec<&JwtRule> =
            input.policies.iter().flat_map(|policy| &policy.spec.jwt_rules).collect();
        if rules.is_empty() {
            return None;
        }
        rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        Some(Encoded::new(http_filter(NAME, &config(&rules, input))))
    }
}

fn config(rules: &[&JwtRule], input: &RequestAuthenticationInput) -> JwtAuthentication {
    let name = |index: usize| format!("origins-{index}");
    let providers = rules.iter().enumerate().map(|(index, rule)| (name(index), provider(rule, input)));
    JwtAuthentication {
        providers: providers.collect(),
        rules: vec![RequirementRule {
            r#match: Some(RouteMatch {
                path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
                ..RouteMatch::default()
            }),
            requirement_type: Some(requirement_rule::RequirementType::Requires(requirements(
                rules.len(),
                name,
            ))),
        }],
        // Preflight requests carry no credentials (Fetch standard, CORS preflight).
        bypass_cors_preflight: true,
        ..JwtAuthentication::default()
    }
}

/// Every token that is there must be valid. Providers that look at the same place would refuse each other's
/// tokens, so one valid token is enough too.
fn requirements(count: usize, name: impl Fn(usize) -> String) -> JwtRequirement {
    use jwt_requirement::RequiresType;
    let by = |index| requirement(RequiresType::ProviderName(name(index)));
    let optional = |index| any_of(vec![by(index), requirement(RequiresType::AllowMissing(()))]);
    if count == 1 {
        return optional(0);
    }
    let mut alternatives: Vec<JwtRequirement> = (0..count).map(by).collect();
    let all = JwtRequirementAndList { requirements: (0..count).map(optional).collect() };
    alternatives.push(requirement(RequiresType::RequiresAll(all)));
    any_of(alternatives)
}

fn requirement(requires: jwt_requirement::RequiresType) -> JwtRequirement {
    JwtRequirement { requires_type: Some(requires) }
}

fn any_of(requirements: Vec<JwtRequirement>) -> JwtRequirement {
    requirement(jwt_requirement::RequiresType::RequiresAny(JwtRequirementOrList { requirements }))
}

fn provider(rule: &JwtRule, input: &RequestAuthenticationInput) -> JwtProvider {
    let keys = match key_source(rule) {
        None => rule.jwks.clone(),
        Some(source) => input.keys.get(&source).map_or(KEY_OF_NOBODY, |keys| keys).to_owned(),
    };
    let space_delimited: BTreeSet<&str> =
        rule.space_delimited_claims.iter().map(String::as_str).chain(SPACE_DELIMITED).collect();
    JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        forward: rule.forward_original_token,
        forward_payload_header: rule.output_payload_to_header.clone(),
        payload_in_metadata: JWT_PAYLOAD.to_owned(),
        normalize_payload_in_metadata: Some(jwt_provider::NormalizePayload {
            space_delimited_claims: space_delimited.into_iter().map(str::to_owned).collect(),
        }),
        clear_route_cache: input.clear_route_cache,
        claim_to_headers: rule
            .output_claim_to_headers
            .iter()
            .map(|claim| JwtClaimToHeader {
                header_name: claim.header.clone(),
                claim_name: claim.claim.clone(),
                ..JwtClaimToHeader::default()
            })
            .collect(),
        from_headers: rule
            .from_headers
            .iter()
            .map(|header| JwtHeader { name: header.name.clone(), value_prefix: header.prefix.clone() })
            .collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        jwks_source_specifier: Some(jwt_provider::JwksSourceSpecifier::LocalJwks(DataSource {
            specifier: Some(data_source::Specifier::InlineString(keys)),
            ..DataSource::default()
        })),
        ..JwtProvider::default()
    }
}

#[cfg(test)]
mod tests;
