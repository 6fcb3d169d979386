//! One rule of an AuthorizationPolicy as a policy of Envoy's RBAC filter.
//!
//! A rule is who (`from`), what (`to`) and under which conditions (`when`). RBAC knows principals, any of
//! which must match, and permissions, any of which must match; conditions go to the side that can express
//! them.

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::core::v3::TypedExtensionConfig;
use navarch_envoy::proto::envoy::config::rbac::v3::{
    Permission, Policy, Principal, permission, permission::Rule as Allowed, principal, principal::Identifier,
};
use navarch_envoy::proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use navarch_envoy::proto::envoy::r#type::matcher::v3::{
    FilterStateMatcher, MetadataMatcher, PathMatcher, StringMatcher, filter_state_matcher, path_matcher,
};
use navarch_model::TrustDomains;
use navarch_model::identity::{self, SCHEME};
use navarch_model::security::{Operation, Rule, Source};

use super::matchers;

const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";
/// Key of the filter's metadata under which it leaves a verified token.
pub const JWT_PAYLOAD: &str = "payload";
/// Filter state that carries the peer's identity where TLS was terminated by an earlier listener.
const PEER_PRINCIPAL: &str = "io.istio.peer_principal";

/// How rules are translated.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Namespace of the policy, which service accounts without one belong to.
    pub namespace: &'a str,
    pub trust_domains: &'a TrustDomains,
    /// The filter sees connections, not requests.
    pub tcp: bool,
    /// A part that cannot be expressed takes the whole rule away (ALLOW: less is allowed); otherwise only the
    /// part is left out (DENY, AUDIT, CUSTOM: more is denied).
    pub strict: bool,
    /// The peer's identity is in filter state, not in the TLS connection (waypoints).
    pub filter_state: bool,
}

/// The policy for a rule; nothing if the rule cannot be expressed.
pub fn policy(rule: &Rule, cx: Context<'_>) -> Option<Policy> {
    let (mut who, mut what) = (Vec::new(), Vec::new());
    for condition in &rule.when {
        let terms = (condition.values.as_slice(), condition.not_values.as_slice());
        match Attribute::of(&condition.key)? {
            Attribute::Who(attribute) => who.push((attribute, terms)),
            Attribute::What(attribute) => what.push((attribute, terms)),
        }
    }
    let mut principals = Vec::new();
    for from in &rule.from {
        let own = from.source.as_ref().map_or_else(Vec::new, source_terms);
        principals.push(principal_of(own.into_iter().chain(who.iter().copied()), cx)?);
    }
    if principals.is_empty() {
        principals.push(principal_of(who.iter().copied(), cx)?);
    }
    let mut permissions = Vec::new();
    for to in &rule.to {
        let own = to.operation.as_ref().map_or_else(Vec::new, operation_terms);
        permissions.push(permission_of(own.into_iter().chain(what.iter().copied()), cx)?);
    }
    if permissions.is_empty() {
        permissions.push(permission_of(what.iter().copied(), cx)?);
    }
    Some(Policy { permissions, principals, ..Policy::default() })
}

/// A policy that nothing matches: that of a policy without rules.
pub fn never() -> Policy {
    Policy {
        permissions: vec![not_permission(allowed(Allowed::Any(true)))],
        principals: vec![not_principal(identified(Identifier::Any(true)))],
        ..Policy::default()
    }
}

/// What a condition is about.
enum Attribute<'a> {
    Who(Who<'a>),
    What(What<'a>),
}

/// An attribute of the caller or of its request.
#[derive(Clone, Copy)]
enum Who<'a> {
    Address,
    RemoteAddress,
    Namespace,
    TrustDomain,
    ServiceAccount,
    Principal,
    RequestPrincipal,
    /// A claim that is a text or a list of texts, by path.
    Claim(Claim<'a>),
    Header(&'a str),
}

#[derive(Clone, Copy)]
enum Claim<'a> {
    Named(&'a str),
    /// `[a][b]`.
    Path(&'a str),
}

/// An attribute of what is asked for.
#[derive(Clone, Copy)]
enum What<'a> {
    Host,
    Method,
    Path,
    Port,
    Address,
    ServerName,
    /// `envoy.filters.a.b[key]`.
    FilterMetadata(&'a str),
}

/// Values one of which must match, and values none of which may.
type Terms<'a> = (&'a [String], &'a [String]);

impl<'a> Attribute<'a> {
    /// The attribute of a condition (Istio: "Authorization Policy Conditions"); nothing if there is none of
    /// that name.
    fn of(key: &'a str) -> Option<Self> {
        Some(match key {
            "destination.ip" => Attribute::What(What::Address),
            "destination.port" => Attribute::What(What::Port),
            "connection.sni" => Attribute::What(What::ServerName),
            "source.ip" => Attribute::Who(Who::Address),
            "remote.ip" => Attribute::Who(Who::RemoteAddress),
            "source.namespace" => Attribute::Who(Who::Namespace),
            "source.trustDomain" => Attribute::Who(Who::TrustDomain),
            "source.serviceAccount" => Attribute::Who(Who::ServiceAccount),
            "source.principal" => Attribute::Who(Who::Principal),
            "request.auth.principal" => Attribute::Who(Who::RequestPrincipal),
            "request.auth.audiences" => Attribute::Who(Who::Claim(Claim::Named("aud"))),
            "request.auth.presenter" => Attribute::Who(Who::Claim(Claim::Named("azp"))),
            _ => {
                if key.starts_with("experimental.envoy.filters.") {
                    Attribute::What(What::FilterMetadata(key.strip_prefix("experimental.")?))
                } else if let Some(name) = key.strip_prefix("request.headers") {
                    Attribute::Who(Who::Header(name))
                } else {
                    Attribute::Who(Who::Claim(Claim::Path(key.strip_prefix("request.auth.claims")?)))
                }
            }
        })
    }
}

fn source_terms(source: &Source) -> Vec<(Who<'static>, Terms<'_>)> {
    vec![
        (Who::Principal, (&source.principals, &source.not_principals)),
        (Who::RequestPrincipal, (&source.request_principals, &source.not_request_principals)),
        (Who::ServiceAccount, (&source.service_accounts, &source.not_service_accounts)),
        (Who::TrustDomain, (&source.trust_domains, &source.not_trust_domains)),
        (Who::Namespace, (&source.namespaces, &source.not_namespaces)),
        (Who::RemoteAddress, (&source.remote_ip_blocks, &source.not_remote_ip_blocks)),
        (Who::Address, (&source.ip_blocks, &source.not_ip_blocks)),
    ]
}

fn operation_terms(operation: &Operation) -> Vec<(What<'static>, Terms<'_>)> {
    vec![
        (What::Host, (&operation.hosts, &operation.not_hosts)),
        (What::Method, (&operation.methods, &operation.not_methods)),
        (What::Path, (&operation.paths, &operation.not_paths)),
        (What::Port, (&operation.ports, &operation.not_ports)),
    ]
}

fn principal_of<'a>(terms: impl Iterator<Item = (Who<'a>, Terms<'a>)>, cx: Context<'_>) -> Option<Principal> {
    let mut all = Vec::new();
    for (attribute, (values, not_values)) in terms {
        all.extend(any_principal(attribute, values, cx)?);
        all.extend(any_principal(attribute, not_values, cx)?.map(not_principal));
    }
    if all.is_empty() {
        all.push(identified(Identifier::Any(true)));
    }
    Some(identified(Identifier::AndIds(principal::Set { ids: all })))
}

fn permission_of<'a>(
    terms: impl Iterator<Item = (What<'a>, Terms<'a>)>,
    cx: Context<'_>,
) -> Option<Permission> {
    let mut all = Vec::new();
    for (attribute, (values, not_values)) in terms {
        all.extend(any_permission(attribute, values, cx)?);
        all.extend(any_permission(attribute, not_values, cx)?.map(not_permission));
    }
    if all.is_empty() {
        all.push(allowed(Allowed::Any(true)));
    }
    Some(allowed(Allowed::AndRules(permission::Set { rules: all })))
}

/// A principal for one of several values. The outer option is the verdict on the rule, the inner one is empty
/// if no value is left.
fn any_principal(attribute: Who<'_>, values: &[String], cx: Context<'_>) -> Option<Option<Principal>> {
    let migrated = match attribute {
        Who::Principal => cx.trust_domains.principals(values),
        Who::TrustDomain => cx.trust_domains.domains(values),
        _ => values.to_vec(),
    };
    if migrated.is_empty() {
        return Some(None);
    }
    // Tokens are matched as a whole: all values in one matcher.
    let whole = match attribute {
        Who::RequestPrincipal => Some(request_principal(&migrated, cx)),
        Who::Claim(claim) => Some(claim_principal(claim, &migrated, cx)),
        _ => None,
    };
    match whole {
        Some(Some(principal)) => Some(Some(principal)),
        Some(None) => (!cx.strict).then_some(None),
        None => {
            let ids = kept(migrated.iter().map(|value| principal(attribute, value, cx)), cx)?;
            Some((!ids.is_empty()).then(|| identified(Identifier::OrIds(principal::Set { ids }))))
        }
    }
}

fn any_permission(attribute: What<'_>, values: &[String], cx: Context<'_>) -> Option<Option<Permission>> {
    if values.is_empty() {
        return Some(None);
    }
    if let What::FilterMetadata(key) = attribute {
        return match filter_metadata(key, values) {
            Some(matcher) => Some(Some(allowed(Allowed::Metadata(matcher)))),
            None => (!cx.strict).then_some(None),
        };
    }
    let rules = kept(values.iter().map(|value| permission(attribute, value, cx)), cx)?;
    Some((!rules.is_empty()).then(|| allowed(Allowed::OrRules(permission::Set { rules }))))
}

/// What could be expressed; nothing if something could not and the rule is to be dropped for it.
fn kept<T>(parts: impl Iterator<Item = Option<T>>, cx: Context<'_>) -> Option<Vec<T>> {
    if cx.strict { parts.collect() } else { Some(parts.flatten().collect()) }
}

fn principal(attribute: Who<'_>, value: &str, cx: Context<'_>) -> Option<Principal> {
    let identity = |matcher| Some(peer(matcher, cx.filter_state));
    match attribute {
        Who::Address => Some(identified(Identifier::DirectRemoteIp(matchers::cidr(value)?))),
        Who::RemoteAddress => Some(identified(Identifier::RemoteIp(matchers::cidr(value)?))),
        Who::Namespace => {
            let parts: Vec<String> = value.split('*').map(matchers::quote).collect();
            identity(matchers::regex(format!(".*/ns/{}/.*", parts.join(".*"))))
        }
        Who::TrustDomain => identity(trust_domain(value)),
        Who::ServiceAccount => {
            let (namespace, account) = value.split_once('/').unwrap_or((cx.namespace, value));
            let (namespace, account) = (matchers::quote(namespace), matchers::quote(account));
            // A SPIFFE id may have more segments between and behind; "sa" and "sa-2" must not be taken for
            // each other.
            identity(matchers::regex(format!("{SCHEME}.+/ns/{namespace}/(.+/|)sa/{account}(/.+)?")))
        }
        Who::Principal => identity(matchers::wildcard_after(SCHEME, value)),
        Who::Header(name) if !cx.tcp => {
            let name = in_brackets(name)?;
            Some(identified(Identifier::Header(matchers::header(name, value, false))))
        }
        Who::Header(_) | Who::RequestPrincipal | Who::Claim(_) => None,
    }
}

fn peer(matcher: StringMatcher, filter_state: bool) -> Principal {
    identified(if filter_state {
        Identifier::FilterState(FilterStateMatcher {
            key: PEER_PRINCIPAL.to_owned(),
            matcher: Some(filter_state_matcher::Matcher::StringMatch(matcher)),
        })
    } else {
        Identifier::Authenticated(principal::Authenticated { principal_name: Some(matcher) })
    })
}

fn trust_domain(value: &str) -> StringMatcher {
    match value.split_once('*') {
        _ if value == "*" => matchers::prefix(SCHEME),
        None => matchers::prefix(identity::prefix_of(value)),
        Some((start, end)) => {
            matchers::regex(format!("{SCHEME}{}[^/]*{}/.*", matchers::quote(start), matchers::quote(end)))
        }
    }
}

/// Issuer and subject of a token; the issuer may contain slashes, the subject may not.
fn request_principal(values: &[String], cx: Context<'_>) -> Option<Principal> {
    if cx.tcp {
        return None;
    }
    let mut ids: Vec<Principal> = values
        .iter()
        .map(|value| {
            let (issuer, subject) = issuer_and_subject(value);
            let claim = |name, matcher| {
                let value = matchers::text_value(matcher);
                identified(Identifier::Metadata(matchers::metadata(JWT_FILTER, [JWT_PAYLOAD, name], value)))
            };
            let both = vec![claim("iss", issuer), claim("sub", subject)];
            identified(Identifier::AndIds(principal::Set { ids: both }))
        })
        .collect();
    if ids.len() == 1 { ids.pop() } else { Some(identified(Identifier::OrIds(principal::Set { ids }))) }
}

fn issuer_and_subject(value: &str) -> (StringMatcher, StringMatcher) {
    let present = matchers::present;
    let parts = value.rsplit_once('/');
    if value == "*" {
        return (present(), present());
    }
    if let Some(end) = value.strip_prefix('*') {
        return match parts {
            Some(("*", subject)) => (present(), matchers::exact(subject)),
            Some((issuer, subject)) => {
                (matchers::suffix(issuer.strip_prefix('*').unwrap_or(issuer)), matchers::exact(subject))
            }
            None => (present(), matchers::suffix(end)),
        };
    }
    if let Some(start) = value.strip_suffix('*') {
        return match parts {
            Some((issuer, "*")) => (matchers::exact(issuer), present()),
            Some((issuer, subject)) => {
                let start = subject.strip_suffix('*').unwrap_or(subject);
                (matchers::exact(issuer), matchers::prefix(start))
            }
            None => (matchers::prefix(start), present()),
        };
    }
    let (issuer, subject) = parts.unwrap_or((value, ""));
    (matchers::exact(issuer), matchers::exact(subject))
}

fn claim_principal(claim: Claim<'_>, values: &[String], cx: Context<'_>) -> Option<Principal> {
    if cx.tcp {
        return None;
    }
    let names = match claim {
        Claim::Named(name) => vec![name],
        Claim::Path(path) => in_nested_brackets(path)?,
    };
    let wanted = values.iter().map(|value| matchers::text_value(matchers::wildcard(value))).collect();
    let wanted = matchers::one_of(wanted);
    // A claim may be a text or a list of texts.
    let value = matchers::one_of(vec![matchers::list_value(wanted.clone()), wanted]);
    let path = std::iter::once(JWT_PAYLOAD).chain(names);
    Some(identified(Identifier::Metadata(matchers::metadata(JWT_FILTER, path, value))))
}

fn permission(attribute: What<'_>, value: &str, cx: Context<'_>) -> Option<Permission> {
    let http = !cx.tcp;
    Some(allowed(match attribute {
        What::Address => Allowed::DestinationIp(matchers::cidr(value)?),
        What::Port => Allowed::DestinationPort(u32::from(value.parse::<u16>().ok()?)),
        What::ServerName => Allowed::RequestedServerName(matchers::wildcard(value)),
        // Hosts are compared without regard to case (RFC 3986, 3.2.2).
        What::Host if http => Allowed::Header(matchers::header(":authority", value, true)),
        What::Method if http => Allowed::Header(matchers::header(":method", value, false)),
        What::Path if http => path(value),
        What::Host | What::Method | What::Path | What::FilterMetadata(_) => return None,
    }))
}

/// A path without query, with Istio's wildcards or as a template: `{*}` is one segment, `{**}` any number.
fn path(value: &str) -> Allowed {
    if value.contains("{*}") || value.contains("{**}") {
        let template = value.replace("{*}", "*").replace("{**}", "**");
        return Allowed::UriTemplate(TypedExtensionConfig {
            name: "uri-template".to_owned(),
            typed_config: Some(any(&UriTemplateMatchConfig { path_template: template })),
        });
    }
    Allowed::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(matchers::wildcard(value))) })
}

/// Metadata `envoy.filters.a.b[key]`; a value in brackets is an element of a list.
fn filter_metadata(key: &str, values: &[String]) -> Option<MetadataMatcher> {
    let (filter, key) = key.strip_suffix(']').unwrap_or(key).split_once('[')?;
    let wanted = values.iter().map(|value| {
        if value.starts_with('[') && value.ends_with(']') {
            let element = value.trim_matches(['[', ']']);
            matchers::list_value(matchers::text_value(matchers::wildcard(element)))
        } else {
            matchers::text_value(matchers::wildcard(value))
        }
    });
    Some(matchers::metadata(filter, [key], matchers::one_of(wanted.collect())))
}

/// The name in `[name]`.
fn in_brackets(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

/// The names in `[a][b]`. A name may contain brackets if it is the only one.
fn in_nested_brackets(text: &str) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let name = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        match name {
            Some((name, behind)) if !name.contains('[') => {
                names.push(name);
                rest = behind;
            }
            _ => return in_brackets(text).map(|name| vec![name]),
        }
    }
    Some(names)
}

fn identified(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

fn not_principal(principal: Principal) -> Principal {
    identified(Identifier::NotId(Box::new(principal)))
}

fn allowed(rule: Allowed) -> Permission {
    Permission { rule: Some(rule) }
}

fn not_permission(permission: Permission) -> Permission {
    allowed(Allowed::NotRule(Box::new(permission)))
}

#[cfg(test)]
mod tests;
